/* SPDX-License-Identifier: MIT
 * peers.h - other implementations beside heed, timed in the same run on the same arrays. A peer says what it cannot do and why it is not
 * there; it is never given an easier problem, and it chooses its own best setting for each one.
 */
#ifndef HEED_BENCH_PEERS_H
#define HEED_BENCH_PEERS_H

#include "harness.h"

struct services;

/* Text that a function returns belongs to the peer and lasts until its next call. */
struct peer {
    const char *name;
    /* Why it is not there ("libblis.so.4 is not installed"); NULL = it is. Asked first, once. */
    const char *(*absent)(const struct peer *self);
    const char *(*version)(const struct peer *self);
    /* Why it cannot do this problem; NULL = it can. */
    const char *(*refuses)(const struct peer *self, const struct instance *instance);
    /* Takes a problem: memory, and the fastest of its settings. NULL, or why it failed; peer_cannot if it only now sees that it cannot. */
    const char *(*begin)(const struct peer *self, const struct services *services, const struct instance *instance);
    /* `count` runs into o (laid out like the instance's own o), seconds[count]. NULL, or why it failed. */
    const char *(*run)(const struct peer *self, float *o, int count, double *seconds);
    /* The result of the last run into o, for peers in another process; NULL: it is there already. */
    const char *(*fetch)(const struct peer *self, float *o);
    const char *(*setting)(const struct peer *self); /* which one begin() chose */
    bool (*on_heed_threads)(const struct peer *self); /* in that setting: on the bench's pool, not on threads of its own */
    void (*end)(const struct peer *self);
    int number;
};

enum { MOST_PEERS = 16 };

/* Where the next contest takes place, for peers that run on an OpenCL device: set before contest_open(). kernel: the row that heed takes there. */
extern struct peers_place {
    heed_context *context;
    int32_t device;
    const char *kernel;
} peers_place;

/* All peers this build knows and those that bench/peers/python_peers.py reports; `list` ends with NULL. threads: the bench's. */
void peers_open(const struct peer *list[MOST_PEERS + 1], int threads);
void peers_close(void);
/* What this process and that of the Python peers have used of the CPUs, all threads together. */
double peers_cpu_seconds(void);

extern const char peer_cannot[];
extern const struct peer peer_plain_loops, peer_openblas, peer_blis, peer_onednn, peer_clblast;
extern const struct peer peer_naive_row; /* asked for by an option of its own */

/* Appends the Python peers to the list, from *count on. */
void python_open(const struct peer *list[MOST_PEERS + 1], int *count, int threads);
void python_close(void);
double python_cpu_seconds(void);

#endif
