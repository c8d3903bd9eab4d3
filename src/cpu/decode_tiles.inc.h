/* SPDX-License-Identifier: MIT
 * decode_tiles.inc.h - template: the two inner loops of decode for every storage type, and the table of their instances. Rows are widened to
 * f32 in registers; who sees what and what a score means is decode.inc.h's.
 */
#ifndef HEED_DECODE_TILES_INC_H
#define HEED_DECODE_TILES_INC_H

#include "cells.inc.h"
#include "lanes.inc.h"

enum {
    DECODE_CHUNK = 512, /* keys per item: fixed, it decides the bits */
    DECODE_BLOCK = 64   /* keys per block of values: one word of visibility */
};

#if VW == 16
#define UNROLL_KEYS UNROLL
#else
#define UNROLL_KEYS /* there are no registers to keep 16 sums of 16 lanes in */
#endif

/* ---- dot products --------------------------------------------------------- */

/* Vector v of cells d16, ... of a row of keys; _n: cells [d, d + VW) as far as element dim. */
#if CELL == 1
INLINE vf load_key(const heed_type type, const unsigned char *row, int32_t d16, int v) { return vload_row(type, row, d16 + v * VW); }
INLINE vf load_key_n(const heed_type type, const unsigned char *row, int32_t d, int32_t dim)
{
    return vload_row_n(type, row, d, lanes_left(dim - d));
}
#else
INLINE vf load_key(const heed_type type, const unsigned char *row, int32_t d16, int v)
{
    (void)type;
    return vload((const float *)row + d16 + v * VW);
}
INLINE vf load_key_n(const heed_type type, const unsigned char *row, int32_t d, int32_t dim)
{
    (void)type;
    return vload_cells_n((const uint16_t *)row + 2 * d, dim - 2 * d);
}
#endif

/* What element d, a multiple of 16, and those behind it, up to 16, add to the sums of dots(). */
INLINE void dots_tail(const heed_type type, const int R, const int KP, const int VS, const float *q, int32_t dim, const unsigned char *const *rows,
                      const int u, int32_t d, vf (*a)[LANE_VECTORS])
{
    UNROLL for (int v = 0; v < VS; v++) {
        vf x[16];
        UNROLL for (int n = 0; n < KP; n++) x[n] = load_key_n(type, rows[n], d + (u + v) * VW, dim);
        UNROLL for (int r = 0; r < R; r++) {
            const vf y = vload(q + d * R + r * 16 + (u + v) * VW);
            UNROLL for (int n = 0; n < KP; n++) a[r * KP + n][v] = vmac(a[r * KP + n][v], y, x[n]);
        }
    }
}

/* Are rows to come fetched line by line between the products? A core that asks for more lines at once than it has buffers waits (4 rows of f32 at once:
 * 11 % of decode on an Emerald Rapids); short rows, and few registers, want them at once. */
INLINE bool fetches_lines(const heed_type type)
{
    return VEC_REGISTERS >= 32 && (type == HEED_F32 || type == HEED_F16 || type == HEED_BF16);
}

/* The line of KP rows that begins with element d, if one does. */
INLINE void fetch_line(const heed_type type, const int KP, int32_t d, const unsigned char *const *next)
{
    if (d % line_elements(type) == 0)
        UNROLL for (int n = 0; n < KP; n++) vprefetch(row_address(type, next[n], d));
}

/* Dots of R rows with KP keys, VS vectors of the 16 lanes at a time: by so few that sums and operands stay in registers. q: [d / 16][R][16]
 * in cells, so that one address serves all rows. scales: [block][16] of the keys, in types whose blocks have some. lines: rows to fetch line by line
 * meanwhile, or NULL. */
