/* SPDX-License-Identifier: MIT
 * panel_few.inc.h - template, part of panel.inc.h: the products of a panel that would leave half of its lanes idle. Lanes are keys in the scores
 * and dimensions in the sums of values, so every lane works; each chain runs in the order of panel.inc.h, so the bits are the same. That is
 * what makes HEED_INVARIANT cheap for a token alone.
 *
 *     S [row][key]  = a scalar of Q per row and d x K^T [d][key], transposed in registers; then stored as panel.inc.h has it, [key][row]
 *     O [row][d]    = a scalar of P per row and key x V as it lies
 *
 * Where cells hold two bf16 there are the scores alone, for the pass over scores: V would have to be zipped first.
 */
#ifndef HEED_PANEL_FEW_INC_H
#define HEED_PANEL_FEW_INC_H

enum { SCORE_FEW_MOST = VW >= 16 || (CELL == 1 && VW >= 8) ? VW / 2 : 0, FEW_MOST = CELL == 1 ? SCORE_FEW_MOST : 0 }; /* rows of a panel without values, and with */

/* Floats from row to row of O. */
static inline ptrdiff_t few_step(int v_head_dim) { return (v_head_dim + VW - 1) / VW * VW; }

/* Scores of `keys` keys for R rows, and the running maximum; what panel.inc.h says of score_tile_of holds. dim in cells; type: F32 where they are pairs.
 * `ahead`, if not 0: rows so many further on in the tables are fetched, one after the other, but evenly over the work: many lines at once would be waited for. */
INLINE void score_few_of(const heed_type type, const int R, const float *q, ptrdiff_t width, const unsigned char *const *k, int ahead, int keys,
                         int dim, float scale, float *p, float *top)
{
    vf best = vload(top);
    for (int x = 0; x < keys; x += VW) {
        const unsigned char *rows[VW];
        vf acc[VW], t[VW];
        int fetched = 0;
        for (int n = 0; n < VW; n++) rows[n] = k[x + n < keys || MUTANT(cpu_few_behind_keys) ? x + n : keys - 1];
        UNROLL for (int r = 0; r < R; r++) acc[r] = vset1(0);
        for (int d = 0; d + VW <= dim; d += VW) {
            for (; ahead && fetched * dim < VW * (d + VW); fetched++)
                for (int z = 0; z < dim; z += line_elements(type)) vprefetch(row_address(type, k[x + ahead + fetched], z));
            load_across(type, rows, d, VW, t);
            UNROLL for (int e = 0; e < VW; e++)
                UNROLL for (int r = 0; r < R; r++) acc[r] = vmac(acc[r], vset1(q[(d + e) * width + r]), t[e]);
        }
        if (dim % VW) {
            const int d = dim / VW * VW - (MUTANT(cpu_few_dims) ? 1 : 0);
            load_across(type, rows, d, dim - d, t);
            for (int e = 0; e < dim - d; e++)
                UNROLL for (int r = 0; r < R; r++) acc[r] = vmac(acc[r], vset1(q[(d + e) * width + r]), t[e]);
        }
        UNROLL for (int r = 0; r < VW; r++) acc[r] = r < R ? CELL > 1 && !MUTANT(cpu_pairs_few_scale) ? vmul(acc[r], vset1(scale)) : acc[r] : vset1(0);
        vtranspose(acc);
        for (int n = 0; n < VW && x + n < keys; n++) {
            vstore(p + (x + n) * width, acc[n]);
            best = vmax(best, acc[n]);
        }
    }
    vstore(top, best);
}

#if defined(VEC_HALVES) && CELL == 1
#include "panel_half.inc.h"
#define IN_HALVES(R) ((R) == HALF_ROWS)
#else
#define IN_HALVES(R) false
#define score_halves(...) ((void)0)
static inline ptrdiff_t half_floats(int head_dim) { return 0 * head_dim; }
#endif

/* Columns d to d + C vectors, or `count` of one, of R rows of O; rescaling as in value_tile_of. */
INLINE void value_few_of(const heed_type type, const int R, const int C, int count, float *o, ptrdiff_t o_step, const unsigned char *const *v,
                         int ahead, int d, const float *p, ptrdiff_t width, int keys, const float *fade)
{
    vf acc[FEW_MOST + 1][16];
    o += d;
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int c = 0; c < C; c++) acc[r][c] = vmul(vload(o + r * o_step + c * VW), vset1(MUTANT(cpu_few_rescale) ? fade[0] : fade[r]));
    const bool line = ahead && d % line_elements(type) == 0;
    for (int j = 0; j < keys; j++, p += width) {
        if (line)
            for (int z = 0; z < C * VW; z += line_elements(type)) vprefetch(row_address(type, v[j + ahead], d + z));
        const unsigned char *row = v[j];
        const vf first = vset1(p[0]);
        vf x[16];
        UNROLL for (int c = 0; c < C; c++) {
            x[c] = count < VW ? vload_row_n(type, row, d, count) : vload_row(type, row, d + c * VW);
            acc[0][c] = vfma(x[c], first, acc[0][c]); /* at once: one row has no use for x again */
        }
        UNROLL for (int r = 1; r < R; r++) {
            const vf w = vset1(p[r]);
            UNROLL for (int c = 0; c < C; c++) acc[r][c] = vfma(x[c], w, acc[r][c]);
        }
    }
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int c = 0; c < C; c++) vstore(o + r * o_step + c * VW, acc[r][c]);
}

