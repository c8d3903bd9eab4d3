/* SPDX-License-Identifier: MIT
 * words_cells.c - the words for cells of two bf16 (cells.inc.h) against a model of what the machine's dot does, bit by bit: every special value, sums that
 * round, cancel and underflow, every tail. Compiled for each instruction set that has such a dot; foreign_check calls it.
 */
#include "dtype.h"
#include WORDS_HEADER
#include "cpu/cells.inc.h"
#include "words.h"

#include <float.h>
#include <math.h>

#define CAT_(a, b) a##b
#define CAT(a, b) CAT_(a, b)

static struct words_tally *tally;

static void check(bool good, const char *word, uint32_t at)
{
    if (good) tally->passed++;
    else if (tally->failed++ < 20) printf("FAIL words of cells, %s: %s at %u\n", VEC_NAME, word, (unsigned)at);
}

static float flushed(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0, x) : x; }
static float lower_of(uint32_t cell) { return float_of(cell << 16); }
static float upper_of(uint32_t cell) { return float_of(cell & 0xffff0000u); }

#if CELL_TOGETHER == 2
/* exact + lost as a float: towards 0, and the last bit becomes 1 where digits are lost. */
static float to_odd(double exact, double lost)
{
    const float near = (float)exact;
    if (!isfinite(near)) return fabs(exact) < 0x1p128 ? copysignf(FLT_MAX, near) : near; /* FLT_MAX is odd */
    const double error = (exact - (double)near) + lost;
    uint32_t bits = bits_of(near);
    if (error == 0) return flushed(near);
    if (near != 0 && (error < 0) == (near > 0)) bits--; /* towards 0 */
    return flushed(float_of(bits | 1));
}
/* a + b, rounded to odd: the sum in double and what that lost (Knuth). */
static float add_odd(float a, float b)
{
    const double x = (double)flushed(a), y = (double)flushed(b), sum = x + y, of_y = sum - x;
    return to_odd(sum, (x - (sum - of_y)) + (y - of_y));
}
static float dot(float acc, uint32_t x, uint32_t y)
{
    const float low = flushed(flushed(lower_of(x)) * flushed(lower_of(y))), high = flushed(flushed(upper_of(x)) * flushed(upper_of(y)));
    return add_odd(acc, add_odd(low, high));
}
#else
static float fused(float a, float b, float c) { return flushed(fmaf(flushed(a), flushed(b), flushed(c))); }
static float dot(float acc, uint32_t x, uint32_t y) { return fused(lower_of(x), lower_of(y), fused(upper_of(x), upper_of(y), acc)); }
#endif

static bool same(float a, float b) { return bits_of(a) == bits_of(b) || (isnan(a) && isnan(b)); }

static uint32_t next(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8 ^ *state << 13;
}

/* A cell of bf16 of all sorts: near each other, so that sums cancel and round; tiny ones; special ones. */
static uint32_t some_half(uint32_t *state)
{
    static const uint16_t special[] = {0, 0x8000, 0x3f80, 0xbf80, 0x7f80, 0xff80, 0x7fc0, 0x0001, 0x8001, 0x0080, 0x007f, 0x7f7f, 0xff7f, 0x2000, 0x1f80, 0x5f80};
    const uint32_t r = next(state), sort = next(state) % 16;
    if (sort == 0) return special[r % 16];
    if (sort < 4) return (r & 0x807f) | (0x1c + r / 0x10000 % 8) << 7; /* products about 2^-200 to 2^-180: all lost, but for */
    if (sort < 6) return (r & 0x807f) | (0x3c + r / 0x10000 % 8) << 7; /* about 2^-126 */
    return (r & 0x807f) | (0x7a + r / 0x10000 % 10) << 7;
}

static void check_dots(void)
{
    uint32_t state = 1;
    for (uint32_t n = 0; n < 200000; n++) {
        const uint32_t x = some_half(&state) | some_half(&state) << 16, y = some_half(&state) | some_half(&state) << 16;
        const float acc = float_of(some_half(&state) << 16 | (next(&state) & 0xffff)), want = dot(acc, x, y);
        float got[VW], cell[VW], seen[VW];
        vstore(got, vmac(vset1(acc), vset1(float_of(x)), vset1(float_of(y))));
        vstore(cell, vmac_cell(vset1(acc), vset1(float_of(x)), vcell_of(float_of(y))));
        uint32_t visible = y;
        if ((x & 0xffff) == 0x8000) visible &= 0xffff0000u;
        if (x >> 16 == 0x8000) visible &= 0xffff;
        vstore(seen, vmac_seen(vset1(acc), vset1(float_of(x)), vset1(float_of(y))));
        check(same(got[0], want) && same(got[VW - 1], want), "vmac", n);
        check(same(cell[0], want) && same(cell[VW - 1], want), "vmac_cell", n);
        check(same(seen[1], dot(acc, x, visible)), "vmac_seen", n);
    }
}

/* Around every bf16 and half way to the next; denormal ones may become 0 (AVX512-BF16). */
static void check_rounding(void)
{
    for (uint32_t code = 0; code < 65536; code++)
        for (uint32_t step = 0; step < 6; step++) {
            const float x = float_of((code << 16) + (step < 3 ? step - 1 : 0x7fff + step - 3)), other = float_of(0x3f800000u + code);
            const uint32_t want = f32_to_bf16(x), flush = f32_to_bf16(flushed(x));
            float rounded[VW], packed[VW];
            vstore(rounded, vround(vset1(x)));
            vstore(packed, vpack(vset1(x), vset1(other)));
            const uint32_t got = bits_of(rounded[VW - 1]) >> 16;
            check(got == want || got == flush || (isnan(x) && isnan(rounded[0])), "vround", code);
            check((bits_of(packed[VW - 1]) & 0xffff) == got && bits_of(packed[0]) >> 16 == f32_to_bf16(other), "vpack", code);
            check(same(rounded[0], rounded[VW - 1]), "vround", code);
        }
}

