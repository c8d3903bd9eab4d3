/* SPDX-License-Identifier: MIT
 * words.c - the vector language of one instruction set against the meaning of its words, bit by bit: every code of the small types, every
 * tail, the special values. Compiled once for each set with its own flags, WORDS_HEADER and WORDS_NAME; foreign_check calls all of them.
 */
#include "dtype.h"
#include WORDS_HEADER
#include "words.h"

#include <math.h>
#include <stdlib.h>

#define CAT_(a, b) a##b
#define CAT(a, b) CAT_(a, b)

static struct words_tally *tally;

static void check(bool good, const char *word, uint32_t at)
{
    if (good) {
        tally->passed++;
        return;
    }
    if (tally->failed++ < 20) printf("FAIL words of %s: %s at %u\n", VEC_NAME, word, (unsigned)at);
}

/* The first n lanes hold want, the others 0, to the bit; a NaN's sign and payload are free. */
static bool lanes_are(vf a, const float *want, int n)
{
    float got[VW];
    vstore(got, a);
    for (int i = 0; i < VW; i++) {
        if (i < n && isnan(want[i]) && isnan(got[i])) continue;
        if (bits_of(got[i]) != (i < n ? bits_of(want[i]) : 0)) return false;
    }
    return true;
}

static void check_loads(void)
{
    bool f16 = true, bf16 = true, i8 = true, u8 = true, e4m3 = true, e5m2 = true, splat = true, nibbles = true;
    for (uint32_t code = 0; code < 65536; code++) {
        uint16_t h[VW];
        uint8_t b[VW];
        float want16[VW], want_b[VW], want_i[VW], want_u[VW], want4[VW], want5[VW], low[VW], high[VW], same[VW];
        for (uint32_t i = 0; i < VW; i++) {
            h[i] = (uint16_t)(code + i * 4099);
            b[i] = (uint8_t)(code + i * 37);
            want16[i] = f16_to_f32(h[i]), want_b[i] = bf16_to_f32(h[i]), same[i] = f16_to_f32(h[0]);
            want_i[i] = (float)(int8_t)b[i], want_u[i] = (float)b[i], want4[i] = f8_e4m3_to_f32(b[i]), want5[i] = f8_e5m2_to_f32(b[i]);
            low[i] = (float)((b[i] & 15) - 8), high[i] = (float)((b[i] >> 4) - 8);
        }
        splat &= lanes_are(vset1_f16(h), same, VW);
        f16 &= lanes_are(vload_f16(h), want16, VW);
        bf16 &= lanes_are(vload_bf16(h), want_b, VW);
        for (int n = 0; n <= VW; n++) f16 &= lanes_are(vload_f16_n(h, n), want16, n), bf16 &= lanes_are(vload_bf16_n(h, n), want_b, n);
        if (code >= 256) continue;
        i8 &= lanes_are(vload_i8((const int8_t *)b), want_i, VW);
        nibbles &= lanes_are(vload_nibbles(b, 0), low, VW) && lanes_are(vload_nibbles(b, 1), high, VW);
        for (int n = 0; n <= VW; n++) {
            i8 &= lanes_are(vload_i8_n((const int8_t *)b, n), want_i, n), u8 &= lanes_are(vload_u8_n(b, n), want_u, n);
            e4m3 &= lanes_are(vload_e4m3_n(b, n), want4, n), e5m2 &= lanes_are(vload_e5m2_n(b, n), want5, n);
        }
    }
    check(f16, "vload_f16", 0), check(bf16, "vload_bf16", 0), check(i8, "vload_i8", 0), check(u8, "vload_u8_n", 0);
    check(e4m3, "vload_e4m3_n", 0), check(e5m2, "vload_e5m2_n", 0), check(splat, "vset1_f16", 0), check(nibbles, "vload_nibbles", 0);
}

#ifdef VEC_E4M3
/* Every code in every place. */
static void check_wide(void)
{
    bool e4m3 = true;
    for (int turn = 0; turn < 256; turn++) {
        uint8_t codes[VEC_E4M3];
        vf x[VEC_E4M3 / VW];
        for (int i = 0; i < VEC_E4M3; i++) codes[i] = (uint8_t)(turn + i * 37);
        vload_e4m3_wide(codes, x);
        for (int v = 0; v < VEC_E4M3 / VW; v++) {
            float want[VW];
            for (int i = 0; i < VW; i++) want[i] = f8_e4m3_to_f32(codes[v * VW + i]);
            e4m3 &= lanes_are(x[v], want, VW);
        }
    }
    check(e4m3, "vload_e4m3_wide", 0);
}
#else
static void check_wide(void) {}
#endif