typedef void (*score_few_fn)(const float *q, ptrdiff_t width, const unsigned char *const *k, int ahead, int keys, int dim, float scale, float *copy,
                             float *p, float *top);
typedef void (*value_few_fn)(float *o, ptrdiff_t o_step, const unsigned char *const *v, int ahead, const float *p, ptrdiff_t width, int keys,
                             int d, int end, const float *fade);

/* R rows, C vectors of columns side by side: R C accumulators, half of the registers. Columns [d, end). */
#define SCORE_FEW_FUNCTION(name, type, R)                                                                                            \
    NOINLINE void score_few_##name##_##R(const float *q, ptrdiff_t width, const unsigned char *const *k, int ahead, int keys, int dim,     \
                                         float scale, float *copy, float *p, float *top)                                             \
    {                                                                                                                                \
        (void)copy;                                                                                                                  \
        if (IN_HALVES(R))                                                                                                            \
            score_halves(type, q, width, k, ahead, keys, dim, copy, p, top);                                                         \
        else                                                                                                                         \
            score_few_of(type, R, q, width, k, ahead, keys, dim, scale, p, top);                                                     \
    }
#define FEW_FUNCTIONS(name, type, R, C)                                                                                              \
    SCORE_FEW_FUNCTION(name, type, R)                                                                                                \
    NOINLINE void value_few_##name##_##R(float *o, ptrdiff_t o_step, const unsigned char *const *v, int ahead, const float *p,         \
                                         ptrdiff_t width, int keys, int d, int end, const float *fade)                               \
    {                                                                                                                                \
        for (; d + C * VW <= end; d += C * VW) value_few_of(type, R, C, VW, o, o_step, v, ahead, d, p, width, keys, fade);           \
        for (; d + VW <= end; d += VW) value_few_of(type, R, 1, VW, o, o_step, v, ahead, d, p, width, keys, fade);                   \
        if (d < end) value_few_of(type, R, 1, end - d, o, o_step, v, ahead, d, p, width, keys, fade);                                \
    }
#if VW >= 16
#define SCORE_FEW(name) {score_few_##name##_1, score_few_##name##_2, score_few_##name##_4, score_few_##name##_8}
#else
#define SCORE_FEW(name) {score_few_##name##_1, score_few_##name##_2, score_few_##name##_4}
#endif
#if CELL == 1 && VW >= 8
#if VW >= 16
#define FEW_TYPE(name, type)                                                                                                \
    FEW_FUNCTIONS(name, type, 1, 8) FEW_FUNCTIONS(name, type, 2, 8) FEW_FUNCTIONS(name, type, 4, 4) FEW_FUNCTIONS(name, type, 8, 2)
#define VALUE_FEW(name) {value_few_##name##_1, value_few_##name##_2, value_few_##name##_4, value_few_##name##_8}
#else
#define FEW_TYPE(name, type) FEW_FUNCTIONS(name, type, 1, 8) FEW_FUNCTIONS(name, type, 2, 4) FEW_FUNCTIONS(name, type, 4, 2)
#define VALUE_FEW(name) {value_few_##name##_1, value_few_##name##_2, value_few_##name##_4}
#endif
FEW_TYPE(f32, HEED_F32)
FEW_TYPE(f16, HEED_F16)
FEW_TYPE(bf16, HEED_BF16)
static const score_few_fn score_few[][4] = {
    [HEED_F32] = SCORE_FEW(f32), [HEED_F16] = SCORE_FEW(f16), [HEED_BF16] = SCORE_FEW(bf16)};
static const value_few_fn value_few[][4] = {
    [HEED_F32] = VALUE_FEW(f32), [HEED_F16] = VALUE_FEW(f16), [HEED_BF16] = VALUE_FEW(bf16)};
#elif VW >= 16
SCORE_FEW_FUNCTION(cells, HEED_F32, 1)
SCORE_FEW_FUNCTION(cells, HEED_F32, 2)
SCORE_FEW_FUNCTION(cells, HEED_F32, 4)
SCORE_FEW_FUNCTION(cells, HEED_F32, 8)
static const score_few_fn score_few[HEED_BF16 + 1][4] = {[HEED_F32] = SCORE_FEW(cells)};
static const value_few_fn value_few[HEED_BF16 + 1][4];
#else
static const score_few_fn score_few[HEED_BF16 + 1][4];
static const value_few_fn value_few[HEED_BF16 + 1][4];
#endif

/* Functions for so many rows, by the logarithm. */
static int few_tile(int rows) { return rows == 1 ? 0 : rows == 2 ? 1 : rows <= 4 ? 2 : 3; }

/* As value_select(); v as f32. */
static void value_select_few(float *o, ptrdiff_t o_step, int rows, const float *v, ptrdiff_t step, const float *p, ptrdiff_t width, int keys,
                             int dim, const float *fade)
{
    for (int r = 0; r < rows; r++)
        for (int d = 0; d < dim; d += VW) {
            const int n = dim - d < VW ? dim - d : VW;
            vf acc = vmul(vload(o + r * o_step + d), vset1(fade[r]));
            for (int j = 0; j < keys; j++)
                if (bits_of(p[j * width + r]) != 0x80000000) acc = vfma(vload_n(v + j * step + d, n), vset1(p[j * width + r]), acc);
            vstore(o + r * o_step + d, acc);
        }
}
#endif
