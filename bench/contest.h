/* SPDX-License-Identifier: MIT
 * contest.h - heed and its peers on one problem: each peer is checked against heed's result before it is timed, then all take turns in one
 * run, so that they see the same minutes of the machine.
 */
#ifndef HEED_BENCH_CONTEST_H
#define HEED_BENCH_CONTEST_H

#include "peers/peers.h"

enum { TIME_PIECES = 20 };

/* piece: means of consecutive stretches of the runs, in their order: samples that two benches may be compared by, since single runs that follow each
 * other resemble each other. */
struct times { double median, least, most, spread, mean, piece[TIME_PIECES]; int runs, pieces; };

struct entrant {
    const struct peer *peer; /* NULL: heed */
    double *seconds;         /* [MOST_RUNS] */
    int runs, burst;         /* runs of one turn, so that a turn is long against the change of turns */
    double total;
    struct times times;
    double apart;            /* largest difference of o from heed's, over heed's largest element */
    char setting[100];
    char why[200];           /* why it was not timed: wrong, or failed; empty: it was */
    bool wrong, timed;
};

struct contest {
    const struct services *services;
    struct prepared *prepared;
    void *queue;                /* not NULL: heed's runs are enqueued on it, `queued` at a time */
    int queued;
    struct instance *instance;  /* holds heed's result, already verified */
    struct entrant entrant[MOST_PEERS + 1]; /* [0] is heed */
    int count;
    float *o;                   /* laid out like the instance's own, in f32 */
};

/* The peers of `list` (NULL: none) that do not refuse the problem, checked. */
heed_status contest_open(struct contest *contest, const struct services *services, struct prepared *prepared, struct instance *instance,
                         const struct peer *const *list);
heed_status contest_run(struct contest *contest);
void contest_close(struct contest *contest);

#endif
