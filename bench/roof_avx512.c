/* SPDX-License-Identifier: MIT
 * roof_avx512.c - ceilings of AVX-512: 16 floats a register. Compiled with its own flags; called only where the CPU has them.
 */
#if defined(__AVX512F__)
#include "roof.h"
#include <immintrin.h>

#define WIDTH 16
#define VEC __m512
#define VEC_SET(x) _mm512_set1_ps(x)
#define VEC_FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define VEC_SUM(a) ((a)[0] + (a)[15])
#define WORD __m512i
#define WORD_ZERO _mm512_setzero_si512()
#define WORD_BYTES 64
#define WORD_LOAD(p) _mm512_load_si512((const void *)(p))
#define WORD_OR(a, b) _mm512_or_si512(a, b)
#define WORD_FOLD(a) (uint64_t)_mm512_reduce_or_epi64(a)
#include "roof_loops.h"

const struct roof_loops roof_avx512 = {"avx512", ISA_AVX512, FLOPS, fma_loop, read_loop};
#else
typedef int roof_avx512_is_for_x86;
#endif
