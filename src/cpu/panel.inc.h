/* SPDX-License-Identifier: MIT
 * panel.inc.h - template: the arithmetic of one panel of query rows against one block of keys. Lanes are query rows; nothing here knows of
 * masks, types, pages or heads (prefill*.inc.h do).
 *
 *     S^T [key][row] = K (as it lies, one scalar broadcast per key and d) x Q^T [d][row]
 *     O^T [d][row]   = V (as it lies, one scalar broadcast per key and d) x P^T [key][row]
 *
 * Both products go cell by cell (cells.inc.h): pairs along d in Q and K, pairs of keys in P and V where a cell holds two.
 *
 * Maximum, sum, rescaling and masking are element-wise: no horizontal operation anywhere. Each score is one chain of fma over d in order,
 * each output element and each sum one chain over the keys, so bits depend neither on the width of a vector nor on the tile shapes.
 */
#ifndef HEED_PANEL_INC_H
#define HEED_PANEL_INC_H

#include "cells.inc.h"
#include "kernel.h"
#include "lanes.inc.h"

#include <float.h>
#include <math.h>

enum {
    /* Keys per block, counted from key 0: where the maximum is taken, so part of the bits. Weights in cells of two take half the room, so that more
     * keys fit beside O in the nearest cache, and O is stored less often. */
    PANEL_KEYS = CELL == 1 ? 96 : CELL_TILES ? 128 : 144,
    PANEL_VECTORS = VEC_REGISTERS == 32 && !CELL_QUADS && !CELL_TILES ? 4 : 2, /* most vectors per panel: 6 x this many accumulators fit the registers */
    PANEL_ROWS = PANEL_VECTORS * VW,
    P_BUFFERS = CELL_TILES ? 2 : 1, /* with tiles: room for the weights of two panels and the scores of two steps */
    TILE_MAX = 12
};

struct panel {
    int vectors, width;     /* width = vectors * VW rows, of which `rows` are real */
    int rows, first;        /* first: number of row 0 in the pass */
    float *q, *o;           /* [cells of head_dim][width], [v_head_dim][width] */
    bool begun;             /* with tiles: O holds something; else what is not cleared */
    ptrdiff_t few;          /* > 0: panel_few.inc.h's, and o is [rows][few] */
    float *m, *l;           /* [width] running maximum and sum */
    int32_t begin_min, begin_max, end_min, end_max; /* of the rows' visible ranges; empty rows count in end_min alone */
    int32_t begin[PANEL_VECTORS], end[PANEL_VECTORS]; /* by vector: smallest begin, largest end; INT32_MAX, 0 where no row sees a key */
};

/* What the panels of a pass share. */
struct panel_work {
    float *p;               /* [PANEL_KEYS][width] scores, then [cells of PANEL_KEYS][width] weights */
    float scale;            /* of the scores, where it is not in Q */
    float *top, *fade;      /* [PANEL_ROWS] maximum with this block, factor for what was summed before */
    const unsigned char *const *k_rows, *const *v_rows; /* of the span's keys, as k_type and v_type: what few rows read */
    int ahead;              /* from a row of these to the one that is fetched meanwhile, or 0 */
    float *few_copy;        /* [half_floats()] */
    heed_type k_type, v_type;
    struct tile_queue *queue; /* panel_tiles.inc.h's: products that wait */
    bool fresh;             /* the next ones write O, they do not add to it */
};

/* Vectors [first, end) of a panel. */
struct lanes { int first, end; };

#if CELL_QUADS
#include "panel_quads.inc.h"
#elif CELL_TILES
#include "panel_tiles.inc.h"
#else
/* Rows r of a strided matrix as groups of 3 with one base each: few address registers. */
#define ROW3(base, r, step) (base)[(r) / 3][((r) % 3) * (step)]