INLINE void dots(const heed_type type, const int R, const int KP, const int VS, const float *q, int32_t dim,
                 const unsigned char *const *rows, const float *scales, const unsigned char *const *lines, vf (*sum)[LANE_VECTORS],
                 const int sum_step)
{
    const bool at_once = widens_at_once(type) && VS == LANE_VECTORS;
    const int span = has_block_scales(type) ? 32 : at_once ? VEC_E4M3 : 16;
    const int32_t whole = dim / CELL / span * span;
    UNROLL for (int u = 0; u < LANE_VECTORS; u += VS) {
        vf a[16][LANE_VECTORS];
        const unsigned char *row[16];
        UNROLL for (int n = 0; n < KP; n++) row[n] = rows[n];
        UNROLL for (int n = 0; n < R * KP; n++)
            UNROLL for (int v = 0; v < VS; v++) a[n][v] = vset1(0);
        ptrdiff_t at = 0; /* of a block in its row */
        for (int32_t d = 0; d < whole; d += span, at += block_bytes(type)) {
            if (lines && u == 0) fetch_line(type, KP, d * CELL, lines);
            if (at_once) { /* key by key, each wants its registers */
                UNROLL for (int n = 0; n < KP; n++) {
                    vf x[VEC_E4M3 / VW];
                    vload_e4m3_wide(row[n] + d, x);
                    UNROLL for (int e = 0; e < VEC_E4M3 / VW; e++)
                        UNROLL for (int r = 0; r < R; r++) {
                            const vf y = vload(q + (d + e * VW / 16 * 16) * R + r * 16 + e % LANE_VECTORS * VW);
                            a[r * KP + n][e % LANE_VECTORS] = vmac(a[r * KP + n][e % LANE_VECTORS], y, x[e]);
                        }
                }
                continue;
            }
            UNROLL for (int h = 0; h < span; h += 16) {
                UNROLL for (int n = 0; n < KP; n++) KEEP_ADDRESS(row[n]);
                UNROLL for (int v = 0; v < VS; v++) {
                    vf x[16];
                    const float *scale = scales + d / 2;
                    if (VEC_REGISTERS < 32 && has_block_scales(type)) KEEP_ADDRESS(scale); /* there is none for a scale from one vector to the next */
                    UNROLL for (int n = 0; n < KP; n++)
                        x[n] = has_block_scales(type) ? vload_half_block(type, row[n] + at, h / 16, u + v, vset1(scale[n])) : load_key(type, row[n], d, u + v);
                    UNROLL for (int r = 0; r < R; r++) {
                        vf y = vload(q + (d + h) * R + r * 16 + (u + v) * VW);
                        if (KP > 1) KEEP(y);
                        UNROLL for (int n = 0; n < KP; n++) a[r * KP + n][v] = vmac(a[r * KP + n][v], y, x[n]);
                    }
                }
            }
        }
        int32_t tail = whole;
        if (at_once && span > 16)
            for (; tail + 16 <= dim; tail += 16) dots_tail(type, R, KP, VS, q, dim, rows, u, tail, a);
        if (lines && u == 0 && tail * CELL < dim) fetch_line(type, KP, tail * CELL, lines);
        if (!has_block_scales(type) && tail * CELL < dim) dots_tail(type, R, KP, VS, q, dim, rows, u, tail, a); /* blocks are whole */
        UNROLL for (int r = 0; r < R; r++)
            UNROLL for (int n = 0; n < KP; n++)
                UNROLL for (int v = 0; v < VS; v++) sum[r * sum_step + n][u + v] = a[r * KP + n][v];
#if VW == 4 && VEC_REGISTERS == 32
        KEEP_IN_MEMORY(sum); /* or gcc takes the 64 sums for registers' business, and finds none for those of the next loop */
#endif
    }
}

/* Dots of R rows with 16 keys: 16 / R keys fill 16 accumulators of 16 lanes, KP keys side by side; a tree makes them one vector of
 * scores. Each dot: lane n sums d = n, n + 16, ... by fma from 0 (in cells: two d at a time); a tail is filled with zeros. next: rows to fetch meanwhile, or NULL. */
INLINE void score_tile(const heed_type type, const int R, const int KP, const int VS, const float *q, int32_t dim,
                       const unsigned char *const *rows, const unsigned char *const *next, int32_t next_bytes, float *to)
{
    const int KB = 16 / R;
    const bool by_lines = fetches_lines(type);
    float scales[BLOCK_SCALES_MOST] __attribute__((aligned(64)));
    if (has_block_scales(type)) find_block_scales(type, rows, 0xffff, 0, dim / 32, 16, scales);
    for (int first = 0; first < 16; first += KB) {
        vf sum[16][LANE_VECTORS];
        float scores[16] __attribute__((aligned(64)));
        UNROLL_KEYS for (int k = 0; k < KB; k += KP) {
            if (next && !by_lines)
                for (int n = 0; n < KP; n++)
                    for (int32_t z = 0; z < next_bytes; z += 64) vprefetch(next[first + k + n] + z);
            dots(type, R, KP, VS, q, dim, rows + first + k, scales + first + k, next && by_lines ? next + first + k : NULL, sum + k, KB);
        }
        vtree16(sum, scores);
        UNROLL for (int r = 0; r < R; r++) memcpy(to + r * DECODE_CHUNK + first, scores + r * KB, (size_t)KB * sizeof(float));
    }
}

