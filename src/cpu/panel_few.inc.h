/* SPDX-License-Identifier: MIT
 * panel_few.inc.h - template, part of panel.inc.h: the products of a panel that would leave half of its lanes idle. Lanes are keys in the scores
 * and dimensions in the sums of values, so every lane works; each chain runs in the order of panel.inc.h, so the bits are the same. That is
 * what makes HEED_INVARIANT cheap for a token alone.
 *
 *     S [row][key]  = a scalar of Q per row and d x K^T [d][key], transposed in registers; then stored as panel.inc.h has it, [key][row]
 *     O [row][d]    = a scalar of P per row and key x V as it lies
 */
#ifndef HEED_PANEL_FEW_INC_H
#define HEED_PANEL_FEW_INC_H

#if CELL == 1 && VW >= 8
enum { FEW_MOST = VW / 2 };
#else
enum { FEW_MOST = 0 };
#endif

/* Floats from row to row of O. */
static inline ptrdiff_t few_step(int v_head_dim) { return (v_head_dim + VW - 1) / VW * VW; }

/* t[e] lane n = element d + e of key n; elements from `count` on are zeros. */
INLINE void load_keys_across(const float *const *rows, int d, int count, vf t[VW])
{
    if (count >= VW)
        UNROLL for (int n = 0; n < VW; n++) t[n] = vload(rows[n] + d);
    else
        for (int n = 0; n < VW; n++) t[n] = vload_n(rows[n] + d, count);
    vtranspose(t);
}

/* Scores of `keys` keys for R rows, and the running maximum; what panel.inc.h says of score_tile_of holds. */
INLINE void score_few_of(const int R, const float *q, ptrdiff_t width, const float *k, ptrdiff_t step, int keys, int dim, float *p, float *top)
{
    vf best = vload(top);
    for (int x = 0; x < keys; x += VW) {
        const float *rows[VW];
        vf acc[VW], t[VW];
        for (int n = 0; n < VW; n++) rows[n] = k + (x + n < keys || MUTANT(cpu_few_behind_keys) ? x + n : keys - 1) * step;
        UNROLL for (int r = 0; r < R; r++) acc[r] = vset1(0);
        for (int d = 0; d + VW <= dim; d += VW) {
            load_keys_across(rows, d, VW, t);
            UNROLL for (int e = 0; e < VW; e++)
                UNROLL for (int r = 0; r < R; r++) acc[r] = vfma(t[e], vset1(q[(d + e) * width + r]), acc[r]);
        }
        if (dim % VW) {
            const int d = dim / VW * VW - (MUTANT(cpu_few_dims) ? 1 : 0);
            load_keys_across(rows, d, dim - d, t);
            for (int e = 0; e < dim - d; e++)
                UNROLL for (int r = 0; r < R; r++) acc[r] = vfma(t[e], vset1(q[(d + e) * width + r]), acc[r]);
        }
        UNROLL for (int r = R; r < VW; r++) acc[r] = vset1(0);
        vtranspose(acc);
        for (int n = 0; n < VW && x + n < keys; n++) {
            vstore(p + (x + n) * width, acc[n]);
            best = vmax(best, acc[n]);
        }
    }
    vstore(top, best);
}

/* Columns [0, C vectors), or `count` of one, of R rows of O; rescaling as in value_tile_of. */
INLINE void value_few_of(const int R, const int C, int count, float *o, ptrdiff_t o_step, const float *v, ptrdiff_t step, const float *p,
                         ptrdiff_t width, int keys, const float *fade)
{
    vf acc[FEW_MOST + 1][16];
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int c = 0; c < C; c++) acc[r][c] = vmul(vload(o + r * o_step + c * VW), vset1(MUTANT(cpu_few_rescale) ? fade[0] : fade[r]));
    for (int j = 0; j < keys; j++, v += step, p += width) {
        vf x[16];
        UNROLL for (int c = 0; c < C; c++) x[c] = count < VW ? vload_n(v, count) : vload(v + c * VW);
        UNROLL for (int r = 0; r < R; r++) {
            const vf w = vset1(p[r]);
            UNROLL for (int c = 0; c < C; c++) acc[r][c] = vfma(x[c], w, acc[r][c]);
        }
    }
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int c = 0; c < C; c++) vstore(o + r * o_step + c * VW, acc[r][c]);
}

/* R rows, C vectors of columns side by side: R C accumulators, half of the registers. */
#define FEW_FUNCTIONS(R, C)                                                                                                          \
    NOINLINE void score_few_##R(const float *q, ptrdiff_t width, const float *k, ptrdiff_t step, int keys, int dim, float *p, float *top) \
    {                                                                                                                                \
        score_few_of(R, q, width, k, step, keys, dim, p, top);                                                                       \
    }                                                                                                                                \
    NOINLINE void value_few_##R(float *o, ptrdiff_t o_step, const float *v, ptrdiff_t step, const float *p, ptrdiff_t width, int keys, \
                                int dim, const float *fade)                                                                          \
    {                                                                                                                                \
        int d = 0;                                                                                                                   \
        for (; d + C * VW <= dim; d += C * VW) value_few_of(R, C, VW, o + d, o_step, v + d, step, p, width, keys, fade);             \
        for (; d + VW <= dim; d += VW) value_few_of(R, 1, VW, o + d, o_step, v + d, step, p, width, keys, fade);                     \
        if (d < dim) value_few_of(R, 1, dim - d, o + d, o_step, v + d, step, p, width, keys, fade);                                  \
    }
#if CELL == 1 && VW == 16
FEW_FUNCTIONS(1, 8)
FEW_FUNCTIONS(2, 8)
FEW_FUNCTIONS(4, 4)
FEW_FUNCTIONS(8, 2)
#elif CELL == 1 && VW == 8
FEW_FUNCTIONS(1, 8)
FEW_FUNCTIONS(2, 4)
FEW_FUNCTIONS(4, 2)
#endif

static void score_few(const float *q, ptrdiff_t width, int rows, const float *k, ptrdiff_t step, int keys, int dim, float *p, float *top)
{
    (void)q, (void)width, (void)rows, (void)k, (void)step, (void)keys, (void)dim, (void)p, (void)top;
#if CELL == 1 && VW >= 8
    if (rows == 1) score_few_1(q, width, k, step, keys, dim, p, top);
    else if (rows == 2) score_few_2(q, width, k, step, keys, dim, p, top);
    else if (rows <= 4) score_few_4(q, width, k, step, keys, dim, p, top);
#if VW == 16
    else score_few_8(q, width, k, step, keys, dim, p, top);
#endif
#endif
}

static void value_few(float *o, ptrdiff_t o_step, int rows, const float *v, ptrdiff_t step, const float *p, ptrdiff_t width, int keys, int dim,
                      const float *fade)
{
    (void)o, (void)o_step, (void)rows, (void)v, (void)step, (void)p, (void)width, (void)keys, (void)dim, (void)fade;
#if CELL == 1 && VW >= 8
    if (rows == 1) value_few_1(o, o_step, v, step, p, width, keys, dim, fade);
    else if (rows == 2) value_few_2(o, o_step, v, step, p, width, keys, dim, fade);
    else if (rows <= 4) value_few_4(o, o_step, v, step, p, width, keys, dim, fade);
#if VW == 16
    else value_few_8(o, o_step, v, step, p, width, keys, dim, fade);
#endif
#endif
}

/* As value_select(). */
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