/* S^T of `rows` keys, and the running maximum; dim in cells. */
INLINE void score_tile_of(const int rows, const int vectors, const float *restrict q, ptrdiff_t width, const float *restrict k, ptrdiff_t step,
                          int dim, float scale, float *restrict p, float *restrict top)
{
    vf acc[TILE_MAX][PANEL_VECTORS], best[PANEL_VECTORS];
    const float *base[TILE_MAX / 3];
    UNROLL for (int t = 0; t < (rows + 2) / 3; t++) base[t] = k + 3 * t * step;
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int c = 0; c < vectors; c++) acc[r][c] = vset1(0);
    for (int d = 0; d < dim; d++) {
        vf x[PANEL_VECTORS];
        UNROLL for (int c = 0; c < vectors; c++) {
            x[c] = vload(q + c * VW);
            KEEP(x[c]);
        }
        UNROLL for (int r = 0; r < rows; r++) {
            const vcell y = vcell_of(ROW3(base, r, step));
            UNROLL for (int c = 0; c < vectors; c++) acc[r][c] = vmac_cell(acc[r][c], x[c], y);
        }
        UNROLL for (int t = 0; t < (rows + 2) / 3; t++) base[t]++;
        q += width;
    }
    UNROLL for (int c = 0; c < vectors; c++) best[c] = vload(top + c * VW);
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int c = 0; c < vectors; c++) {
            if (CELL > 1) acc[r][c] = vmul(acc[r][c], vset1(scale));
            vstore(p + r * width + c * VW, acc[r][c]);
            best[c] = vmax(best[c], acc[r][c]);
        }
    UNROLL for (int c = 0; c < vectors; c++) vstore(top + c * VW, best[c]);
}

/* O^T of `rows` columns of V; rescaling is folded into the load of the accumulators; keys in cells. */
INLINE void value_tile_of(const int rows, const int vectors, float *restrict o, ptrdiff_t width, const float *restrict v, ptrdiff_t step,
                          const float *restrict p, int keys, const float *restrict fade)
{
    vf acc[TILE_MAX][PANEL_VECTORS], f[PANEL_VECTORS];
    UNROLL for (int c = 0; c < vectors; c++) f[c] = vload(fade + c * VW);
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int c = 0; c < vectors; c++) acc[r][c] = vmul(vload(o + r * width + c * VW), f[c]);
    for (int j = 0; j < keys; j++) {
        vf x[PANEL_VECTORS];
        UNROLL for (int c = 0; c < vectors; c++) {
            x[c] = vload(p + c * VW);
            KEEP(x[c]);
        }
        UNROLL for (int r = 0; r < rows; r++) {
            const vcell y = vcell_of(v[r]);
            UNROLL for (int c = 0; c < vectors; c++) acc[r][c] = vmac_cell(acc[r][c], x[c], y);
        }
        v += step;
        p += width;
    }
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int c = 0; c < vectors; c++) vstore(o + r * width + c * VW, acc[r][c]);
}

/* [0, n) in tiles of `most`, then 4, 2 and 1: tails of single rows would cost 8 %. */
#define FOR_TILES(x, n, most, WHOLE, TILE)                                              \
    do {                                                                                \
        int x = 0, whole_ = (n) / (most) * (most);                                      \
        while (whole_ > 0 && (((n) - whole_) & 3)) whole_ -= (most);                    \
        for (; x < whole_; x += (most)) WHOLE;                                          \
        for (; x + 4 <= (n); x += 4) TILE(4);                                           \
        for (; x + 2 <= (n); x += 2) TILE(2);                                           \
        for (; x < (n); x++) TILE(1);                                                   \
    } while (0)

/* Scores of keys [x, x + keys) and output columns [x, x + dims) for some vectors of a panel; functions for each number of vectors:
 * 6 x 4, 6 x 3, 12 x 2 or 6 x 2, 12 x 1 accumulators. k is the row of key x, v column x of the row of the first key. The whole tiles are
 * functions of their own: inside the others gcc keeps counters in vector registers, and then vectors on the stack. */
