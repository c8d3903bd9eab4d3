/* SPDX-License-Identifier: MIT
 * simd_sve.h - the vector language with 4, 8 or 16 lanes (SVE of 64-bit ARM at 128, 256 or 512 bits). The words are explained in simd_scalar.h.
 *
 * A vector has the size that -msve-vector-bits names, so that tiles can be arrays of vectors; the code is right on threads with vectors of exactly
 * that size (features.c asks). Truths are predicates, which are never kept in memory.
 */
#ifndef HEED_SIMD_SVE_H
#define HEED_SIMD_SVE_H
#include "simd_common.h"
#include <arm_sve.h>

#define SVE_TEXT_(bits) "sve" #bits
#define SVE_TEXT(bits) SVE_TEXT_(bits)
#define VEC_NAME SVE_TEXT(__ARM_FEATURE_SVE_BITS)
#define VW (__ARM_FEATURE_SVE_BITS / 32)
#define VEC_REGISTERS 32
typedef svfloat32_t vf __attribute__((arm_sve_vector_bits(__ARM_FEATURE_SVE_BITS)));
typedef svbool_t vm;

/* Inline assembly of clang knows vectors of no size alone. */
#undef KEEP
#define KEEP(x)                          \
    do {                                 \
        svfloat32_t kept_ = (x);         \
        __asm__("" : "+w"(kept_));       \
        (x) = kept_;                     \
    } while (0)

INLINE svbool_t vall(void) { return svptrue_b32(); }
INLINE svbool_t vfirst(int n) { return svwhilelt_b32_s32(0, n); }
INLINE svuint32_t vbits_of(vf a) { return svreinterpret_u32_f32(a); }
INLINE vf vfloat_of(svuint32_t u) { return svreinterpret_f32_u32(u); }

INLINE vf vload(const float *p) { return svld1_f32(vall(), p); }
INLINE vf vload_n(const float *p, int n) { return svld1_f32(vfirst(n), p); }
INLINE void vstore(float *p, vf a) { svst1_f32(vall(), p, a); }
INLINE void vstore_n(float *p, vf a, int n) { svst1_f32(vfirst(n), p, a); }
INLINE vf vset1(float x) { return svdup_n_f32(x); }

/* Loads of small types fill a lane each: f16 in the lower halves is where the conversion wants it. */
INLINE vf vwiden_f16(svuint32_t h) { return svcvt_f32_f16_x(vall(), svreinterpret_f16_u32(h)); }
INLINE vf vwiden_bf16(svuint32_t h) { return vfloat_of(svlsl_n_u32_x(vall(), h, 16)); }
INLINE vf vfloat_s32(svint32_t a) { return svcvt_f32_s32_x(vall(), a); }
INLINE vf vload_f16(const uint16_t *p) { return vwiden_f16(svld1uh_u32(vall(), p)); }
INLINE vf vload_f16_n(const uint16_t *p, int n) { return vwiden_f16(svld1uh_u32(vfirst(n), p)); }
INLINE vf vload_bf16(const uint16_t *p) { return vwiden_bf16(svld1uh_u32(vall(), p)); }
INLINE vf vload_bf16_n(const uint16_t *p, int n) { return vwiden_bf16(svld1uh_u32(vfirst(n), p)); }
INLINE vf vload_i8(const int8_t *p) { return vfloat_s32(svld1sb_s32(vall(), p)); }
INLINE vf vload_i8_n(const int8_t *p, int n) { return vfloat_s32(svld1sb_s32(vfirst(n), p)); }
INLINE vf vload_u8_n(const uint8_t *p, int n) { return svcvt_f32_u32_x(vall(), svld1ub_u32(vfirst(n), p)); }

