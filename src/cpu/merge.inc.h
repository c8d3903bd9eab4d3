/* SPDX-License-Identifier: MIT
 * merge.inc.h - template: partial results of chunks of keys -> o and lse, in key order; where the sink enters, once and only here.
 * Also the log of one number in a fixed order of operations. No scores and no masks: those were the chunks' work.
 *
 *     M = max m_c      w_c = e^(m_c - M)      L = sum w_c l_c      A[d] = sum w_c a_c[d]          over chunks c that saw a key
 *     with a sink z:   N = max(M, z)   f = e^(M - N)   o[d] = f A[d] / (f L + e^(z - N))   lse = N + ln(f L + e^(z - N))
 *     without:         o[d] = A[d] / L                                                     lse = M + ln L
 *
 * A chunk that saw nothing (l = 0, exactly) is skipped, so it is an identity bit for bit, and one chunk alone has w = 1.
 */
#ifndef HEED_MERGE_INC_H
#define HEED_MERGE_INC_H

#include "cells.inc.h"
#include "lanes.inc.h"

#include <math.h>
#include <string.h>

static inline float exp_one(float x)
{
    float lanes[VW];
    vstore(lanes, vexp(vset1(x)));
    return lanes[0];
}

/* ln x for a positive normal or larger x, in double: x = 2^e m with m in [sqrt(1/2), sqrt(2)), ln m = 2 atanh((m - 1) / (m + 1)).
 * Within 1e-15, and the same bits everywhere, which the C library does not promise. */
static inline double log_one(double x)
{
    if (!(x > 0) || x > 1e300) return x > 0 ? x : (x == 0 ? -(double)INFINITY : (double)NAN);
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int64_t e = (int64_t)(bits >> 52) - 1023;
    bits = (bits & 0x000fffffffffffff) | 0x3ff0000000000000;
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m > 1.4142135623730951) m *= 0.5, e++;
    const double t = (m - 1) / (m + 1), u = t * t;
    double sum = 0;
    for (int k = 23; k >= 1; k -= 2) sum = sum * u + 1.0 / k; /* u <= 0.0295: the first term left out is below 1e-19 */
    return (double)e * 0.69314718055994530942 + 2 * t * sum;
}

/* One row's partial results: chunk c has v_head_dim accumulators at values + c * value_step and (m, l) at sums + c * sum_step. */
struct parts {
    const float *values, *sums;
    int64_t value_step, sum_step;
    int32_t chunks;
};

/* A[d] into `to`; returns M and L, -infinity and 0 where no chunk saw a key. */
static inline void merge_chunks(const struct parts *parts, int32_t dim, float *to, float *m_out, float *l_out)
{
    float m = -INFINITY, l = 0;
    bool any = false;
    for (int32_t c = 0; c < parts->chunks; c++)
        if (parts->sums[c * parts->sum_step] > m) m = parts->sums[c * parts->sum_step];
    const float shift = m == -INFINITY ? 0 : m; /* every visible score NaN: the sums are NaN and stay it */
    for (int32_t c = 0; c < parts->chunks; c++) {
        const float *sums = parts->sums + c * parts->sum_step, *from = parts->values + c * parts->value_step;
        if (sums[1] == 0) continue;
        const float weight = MUTANT(cpu_merge_no_rescale) ? 1 : exp_one(sums[0] - shift);
        const vf w = vset1(weight);
        int32_t d = 0;
        if (!any) {
            l = weight * sums[1];
            for (; d + VW <= dim; d += VW) vstore(to + d, vmul(w, vload(from + d)));
            for (; d < dim; d++) to[d] = weight * from[d];
        } else {
            l = __builtin_fmaf(weight, sums[1], l);
            for (; d + VW <= dim; d += VW) vstore(to + d, vfma(w, vload(from + d), vload(to + d)));
            for (; d < dim; d++) to[d] = __builtin_fmaf(weight, from[d], to[d]);
        }
        any = true;
    }
    *m_out = m;
    *l_out = l;
}

/* lse as the flags want it, rounded once. m is the maximum and l the sum relative to it; l = 0: nothing was seen. */
static inline float lse_of(const struct problem *p, float m, float l)
{
    double lse = l == 0 ? -(double)INFINITY : (double)m + log_one((double)l);
    if (MUTANT(cpu_merge_empty_lse) && l == 0) lse = 0;
    if (p->flags & HEED_LSE_BASE2) lse *= 1.4426950408889634074; /* 1 / ln 2 */
    return (float)lse;
}

/* to[d] = A[d] factor / l, rounded at each step; o's type comes after it. With tiles A[d] (factor / l), as prefill has it there. */
static inline void divide_row(float *to, int32_t dim, float factor, float l)
{
    if (CELL_TILES && !MUTANT(cpu_tiles_merge_divide)) factor /= l, l = 1;
    const vf f = vset1(factor), by = vset1(l);
    int32_t d = 0;
    for (; d + VW <= dim; d += VW) vstore(to + d, vdiv(vmul(vload(to + d), f), by));
    for (; d < dim; d++) to[d] = to[d] * factor / l;
}

/* One row's parts -> o and lse. scratch: v_head_dim floats. */
static inline void merge_row(const struct call *call, int32_t b, int32_t h, int32_t i, const struct parts *parts, float *scratch)
{
    const struct problem *p = &call->plan->problem;
    const struct sequence *s = &call->batch->sequences[b];
    const int32_t dim = p->v_head_dim;
    float m, l, factor = 1;
    merge_chunks(parts, dim, scratch, &m, &l);
    const bool seen = l != 0; /* NaN is seen */
    float lse_m = m, lse_l = l, all_m = m;
    const float sink = (p->flags & HEED_SINKS) ? ((const float *)call->sinks.data)[h] : -INFINITY;
    if (sink != -INFINITY && !MUTANT(cpu_merge_no_sink)) {
        const float n = seen && !(sink > m) ? m : sink, shift = n == -INFINITY ? 0 : n;
        factor = seen ? exp_one(m - shift) : 0;
        l = (seen ? factor * l : 0) + exp_one(sink - shift);
        all_m = n;
        if (!(p->flags & HEED_LSE_WITHOUT_SINK) || MUTANT(cpu_merge_lse_with_sink)) lse_m = n, lse_l = l;
    }
    if (p->flags & HEED_WRITE_LSE) *(float *)query_row(&call->lse, s, b, h, i) = lse_of(p, lse_m, lse_l);
    keep_sums(call, s, h, i, all_m, l);
    if (seen)
        divide_row(scratch, dim, factor, l);
    else
        memset(scratch, 0, (size_t)dim * sizeof *scratch); /* +0, exactly */
    store_row(p->o_type, query_row(&call->o, s, b, h, i), scratch, dim);
}

/* All rows of a merge item: chunk c of row r is partial row part + c * rows + r. */
static void merge_parts_rows(const struct call *call, const struct merge_item *merge, void *scratch)
{
    const struct problem *p = &call->plan->problem;
    const int32_t per_query = merge->rows / (merge->q_end - merge->q_begin); /* the group, or 1 */
    for (int32_t r = 0; r < merge->rows; r++) {
        const struct parts parts = {.values = part_values(call, merge->part + r),
                                    .sums = part_sums(call, merge->part + r),
                                    .value_step = (int64_t)merge->rows * p->v_head_dim,
                                    .sum_step = 2 * (int64_t)merge->rows,
                                    .chunks = merge->chunks};
        merge_row(call, merge->sequence, merge->head * per_query + r % per_query, merge->q_begin + r / per_query, &parts, scratch);
    }
}
#endif
