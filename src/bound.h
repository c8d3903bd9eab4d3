/* SPDX-License-Identifier: MIT
 * bound.h - how far a computed number may be off: one bound per output element, derived in doc/accuracy.md from the data, the types and the
 * row's arithmetic. No tolerance to tune.
 */
#ifndef HEED_BOUND_H
#define HEED_BOUND_H

#include "internal.h"
#include "reference.h"

/* Bounds of one row already computed by reference_compute(): o_bound [v_head_dim], *lse_bound. */
void bound_row(const struct call *call, int32_t b, int32_t h, int32_t i, const struct reference_row *row,
               const struct arithmetic *arithmetic, double *o_bound, double *lse_bound);

/* How far m + ln l, kept by a row of `arithmetic`, lies from lse beside their own roundings; *e_max: error of the maximum. */
double bound_sums(const struct problem *problem, const struct reference_row *row, const struct arithmetic *arithmetic, double *e_max);
/* The same row as the pass over the scores sees it: score_bound [kv_len] for the problem's stage, weight_bounds [kv_len] of the probabilities before
 * they are added (either may be NULL). `attention`: of the row that kept m and l; `scores`: of the pass. */
void bound_scores(const struct problem *problem, const struct reference_row *row, const struct arithmetic *attention,
                  const struct arithmetic *scores, double *score_bound, double *weight_bounds);
/* Of a key's sum over `rows` queries (and, by the flags, all heads) whose probabilities are together `sum`, their bounds together `weights`. */
double bound_key_sum(const struct problem *problem, const struct arithmetic *scores, int32_t rows, double sum, double weights);

/* The outer wall of data/README.md (any order, exp 4 ulp and 4 roundings, tiles of 16): what an unknown kernel is held to. */
extern const struct arithmetic bound_wall;

/* good = got == want or |got - want| <= bound; NaN fails unless both are NaN (a visible NaN is then demanded). */
bool bound_holds(double got, double want, double bound);

#endif
