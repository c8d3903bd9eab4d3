/* SPDX-License-Identifier: MIT
 * prefill_block.inc.h - template: rows of any storage type as the cells of a panel: query rows into it, K or V where the tiles can read them,
 * output rows back. Values only; who sees what is prefill_terms.inc.h's.
 */
#ifndef HEED_PREFILL_BLOCK_INC_H
#define HEED_PREFILL_BLOCK_INC_H

#include "panel.inc.h"

static int min_int(int a, int b) { return a < b ? a : b; }

/* Masked stores are slow on some machines, so whole vectors go without. */
INLINE void store_floats(float *p, vf x, int n)
{
    if (n == VW)
        vstore(p, x);
    else
        vstore_n(p, x, n);
}

/* Elements [i, i + n) of a row of q, n <= VW. */
INLINE vf load_float(heed_type type, const unsigned char *row, int32_t i, int n)
{
    if (type == HEED_F32) return n == VW ? vload((const float *)row + i) : vload_n((const float *)row + i, n);
    if (type == HEED_F16) return n == VW ? vload_f16((const uint16_t *)row + i) : vload_f16_n((const uint16_t *)row + i, n);
    return n == VW ? vload_bf16((const uint16_t *)row + i) : vload_bf16_n((const uint16_t *)row + i, n);
}

INLINE void store_float(heed_type type, unsigned char *row, int32_t i, vf x, int n)
{
    if (type == HEED_F32)
        store_floats((float *)row + i, x, n);
    else if (type == HEED_F16)
        vstore_f16_n((uint16_t *)row + i, x, n);
    else
        vstore_bf16_n((uint16_t *)row + i, x, n);
}


/* x / l. With tiles it is in the factor already, one division for all columns. */
INLINE vf over(vf x, vf l) { return CELL_TILES ? x : vdiv(x, l); }

/* o = O^T factor / l of VW rows, of which the first `count` are stored. Adding +0 turns -0 into +0: hidden keys may decide its sign. */
static void transpose_outputs(heed_type type, unsigned char *const rows[VW], int count, int32_t dim, const float *o, int width, vf factor, vf l)
{
    for (int32_t i = 0; i < dim; i += VW) {
        const int n = min_int(VW, dim - i);
        vf t[VW];
        for (int d = 0; d < VW; d++)
            t[d] = d < n ? vadd(over(vmul(vload(o + (size_t)(i + d) * (size_t)width), factor), l), vset1(0)) : vset1(0);
        vtranspose(t);
        for (int r = 0; r < count; r++) store_float(type, rows[r], i, t[r], n);
    }
}

/* The same where O lies in rows, `step` floats apart. */
static void scale_outputs(heed_type type, unsigned char *const rows[VW], int count, int32_t dim, const float *o, ptrdiff_t step, vf factor, vf l)
{
    float by[VW], through[VW];
    vstore(by, factor);
    vstore(through, l);
    for (int r = 0; r < count; r++)
        for (int32_t i = 0; i < dim; i += VW) {
            const vf x = vadd(vdiv(vmul(vload(o + r * step + i), vset1(by[r])), vset1(through[r])), vset1(0));
            store_float(type, rows[r], i, x, min_int(VW, dim - i));
        }
}

/* A tensor of keys, and how one of its blocks is read. */
struct key_source {
    const struct view *rows, *scales;
    heed_type type;
    int32_t dim;
    bool whole_rows;     /* the tiles read a row from end to end: K */
    float *copy;         /* [PANEL_KEYS][copy_step] */
    ptrdiff_t copy_step;
};

struct key_block {
    const float *data;   /* cells of key j0 */
    ptrdiff_t step;      /* floats from row to row; of V from pair to pair where a cell holds two */
};

/* An odd number of cache lines from row to row: rows then spread over all sets of a cache. */
static ptrdiff_t copy_step(int32_t dim) { return (((dim + 15) / 16) | 1) * 16; }

/* The block from key x on, counted from its first. */
static struct key_block values_from(struct key_block v, ptrdiff_t x)
{
    return (struct key_block){v.data + x / CELL * (CELL_TILES ? 1 : v.step), v.step};
}