#define PANEL_FUNCTIONS(vectors, most)                                                                                               \
    NOINLINE void score_whole_##vectors(const float *q, ptrdiff_t width, const float *k, ptrdiff_t step, int dim, float scale, float *p, \
                                        float *top)                                                                                  \
    {                                                                                                                                \
        score_tile_of(most, vectors, q, width, k, step, dim, scale, p, top);                                                         \
    }                                                                                                                                \
    NOINLINE void value_whole_##vectors(float *o, ptrdiff_t width, const float *v, ptrdiff_t step, const float *p, int keys,         \
                                        const float *fade)                                                                           \
    {                                                                                                                                \
        value_tile_of(most, vectors, o, width, v, step, p, keys, fade);                                                              \
    }                                                                                                                                \
    NOINLINE void score_keys_##vectors(const float *q, ptrdiff_t width, const float *k, ptrdiff_t step, int keys, int dim, float scale, \
                                       float *p, float *top)                                                                         \
    {                                                                                                                                \
        FOR_TILES(x, keys, most, score_whole_##vectors(q, width, k + x * step, step, dim, scale, p + x * width, top), SCORE_TILE_##vectors); \
    }                                                                                                                                \
    NOINLINE void value_dims_##vectors(float *o, ptrdiff_t width, const float *v, ptrdiff_t step, const float *p, int keys, int dim,   \
                                       const float *fade)                                                                            \
    {                                                                                                                                \
        FOR_TILES(x, dim, most, value_whole_##vectors(o + x * width, width, v + x, step, p, keys, fade), VALUE_TILE_##vectors);      \
    }
#define SCORE_TILE(rows, n) score_tile_of(rows, n, q, width, k + x * step, step, dim, scale, p + x * width, top)
#define VALUE_TILE(rows, n) value_tile_of(rows, n, o + x * width, width, v + x, step, p, keys, fade)
#define SCORE_TILE_1(rows) SCORE_TILE(rows, 1)
#define SCORE_TILE_2(rows) SCORE_TILE(rows, 2)
#define SCORE_TILE_3(rows) SCORE_TILE(rows, 3)
#define SCORE_TILE_4(rows) SCORE_TILE(rows, 4)
#define VALUE_TILE_1(rows) VALUE_TILE(rows, 1)
#define VALUE_TILE_2(rows) VALUE_TILE(rows, 2)
#define VALUE_TILE_3(rows) VALUE_TILE(rows, 3)
#define VALUE_TILE_4(rows) VALUE_TILE(rows, 4)

PANEL_FUNCTIONS(1, 12)
#if VEC_REGISTERS == 32
PANEL_FUNCTIONS(2, 12)
PANEL_FUNCTIONS(3, 6)
PANEL_FUNCTIONS(4, 6)
#else
PANEL_FUNCTIONS(2, 6)
#endif

#include "panel_few.inc.h"

/* k: row of key x. */
static void score_keys(const struct panel *a, const struct panel_work *w, struct lanes lanes, const float *k, ptrdiff_t step, int x, int keys,
                       int dim)
{
    const int lane = lanes.first * VW, vectors = lanes.end - lanes.first, cells = cells_of(dim);
    const float *q = a->q + lane;
    float *p = w->p + (ptrdiff_t)x * a->width + lane, *top = w->top + lane;
    if (a->few) {
        if (vectors == 1) score_few[w->k_type][few_tile(a->rows)](q, a->width, w->k_rows + x, w->ahead, keys, cells, w->scale, w->few_copy, p, top);
        return;
    }
    if (vectors == 1) score_keys_1(q, a->width, k, step, keys, cells, w->scale, p, top);
    if (vectors == 2) score_keys_2(q, a->width, k, step, keys, cells, w->scale, p, top);
#if VEC_REGISTERS == 32
    if (vectors == 3) score_keys_3(q, a->width, k, step, keys, cells, w->scale, p, top);
    if (vectors == 4) score_keys_4(q, a->width, k, step, keys, cells, w->scale, p, top);
#endif
}

/* v: cells of key x and its next; output columns [d, d + dim); x is a multiple of CELL. */
static void value_dims(const struct panel *a, const struct panel_work *w, struct lanes lanes, const float *v, ptrdiff_t step, int x, int keys,
                       int d, int dim)
{
    const int lane = lanes.first * VW, vectors = lanes.end - lanes.first, cells = cells_of(keys);
    const float *p = w->p + (ptrdiff_t)(x / CELL) * a->width + lane, *fade = w->fade + lane;
    if (a->few) {
        if (vectors == 1) value_few[w->v_type][few_tile(a->rows)](a->o, a->few, w->v_rows + x, w->ahead, p, a->width, keys, d, d + dim, fade);
        return;
    }
    float *o = a->o + (ptrdiff_t)d * a->width + lane;
    if (vectors == 1) value_dims_1(o, a->width, v + d, step, p, cells, dim, fade);
    if (vectors == 2) value_dims_2(o, a->width, v + d, step, p, cells, dim, fade);
#if VEC_REGISTERS == 32
    if (vectors == 3) value_dims_3(o, a->width, v + d, step, p, cells, dim, fade);
    if (vectors == 4) value_dims_4(o, a->width, v + d, step, p, cells, dim, fade);
#endif
}

/* The same where V holds NaN or infinity: a weight of -0 marks a hidden key, which takes no part (0 * NaN would be NaN). Rare, so plain. */
static void value_select(const struct panel *a, const struct panel_work *w, const float *v, ptrdiff_t step, int keys, int dim)
{
    if (a->few) {
        value_select_few(a->o, a->few, a->rows, v, step, w->p, a->width, keys, dim, w->fade);
        return;
    }
    for (int d = 0; d < dim; d++)
        for (int c = 0; c < a->width; c += VW) {
            vf acc = vmul(vload(a->o + (size_t)d * (size_t)a->width + c), vload(w->fade + c));
            for (int j = 0; j < cells_of(keys); j++)
                acc = vmac_seen(acc, vload(w->p + (size_t)j * (size_t)a->width + c), vset1(v[j * step + d]));
            vstore(a->o + (size_t)d * (size_t)a->width + c, acc);
        }
}

#endif

/* e^(s - m); hidden keys, whose score is -infinity, get 0, or -0 if marked. */
INLINE vf weight_of(vf s, vf m, const bool mark)
{
    const vf x = vsub(s, m), e = CELL == 1 ? vexp(x) : vexp_near(x);
    return mark && !MUTANT(cpu_prefill_no_mark) ? vselect(veq(s, vset1(-INFINITY)), vset1(-0.0f), e) : e;
}

/* Four weights, each with the maximum of its rows. A sum of differences that is no NaN and not below EXP_LOW has no such one in it, since none is above 0:
 * they are looked at together. */
INLINE void weights_of_each(const vf s[4], const vf m[4], const bool mark, vf e[4])
{
    vf x[4];
    UNROLL for (int n = 0; n < 4; n++) x[n] = vsub(s[n], m[n]);
    const vf sum = vadd(vadd(x[0], x[1]), vadd(x[2], x[3]));
    if (!mark && vevery(vge(sum, vset1(MUTANT(cpu_prefill_exp_any) ? -1e30f : EXP_LOW))))
        UNROLL for (int n = 0; n < 4; n++) e[n] = CELL == 1 ? vexp_of(x[n], 1) : vexp_near_of(x[n], 1);
    else
        UNROLL for (int n = 0; n < 4; n++) e[n] = weight_of(s[n], m[n], mark);
}

/* The same of four keys. */
INLINE void weights_of_4(const vf s[4], vf m, const bool mark, vf e[4])
{
    const vf same[4] = {m, m, m, m};
    weights_of_each(s, same, mark, e);
}

/* m' = max(m, s), fade = e^(m - m'), p = e^(s - m'), l' = l fade + sum p, key by key. Cells of two keys are packed in place, behind what is
 * read; a key that is not there counts as hidden. A row that has seen nothing keeps m = -infinity; -FLT_MAX stands in for it in differences,
 * so that they are no NaN. */
INLINE void softmax_of(const struct panel *a, const struct panel_work *w, int keys, const bool mark)
{
    for (int c = 0; c < a->width; c += VW) {
        const vf old = vload(a->m + c), top = vload(w->top + c), m = vmax(top, vset1(-FLT_MAX)), fade = vexp(vsub(old, m));
        vf l = vmul(vload(a->l + c), fade);
        float *p = w->p + c;
        int j = 0;
#if CELL == 1
        for (; VEC_SCALES && j + 4 <= keys; j += 4, p += 4 * a->width) {
            vf s[4], e[4];
            UNROLL for (int n = 0; n < 4; n++) s[n] = vload(p + n * a->width);
            weights_of_4(s, m, mark, e);
            UNROLL for (int n = 0; n < 4; n++) {
                l = vadd(l, e[n]);
                vstore(p + n * a->width, e[n]);
            }
        }
        for (; j < keys; j++, p += a->width) {
            const vf e = weight_of(vload(p), m, mark);
            l = vadd(l, e);
            vstore(p, e);
        }
#elif CELL_QUADS
        const float *s = p;
        for (; j < keys; j += 4, s += 4 * a->width, p += 2 * a->width) {
            vf e[4], first, second;
            for (int n = 0; n < 4; n++) {
                e[n] = j + n < keys ? weight_of(vload(s + n * a->width), m, mark) : vset1(mark ? -0.0f : 0.0f);
                l = vadd(l, e[n]);
            }
            vpack_quads(e, &first, &second);
            vstore(p, first);
            vstore(p + a->width, second);
        }
#else
        const float *s = p;
        for (; VEC_SCALES && j + 4 <= keys; j += 4, s += 4 * a->width, p += 2 * a->width) {
            vf x[4], e[4];
            UNROLL for (int n = 0; n < 4; n++) x[n] = vload(s + n * a->width);
            weights_of_4(x, m, mark, e);
            UNROLL for (int n = 0; n < 4; n++) l = vadd(l, e[n]);
            vstore(p, vpack(e[0], e[1]));
            vstore(p + a->width, vpack(e[2], e[3]));
        }
        for (; j < keys; j += 2, s += 2 * a->width, p += a->width) {
            const vf e = weight_of(vload(s), m, mark);
            const vf f = j + 1 < keys && !(MUTANT(cpu_pairs_odd_key) && j + 3 > keys) ? weight_of(vload(s + a->width), m, mark) : vset1(mark ? -0.0f : 0.0f);
            l = vadd(vadd(l, e), f);
            vstore(p, vpack(e, f));
        }
#endif
        vstore(a->m + c, top);
        vstore(a->l + c, l);
        vstore(w->fade + c, MUTANT(cpu_prefill_no_rescale) ? vset1(1) : fade);
    }
}

#if !defined(VEC_HALVES) || CELL > 1
#define softmax_half softmax_block
#else
/* The same for few rows, which are in half of a vector: two keys at a time. */
NOINLINE void softmax_half(const struct panel *a, const struct panel_work *w, int keys)
{
    const vf top = vload(w->top), m = vmax(top, vset1(-FLT_MAX)), fade = vexp(vsub(vload(a->m), m)), twice = vjoin(vlow_half(m), vlow_half(m));
    vh l = vlow_half(vmul(vload(a->l), fade));
    float *p = w->p;
    int j = 0;
    for (; j + 2 <= keys; j += 2, p += 2 * a->width) {
        const vf e = weight_of(vjoin(vh_load(p), vh_load(p + a->width)), twice, false);
        l = vh_add(vh_add(l, vlow_half(e)), vhigh_half(e));
        vh_store(p, vlow_half(e));
        vh_store(p + a->width, vhigh_half(e));
    }
    if (j < keys) {
        const vh e = vlow_half(weight_of(vload(p), m, false));
        l = vh_add(l, e);
        vh_store(p, e);
    }
    vstore(a->m, top);
    vh_store(a->l, l);
    vstore(w->fade, MUTANT(cpu_prefill_no_rescale) ? vset1(1) : fade);
}
#endif

NOINLINE void softmax_block(const struct panel *a, const struct panel_work *w, int keys) { softmax_of(a, w, keys, false); }
NOINLINE void softmax_block_mark(const struct panel *a, const struct panel_work *w, int keys) { softmax_of(a, w, keys, true); }

#endif
