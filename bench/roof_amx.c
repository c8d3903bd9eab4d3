/* SPDX-License-Identifier: MIT
 * roof_amx.c - the ceiling of AMX: 16 x 16 sums of 32 products of bf16 an instruction. Compiled with its own flags; called only where the system grants it.
 */
#if defined(__AMX_BF16__)
#include "roof.h"
#include <immintrin.h>

enum { SUMS = 4, ROWS = 16, PRODUCTS = ROWS * ROWS * 32 };

/* Four sums that do not wait for each other, from tiles that are loaded once. */
static float tiles_loop(int64_t turns, float seed)
{
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } shape = {.palette = 1};
    float tile[ROWS * ROWS] __attribute__((aligned(64)));
    for (int n = 0; n < 8; n++) {
        shape.row_bytes[n] = 64;
        shape.rows[n] = ROWS;
    }
    for (int n = 0; n < ROWS * ROWS; n++) tile[n] = 0.0009765625f * seed; /* as bf16 itself and a zero */
    _tile_loadconfig(&shape);
    _tile_loadd(4, tile, 64);
    _tile_loadd(6, tile, 64);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t t = 0; t < turns; t++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 6);
        _tile_dpbf16ps(2, 4, 6);
        _tile_dpbf16ps(3, 4, 6);
    }
    float sum = 0;
    _tile_stored(0, tile, 64);
    sum += tile[0];
    _tile_stored(1, tile, 64);
    sum += tile[0];
    _tile_stored(2, tile, 64);
    sum += tile[0];
    _tile_stored(3, tile, 64);
    sum += tile[0];
    _tile_release();
    return sum;
}

const struct roof_loops roof_amx = {.name = "amx", .isa = ISA_AMX, .flops = 2 * SUMS * PRODUCTS, .fma = tiles_loop};
#else
typedef int roof_amx_is_for_x86;
#endif
