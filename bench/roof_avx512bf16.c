/* SPDX-License-Identifier: MIT
 * roof_avx512bf16.c - the ceiling of AVX512-BF16: two products of bf16 a lane. Compiled with its own flags; called only where the CPU has them.
 */
#if defined(__AVX512BF16__)
#include "roof.h"
#include <immintrin.h>

enum { CHAINS = 12, PRODUCTS = 32 };

/* Chains that do not wait for each other, as in roof_loops.h. The sums grow by 2^-20 a turn. */
static float dots_loop(int64_t turns, float seed)
{
    const __m512bh x = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.0009765625f * seed), _mm512_setzero_ps());
    __m512 sum[CHAINS], all = _mm512_setzero_ps();
    for (int n = 0; n < CHAINS; n++) sum[n] = _mm512_set1_ps(seed + (float)n);
    for (int64_t t = 0; t < turns; t++)
        for (int n = 0; n < CHAINS; n++) sum[n] = _mm512_dpbf16_ps(sum[n], x, x);
    for (int n = 0; n < CHAINS; n++) all = _mm512_add_ps(all, sum[n]);
    return all[0] + all[15];
}

const struct roof_loops roof_avx512bf16 = {.name = "avx512bf16", .isa = ISA_AVX512BF16, .flops = 2 * CHAINS * PRODUCTS, .fma = dots_loop};
#else
typedef int roof_avx512bf16_is_for_x86;
#endif
