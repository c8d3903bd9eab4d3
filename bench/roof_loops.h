/* SPDX-License-Identifier: MIT
 * roof_loops.h - template: twelve independent chains of multiply-add (latency 4 or 5, two a cycle), and a read of memory that only ORs.
 * The including file defines WIDTH, VEC, VEC_SET(x), VEC_FMA(a, b, c), VEC_SUM(a), WORD, WORD_ZERO, WORD_LOAD(p), WORD_OR(a, b),
 * WORD_BYTES and WORD_FOLD(a).
 */
#define TWELVE(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)

/* a = a * 0.999 + 0.001: stays near 1, never a denormal. */
static float fma_loop(int64_t turns, float seed)
{
    const VEC m = VEC_SET(0.999f), c = VEC_SET(0.001f * seed);
#define INIT(n) VEC a##n = VEC_SET(seed + (float)n);
    TWELVE(INIT)
    for (int64_t t = 0; t < turns; t++) {
#define STEP(n) a##n = VEC_FMA(a##n, m, c);
        TWELVE(STEP)
        TWELVE(STEP)
    }
    float sum = 0;
#define SUM(n) sum += VEC_SUM(a##n);
    TWELVE(SUM)
    return sum;
}

static uint64_t read_loop(const void *memory, size_t bytes)
{
    const char *p = memory;
    WORD a = WORD_ZERO, b = a, c = a, d = a;
    for (size_t n = 0; n < bytes; n += 4 * WORD_BYTES) {
        a = WORD_OR(a, WORD_LOAD(p + n));
        b = WORD_OR(b, WORD_LOAD(p + n + WORD_BYTES));
        c = WORD_OR(c, WORD_LOAD(p + n + 2 * WORD_BYTES));
        d = WORD_OR(d, WORD_LOAD(p + n + 3 * WORD_BYTES));
    }
    a = WORD_OR(WORD_OR(a, b), WORD_OR(c, d));
    return WORD_FOLD(a);
}

enum { FLOPS = 24 * 2 * WIDTH };
