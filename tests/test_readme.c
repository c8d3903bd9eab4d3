/* SPDX-License-Identifier: MIT
 * test_readme.c - the README's table of features and rows is what the table of rows says; the README's programs are examples that are built.
 */
#include "harness.h"
#include "registry.h"
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static char *read_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    cr_assert(file, "%s cannot be opened", path);
    char *text = calloc(1, 1 << 20);
    cr_assert(text);
    cr_assert_gt(fread(text, 1, (1 << 20) - 1, file), 0u);
    fclose(file);
    return text;
}

#ifdef HEED_OPENCL
static const struct {
    const char *label, *words;
} features[] = {
    {"f32, f16, bf16", "f16"},
    {"i8 cache", "q=f32 kv=i8 o=f32"},
    {"q8_0 cache", "q=f32 kv=q8_0 o=f32"},
    {"q4_0 cache", "q=f32 kv=q4_0 o=f32"},
    {"f8 cache", "q=f32 kv=f8_e4m3 o=f32"},
    {"grouped heads (GQA)", "hq8 hk2"},
    {"any head_dim up to 1024", "d1021"},
    {"v_head_dim of its own", "dv17"},
    {"causal", "causal"},
    {"window", "causal wl=7"},
    {"key range", "keyrange"},
    {"mask, bytes or bits", "mask=bits"},
    {"bias", "bias=f16"},
    {"softcap", "softcap=30"},
    {"ALiBi", "alibi"},
    {"sinks", "sinks"},
    {"LSE", "lse"},
    {"paged cache", "page=16"},
    {"scores, key sums", "scores=3 keysums"},
};

static const char *const rows[] = {"cpu.scalar.decode", "cpu.scalar.prefill", "reference", "opencl.decode_cpu", "opencl.prefill_cpu",
                                   "opencl.prefill_tile", "opencl.naive"};
enum { ROWS = sizeof rows / sizeof *rows };

static const struct kernel_row *find(const char *name)
{
    const struct backend *backends[] = {&cpu_backend, &opencl_backend, NULL};
    for (int w = 0; backends[w]; w++)
        for (int32_t n = 0; registry_row(backends[w], n); n++)
            if (!strcmp(registry_row(backends[w], n)->name, name)) return registry_row(backends[w], n);
    return NULL;
}

static bool does(const struct kernel_row *row, const char *words)
{
    heed_desc desc;
    struct problem problem;
    char line[128], text[256];
    snprintf(line, sizeof line, "hq2 d64 %s", words);
    cr_assert_eq(heed_desc_parse(line, &desc), HEED_OK, "%s: %s", line, heed_error_message());
    cr_assert_eq(problem_from_desc(&desc, &problem), HEED_OK, "%s: %s", line, heed_error_message());
    return !registry_refusal(row, &problem, row->kinds & KIND_BIT(KIND_DECODE) ? KIND_DECODE : KIND_PREFILL, text, sizeof text);
}

/* The table as the README must hold it. */
static void make_table(char *text, size_t capacity)
{
    size_t length = (size_t)snprintf(text, capacity, "| |");
    for (int r = 0; r < ROWS; r++) {
        const char *dot = strstr(rows[r], ".scalar.");
        length += (size_t)snprintf(text + length, capacity - length, dot ? " cpu%s |" : " %s |", dot ? dot + 7 : rows[r]);
    }
    length += (size_t)snprintf(text + length, capacity - length, "\n|---|");
    for (int r = 0; r < ROWS; r++) length += (size_t)snprintf(text + length, capacity - length, "---|");
    for (size_t f = 0; f < sizeof features / sizeof *features; f++) {
        length += (size_t)snprintf(text + length, capacity - length, "\n| %s |", features[f].label);
        for (int r = 0; r < ROWS; r++) {
            const struct kernel_row *row = find(rows[r]);
            cr_assert(row, "no row %s", rows[r]);
            length += (size_t)snprintf(text + length, capacity - length, " %s |", does(row, features[f].words) ? "yes" : "-");
        }
    }
    cr_assert_lt(length, capacity);
}

Test(readme, feature_table)
{
    static char table[16384];
    char *readme = read_file(HEED_SOURCE_DIR "/README.md");
    make_table(table, sizeof table);
    const bool same = strstr(readme, table) != NULL;
    if (!same) fprintf(stderr, "README.md must hold this table:\n%s\n", table);
    counts_report(same, !same, 0);
    free(readme);
    cr_assert(same);
}
#endif

/* Every C block of the README is a file of examples/, word for word, so it is built and run by the tests. */
Test(readme, programs_are_examples)
{
    char *readme = read_file(HEED_SOURCE_DIR "/README.md"), *at = readme;
    int blocks = 0, missing = 0;
    char *example = read_file(HEED_SOURCE_DIR "/examples/five_lines.c");
    while ((at = strstr(at, "```c\n"))) {
        at += 5;
        char *end = strstr(at, "```");
        cr_assert(end);
        *end = 0;
        blocks++;
        if (!strstr(example, at)) {
            missing++;
            fprintf(stderr, "this block of README.md is not in examples/five_lines.c:\n%s\n", at);
        }
        at = end + 1;
    }
    free(example);
    free(readme);
    counts_report(blocks - missing, missing + (blocks == 0), 0);
    cr_assert_gt(blocks, 0);
    cr_assert_eq(missing, 0);
}
