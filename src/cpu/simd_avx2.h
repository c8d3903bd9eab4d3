/* SPDX-License-Identifier: MIT
 * simd_avx2.h - the vector language with 8 lanes (AVX2, FMA, F16C). The words are explained in simd_scalar.h.
 */
#ifndef HEED_SIMD_AVX2_H
#define HEED_SIMD_AVX2_H
#include "simd_common.h"
#include <immintrin.h>

#define VEC_NAME "avx2"
#define VW 8
#define VEC_REGISTERS 16
typedef __m256 vf;
typedef __m256 vm; /* all bits of a lane set or clear */

INLINE __m256i vfirst(int n) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }
/* The first n of 8 elements of 1 or 2 bytes, the rest 0: through the stack, since there are no masked loads below 32 bits. */
INLINE __m128i vbytes_n(const void *p, int n, int size)
{
    _Alignas(16) unsigned char t[16] = {0};
    memcpy(t, p, (size_t)(n * size));
    return _mm_load_si128((const __m128i *)t);
}

INLINE vf vload(const float *p) { return _mm256_loadu_ps(p); }
INLINE vf vload_n(const float *p, int n) { return _mm256_maskload_ps(p, vfirst(n)); }
INLINE void vstore(float *p, vf a) { _mm256_storeu_ps(p, a); }
INLINE void vstore_n(float *p, vf a, int n) { _mm256_maskstore_ps(p, vfirst(n), a); }
INLINE vf vset1(float x) { return _mm256_set1_ps(x); }

INLINE vf vwiden_bf16(__m128i h) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16)); }
INLINE vf vload_f16(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }
INLINE vf vload_f16_n(const uint16_t *p, int n) { return _mm256_cvtph_ps(vbytes_n(p, n, 2)); }
INLINE vf vload_bf16(const uint16_t *p) { return vwiden_bf16(_mm_loadu_si128((const __m128i *)p)); }
INLINE vf vload_bf16_n(const uint16_t *p, int n) { return vwiden_bf16(vbytes_n(p, n, 2)); }
INLINE vf vload_i8(const int8_t *p) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p))); }
INLINE vf vload_i8_n(const int8_t *p, int n) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(vbytes_n(p, n, 1))); }
INLINE vf vload_u8_n(const uint8_t *p, int n) { return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(vbytes_n(p, n, 1))); }
INLINE vf vload_bits_n(const uint8_t *p, int32_t bit, int n)
{
    const __m256i place = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const int bits = n > 0 ? p[bit / 8] & ((1 << n) - 1) : 0;
    __m256i set = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(bits), place), place);
    return _mm256_and_ps(_mm256_castsi256_ps(set), vset1(1.0f));
}

INLINE void vstore_16_n(uint16_t *p, __m128i h, int n)
{
    if (n == 8) {
        _mm_storeu_si128((__m128i *)p, h);
        return;
    }
    uint16_t t[8];
    _mm_storeu_si128((__m128i *)t, h);
    memcpy(p, t, (size_t)n * 2);
}

INLINE void vstore_f16_n(uint16_t *p, vf a, int n)
{
    vstore_16_n(p, _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), n);
}

INLINE void vstore_bf16_n(uint16_t *p, vf a, int n)
{
    __m256i u = _mm256_castps_si256(a), odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    __m256i r = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000)); /* NaN: quiet, kept */
    r = _mm256_blendv_epi8(r, quiet, _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q)));
    r = _mm256_srli_epi32(r, 16);
    r = _mm256_permute4x64_epi64(_mm256_packus_epi32(r, r), 0x08);
    vstore_16_n(p, _mm256_castsi256_si128(r), n);
}