/* ---- weighted sums ----------------------------------------------------- */

/* Columns [d, ...) of the values; n < 16 of them in a tail. Beside each key bytes [fetch_from, fetch_to) of fetch[key] are fetched. */
struct strip {
    int32_t d, n, fetch_from, fetch_to;
    const unsigned char *const *fetch;
};

/* What is fetched beside key j. */
INLINE void fetch_strip(const struct strip *strip, int j)
{
    for (int32_t z = strip->fetch_from; z < strip->fetch_to; z += 64) vprefetch(strip->fetch[j] + z);
}

#if CELL == 2
/* C times 16 columns of two rows as cells, C 1 or 2; TAIL: n < 16 columns. */
INLINE void zip_columns(const int C, const bool TAIL, const uint16_t *one, const uint16_t *two, int n, vf *x)
{
    if (C == 1)
        vzip16(one, two, TAIL ? n : 16, x);
    else
        vzip32(one, two, x);
}

/* The cell of a row's weights of keys j and k. */
INLINE vcell weights_of(const float *p, int j, int k, bool two)
{
    const uint32_t lower = bits_of(p[j]) >> 16, upper = two ? bits_of(p[MUTANT(cpu_pairs_one_weight) ? j : k]) : 0;
    return vcell_of(float_of(lower | upper));
}

/* As below, two visible keys at a time: which two depends on the row's own keys alone. Weights are bf16 in the form of floats. */
INLINE void value_tile(const heed_type type, const int R, const int C, const bool TAIL, const float *p, uint64_t bits,
                       const unsigned char *const *rows, const struct strip *strip, float *acc, int32_t acc_step)
{
    (void)type;
    static const uint16_t none[MAX_HEAD_DIM] = {0}; /* beside an odd last key: 0 times its own value might be NaN */
    const struct strip own = *strip;
    enum { MOST = 8 * LANE_VECTORS };
    const int AT_ONCE = C == 1 ? 1 : 2;
    vf a[8][MOST];
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int v = 0; v < C * LANE_VECTORS; v++) a[r][v] = vload(acc + r * acc_step + v * VW);
    while (bits) {
        const int j = __builtin_ctzll(bits);
        bits &= bits - 1;
        const bool two = bits != 0;
        const int k = two ? __builtin_ctzll(bits) : j;
        bits &= bits - 1; /* 0 & anything is 0 */
        vf x[MOST];
        fetch_strip(&own, j);
        fetch_strip(&own, k);
        const uint16_t *row = (const uint16_t *)rows[j] + own.d, *beside = (two ? (const uint16_t *)rows[k] : none) + own.d;
        const vcell first = weights_of(p, j, k, two);
        UNROLL for (int c = 0; c < C; c += AT_ONCE) {
            zip_columns(AT_ONCE, TAIL, row + 16 * c, beside + 16 * c, own.n, x + c * LANE_VECTORS);
            if (R == 1) /* at once: one row has no use for x again */
                UNROLL for (int v = c * LANE_VECTORS; v < (c + AT_ONCE) * LANE_VECTORS; v++) a[0][v] = vmac_cell(a[0][v], x[v], first);
        }
        UNROLL for (int r = 0; r < R; r++) {
            const vcell w = weights_of(p + r * DECODE_CHUNK, j, k, two);
            if (R > 1)
                UNROLL for (int v = 0; v < C * LANE_VECTORS; v++) a[r][v] = vmac_cell(a[r][v], x[v], w);
        }
    }
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int v = 0; v < C * LANE_VECTORS; v++) vstore(acc + r * acc_step + v * VW, a[r][v]);
}

