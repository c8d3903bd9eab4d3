/* SPDX-License-Identifier: MIT
 * decode.inc.h - template: the few query rows of one KV head's group against one chunk of keys. Memory-bound: K and V are read once, row
 * after row, whatever the group; rows of a pass share each key while it is in L1. Long prompts are prefill.inc.h's.
 *
 *     rows r = (i - q_begin) * group + (h - g * group), up to DECODE_PASS_ROWS at a time; keys of the chunk by their place in it, 0 .. 511
 *     1  visible[r]         bits: position, window, key range, masks
 *     2  p[r][key]          = sum_d q[r][d] k[key][d]              16 lanes over d, a fixed tree: score_tile
 *     3  p[r][key]          = e^(s - m)                            s = scale, softcap, ALiBi, bias of p: terms, softmax
 *     4  acc[r][d]          = sum_key p[r][key] v[key][d]          one chain over the visible keys: value_tile
 *     5  partial rows       acc, m, l -> workspace, or o at once through merge_row (the same steps, the same bits)
 *
 * A score depends on its two rows alone, a chain on the visible keys in order: so no bit depends on the group, on q_len, on other rows,
 * on tile shapes or on the width of a vector. A hidden key's V takes part in nothing; where a key is visible to some rows of a tile only,
 * those rows go one by one (0 * NaN would be NaN).
 */
#ifndef HEED_DECODE_INC_H
#define HEED_DECODE_INC_H

#include "lanes.inc.h"
#include "merge.inc.h"

#include <math.h>
#include <string.h>

enum {
    DECODE_CHUNK = 512,  /* keys per item: fixed, it decides the bits */
    DECODE_PASS_ROWS = 32,    /* rows per pass over the chunk */
    DECODE_BLOCK = 64,   /* keys per block of values: one word of visibility */
    DECODE_WORDS = DECODE_CHUNK / DECODE_BLOCK,
    DECODE_AHEAD = 64    /* keys between use and prefetch */
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
    int32_t k_bytes;                       /* of a row of k */
    bool ahead;                            /* fetch rows before their turn */
    bool k_scaled, v_scaled, plain;        /* plain: no term but the scale */
    float *q;                              /* [rows][dim16], zeros behind head_dim */
    float *acc;                            /* [rows][v16] */
    float *p_rows;                         /* [rows][DECODE_CHUNK] */
    float *sums;                           /* [rows][2]: m, l */
    uint64_t *visible;                     /* [rows][DECODE_WORDS] */
    uint64_t *any;                         /* [DECODE_WORDS] visible to some row */
    const unsigned char **k_rows, **v_rows; /* [DECODE_CHUNK] */
    float *k_scales, *v_scales;            /* [DECODE_CHUNK] of i8 and f8; else not used */
    float *terms, *distances;              /* [DECODE_CHUNK] bias as f32, |p_i - r_j| */
    float *widened;                        /* [16][dim16] or [DECODE_BLOCK][v16]: rows of types that do not widen in registers */
};

static inline int32_t whole_lanes(int32_t n) { return (n + 15) / 16 * 16; }

static size_t decode_scratch(const struct problem *p, int32_t kv_len_max)
{
    (void)kv_len_max;
    const size_t dim16 = (size_t)whole_lanes(p->head_dim), v16 = (size_t)whole_lanes(p->v_head_dim);
    const size_t widened = 16 * dim16 > DECODE_BLOCK * v16 ? 16 * dim16 : DECODE_BLOCK * v16;
    return (DECODE_PASS_ROWS * (dim16 + v16 + DECODE_CHUNK + 2) + 4 * DECODE_CHUNK + widened) * sizeof(float) +
           (DECODE_PASS_ROWS + 1) * DECODE_WORDS * sizeof(uint64_t) + 2 * DECODE_CHUNK * sizeof(void *) + 64;
}

