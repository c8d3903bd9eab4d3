/* SPDX-License-Identifier: MIT
 * simd_avx512.h - the vector language with 16 lanes (AVX-512 F, BW, DQ, VL). The words are explained in simd_scalar.h.
 */
#ifndef HEED_SIMD_AVX512_H
#define HEED_SIMD_AVX512_H
#include "simd_common.h"
#if defined(HEED_EMULATE_AVX512) && !defined(__AVX512F__)
#include "avx512_emulated.h"
#else
#include <immintrin.h>
#endif

#ifndef VEC_NAME
#define VEC_NAME "avx512"
#endif
#define VW 16
#define VEC_REGISTERS 32
typedef __m512 vf;
typedef __mmask16 vm;

INLINE vm vfirst(int n) { return (vm)((1u << n) - 1); }

INLINE vf vload(const float *p) { return _mm512_loadu_ps(p); }
INLINE vf vload_n(const float *p, int n) { return _mm512_maskz_loadu_ps(vfirst(n), p); }
INLINE void vstore(float *p, vf a) { _mm512_storeu_ps(p, a); }
INLINE void vstore_n(float *p, vf a, int n) { _mm512_mask_storeu_ps(p, vfirst(n), a); }
INLINE vf vset1(float x) { return _mm512_set1_ps(x); }

INLINE vf vwiden_bf16(__m256i h) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16)); }
INLINE vf vload_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
INLINE vf vload_f16_n(const uint16_t *p, int n) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(vfirst(n), p)); }
INLINE vf vload_bf16(const uint16_t *p) { return vwiden_bf16(_mm256_loadu_si256((const __m256i *)p)); }
INLINE vf vload_bf16_n(const uint16_t *p, int n) { return vwiden_bf16(_mm256_maskz_loadu_epi16(vfirst(n), p)); }
INLINE vf vload_i8(const int8_t *p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p))); }
INLINE vf vload_i8_n(const int8_t *p, int n) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(vfirst(n), p))); }
INLINE vf vload_u8_n(const uint8_t *p, int n) { return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(vfirst(n), p))); }
INLINE vf vload_bits_n(const uint8_t *p, int32_t bit, int n)
{
    uint32_t bits = 0;
    if (n > 0) bits = p[bit / 8];
    if (n > 8) bits |= (uint32_t)p[bit / 8 + 1] << 8;
    return _mm512_maskz_mov_ps((vm)(bits & vfirst(n)), vset1(1.0f));
}

/* Rounding is stated, so MXCSR does not matter; vcvtps2ph never flushes. */
INLINE void vstore_f16_n(uint16_t *p, vf a, int n)
{
    const __m256i h = _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    if (n == VW) _mm256_storeu_si256((__m256i *)p, h);
    else _mm256_mask_storeu_epi16(p, vfirst(n), h);
}

/* In integers: vcvtneps2bf16 would flush denormals. */
INLINE void vstore_bf16_n(uint16_t *p, vf a, int n)
{
    __m512i u = _mm512_castps_si512(a), odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    __m512i r = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    r = _mm512_mask_or_epi32(r, _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), u, _mm512_set1_epi32(0x400000)); /* NaN: quiet, kept */
    const __m256i h = _mm512_cvtepi32_epi16(_mm512_srli_epi32(r, 16));
    if (n == VW) _mm256_storeu_si256((__m256i *)p, h);
    else _mm256_mask_storeu_epi16(p, vfirst(n), h);
}

INLINE vf vadd(vf a, vf b) { return _mm512_add_ps(a, b); }
INLINE vf vsub(vf a, vf b) { return _mm512_sub_ps(a, b); }
INLINE vf vmul(vf a, vf b) { return _mm512_mul_ps(a, b); }
INLINE vf vdiv(vf a, vf b) { return _mm512_div_ps(a, b); }
INLINE vf vfma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vf vmax(vf a, vf b) { return _mm512_max_ps(a, b); }
INLINE vf vmin(vf a, vf b) { return _mm512_min_ps(a, b); }
INLINE vf vabs(vf a) { return _mm512_abs_ps(a); }
INLINE vf vcopysign(vf a, vf sign)
{
    const __m512 bit = _mm512_castsi512_ps(_mm512_set1_epi32((int)0x80000000u));
    return _mm512_or_ps(_mm512_andnot_ps(bit, a), _mm512_and_ps(bit, sign));
}