INLINE vf vadd(vf a, vf b) { return _mm256_add_ps(a, b); }
INLINE vf vsub(vf a, vf b) { return _mm256_sub_ps(a, b); }
INLINE vf vmul(vf a, vf b) { return _mm256_mul_ps(a, b); }
INLINE vf vdiv(vf a, vf b) { return _mm256_div_ps(a, b); }
INLINE vf vfma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
INLINE vf vmax(vf a, vf b) { return _mm256_max_ps(a, b); }
INLINE vf vmin(vf a, vf b) { return _mm256_min_ps(a, b); }
INLINE vf vabs(vf a) { return _mm256_andnot_ps(vset1(-0.0f), a); }
INLINE vf vcopysign(vf a, vf sign) { return _mm256_or_ps(vabs(a), _mm256_and_ps(vset1(-0.0f), sign)); }

INLINE vm vlt(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
INLINE vm vge(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_GE_OQ); }
INLINE vm veq(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
INLINE vm vne(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_NEQ_UQ); }
INLINE vm vis_minus_zero(vf a)
{
    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_castps_si256(a), _mm256_set1_epi32((int)0x80000000u)));
}
INLINE vm vand(vm a, vm b) { return _mm256_and_ps(a, b); }
INLINE vm vor(vm a, vm b) { return _mm256_or_ps(a, b); }
INLINE int vany(vm a) { return _mm256_movemask_ps(a) != 0; }
INLINE vf vselect(vm m, vf a, vf b) { return _mm256_blendv_ps(b, a, m); }

INLINE vf vscale_exp(vf p, vf z, vf x, float low)
{
    vf keep = _mm256_cmp_ps(x, vset1(low), _CMP_NLT_UQ), number = _mm256_cmp_ps(x, vset1(low), _CMP_GE_OQ);
    __m256i n = _mm256_and_si256(_mm256_castps_si256(number), _mm256_slli_epi32(_mm256_castps_si256(z), 23));
    return _mm256_and_ps(keep, _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), n)));
}

/* p 2^n, where that is a normal number; are all lanes true? */
#define VEC_SCALES 1
INLINE vf vscale(vf p, vf z) { return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(z), 23))); }
INLINE int vevery(vm a) { return _mm256_movemask_ps(a) == 0xff; }

/* 24 shuffles. */
INLINE void vtranspose(vf *r)
{
    vf t[8];
    UNROLL for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    UNROLL for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    UNROLL for (int i = 0; i < 4; i++) {
        t[i] = _mm256_permute2f128_ps(r[i], r[4 + i], 0x20);
        t[4 + i] = _mm256_permute2f128_ps(r[i], r[4 + i], 0x31);
    }
    UNROLL for (int i = 0; i < 8; i++) r[i] = t[i];
}

/* f8 by way of f16: e5m2 is its upper half; e4m3 has three more bits of mantissa and a bias of 7, so times 2^8; its NaN, all ones, would be 480: adding one
 * carries into the bit that makes it a NaN of f16. */
INLINE __m128i vbytes8(const uint8_t *p, int n) { return n == 8 ? _mm_loadl_epi64((const __m128i *)p) : vbytes_n(p, n, 1); }
INLINE vf vload_e5m2_n(const uint8_t *p, int n) { return _mm256_cvtph_ps(_mm_slli_epi16(_mm_cvtepu8_epi16(vbytes8(p, n)), 8)); }
INLINE vf vload_e4m3_n(const uint8_t *p, int n)
{
    const __m128i u = _mm_and_si128(_mm_slli_epi16(_mm_cvtepi8_epi16(vbytes8(p, n)), 7), _mm_set1_epi16((short)0xbf80));
    const __m128i nan = _mm_and_si128(_mm_add_epi16(u, _mm_set1_epi16(0x80)), _mm_set1_epi16(0x4000));
    return vmul(_mm256_cvtph_ps(_mm_or_si128(u, nan)), vset1(256.0f));
}
/* VEC_E4M3 of e4m3 at once: the codes become f16 together. */
#define VEC_E4M3 16
INLINE void vload_e4m3_wide(const uint8_t *p, vf x[2])
{
    const __m256i u = _mm256_and_si256(_mm256_slli_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p)), 7), _mm256_set1_epi16((short)0xbf80));
    const __m256i h = _mm256_or_si256(u, _mm256_and_si256(_mm256_add_epi16(u, _mm256_set1_epi16(0x80)), _mm256_set1_epi16(0x4000)));
    x[0] = vmul(_mm256_cvtph_ps(_mm256_castsi256_si128(h)), vset1(256.0f));
    x[1] = vmul(_mm256_cvtph_ps(_mm256_extracti128_si256(h, 1)), vset1(256.0f));
}
INLINE vf vset1_f16(const void *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return _mm256_cvtph_ps(_mm_set1_epi16((short)h));
}
/* Lower or upper halves of 8 bytes, less 8. */
INLINE vf vload_nibbles(const uint8_t *p, int upper)
{
    __m128i u = _mm_loadl_epi64((const __m128i *)p);
    if (upper) u = _mm_srli_epi16(u, 4);
    u = _mm_sub_epi8(_mm_and_si128(u, _mm_set1_epi8(15)), _mm_set1_epi8(8));
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(u));
}