static void decode_place(struct decode_pass *pass, void *scratch)
{
    float *next = scratch;
    const size_t widened = 16 * (size_t)pass->dim16 > DECODE_BLOCK * (size_t)pass->v16 ? 16 * (size_t)pass->dim16
                                                                                       : DECODE_BLOCK * (size_t)pass->v16;
    pass->q = next, next += DECODE_PASS_ROWS * pass->dim16;
    pass->acc = next, next += DECODE_PASS_ROWS * pass->v16;
    pass->p_rows = next, next += DECODE_PASS_ROWS * DECODE_CHUNK;
    pass->k_scales = next, next += DECODE_CHUNK;
    pass->v_scales = next, next += DECODE_CHUNK;
    pass->terms = next, next += DECODE_CHUNK;
    pass->distances = next, next += DECODE_CHUNK;
    pass->widened = next, next += widened;
    pass->sums = next, next += 2 * DECODE_PASS_ROWS;
    pass->visible = (uint64_t *)(void *)next;
    pass->any = pass->visible + DECODE_PASS_ROWS * DECODE_WORDS;
    pass->k_rows = (const unsigned char **)(void *)(pass->any + DECODE_WORDS);
    pass->v_rows = pass->k_rows + DECODE_CHUNK;
}

static inline int32_t row_query(const struct decode_pass *pass, int32_t r) { return pass->q_begin + (pass->first + r) / pass->p->group; }
static inline int32_t row_head(const struct decode_pass *pass, int32_t r)
{
    return pass->g * pass->p->group + (pass->first + r) % pass->p->group;
}

/* ---- 1: who sees what ----------------------------------------------------- */

static inline void bits_of_range(uint64_t *bits, int32_t begin, int32_t end)
{
    for (int32_t w = 0; w < DECODE_WORDS; w++) {
        const int32_t from = begin - w * 64 > 0 ? begin - w * 64 : 0, to = end - w * 64 < 64 ? end - w * 64 : 64;
        bits[w] = from >= to ? 0 : (~UINT64_C(0) >> (64 - (to - from))) << from;
    }
}

