/* SPDX-License-Identifier: MIT
 * prefill_widen.inc.h - template, part of prefill_block.inc.h: cells are floats, so rows of every storage type become f32, once per block.
 */

/* Elements [i, i + n) of a query row, with the scale: one rounding. */
INLINE vf load_query(heed_type type, const unsigned char *row, int32_t i, int n, int32_t dim, float scale)
{
    (void)dim;
    return vmul(load_float(type, row, i, n), vset1(scale));
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

/* Most bytes from row to row of V. Tiles read a few columns of all of a block's rows, which with large steps lie in few sets of a cache; sixteen lanes
 * have work enough per line to wait for it from the next cache, unless that is far: 4 KiB apart, two blocks of K and V crowd 32 sets of 2048. */
static int64_t v_step_most(const struct call *call)
{
    if (VW < 16) return 1024;
    return call->plan->device->far_cache ? 4095 : INT32_MAX;
}

/* May the tiles read f32 rows where they lie? Not across pages. */
static bool reads_in_place(const struct call *call, const struct key_source *from, int32_t j0, int32_t j1)
{
    const int32_t page_size = call->plan->problem.page_size;
    if (from->type != HEED_F32) return false;
    if (page_size > 0 && j0 / page_size != (j1 - 1) / page_size && !MUTANT(cpu_prefill_one_page)) return false;
    const int64_t step = from->rows->token;
    return step >= 0 && (from->whole_rows || step <= v_step_most(call));
}

/* Keys [j0, j1) of (b, g). */
static struct key_block load_block(const struct call *call, const struct key_source *from, int32_t b, int32_t g, int32_t j0, int32_t j1)
{
    const struct sequence *s = &call->batch->sequences[b];
    const int32_t *pages = call->batch->page_table, page_size = call->plan->problem.page_size;
    if (reads_in_place(call, from, j0, j1)) {
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
static struct key_block load_keys(const struct call *call, const struct key_source *from, int32_t b, int32_t g, int32_t j0, int32_t j1)
{
    return load_block(call, from, b, g, j0, j1);
}
static struct key_block load_values(const struct call *call, const struct key_source *from, int32_t b, int32_t g, int32_t j0, int32_t j1)
{
    return load_block(call, from, b, g, j0, j1);
}