/* One value in every lane but the first, n of them stored; nothing else may be written. */
static bool narrows(float x, int n)
{
    float from[VW];
    uint16_t h[VW + 1], b[VW + 1];
    for (int i = 0; i < VW; i++) from[i] = i ? x : 1.0f;
    memset(h, 0x5a, sizeof h), memset(b, 0x5a, sizeof b);
    vstore_f16_n(h, vload(from), n), vstore_bf16_n(b, vload(from), n);
    for (int i = 0; i <= VW; i++)
        if (h[i] != (i < n ? f32_to_f16(from[i]) : 0x5a5a) || b[i] != (i < n ? f32_to_bf16(from[i]) : 0x5a5a)) return false;
    return true;
}

/* Around every code of f16 and bf16, and half way to the next one. */
static void check_stores(void)
{
    for (uint32_t code = 0; code < 65536; code++) {
        const uint32_t wide = bits_of(f16_to_f32((uint16_t)code)), half = bits_of(0.5f * (f16_to_f32((uint16_t)code) + f16_to_f32((uint16_t)(code + 1))));
        bool good = true;
        for (uint32_t step = 0; step < 3; step++) {
            good &= narrows(float_of(wide + step - 1), VW) && narrows(float_of(half + step - 1), VW);
            good &= narrows(float_of((code << 16) + step - 1), VW) && narrows(float_of((code << 16) + 0x7fff + step), VW);
        }
        check(good, "vstore_f16_n, vstore_bf16_n", code);
    }
    for (int n = 0; n <= VW; n++) check(narrows(2.0f, n), "tails of narrowing stores", (uint32_t)n);
}

static void check_memory(void)
{
    float from[VW], to[VW + 1];
    uint8_t bits[2] = {0xb5, 0x6c};
    for (int i = 0; i < VW; i++) from[i] = (float)(i + 1);
    for (int n = 0; n <= VW; n++) {
        check(lanes_are(vload_n(from, n), from, n), "vload_n", (uint32_t)n);
        memset(to, 0, sizeof to);
        vstore_n(to, vload(from), n);
        bool good = true;
        for (int i = 0; i <= VW; i++) good &= to[i] == (i < n ? from[i] : 0);
        check(good, "vstore_n", (uint32_t)n);
        for (int32_t bit = 0; bit + VW <= 16; bit += VW) {
            float want[VW];
            for (int i = 0; i < VW; i++) want[i] = (float)(bits[(bit + i) / 8] >> ((bit + i) % 8) & 1);
            check(lanes_are(vload_bits_n(bits, bit, n), want, n), "vload_bits_n", (uint32_t)(bit * 100 + n));
        }
    }
    for (uint32_t m = 0; m < 1u << VW; m += VW == 16 ? 257 : 1) {
        check(bits_of_vm(vm_of_bits(m)) == m && !!vany(vm_of_bits(m)) == (m != 0), "vm_of_bits, bits_of_vm, vany", m);
    }
}

static const float specials[] = {0.0f, -0.0f, 1.0f, -1.0f, 1.5f, -2.25f, 1e-45f, -1e-45f, 1e-38f, 3e38f, -3e38f, INFINITY, -INFINITY, NAN, 0.1f, 7e-8f};
enum { SPECIALS = sizeof specials / sizeof *specials };

static bool all_or_none(vm m, bool want) { return bits_of_vm(m) == (want ? (uint32_t)((UINT64_C(1) << VW) - 1) : 0); }
static bool all_are(vf a, float want)
{
    float lanes[VW];
    for (int i = 0; i < VW; i++) lanes[i] = want;
    if (want != want) return all_or_none(vne(a, a), true);
    return lanes_are(a, lanes, VW);
}