/* Bit n of the result: byte n of from is not 0, n < count <= 64. Bytes behind count are not read. */
static inline uint64_t bits_of_bytes(const unsigned char *from, int32_t count)
{
    uint64_t bits = 0;
    int32_t n = 0;
    for (; n + 8 <= count; n += 8) {
        uint64_t x;
        memcpy(&x, from + n, 8);
        x = (((x & 0x7f7f7f7f7f7f7f7f) + 0x7f7f7f7f7f7f7f7f) | x) & 0x8080808080808080;
        bits |= (((x >> 7) * 0x0102040810204080) >> 56) << n; /* bytes are read least significant first */
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
        if (packed)
            memcpy(&bits, row + j / 8, (size_t)((to - from + 7) / 8));
        else
            bits = bits_of_bytes(row + j, to - from);
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
        int32_t end = pass->hi;
        if (page_size > 0 && page_size - j % page_size < end - n) end = n + page_size - j % page_size;
        for (; n < end; n++, row += view->token) table[n] = row;
    }
    for (int32_t j = pass->lo & ~15; j < pass->lo; j++) table[j] = table[pass->lo];
    for (int32_t j = pass->hi; j < whole_lanes(pass->hi); j++) table[j] = table[pass->hi - 1];
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

/* ---- 2: dot products ------------------------------------------------------ */

/* Dots of R rows with 16 keys: 16 / R keys fill 16 accumulators of 16 lanes, KP keys side by side; a tree makes them one vector of
 * scores. Each dot: lane n sums d = n, n + 16, ... by fma from 0; a tail is filled with zeros. next: rows to fetch meanwhile, or NULL. */
INLINE void score_tile(const heed_type type, const int R, const int KP, const float *q, int32_t q_step, int32_t dim,
                       const unsigned char *const *rows, const unsigned char *const *next, int32_t next_bytes, float *to)
{
    const int KB = 16 / R;
    const int32_t whole = dim / 16 * 16;
    for (int first = 0; first < 16; first += KB) {
        vf sum[16][LANE_VECTORS];
        float scores[16] __attribute__((aligned(64)));
        UNROLL for (int k = 0; k < KB; k += KP) {
            vf a[16][LANE_VECTORS];
            const unsigned char *row[16];
            UNROLL for (int n = 0; n < KP; n++) {
                row[n] = rows[first + k + n];
                if (next)
                    for (int32_t z = 0; z < next_bytes; z += 64) vprefetch(next[first + k + n] + z);
            }
            UNROLL for (int n = 0; n < R * KP; n++)
                UNROLL for (int v = 0; v < LANE_VECTORS; v++) a[n][v] = vset1(0);
            for (int32_t d = 0; d < whole; d += 16)
                UNROLL for (int v = 0; v < LANE_VECTORS; v++) {
                    vf x[16];
                    UNROLL for (int n = 0; n < KP; n++) x[n] = vload_row(type, row[n], d + v * VW);
                    UNROLL for (int r = 0; r < R; r++) {
                        const vf y = vload(q + r * q_step + d + v * VW);
                        UNROLL for (int n = 0; n < KP; n++) a[r * KP + n][v] = vfma(x[n], y, a[r * KP + n][v]);
                    }
                }
            if (whole < dim)
                UNROLL for (int v = 0; v < LANE_VECTORS; v++) {
                    vf x[16];
                    UNROLL for (int n = 0; n < KP; n++) x[n] = vload_row_n(type, row[n], whole + v * VW, lanes_left(dim - whole - v * VW));
                    UNROLL for (int r = 0; r < R; r++) {
                        const vf y = vload(q + r * q_step + whole + v * VW);
                        UNROLL for (int n = 0; n < KP; n++) a[r * KP + n][v] = vfma(x[n], y, a[r * KP + n][v]);
                    }
                }
            UNROLL for (int r = 0; r < R; r++)
                UNROLL for (int n = 0; n < KP; n++)
                    UNROLL for (int v = 0; v < LANE_VECTORS; v++) sum[r * KB + k + n][v] = a[r * KP + n][v];
        }
        vtree16(sum, scores);
        UNROLL for (int r = 0; r < R; r++) memcpy(to + r * DECODE_CHUNK + first, scores + r * KB, (size_t)KB * sizeof(float));
    }
}

/* ---- 4: weighted sums ----------------------------------------------------- */

/* acc[r][...] += p[r][key] v[key][...] for the keys of one block whose bit is set: R rows, C times 16 columns from d on (TAIL: the last
 * columns, n < 16 of them). ahead: fetch the same columns of the next block. */
INLINE void value_tile(const heed_type type, const int R, const int C, const bool TAIL, const float *p, uint64_t bits,
                       const unsigned char *const *rows, int32_t d, int32_t n, float *acc, int32_t acc_step, bool ahead)
{
    enum { MOST = 8 * LANE_VECTORS };
    vf a[8][MOST];
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int v = 0; v < C * LANE_VECTORS; v++) a[r][v] = vload(acc + r * acc_step + v * VW);
    while (bits) {
        const int j = __builtin_ctzll(bits);
        const unsigned char *row = rows[j];
        vf x[MOST];
        bits &= bits - 1;
        if (ahead)
            UNROLL for (int z = 0; z < C * 16; z += 64 / row_element_bytes(type)) vprefetch(row_address(type, rows[j + DECODE_BLOCK], d + z));
        UNROLL for (int v = 0; v < C * LANE_VECTORS; v++)
            x[v] = TAIL ? vload_row_n(type, row, d + v * VW, lanes_left(n - v * VW)) : vload_row(type, row, d + v * VW);
        UNROLL for (int r = 0; r < R; r++) {
            const vf w = vset1(p[r * DECODE_CHUNK + j]);
            UNROLL for (int v = 0; v < C * LANE_VECTORS; v++) a[r][v] = vfma(w, x[v], a[r][v]);
        }
    }
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int v = 0; v < C * LANE_VECTORS; v++) vstore(acc + r * acc_step + v * VW, a[r][v]);
}