/* Lane n <-> bit n. */
INLINE vm vm_of_bits(uint32_t bits)
{
    const __m256i place = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)bits), place), place));
}
INLINE uint32_t bits_of_vm(vm a) { return (uint32_t)_mm256_movemask_ps(a); }
/* A row's eight keys as a byte, and a key is one bit of each. */
#define VEC_SHOWN 1
struct shown_keys { __m256i bytes; };
INLINE int vload_shown(const unsigned char *const *rows, int32_t j, int count, int bits, struct shown_keys *shown)
{
    uint64_t all = 0;
    UNROLL for (int r = 0; r < VW; r++) {
        uint64_t byte;
        if (bits)
            byte = rows[r][j / 8];
        else {
            const __m128i keys = count == VW ? _mm_loadl_epi64((const __m128i *)(rows[r] + j)) : vbytes_n(rows[r] + j, count, 1);
            byte = ~(unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(keys, _mm_setzero_si128())) & 0xff;
        }
        all |= byte << 8 * r;
    }
    shown->bytes = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)all));
    return all == ~UINT64_C(0);
}
INLINE vm vkey_shown(const struct shown_keys *shown, int n)
{
    const __m256i bit = _mm256_set1_epi32(1 << n);
    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(shown->bytes, bit), bit));
}

INLINE void vprefetch(const void *p) { _mm_prefetch((const char *)p, _MM_HINT_T1); }

/* Eight of vtree16's sums. Pairs within fours, fours by halves of both registers. */
INLINE void vtree8(vf (*x)[2], float *to)
{
    vf t[2][4], u[2][2];
    UNROLL for (int h = 0; h < 2; h++) {
        UNROLL for (int i = 0; i < 4; i++)
            t[h][i] = vadd(_mm256_unpacklo_ps(x[2 * i][h], x[2 * i + 1][h]), _mm256_unpackhi_ps(x[2 * i][h], x[2 * i + 1][h]));
        UNROLL for (int i = 0; i < 2; i++) {
            const __m256d a = _mm256_castps_pd(t[h][2 * i]), b = _mm256_castps_pd(t[h][2 * i + 1]);
            u[h][i] = vadd(_mm256_castpd_ps(_mm256_unpacklo_pd(a, b)), _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)));
        }
    }
    const vf low = vadd(_mm256_permute2f128_ps(u[0][0], u[0][1], 0x20), _mm256_permute2f128_ps(u[0][0], u[0][1], 0x31));
    const vf high = vadd(_mm256_permute2f128_ps(u[1][0], u[1][1], 0x20), _mm256_permute2f128_ps(u[1][0], u[1][1], 0x31));
    vstore(to, vadd(low, high));
}

/* to[i]: sum over the 16 lanes of x[i]. */
INLINE void vtree16(vf (*x)[2], float *to)
{
    vtree8(x, to);
    vtree8(x + 8, to + 8);
}

#include "simd_functions.h"
#endif
