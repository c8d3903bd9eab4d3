/* SPDX-License-Identifier: MIT
 * simd_rvv.h - the vector language with 4 or 8 lanes (RISC-V's V 1.0 with vectors of 128 or 256 bits). The words are explained in simd_scalar.h.
 *
 * A vector has the size that -mrvv-vector-bits names, so that tiles can be arrays of vectors; the code is right on machines with vectors of exactly that
 * size (features.c asks). Arithmetic is written for the compiler's own vectors, where a broadcast becomes the scalar operand of the instruction; memory
 * and truths in intrinsics, which touch n elements without a detour.
 */
#ifndef HEED_SIMD_RVV_H
#define HEED_SIMD_RVV_H
#include "simd_common.h"
#include <riscv_vector.h>

#define RVV_TEXT_(bits) "rvv" #bits
#define RVV_TEXT(bits) RVV_TEXT_(bits)
#define VEC_NAME RVV_TEXT(__riscv_v_fixed_vlen)
#define VW (__riscv_v_fixed_vlen / 32)
#define VEC_REGISTERS 32
typedef float vf __attribute__((vector_size(4 * VW)));
typedef int32_t vm __attribute__((vector_size(4 * VW))); /* all bits of a lane set or clear */
typedef uint32_t vu __attribute__((vector_size(4 * VW)));
typedef vfloat32m1_t rvv_f __attribute__((riscv_rvv_vector_bits(__riscv_v_fixed_vlen)));
typedef vuint32m1_t rvv_u __attribute__((riscv_rvv_vector_bits(__riscv_v_fixed_vlen)));

/* Between the compiler's vectors and those of the intrinsics: the same register. */
INLINE vf vof_f(rvv_f a)
{
    vf r;
    memcpy(&r, &a, sizeof r);
    return r;
}
INLINE vu vof_u(rvv_u a)
{
    vu r;
    memcpy(&r, &a, sizeof r);
    return r;
}
INLINE rvv_f vto_f(vf a)
{
    rvv_f r;
    memcpy(&r, &a, sizeof r);
    return r;
}
INLINE rvv_u vto_u(vu a)
{
    rvv_u r;
    memcpy(&r, &a, sizeof r);
    return r;
}

#if VW == 4
#define RVV_LANES(x) {x, x, x, x}
#define RVV_PLACES ((vu){1, 2, 4, 8})
#define RVV_ZIP_LOW(a, b) __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define RVV_ZIP_HIGH(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#else
#define RVV_LANES(x) {x, x, x, x, x, x, x, x}
#define RVV_PLACES ((vu){1, 2, 4, 8, 16, 32, 64, 128})
#define RVV_ZIP_LOW(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define RVV_ZIP_HIGH(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#endif

INLINE vu vset1_u(uint32_t x) { return (vu)RVV_LANES(x); }
INLINE vf vset1(float x) { return (vf)RVV_LANES(x); }

INLINE vf vload(const float *p) { return vof_f(__riscv_vle32_v_f32m1(p, VW)); }
INLINE vf vload_n(const float *p, int n) { return vof_f(__riscv_vle32_v_f32m1_tu(__riscv_vfmv_v_f_f32m1(0, VW), p, (size_t)n)); }
INLINE void vstore(float *p, vf a) { __riscv_vse32_v_f32m1(p, vto_f(a), VW); }
INLINE void vstore_n(float *p, vf a, int n) { __riscv_vse32_v_f32m1(p, vto_f(a), (size_t)n); }

/* Elements of 16 or 8 bits, one to a lane. */
INLINE vu vload_u16(const uint16_t *p) { return vof_u(__riscv_vzext_vf2_u32m1(__riscv_vle16_v_u16mf2(p, VW), VW)); }
INLINE vu vload_u16_n(const uint16_t *p, int n)
{
    return vof_u(__riscv_vzext_vf2_u32m1(__riscv_vle16_v_u16mf2_tu(__riscv_vmv_v_x_u16mf2(0, VW), p, (size_t)n), VW));
}
INLINE vu vload_bytes(const uint8_t *p) { return vof_u(__riscv_vzext_vf4_u32m1(__riscv_vle8_v_u8mf4(p, VW), VW)); }
INLINE vu vload_bytes_n(const uint8_t *p, int n)
{
    return vof_u(__riscv_vzext_vf4_u32m1(__riscv_vle8_v_u8mf4_tu(__riscv_vmv_v_x_u8mf4(0, VW), p, (size_t)n), VW));
}

