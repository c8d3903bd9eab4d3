/* SPDX-License-Identifier: MIT
 * test_golden.c - the stored cases on every row that accepts them: stored bounds, the row's own bounds, other contents of hidden slots, and the
 * statistics of gate G2.
 */
#include "counting.h"
#include <math.h>

/* ---- G2 ------------------------------------------------------------------------ */

struct gate {
    uint64_t bounded, beyond_tenth;
    double worst, squares;
    double bias_sum, bias_squares; /* of the mean (got - want) / bound of each case */
    int64_t cases;
};

static void gate_add(struct gate *gate, const struct outcome *outcome, const struct stored_case *stored)
{
    const struct problem *p = &stored->instance->problem;
    if (p->o_type != HEED_F32 || outcome->bounded == 0) return;
    gate->bounded += outcome->bounded;
    gate->beyond_tenth += outcome->beyond_tenth;
    gate->squares += outcome->squared_ratio;
    if (outcome->report.worst_ratio > gate->worst) gate->worst = outcome->report.worst_ratio;
    const double mean = outcome->signed_ratio / (double)outcome->bounded;
    gate->bias_sum += mean;
    gate->bias_squares += mean * mean;
    gate->cases++;
}

/* No element above half its stored bound, 99 % at or below a tenth; the mean over cases within 4 standard errors of 0. */
static void gate_check(const struct gate *gate, const char *row, struct counts *counts)
{
    char what[160];
    if (gate->cases < 30) return;
    const double n = (double)gate->cases, mean = gate->bias_sum / n, variance = gate->bias_squares / n - mean * mean;
    const double beyond = (double)gate->beyond_tenth / (double)gate->bounded, error = sqrt(variance / n);
    snprintf(what, sizeof what, "%s: worst %.3f of a stored bound, %.3f %% beyond a tenth, bias %.2f standard errors, rms %.4f", row, gate->worst,
             100 * beyond, error > 0 ? mean / error : 0, sqrt(gate->squares / (double)gate->bounded));
    fprintf(stderr, "G2 %s\n", what);
    count_check(counts, gate->worst <= 0.5, what);
    count_check(counts, beyond <= 0.01, what);
    count_check(counts, fabs(mean) <= 4 * error + 1e-12, what);
}

/* ---- cases x rows ------------------------------------------------------------------ */

static void golden_row(heed_context *context, int32_t device, const char *device_name, const char *kernel, char **folders, int32_t count,
                       struct counts *counts)
{
    struct gate gate = {0};
    const bool opencl = !strncmp(device_name, "opencl", 6);
    int32_t left_out = 0;
    for (int32_t n = 0; n < count && !test_is_over(counts); n++) {
        if (opencl && !test_samples(kernel, "golden", n)) {
            left_out++;
            continue;
        }
        struct outcome outcome = {.verdict = VERDICT_FAIL};
        char line[1100];
        struct stored_case *stored = case_load(folders[n], n % 2 ? INSTANCE_GUARD_BEFORE : INSTANCE_GUARD_AFTER, outcome.message, sizeof outcome.message);
        if (stored) case_check(context, device, kernel, stored, &outcome);
        snprintf(line, sizeof line, "--cases %s", folders[n]);
        count_outcome(counts, device_name, kernel, line, &outcome);
        if (stored && outcome.verdict == VERDICT_PASS) gate_add(&gate, &outcome, stored);
        case_free(stored);
    }
    count_left_out(counts, kernel, left_out);
    gate_check(&gate, kernel ? kernel : "(any)", counts);
}

static bool row_belongs(const char *row, const char *isa)
{
    char part[32];
    snprintf(part, sizeof part, "cpu.%s.", isa);
    return !strncmp(row, part, strlen(part)) || (!strcmp(isa, "scalar") && !strcmp(row, "reference"));
}

static char **golden_folders(int32_t *count)
{
    char why[256] = "";
    char **folders = cases_list(HEED_BINARY_DIR "/golden", count, why, sizeof why);
    cr_assert(folders != NULL, "%s", why);
    cr_assert(*count == 239, "%d cases, expected 239", (int)*count);
    return folders;
}

static void free_folders(char **folders, int32_t count)
{
    for (int32_t n = 0; n < count; n++) free(folders[n]);
    free(folders);
}

static void golden_cpu(const char *isa)
{
    heed_context *context = NULL;
    struct counts counts = {0};
    int32_t count;
    const char *row;
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = 2, .flags = HEED_NO_OPENCL | HEED_NO_ENVIRONMENT,
                                          .cpu_features = isa};
    if (!test_wants_isa(isa)) return;
    char **folders = golden_folders(&count);
    if (heed_context_create(&options, &context) != HEED_OK) {
        counts.skipped = count;
        fprintf(stderr, "skipped: cpu.%s: %s\n", isa, heed_error_message());
    }
    for (int32_t n = 0; context && (row = device_row(context, 0, n)); n++)
        if (row_belongs(row, isa)) golden_row(context, 0, "cpu", row, folders, count, &counts);
    heed_context_destroy(context);
    free_folders(folders, count);
    count_end(&counts);
}

Test(golden, scalar) { golden_cpu("scalar"); }
Test(golden, avx2) { golden_cpu("avx2"); }
Test(golden, avx512) { golden_cpu("avx512"); }
Test(golden, avx512vbmi) { golden_cpu("avx512vbmi"); }
Test(golden, avx512bf16) { golden_cpu("avx512bf16"); }
Test(golden, amx) { golden_cpu("amx"); }

Test(golden, opencl)
{
    heed_context *context = NULL;
    struct counts counts = {0};
    int32_t count;
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = 2};
    if (!test_wants_device("opencl")) return;
    char **folders = golden_folders(&count);
    cr_assert(heed_context_create(&options, &context) == HEED_OK, "%s", heed_error_message());
    const int32_t devices = heed_device_count(context);
    if (devices == 1) {
        counts.skipped = count;
        fprintf(stderr, "skipped: opencl: no OpenCL device\n");
    }
    for (int32_t device = 1; device < devices; device++) {
        char name[32];
        const char *row;
        snprintf(name, sizeof name, "opencl:%d", (int)device - 1);
        golden_row(context, device, name, NULL, folders, count, &counts);
        for (int32_t n = 0; (row = device_row(context, device, n)); n++) golden_row(context, device, name, row, folders, count, &counts);
    }
    heed_context_destroy(context);
    free_folders(folders, count);
    count_end(&counts);
}
