/* SPDX-License-Identifier: MIT
 * simd_common.h - what every simd_*.h builds on: inlining, full unrolling, bit patterns.
 */
#ifndef HEED_SIMD_COMMON_H
#define HEED_SIMD_COMMON_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Without full unrolling the accumulator arrays live on the stack and the kernels lose a factor of 2.4. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 64")
#endif
/* The value stays in a register from here on: gcc would read it again from memory at each use, and loads are what the loops lack. */
#if defined(HEED_EMULATE_AVX512)
#define KEEP(x) ((void)0) /* vectors of 16 lanes are pairs of registers here */
#elif defined(__x86_64__)
#define KEEP(x) __asm__("" : "+v"(x))
#elif defined(__aarch64__)
#define KEEP(x) __asm__("" : "+w"(x))
#else
#define KEEP(x) ((void)0)
#endif
/* The same for an address. */
#if defined(__GNUC__)
#define KEEP_ADDRESS(x) __asm__("" : "+r"(x))
#else
#define KEEP_ADDRESS(x) ((void)0)
#endif
/* What an array holds lies in memory from here on, not in registers. */
#if defined(__GNUC__)
#define KEEP_IN_MEMORY(x) __asm__("" : : "r"(x) : "memory")
#else
#define KEEP_IN_MEMORY(x) ((void)0)
#endif
/* 0 where vfma rounds twice (simd_vector.h). */
#ifndef VEC_FUSED
#define VEC_FUSED 1
#endif
#define INLINE static inline __attribute__((always_inline, unused))
#define NOINLINE static __attribute__((noinline, unused))

INLINE uint32_t bits_of(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

INLINE float float_of(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

#endif
