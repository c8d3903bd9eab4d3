/* SPDX-License-Identifier: MIT
 * reference_rig.h - for the tests of the definition: comparisons that print both values, and three keys that give every visibility its own output.
 */
#ifndef HEED_REFERENCE_RIG_H
#define HEED_REFERENCE_RIG_H

#include "rig.h"
#include "view.h"

#include <criterion/criterion.h>
#include <float.h>

#define NEAR(got, want)                                                                                                                  \
    cr_assert(fabs((double)(got) - (double)(want)) <= 1e-12 * (1 + fabs((double)(want))), "%s is %.17g, not %.17g", #got, (double)(got), \
              (double)(want))
#define SAME(got, want) cr_assert((got) == (want), "%s is %.17g, not %.17g", #got, (double)(got), (double)(want))
#define PLUS_ZERO(got) cr_assert((got) == 0 && !signbit(got), "%s is %g, not +0", #got, (double)(got))

/* Three keys with logits 0, 1, 2 (q = 1, k = j) and values 1, 10, 100: every visibility has its own output. */
static const float three_q[4] = {1, 1, 1, 1}, three_k[4] = {0, 1, 2, 3}, three_v[4] = {1, 10, 100, 1000};

/* Output of a softmax over the keys of `visible` (bits) and a sink. */
static inline double three_want(unsigned visible, double sink)
{
    double l = exp(sink), o = 0;
    for (int j = 0; j < 4; j++)
        if (visible >> j & 1) l += exp((double)j), o += exp((double)j) * (double)three_v[j];
    return o / l;
}

static inline void three_init(struct rig *r, int32_t q_len, int32_t kv_len)
{
    rig_init(r, 1, 1, q_len, kv_len, 1, 1);
    rig_tensors(r, three_q, three_k, three_v, NULL, NULL);
}

#endif
