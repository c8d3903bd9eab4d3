/* SPDX-License-Identifier: MIT
 * simd_scalar.h - the vector language, one float wide: plain C for any machine, and the meaning of every word.
 *
 * The words (simd_avx2.h and simd_avx512.h have the same with VW = 8 and 16): each is one IEEE operation per lane, so the width never
 * shows in a result. vf: VW floats. vm: VW truths. _n: only the first n lanes, n from 0 to VW, are touched in memory; lanes behind are 0.
 */
#ifndef HEED_SIMD_SCALAR_H
#define HEED_SIMD_SCALAR_H
#include "simd_common.h"
#include "../dtype.h"

#define VEC_NAME "scalar"
#define VW 1
#define VEC_REGISTERS 16
typedef float vf;
typedef int vm;

/* memory: any element-aligned address */
INLINE vf vload(const float *p) { return *p; }
INLINE vf vload_n(const float *p, int n) { return n > 0 ? *p : 0.0f; }
INLINE void vstore(float *p, vf a) { *p = a; }
INLINE void vstore_n(float *p, vf a, int n) { if (n > 0) *p = a; }
INLINE vf vset1(float x) { return x; }

/* widening loads, exact */
INLINE vf vload_f16(const uint16_t *p) { return f16_to_f32(*p); }
INLINE vf vload_f16_n(const uint16_t *p, int n) { return n > 0 ? f16_to_f32(*p) : 0.0f; }
INLINE vf vload_bf16(const uint16_t *p) { return bf16_to_f32(*p); }
INLINE vf vload_bf16_n(const uint16_t *p, int n) { return n > 0 ? bf16_to_f32(*p) : 0.0f; }
INLINE vf vload_i8(const int8_t *p) { return (float)*p; }
INLINE vf vload_i8_n(const int8_t *p, int n) { return n > 0 ? (float)*p : 0.0f; }
INLINE vf vload_u8_n(const uint8_t *p, int n) { return n > 0 ? (float)*p : 0.0f; }
/* 1.0 where bit `bit` + lane of a row of bits is set; bit is a multiple of VW */
INLINE vf vload_bits_n(const uint8_t *p, int32_t bit, int n) { return n > 0 ? (float)(p[bit / 8] >> (bit % 8) & 1) : 0.0f; }

/* narrowing stores, nearest even, denormals kept */
INLINE void vstore_f16_n(uint16_t *p, vf a, int n) { if (n > 0) *p = f32_to_f16(a); }
INLINE void vstore_bf16_n(uint16_t *p, vf a, int n) { if (n > 0) *p = f32_to_bf16(a); }

/* arithmetic; vmax and vmin return b where a or b is NaN (as x86 does) */
INLINE vf vadd(vf a, vf b) { return a + b; }
INLINE vf vsub(vf a, vf b) { return a - b; }
INLINE vf vmul(vf a, vf b) { return a * b; }
INLINE vf vdiv(vf a, vf b) { return a / b; }
INLINE vf vfma(vf a, vf b, vf c) { return __builtin_fmaf(a, b, c); }
INLINE vf vmax(vf a, vf b) { return a > b ? a : b; }
INLINE vf vmin(vf a, vf b) { return a < b ? a : b; }
INLINE vf vabs(vf a) { return __builtin_fabsf(a); }
INLINE vf vcopysign(vf a, vf sign) { return __builtin_copysignf(a, sign); }

/* truths: false where an operand is NaN, except vne */
INLINE vm vlt(vf a, vf b) { return a < b; }
INLINE vm vge(vf a, vf b) { return a >= b; }
INLINE vm veq(vf a, vf b) { return a == b; }
INLINE vm vne(vf a, vf b) { return a != b; }
INLINE vm vis_minus_zero(vf a) { return bits_of(a) == 0x80000000u; }
INLINE vm vand(vm a, vm b) { return a & b; }
INLINE vm vor(vm a, vm b) { return a | b; }
INLINE int vany(vm a) { return a; }
INLINE vf vselect(vm m, vf a, vf b) { return m ? a : b; } /* m ? a : b */

/* p * 2^n for z = 1.5 * 2^23 + n; exactly 0 where x < low; p where x is NaN (see vexp2) */
INLINE vf vscale_exp(vf p, vf z, vf x, float low)
{
    if (x < low) return 0.0f;
    if (x >= low) return float_of(bits_of(p) + (bits_of(z) << 23));
    return p;
}

/* r[i] lane k <-> r[k] lane i */
INLINE void vtranspose(vf *r) { (void)r; }

/* f8, NaN kept; one f16 (at any even address) in every lane; the lower or upper halves of VW bytes, less 8 */
INLINE vf vload_e5m2_n(const uint8_t *p, int n) { return n > 0 ? f8_e5m2_to_f32(*p) : 0.0f; }
INLINE vf vload_e4m3_n(const uint8_t *p, int n) { return n > 0 ? f8_e4m3_to_f32(*p) : 0.0f; }
INLINE vf vset1_f16(const void *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return f16_to_f32(h);
}
INLINE vf vload_nibbles(const uint8_t *p, int upper) { return (float)((upper ? *p >> 4 : *p & 15) - 8); }

/* lane n <-> bit n; a hint that a cache line will be read */
INLINE vm vm_of_bits(uint32_t bits) { return (int)(bits & 1); }
INLINE uint32_t bits_of_vm(vm a) { return (uint32_t)a; }
INLINE void vprefetch(const void *p) { __builtin_prefetch(p, 0, 2); }

/* to[i]: sum over the 16 lanes of x[i], 16 times: within each four lanes (0 + 2) + (1 + 3), then fours (0 + 1) + (2 + 3) */
INLINE void vtree16(vf (*x)[16], float *to)
{
    for (int i = 0; i < 16; i++) {
        float four[4];
        for (int n = 0; n < 4; n++) four[n] = (x[i][4 * n] + x[i][4 * n + 2]) + (x[i][4 * n + 1] + x[i][4 * n + 3]);
        to[i] = (four[0] + four[1]) + (four[2] + four[3]);
    }
}

#include "simd_functions.h"
#endif