#else
/* acc[r][d ...] += p[r][key] v[key][d ...] for the keys of one block whose bit is set: R rows, C times 16 columns (TAIL: fewer than 16). */
INLINE void value_tile(const heed_type type, const int R, const int C, const bool TAIL, const float *p, uint64_t bits,
                       const unsigned char *const *rows, const struct strip *strip, float *acc, int32_t acc_step)
{
    const struct strip own = *strip;
    enum { MOST = 8 * LANE_VECTORS };
    const int blocks = C > 1 ? C / 2 : 1; /* a strip of more than 16 columns begins with one */
    const ptrdiff_t at = own.d / 32 * (ptrdiff_t)block_bytes(type);
    const int half = own.d / 16 % 2;
    float scales[4 * DECODE_BLOCK] __attribute__((aligned(64)));
    vf a[8][MOST];
    if (has_block_scales(type) && !TAIL) find_block_scales(type, rows, bits, own.d / 32, blocks, DECODE_BLOCK, scales);
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int v = 0; v < C * LANE_VECTORS; v++) a[r][v] = vload(acc + r * acc_step + v * VW);
    while (bits) {
        const int j = __builtin_ctzll(bits);
        const unsigned char *row = rows[j];
        vf x[MOST];
        bits &= bits - 1;
        fetch_strip(&own, j);
        const vcell first = vcell_of(p[j]);
        UNROLL for (int v = 0; v < C * LANE_VECTORS; v++) {
            const int c = v / LANE_VECTORS;
            const float *scale = scales + c / 2 * DECODE_BLOCK + j;
            if (VEC_REGISTERS < 32 && has_block_scales(type)) KEEP_ADDRESS(scale);
            if (TAIL)
                x[v] = vload_row_n(type, row, own.d + v * VW, lanes_left(own.n - v * VW));
            else if (widens_at_once(type) && VEC_E4M3 <= 16 * C) {
                if (v % (VEC_E4M3 / VW) == 0) vload_e4m3_wide(row + own.d + v * VW, x + v);
            }
            else if (has_block_scales(type))
                x[v] = vload_half_block(type, row + at + c / 2 * block_bytes(type), C > 1 ? c % 2 : half, v % LANE_VECTORS, vset1(*scale));
            else
                x[v] = vload_row(type, row, own.d + v * VW);
            if (R == 1) a[0][v] = vmac_cell(a[0][v], x[v], first); /* at once: one row has no use for x again */
        }
        UNROLL for (int r = 0; r < R; r++) {
            const vcell w = vcell_of(p[r * DECODE_CHUNK + j]);
            if (R > 1)
                UNROLL for (int v = 0; v < C * LANE_VECTORS; v++) a[r][v] = vmac_cell(a[r][v], x[v], w);
        }
    }
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int v = 0; v < C * LANE_VECTORS; v++) vstore(acc + r * acc_step + v * VW, a[r][v]);
}

#endif

/* ---- instances: types x rows of a tile; shapes by the registers there are -- */

typedef void (*score_fn)(const float *q, int32_t dim, const unsigned char *const *rows, const unsigned char *const *next,
                         int32_t next_bytes, float *to);
typedef void (*value_fn)(const float *p, uint64_t bits, const unsigned char *const *rows, const struct strip *strip, float *acc,
                         int32_t acc_step);

#define SCORE_INSTANCE(name, type, R, KP, VS)                                                                                              \
    NOINLINE void score_##name##_##R(const float *q, int32_t dim, const unsigned char *const *rows,                    \
                                     const unsigned char *const *next, int32_t next_bytes, float *to)                                  \
    {                                                                                                                                  \
        score_tile(type, R, KP, VS, q, dim, rows, next, next_bytes, to);                                                           \
    }
#define VALUE_INSTANCE(name, type, R, C, TAIL, word)                                                                                   \
    NOINLINE void value_##name##_##R##_##word(const float *p, uint64_t bits, const unsigned char *const *rows, const struct strip *strip, \
                                              float *acc, int32_t acc_step)                                                           \
    {                                                                                                                                  \
        value_tile(type, R, C, TAIL, p, bits, rows, strip, acc, acc_step);                                                             \
    }
#define VALUE_INSTANCES(name, type, R, C)        \
    VALUE_INSTANCE(name, type, R, C, false, wide) \
    VALUE_INSTANCE(name, type, R, 1, false, one)  \
    VALUE_INSTANCE(name, type, R, 1, true, tail)

/* Rows per tile, keys side by side in the scores, 16-column strips in the values: accumulators, operands and one broadcast stay in
 * registers. One float wide there is nothing to share. */