INLINE vm vlt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
INLINE vm vge(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
INLINE vm veq(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
INLINE vm vne(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ); }
INLINE vm vis_minus_zero(vf a) { return _mm512_cmpeq_epi32_mask(_mm512_castps_si512(a), _mm512_set1_epi32((int)0x80000000u)); }
INLINE vm vand(vm a, vm b) { return a & b; }
INLINE vm vor(vm a, vm b) { return a | b; }
INLINE int vany(vm a) { return a != 0; }
INLINE vf vselect(vm m, vf a, vf b) { return _mm512_mask_blend_ps(m, b, a); }

/* One compare: those and fma share two pipes, min is elsewhere. It gives its second argument where one is NaN. */
INLINE vf vscale_exp(vf p, vf z, vf x, float low)
{
    const vm keep = _mm512_cmp_ps_mask(x, vset1(low), _CMP_NLT_UQ);
    const __m512i scaled = _mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(z), 23));
    return _mm512_maskz_min_ps(keep, _mm512_castsi512_ps(scaled), p);
}

/* p 2^n, where that is a normal number; are all lanes true? */
#define VEC_SCALES 1
INLINE vf vscale(vf p, vf z) { return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(z), 23))); }
INLINE int vevery(vm a) { return a == 0xffff; }

/* Half a vector. vh_wide: zeros in the upper half; vjoin, vlow_half, vhigh_half: two of them and a whole one. */
#define VEC_HALVES 1
typedef __m256 vh;
INLINE vh vh_load(const float *p) { return _mm256_loadu_ps(p); }
INLINE void vh_store(float *p, vh a) { _mm256_storeu_ps(p, a); }
INLINE vh vh_set1(float x) { return _mm256_set1_ps(x); }
INLINE vh vh_zero(void) { return _mm256_setzero_ps(); }
INLINE vh vh_add(vh a, vh b) { return _mm256_add_ps(a, b); }
INLINE vh vh_fma(vh a, vh b, vh c) { return _mm256_fmadd_ps(a, b, c); }
INLINE vh vh_max(vh a, vh b) { return _mm256_max_ps(a, b); }
INLINE vf vh_wide(vh a) { return _mm512_insertf32x8(_mm512_setzero_ps(), a, 0); }
INLINE vf vjoin(vh low, vh high) { return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1); }
INLINE vh vlow_half(vf a) { return _mm512_castps512_ps256(a); }
INLINE vh vhigh_half(vf a) { return _mm512_extractf32x8_ps(a, 1); }

/* 64 shuffles. */
INLINE void vtranspose(vf *r)
{
    vf t[16];
    UNROLL for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    UNROLL for (int i = 0; i < 16; i += 4) {
        __m512d a = _mm512_castps_pd(t[i]), b = _mm512_castps_pd(t[i + 1]), c = _mm512_castps_pd(t[i + 2]), d = _mm512_castps_pd(t[i + 3]);
        r[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
        r[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        r[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
        r[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
    UNROLL for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_f32x4(r[i], r[4 + i], 0x88);
        t[4 + i] = _mm512_shuffle_f32x4(r[i], r[4 + i], 0xdd);
        t[8 + i] = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0x88);
        t[12 + i] = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0xdd);
    }
    UNROLL for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_f32x4(t[i], t[8 + i], 0x88);
        r[8 + i] = _mm512_shuffle_f32x4(t[i], t[8 + i], 0xdd);
        r[4 + i] = _mm512_shuffle_f32x4(t[4 + i], t[12 + i], 0x88);
        r[12 + i] = _mm512_shuffle_f32x4(t[4 + i], t[12 + i], 0xdd);
    }
}

/* Sixteen rows from element d on, transposed while they are loaded: quarters of rows go to their lanes by masked loads, which cost no shuffle. */
#define VEC_LOADS_ACROSS 1
INLINE void vload_across(const unsigned char *const *rows, ptrdiff_t d, vf *t)
{
    UNROLL for (int g = 0; g < 16; g += 4) {
        __m512 y[4];
        UNROLL for (int i = 0; i < 4; i++) {
            y[i] = _mm512_castps128_ps512(_mm_loadu_ps((const float *)rows[i] + d + g));
            y[i] = _mm512_mask_broadcast_f32x4(y[i], 0x00f0, _mm_loadu_ps((const float *)rows[4 + i] + d + g));
            y[i] = _mm512_mask_broadcast_f32x4(y[i], 0x0f00, _mm_loadu_ps((const float *)rows[8 + i] + d + g));
            y[i] = _mm512_mask_broadcast_f32x4(y[i], 0xf000, _mm_loadu_ps((const float *)rows[12 + i] + d + g));
        }
        const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(y[0], y[1])), b = _mm512_castps_pd(_mm512_unpackhi_ps(y[0], y[1]));
        const __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(y[2], y[3])), e = _mm512_castps_pd(_mm512_unpackhi_ps(y[2], y[3]));
        t[g] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
        t[g + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        t[g + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, e));
        t[g + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, e));
    }
}