static void check_memory(void)
{
    uint16_t one[33], two[33];
    for (uint32_t i = 0; i < 33; i++) one[i] = (uint16_t)(0x1000 + i), two[i] = (uint16_t)(0x2000 + i);
    for (int n = -3; n <= 2 * VW; n++) {
        float got[VW];
        vstore(got, vload_cells_n(one, n));
        for (int i = 0; i < VW; i++) {
            const uint32_t low = 2 * i < n ? one[2 * i] : 0, high = 2 * i + 1 < n ? one[2 * i + 1] : 0;
            check(bits_of(got[i]) == (low | high << 16), "vload_cells_n", (uint32_t)n);
        }
    }
    for (int n = 1; n <= 16; n++) {
        float got[16];
        vf to[16 / VW];
        vzip16(one, two, n, to);
        for (int i = 0; i < 16; i += VW) vstore(got + i, to[i / VW]);
        for (int i = 0; i < 16; i++) check(bits_of(got[i]) == (i < n ? one[i] | (uint32_t)two[i] << 16 : 0), "vzip16", (uint32_t)n);
    }
    float got[32], tail[2 * VW + 1];
    vf to[32 / VW];
    vzip32(one, two, to);
    for (int i = 0; i < 32; i += VW) vstore(got + i, to[i / VW]);
    for (int i = 0; i < 32; i++) check(bits_of(got[i]) == (one[i] | (uint32_t)two[i] << 16), "vzip32", (uint32_t)i);
    for (int n = 1; n <= 2 * VW; n++) {
        memset(tail, 0, sizeof tail);
        vzip(one, two, n, tail);
        for (int i = 0; i <= 2 * VW; i++) check(bits_of(tail[i]) == (i < n ? one[i] | (uint32_t)two[i] << 16 : 0), "vzip", (uint32_t)n);
    }
    vstore(tail, vlower(vset1(float_of(0x12345678))));
    check(bits_of(tail[VW - 1]) == 0x56780000, "vlower", 0);
}

#if CELL_TILES
/* Sums of a tile as simd_amx.h says: of the lower halves, of the upper ones, both together, and that to what was there. */
static float tile_dot(float acc, const uint32_t *left, uint32_t (*above)[TILE_CELLS], int column)
{
    float even = 0, odd = 0;
    for (int n = 0; n < TILE_CELLS; n++) {
        even = fused(lower_of(left[n]), lower_of(above[n][column]), even);
        odd = fused(upper_of(left[n]), upper_of(above[n][column]), odd);
    }
    return flushed(flushed(acc) + flushed(even + odd));
}

static void check_tiles(void)
{
    static uint32_t left[TILE_ROWS][TILE_CELLS], above[TILE_ROWS][TILE_CELLS];
    static float sums[TILE_ROWS][TILE_CELLS], got[TILE_ROWS][TILE_CELLS];
    uint32_t state = 1;
    vtiles_begin();
    for (uint32_t round = 0; round < 500; round++) {
        for (int n = 0; n < TILE_ROWS * TILE_CELLS; n++) {
            left[n / TILE_CELLS][n % TILE_CELLS] = some_half(&state) | some_half(&state) << 16;
            above[n / TILE_CELLS][n % TILE_CELLS] = some_half(&state) | some_half(&state) << 16;
            sums[n / TILE_CELLS][n % TILE_CELLS] = float_of(some_half(&state) << 16 | (next(&state) & 0xffff));
        }
        vtile_load(0, sums, TILE_CELLS);
        vtile_load(4, left, TILE_CELLS);
        vtile_load(6, above, TILE_CELLS);
        vtile_mac(0, 4, 6);
        vtile_store(0, got, TILE_CELLS);
        for (int r = 0; r < TILE_ROWS; r++)
            for (int c = 0; c < TILE_CELLS; c++) check(same(got[r][c], tile_dot(sums[r][c], left[r], above, c)), "vtile_mac", round);
    }
    vtiles_end();
}

static void check_turns(void)
{
    uint16_t rows[TILE_SPAN][24];
    const uint16_t *at[TILE_SPAN];
    float to[8][TILE_CELLS + 1];
    for (int r = 0; r < TILE_SPAN; r++) {
        at[r] = rows[r];
        for (int d = 0; d < 24; d++) rows[r][d] = (uint16_t)(r << 8 | d);
    }
    for (int n = 1; n <= 8; n++) {
        memset(to, 0, sizeof to);
        vturn(at, 9, n, to[0], TILE_CELLS + 1);
        for (int e = 0; e < 8; e++)
            for (int r = 0; r < TILE_SPAN; r++) {
                uint16_t value;
                memcpy(&value, (const char *)to[e] + 2 * r, sizeof value);
                check(value == (e < n ? rows[r][9 + e] : 0), "vturn", (uint32_t)n);
            }
    }
}
#endif

void CAT(words_, WORDS_NAME)(struct words_tally *to)
{
    tally = to;
#if CELL_TILES
    check_tiles();
    check_turns();
#endif
    check_dots();
    check_rounding();
    check_memory();
}
