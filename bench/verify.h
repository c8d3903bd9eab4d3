/* SPDX-License-Identifier: MIT
 * verify.h - is what was timed also right? Rows of the result against the reference, inside their bounds.
 */
#ifndef HEED_BENCH_VERIFY_H
#define HEED_BENCH_VERIFY_H

#include "harness.h"

/* Largest error / bound of the outputs that the instance holds (host memory) after a run of `prepared`. The reference is slow, so rows
 * are taken evenly over the whole result until about `budget` multiplications are spent; *checked says how many of *rows. */
heed_status verify_rows(const struct prepared *prepared, struct instance *instance, double budget, double *worst, int64_t *checked,
                        int64_t *rows);

/* The same for scores and key sums, with every row, where that takes no more than `budget` multiply-adds; else nothing. */
heed_status verify_scores(const struct prepared *prepared, const struct instance *instance, double budget, double *worst, int64_t *checked);

#endif
