/* SPDX-License-Identifier: MIT
 * simd_vector.h - the vector language with 4 lanes in the compiler's own vectors of 16 bytes, for any machine that no other simd_*.h knows:
 * x86 before AVX2, POWER, IBM Z, RISC-V, LoongArch. Either byte order. The words are explained in simd_scalar.h.
 *
 * vfma is a true fma where the target's instructions have one, and then f32 results have the bits of every other instruction set. SSE2 has
 * none: there vfma multiplies and adds with two roundings, VEC_FUSED is 0, and the rows state another order of arithmetic and a wider error of
 * exp. The bits of the others by way of double would cost 6 (prefill) to 9 (decode) times the time; against the scalar rows, whose fma is a call
 * of the C library there, these are 18 to 27 times faster (Zen 4, "hq8 d64 q512 kv512 causal" and "hq8 hk2 d128 q1 kv4096").
 */
#ifndef HEED_SIMD_VECTOR_H
#define HEED_SIMD_VECTOR_H

/* Older compilers say nothing, but these targets all have it. */
#if defined(__FP_FAST_FMAF) || defined(__FMA__) || defined(__aarch64__) || defined(__powerpc64__) || defined(__s390x__) || defined(__riscv_flen) || \
    defined(__loongarch_frlen)
#define VEC_FUSED 1
#else
#define VEC_FUSED 0
#endif
#include "simd_common.h"
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define VEC_NAME "vector"
#define VW 4
#if defined(__x86_64__) || defined(__i386__) || (defined(__riscv) && !defined(__riscv_vector)) /* there: 32 of one float */
#define VEC_REGISTERS 16
#else
#define VEC_REGISTERS 32
#endif
typedef float vf __attribute__((vector_size(16)));
typedef int32_t vm __attribute__((vector_size(16))); /* all bits of a lane set or clear */
typedef uint32_t vu __attribute__((vector_size(16)));
typedef uint16_t vu16 __attribute__((vector_size(8)));

#if defined(__clang__)
#define PICK(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define PICK(a, b, i, j, k, l) __builtin_shuffle(a, b, (vm){i, j, k, l})
#endif

INLINE vu vset1_u(uint32_t x) { return (vu){x, x, x, x}; }
INLINE vf vset1(float x) { return (vf){x, x, x, x}; }

INLINE vf vload(const float *p)
{
    vf a;
    memcpy(&a, p, sizeof a);
    return a;
}
INLINE vf vload_n(const float *p, int n)
{
    if (n >= VW) return vload(p);
    return (vf){n > 0 ? p[0] : 0, n > 1 ? p[1] : 0, n > 2 ? p[2] : 0, 0};
}
INLINE void vstore(float *p, vf a) { memcpy(p, &a, sizeof a); }
INLINE void vstore_n(float *p, vf a, int n)
{
    if (n >= VW) {
        vstore(p, a);
        return;
    }
    if (n > 0) p[0] = a[0];
    if (n > 1) p[1] = a[1];
    if (n > 2) p[2] = a[2];
}

/* Four elements of 16 or 8 bits, one to a lane. */
INLINE vu vload_u16(const uint16_t *p)
{
    vu16 h;
    memcpy(&h, p, sizeof h);
    return __builtin_convertvector(h, vu);
}
INLINE vu vload_u16_n(const uint16_t *p, int n)
{
    if (n >= VW) return vload_u16(p);
    return (vu){n > 0 ? p[0] : 0, n > 1 ? p[1] : 0, n > 2 ? p[2] : 0, 0};
}
INLINE vu vload_bytes(const uint8_t *p) { return (vu){p[0], p[1], p[2], p[3]}; }
INLINE vu vload_bytes_n(const uint8_t *p, int n)
{
    if (n >= VW) return vload_bytes(p);
    return (vu){n > 0 ? p[0] : 0, n > 1 ? p[1] : 0, n > 2 ? p[2] : 0, 0};
}

/* Lane n <-> bit n. */
INLINE vm vm_of_bits(uint32_t bits) { return (vm)((vset1_u(bits) & (vu){1, 2, 4, 8}) != 0); }
INLINE uint32_t bits_of_vm(vm a)
{
#if defined(__SSE2__)
    return (uint32_t)_mm_movemask_ps((__m128)a);
#else
    const vm b = a & (vm){1, 2, 4, 8};
    return (uint32_t)(b[0] | b[1] | b[2] | b[3]);
#endif
}

