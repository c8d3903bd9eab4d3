/* SPDX-License-Identifier: MIT
 * test_random.c - problems that nobody thought of: random words, on every row. HEED_TEST_RANDOM sets how many (default 120), HEED_TEST_SEED
 * where they begin. Over many of them the mean error must not lean to one side (gate G2).
 */
#include "counting.h"
#include <math.h>
#include <stdarg.h>

struct words {
    char text[LINE_BYTES];
    size_t length;
    struct random random;
};

static void add(struct words *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(struct words *w, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    w->length += (size_t)vsnprintf(w->text + w->length, sizeof w->text - w->length, format, arguments);
    va_end(arguments);
}

static bool one_in(struct words *w, int32_t n) { return random_below(&w->random, n) == 0; }
static int32_t between(struct words *w, int32_t low, int32_t high) { return low + random_below(&w->random, high - low + 1); }

static const char *pick(struct words *w, const char *const *from, int32_t count) { return from[random_below(&w->random, count)]; }
#define PICK(w, list) pick(w, list, (int32_t)(sizeof list / sizeof *list))

/* Types and dimensions: block types want multiples of 32. */
static void add_types(struct words *w)
{
    static const char *const floats[] = {"f32", "f32", "f16", "bf16"}, *const caches[] = {"f32", "f16", "bf16", "i8", "q8_0", "q4_0", "f8_e4m3", "f8_e5m2"};
    static const int32_t common[] = {64, 64, 64, 32, 128, 96};
    const char *q = PICK(w, floats), *k = q, *v = q, *o = one_in(w, 3) ? PICK(w, floats) : "f32";
    if (one_in(w, 3)) k = v = PICK(w, caches);
    if (one_in(w, 8)) v = PICK(w, caches);
    const bool blocks = k[1] == '8' || k[1] == '4' || v[1] == '8' || v[1] == '4';
    const int32_t d = blocks || !one_in(w, 3) ? common[random_below(&w->random, 6)] : between(w, 1, 140);
    add(w, " d%d q=%s k=%s v=%s o=%s", (int)d, q, k, v, o);
    if (one_in(w, 8)) add(w, " dv%d", blocks ? 32 : (int)between(w, 1, 80));
}

static void add_lengths(struct words *w, bool *ragged)
{
    static const int32_t groups[] = {1, 1, 2, 3, 4, 5, 7, 8, 16}, edges[] = {96, 144, 256, 432, 480, 512}; /* of blocks and chunks of keys */
    const int32_t kv_heads = between(w, 1, 3), group = groups[random_below(&w->random, 9)];
    const int32_t q = one_in(w, 2) ? 1 : one_in(w, 2) ? between(w, 2, 9) : between(w, 10, 90);
    const int32_t kv = one_in(w, 12) ? between(w, 0, 3) : one_in(w, 6) ? edges[random_below(&w->random, 6)] + between(w, -1, 1) : one_in(w, 4) ? between(w, 200, 900) : between(w, 4, 200);
    add(w, "b%d hq%d hk%d q%d kv%d", (int)between(w, 1, 3), (int)(kv_heads * group), (int)kv_heads, (int)q, (int)kv);
    *ragged = one_in(w, 4);
    if (*ragged) add(w, " ragged");
    else if (one_in(w, 4)) add(w, " kvlens");
    if (one_in(w, 4)) add(w, " page=%d", one_in(w, 2) ? 16 : (int)between(w, 1, 70));
    else if (one_in(w, 4)) add(w, " layout=bhld");
}

static void add_visibility(struct words *w, bool ragged)
{
    static const char *const masks[] = {"mask=bool", "mask=bits"}, *const biases[] = {"bias=f32", "bias=f16", "bias=bf16"};
    static const char *const repeats[] = {"bcast=h", "bcast=q", "bcast=hq"}, *const more[] = {"bcast=b", "bcast=bh", "bcast=bhq"};
    if (!one_in(w, 3)) add(w, " causal");
    if (one_in(w, 6)) add(w, " topleft");
    if (one_in(w, 4)) add(w, " wl=%d", (int)between(w, 0, 150));
    if (one_in(w, 8)) add(w, " wr=%d", (int)between(w, 0, 60));
    if (one_in(w, 6)) add(w, " kvfirst=%d", (int)between(w, -40, 2000));
    if (one_in(w, 8)) add(w, " tree");
    else if (one_in(w, 6)) add(w, " pos=%d", (int)between(w, -60, 300));
    const bool mask = one_in(w, 4), bias = one_in(w, 4);
    if (mask) add(w, " %s", PICK(w, masks));
    if (bias) add(w, " %s", PICK(w, biases));
    if (bias && one_in(w, 3)) add(w, " biasfirst");
    if ((mask || bias) && one_in(w, 2)) add(w, " %s", ragged || one_in(w, 2) ? PICK(w, repeats) : PICK(w, more));
    if (one_in(w, 6)) add(w, " keyrange");
}

static void add_rest(struct words *w, uint64_t seed)
{
    static const char *const data[] = {"normal", "normal", "normal", "spike", "equal", "huge", "denormal", "onehot"};
    static const char *const scales[] = {"0.125", "1", "-0.3", "0.01"}, *const caps[] = {"5", "30", "0.5"};
    if (one_in(w, 4)) add(w, " scale=%s", PICK(w, scales));
    if (one_in(w, 4)) add(w, " softcap=%s", PICK(w, caps));
    if (one_in(w, 5)) add(w, " alibi");
    const bool sinks = one_in(w, 5);
    if (sinks) add(w, " sinks");
    if (!one_in(w, 5)) add(w, " lse");
    if (one_in(w, 8)) add(w, " lse2");
    if (sinks && one_in(w, 3)) add(w, " lsenosink");
    if (one_in(w, 10)) add(w, " scores=%d", (int)between(w, 0, 3));
    if (one_in(w, 10)) add(w, " invariant");
    add(w, " data=%s seed=%llu", PICK(w, data), (unsigned long long)seed);
    const bool sums = one_in(w, 4);
    if (sums) add(w, " keysums%s", one_in(w, 3) ? " sumheads" : "");
    if (sums && one_in(w, 2)) add(w, " srows=%d", (int)between(w, 1, 40));
    if (one_in(w, 12)) add(w, " scores=%d sheads=0", (int)between(w, 0, 3));
}

static struct problem_line random_line(uint64_t seed)
{
    struct words w = {.random = {seed * 7919 + 13}};
    struct problem_line line;
    char why[256] = "";
    bool ragged;
    add_lengths(&w, &ragged);
    add_types(&w);
    add_visibility(&w, ragged);
    add_rest(&w, seed % 1000 + 1);
    cr_assert(line_parse(w.text, &line, why, sizeof why), "%s: %s", w.text, why);
    return line;
}

/* ---- rows x lines ---------------------------------------------------------------------------- */

struct lean {
    double sum, squares;
    int64_t problems;
};

static void lean_add(struct lean *lean, const struct outcome *outcome)
{
    if (outcome->verdict != VERDICT_PASS || !(outcome->report.max_abs_error > 0)) return;
    const double mean = outcome->report.mean_signed_error / outcome->report.max_abs_error;
    lean->sum += mean;
    lean->squares += mean * mean;
    lean->problems++;
}

static void lean_check(const struct lean *lean, const char *row, struct counts *counts)
{
    if (lean->problems < 50) return;
    const double n = (double)lean->problems, mean = lean->sum / n, error = sqrt((lean->squares / n - mean * mean) / n);
    char what[160];
    snprintf(what, sizeof what, "%s: over %lld problems the mean error is %.2f standard errors from 0", row, (long long)lean->problems, mean / error);
    fprintf(stderr, "G2 %s\n", what);
    count_check(counts, fabs(mean) <= 4 * error, what);
}

static int32_t setting(const char *name, int32_t otherwise)
{
    const char *text = getenv(name);
    return text && *text ? (int32_t)strtol(text, NULL, 10) : otherwise;
}

static void random_rows(heed_context *context, int32_t device, const char *device_name, const char *isa, int32_t count)
{
    struct counts counts = {0};
    const int32_t seed = setting("HEED_TEST_SEED", 1);
    const char *row = NULL;
    char part[32];
    snprintf(part, sizeof part, "cpu.%s.", isa);
    for (int32_t n = -1; context && (n < 0 || (row = device_row(context, device, n))); n++) {
        const bool wanted = n < 0 || device > 0 || !strncmp(row, part, strlen(part)) || (!strcmp(row, "reference") && !strcmp(isa, "scalar"));
        struct lean lean = {0};
        for (int32_t m = 0; m < count && wanted && !test_is_over(&counts); m++) {
            const struct problem_line line = random_line((uint64_t)(seed + m));
            struct outcome outcome;
            line_check(context, device, n < 0 ? NULL : row, &line, &outcome);
            count_outcome(&counts, device_name, n < 0 ? NULL : row, line.text, &outcome);
            lean_add(&lean, &outcome);
        }
        lean_check(&lean, n < 0 ? "(any)" : row, &counts);
    }
    count_end(&counts);
}

static void random_cpu(const char *isa)
{
    heed_context *context = NULL;
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = 2, .flags = HEED_NO_OPENCL | HEED_NO_ENVIRONMENT, .cpu_features = isa};
    if (!test_wants_device("cpu")) return;
    if (heed_context_create(&options, &context) != HEED_OK) fprintf(stderr, "skipped: cpu.%s: %s\n", isa, heed_error_message());
    random_rows(context, 0, "cpu", isa, setting("HEED_TEST_RANDOM", 120));
    heed_context_destroy(context);
}

Test(random_problems, scalar) { random_cpu("scalar"); }
Test(random_problems, avx2) { random_cpu("avx2"); }
Test(random_problems, avx512) { random_cpu("avx512"); }

/* Every problem is a program to compile: few by default. */
Test(random_problems, opencl)
{
    heed_context *context = NULL;
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = 2};
    if (!test_wants_device("opencl")) return;
    cr_assert(heed_context_create(&options, &context) == HEED_OK, "%s", heed_error_message());
    if (heed_device_count(context) == 1) fprintf(stderr, "skipped: opencl: no OpenCL device\n");
    for (int32_t device = 1; device < heed_device_count(context); device++) {
        char name[32];
        snprintf(name, sizeof name, "opencl:%d", (int)device - 1);
        random_rows(context, device, name, "", setting("HEED_TEST_RANDOM", 8));
    }
    heed_context_destroy(context);
}
