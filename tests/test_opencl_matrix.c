/* SPDX-License-Identifier: MIT
 * test_opencl_matrix.c - rows of matrix units where there is no matrix unit: not offered on an ordinary device, and right on an emulated one, which a tuning
 * file asks for. The emulated unit has the layouts, the swizzle, the ring and the masks of the real one. More lines: script/gpu_check.
 */
#include "counting.h"
#include <stdio.h>
#include <unistd.h>

/* A context whose CPU devices have an emulated matrix unit. The file must outlive the list of devices. */
static heed_context *emulated(char *path)
{
    heed_context *context = NULL;
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = 2};
    const int file = mkstemp(path);
    FILE *stream = file < 0 ? NULL : fdopen(file, "w");
    cr_assert(stream != NULL);
    fprintf(stream, "\"pocl-cpu\" matrix=1 limit=120\n\"generic-cpu\" matrix=1 limit=120\n");
    cr_assert_eq(fclose(stream), 0);
    cr_assert_eq(setenv("HEED_TUNING", path, 1), 0);
    cr_assert_eq(heed_context_create(&options, &context), HEED_OK, "%s", heed_error_message());
    if (heed_device_count(context) == 1) {
        fprintf(stderr, "skipped: no OpenCL device\n");
        heed_context_destroy(context);
        context = NULL;
    }
    unlink(path);
    return context;
}

Test(opencl_matrix, no_unit_no_row)
{
    heed_context *context = NULL;
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = 1};
    heed_desc desc = {.struct_size = sizeof desc, .q_heads = 2, .kv_heads = 2, .head_dim = 32, .q_type = HEED_BF16, .k_type = HEED_BF16,
                      .v_type = HEED_BF16, .o_type = HEED_BF16};
    heed_plan *plan = NULL;
    cr_assert_eq(unsetenv("HEED_TUNING"), 0);
    cr_assert_eq(heed_context_create(&options, &context), HEED_OK);
    for (int32_t device = 1; device < heed_device_count(context); device++) {
        heed_device_info info = {.struct_size = sizeof info};
        cr_assert_eq(heed_device_get_info(context, device, &info), HEED_OK);
        if (strcmp(info.family, "pocl-cpu")) continue;
        cr_assert_str_eq(info.matrix_unit, "none");
        cr_assert_eq(heed_plan_create(context, device, &desc, "opencl.prefill_matrix_bf16", &plan), HEED_UNSUPPORTED);
        cr_assert(strstr(heed_error_message(), "a matrix unit") != NULL, "%s", heed_error_message());
    }
    heed_context_destroy(context);
}

/* What no device of ours is: asked for by a tuning file, NVIDIA's assembly is still not shown to another vendor's compiler. */
Test(opencl_matrix, no_foreign_assembly)
{
    char path[] = "/tmp/heed-tuning-XXXXXX";
    heed_context *context = NULL;
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = 1};
    const int file = mkstemp(path);
    const char line[] = "\"pocl-cpu\" matrix=2\n";
    cr_assert(file >= 0 && write(file, line, sizeof line - 1) == sizeof line - 1);
    close(file);
    cr_assert_eq(setenv("HEED_TUNING", path, 1), 0);
    cr_assert_eq(heed_context_create(&options, &context), HEED_OK);
    heed_desc desc = {.struct_size = sizeof desc, .q_heads = 1, .kv_heads = 1, .head_dim = 32, .q_type = HEED_F16, .k_type = HEED_F16,
                      .v_type = HEED_F16, .o_type = HEED_F16};
    heed_plan *plan = NULL;
    for (int32_t device = 1; device < heed_device_count(context); device++) {
        heed_device_info info = {.struct_size = sizeof info};
        cr_assert_eq(heed_device_get_info(context, device, &info), HEED_OK);
        if (!strcmp(info.family, "pocl-cpu"))
            cr_assert_eq(heed_plan_create(context, device, &desc, "opencl.prefill_matrix_f16", &plan), HEED_UNSUPPORTED);
    }
    unlink(path);
    heed_context_destroy(context);
}

static void agree(const char *row, const char *text)
{
    char path[] = "/tmp/heed-tuning-XXXXXX", why[256] = "";
    struct counts counts = {0};
    struct problem_line line;
    struct outcome outcome;
    if (!test_wants_device("opencl")) return;
    cr_assert(line_parse(text, &line, why, sizeof why), "%s", why);
    heed_context *context = emulated(path);
    if (!context) return;
    line_check(context, 1, row, &line, &outcome);
    count_outcome(&counts, "opencl:0", row, text, &outcome);
    heed_device_info info = {.struct_size = sizeof info};
    cr_assert_eq(heed_device_get_info(context, 1, &info), HEED_OK);
    if (outcome.verdict == VERDICT_PASS) count_check(&counts, !strcmp(info.matrix_unit, "emulated"), "a matrix unit that was proved is named");
    heed_context_destroy(context);
    count_end(&counts);
}

Test(opencl_matrix, bf16_agrees) { agree("opencl.prefill_matrix_bf16", "hq2 hk1 d32 q19 kv33 bf16 causal lse"); }
Test(opencl_matrix, f16_agrees)
{
    agree("opencl.prefill_matrix_f16", "b2 hq2 hk1 d40 dv24 q21 kv50 f16 o=f32 ragged page=5 causal wl=30 softcap=8 alibi sinks mask=bool bias=f16 lse");
}
