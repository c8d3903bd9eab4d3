/* SPDX-License-Identifier: MIT
 * test_agree.c - the table tests itself: every row of every device against every line of tests/problems, each element inside its bound, no
 * byte touched that is not the row's, the same bits again. One Criterion test per instruction set (or OpenCL) and file.
 */
#include "counting.h"

static struct problem_line *read_problems(const char *name, int32_t *count)
{
    char path[1024], why[256] = "";
    snprintf(path, sizeof path, "%s/tests/problems/%s.txt", HEED_SOURCE_DIR, name);
    struct problem_line *lines = lines_read(path, count, why, sizeof why);
    cr_assert(lines != NULL, "%s", why);
    return lines;
}

static void check_row(heed_context *context, int32_t device, const char *device_name, const char *kernel, const struct problem_line *lines,
                      int32_t count, struct counts *counts)
{
    for (int32_t n = 0; n < count && !test_is_over(counts); n++) {
        struct outcome outcome;
        line_check(context, device, kernel, &lines[n], &outcome);
        count_outcome(counts, device_name, kernel, lines[n].text, &outcome);
    }
}

/* Rows of one instruction set: those with its name, and with the scalar ones the reference. best: rows of any other name too, and the
 * planner's own choice. */
static bool row_belongs(const char *row, const char *isa)
{
    char part[32];
    snprintf(part, sizeof part, "cpu.%s.", isa);
    if (!strcmp(row, "reference")) return !strcmp(isa, "scalar");
    if (strcmp(isa, "best")) return !strncmp(row, part, strlen(part));
    return strncmp(row, "cpu.scalar.", 11) && strncmp(row, "cpu.vector.", 11) && strncmp(row, "cpu.avx2.", 9) && strncmp(row, "cpu.avx512.", 11);
}

/* Rows of one set on the CPU. Are there others that only a cap at their set opens (avx512bf16 where its dots are slow)? */
static bool agree_rows(const char *isa, const char *problems, struct counts *counts)
{
    heed_context *context = NULL;
    int32_t count;
    const bool best = !strcmp(isa, "best");
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = 2, .flags = HEED_NO_OPENCL | HEED_NO_ENVIRONMENT,
                                          .cpu_features = best ? NULL : isa};
    struct problem_line *lines = read_problems(problems, &count);
    if (heed_context_create(&options, &context) != HEED_OK) {
        counts->skipped += count;
        fprintf(stderr, "skipped: cpu.%s: %s\n", isa, heed_error_message());
    }
    const char *row;
    for (int32_t n = 0; context && (row = device_row(context, 0, n)); n++)
        if (row_belongs(row, isa)) check_row(context, 0, "cpu", row, lines, count, counts);
    if (context && best) check_row(context, 0, "cpu", NULL, lines, count, counts);
    const bool more = context && context->services.isa & ISA_SLOW_DOTS;
    heed_context_destroy(context);
    free(lines);
    return more;
}

static void agree_cpu(const char *isa, const char *problems)
{
    struct counts counts = {0};
    if (!test_wants_file(problems) || !test_wants_isa(isa)) return;
    if (agree_rows(isa, problems, &counts) && !strcmp(isa, "best")) agree_rows("avx512bf16", problems, &counts);
    count_end(&counts);
}

/* One row (NULL: the planner's choice) of an OpenCL device against its sample of the lines. */
static void check_sample(heed_context *context, int32_t device, const char *kernel, const char *problems, const struct problem_line *lines,
                         int32_t count, struct counts *counts)
{
    char name[32];
    int32_t left_out = 0;
    snprintf(name, sizeof name, "opencl:%d", (int)device - 1);
    for (int32_t n = 0; n < count; n++) {
        if (test_samples(kernel, problems, n))
            check_row(context, device, name, kernel, &lines[n], 1, counts);
        else
            left_out++;
    }
    count_left_out(counts, kernel, left_out);
}

/* Every row on every OpenCL device that is usable; a device that is not says why. */
static void agree_opencl(const char *problems)
{
    heed_context *context = NULL;
    struct counts counts = {0};
    int32_t count;
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = 2};
    if (!test_wants_file(problems) || !test_wants_device("opencl")) return;
    struct problem_line *lines = read_problems(problems, &count);
    cr_assert(heed_context_create(&options, &context) == HEED_OK, "%s", heed_error_message());
    const int32_t devices = heed_device_count(context);
    if (devices == 1) {
        counts.skipped = count;
        fprintf(stderr, "skipped: opencl: no OpenCL device\n");
    }
    for (int32_t device = 1; device < devices; device++) {
        const char *row;
        check_sample(context, device, NULL, problems, lines, count, &counts);
        for (int32_t n = 0; (row = device_row(context, device, n)); n++) check_sample(context, device, row, problems, lines, count, &counts);
    }
    heed_context_destroy(context);
    free(lines);
    count_end(&counts);
}

#define AGREE(file)                                                      \
    Test(agree, scalar_##file) { agree_cpu("scalar", #file); }           \
    Test(agree, vector_##file) { agree_cpu("vector", #file); }           \
    Test(agree, avx2_##file) { agree_cpu("avx2", #file); }               \
    Test(agree, avx512_##file) { agree_cpu("avx512", #file); }           \
    Test(agree, best_##file) { agree_cpu("best", #file); }               \
    Test(agree, opencl_##file) { agree_opencl(#file); }

AGREE(smoke)
AGREE(tiny)
AGREE(features)
AGREE(shapes)
AGREE(models)
AGREE(hostile)
