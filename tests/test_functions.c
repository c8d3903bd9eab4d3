/* SPDX-License-Identifier: MIT
 * test_functions.c - the CPU's own exp2, exp and softcap, of every instruction set that this machine has, against libm in double: every float where
 * HEED_TEST_EXHAUSTIVE is set (three minutes), every 251st else.
 *
 * Largest errors over every float, on x86-64 with AVX-512: exp2 0.952 ulp, exp 1.048, tanh 1.391, softcap_50 2.854, the same bits from scalar, avx2 and avx512;
 * with two roundings in vfma (vector) 1.227, 1.341, 1.421 and 2.958. No value that has to be exact was wrong. libm's own error is 2^-29 of these units.
 */
#include "counting.h"
#include "cpu/cpu.h"
#include "functions.h"
#include <math.h>

static const struct {
    uint32_t isa;
    const struct functions *functions;
} sets[] = {
    {ISA_SCALAR, &functions_scalar}, {ISA_VECTOR, &functions_vector},
#if defined(__x86_64__)
    {ISA_AVX2, &functions_avx2}, {ISA_AVX512, &functions_avx512},
#elif defined(__aarch64__)
    {ISA_NEON, &functions_neon},
#endif
#if defined(HEED_SVE)
    {ISA_SVE128, &functions_sve128}, {ISA_SVE256, &functions_sve256}, {ISA_SVE512, &functions_sve512},
#endif
#if defined(HEED_RVV)
    {ISA_RVV128, &functions_rvv128}, {ISA_RVV256, &functions_rvv256},
#endif
};
enum { SETS = sizeof sets / sizeof *sets, BLOCK = 4096 };

