/* SPDX-License-Identifier: MIT
 * simd_neon.h - the vector language with 4 lanes (Advanced SIMD of every 64-bit ARM). The words are explained in simd_scalar.h.
 */
#ifndef HEED_SIMD_NEON_H
#define HEED_SIMD_NEON_H
#include "simd_common.h"
#include <arm_neon.h>

#define VEC_NAME "neon"
#define VW 4
#define VEC_REGISTERS 32
typedef float32x4_t vf;
typedef uint32x4_t vm; /* all bits of a lane set or clear */

INLINE vf vset1(float x) { return vdupq_n_f32(x); }
INLINE vf vfloat_of(uint32x4_t u) { return vreinterpretq_f32_u32(u); }
INLINE uint32x4_t vbits_of(vf a) { return vreinterpretq_u32_f32(a); }

INLINE vf vload(const float *p) { return vld1q_f32(p); }
INLINE vf vload_n(const float *p, int n)
{
    if (n >= VW) return vload(p);
    vf a = vset1(0);
    if (n > 0) a = vld1q_lane_f32(p, a, 0);
    if (n > 1) a = vld1q_lane_f32(p + 1, a, 1);
    if (n > 2) a = vld1q_lane_f32(p + 2, a, 2);
    return a;
}
INLINE void vstore(float *p, vf a) { vst1q_f32(p, a); }

/* A float for all lanes, as a multiplication takes it: one element of a register, which a plain load brings. To spread it first (ld1r, dup) costs a slot of
 * the units that multiply, and both compilers do that where the instruction is left to them. */
#define VEC_BY_ELEMENT
typedef float vcell;
INLINE vcell vcell_of(float y) { return y; }
#ifndef CELL
INLINE vf vmac_cell(vf acc, vf x, vcell y)
{
    __asm__("fmla %0.4s, %1.4s, %2.s[0]" : "+w"(acc) : "w"(x), "w"(y));
    return acc;
}
#endif

INLINE void vstore_n(float *p, vf a, int n)
{
    if (n >= VW) {
        vstore(p, a);
        return;
    }
    if (n > 0) vst1q_lane_f32(p, a, 0);
    if (n > 1) vst1q_lane_f32(p + 1, a, 1);
    if (n > 2) vst1q_lane_f32(p + 2, a, 2);
}

/* The first n of 4 elements of 16 bits, and of 4 or fewer bytes in the lower half; the rest 0. */
INLINE uint16x4_t vload_u16_n(const uint16_t *p, int n)
{
    if (n >= VW) return vld1_u16(p);
    uint16x4_t a = vdup_n_u16(0);
    if (n > 0) a = vld1_lane_u16(p, a, 0);
    if (n > 1) a = vld1_lane_u16(p + 1, a, 1);
    if (n > 2) a = vld1_lane_u16(p + 2, a, 2);
    return a;
}
INLINE uint8x16_t vload_bytes_n(const uint8_t *p, int n)
{
    uint8x16_t a = vdupq_n_u8(0);
    if (n >= VW) {
        typedef uint32_t word __attribute__((may_alias, aligned(1)));
        /* Compilers go by way of a general register. volatile: never before the question above, as what cannot fail. */
        __asm__ volatile("ldr %s0, %1" : "=w"(a) : "m"(*(const word *)p));
        return a;
    }
    if (n > 0) a = vld1q_lane_u8(p, a, 0);
    if (n > 1) a = vld1q_lane_u8(p + 1, a, 1);
    if (n > 2) a = vld1q_lane_u8(p + 2, a, 2);
    return a;
}
INLINE uint16x4_t vlong_u8(uint8x16_t a) { return vget_low_u16(vmovl_u8(vget_low_u8(a))); }
/* Four bytes as floats: each the upper one of a lane, which counts 2^-24 then. */
INLINE vf vfloat_i8(uint8x16_t a)
{
    static const uint8_t upper[16] = {255, 255, 255, 0, 255, 255, 255, 1, 255, 255, 255, 2, 255, 255, 255, 3};
    return vcvtq_n_f32_s32(vreinterpretq_s32_u8(vqtbl1q_u8(a, vld1q_u8(upper))), 24);
}