/* Lane n <-> bit n. */
INLINE vm vm_of_bits(uint32_t bits) { return (vm)((vset1_u(bits) & RVV_PLACES) != 0); }
INLINE uint32_t bits_of_vm(vm a)
{
    const vbool32_t m = __riscv_vmsne_vx_u32m1_b32(vto_u((vu)a), 0, VW);
    return __riscv_vmv_x_s_u32m1_u32(__riscv_vreinterpret_v_b32_u32m1(m)) & ((1u << VW) - 1);
}

INLINE void vstore_u16_n(uint16_t *p, vu a, int n)
{
    __riscv_vse16_v_u16mf2(p, __riscv_vncvt_x_x_w_u16mf2(vto_u(a), VW), (size_t)n);
}

/* By masks: of what and, or and not say clang 19 makes pieces in general registers. */
#define VEC_OWN_SELECT
INLINE vf vmerged(vbool32_t m, vf a, vf b) { return vof_f(__riscv_vmerge_vvm_f32m1(vto_f(b), vto_f(a), m, VW)); }
INLINE vf vselect(vm m, vf a, vf b) { return vmerged(__riscv_vmsne_vx_u32m1_b32(vto_u((vu)m), 0, VW), a, b); }
INLINE vf vmax(vf a, vf b) { return vmerged(__riscv_vmfgt_vv_f32m1_b32(vto_f(a), vto_f(b), VW), a, b); }
INLINE vf vmin(vf a, vf b) { return vmerged(__riscv_vmflt_vv_f32m1_b32(vto_f(a), vto_f(b), VW), a, b); }

#include "simd_compiled.h"

/* f16 in the lower halves of lanes. As the upper bits of a float the code is a number 2^112 too small, denormal or not, and the product is exact. */
INLINE vf vwiden_f16(vu h)
{
    const vu wide = (h & 0x7fff) << 13, sign = (h & 0x8000) << 16;
    const vu special = wide | 0x7f800000u | ((vu)(wide > 0x7c00u << 13) & 0x400000u); /* NaN becomes quiet */
    return (vf)(sign | vchoose((vm)(wide >= 0x7c00u << 13), special, (vu)((vf)wide * vset1(0x1p112f))));
}
INLINE vf vload_i8(const int8_t *p) { return vfloat((vm)(vload_bytes((const uint8_t *)p) << 24) >> 24); }

INLINE vf vfma(vf a, vf b, vf c)
{
#if defined(__clang__)
    return __builtin_elementwise_fma(a, b, c);
#else
    vf r;
    UNROLL for (int i = 0; i < VW; i++) r[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return r;
#endif
}
INLINE vf vscale_exp(vf p, vf z, vf x, float low)
{
    const vu n = (vu)(x >= vset1(low)) & (vu)z << 23;
    return vmerged(__riscv_vmflt_vf_f32m1_b32(vto_f(x), low, VW), vset1(0), (vf)((vu)p + n));
}

/* One perfect shuffle of all rows after the other; a shuffle is a widening sum and a widening multiply-add. */
INLINE void vtranspose(vf *r)
{
    vf t[VW];
    UNROLL for (int half = 1; half < VW; half *= 2) {
        UNROLL for (int i = 0; i < VW / 2; i++) {
            t[2 * i] = RVV_ZIP_LOW(r[i], r[i + VW / 2]);
            t[2 * i + 1] = RVV_ZIP_HIGH(r[i], r[i + VW / 2]);
        }
        UNROLL for (int i = 0; i < VW; i++) r[i] = t[i];
    }
}

/* to[i]: sum over the 16 lanes of x[i]. VW rows at a time: transposed, the sums run from register to register. */
INLINE void vtree16(vf (*x)[16 / VW], float *to)
{
    UNROLL for (int i = 0; i < 16; i += VW) {
        vf sum[16 / VW]; /* of the lanes of one vector of each row */
        UNROLL for (int v = 0; v < 16 / VW; v++) {
            vf t[VW], four[VW / 4];
            UNROLL for (int n = 0; n < VW; n++) t[n] = x[i + n][v];
            vtranspose(t);
            UNROLL for (int n = 0; n < VW / 4; n++) four[n] = (t[4 * n] + t[4 * n + 2]) + (t[4 * n + 1] + t[4 * n + 3]);
            sum[v] = VW == 8 ? four[0] + four[VW / 4 - 1] : four[0];
        }
        vstore(to + i, VW == 8 ? sum[0] + sum[1] : (sum[0] + sum[1]) + (sum[16 / VW - 2] + sum[16 / VW - 1]));
    }
}

#include "simd_functions.h"
#endif
