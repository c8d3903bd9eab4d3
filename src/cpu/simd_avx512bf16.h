/* SPDX-License-Identifier: MIT
 * simd_avx512bf16.h - cells of two bf16 for the templates that multiply cell by cell (panel.inc.h), on AVX512-BF16; all else is simd_avx512.h's.
 *
 * vdpbf16ps multiplies exactly and adds in f32, two products per lane; whatever MXCSR says it rounds to nearest and takes denormals for 0.
 */
#ifndef HEED_SIMD_AVX512BF16_H
#define HEED_SIMD_AVX512BF16_H
#include "../mutant.h"
#include "simd_avx512.h"

#define CELL 2

/* acc + the products of the upper and of the lower halves. */
INLINE vf vmac(vf acc, vf x, vf y) { return _mm512_dpbf16_ps(acc, (__m512bh)x, (__m512bh)y); }

/* The same for weights p and values v, where a weight of -0 marks a hidden key: it takes no part, whatever v is. */
INLINE vf vmac_seen(vf acc, vf p, vf v)
{
    const __m512i zero = _mm512_setzero_si512();
    const __mmask32 hidden =
        MUTANT(cpu_pairs_hidden_values) ? 0 : _mm512_cmpeq_epi16_mask(_mm512_castps_si512(p), _mm512_set1_epi16((short)0x8000));
    return vmac(acc, p, _mm512_castsi512_ps(_mm512_mask_blend_epi16(hidden, _mm512_castps_si512(v), zero)));
}

/* bf16 in the form of floats, nearest even. */
INLINE vf vround(vf p) { return vwiden_bf16((__m256i)_mm512_cvtneps_pbh(p)); }

/* Lower halves: a, upper: b, as bf16, nearest even. */
INLINE vf vpack(vf a, vf b)
{
    const __m512i x = (__m512i)_mm512_cvtne2ps_pbh(b, a);
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18,
                                           2, 17, 1, 16, 0);
    return _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, x));
}

/* The lower half as a float. */
INLINE vf vlower(vf a) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a), 16)); }

/* The first n elements at p as cells, zeros behind. */
INLINE vf vload_cells_n(const uint16_t *p, int n)
{
    const __mmask32 some = n >= 32 ? ~(__mmask32)0 : n <= 0 ? 0 : ((__mmask32)1 << n) - 1;
    return _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(some, p));
}

/* Lane d: cell of one[d] and two[d], d < n <= 16. */
INLINE void vzip16(const uint16_t *one, const uint16_t *two, int n, vf *to)
{
    const __m512i x = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(vfirst(n), one)), y = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(vfirst(n), two));
    to[0] = _mm512_castsi512_ps(_mm512_or_si512(x, _mm512_slli_epi32(y, 16)));
}

/* Zips 32 elements of two rows in registers. */
INLINE void vzip_32(__m512i x, __m512i y, vf *first, vf *second)
{
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2,
                                         33, 1, 32, 0);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    *first = _mm512_castsi512_ps(_mm512_permutex2var_epi16(x, low, y));
    *second = _mm512_castsi512_ps(_mm512_permutex2var_epi16(x, high, y));
}
INLINE void vzip32(const uint16_t *one, const uint16_t *two, vf *to)
{
    vzip_32(_mm512_loadu_si512(one), _mm512_loadu_si512(two), &to[0], &to[1]);
}

/* to[d] = cell of one[d] and two[d], d < n <= 32. */
INLINE void vzip(const uint16_t *one, const uint16_t *two, int n, float *to)
{
    vf first, second;
    const __mmask32 some = n == 32 ? ~(__mmask32)0 : ((__mmask32)1 << n) - 1;
    vzip_32(_mm512_maskz_loadu_epi16(some, one), _mm512_maskz_loadu_epi16(some, two), &first, &second);
    _mm512_mask_storeu_ps(to, (__mmask16)some, first);
    if (n > 16) _mm512_mask_storeu_ps(to + 16, (__mmask16)(some >> 16), second);
}

#endif