/* ---- instances: types x rows of a tile; shapes by the registers there are -- */

typedef void (*score_fn)(const float *q, int32_t q_step, int32_t dim, const unsigned char *const *rows, const unsigned char *const *next,
                         int32_t next_bytes, float *to);
typedef void (*value_fn)(const float *p, uint64_t bits, const unsigned char *const *rows, int32_t d, int32_t n, float *acc,
                         int32_t acc_step, bool ahead);

#define SCORE_INSTANCE(name, type, R, KP)                                                                                              \
    NOINLINE void score_##name##_##R(const float *q, int32_t q_step, int32_t dim, const unsigned char *const *rows,                    \
                                     const unsigned char *const *next, int32_t next_bytes, float *to)                                  \
    {                                                                                                                                  \
        score_tile(type, R, KP, q, q_step, dim, rows, next, next_bytes, to);                                                           \
    }
#define VALUE_INSTANCE(name, type, R, C, TAIL, word)                                                                                   \
    NOINLINE void value_##name##_##R##_##word(const float *p, uint64_t bits, const unsigned char *const *rows, int32_t d, int32_t n,   \
                                              float *acc, int32_t acc_step, bool ahead)                                                \
    {                                                                                                                                  \
        value_tile(type, R, C, TAIL, p, bits, rows, d, n, acc, acc_step, ahead);                                                       \
    }
#define VALUE_INSTANCES(name, type, R, C)        \
    VALUE_INSTANCE(name, type, R, C, false, wide) \
    VALUE_INSTANCE(name, type, R, 1, false, one)  \
    VALUE_INSTANCE(name, type, R, 1, true, tail)

/* Rows per tile, keys side by side in the scores, 16-column strips in the values: accumulators, operands and one broadcast stay in
 * registers. One float wide there is nothing to share. */
#if VW >= 8
#define DECODE_TILES 3 /* of 1, 2 and 4 rows */
#define DECODE_INSTANCES(name, type)                                 \
    SCORE_INSTANCE(name, type, 1, 2)                                 \
    SCORE_INSTANCE(name, type, 2, 2)                                 \
    SCORE_INSTANCE(name, type, 4, VW == 16 ? 2 : 1)                  \
    VALUE_INSTANCES(name, type, 1, VW == 16 ? 8 : 4)                 \
    VALUE_INSTANCES(name, type, 2, VW == 16 ? 8 : 2)                 \
    VALUE_INSTANCES(name, type, 4, VW == 16 ? 4 : 1)