#if VW >= 8 || (VW == 4 && VEC_REGISTERS == 32)
#define DECODE_TILES 3 /* of 1, 2 and 4 rows */
enum { KEYS_BESIDE = VW == 8 ? 2 : 4, VECTORS_OF_2 = VW == 4 ? 2 : LANE_VECTORS };
#define KEYS_OF_1(type) (((type) == HEED_Q4_0 || widens_at_once(type)) && VEC_REGISTERS < 32 ? 2 : 4) /* what they are made of wants registers, too */
#define DECODE_INSTANCES(name, type)                                 \
    SCORE_INSTANCE(name, type, 1, KEYS_OF_1(type), LANE_VECTORS)        \
    SCORE_INSTANCE(name, type, 2, KEYS_BESIDE, VECTORS_OF_2)         \
    SCORE_INSTANCE(name, type, 4, KEYS_BESIDE, 1)                    \
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
#elif VW == 4
#define DECODE_TILES 2 /* of 1 and 2 rows */
#define DECODE_INSTANCES(name, type)               \
    SCORE_INSTANCE(name, type, 1, 2, LANE_VECTORS) \
    SCORE_INSTANCE(name, type, 2, 2, 2)            \
    VALUE_INSTANCES(name, type, 1, 2)              \
    VALUE_INSTANCES(name, type, 2, 1)
#define DECODE_ENTRY(name)                                                      \
    {                                                                           \
        {score_##name##_1, score_##name##_2},                                   \
        {{value_##name##_1_wide, value_##name##_1_one, value_##name##_1_tail},  \
         {value_##name##_2_wide, value_##name##_2_one, value_##name##_2_tail}}, \
    }
static const int32_t value_strip[DECODE_TILES] = {2, 1};
#else
#define DECODE_TILES 1
#define DECODE_INSTANCES(name, type) SCORE_INSTANCE(name, type, 1, 1, LANE_VECTORS) VALUE_INSTANCES(name, type, 1, 1)
#define DECODE_ENTRY(name) {{score_##name##_1}, {{value_##name##_1_wide, value_##name##_1_one, value_##name##_1_tail}}}
static const int32_t value_strip[DECODE_TILES] = {1};
#endif

enum { STRIP_WIDE, STRIP_ONE, STRIP_TAIL };
struct decode_tiles {
    score_fn score[DECODE_TILES];
    value_fn value[DECODE_TILES][3];
};

#ifdef VEC_E4M3_ALONE
DECODE_INSTANCES(f8_e4m3, HEED_F8_E4M3)
static const struct decode_tiles decode_tiles[] = {[HEED_F8_E4M3] = DECODE_ENTRY(f8_e4m3)};
#elif CELL == 2
DECODE_INSTANCES(bf16, HEED_BF16)
static const struct decode_tiles decode_tiles[] = {[HEED_BF16] = DECODE_ENTRY(bf16)};
#else
DECODE_INSTANCES(bf16, HEED_BF16)
DECODE_INSTANCES(f32, HEED_F32)
DECODE_INSTANCES(f16, HEED_F16)
DECODE_INSTANCES(i8, HEED_I8)
DECODE_INSTANCES(q8_0, HEED_Q8_0)
DECODE_INSTANCES(q4_0, HEED_Q4_0)
DECODE_INSTANCES(f8_e4m3, HEED_F8_E4M3)
DECODE_INSTANCES(f8_e5m2, HEED_F8_E5M2)

static const struct decode_tiles decode_tiles[] = {
    [HEED_F32] = DECODE_ENTRY(f32),         [HEED_F16] = DECODE_ENTRY(f16),         [HEED_BF16] = DECODE_ENTRY(bf16),
    [HEED_I8] = DECODE_ENTRY(i8),           [HEED_Q8_0] = DECODE_ENTRY(q8_0),       [HEED_Q4_0] = DECODE_ENTRY(q4_0),
    [HEED_F8_E4M3] = DECODE_ENTRY(f8_e4m3), [HEED_F8_E5M2] = DECODE_ENTRY(f8_e5m2),
};
#endif

/* The largest tile, as its logarithm, for so many rows. */
static inline int tile_for(int32_t rows)
{
    const int tile = rows == 1 ? 0 : rows < 4 ? 1 : 2;
    return tile < DECODE_TILES ? tile : DECODE_TILES - 1;
}
#endif