static uint32_t bits_of(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static float float_of(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* |got - want| in units of the last place of want as a normal float: 2^(exponent - 23). */
static double ulps(float got, double want)
{
    uint64_t u, scale;
    double factor;
    memcpy(&u, &want, sizeof u);
    const int exponent = (int)(u >> 52 & 2047) - 1023;
    scale = (uint64_t)(1023 + 23 - (exponent < -126 ? -126 : exponent)) << 52;
    memcpy(&factor, &scale, sizeof factor);
    return fabs((double)got - want) * factor;
}

/* ---- ranges of bit patterns ----------------------------------------------------------- */

enum want { NUMBER, ZERO, ONE, MINUS_ONE, FIFTY, MINUS_FIFTY, A_NAN };

struct range {
    uint32_t first, last; /* patterns, both included */
    enum want want;
};

struct worst {
    double ulps;
    float at;
    int64_t wrong; /* of what has to be exact */
};

typedef void over(const float *x, float *to, int count);
typedef double exact(double x);

static bool is_right(enum want want, float got)
{
    switch (want) {
    case ZERO: return bits_of(got) == 0;
    case ONE: return got == 1;
    case MINUS_ONE: return got == -1;
    case FIFTY: return got == 50;
    case MINUS_FIFTY: return got == -50;
    case A_NAN: return isnan(got);
    default: return false;
    }
}

static struct worst judge(const struct range *range, const float *x, const float *got, const double *want, int n)
{
    struct worst worst = {0};
    for (int i = 0; i < n; i++) {
        if (range->want != NUMBER) {
            worst.wrong += !is_right(range->want, got[i]);
            continue;
        }
        const double error = ulps(got[i], want[i]);
        if (!(error <= worst.ulps)) worst.ulps = error, worst.at = x[i];
    }
    return worst;
}

static void add(struct worst *all, const struct worst *block)
{
    if (!(block->ulps <= all->ulps)) all->ulps = block->ulps, all->at = block->at;
    all->wrong += block->wrong;
}

/* Adds to worst[set] and returns how many floats were tried. Most sets give the scalar one's bits, and then its errors. */
static int64_t walk(const struct range *range, over *const functions[SETS], exact *f, uint32_t step, struct worst worst[SETS])
{
    static float x[BLOCK], got[SETS][BLOCK];
    static double want[BLOCK];
    int64_t tried = 0;
    for (uint64_t first = range->first; first <= range->last;) {
        struct worst block[SETS];
        int n = 0;
        for (; n < BLOCK && first <= range->last; n++, first += step) x[n] = float_of((uint32_t)first);
        for (int i = n; i % 16; i++) x[i] = x[0];
        for (int i = 0; i < n && range->want == NUMBER; i++) want[i] = f((double)x[i]);
        for (int set = 0; set < SETS; set++) {
            if (!functions[set]) continue;
            functions[set](x, got[set], (n + 15) / 16 * 16);
            block[set] = set && !memcmp(got[set], got[0], sizeof *x * (size_t)n) ? block[0] : judge(range, x, got[set], want, n);
            add(&worst[set], &block[set]);
        }
        tried += n;
    }
    /* the last pattern of a range is its edge: with a step it would be missed */
    return step > 1 ? tried + walk(&(struct range){range->last, range->last, range->want}, functions, f, 1, worst) : tried;
}

/* ---- one function ----------------------------------------------------------------------- */

static over *of_set(const struct functions *functions, char which)
{
    return which == '2' ? functions->exp2 : which == 'e' ? functions->exp : which == 'n' ? functions->exp_near : which == 't' ? functions->tanh : functions->softcap_50;
}

static void hold(const char *name, char which, exact *f, const struct range *ranges, int count, const double limit[2])
{
    const uint32_t isa = cpu_isa_present(), step = getenv("HEED_TEST_EXHAUSTIVE") ? 1 : 251;
    over *functions[SETS];
    struct counts counts = {0};
    struct worst worst[SETS] = {{0}};
    int64_t tried = 0;
    char text[200];
    for (int set = 0; set < SETS; set++) functions[set] = isa & sets[set].isa ? of_set(sets[set].functions, which) : NULL;
    for (int n = 0; n < count; n++) tried += walk(&ranges[n], functions, f, step, worst);
    for (int set = 0; set < SETS; set++) {
        if (!functions[set]) {
            fprintf(stderr, "skipped: %s of %s: not on this machine\n", name, sets[set].functions->name);
            counts.skipped++;
            continue;
        }
        const double most = limit[!sets[set].functions->fused];
        snprintf(text, sizeof text, "test_functions.c: %s of %s: %.3f ulp at %a (at most %g), %lld values wrong that have to be exact, of %lld", name,
                 sets[set].functions->name, worst[set].ulps, (double)worst[set].at, most, (long long)worst[set].wrong, (long long)tried);
        count_check(&counts, worst[set].ulps <= most && worst[set].wrong == 0, text);
        if (getenv("HEED_TEST_EXHAUSTIVE")) fprintf(stderr, "%s\n", text + strlen("test_functions.c: "));
    }
    count_end(&counts);
}

#define MINUS 0x80000000u
#define INF 0x7f800000u
/* All NaNs of both signs. */
#define NANS {INF + 1, INF | 0x7fffff, A_NAN}, {(MINUS | INF) + 1, MINUS | INF | 0x7fffff, A_NAN}

/* x <= 0: down to -126 within the limit, below exactly 0, -infinity too. 0xc2fc0000 is -126, 0xc2aeac4f is -87.33654, ln 2^-126. */
Test(functions, exp2, .timeout = 3600)
{
    static const struct range ranges[] = {{0, 0, ONE}, {MINUS, MINUS, ONE}, {MINUS, 0xc2fc0000u, NUMBER}, {0xc2fc0001u, MINUS | INF, ZERO}, NANS};
    hold("exp2", '2', exp2, ranges, 6, (const double[]){1.0, 1.3});
}

Test(functions, exp, .timeout = 3600)
{
    static const struct range ranges[] = {{0, 0, ONE}, {MINUS, MINUS, ONE}, {MINUS, 0xc2aeac4fu, NUMBER}, {0xc2aeac50u, MINUS | INF, ZERO}, NANS};
    hold("exp", 'e', exp, ranges, 6, (const double[]){1.1, 1.4}); /* EXP_ULP of simd_functions.h, which rows declare */
}

/* For weights that become bf16. */
Test(functions, exp_near, .timeout = 3600)
{
    static const struct range ranges[] = {{0, 0, ONE}, {MINUS, MINUS, ONE}, {MINUS, 0xc2aeac4fu, NUMBER}, {0xc2aeac50u, MINUS | INF, ZERO}, NANS};
    hold("exp_near", 'n', exp, ranges, 6, (const double[]){64, 128}); /* EXP_NEAR_ULP; the rows that use it are fused */
}

/* tanh of a small x is x - x^3 / 3, far within a double: libm would take most of the time for the smallest ones. */
static double tanh_plain(double x) { return fabs(x) < 0x1p-12 ? x - x * x * x / 3 : tanh(x); }

/* Every float: exactly 1 from 9.1 on (0x4111999a), where 1 - tanh is less than half a unit. */
Test(functions, tanh, .timeout = 3600)
{
    static const struct range ranges[] = {{0, 0x41119999u, NUMBER}, {0x4111999au, INF, ONE}, {MINUS, MINUS | 0x41119999u, NUMBER},
                                          {MINUS | 0x4111999au, MINUS | INF, MINUS_ONE}, NANS};
    hold("tanh", 't', tanh_plain, ranges, 6, (const double[]){2.0, 2.0}); /* TANH_ULP */
}

static double softcap_50_plain(double x) { return 50 * tanh_plain(x / 50); }

/* The quotient x / 50 is a product with a rounded 1 / 50. Exactly 50 from 9.1 * 50 on (0x43e38000). */
Test(functions, softcap_50, .timeout = 3600)
{
    static const struct range ranges[] = {{0, 0x43e37fffu, NUMBER}, {0x43e38000u, INF, FIFTY}, {MINUS, MINUS | 0x43e37fffu, NUMBER},
                                          {MINUS | 0x43e38000u, MINUS | INF, MINUS_FIFTY}, NANS};
    hold("softcap_50", 'c', softcap_50_plain, ranges, 6, (const double[]){4.0, 4.0});
}