#define DECODE_ENTRY(name)                                                                          \
    {                                                                                               \
        {score_##name##_1, score_##name##_2, score_##name##_4},                                     \
        {{value_##name##_1_wide, value_##name##_1_one, value_##name##_1_tail},                      \
         {value_##name##_2_wide, value_##name##_2_one, value_##name##_2_tail},                      \
         {value_##name##_4_wide, value_##name##_4_one, value_##name##_4_tail}},                     \
    }
static const int32_t value_strip[DECODE_TILES] = {VW == 16 ? 8 : 4, VW == 16 ? 8 : 2, VW == 16 ? 4 : 1};
#else
#define DECODE_TILES 1
#define DECODE_INSTANCES(name, type) SCORE_INSTANCE(name, type, 1, 1) VALUE_INSTANCES(name, type, 1, 1)
#define DECODE_ENTRY(name) {{score_##name##_1}, {{value_##name##_1_wide, value_##name##_1_one, value_##name##_1_tail}}}
static const int32_t value_strip[DECODE_TILES] = {1};
#endif

enum { STRIP_WIDE, STRIP_ONE, STRIP_TAIL };
struct decode_tiles {
    score_fn score[DECODE_TILES];
    value_fn value[DECODE_TILES][3];
};
DECODE_INSTANCES(f32, HEED_F32)
DECODE_INSTANCES(f16, HEED_F16)
DECODE_INSTANCES(bf16, HEED_BF16)
DECODE_INSTANCES(i8, HEED_I8)
static const struct decode_tiles tiles_f32 = DECODE_ENTRY(f32), tiles_f16 = DECODE_ENTRY(f16), tiles_bf16 = DECODE_ENTRY(bf16),
                                 tiles_i8 = DECODE_ENTRY(i8);

/* NULL: rows of this type are widened to f32 in scratch first. */
static const struct decode_tiles *tiles_of(heed_type type)
{
    switch (type) {
    case HEED_F32: return &tiles_f32;
    case HEED_F16: return &tiles_f16;
    case HEED_BF16: return &tiles_bf16;
    case HEED_I8: return &tiles_i8;
    default: return NULL;
    }
}

/* The largest tile, as its logarithm, for so many rows. */
static inline int tile_for(int32_t rows) { return DECODE_TILES == 1 || rows == 1 ? 0 : rows < 4 ? 1 : 2; }

/* Rows of table to f32 in scratch, and a table of them. */
static void widen_rows(const struct decode_pass *pass, heed_type type, int32_t dim, int32_t step, uint64_t bits, int32_t count,
                       const unsigned char *const *table, const unsigned char **to)
{
    for (int32_t n = 0; n < count; n++) {
        float *row = pass->widened + (int64_t)n * step;
        to[n] = (const unsigned char *)row;
        if (bits >> n & 1) row_to_f32(type, table[n], 1.0f, row, dim);
    }
}

/* p[r][key] = dot product, for every group of 16 keys that holds a visible one. */
static void score_rows(struct decode_pass *pass)
{
    const struct problem *p = pass->p;
    const struct decode_tiles *tiles = tiles_of(p->k_type), *use = tiles ? tiles : &tiles_f32;
    const unsigned char *widened[16];
    for (int32_t n = pass->lo & ~15; n < pass->hi; n += 16) {
        if (!(pass->any[n / 64] >> (n % 64) & 0xffff)) continue;
        const unsigned char *const *rows = pass->k_rows + n, *const *next = NULL;
        if (pass->ahead) /* the keys to come, and the first values behind the last key */
            next = n + DECODE_AHEAD + 16 <= pass->hi ? rows + DECODE_AHEAD : pass->v_rows + (pass->lo & ~15);
        if (!tiles) {
            widen_rows(pass, p->k_type, p->head_dim, pass->dim16, ~UINT64_C(0), 16, rows, widened);
            rows = widened;
        }
        for (int32_t r = 0; r < pass->rows;) {
            const int tile = tile_for(pass->rows - r);
            use->score[tile](pass->q + (int64_t)r * pass->dim16, pass->dim16, p->head_dim, rows, r == 0 ? next : NULL, pass->k_bytes,
                             pass->p_rows + r * DECODE_CHUNK + n);
            r += 1 << tile;
        }
    }
}

/* One tile of rows against one block of values. */
static void value_strips(const struct decode_pass *pass, const struct decode_tiles *use, int tile, int32_t r, uint64_t bits,
                         const unsigned char *const *rows, int32_t w, bool ahead)
{
    const int32_t dim = pass->p->v_head_dim, strip = 16 * value_strip[tile];
    const float *p = pass->p_rows + r * DECODE_CHUNK + w * DECODE_BLOCK;
    float *acc = pass->acc + (int64_t)r * pass->v16;
    int32_t d = 0;
    for (; d + strip <= dim; d += strip) use->value[tile][STRIP_WIDE](p, bits, rows, d, 0, acc + d, pass->v16, ahead);
    for (; d + 16 <= dim; d += 16) use->value[tile][STRIP_ONE](p, bits, rows, d, 0, acc + d, pass->v16, ahead);
    if (d < dim) use->value[tile][STRIP_TAIL](p, bits, rows, d, dim - d, acc + d, pass->v16, false);
}

/* acc += p v, block by block: each block is in cache when the second tile of rows comes to it. */
static void value_rows(struct decode_pass *pass)
{
    const struct problem *p = pass->p;
    const struct decode_tiles *tiles = tiles_of(p->v_type), *use = tiles ? tiles : &tiles_f32;
    const unsigned char *widened[DECODE_BLOCK];
    for (int32_t w = pass->lo / DECODE_BLOCK; w * DECODE_BLOCK < pass->hi; w++) {
        if (!pass->any[w]) continue;
        const unsigned char *const *rows = pass->v_rows + w * DECODE_BLOCK;
        bool ahead = pass->ahead && (w + 2) * DECODE_BLOCK <= pass->hi;
        if (!tiles) {
            widen_rows(pass, p->v_type, p->v_head_dim, pass->v16, pass->any[w], DECODE_BLOCK, rows, widened);
            rows = widened;
            ahead = false;
        }
        for (int32_t r = 0; r < pass->rows;) {
            const int tile = tile_for(pass->rows - r);
            uint64_t all = ~UINT64_C(0), any = 0;
            for (int32_t n = r; n < r + (1 << tile); n++) {
                all &= pass->visible[n * DECODE_WORDS + w];
                any |= pass->visible[n * DECODE_WORDS + w];
            }
            if (all == any || MUTANT(cpu_decode_mixed_tile)) {
                if (any) value_strips(pass, use, tile, r, any, rows, w, ahead && r == 0);
            } else {
                for (int32_t n = r; n < r + (1 << tile); n++)
                    value_strips(pass, use, 0, n, pass->visible[n * DECODE_WORDS + w], rows, w, false);
            }
            r += 1 << tile;
        }
    }
}

/* ---- 3: from dot products to weights -------------------------------------- */

/* terms[key] for keys [lo, hi) in whole groups of 16: the row's bias as f32. A bias of -infinity hides its key by itself: the score may be
 * NaN. */
static void find_bias(const struct decode_pass *pass, int32_t r)
{
    const unsigned char *row = query_row(&pass->call->bias, pass->s, pass->b, row_head(pass, r), row_query(pass, r));
    uint64_t *visible = pass->visible + r * DECODE_WORDS;
    for (int32_t n = pass->lo & ~15; n < whole_lanes(pass->hi); n += VW) {
        const vf x = vload_row_n(pass->p->bias_type, row, pass->kv_begin + n, lanes_left(pass->hi - n));
        const uint64_t gone = (uint64_t)bits_of_vm(veq(x, vset1(-INFINITY))) << (n % 64);
        if (!MUTANT(cpu_decode_bias_hides)) visible[n / 64] &= ~gone;
        vstore(pass->terms + n, x);
    }
}

static void find_distances(const struct decode_pass *pass, int32_t r)
{
    const int64_t own = query_position(pass->call->batch, pass->s, row_query(pass, r)) - pass->s->first - pass->kv_begin;
    for (int32_t n = pass->lo & ~15; n < whole_lanes(pass->hi); n++) pass->distances[n] = (float)(own > n ? own - n : n - own);
}

/* Rules 1 to 4: x of a vector of keys from its dot products. */
INLINE vf add_terms(const struct decode_pass *pass, vf x, int32_t n, float slope)
{
    const struct problem *p = pass->p;
    const bool bias = p->flags & HEED_BIAS, first = p->flags & HEED_BIAS_FIRST;
    if (pass->k_scaled) x = vmul(x, vload(pass->k_scales + n));
    x = vmul(x, vset1(p->scale));
    if (pass->plain) return x;
    if (bias && first) x = vadd(x, vload(pass->terms + n));
    if (p->softcap > 0) x = vmul(vset1(p->softcap), vtanh(vdiv(x, vset1(p->softcap))));
    if (p->flags & HEED_ALIBI) x = vfma(vset1(-slope), vload(pass->distances + n), x);
    if (bias && !first) x = vadd(x, vload(pass->terms + n));
    return x;
}

/* Row r: scores, then m = max s, p = e^(s - m), l = sum p: lane n sums keys n, n + 16, ..., then the tree of the scores. visible loses the
 * keys whose score is -infinity. */
static void softmax_row(struct decode_pass *pass, int32_t r)
{
    const struct problem *p = pass->p;
    uint64_t *visible = pass->visible + r * DECODE_WORDS;
    float *row = pass->p_rows + r * DECODE_CHUNK, lanes[16] __attribute__((aligned(64))), m = -INFINITY;
    float slope = 0;
    if (p->flags & HEED_BIAS) find_bias(pass, r);
    if (p->flags & HEED_ALIBI) {
        slope = ((const float *)pass->call->alibi.data)[row_head(pass, r)];
        find_distances(pass, r);
    }
    const int32_t begin = pass->lo & ~15, end = whole_lanes(pass->hi);
    const bool biased = p->flags & HEED_BIAS;
    const vf nothing = vset1(-INFINITY);
    vf top = nothing;
    for (int32_t n = begin; n < end; n += VW) {
        uint64_t bits = visible[n / 64] >> (n % 64);
        if (biased) bits &= ~(uint64_t)bits_of_vm(veq(vload(pass->terms + n), nothing)); /* hidden, also where K is NaN */
        const vf x = vselect(vm_of_bits((uint32_t)bits), add_terms(pass, vload(row + n), n, slope), nothing);
        const uint64_t gone = (uint64_t)bits_of_vm(veq(x, nothing)) << (n % 64);
        visible[n / 64] &= ~gone;
        vstore(row + n, x);
        top = vmax(x, top); /* a NaN is passed over: it shows in the sum */
    }
    vstore(lanes, top);
    for (int n = 0; n < VW; n++)
        if (lanes[n] > m) m = lanes[n];

    const vf shift = vset1(m == -INFINITY ? 0 : m);
    vf sum[LANE_VECTORS];
    UNROLL for (int v = 0; v < LANE_VECTORS; v++) sum[v] = vset1(0);
    for (int32_t n = begin; n < end; n += 16)
        UNROLL for (int v = 0; v < LANE_VECTORS; v++) {
            const vf e = vexp(vsub(vload(row + n + v * VW), shift));
            sum[v] = vadd(sum[v], e);
            vstore(row + n + v * VW, e);
        }
    UNROLL for (int v = 0; v < LANE_VECTORS; v++) vstore(lanes + v * VW, sum[v]);
    pass->sums[2 * r] = m;
    pass->sums[2 * r + 1] = tree_of_16(lanes);
    if (pass->v_scaled)
        for (int32_t n = begin; n < end; n += VW) vstore(row + n, vmul(vload(row + n), vload(pass->v_scales + n)));
}

/* ---- the item --------------------------------------------------------------- */

static void load_queries(struct decode_pass *pass)
{
    const struct problem *p = pass->p;
    for (int32_t r = 0; r < pass->rows; r++) {
        const unsigned char *row = query_row(&pass->call->q, pass->s, pass->b, row_head(pass, r), row_query(pass, r));
        float *to = pass->q + (int64_t)r * pass->dim16;
        for (int32_t d = 0; d < pass->dim16; d += VW) vstore(to + d, vload_row_n(p->q_type, row, d, lanes_left(p->head_dim - d)));
    }
}

/* Sums and accumulators of the pass's rows; a row that saw nothing has l = 0. */
static void run_pass(struct decode_pass *pass)
{
    const struct call *call = pass->call;
    see(pass);
    for (int32_t r = 0; r < pass->rows; r++) pass->sums[2 * r] = -INFINITY, pass->sums[2 * r + 1] = 0;
    if (pass->hi == 0) return;
    memset(pass->acc, 0, (size_t)pass->rows * (size_t)pass->v16 * sizeof(float));
    find_rows(pass, &call->k, pass->k_rows);
    find_rows(pass, &call->v, pass->v_rows);
    if (pass->k_scaled) find_scales(pass, &call->k_scale, pass->k_scales);
    if (pass->v_scaled) find_scales(pass, &call->v_scale, pass->v_scales);
    load_queries(pass);
    score_rows(pass);
    for (int32_t r = 0; r < pass->rows; r++) softmax_row(pass, r);
    for (int32_t w = 0; w < DECODE_WORDS; w++) {
        pass->any[w] = 0; /* again: a score of -infinity hides its key */
        for (int32_t r = 0; r < pass->rows; r++) pass->any[w] |= pass->visible[r * DECODE_WORDS + w];
    }
    value_rows(pass);
}

/* Partial row of the workspace, or o and lse by the same merge with one chunk. */
static void leave_row(const struct decode_pass *pass, const struct work_item *item, int32_t r)
{
    const struct call *call = pass->call;
    const float *acc = pass->acc + (int64_t)r * pass->v16, *sums = pass->sums + 2 * r;
    if (item->part >= 0) {
        const int64_t part = (int64_t)item->part + pass->first + r;
        if (sums[1] != 0) memcpy(part_values(call, part), acc, (size_t)pass->p->v_head_dim * sizeof *acc);
        memcpy(part_sums(call, part), sums, 2 * sizeof *sums);
        return;
    }
    const struct parts parts = {.values = acc, .sums = sums, .chunks = 1};
    merge_row(call, pass->b, row_head(pass, r), row_query(pass, r), &parts, pass->widened);
}

static void decode_item(const struct call *call, const struct work_item *item, void *scratch)
{
    const struct problem *p = &call->plan->problem;
    const int32_t rows = (item->q_end - item->q_begin) * p->group;
    struct decode_pass pass = {.call = call,
                               .p = p,
                               .s = &call->batch->sequences[item->sequence],
                               .b = item->sequence,
                               .g = item->head,
                               .q_begin = item->q_begin,
                               .kv_begin = item->kv_begin,
                               .keys = item->kv_end - item->kv_begin,
                               .dim16 = whole_lanes(p->head_dim),
                               .v16 = whole_lanes(p->v_head_dim),
                               .k_bytes = (int32_t)type_row_bytes(p->k_type, p->head_dim),
                               .ahead = rows > 1, /* one row alone: the hardware fetches better */
                               .k_scaled = call->k_scale.given,
                               .v_scaled = call->v_scale.given,
                               .plain = !(p->flags & (HEED_BIAS | HEED_ALIBI)) && p->softcap == 0};
    decode_place(&pass, scratch);
    for (pass.first = 0; pass.first < rows; pass.first += DECODE_PASS_ROWS) {
        pass.rows = rows - pass.first < DECODE_PASS_ROWS ? rows - pass.first : DECODE_PASS_ROWS;
        run_pass(&pass);
        for (int32_t r = 0; r < pass.rows; r++) leave_row(&pass, item, r);
    }
}

static const struct cpu_kernel decode_kernel = {.item = decode_item, .merge_parts = merge_parts_rows, .scratch = decode_scratch};

/* h_d: head_dim / 16 fmas and 4 levels of the tree. h_n: one chain of 512 keys, a merge per chunk, a value's scale and the sink. */
#define DECODE_ROWS(isa, need)                                                                                              \
    {.name = "cpu." isa ".decode", .kinds = KIND_BIT(KIND_DECODE), .order = ORDER_OWN, .needs = (need),                        \
     .features = ~(uint64_t)HEED_WRITE_SCORES, .q_types = TYPES_FLOAT, .k_types = TYPES_ALL, .v_types = TYPES_ALL,             \
     .o_types = TYPES_FLOAT, .q_tile = 0, .kv_chunk = DECODE_CHUNK, .packs_group = true,                                       \
     .arithmetic = {.dot_lanes = 16, .dot_extra = 4, .key_block = DECODE_CHUNK, .sum_extra = 2, .rescale_block = DECODE_CHUNK, \
                    .exp_ulp = 1.1f, .exp_roundings = 1, .tanh_ulp = 3, .log_ulp = 1, .div_roundings = 2,                      \
                    .weight_type = HEED_F32},                                                                                  \
     .cpu = &decode_kernel}
#endif
