/* SPDX-License-Identifier: MIT
 * prefill_block.inc.h - template: rows of any storage type as f32: query rows into a panel, a block of K or V where the tiles can read it,
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


/* Q^T of VW rows at once: scale folded in, one rounding. rows[r] NULL: no such row, zeros. */
static void transpose_queries(heed_type type, const unsigned char *const rows[VW], int32_t dim, float scale, float *q, int width)
{
    for (int32_t i = 0; i < dim; i += VW) {
        const int n = min_int(VW, dim - i);
        vf t[VW];
        for (int r = 0; r < VW; r++) t[r] = rows[r] ? vmul(load_float(type, rows[r], i, n), vset1(scale)) : vset1(0);
        vtranspose(t);
        for (int d = 0; d < n; d++) vstore(q + (size_t)(i + d) * (size_t)width, t[d]);
    }
}

/* o = O^T factor / l of VW rows, of which the first `count` are stored. Adding +0 turns -0 into +0: hidden keys may decide its sign. */
static void transpose_outputs(heed_type type, unsigned char *const rows[VW], int count, int32_t dim, const float *o, int width, vf factor, vf l)
{
    for (int32_t i = 0; i < dim; i += VW) {
        const int n = min_int(VW, dim - i);
        vf t[VW];
        for (int d = 0; d < VW; d++)
            t[d] = d < n ? vadd(vdiv(vmul(vload(o + (size_t)(i + d) * (size_t)width), factor), l), vset1(0)) : vset1(0);
        vtranspose(t);
        for (int r = 0; r < count; r++) store_float(type, rows[r], i, t[r], n);
    }
}

/* Blocks of 32 values behind one f16 scale; q4_0 has the low nibbles first. */
static void widen_blocks(heed_type type, const unsigned char *from, float *to, int32_t dim)
{
    const int64_t bytes = type_block_bytes(type);
    for (int32_t i = 0; i < dim; i += 32, from += bytes) {
        const vf d = vset1_f16(from);
        for (int k = 0; k < 32; k += VW) {
            const vf x = type == HEED_Q8_0 ? vload_i8((const int8_t *)from + 2 + k) : vload_nibbles(from + 2 + k % 16, k >= 16);
            vstore(to + i + k, vmul(x, d));
        }
    }
}

/* Elements [i, i + n) of a row of K or V, n <= VW; not of blocks. */
INLINE vf load_any(const heed_type type, const unsigned char *row, int32_t i, int n, vf scale)
{
    switch (type) {
    case HEED_I8: return vmul(n == VW ? vload_i8((const int8_t *)row + i) : vload_i8_n((const int8_t *)row + i, n), scale);
    case HEED_F8_E4M3: return vmul(vload_e4m3_n(row + i, n), scale);
    case HEED_F8_E5M2: return vmul(vload_e5m2_n(row + i, n), scale);
    default: return load_float(type, row, i, n);
    }
}

INLINE void widen_row_of(const heed_type type, const unsigned char *from, float scale, float *to, int32_t dim)
{
    const vf by = vset1(scale);
    int32_t i = 0;
    for (; i + VW <= dim; i += VW) vstore(to + i, load_any(type, from, i, VW, by));
    if (i < dim) vstore_n(to + i, load_any(type, from, i, dim - i, by), dim - i);
}

/* One row of K or V to f32. scale: of i8 and f8. */
static void widen_row(heed_type type, const unsigned char *from, float scale, float *to, int32_t dim)
{
    switch (type) {
    case HEED_F32: widen_row_of(HEED_F32, from, scale, to, dim); break;
    case HEED_F16: widen_row_of(HEED_F16, from, scale, to, dim); break;
    case HEED_BF16: widen_row_of(HEED_BF16, from, scale, to, dim); break;
    case HEED_I8: widen_row_of(HEED_I8, from, scale, to, dim); break;
    case HEED_F8_E4M3: widen_row_of(HEED_F8_E4M3, from, scale, to, dim); break;
    case HEED_F8_E5M2: widen_row_of(HEED_F8_E5M2, from, scale, to, dim); break;
    default: widen_blocks(type, from, to, dim);
    }
}

/* A tensor of keys, and how one of its blocks is read. */
struct key_source {
    const struct view *rows, *scales;
    heed_type type;
    int32_t dim;
    float *copy;         /* [PANEL_KEYS][copy_step] */
    ptrdiff_t copy_step;
};

struct key_block {
    const float *data;   /* row of key j0 */
    ptrdiff_t step;      /* floats from row to row */
};

/* An odd number of cache lines from row to row: rows then spread over all sets of a cache. */
static ptrdiff_t copy_step(int32_t dim) { return (((dim + 15) / 16) | 1) * 16; }

/* May the tiles read f32 rows where they lie? Not across pages, and not with steps that put a block's rows into few cache sets. */
static bool reads_in_place(const struct key_source *from, int32_t page_size, int32_t j0, int32_t j1)
{
    if (from->type != HEED_F32) return false;
    if (page_size > 0 && j0 / page_size != (j1 - 1) / page_size && !MUTANT(cpu_prefill_one_page)) return false;
    const int64_t step = from->rows->token;
    return step >= 0 && step <= 1024;
}

/* Keys [j0, j1) of (b, g). */
static struct key_block load_block(const struct call *call, const struct key_source *from, int32_t b, int32_t g, int32_t j0, int32_t j1)
{
    const struct sequence *s = &call->batch->sequences[b];
    const int32_t *pages = call->batch->page_table, page_size = call->plan->problem.page_size;
    if (reads_in_place(from, page_size, j0, j1)) {
        const unsigned char *row = key_row(from->rows, s, pages, page_size, b, g, j0);
        if (MUTANT(cpu_prefill_offset_32)) row = from->rows->data + (int32_t)(row - from->rows->data);
        return (struct key_block){(const float *)row, from->rows->token / (int64_t)sizeof(float)};
    }
    for (int32_t j = j0; j < j1; j++) {
        const float scale = from->scales->given ? *(const float *)key_row(from->scales, s, pages, page_size, b, g, j) : 1.0f;
        widen_row(from->type, key_row(from->rows, s, pages, page_size, b, g, j), scale, from->copy + (j - j0) * from->copy_step, from->dim);
    }
    return (struct key_block){from->copy, from->copy_step};
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

/* Is every value of the block a finite number? x * 0 is 0, or NaN. */
static bool block_is_finite(struct key_block block, int keys, int32_t dim)
{
    const vf zero = vset1(0);
    vf sum[4] = {zero, zero, zero, zero};
    for (int j = 0; j < keys; j++) {
        const float *row = block.data + j * block.step;
        int32_t i = 0;
        for (; i + 4 * VW <= dim; i += 4 * VW)
            UNROLL for (int n = 0; n < 4; n++) sum[n] = vfma(vload(row + i + n * VW), zero, sum[n]);
        for (; i < dim; i += VW) sum[0] = vfma(vload_n(row + i, min_int(VW, dim - i)), zero, sum[0]);
    }
    const vf all = vadd(vadd(sum[0], sum[1]), vadd(sum[2], sum[3]));
    return !vany(vne(all, all));
}

#endif
