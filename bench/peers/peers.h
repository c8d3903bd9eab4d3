/* SPDX-License-Identifier: MIT
 * peers.h - other implementations beside heed, timed in the same run on the same arrays. A peer says what it cannot do; it is never given
 * an easier problem.
 */
#ifndef HEED_BENCH_PEERS_H
#define HEED_BENCH_PEERS_H

#include "harness.h"

struct peer {
    const char *name;
    const char *(*version)(void);
    /* Why it cannot do this problem; NULL = it can. */
    const char *(*refuses)(const struct instance *instance);
    /* Computes into o (laid out like the instance's own o). False: no memory. */
    bool (*run)(const struct services *services, const struct instance *instance, float *o);
};

extern const struct peer *const peers[]; /* ended by NULL */

extern const struct peer peer_plain_loops;
#ifdef HEED_PEER_OPENBLAS
extern const struct peer peer_openblas;
#endif

#endif