#if CELL == 1
#include "prefill_widen.inc.h"
#elif CELL_QUADS
#include "prefill_quads.inc.h"
#elif CELL_TILES
#include "prefill_tiles.inc.h"
#else
#include "prefill_pairs.inc.h"
#endif

#if !CELL_QUADS && !CELL_TILES
/* Q^T of VW rows at once. rows[r] NULL: no such row, zeros. */
static void transpose_queries(heed_type type, const unsigned char *const rows[VW], int32_t dim, float scale, float *q, int width)
{
    const int cells = cells_of(dim);
    for (int32_t i = 0; i < cells; i += VW) {
        const int n = min_int(VW, cells - i);
        vf t[VW];
        for (int r = 0; r < VW; r++) t[r] = rows[r] ? load_query(type, rows[r], i, n, dim, scale) : vset1(0);
        vtranspose(t);
        for (int d = 0; d < n; d++) vstore(q + (size_t)(i + d) * (size_t)width, t[d]);
    }
}
#endif

/* Addresses of the rows of keys [j, end): one division per page. */
static void find_block(const struct call *call, const struct key_source *from, int32_t b, int32_t g, int32_t j, int32_t end, const unsigned char **rows)
{
    const struct sequence *s = &call->batch->sequences[b];
    const int32_t page_size = call->plan->problem.page_size;
    while (j < end) {
        const unsigned char *row = key_row(from->rows, s, call->batch->page_table, page_size, b, g, j);
        if (MUTANT(cpu_prefill_offset_32)) row = from->rows->data + (int32_t)(row - from->rows->data);
        const int32_t left = page_size > 0 && !MUTANT(cpu_prefill_one_page) ? page_size - j % page_size : end - j;
        for (int32_t n = 0; n < left && j < end; n++, j++, row += from->rows->token) *rows++ = row;
    }
}

/* Brings the rows of keys [j, end) near, where load_block() will copy them: page by page, so the hardware's own prefetch does not see it. */
static void prefetch_block(const struct call *call, const struct key_source *from, int32_t b, int32_t g, int32_t j, int32_t end)
{
    const struct sequence *s = &call->batch->sequences[b];
    const int64_t bytes = type_row_bytes(from->type, from->dim);
    for (; j < end; j++) {
        const unsigned char *row = key_row(from->rows, s, call->batch->page_table, call->plan->problem.page_size, b, g, j);
        for (int64_t n = 0; n < bytes; n += 64) vprefetch(row + n);
    }
}

/* Is every value of the block a finite number? x * 0 is 0, or NaN. A cell of two bf16, taken for a float, is as finite as the upper one. */
static bool block_is_finite(struct key_block block, int keys, int32_t dim)
{
    const vf zero = vset1(0);
    vf sum[4] = {zero, zero, zero, zero};
    int count = CELL_QUADS ? (keys + 3) / 4 : cells_of(keys);
    const int twice = CELL_QUADS ? 2 : 1; /* a quad of keys is two cells to a column */
#if CELL_TILES /* V^T: columns are rows */
    count = dim;
    dim = whole_cells(keys);
#endif
    dim *= twice;
    for (int j = 0; j < count; j++) {
        const float *row = block.data + j * twice * block.step;
        int32_t i = 0;
        for (; i + 4 * VW <= dim; i += 4 * VW)
            UNROLL for (int n = 0; n < 4; n++) {
                const vf x = vload(row + i + n * VW);
                sum[n] = vfma(x, zero, sum[n]);
#if CELL == 2
                sum[n] = vfma(vlower(x), zero, sum[n]);
#endif
            }
        for (; i < dim; i += VW) {
            const vf x = vload_n(row + i, min_int(VW, dim - i));
            sum[0] = vfma(x, zero, sum[0]);
#if CELL == 2
            sum[0] = vfma(vlower(x), zero, sum[0]);
#endif
        }
    }
    const vf all = vadd(vadd(sum[0], sum[1]), vadd(sum[2], sum[3]));
    return !vany(vne(all, all));
}

#endif