INLINE vf vwiden_f16(uint16x4_t h) { return vcvt_f32_f16(vreinterpret_f16_u16(h)); }
INLINE vf vwiden_bf16(uint16x4_t h) { return vfloat_of(vshll_n_u16(h, 16)); }
INLINE vf vload_f16(const uint16_t *p) { return vwiden_f16(vld1_u16(p)); }
INLINE vf vload_f16_n(const uint16_t *p, int n) { return vwiden_f16(vload_u16_n(p, n)); }
INLINE vf vload_bf16(const uint16_t *p) { return vwiden_bf16(vld1_u16(p)); }
INLINE vf vload_bf16_n(const uint16_t *p, int n) { return vwiden_bf16(vload_u16_n(p, n)); }
INLINE vf vload_i8_n(const int8_t *p, int n) { return vfloat_i8(vload_bytes_n((const uint8_t *)p, n)); }
INLINE vf vload_i8(const int8_t *p) { return vload_i8_n(p, VW); }
INLINE vf vload_u8_n(const uint8_t *p, int n) { return vcvtq_f32_u32(vmovl_u16(vlong_u8(vload_bytes_n(p, n)))); }

/* Lane n <-> bit n. */
INLINE uint32x4_t vplaces(void)
{
    static const uint32_t places[4] = {1, 2, 4, 8};
    return vld1q_u32(places);
}
INLINE vm vm_of_bits(uint32_t bits) { return vtstq_u32(vdupq_n_u32(bits), vplaces()); }
INLINE uint32_t bits_of_vm(vm a) { return vaddvq_u32(vandq_u32(a, vplaces())); }
INLINE vf vload_bits_n(const uint8_t *p, int32_t bit, int n)
{
    const uint32_t bits = n > 0 ? (uint32_t)p[bit / 8] >> (bit % 8) & ((1u << n) - 1) : 0;
    return vfloat_of(vandq_u32(vm_of_bits(bits), vbits_of(vset1(1.0f))));
}

INLINE void vstore_u16_n(uint16_t *p, uint16x4_t h, int n)
{
    if (n >= VW) {
        vst1_u16(p, h);
        return;
    }
    if (n > 0) vst1_lane_u16(p, h, 0);
    if (n > 1) vst1_lane_u16(p + 1, h, 1);
    if (n > 2) vst1_lane_u16(p + 2, h, 2);
}
INLINE void vstore_f16_n(uint16_t *p, vf a, int n) { vstore_u16_n(p, vreinterpret_u16_f16(vcvt_f16_f32(a)), n); }
INLINE void vstore_bf16_n(uint16_t *p, vf a, int n)
{
    const uint32x4_t u = vbits_of(a), odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
    const uint32x4_t r = vaddq_u32(u, vaddq_u32(odd, vdupq_n_u32(0x7fff))), quiet = vorrq_u32(u, vdupq_n_u32(0x400000)); /* NaN: quiet, kept */
    vstore_u16_n(p, vshrn_n_u32(vbslq_u32(vceqq_f32(a, a), r, quiet), 16), n);
}