INLINE void vstore_u16_n(uint16_t *p, vu a, int n)
{
    const vu16 h = __builtin_convertvector(a, vu16);
    if (n >= VW) {
        memcpy(p, &h, sizeof h);
        return;
    }
    for (int i = 0; i < n; i++) p[i] = h[i];
}

#include "simd_compiled.h"

/* f16 in the lower halves of lanes. A denormal with a hidden bit put in front lies in [2^-14, 2^-13), and taking 2^-14 off again is exact. */
INLINE vf vwiden_f16(vu h)
{
    const vu code = h & 0x7fff, wide = code << 13, sign = (h & 0x8000) << 16;
    const vu small = (vu)((vf)(wide + (113u << 23)) - vset1(0x1p-14f));
    const vu finite = vchoose((vm)(code < 0x400), small, wide + (112u << 23));
    const vu special = wide | 0x7f800000u | ((vu)(code > 0x7c00) & 0x400000u); /* NaN becomes quiet */
    return (vf)(sign | vchoose((vm)(code >= 0x7c00), special, finite));
}
INLINE vf vload_i8(const int8_t *p) { return vfloat((vm){p[0], p[1], p[2], p[3]}); }

#if VEC_FUSED && defined(__FMA__)
#include <immintrin.h>
INLINE vf vfma(vf a, vf b, vf c) { return _mm_fmadd_ps(a, b, c); }
#elif VEC_FUSED
INLINE vf vfma(vf a, vf b, vf c)
{
    vf r;
    UNROLL for (int i = 0; i < VW; i++) r[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return r;
}
#else
INLINE vf vfma(vf a, vf b, vf c) { return a * b + c; }
#endif
#if defined(__SSE2__)
INLINE vf vmax(vf a, vf b) { return _mm_max_ps(a, b); }
INLINE vf vmin(vf a, vf b) { return _mm_min_ps(a, b); }
#else
INLINE vf vmax(vf a, vf b) { return vselect((vm)(a > b), a, b); }
INLINE vf vmin(vf a, vf b) { return vselect((vm)(a < b), a, b); }
#endif

INLINE vf vscale_exp(vf p, vf z, vf x, float low)
{
    const vu n = (vu)(x >= vset1(low)) & (vu)z << 23;
    return (vf)(~(vu)(x < vset1(low)) & ((vu)p + n));
}

INLINE void vtranspose(vf *r)
{
    const vf a = PICK(r[0], r[1], 0, 4, 1, 5), b = PICK(r[0], r[1], 2, 6, 3, 7);
    const vf c = PICK(r[2], r[3], 0, 4, 1, 5), d = PICK(r[2], r[3], 2, 6, 3, 7);
    r[0] = PICK(a, c, 0, 1, 4, 5);
    r[1] = PICK(a, c, 2, 3, 6, 7);
    r[2] = PICK(b, d, 0, 1, 4, 5);
    r[3] = PICK(b, d, 2, 3, 6, 7);
}

/* Each of four rows to (0 + 2) + (1 + 3) of its lanes. */
INLINE vf vtree4(vf a, vf b, vf c, vf d)
{
    const vf x = PICK(a, b, 0, 1, 4, 5) + PICK(a, b, 2, 3, 6, 7), y = PICK(c, d, 0, 1, 4, 5) + PICK(c, d, 2, 3, 6, 7);
    return PICK(x, y, 0, 2, 4, 6) + PICK(x, y, 1, 3, 5, 7);
}
/* to[i]: sum over the 16 lanes of x[i]. */
INLINE void vtree16(vf (*x)[4], float *to)
{
    UNROLL for (int i = 0; i < 16; i += 4) {
        vf four[4];
        UNROLL for (int n = 0; n < 4; n++) four[n] = vtree4(x[i][n], x[i + 1][n], x[i + 2][n], x[i + 3][n]);
        vstore(to + i, (four[0] + four[1]) + (four[2] + four[3]));
    }
}

#include "simd_functions.h"
#endif
