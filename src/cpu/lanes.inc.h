/* SPDX-License-Identifier: MIT
 * lanes.inc.h - template words for decode, merge and append: sixteen lanes whatever the register holds, and rows of any type that widens in
 * registers. No algorithm.
 */
#ifndef HEED_LANES_INC_H
#define HEED_LANES_INC_H

#include "kernel.h"

#define LANE_VECTORS (16 / VW)

INLINE int lanes_left(int32_t n) { return n < 0 ? 0 : n < VW ? n : VW; }

/* Bytes of an element, and the address of element d: types without blocks. */
INLINE int row_element_bytes(heed_type type) { return type == HEED_F32 ? 4 : type == HEED_I8 ? 1 : 2; }
INLINE const unsigned char *row_address(heed_type type, const unsigned char *row, int64_t d) { return row + d * row_element_bytes(type); }

/* Elements d, d + 1, ... of a row as f32: VW of them, or the first n and zeros. Nothing else is read. i8 without its scale. */
INLINE vf vload_row(const heed_type type, const unsigned char *row, int64_t d)
{
    const void *at = row_address(type, row, d);
    return type == HEED_F16 ? vload_f16(at) : type == HEED_BF16 ? vload_bf16(at) : type == HEED_I8 ? vload_i8(at) : vload(at);
}

INLINE vf vload_row_n(const heed_type type, const unsigned char *row, int64_t d, int n)
{
    const void *at = row_address(type, row, d);
    return type == HEED_F16 ? vload_f16_n(at, n) : type == HEED_BF16 ? vload_bf16_n(at, n) : type == HEED_I8 ? vload_i8_n(at, n) : vload_n(at, n);
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
