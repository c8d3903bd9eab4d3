/* SPDX-License-Identifier: MIT
 * decode_pass.inc.h - template: the work memory of one pass of decode, which keys its rows may see, and where these lie. No arithmetic.
 */
#ifndef HEED_DECODE_PASS_INC_H
#define HEED_DECODE_PASS_INC_H

#include "decode_tiles.inc.h"

#include <string.h>

enum {
    DECODE_PASS_ROWS = 32, /* rows per pass over the chunk */
    DECODE_WORDS = DECODE_CHUNK / DECODE_BLOCK
};

/* Work memory of one pass; all offsets multiples of 64 bytes. */
struct decode_pass {
    const struct call *call;
    const struct problem *p;
    const struct sequence *s;
    int32_t b, g, q_begin, kv_begin, keys; /* keys: in this chunk */
    int32_t first, rows;                   /* rows first ... of the item */
    int32_t lo, hi;                        /* keys that some row may see by position; 0, 0 = none */
    int32_t dim16, v16;                    /* head_dim and v_head_dim in whole lanes */
    int32_t k_bytes, v_bytes;              /* of a row */
    int32_t ahead;                         /* fetch rows so many keys before their turn, or 0 */
    bool k_scaled, v_scaled, plain;        /* plain: no term but the scale */
    bool goes_on;                          /* behind this pass with next_rows */
    float *q;                              /* [rows][dim16] in tiles: load_queries(); zeros behind head_dim */
    float *acc;                            /* [rows][v16] */
    float *p_rows;                         /* [rows][DECODE_CHUNK] */
    float *sums;                           /* [rows][2]: m, l */
    uint64_t *visible;                     /* [rows][DECODE_WORDS] */
    uint64_t *any;                         /* [DECODE_WORDS] visible to some row */
    const unsigned char **k_rows, **v_rows; /* [DECODE_CHUNK] */
    const unsigned char **next_rows;       /* [DECODE_BLOCK] keys that come behind this item, where it goes_on */
    float *k_scales, *v_scales;            /* [DECODE_CHUNK] of i8 and f8; else not used */
    float *terms, *distances;              /* [DECODE_CHUNK] bias as f32, |p_i - r_j| */
    float *o;                              /* [v16] a row on its way out */
};

/* Bytes of a pass's memory; with memory given, its arrays are placed there. */
static size_t decode_place(struct decode_pass *pass, void *memory)
{
    size_t bytes = 0;
#define PLACE(member, count)                                                    \
    pass->member = memory ? (void *)((unsigned char *)memory + bytes) : NULL;   \
    bytes += ((size_t)(count) * sizeof *pass->member + 63) / 64 * 64
    PLACE(q, DECODE_PASS_ROWS * pass->dim16);
    PLACE(acc, DECODE_PASS_ROWS * pass->v16);
    PLACE(p_rows, DECODE_PASS_ROWS * DECODE_CHUNK);
    PLACE(sums, DECODE_PASS_ROWS * 2);
    PLACE(visible, DECODE_PASS_ROWS * DECODE_WORDS);
    PLACE(any, DECODE_WORDS);
    PLACE(k_rows, DECODE_CHUNK);
    PLACE(v_rows, DECODE_CHUNK);
    PLACE(next_rows, DECODE_BLOCK);
    PLACE(k_scales, DECODE_CHUNK);
    PLACE(v_scales, DECODE_CHUNK);
    PLACE(terms, DECODE_CHUNK);
    PLACE(distances, DECODE_CHUNK);
    PLACE(o, pass->v16);
#undef PLACE
    return bytes;
}

static inline int32_t row_query(const struct decode_pass *pass, int32_t r) { return pass->q_begin + (pass->first + r) / pass->p->group; }
static inline int32_t row_head(const struct decode_pass *pass, int32_t r)
{
    const int32_t n = (pass->first + r) % pass->p->group;
    if (MUTANT(cpu_decode_group_map)) return n * pass->p->kv_heads + pass->g;
    return pass->g * pass->p->group + n;
}

/* ---- who sees what -------------------------------------------------------- */

static inline void bits_of_range(uint64_t *bits, int32_t begin, int32_t end)
{
    for (int32_t w = 0; w < DECODE_WORDS; w++) {
        const int32_t from = begin - w * 64 > 0 ? begin - w * 64 : 0, to = end - w * 64 < 64 ? end - w * 64 : 64;
        bits[w] = from >= to ? 0 : (~UINT64_C(0) >> (64 - (to - from))) << from;
    }
}

/* Eight bytes as they lie in memory, the first one least significant. */
static inline uint64_t first_is_least(uint64_t x)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return __builtin_bswap64(x);
#else
    return x;
#endif
}

/* Bit n of the result: byte n of from is not 0, n < count <= 64. Bytes behind count are not read. */
static inline uint64_t bits_of_bytes(const unsigned char *from, int32_t count)
{
    uint64_t bits = 0;
    int32_t n = 0;
    for (; n + 8 <= count; n += 8) {
        uint64_t x;
        memcpy(&x, from + n, 8);
        x = first_is_least(x);
        x = (((x & 0x7f7f7f7f7f7f7f7f) + 0x7f7f7f7f7f7f7f7f) | x) & 0x8080808080808080;
        bits |= (((x >> 7) * 0x0102040810204080) >> 56) << n;
    }
    for (; n < count; n++) bits |= (uint64_t)(from[n] != 0) << n;
    return bits;
}

