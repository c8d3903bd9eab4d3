/* SPDX-License-Identifier: MIT
 * roof_scalar.c - ceilings without vector instructions: fmaf() as the scalar rows call it, and plain words.
 */
#include "roof.h"
#include <math.h>
#include <string.h>

static inline uint64_t load_word(const char *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

#define WIDTH 1
#define VEC float
#define VEC_SET(x) (x)
#define VEC_FMA(a, b, c) fmaf(a, b, c)
#define VEC_SUM(a) (a)
#define WORD uint64_t
#define WORD_ZERO 0
#define WORD_BYTES sizeof(uint64_t)
#define WORD_LOAD(p) load_word(p)
#define WORD_OR(a, b) ((a) | (b))
#define WORD_FOLD(a) (a)
#include "roof_loops.h"

const struct roof_loops roof_scalar = {"scalar", ISA_SCALAR, FLOPS, fma_loop, read_loop};