/* The same of f16 or bf16: transposed as halves, then widened. A vector holds eighths of rows i and i + 8, twice. */
INLINE void vload_halves_across(const unsigned char *const *rows, ptrdiff_t d, const int bf16, vf *t)
{
    __m512i x[8], y[8];
    UNROLL for (int i = 0; i < 8; i++) {
        const __m128i *lower = (const __m128i *)((const uint16_t *)rows[i] + d), *upper = (const __m128i *)((const uint16_t *)rows[8 + i] + d);
        x[i] = _mm512_castsi128_si512(_mm_loadu_si128(lower));
        x[i] = _mm512_mask_broadcast_i32x4(x[i], 0x00f0, _mm_loadu_si128(upper));
        x[i] = _mm512_mask_broadcast_i32x4(x[i], 0x0f00, _mm_loadu_si128(lower + 1));
        x[i] = _mm512_mask_broadcast_i32x4(x[i], 0xf000, _mm_loadu_si128(upper + 1));
    }
    UNROLL for (int i = 0; i < 8; i += 2) {
        y[i] = _mm512_unpacklo_epi16(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_epi16(x[i], x[i + 1]);
    }
    UNROLL for (int i = 0; i < 8; i += 4)
        UNROLL for (int n = 0; n < 2; n++) {
            x[i + 2 * n] = _mm512_unpacklo_epi32(y[i + n], y[i + 2 + n]);
            x[i + 2 * n + 1] = _mm512_unpackhi_epi32(y[i + n], y[i + 2 + n]);
        }
    UNROLL for (int n = 0; n < 4; n++) {
        y[2 * n] = _mm512_unpacklo_epi64(x[n], x[4 + n]);
        y[2 * n + 1] = _mm512_unpackhi_epi64(x[n], x[4 + n]);
    }
    UNROLL for (int i = 0; i < 8; i++) {
        const __m256i lower = _mm512_castsi512_si256(y[i]), upper = _mm512_extracti64x4_epi64(y[i], 1);
        t[i] = bf16 ? _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(lower), 16)) : _mm512_cvtph_ps(lower);
        t[8 + i] = bf16 ? _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(upper), 16)) : _mm512_cvtph_ps(upper);
    }
}

/* A row's sixteen keys as a word, and a key is one bit of each. */
#define VEC_SHOWN 1
struct shown_keys { __m256i words; };
INLINE uint64_t shown_word(const unsigned char *row, int32_t j, int count, int bits)
{
    uint16_t word = 0;
    if (!bits) {
        const __m128i bytes = count == VW ? _mm_loadu_si128((const __m128i *)(row + j)) : _mm_maskz_loadu_epi8(vfirst(count), row + j);
        return _mm_test_epi8_mask(bytes, bytes);
    }
    if (count > 8) memcpy(&word, row + j / 8, sizeof word);
    else word = row[j / 8];
    return word & vfirst(count);
}
INLINE int vload_shown(const unsigned char *const *rows, int32_t j, int count, int bits, struct shown_keys *shown)
{
    uint64_t four[4], all = 0xffff;
    all |= all << 16, all |= all << 32;
    UNROLL for (int n = 0; n < 4; n++) {
        four[n] = 0;
        UNROLL for (int r = 0; r < 4; r++) four[n] |= shown_word(rows[4 * n + r], j, count, bits) << 16 * r;
    }
    shown->words = _mm256_setr_epi64x((long long)four[0], (long long)four[1], (long long)four[2], (long long)four[3]);
    return (four[0] & four[1] & four[2] & four[3]) == all;
}
INLINE vm vkey_shown(const struct shown_keys *shown, int n) { return _mm256_test_epi16_mask(shown->words, _mm256_set1_epi16((short)(1 << n))); }

