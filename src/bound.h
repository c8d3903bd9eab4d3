/* SPDX-License-Identifier: MIT
 * bound.h - how far a computed number may be off: one bound per output element, derived in doc/accuracy.md from the data, the types and the
 * row's arithmetic. No tolerance to tune.
 */
#ifndef HEED_BOUND_H
#define HEED_BOUND_H

#include "internal.h"
#include "reference.h"

/* Bounds of one row already computed by reference_compute(): o_bound [v_head_dim], *lse_bound, and, where scores are written,
 * score_bound [kv_len] for the problem's stage (NULL otherwise). */
void bound_row(const struct call *call, int32_t b, int32_t h, int32_t i, const struct reference_row *row,
               const struct arithmetic *arithmetic, double *o_bound, double *lse_bound, double *score_bound);

/* The outer wall of data/README.md (any order, exp 4 ulp and 4 roundings, tiles of 16): what an unknown kernel is held to. */
extern const struct arithmetic bound_wall;

/* good = got == want or |got - want| <= bound; NaN fails unless both are NaN (a visible NaN is then demanded). */
bool bound_holds(double got, double want, double bound);

#endif
