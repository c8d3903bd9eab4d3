/* SPDX-License-Identifier: MIT
 * dot.c - the dot product underneath attention, and what is built from it: norm, cosine, score, weighted sum.
 * In double and in order, for learning and checking; the fast products are in the kernels.
 */
#include "mutant.h"
#include "status.h"
#include <fenv.h>
#include <math.h>

/* sum_i a[i] b[i]. A product of two floats is exact in double, so only the additions round. */
__attribute__((noinline)) static double dot(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        if (MUTANT(dot_skips_last) && n > 1 && i == n - 1) break;
        sum += (double)a[i] * (double)b[i];
    }
    return sum;
}

/* The caller's rounding mode and flushing do not matter and are not changed. */
static double dot_in_default_mode(const float *a, const float *b, size_t n)
{
    fenv_t caller;
    fegetenv(&caller);
    fesetenv(FE_DFL_ENV);
    double sum = dot(a, b, n);
    fesetenv(&caller);
    return sum;
}

static bool missing(const void *a, const char *a_name, const void *b, const char *b_name, size_t n)
{
    if (n == 0 || (a && b)) return false;
    fail(HEED_INVALID_ARGUMENT, "%s is NULL and n is %zu", a ? b_name : a_name, n);
    return true;
}

double heed_dot(const float *a, const float *b, size_t n)
{
    if (missing(a, "a", b, "b", n)) return NAN;
    return dot_in_default_mode(a, b, n);
}

double heed_norm_squared(const float *a, size_t n)
{
    if (missing(a, "a", a, "a", n)) return NAN;
    return dot_in_default_mode(a, a, n);
}

/* cos = dot(a, b) / (|a| |b|). The squares of floats and their sums stay far inside double's range, so nothing overflows. */
double heed_cosine(const float *a, const float *b, size_t n)
{
    if (missing(a, "a", b, "b", n)) return NAN;
    double aa = dot_in_default_mode(a, a, n), bb = dot_in_default_mode(b, b, n);
    if (aa == 0 || bb == 0) return 0;
    return dot_in_default_mode(a, b, n) / (sqrt(aa) * sqrt(bb));
}

double heed_score(const float *q, const float *k, size_t d_k)
{
    if (missing(q, "q", k, "k", d_k)) return NAN;
    return d_k == 0 ? 0 : dot_in_default_mode(q, k, d_k) / sqrt((double)d_k);
}

double heed_weighted_sum(const float *w, const float *x, size_t n, float bias)
{
    if (missing(w, "w", x, "x", n)) return NAN;
    return dot_in_default_mode(w, x, n) + (double)bias;
}
