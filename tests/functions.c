/* SPDX-License-Identifier: MIT
 * functions.c - exp2, exp and softcap as the rows of one instruction set compute them, for test_functions.c: WORDS_HEADER is its vector language,
 * WORDS_NAME its name. Nothing is judged here.
 */
#include WORDS_HEADER
#include "functions.h"

#define CAT_(a, b) a##b
#define CAT(a, b) CAT_(a, b)

#define OVER(function)                                                                                    \
    static void over_##function(const float *x, float *to, int count)                                     \
    {                                                                                                     \
        for (int i = 0; i < count; i += VW) vstore(to + i, function(vload(x + i)));                       \
    }
OVER(vexp2)
OVER(vexp)
OVER(vexp_near)
static inline vf vtanh(vf x) { return vsoftcap(x, vset1(1), vset1(1)); }
static inline vf vsoftcap_50(vf x) { return vsoftcap(x, vset1(50), vset1(1 / 50.0f)); }
OVER(vtanh)
OVER(vsoftcap_50)

const struct functions CAT(functions_, WORDS_NAME) = {VEC_NAME, VEC_FUSED, over_vexp2, over_vexp, over_vexp_near, over_vtanh, over_vsoftcap_50};
