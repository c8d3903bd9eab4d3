/* SPDX-License-Identifier: MIT
 * panel_quads.inc.h - template, part of panel.inc.h, in place of its tiles: the products of a panel where the machine multiplies 2 x 4 by 4 x 2 numbers:
 * two query rows by two keys, or by two columns of V, over four d, or four keys. That is two dots of pairs one after the other, so the bits are those
 * of the tiles of pairs.
 *
 *     Q [quad of d][half][width], P [quad of keys][half][width]     half h, in each vector of 4 rows: rows 2h and 2h + 1, four bf16 of each
 *     K [pair of keys][quad of d], V [quad of keys][pair of d]      vectors of [2][4] bf16; two `step`s from pair to pair, or from quad to quad
 */
#ifndef HEED_PANEL_QUADS_INC_H
#define HEED_PANEL_QUADS_INC_H

enum { SCORE_FEW_MOST = 0, FEW_MOST = 0, QUADS_MOST = 6 }; /* panels of few rows are panels like others */
static inline ptrdiff_t few_step(int v_head_dim) { return v_head_dim; }
static inline ptrdiff_t half_floats(int head_dim) { return 0 * head_dim; }

/* S^T of `pairs` pairs of keys, of which `keys` are there, and the running maximum. */
INLINE void score_quads_of(const int pairs, const int vectors, const float *restrict q, ptrdiff_t width, const float *restrict k, ptrdiff_t step,
                           int keys, int dim, float scale, float *restrict p, float *restrict top)
{
    vf acc[QUADS_MOST][2 * PANEL_VECTORS], best[PANEL_VECTORS];
    const float *base[QUADS_MOST / 3];
    UNROLL for (int t = 0; t < (pairs + 2) / 3; t++) base[t] = k + 6 * t * step;
    UNROLL for (int r = 0; r < pairs; r++)
        UNROLL for (int c = 0; c < 2 * vectors; c++) acc[r][c] = vset1(0);
    for (int d = 0; d < dim; d += 4) {
        vf x[2 * PANEL_VECTORS];
        UNROLL for (int c = 0; c < 2 * vectors; c++) {
            x[c] = vload(q + c % 2 * width + c / 2 * VW);
            KEEP(x[c]);
        }
        UNROLL for (int r = 0; r < pairs; r++) {
            const vf y = vload(base[r / 3] + r % 3 * 2 * step);
            UNROLL for (int c = 0; c < 2 * vectors; c++) acc[r][c] = vmac_quads(acc[r][c], x[c], y);
        }
        UNROLL for (int t = 0; t < (pairs + 2) / 3; t++) base[t] += VW;
        q += 2 * width;
    }
    UNROLL for (int c = 0; c < vectors; c++) best[c] = vload(top + c * VW);
    UNROLL for (int r = 0; r < pairs; r++)
        UNROLL for (int c = 0; c < vectors; c++) {
            const vf one = vmul(veven(acc[r][2 * c], acc[r][2 * c + 1]), vset1(scale)), two = vmul(vodd(acc[r][2 * c], acc[r][2 * c + 1]), vset1(scale));
            vstore(p + 2 * r * width + c * VW, one);
            vstore(p + (2 * r + 1) * width + c * VW, two); /* also of a key that is not there: there is room for whole blocks */
            best[c] = vmax(best[c], one);
            if (2 * r + 1 < keys) best[c] = vmax(best[c], two);
        }
    UNROLL for (int c = 0; c < vectors; c++) vstore(top + c * VW, best[c]);
}

/* O^T of `pairs` pairs of columns, of which `dim` are there; rescaling is folded into the load of the accumulators. */
INLINE void value_quads_of(const int pairs, const int vectors, float *restrict o, ptrdiff_t width, const float *restrict v, ptrdiff_t step,
                           const float *restrict p, int keys, int dim, const float *restrict fade)
{
    vf acc[QUADS_MOST][2 * PANEL_VECTORS], f[PANEL_VECTORS];
    UNROLL for (int c = 0; c < vectors; c++) f[c] = vload(fade + c * VW);
    UNROLL for (int r = 0; r < pairs; r++)
        UNROLL for (int c = 0; c < vectors; c++) {
            const float *at = o + 2 * r * width + c * VW;
            const vf one = vmul(vload(at), f[c]), two = 2 * r + 1 < dim ? vmul(vload(at + width), f[c]) : vset1(0);
            acc[r][2 * c] = vzip_low(one, two);
            acc[r][2 * c + 1] = vzip_high(one, two);
        }
    for (int j = 0; j < keys; j += 4) {
        vf x[2 * PANEL_VECTORS];
        UNROLL for (int c = 0; c < 2 * vectors; c++) {
            x[c] = vload(p + c % 2 * width + c / 2 * VW);
            KEEP(x[c]);
        }
        UNROLL for (int r = 0; r < pairs; r++) {
            const vf y = vload(v + r * VW);
            UNROLL for (int c = 0; c < 2 * vectors; c++) acc[r][c] = vmac_quads(acc[r][c], x[c], y);
        }
        v += 2 * step;
        p += 2 * width;
    }
    UNROLL for (int r = 0; r < pairs; r++)
        UNROLL for (int c = 0; c < vectors; c++) {
            float *at = o + 2 * r * width + c * VW;
            vstore(at, veven(acc[r][2 * c], acc[r][2 * c + 1]));
            if (2 * r + 1 < dim) vstore(at + width, vodd(acc[r][2 * c], acc[r][2 * c + 1]));
        }
}

