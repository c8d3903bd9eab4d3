/* SPDX-License-Identifier: MIT
 * simd_compiled.h - words of the vector language that are C operators on the compiler's own vectors: shared by simd_vector.h and simd_rvv.h, which bring
 * vf, vm, vu, memory and the truths of lanes. The words are explained in simd_scalar.h.
 */
#ifndef HEED_SIMD_COMPILED_H
#define HEED_SIMD_COMPILED_H

INLINE vf vwiden_f16(vu h); /* by what a machine does best with denormals */

/* m ? a : b */
INLINE vu vchoose(vm m, vu a, vu b) { return ((vu)m & a) | (~(vu)m & b); }
#ifndef VEC_OWN_SELECT
INLINE vf vselect(vm m, vf a, vf b) { return (vf)vchoose(m, (vu)a, (vu)b); }
#endif
INLINE vf vfloat(vm a) { return __builtin_convertvector(a, vf); }

INLINE vf vload_f16(const uint16_t *p) { return vwiden_f16(vload_u16(p)); }
INLINE vf vload_f16_n(const uint16_t *p, int n) { return vwiden_f16(vload_u16_n(p, n)); }
INLINE vf vload_bf16(const uint16_t *p) { return (vf)(vload_u16(p) << 16); }
INLINE vf vload_bf16_n(const uint16_t *p, int n) { return (vf)(vload_u16_n(p, n) << 16); }
INLINE vf vload_i8_n(const int8_t *p, int n) { return vfloat((vm)(vload_bytes_n((const uint8_t *)p, n) << 24) >> 24); }
INLINE vf vload_u8_n(const uint8_t *p, int n) { return vfloat((vm)vload_bytes_n(p, n)); }
INLINE vf vload_bits_n(const uint8_t *p, int32_t bit, int n)
{
    const uint32_t bits = n > 0 ? (uint32_t)p[bit / 8] >> (bit % 8) & ((1u << n) - 1) : 0;
    return (vf)(vm_of_bits(bits) & (vm)vset1(1.0f));
}

/* Nearest even. Below 2^-14 the addition of 1/2 leaves the code in the low bits, rounded by the machine; above, half of the last bit is added,
 * less one where the last bit is 0, and a carry grows the exponent. */
INLINE void vstore_f16_n(uint16_t *p, vf a, int n)
{
    const vu u = (vu)a, sign = u >> 16 & 0x8000, x = u & 0x7fffffff;
    const vu normal = (x - (112u << 23) + 0xfff + (x >> 13 & 1)) >> 13, small = (vu)((vf)x + vset1(0.5f)) - (126u << 23);
    const vu special = 0x7c00 | ((vu)(x > 0x7f800000u) & (0x200 | (x >> 13 & 0x3ff)));
    const vu finite = vchoose((vm)(x < (113u << 23)), small, normal);
    vstore_u16_n(p, sign | vchoose((vm)(x >= (143u << 23)), special, finite), n);
}
INLINE void vstore_bf16_n(uint16_t *p, vf a, int n)
{
    const vu u = (vu)a, r = u + 0x7fff + (u >> 16 & 1);
    vstore_u16_n(p, vchoose((vm)(a != a), u | 0x400000, r) >> 16, n); /* NaN: quiet, kept */
}

INLINE vf vadd(vf a, vf b) { return a + b; }
INLINE vf vsub(vf a, vf b) { return a - b; }
INLINE vf vmul(vf a, vf b) { return a * b; }
INLINE vf vdiv(vf a, vf b) { return a / b; }

INLINE vf vabs(vf a) { return (vf)((vu)a & 0x7fffffffu); }
INLINE vf vcopysign(vf a, vf sign) { return (vf)(((vu)a & 0x7fffffffu) | ((vu)sign & 0x80000000u)); }

INLINE vm vlt(vf a, vf b) { return (vm)(a < b); }
INLINE vm vge(vf a, vf b) { return (vm)(a >= b); }
INLINE vm veq(vf a, vf b) { return (vm)(a == b); }
INLINE vm vne(vf a, vf b) { return (vm)(a != b); }
INLINE vm vis_minus_zero(vf a) { return (vm)((vu)a == 0x80000000u); }
INLINE vm vand(vm a, vm b) { return a & b; }
INLINE vm vor(vm a, vm b) { return a | b; }
INLINE int vany(vm a) { return bits_of_vm(a) != 0; }

/* f8 by way of f16: e5m2 is its upper half; e4m3 has three more bits of mantissa and a bias of 7, so times 2^8; its NaN, all ones, would be 480: adding one
 * carries into the bit that makes it a NaN of f16. */
INLINE vf vload_e5m2_n(const uint8_t *p, int n) { return vwiden_f16(vload_bytes_n(p, n) << 8); }
INLINE vf vload_e4m3_n(const uint8_t *p, int n)
{
    const vu x = vload_bytes_n(p, n), u = (x & 0x80) << 8 | (x & 0x7f) << 7;
    return vwiden_f16(u | ((u + 0x80) & 0x4000)) * vset1(256.0f);
}
INLINE vf vset1_f16(const void *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return vwiden_f16(vset1_u(h));
}
INLINE vf vload_nibbles(const uint8_t *p, int upper)
{
    const vu u = vload_bytes(p);
    return vfloat((vm)(upper ? u >> 4 : u & 15) - 8);
}
INLINE void vprefetch(const void *p) { __builtin_prefetch(p, 0, 2); }
#endif
