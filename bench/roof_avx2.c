/* SPDX-License-Identifier: MIT
 * roof_avx2.c - ceilings of AVX2 with FMA: 8 floats a register. Compiled with its own flags; called only where the CPU has them.
 */
#if defined(__AVX2__)
#include "roof.h"
#include <immintrin.h>

#define WIDTH 8
#define VEC __m256
#define VEC_SET(x) _mm256_set1_ps(x)
#define VEC_FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define VEC_SUM(a) ((a)[0] + (a)[7])
#define WORD __m256i
#define WORD_ZERO _mm256_setzero_si256()
#define WORD_BYTES 32
#define WORD_LOAD(p) _mm256_load_si256((const __m256i *)(p))
#define WORD_OR(a, b) _mm256_or_si256(a, b)
#define WORD_FOLD(a) (uint64_t)((a)[0] | (a)[1] | (a)[2] | (a)[3])
#include "roof_loops.h"

const struct roof_loops roof_avx2 = {"avx2", ISA_AVX2, FLOPS, fma_loop, read_loop};
#else
typedef int roof_avx2_is_for_x86;
#endif