/* Scores of `keys` keys and `dim` output columns for some vectors of a panel: 6 x 4 or 6 x 2 accumulators. */
#define QUADS_FUNCTIONS(vectors)                                                                                                     \
    NOINLINE void score_whole_##vectors(const float *q, ptrdiff_t width, const float *k, ptrdiff_t step, int dim, float scale, float *p, \
                                        float *top)                                                                                  \
    {                                                                                                                                \
        score_quads_of(QUADS_MOST, vectors, q, width, k, step, 2 * QUADS_MOST, dim, scale, p, top);                                  \
    }                                                                                                                                \
    NOINLINE void value_whole_##vectors(float *o, ptrdiff_t width, const float *v, ptrdiff_t step, const float *p, int keys,         \
                                        const float *fade)                                                                           \
    {                                                                                                                                \
        value_quads_of(QUADS_MOST, vectors, o, width, v, step, p, keys, 2 * QUADS_MOST, fade);                                       \
    }                                                                                                                                \
    NOINLINE void score_keys_##vectors(const float *q, ptrdiff_t width, const float *k, ptrdiff_t step, int keys, int dim, float scale, \
                                       float *p, float *top)                                                                         \
    {                                                                                                                                \
        const int pairs = (keys + 1) / 2, whole = keys / 2 / QUADS_MOST * QUADS_MOST;                                                \
        int x = 0;                                                                                                                   \
        for (; x < whole; x += QUADS_MOST) score_whole_##vectors(q, width, k + 2 * x * step, step, dim, scale, p + 2 * x * width, top); \
        for (; x + 2 < pairs; x += 2) SCORE_QUADS(2, vectors);                                                                       \
        for (; x < pairs; x++) SCORE_QUADS(1, vectors);                                                                              \
    }                                                                                                                                \
    NOINLINE void value_dims_##vectors(float *o, ptrdiff_t width, const float *v, ptrdiff_t step, const float *p, int keys, int dim,   \
                                       const float *fade)                                                                            \
    {                                                                                                                                \
        const int pairs = (dim + 1) / 2, whole = dim / 2 / QUADS_MOST * QUADS_MOST;                                                  \
        int x = 0;                                                                                                                   \
        for (; x < whole; x += QUADS_MOST) value_whole_##vectors(o + 2 * x * width, width, v + x * VW, step, p, keys, fade);         \
        for (; x + 2 < pairs; x += 2) VALUE_QUADS(2, vectors);                                                                       \
        for (; x < pairs; x++) VALUE_QUADS(1, vectors);                                                                              \
    }
#define SCORE_QUADS(n, vectors) score_quads_of(n, vectors, q, width, k + 2 * x * step, step, keys - 2 * x, dim, scale, p + 2 * x * width, top)
#define VALUE_QUADS(n, vectors) value_quads_of(n, vectors, o + 2 * x * width, width, v + x * VW, step, p, keys, dim - 2 * x, fade)

QUADS_FUNCTIONS(1)
QUADS_FUNCTIONS(2)

/* k: row of key x, which is even. */
static void score_keys(const struct panel *a, const struct panel_work *w, struct lanes lanes, const float *k, ptrdiff_t step, int x, int keys,
                       int dim)
{
    const int lane = lanes.first * VW, vectors = lanes.end - lanes.first;
    float *p = w->p + (ptrdiff_t)x * a->width + lane, *top = w->top + lane;
    if (vectors == 1) score_keys_1(a->q + lane, a->width, k, step, keys, dim, w->scale, p, top);
    if (vectors == 2) score_keys_2(a->q + lane, a->width, k, step, keys, dim, w->scale, p, top);
}

/* v: the quad of keys that begins with key x; output columns [d, d + dim), d even. */
static void value_dims(const struct panel *a, const struct panel_work *w, struct lanes lanes, const float *v, ptrdiff_t step, int x, int keys,
                       int d, int dim)
{
    const int lane = lanes.first * VW, vectors = lanes.end - lanes.first;
    const float *p = w->p + (ptrdiff_t)(x / CELL) * a->width + lane, *fade = w->fade + lane;
    float *o = a->o + (ptrdiff_t)d * a->width + lane;
    if (vectors == 1) value_dims_1(o, a->width, v + 2 * d, step, p, keys, dim, fade);
    if (vectors == 2) value_dims_2(o, a->width, v + 2 * d, step, p, keys, dim, fade);
}

/* The same where V holds NaN or infinity: a weight of -0 marks a hidden key, which takes no part (0 * NaN would be NaN). Pair by pair; rare, so plain. */
static void value_select(const struct panel *a, const struct panel_work *w, const float *v, ptrdiff_t step, int keys, int dim)
{
    for (int d = 0; d < dim; d++)
        for (int c = 0; c < a->width; c += VW) {
            float *o = a->o + (ptrdiff_t)d * a->width + c;
            vf acc = vmul(vload(o), vload(w->fade + c));
            for (int j = 0; j < keys; j += 4) {
                const float *p = w->p + (ptrdiff_t)(j / CELL) * a->width + c, *cells = v + (ptrdiff_t)(j / CELL) * step + 2 * d;
                const vf one = vload(p), two = vload(p + a->width);
                acc = vmac_seen(acc, veven(one, two), vset1(cells[0]));
                acc = vmac_seen(acc, vodd(one, two), vset1(cells[1]));
            }
            vstore(o, acc);
        }
}
#endif