/* f8 by way of f16: e5m2 is its upper half; e4m3 has three more bits of mantissa and a bias of 7, so times 2^8; its NaN, all ones, would be 480: adding one
 * carries into the bit that makes it a NaN of f16. */
INLINE __m128i vload_codes(const uint8_t *p, int n) { return n == VW ? _mm_loadu_si128((const __m128i *)p) : _mm_maskz_loadu_epi8(vfirst(n), p); }
INLINE vf vload_e5m2_n(const uint8_t *p, int n)
{
    return _mm512_cvtph_ps(_mm256_slli_epi16(_mm256_cvtepu8_epi16(vload_codes(p, n)), 8));
}
INLINE vf vload_e4m3_n(const uint8_t *p, int n)
{
    const __m256i u = _mm256_and_si256(_mm256_slli_epi16(_mm256_cvtepi8_epi16(vload_codes(p, n)), 7), _mm256_set1_epi16((short)0xbf80));
    const __m256i nan = _mm256_and_si256(_mm256_add_epi16(u, _mm256_set1_epi16(0x80)), _mm256_set1_epi16(0x4000));
    return vmul(_mm512_cvtph_ps(_mm256_or_si256(u, nan)), vset1(256.0f));
}
/* VEC_E4M3 of e4m3 at once: the codes become f16 together. A set that includes this file may have a way of its own. */
#ifndef VEC_E4M3
#define VEC_E4M3 32
INLINE void vload_e4m3_wide(const uint8_t *p, vf x[2])
{
    const __m512i u = _mm512_and_si512(_mm512_slli_epi16(_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)p)), 7), _mm512_set1_epi16((short)0xbf80));
    const __m512i h = _mm512_ternarylogic_epi32(u, _mm512_add_epi16(u, _mm512_set1_epi16(0x80)), _mm512_set1_epi16(0x4000), 0xf8); /* u | (the sum & 0x4000) */
    x[0] = vmul(_mm512_cvtph_ps(_mm512_castsi512_si256(h)), vset1(256.0f));
    x[1] = vmul(_mm512_cvtph_ps(_mm512_extracti64x4_epi64(h, 1)), vset1(256.0f));
}
#endif
INLINE vf vset1_f16(const void *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return _mm512_cvtph_ps(_mm256_set1_epi16((short)h));
}
/* Lower or upper halves of 16 bytes, less 8. */
INLINE vf vload_nibbles(const uint8_t *p, int upper)
{
    __m128i u = _mm_loadu_si128((const __m128i *)p);
    if (upper) u = _mm_srli_epi16(u, 4);
    u = _mm_sub_epi8(_mm_and_si128(u, _mm_set1_epi8(15)), _mm_set1_epi8(8));
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(u));
}

/* Lane n <-> bit n. */
INLINE vm vm_of_bits(uint32_t bits) { return (vm)bits; }
INLINE uint32_t bits_of_vm(vm a) { return a; }
INLINE void vprefetch(const void *p) { _mm_prefetch((const char *)p, _MM_HINT_T1); }

/* to[i]: sum over the 16 lanes of x[i]. */
INLINE void vtree16(vf (*x)[1], float *to)
{
    vf t[8], u[4], v[2];
    UNROLL for (int i = 0; i < 8; i++)
        t[i] = vadd(_mm512_unpacklo_ps(x[2 * i][0], x[2 * i + 1][0]), _mm512_unpackhi_ps(x[2 * i][0], x[2 * i + 1][0]));
    UNROLL for (int i = 0; i < 4; i++) {
        const __m512d a = _mm512_castps_pd(t[2 * i]), b = _mm512_castps_pd(t[2 * i + 1]);
        u[i] = vadd(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    UNROLL for (int i = 0; i < 2; i++)
        v[i] = vadd(_mm512_shuffle_f32x4(u[2 * i], u[2 * i + 1], 0x88), _mm512_shuffle_f32x4(u[2 * i], u[2 * i + 1], 0xdd));
    vstore(to, vadd(_mm512_shuffle_f32x4(v[0], v[1], 0x88), _mm512_shuffle_f32x4(v[0], v[1], 0xdd)));
}

#include "simd_functions.h"
#endif
