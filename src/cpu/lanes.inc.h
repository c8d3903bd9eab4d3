/* SPDX-License-Identifier: MIT
 * lanes.inc.h - template words for decode, merge and append: sixteen lanes whatever the register holds, and rows of any type that widens in
 * registers. No algorithm.
 */
#ifndef HEED_LANES_INC_H
#define HEED_LANES_INC_H

#include "kernel.h"

#include <string.h>

#define LANE_VECTORS (16 / VW)

INLINE int lanes_left(int32_t n) { return n < 0 ? 0 : n < VW ? n : VW; }

static inline int32_t whole_lanes(int32_t n) { return (n + 15) / 16 * 16; }

/* Address of element d; in a type with blocks, of its block. */
INLINE const unsigned char *row_address(heed_type type, const unsigned char *row, int64_t d)
{
    switch (type) {
    case HEED_F32: return row + 4 * d;
    case HEED_F16: case HEED_BF16: return row + 2 * d;
    case HEED_Q8_0: return row + d / 32 * 34;
    case HEED_Q4_0: return row + d / 32 * 18;
    default: return row + d;
    }
}

/* Elements in 64 bytes of a type of 32 or 16 bits: what one fetch brings. */
INLINE int line_elements(const heed_type type) { return type == HEED_F32 ? 16 : 32; }

/* Elements d, d + 1, ... of a row as f32, exactly: VW of them, or the first n and zeros; nothing else is read. d is a multiple of VW in a
 * type with blocks, whose rows have no tails. i8 and f8 without the scale of their row. */
INLINE vf vload_row_n(const heed_type type, const unsigned char *row, int64_t d, int n)
{
    const void *at = row_address(type, row, d);
    const uint8_t *codes = (const uint8_t *)at + 2; /* of a block, behind its f16 scale */
    switch (type) {
    case HEED_F16: return vload_f16_n(at, n);
    case HEED_BF16: return vload_bf16_n(at, n);
    case HEED_I8: return vload_i8_n(at, n);
    case HEED_Q8_0: return vmul(vset1_f16(at), vload_i8((const int8_t *)codes + d % 32));
    case HEED_Q4_0: return vmul(vset1_f16(at), vload_nibbles(codes + d % 16, d % 32 >= 16));
    case HEED_F8_E4M3: return vload_e4m3_n(at, n);
    case HEED_F8_E5M2: return vload_e5m2_n(at, n);
    default: return vload_n(at, n);
    }
}

INLINE vf vload_row(const heed_type type, const unsigned char *row, int64_t d)
{
    const void *at = row_address(type, row, d);
    switch (type) {
    case HEED_F32: return vload(at);
    case HEED_F16: return vload_f16(at);
    case HEED_BF16: return vload_bf16(at);
    case HEED_I8: return vload_i8(at);
    default: return vload_row_n(type, row, d, VW);
    }
}

/* t[e] lane n = element d + e of row n; elements from `count` on are zeros. */
INLINE void load_across(const heed_type type, const unsigned char *const *rows, int d, int count, vf t[VW])
{
    if (count >= VW) {
#ifdef VEC_LOADS_ACROSS
        if (type == HEED_F32) vload_across(rows, d, t);
        else vload_halves_across(rows, d, type == HEED_BF16, t);
        return;
#else
        UNROLL for (int n = 0; n < VW; n++) t[n] = vload_row(type, rows[n], d);
#endif
    } else
        for (int n = 0; n < VW; n++) t[n] = vload_row_n(type, rows[n], d, count);
    vtranspose(t);
}

/* A type whose blocks of 32 elements have a scale of their own, f16 in front of them. */
INLINE bool has_block_scales(const heed_type type) { return type == HEED_Q8_0 || type == HEED_Q4_0; }
INLINE int block_bytes(const heed_type type) { return type == HEED_Q8_0 ? 34 : 18; }

/* Is a type best widened several vectors at once? */
#ifndef VEC_E4M3
#define VEC_E4M3 VW
INLINE void vload_e4m3_wide(const uint8_t *p, vf *x) { (void)p, (void)x; }
#endif
INLINE bool widens_at_once(const heed_type type) { return type == HEED_F8_E4M3 && VEC_E4M3 > VW; }

enum { BLOCK_SCALES_MOST = MAX_HEAD_DIM / 32 * 16 };

/* Scales of block b, b + 1, ... of some rows as f32, [block][step], the rows of the set bits: to widen one where it is used takes longer than its elements. */
INLINE void find_block_scales(const heed_type type, const unsigned char *const *rows, uint64_t bits, int32_t b, const int blocks, const int step, float *to)
{
    uint16_t halves[BLOCK_SCALES_MOST];
    if (bits << (64 - step) != ~UINT64_C(0) << (64 - step)) memset(halves, 0, (size_t)(blocks * step) * sizeof *halves);
    for (; bits; bits &= bits - 1) {
        const int n = __builtin_ctzll(bits);
        const unsigned char *at = row_address(type, rows[n], 32 * (int64_t)b);
        for (int c = 0; c < blocks; c++, at += block_bytes(type)) memcpy(&halves[c * step + n], at, sizeof *halves);
    }
    for (int i = 0; i < blocks * step; i += VW) vstore(to + i, vload_f16(halves + i));
}

/* Vector v of elements 0 to 15 (half 0) or 16 to 31 of a block. */
INLINE vf vload_half_block(const heed_type type, const unsigned char *block, int half, int v, vf scale)
{
    const unsigned char *codes = block + 2 + v * VW;
    return vmul(scale, type == HEED_Q8_0 ? vload_i8((const int8_t *)codes + 16 * half) : vload_nibbles(codes, half));
}

/* The tree: within each four lanes (0 + 2) + (1 + 3), then fours (0 + 1) + (2 + 3). vtree16 does 16 of them at once. */
INLINE float tree_of_16(const float *x)
{
    float four[4];
    for (int n = 0; n < 4; n++) four[n] = (x[4 * n] + x[4 * n + 2]) + (x[4 * n + 1] + x[4 * n + 3]);
    return (four[0] + four[1]) + (four[2] + four[3]);
}

/* n elements of f32 -> a row of f32, f16 or bf16. */
INLINE void store_row(heed_type type, void *row, const float *from, int32_t n)
{
    for (int32_t d = 0; d < n; d += VW) {
        const int left = lanes_left(n - d);
        const vf x = vload_n(from + d, left);
        if (type == HEED_F16)
            vstore_f16_n((uint16_t *)row + d, x, left);
        else if (type == HEED_BF16)
            vstore_bf16_n((uint16_t *)row + d, x, left);
        else
            vstore_n((float *)row + d, x, left);
    }
}
#endif
