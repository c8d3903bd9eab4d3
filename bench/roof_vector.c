/* SPDX-License-Identifier: MIT
 * roof_vector.c - ceilings with the compiler's own vectors of 16 bytes, as cpu.vector and cpu.neon compute: a true fma where the target has
 * one, else a product and a sum.
 */
#include "roof.h"
#include <string.h>

typedef float vector_float __attribute__((vector_size(16)));
typedef uint64_t vector_word __attribute__((vector_size(16)));

static inline vector_float multiply_add(vector_float a, vector_float b, vector_float c)
{
#if defined(__SSE2__) && !defined(__FMA__)
    return a * b + c;
#else
    vector_float r;
    for (int i = 0; i < 4; i++) r[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return r;
#endif
}

static inline vector_word load_words(const char *p)
{
    vector_word words;
    memcpy(&words, p, sizeof words);
    return words;
}

#define WIDTH 4
#define VEC vector_float
#define VEC_SET(x) ((vector_float){x, x, x, x})
#define VEC_FMA(a, b, c) multiply_add(a, b, c)
#define VEC_SUM(a) ((a)[0] + (a)[3])
#define WORD vector_word
#define WORD_ZERO ((vector_word){0, 0})
#define WORD_BYTES 16
#define WORD_LOAD(p) load_words(p)
#define WORD_OR(a, b) ((a) | (b))
#define WORD_FOLD(a) ((a)[0] | (a)[1])
#include "roof_loops.h"

const struct roof_loops roof_vector = {"vector", ISA_VECTOR, FLOPS, fma_loop, read_loop};