/* Lane n <-> bit n. */
INLINE svuint32_t vplaces(void) { return svlsl_u32_x(vall(), svdup_n_u32(1), svindex_u32(0, 1)); }
INLINE vm vm_of_bits(uint32_t bits) { return svcmpne_n_u32(vall(), svand_n_u32_x(vall(), vplaces(), bits), 0); }
INLINE uint32_t bits_of_vm(vm a) { return (uint32_t)svaddv_u32(a, vplaces()); }
INLINE vf vload_bits_n(const uint8_t *p, int32_t bit, int n)
{
    uint32_t bits = 0;
    if (n > 0) bits = (uint32_t)p[bit / 8] >> (bit % 8);
    if (n > 8) bits |= (uint32_t)p[bit / 8 + 1] << 8;
    return svdup_n_f32_z(vm_of_bits(bits & ((1u << n) - 1)), 1.0f);
}

INLINE void vstore_f16_n(uint16_t *p, vf a, int n) { svst1h_u32(vfirst(n), p, svreinterpret_u32_f16(svcvt_f16_f32_x(vall(), a))); }
INLINE void vstore_bf16_n(uint16_t *p, vf a, int n)
{
    const svuint32_t u = vbits_of(a), odd = svand_n_u32_x(vall(), svlsr_n_u32_x(vall(), u, 16), 1);
    const svuint32_t r = svadd_u32_x(vall(), u, svadd_n_u32_x(vall(), odd, 0x7fff));
    const svuint32_t h = svsel_u32(svcmpuo_f32(vall(), a, a), svorr_n_u32_x(vall(), u, 0x400000), r); /* NaN: quiet, kept */
    svst1h_u32(vfirst(n), p, svlsr_n_u32_x(vall(), h, 16));
}

INLINE vf vadd(vf a, vf b) { return svadd_f32_x(vall(), a, b); }
INLINE vf vsub(vf a, vf b) { return svsub_f32_x(vall(), a, b); }
INLINE vf vmul(vf a, vf b) { return svmul_f32_x(vall(), a, b); }
INLINE vf vdiv(vf a, vf b) { return svdiv_f32_x(vall(), a, b); }
INLINE vf vfma(vf a, vf b, vf c) { return svmla_f32_x(vall(), c, a, b); }
INLINE vf vmax(vf a, vf b) { return svsel_f32(svcmpgt_f32(vall(), a, b), a, b); }
INLINE vf vmin(vf a, vf b) { return svsel_f32(svcmplt_f32(vall(), a, b), a, b); }
INLINE vf vabs(vf a) { return svabs_f32_x(vall(), a); }
INLINE vf vcopysign(vf a, vf sign)
{
    return vfloat_of(svorr_u32_x(vall(), vbits_of(vabs(a)), svand_n_u32_x(vall(), vbits_of(sign), 0x80000000u)));
}

INLINE vm vlt(vf a, vf b) { return svcmplt_f32(vall(), a, b); }
INLINE vm vge(vf a, vf b) { return svcmpge_f32(vall(), a, b); }
INLINE vm veq(vf a, vf b) { return svcmpeq_f32(vall(), a, b); }
INLINE vm vne(vf a, vf b) { return svnot_b_z(vall(), svcmpeq_f32(vall(), a, b)); }
INLINE vm vis_minus_zero(vf a) { return svcmpeq_n_u32(vall(), vbits_of(a), 0x80000000u); }
INLINE vm vand(vm a, vm b) { return svand_b_z(vall(), a, b); }
INLINE vm vor(vm a, vm b) { return svorr_b_z(vall(), a, b); }
INLINE int vany(vm a) { return svptest_any(vall(), a); }
INLINE vf vselect(vm m, vf a, vf b) { return svsel_f32(m, a, b); }

INLINE vf vscale_exp(vf p, vf z, vf x, float low)
{
    const svuint32_t n = svlsl_n_u32_z(svcmpge_n_f32(vall(), x, low), vbits_of(z), 23);
    return vselect(svcmplt_n_f32(vall(), x, low), vset1(0), vfloat_of(svadd_u32_x(vall(), vbits_of(p), n)));
}

/* One perfect shuffle of all rows after the other: VW log2(VW) instructions. */
INLINE void vtranspose(vf *r)
{
    vf t[VW];
    UNROLL for (int half = 1; half < VW; half *= 2) {
        UNROLL for (int i = 0; i < VW / 2; i++) {
            t[2 * i] = svzip1_f32(r[i], r[i + VW / 2]);
            t[2 * i + 1] = svzip2_f32(r[i], r[i + VW / 2]);
        }
        UNROLL for (int i = 0; i < VW; i++) r[i] = t[i];
    }
}

