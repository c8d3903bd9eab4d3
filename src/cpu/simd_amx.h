/* SPDX-License-Identifier: MIT
 * simd_amx.h - tiles of bf16 for the templates that multiply tile by tile (panel_tiles.inc.h), on Intel's AMX; all else is simd_avx512bf16.h's.
 *
 * A tile is 16 rows of 64 bytes. TDPBF16PS, for each of 16 x 16 sums, whatever MXCSR says, rounding to nearest, denormals taken for 0 and made 0:
 *     even = odd = 0;  for n < 16: even = fma(a[2 n], b[2 n], even), odd = fma(a[2 n + 1], b[2 n + 1], odd);  c = c + (even + odd)
 * (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2). A tile's number is part of the instruction: 0 to 3 are sums, two by two,
 * 4 and 5 the rows to their left, 6 and 7 what stands above them.
 */
#ifndef HEED_SIMD_AMX_H
#define HEED_SIMD_AMX_H
#include "simd_avx512bf16.h"

#define CELL_TILES 1
enum { TILE_ROWS = 16, TILE_CELLS = 16, TILE_SPAN = 32 }; /* TILE_SPAN: elements along which one instruction multiplies and adds */

/* All eight tiles whole, and the end of it: till then every switch of threads saves 8 KiB. */
INLINE void vtiles_begin(void)
{
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } shape = {.palette = 1};
    for (int n = 0; n < 8; n++) {
        shape.row_bytes[n] = 64;
        shape.rows[n] = TILE_ROWS;
    }
    _tile_loadconfig(&shape);
}
INLINE void vtiles_end(void) { _tile_release(); }

/* Tile [row][16 cells] at p, `step` floats from row to row. */
#define vtile_load(tile, p, step) _tile_loadd(tile, p, (step) * (ptrdiff_t)sizeof(float))
#define vtile_store(tile, p, step) _tile_stored(tile, p, (step) * (ptrdiff_t)sizeof(float))
#define vtile_zero(tile) _tile_zero(tile)
/* sums[row][column] += row of `left` x column of `above`, cell by cell. */
#define vtile_mac(sums, left, above) _tile_dpbf16ps(sums, left, above)

/* Elements [d, d + n) of 32 rows of bf16, turned: to[e][row] = rows[row][d + e], e < n <= 8, `step` cells from row to row. Eight rows apart four rows meet
 * in a vector, a row to a lane of 128 bits; in each lane eight are turned by themselves. */
INLINE __m128i vload_eighth(const uint16_t *row) { return _mm_loadu_si128((const __m128i *)row); }
INLINE void vturn_8(const uint16_t *const rows[TILE_SPAN], int32_t d, float *to, ptrdiff_t step)
{
    __m512i x[8], y[8];
    UNROLL for (int r = 0; r < 8; r++) {
        x[r] = _mm512_castsi128_si512(vload_eighth(rows[r] + d));
        x[r] = _mm512_inserti32x4(x[r], vload_eighth(rows[8 + r] + d), 1);
        x[r] = _mm512_inserti32x4(x[r], vload_eighth(rows[16 + r] + d), 2);
        x[r] = _mm512_inserti32x4(x[r], vload_eighth(rows[24 + r] + d), 3);
    }
    UNROLL for (int r = 0; r < 8; r += 2) {
        y[r] = _mm512_unpacklo_epi16(x[r], x[r + 1]);
        y[r + 1] = _mm512_unpackhi_epi16(x[r], x[r + 1]);
    }
    UNROLL for (int r = 0; r < 8; r += 4)
        UNROLL for (int e = 0; e < 2; e++) {
            x[r + 2 * e] = _mm512_unpacklo_epi32(y[r + e], y[r + e + 2]);
            x[r + 2 * e + 1] = _mm512_unpackhi_epi32(y[r + e], y[r + e + 2]);
        }
    UNROLL for (int e = 0; e < 4; e++) {
        y[2 * e] = _mm512_unpacklo_epi64(x[e], x[e + 4]);
        y[2 * e + 1] = _mm512_unpackhi_epi64(x[e], x[e + 4]);
    }
    UNROLL for (int e = 0; e < 8; e++)
        _mm512_storeu_si512(to + e * step, y[e]);
}
INLINE void vturn(const uint16_t *const rows[TILE_SPAN], int32_t d, int n, float *to, ptrdiff_t step)
{
    if (n == 8)
        vturn_8(rows, d, to, step);
    else
        for (int e = 0; e < n; e++) { /* tails are short */
            uint16_t *row = (uint16_t *)(void *)(to + e * step);
            for (int r = 0; r < TILE_SPAN; r++) row[r] = rows[r][d + e];
        }
}

#endif