INLINE vf vadd(vf a, vf b) { return vaddq_f32(a, b); }
INLINE vf vsub(vf a, vf b) { return vsubq_f32(a, b); }
INLINE vf vmul(vf a, vf b) { return vmulq_f32(a, b); }
INLINE vf vdiv(vf a, vf b) { return vdivq_f32(a, b); }
INLINE vf vfma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
INLINE vf vmax(vf a, vf b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
INLINE vf vmin(vf a, vf b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
INLINE vf vabs(vf a) { return vabsq_f32(a); }
INLINE vf vcopysign(vf a, vf sign) { return vbslq_f32(vdupq_n_u32(0x80000000u), sign, a); }

INLINE vm vlt(vf a, vf b) { return vcltq_f32(a, b); }
INLINE vm vge(vf a, vf b) { return vcgeq_f32(a, b); }
INLINE vm veq(vf a, vf b) { return vceqq_f32(a, b); }
INLINE vm vne(vf a, vf b) { return vmvnq_u32(vceqq_f32(a, b)); }
INLINE vm vis_minus_zero(vf a) { return vceqq_u32(vbits_of(a), vdupq_n_u32(0x80000000u)); }
INLINE vm vand(vm a, vm b) { return vandq_u32(a, b); }
INLINE vm vor(vm a, vm b) { return vorrq_u32(a, b); }
INLINE int vany(vm a) { return vmaxvq_u32(a) != 0; }
INLINE vf vselect(vm m, vf a, vf b) { return vbslq_f32(m, a, b); }

INLINE vf vscale_exp(vf p, vf z, vf x, float low)
{
    const uint32x4_t n = vandq_u32(vcgeq_f32(x, vset1(low)), vshlq_n_u32(vbits_of(z), 23));
    return vfloat_of(vbicq_u32(vaddq_u32(vbits_of(p), n), vcltq_f32(x, vset1(low))));
}

/* Pairs of lanes as one. */
INLINE vf vlow_pairs(vf a, vf b) { return vreinterpretq_f32_f64(vtrn1q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b))); }
INLINE vf vhigh_pairs(vf a, vf b) { return vreinterpretq_f32_f64(vtrn2q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b))); }
INLINE void vtranspose(vf *r)
{
    const vf a = vtrn1q_f32(r[0], r[1]), b = vtrn2q_f32(r[0], r[1]), c = vtrn1q_f32(r[2], r[3]), d = vtrn2q_f32(r[2], r[3]);
    r[0] = vlow_pairs(a, c);
    r[1] = vlow_pairs(b, d);
    r[2] = vhigh_pairs(a, c);
    r[3] = vhigh_pairs(b, d);
}

/* f8 by way of f16: e5m2 is its upper half; e4m3 has three more bits of mantissa and a bias of 7, so times 2^8; its NaN, all ones, would be 480: adding one
 * carries into the bit that makes it a NaN of f16. */
INLINE vf vload_e5m2_n(const uint8_t *p, int n) { return vwiden_f16(vget_low_u16(vreinterpretq_u16_u8(vzip1q_u8(vdupq_n_u8(0), vload_bytes_n(p, n))))); }
INLINE vf vload_e4m3_n(const uint8_t *p, int n)
{
    const int16x4_t x = vget_low_s16(vshll_n_s8(vreinterpret_s8_u8(vget_low_u8(vload_bytes_n(p, n))), 7));
    const uint16x4_t u = vand_u16(vreinterpret_u16_s16(x), vdup_n_u16(0xbf80));
    const uint16x4_t nan = vand_u16(vadd_u16(u, vdup_n_u16(0x80)), vdup_n_u16(0x4000));
    return vmul(vwiden_f16(vorr_u16(u, nan)), vset1(256.0f));
}
INLINE vf vset1_f16(const void *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return vwiden_f16(vdup_n_u16(h));
}
INLINE vf vload_nibbles(const uint8_t *p, int upper)
{
    const uint8x16_t u = vload_bytes_n(p, VW), half = upper ? vshrq_n_u8(u, 4) : vandq_u8(u, vdupq_n_u8(15));
    return vfloat_i8(vsubq_u8(half, vdupq_n_u8(8)));
}
INLINE void vprefetch(const void *p) { __builtin_prefetch(p, 0, 2); }

/* Each of four rows to (0 + 2) + (1 + 3) of its lanes. */
INLINE vf vtree4(vf a, vf b, vf c, vf d)
{
    const vf x = vadd(vlow_pairs(a, b), vhigh_pairs(a, b)), y = vadd(vlow_pairs(c, d), vhigh_pairs(c, d));
    return vpaddq_f32(x, y);
}
/* to[i]: sum over the 16 lanes of x[i]. */
INLINE void vtree16(vf (*x)[4], float *to)
{
    UNROLL for (int i = 0; i < 16; i += 4) {
        vf four[4];
        UNROLL for (int n = 0; n < 4; n++) four[n] = vtree4(x[i][n], x[i + 1][n], x[i + 2][n], x[i + 3][n]);
        vstore(to + i, vadd(vadd(four[0], four[1]), vadd(four[2], four[3])));
    }
}

#include "simd_functions.h"
#endif
