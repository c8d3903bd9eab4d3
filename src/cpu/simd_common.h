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
