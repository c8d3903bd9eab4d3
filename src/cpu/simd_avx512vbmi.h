/* SPDX-License-Identifier: MIT
 * simd_avx512vbmi.h - f8_e4m3 by AVX-512's VBMI, 64 codes at once; all else is simd_avx512.h's.
 */
#ifndef HEED_SIMD_AVX512VBMI_H
#define HEED_SIMD_AVX512VBMI_H
#define VEC_NAME "avx512vbmi"
#define VEC_E4M3 64
#define VEC_E4M3_ALONE 1 /* so the set has rows for nothing else */
#include "simd_avx512.h"

/* e4m3 without its sign as bf16, which holds it: 16 code + 120 2^7 from 8 on; 0 to 7 are denormal, the last one is NaN. Lower bytes, upper bytes. */
#define FIFTEEN_UP 0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0x90, 0xa0, 0xb0, 0xc0, 0xd0, 0xe0
#define FIFTEEN_OF(x) x, x, x, x, x, x, x, x, x, x, x, x, x, x, x
static const uint8_t e4m3_lower[128] __attribute__((aligned(64))) = {
    0x00, 0x00, 0x80, 0xc0, 0x00, 0x20, 0x40, 0x60, 0x80, 0x90, 0xa0, 0xb0, 0xc0, 0xd0, 0xe0, 0xf0,
    FIFTEEN_UP, 0xf0, FIFTEEN_UP, 0xf0, FIFTEEN_UP, 0xf0, FIFTEEN_UP, 0xf0, FIFTEEN_UP, 0xf0, FIFTEEN_UP, 0xf0, FIFTEEN_UP, 0xc0};
static const uint8_t e4m3_upper[128] __attribute__((aligned(64))) = {
    0x00, 0x3b, 0x3b, 0x3b, 0x3c, 0x3c, 0x3c, 0x3c, 0x3c, 0x3c, 0x3c, 0x3c, 0x3c, 0x3c, 0x3c, 0x3c,
    FIFTEEN_OF(0x3d), 0x3d, FIFTEEN_OF(0x3e), 0x3e, FIFTEEN_OF(0x3f), 0x3f, FIFTEEN_OF(0x40), 0x40, FIFTEEN_OF(0x41), 0x41, FIFTEEN_OF(0x42), 0x42,
    FIFTEEN_OF(0x43), 0x7f};

/* Fours of codes change places first, since bytes and then halves are put beside each other in lanes of 128 bits: element 16 v + n to lane n of x[v]. */
INLINE void vload_e4m3_wide(const uint8_t *p, vf x[4])
{
    const __m512i places = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0), zero = _mm512_setzero_si512();
    const __m512i code = _mm512_permutexvar_epi32(places, _mm512_loadu_si512(p));
    const __m512i lower = _mm512_permutex2var_epi8(_mm512_load_si512(e4m3_lower), code, _mm512_load_si512(e4m3_lower + 64));
    __m512i upper = _mm512_permutex2var_epi8(_mm512_load_si512(e4m3_upper), code, _mm512_load_si512(e4m3_upper + 64));
    upper = _mm512_ternarylogic_epi32(upper, code, _mm512_set1_epi8((char)0x80), 0xf8); /* | (code & 0x80): the sign */
    const __m512i low = _mm512_unpacklo_epi8(lower, upper), high = _mm512_unpackhi_epi8(lower, upper);
    x[0] = _mm512_castsi512_ps(_mm512_unpacklo_epi16(zero, low));
    x[1] = _mm512_castsi512_ps(_mm512_unpackhi_epi16(zero, low));
    x[2] = _mm512_castsi512_ps(_mm512_unpacklo_epi16(zero, high));
    x[3] = _mm512_castsi512_ps(_mm512_unpackhi_epi16(zero, high));
}

#endif
