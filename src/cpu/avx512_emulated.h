/* SPDX-License-Identifier: MIT
 * avx512_emulated.h - AVX-512 for machines without it: SIMDe gives the _mm512_ functions in terms of AVX2, so that the logic of the 16-lane rows is
 * tested there (preset "emulated"). Right to the bit, four to thirteen times slower: for tests only, in no release.
 */
#ifndef HEED_AVX512_EMULATED_H
#define HEED_AVX512_EMULATED_H
#ifdef __AVX512F__
#error "the compiler has AVX-512 itself: this would test nothing"
#endif
#ifndef __FMA__
#error "without FMA in hardware SIMDe rounds twice in a fused multiply-add, and the bits differ"
#endif
#include <immintrin.h>
#define SIMDE_ENABLE_NATIVE_ALIASES
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpsabi"
#pragma GCC diagnostic ignored "-Wpedantic"
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>
#include <simde/x86/fma.h>
#pragma GCC diagnostic pop

/* The compiler's own header has types of these names. */
#define __m512 simde__m512
#define __m512d simde__m512d
#define __m512i simde__m512i
#define __mmask16 simde__mmask16
#define __mmask32 simde__mmask32

/* What SIMDe 0.8.2 lacks, and masked loads and stores, which there touch the lanes that are not asked for. */
#define EMULATE static inline __attribute__((always_inline, unused))
#undef _mm512_cvtepi8_epi32
#undef _mm512_cvtepu8_epi32
#undef _mm512_cvtepi32_epi16
#undef _mm512_cvtps_ph
#undef _mm512_maskz_slli_epi32
#undef _mm_maskz_loadu_epi8
#define _mm512_cvtepi8_epi32 emulated_cvtepi8_epi32
#define _mm512_cvtepu8_epi32 emulated_cvtepu8_epi32
#define _mm512_cvtepi32_epi16 emulated_cvtepi32_epi16
#define _mm512_cvtps_ph(a, rounding) emulated_cvtps_ph(a)
#define _mm512_maskz_slli_epi32(mask, a, count) _mm512_maskz_mov_epi32(mask, _mm512_slli_epi32(a, count))
#define _mm_maskz_loadu_epi8 emulated_maskz_loadu_epi8
#undef _mm_test_epi8_mask
#undef _mm256_test_epi16_mask
#define _mm_test_epi8_mask emulated_test_epi8_mask
#define _mm256_test_epi16_mask emulated_test_epi16_mask
#undef _mm256_maskz_loadu_epi16
#undef _mm256_mask_storeu_epi16
#undef _mm512_maskz_loadu_ps
#undef _mm512_mask_storeu_ps
#define _mm256_maskz_loadu_epi16 emulated_maskz_loadu_epi16
#define _mm256_mask_storeu_epi16 emulated_mask_storeu_epi16
#define _mm512_maskz_loadu_ps emulated_maskz_loadu_ps
#define _mm512_mask_storeu_ps emulated_mask_storeu_ps

EMULATE __m512i of_halves(__m256i low, __m256i high) { return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1); }
EMULATE __m512i emulated_cvtepi8_epi32(__m128i a)
{
    return of_halves(_mm256_cvtepi8_epi32(a), _mm256_cvtepi8_epi32(_mm_srli_si128(a, 8)));
}
EMULATE __m512i emulated_cvtepu8_epi32(__m128i a)
{
    return of_halves(_mm256_cvtepu8_epi32(a), _mm256_cvtepu8_epi32(_mm_srli_si128(a, 8)));
}
EMULATE __m256i emulated_cvtepi32_epi16(__m512i a) /* the lower half of each lane */
{
    uint32_t from[16];
    uint16_t to[16];
    memcpy(from, &a, sizeof from);
    for (int i = 0; i < 16; i++) to[i] = (uint16_t)from[i];
    return _mm256_loadu_si256((const __m256i *)to);
}
EMULATE __m256i emulated_cvtps_ph(__m512 a) /* to nearest, whatever MXCSR says */
{
    __m256 half[2];
    memcpy(half, &a, sizeof half);
    return _mm256_set_m128i(_mm256_cvtps_ph(half[1], 0), _mm256_cvtps_ph(half[0], 0));
}
EMULATE __m128i emulated_maskz_loadu_epi8(uint32_t mask, const void *p) /* no byte that is not asked for */
{
    uint8_t to[16] = {0};
    for (int i = 0; i < 16; i++)
        if (mask >> i & 1) to[i] = ((const uint8_t *)p)[i];
    return _mm_loadu_si128((const __m128i *)to);
}
EMULATE __m256i emulated_maskz_loadu_epi16(uint32_t mask, const void *p)
{
    uint16_t to[16] = {0};
    for (int i = 0; i < 16; i++)
        if (mask >> i & 1) to[i] = ((const uint16_t *)p)[i];
    return _mm256_loadu_si256((const __m256i *)to);
}
EMULATE void emulated_mask_storeu_epi16(void *p, uint32_t mask, __m256i a)
{
    uint16_t from[16];
    memcpy(from, &a, sizeof from);
    for (int i = 0; i < 16; i++)
        if (mask >> i & 1) ((uint16_t *)p)[i] = from[i];
}
EMULATE __m512 emulated_maskz_loadu_ps(uint32_t mask, const void *p)
{
    float to[16] = {0};
    for (int i = 0; i < 16; i++)
        if (mask >> i & 1) to[i] = ((const float *)p)[i];
    return _mm512_loadu_ps(to);
}
EMULATE void emulated_mask_storeu_ps(void *p, uint32_t mask, __m512 a)
{
    float from[16];
    memcpy(from, &a, sizeof from);
    for (int i = 0; i < 16; i++)
        if (mask >> i & 1) ((float *)p)[i] = from[i];
}
EMULATE uint32_t emulated_test_epi8_mask(__m128i a, __m128i b)
{
    return ~(uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_and_si128(a, b), _mm_setzero_si128())) & 0xffff;
}
EMULATE uint32_t emulated_test_epi16_mask(__m256i a, __m256i b)
{
    const __m256i zero = _mm256_cmpeq_epi16(_mm256_and_si256(a, b), _mm256_setzero_si256());
    return ~(uint32_t)_mm_movemask_epi8(_mm_packs_epi16(_mm256_castsi256_si128(zero), _mm256_extracti128_si256(zero, 1))) & 0xffff;
}
#endif
