/* SPDX-License-Identifier: MIT
 * test_opencl_dots.c - the OpenCL rows of bf16 dots (kernels/dots.cl): offered where this processor has the instructions and the driver runs kernels on it, nowhere
 * else, and there bit for bit what the CPU wing's rows of the same instructions give (lse but for the last place: ln is each wing's own). Right or wrong: test_agree.
 */
#include "counting.h"
#include "internal.h"
#include <stdio.h>
#include <string.h>

/* Groups of 1 to 9 rows (also such whose keys make no whole tree), odd sizes, several chunks, whatever hides keys: in all rows alike, or in some. */
static const char *const lines[] = {
    "hq8 hk2 d128 q1 kv1100 bf16",
    "b3 hq9 hk1 d66 dv50 q1 kv700 bf16 o=f32 kvlens page=5 causal wl=400 sinks",
    "hq6 hk2 d21 dv37 q2 kv530 bf16 o=f32 mask=bits bias=bf16 causal softcap=9",
    "b2 hq2 d96 q1 kv333 bf16 mask=bool bcast=h alibi",
    "b2 hq5 hk1 d33 dv64 q1 kv90 bf16 o=f16 ragged keyrange data=spike",
    "hq3 hk1 d64 q7 kv1100 bf16 causal", /* many rows at a time, in tiles of 3, 1 and 8 */
    "hq2 d48 dv80 q22 kv600 bf16 o=f32 mask=bits causal wl=250",
    "hq9 hk1 d32 q2 kv530 bf16 causal sinks",
};

static heed_context *context_with(const char *isa, int32_t *device)
{
    heed_context *context = NULL;
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = 2, .cpu_features = isa};
    cr_assert_eq(heed_context_create(&options, &context), HEED_OK, "%s", heed_error_message());
    *device = -1;
    for (int32_t n = heed_device_count(context) - 1; n > 0; n--) {
        heed_device_info info = {.struct_size = sizeof info};
        cr_assert_eq(heed_device_get_info(context, n, &info), HEED_OK);
        if (info.usable && !strcmp(info.family, "pocl-cpu")) *device = n;
    }
    return context;
}

static bool has_dots(const heed_context *context) { return context->services.isa & ISA_AVX512BF16; }

/* A pair of instances of the same line, run on the two wings. */
static void compare(heed_context *context, int32_t device, const char *text, const char *const rows[2], struct counts *counts)
{
    struct problem_line line;
    struct outcome outcomes[2];
    char message[256] = "";
    cr_assert(line_parse(text, &line, message, sizeof message), "%s", message);
    for (int n = 0; n < 2; n++) {
        struct instance *instance = instance_new(&line, INSTANCE_GUARD_AFTER, message, sizeof message);
        cr_assert(instance != NULL, "%s", message);
        instance_check(context, n ? device : 0, rows[n], instance, &outcomes[n]);
        count_outcome(counts, n ? "opencl" : "cpu", rows[n], text, &outcomes[n]);
        instance_free(instance);
    }
    if (outcomes[0].verdict == VERDICT_PASS && outcomes[1].verdict == VERDICT_PASS) count_check(counts, outcomes[0].bits == outcomes[1].bits, text);
}

Test(opencl_dots, decode_has_the_bits_of_the_cpu_wing, .timeout = 200)
{
    static const char *const rows[2] = {"cpu.avx512bf16.decode", "opencl.decode_dots"};
    struct counts counts = {0};
    int32_t device;
    heed_context *context = context_with("avx512bf16", &device);
    if (device < 0 || !has_dots(context)) fprintf(stderr, "skipped: opencl.decode_dots: no AVX512-BF16, or no PoCL\n"), counts.skipped++;
    else
        for (size_t n = 0; n < sizeof lines / sizeof *lines; n++) compare(context, device, lines[n], rows, &counts);
    heed_context_destroy(context);
    count_end(&counts);
}

/* Only the processor's own word opens the row: capped, it is refused before anything is compiled. */
Test(opencl_dots, no_instruction_no_row)
{
    int32_t device;
    heed_plan *plan = NULL;
    heed_desc desc = {.struct_size = sizeof desc, .q_heads = 4, .kv_heads = 1, .head_dim = 32, .q_type = HEED_BF16, .k_type = HEED_BF16, .v_type = HEED_BF16, .o_type = HEED_BF16};
    heed_context *context = context_with("avx2", &device);
    cr_assert(!has_dots(context));
    if (device >= 0) {
        cr_assert_eq(heed_plan_create(context, device, &desc, "opencl.decode_dots", &plan), HEED_UNSUPPORTED);
        cr_assert(strstr(heed_error_message(), "AVX512-BF16") != NULL, "%s", heed_error_message());
    }
    heed_context_destroy(context);
}
