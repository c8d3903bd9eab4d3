/* SPDX-License-Identifier: MIT
 * counting.h - what every test program does with a problem line: count it, and say how to replay it when it fails. Also what the environment
 * asks of the tests: HEED_TEST_FILES (names of problem files), HEED_TEST_DEVICES (cpu, opencl), HEED_TEST_ISAS (scalar, vector, avx2, avx512, best: the
 * CPU rows of these names), HEED_TEST_FIRST (end at the first failure), HEED_TEST_ALL (every line on every OpenCL row, not a sample;
 * sixteen processes on the driver's own cache), HEED_TEST_EXHAUSTIVE (every float in test_functions.c).
 */
#ifndef HEED_COUNTING_H
#define HEED_COUNTING_H

#include "harness.h"
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

struct counts {
    int64_t passed, failed, skipped;
};

/* Is the word in the list that the variable holds? Without the variable every word is. */
static inline bool test_wants(const char *variable, const char *word)
{
    const char *list = getenv(variable);
    const size_t length = strlen(word);
    if (!list || !*list) return true;
    for (const char *at = list; (at = strstr(at, word)); at += length)
        if ((at == list || strchr(" ,", at[-1])) && (!at[length] || strchr(" ,", at[length]))) return true;
    return false;
}

static inline bool test_wants_file(const char *name) { return test_wants("HEED_TEST_FILES", name); }
static inline bool test_wants_device(const char *wing) { return test_wants("HEED_TEST_DEVICES", wing); }
static inline bool test_wants_isa(const char *isa) { return test_wants("HEED_TEST_DEVICES", "cpu") && test_wants("HEED_TEST_ISAS", isa); }
static inline bool test_is_over(const struct counts *counts) { return counts->failed > 0 && getenv("HEED_TEST_FIRST"); }

/* opencl.naive gets every line: one program serves them all. The fast OpenCL rows compile a program for each problem, one to five seconds on a CPU.
 * Without HEED_TEST_ALL what the planner chooses (kernel NULL) gets every 4th or 8th line, the rows for GPUs every 24th; smoke and tiny go to
 * all of them. What is left out is counted and named as skipped. */
static inline bool test_samples(const char *kernel, const char *file, int32_t n)
{
    if (getenv("HEED_TEST_ALL")) return true;
    const bool smoke = !strcmp(file, "smoke") || !strcmp(file, "tiny");
    const bool often = smoke || !strcmp(file, "features") || !strcmp(file, "golden") || !strcmp(file, "onnx");
    if (!kernel || !strcmp(kernel, "opencl.naive_scores")) return smoke || n % (often ? 4 : 8) == 0; /* with the same rows for attention */
    if (!strcmp(kernel, "opencl.scores_tile")) return n % 8 == 0;
    if (!strcmp(kernel, "opencl.naive")) return true;
    if (!strcmp(kernel, "opencl.prefill_cpu") || !strcmp(kernel, "opencl.decode_cpu") || !strcmp(kernel, "opencl.decode_dots") || !strcmp(kernel, "opencl.scores_cpu"))
        return false; /* what the planner chooses here; scores also on every line of opencl.naive */
    return n % 24 == 3;
}

static inline void count_left_out(struct counts *counts, const char *kernel, int32_t lines)
{
    counts->skipped += lines;
    if (lines) fprintf(stderr, "skipped: %s: not in the sample of lines (HEED_TEST_ALL=1 takes all)\n", kernel ? kernel : "(any)");
}

/* One line of the log for each failure, with the command that replays it; "skipped: " lines are gathered by script/run_tests. */
static inline void count_outcome(struct counts *counts, const char *device, const char *kernel, const char *line, const struct outcome *outcome)
{
    const char *row = kernel ? kernel : "(any)";
    /* A planted bug that admission has noticed is noticed: no skip. */
    const bool refused_bug = outcome->verdict == VERDICT_SKIP && getenv("HEED_MUTANT") && strstr(outcome->message, "wrong result in its probe");
    counts->passed += outcome->verdict == VERDICT_PASS;
    counts->failed += outcome->verdict == VERDICT_FAIL || refused_bug;
    counts->skipped += outcome->verdict == VERDICT_SKIP && !refused_bug;
    if (outcome->verdict == VERDICT_SKIP) fprintf(stderr, "skipped: %s: %s\n", row, outcome->message);
    if (outcome->verdict == VERDICT_FAIL)
        fprintf(stderr, "FAIL heed check --device %s%s%s \"%s\": %s\n", device, kernel ? " --kernel " : "", kernel ? kernel : "", line,
                outcome->message);
}

static inline void count_check(struct counts *counts, bool good, const char *what)
{
    counts->passed += good;
    counts->failed += !good;
    if (!good) fprintf(stderr, "FAIL %s\n", what);
}

/* At the end of each Criterion test. */
static inline void count_end(const struct counts *counts)
{
    counts_report(counts->passed, counts->failed, counts->skipped);
    cr_assert(counts->failed == 0, "%lld of %lld failed", (long long)counts->failed, (long long)(counts->failed + counts->passed));
}

#endif