/* f8 by way of f16: e5m2 is its upper half; e4m3 has three more bits of mantissa and a bias of 7, so times 2^8; its NaN, all ones, would be 480: adding one
 * carries into the bit that makes it a NaN of f16. */
INLINE vf vload_e5m2_n(const uint8_t *p, int n) { return vwiden_f16(svlsl_n_u32_x(vall(), svld1ub_u32(vfirst(n), p), 8)); }
INLINE vf vload_e4m3_n(const uint8_t *p, int n)
{
    const svuint32_t x = svlsl_n_u32_x(vall(), svreinterpret_u32_s32(svld1sb_s32(vfirst(n), (const int8_t *)p)), 7);
    const svuint32_t u = svand_n_u32_x(vall(), x, 0xbf80), nan = svand_n_u32_x(vall(), svadd_n_u32_x(vall(), u, 0x80), 0x4000);
    return vmul(vwiden_f16(svorr_u32_x(vall(), u, nan)), vset1(256.0f));
}
INLINE vf vset1_f16(const void *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return vwiden_f16(svdup_n_u32(h));
}
INLINE vf vload_nibbles(const uint8_t *p, int upper)
{
    const svuint32_t u = svld1ub_u32(vall(), p), half = upper ? svlsr_n_u32_x(vall(), u, 4) : svand_n_u32_x(vall(), u, 15);
    return vfloat_s32(svsub_n_s32_x(vall(), svreinterpret_s32_u32(half), 8));
}
INLINE void vprefetch(const void *p) { __builtin_prefetch(p, 0, 2); }

/* Pairs of lanes as one. */
#define SVE_PAIRS(a) svreinterpret_f64_f32(a)
/* In every four lanes: the sums of lanes 0 and 2, and of 1 and 3, of a, then the same of b. */
INLINE vf vsum_pairs(vf a, vf b)
{
    return vadd(svreinterpret_f32_f64(svtrn1_f64(SVE_PAIRS(a), SVE_PAIRS(b))), svreinterpret_f32_f64(svtrn2_f64(SVE_PAIRS(a), SVE_PAIRS(b))));
}
/* Sums of neighbours: of lanes, of pairs of lanes. */
INLINE vf vsum_lanes(vf a, vf b) { return vadd(svuzp1_f32(a, b), svuzp2_f32(a, b)); }
INLINE vf vsum_fours(vf a, vf b)
{
    return vadd(svreinterpret_f32_f64(svuzp1_f64(SVE_PAIRS(a), SVE_PAIRS(b))), svreinterpret_f32_f64(svuzp2_f64(SVE_PAIRS(a), SVE_PAIRS(b))));
}
/* to[i]: sum over the 16 lanes of x[i]. Fours first, the two of a pair of rows side by side; then (as far as a vector holds several) fours of one row. */
INLINE void vtree16(vf (*x)[16 / VW], float *to)
{
    enum { N = 16 / VW };
    vf sum[N][4];
    UNROLL for (int n = 0; n < N; n++) {
        vf pairs[8];
        UNROLL for (int i = 0; i < 8; i++) pairs[i] = vsum_pairs(x[2 * i][n], x[2 * i + 1][n]);
        UNROLL for (int i = 0; i < 4; i++) sum[n][i] = vsum_lanes(pairs[2 * i], pairs[2 * i + 1]);
        UNROLL for (int rows = 4; rows < VW; rows *= 2)
            UNROLL for (int i = 0; i < 8 / rows; i++) sum[n][i] = vsum_fours(sum[n][2 * i], sum[n][2 * i + 1]);
    }
    UNROLL for (int i = 0; i < N; i++) {
#if VW == 4
        vstore(to + 4 * i, vadd(vadd(sum[0][i], sum[1][i]), vadd(sum[2][i], sum[3][i])));
#elif VW == 8
        vstore(to + 8 * i, vadd(sum[0][i], sum[1][i]));
#else
        vstore(to, sum[0][0]);
#endif
    }
}

#include "simd_functions.h"
#endif