static void check_arithmetic(void)
{
    for (uint32_t n = 0; n < SPECIALS * SPECIALS; n++) {
        const float x = specials[n / SPECIALS], y = specials[n % SPECIALS], z = specials[(n * 7 + 3) % SPECIALS];
        const vf a = vset1(x), b = vset1(y), c = vset1(z);
        check(all_are(vadd(a, b), x + y) && all_are(vsub(a, b), x - y) && all_are(vmul(a, b), x * y) && all_are(vdiv(a, b), x / y), "+ - * /", n);
        check(all_are(vfma(a, b, c), VEC_FUSED ? fmaf(x, y, z) : x * y + z), "vfma", n);
        check(all_are(vmax(a, b), x > y ? x : y) && all_are(vmin(a, b), x < y ? x : y), "vmax, vmin", n);
        check(all_or_none(vlt(a, b), x < y) && all_or_none(vge(a, b), x >= y) && all_or_none(veq(a, b), x == y) && all_or_none(vne(a, b), x != y), "comparisons", n);
        check(all_are(vabs(a), fabsf(x)) && all_are(vcopysign(a, b), copysignf(x, y)) && all_or_none(vis_minus_zero(a), bits_of(x) == 0x80000000u), "signs", n);
        check(all_are(vselect(vlt(a, b), a, c), x < y ? x : z), "vselect", n);
        check(all_or_none(vand(vlt(a, b), veq(c, c)), x < y && z == z) && all_or_none(vor(vlt(a, b), vne(c, c)), x < y || z != z), "vand, vor", n);
    }
    const float step = 0x1p-12f; /* (1 + step)^2 - 1 loses its last bit in two roundings */
    check(all_are(vfma(vset1(1 + step), vset1(1 + step), vset1(-1)), VEC_FUSED ? 2 * step + step * step : 2 * step), "one rounding", 0);
    for (int n = -130; n <= 0; n++) {
        const vf z = vset1(EXP2_MAGIC + (float)n), x = vset1((float)n);
        check(all_are(vscale_exp(vset1(1.0f), z, x, -126.0f), n < -126 ? 0 : ldexpf(1, n)), "vscale_exp", (uint32_t)-n);
        if (VEC_SCALES && n >= -126) check(all_are(vscale(vset1(1.0f), z), ldexpf(1, n)), "vscale", (uint32_t)-n);
    }
    for (float x = 0; VEC_SCALES && x >= EXP_LOW; x -= 0.0625f) {
        float whole[VW], near[VW];
        vstore(whole, vexp(vset1(x)));
        vstore(near, vexp_near(vset1(x)));
        check(all_are(vexp_of(vset1(x), 1), whole[0]) && all_are(vexp_near_of(vset1(x), 1), near[0]), "exp of what is normal", (uint32_t)(-x * 16));
    }
    check(all_are(vscale_exp(vset1(NAN), vset1(NAN), vset1(NAN), -126.0f), NAN), "vscale_exp of NaN", 0);
    check(all_are(vexp(vset1(0)), 1) && all_are(vexp2(vset1(-3)), 0.125f) && all_are(vexp(vset1(-INFINITY)), 0) && all_are(vsoftcap(vset1(20), vset1(2), vset1(0.5f)), 2), "functions", 0);
}

/* Four together are four on their own, whichever of them are far; lanes of a vector differ, too. */
static void check_softcap(void)
{
    static const float caps[] = {1, 30, 0x1p-130f, 0x1p127f};
    for (uint32_t turn = 0; turn < 4 * 256; turn++) {
        const float cap = caps[turn % 4];
        const vf c = vset1(cap), inverse = vset1(softcap_inverse(cap));
        vf four[4];
        float alone[4][VW];
        for (uint32_t n = 0; n < 4; n++) {
            float x[VW];
            for (uint32_t i = 0; i < VW; i++) x[i] = cap * (turn >> (2 + n) & 1 ? 0.9f : 0.3f) * (float)(i + 1) / VW * (n % 2 ? -1 : 1);
            if (turn >> 6 & 1) x[VW - 1] = specials[(turn * 4 + n) % SPECIALS];
            four[n] = vload(x);
            vstore(alone[n], vsoftcap(four[n], c, inverse));
        }
        vsoftcap_4(four, c, inverse);
        for (uint32_t n = 0; n < 4; n++) check(lanes_are(four[n], alone[n], VW), "vsoftcap_4", 4 * turn + n);
    }
}

