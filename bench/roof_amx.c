/* SPDX-License-Identifier: MIT
 * roof_amx.c - the ceiling of AMX: 16 x 16 sums of 32 products of bf16 an instruction. Compiled with the flags of isa_amx.c; called only where the system
 * grants it.
 */
#if defined(__AMX_BF16__) || defined(__AMXBF16__) /* clang before 15 */
#include "roof.h"
#include "cpu/simd_amx.h"

enum { SUMS = 4, PRODUCTS = TILE_ROWS * TILE_ROWS * TILE_SPAN };

/* Four sums that do not wait for each other, from tiles that are loaded once. */
static float tiles_loop(int64_t turns, float seed)
{
    float tile[TILE_ROWS * TILE_CELLS] __attribute__((aligned(64)));
    for (int n = 0; n < TILE_ROWS * TILE_CELLS; n++) tile[n] = 0.0009765625f * seed; /* a cell: the number as bf16, and 0 */
    vtiles_begin();
    vtile_load(4, tile, TILE_CELLS);
    vtile_load(6, tile, TILE_CELLS);
    vtile_zero(0);
    vtile_zero(1);
    vtile_zero(2);
    vtile_zero(3);
    for (int64_t t = 0; t < turns; t++) {
        vtile_mac(0, 4, 6);
        vtile_mac(1, 4, 6);
        vtile_mac(2, 4, 6);
        vtile_mac(3, 4, 6);
    }
    float sum = 0;
    vtile_store(0, tile, TILE_CELLS);
    sum += tile[0];
    vtile_store(1, tile, TILE_CELLS);
    sum += tile[0];
    vtile_store(2, tile, TILE_CELLS);
    sum += tile[0];
    vtile_store(3, tile, TILE_CELLS);
    sum += tile[0];
    vtiles_end();
    return sum;
}

const struct roof_loops roof_amx = {.name = "amx", .isa = ISA_AMX, .flops = 2 * SUMS * PRODUCTS, .fma = tiles_loop};
#else
typedef int roof_amx_is_for_x86;
#endif
