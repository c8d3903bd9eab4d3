/* SPDX-License-Identifier: MIT
 * summary.h - what a whole run of the bench says: where a peer was faster, where a shape is much slower than one beside it, and whether the
 * cost stays linear in the number of keys.
 */
#ifndef HEED_BENCH_SUMMARY_H
#define HEED_BENCH_SUMMARY_H

#include "contest.h"

/* One problem on one device, timed. */
struct point {
    struct problem_line line;
    int32_t device;
    double seconds, least, gflops, work; /* seconds: the median; work: useful floating-point operations */
    double baseline, peer, naive; /* seconds of the best of plain loops and unfused products, of the best peer, of the table's last row; NaN: none */
    const char *baseline_name, *peer_name;
};

struct summary { struct point *points; int count, room; };

/* false: no memory. */
bool summary_add(struct summary *summary, const struct contest *contest, int32_t device, double work);
void summary_print(const struct summary *summary, FILE *file);
void summary_free(struct summary *summary);

#endif