/* Every bit of rows that end where they are asked to, from bytes and from bits. */
static void check_shown(void)
{
    enum { FIRST = 16 };
    bool good[2] = {true, true};
    for (uint32_t turn = 0; turn < 200; turn++)
        for (int count = 1; count <= VW; count++)
            for (int bits = 0; bits < 2; bits++) {
                const size_t size = (size_t)(bits ? (FIRST + count + 7) / 8 : FIRST + count);
                const unsigned char *rows[VW];
                unsigned char *copies[VW];
                bool seen[VW][VW] = {{false}}, all = true;
                struct shown_keys shown;
                for (int r = 0; r < VW; r++) {
                    copies[r] = memset(malloc(size), bits ? 0x5a : 3, size);
                    rows[r] = copies[r];
                    for (int n = 0; n < count; n++) {
                        const int at = FIRST + n;
                        seen[r][n] = turn == 0 || ((uint32_t)(r * VW + n + 1) * 2654435761u >> (turn % 28)) % 4 != turn % 3;
                        all &= seen[r][n];
                        if (bits) copies[r][at / 8] = (unsigned char)((copies[r][at / 8] & ~(1 << at % 8)) | seen[r][n] << at % 8);
                        else copies[r][at] = seen[r][n] ? (unsigned char)(1 << (n + r) % 8) : 0;
                    }
                }
                if (vload_shown(rows, FIRST, count, bits, &shown)) good[bits] &= all && count == VW;
                for (int n = 0; n < count; n++) {
                    float got[VW];
                    vstore(got, vselect(vkey_shown(&shown, n), vset1(1), vset1(0)));
                    for (int r = 0; r < VW; r++) good[bits] &= got[r] == seen[r][n];
                }
                for (int r = 0; r < VW; r++) free(copies[r]);
            }
    check(good[0], "vload_shown of bytes", 0), check(good[1], "vload_shown of bits", 0);
}

/* Truths of all lanes, and halves of vectors, where there are such words. */
static void check_halves(void)
{
    float lanes[VW + 1];
    for (int n = 0; n <= VW; n++) {
        for (int i = 0; i < VW; i++) lanes[i] = i == n ? NAN : 0;
        if (VEC_SCALES) check(!vevery(vge(vload(lanes), vset1(0))) == (n < VW), "vevery", (uint32_t)n);
    }
#ifdef VEC_HALVES
    enum { HALF = VW / 2 };
    float x[VW], want[VW], swapped[VW];
    for (int i = 0; i < VW; i++) x[i] = (float)(i + 1);
    for (int i = 0; i < VW; i++) swapped[i] = x[(i + HALF) % VW];
    const vh low = vh_load(x), high = vh_load(x + HALF);
    check(lanes_are(vh_wide(high), x + HALF, HALF), "vh_wide", 0);
    check(lanes_are(vjoin(high, low), swapped, VW), "vjoin", 0);
    check(lanes_are(vjoin(vhigh_half(vload(x)), vlow_half(vload(x))), swapped, VW), "vlow_half, vhigh_half", 0);
    for (int i = 0; i < HALF; i++) want[i] = 3 * x[i] + x[HALF + i];
    check(lanes_are(vh_wide(vh_fma(vh_set1(3), low, high)), want, HALF), "vh_fma", 0);
    for (int i = 0; i < HALF; i++) want[i] = x[i] + x[HALF + i];
    check(lanes_are(vh_wide(vh_add(low, vh_max(high, vh_zero()))), want, HALF), "vh_add, vh_max", 0);
    memcpy(want, x, sizeof want);
    vh_store(want, vh_max(low, high));
    check(memcmp(want, x + HALF, HALF * sizeof *want) == 0 && bits_of(want[HALF]) == bits_of(x[HALF]), "vh_store", 0);
#endif
}

static void check_shuffles(void)
{
    vf r[VW], x[16][16 / VW];
    float in[VW * VW], sums[16], lanes[16][16];
    for (int i = 0; i < VW * VW; i++) in[i] = (float)(i + 1);
    for (int i = 0; i < VW; i++) r[i] = vload(in + i * VW);
    vtranspose(r);
    for (int i = 0; i < VW; i++) {
        float want[VW];
        for (int k = 0; k < VW; k++) want[k] = in[k * VW + i];
        check(lanes_are(r[i], want, VW), "vtranspose", (uint32_t)i);
    }
    for (uint32_t i = 0; i < 256; i++) lanes[i / 16][i % 16] = float_of(0x3f000000u + (i * 2654435761u >> 7)); /* sums of any other order differ */
    for (int i = 0; i < 16; i++)
        for (int v = 0; v < 16 / VW; v++) x[i][v] = vload(lanes[i] + v * VW);
    vtree16(x, sums);
    for (int i = 0; i < 16; i++) {
        float four[4];
        for (int n = 0; n < 4; n++) four[n] = (lanes[i][4 * n] + lanes[i][4 * n + 2]) + (lanes[i][4 * n + 1] + lanes[i][4 * n + 3]);
        check(bits_of(sums[i]) == bits_of((four[0] + four[1]) + (four[2] + four[3])), "vtree16", (uint32_t)i);
    }
}

void CAT(words_, WORDS_NAME)(struct words_tally *to)
{
    tally = to;
    check_loads();
    check_wide();
    check_stores();
    check_memory();
    check_arithmetic();
    check_softcap();
    check_shown();
    check_halves();
    check_shuffles();
}