/* visible[r] &= the row's mask, which is read for keys [lo, hi) only. */
static void apply_mask(const struct decode_pass *pass, int32_t r, int32_t lo, int32_t hi)
{
    const unsigned char *row = query_row(&pass->call->mask, pass->s, pass->b, row_head(pass, r), row_query(pass, r));
    uint64_t *visible = pass->visible + r * DECODE_WORDS;
    const bool packed = pass->p->flags & HEED_MASK_BITS;
    for (int32_t w = lo / 64; w * 64 < hi; w++) {
        const int32_t from = w * 64 > lo ? w * 64 : lo & ~7, to = w * 64 + 64 < hi ? w * 64 + 64 : hi;
        const int64_t j = (int64_t)pass->kv_begin + from;
        uint64_t bits = 0;
        if (packed) {
            memcpy(&bits, row + j / 8, (size_t)((to - from + 7) / 8));
            bits = first_is_least(bits);
        } else {
            bits = bits_of_bytes(row + j, to - from);
        }
        if (MUTANT(cpu_decode_mask_shift)) bits <<= 1;
        visible[w] &= bits << (from - w * 64);
    }
}

/* Fills visible, any, lo and hi. */
static void see(struct decode_pass *pass)
{
    const struct problem *p = pass->p;
    int32_t low = DECODE_CHUNK, high = 0;
    for (int32_t r = 0; r < pass->rows; r++) {
        const int32_t i = row_query(pass, r);
        int32_t begin, end;
        visible_by_position(p, pass->s, query_position(pass->call->batch, pass->s, i), &begin, &end);
        if (p->flags & HEED_KEY_RANGE) {
            const int32_t *range = query_row(&pass->call->key_range, pass->s, pass->b, 0, i);
            if (range[0] > begin) begin = range[0];
            if (range[1] < end) end = range[1];
        }
        if (MUTANT(cpu_decode_window_own)) begin += p->window_left >= 0 && begin > 0;
        if (MUTANT(cpu_decode_window_batch)) begin += p->window_left >= 0 ? pass->call->batch->kv_len_max - pass->s->kv_len : 0;
        if (MUTANT(cpu_decode_range_end)) end += end < pass->s->kv_len;
        begin = begin > pass->kv_begin ? begin - pass->kv_begin : 0;
        end = end < pass->kv_begin ? 0 : end - pass->kv_begin < pass->keys ? end - pass->kv_begin : pass->keys;
        if (begin > end) begin = end;
        bits_of_range(pass->visible + r * DECODE_WORDS, begin, end);
        if (begin == end) continue;
        if (p->flags & (HEED_MASK_BOOL | HEED_MASK_BITS)) apply_mask(pass, r, begin, end);
        if (begin < low) low = begin;
        if (end > high) high = end;
    }
    pass->lo = low < high ? low : 0;
    pass->hi = high;
    for (int32_t w = 0; w < DECODE_WORDS; w++) {
        pass->any[w] = 0;
        for (int32_t r = 0; r < pass->rows; r++) pass->any[w] |= pass->visible[r * DECODE_WORDS + w];
    }
}

/* ---- where rows lie --------------------------------------------------------- */

/* Addresses of rows [from, to) of the chunk into table[]; what the group of 16 holds beside them repeats a neighbour. A paged cache is
 * walked page by page: one division per page. */
static void find_rows(const struct decode_pass *pass, const struct view *view, const unsigned char **table)
{
    const int32_t page_size = pass->p->page_size;
    const int32_t *pages = pass->call->batch->page_table;
    int32_t n = pass->lo;
    while (n < pass->hi) {
        const int32_t j = pass->kv_begin + n;
        const unsigned char *row = key_row(view, pass->s, pages, page_size, pass->b, pass->g, j);
        if (MUTANT(cpu_decode_offset_32)) row = view->data + (int32_t)(row - view->data);
        int32_t end = pass->hi;
        if (page_size > 0 && page_size - j % page_size < end - n && !MUTANT(cpu_decode_page_end)) end = n + page_size - j % page_size;
        for (; n < end; n++, row += view->token) table[n] = row;
    }
    for (int32_t j = pass->lo & ~15; j < pass->lo; j++) table[j] = table[pass->lo];
    for (int32_t j = pass->hi; j < whole_lanes(pass->hi); j++) table[j] = table[pass->hi - 1];
}

/* next_rows: the first keys that the item behind this one may see; most often the same thread takes it. Its head lies elsewhere, which no hardware can foresee. */
static bool find_next_rows(const struct decode_pass *pass, const struct work_item *item)
{
    const struct heed_batch *batch = pass->call->batch;
    const struct work_list *list = &batch->work[KIND_DECODE];
    const struct work_item *next = item + 1;
    if (next >= list->items + list->count) return false;
    const struct sequence *s = &batch->sequences[next->sequence];
    int32_t begin, end;
    visible_by_position(pass->p, s, query_position(batch, s, next->q_begin), &begin, &end);
    if (begin < next->kv_begin) begin = next->kv_begin;
    if (end > next->kv_end) end = next->kv_end;
    if (begin >= end) return false;
    for (int32_t n = 0, j = begin; n < DECODE_BLOCK; n++, j += j + 1 < end)
        pass->next_rows[n] = key_row(&pass->call->k, s, batch->page_table, pass->p->page_size, next->sequence, next->head, j);
    return true;
}

/* Scales of the keys. */
static void find_scales(const struct decode_pass *pass, const struct view *view, float *to)
{
    const int32_t *pages = pass->call->batch->page_table;
    for (int32_t n = pass->lo; n < pass->hi; n++)
        to[n] = *(const float *)key_row(view, pass->s, pages, pass->p->page_size, pass->b, pass->g, pass->kv_begin + n);
    for (int32_t n = pass->lo & ~15; n < pass->lo; n++) to[n] = 1.0f;
    for (int32_t n = pass->hi; n < whole_lanes(pass->hi); n++) to[n] = 1.0f;
}
#endif
