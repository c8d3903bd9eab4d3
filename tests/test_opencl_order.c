/* SPDX-License-Identifier: MIT
 * test_opencl_order.c - OpenCL rows that say ORDER_PANEL give, on every device, bit for bit what the CPU wing's prefill gives: one order of arithmetic in all of them, and no
 * driver that adds in another. (lse but for the last place: ln is each wing's own.) Right or wrong: test_agree.
 * And which steps the planner takes for decode there.
 */
#include "counting.h"
#include "internal.h"
#include "opencl/cl.h"
#include <string.h>

/* false: this row does not do it here. */
static bool bits_of(heed_context *context, int32_t device, const char *row, const char *text, struct counts *counts, uint64_t *bits)
{
    struct problem_line line;
    struct outcome outcome;
    char message[256] = "";
    cr_assert(line_parse(text, &line, message, sizeof message), "%s", message);
    line_check(context, device, row, &line, &outcome);
    count_outcome(counts, device ? "opencl" : "cpu", row, text, &outcome);
    *bits = outcome.bits;
    return outcome.verdict == VERDICT_PASS;
}

static const char *panel_row(const heed_context *context)
{
    return context->services.isa & ISA_AVX512 ? "cpu.avx512.prefill" : context->services.isa & ISA_AVX2 ? "cpu.avx2.prefill" : "cpu.scalar.prefill";
}

/* Up to how many queries a step is decode: more where the heads of a group share keys, which prefill_cpu takes for each head again. */
static void short_steps(heed_context *context, int32_t device, const char *text, int32_t most, struct counts *counts)
{
    struct problem_line line;
    heed_plan *plan = NULL;
    char message[256] = "";
    cr_assert(line_parse(text, &line, message, sizeof message), "%s", message);
    cr_assert_eq(heed_plan_create(context, device, &line.desc, NULL, &plan), HEED_OK, "%s", heed_error_message());
    if (!strcmp(plan->row[KIND_DECODE]->name, "opencl.decode_cpu") && !strcmp(plan->row[KIND_PREFILL]->name, "opencl.prefill_cpu"))
        count_check(counts, plan->decode_max_q_len == most, "the longest step that is decode");
    heed_plan_destroy(plan);
}

static void same_bits(const char *line, int32_t most)
{
    struct counts counts = {0};
    heed_context *context = NULL;
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = 2};
    if (!test_wants_device("opencl")) return;
    cr_assert(heed_context_create(&options, &context) == HEED_OK, "%s", heed_error_message());
    for (int32_t device = 1; device < heed_device_count(context); device++) {
        heed_device_info info = {.struct_size = sizeof info};
        if (heed_device_get_info(context, device, &info) != HEED_OK || !info.usable) continue;
        if (!strstr(info.family, "-cpu") || !strcmp(info.platform, "rusticl")) continue; /* GPUs and llvmpipe divide inexactly */
        uint64_t here, there;
        if (!bits_of(context, 0, panel_row(context), line, &counts, &here)) continue;
        for (const struct kernel_row *row = cl_rows; row->name; row++) {
            char what[512];
            if (row->order != ORDER_PANEL || !(row->kinds & KIND_BIT(KIND_PREFILL)) || !bits_of(context, device, row->name, line, &counts, &there)) continue;
            snprintf(what, sizeof what, "%s on %s has not the bits of %s: \"%s\"", row->name, info.platform, panel_row(context), line);
            count_check(&counts, here == there, what);
        }
        short_steps(context, device, line, most, &counts);
    }
    heed_context_destroy(context);
    count_end(&counts);
}

/* Several blocks of keys, the last one cut; some rows that see less; sizes that are no multiple of anything. */
Test(opencl_order, keys_by_position, .timeout = 300) { same_bits("hq2 hk1 d40 q37 kv250 causal", 12); }
Test(opencl_order, altered_logits, .timeout = 300) { same_bits("b2 hq2 d33 dv50 q5 kv130 f16 o=f32 kvlens softcap=8 alibi sinks", 8); }
/* Heads of a large group do not make prefill quicker that takes each of them for itself. */
Test(opencl_order, a_large_group, .timeout = 300) { same_bits("hq32 hk1 d40 q13 kv30", 12); }

/* Keys that prefill of few queries takes in chunks: several, one that some rows see nothing of, the heads of a group. */
Test(opencl_order, chunks_of_keys, .timeout = 300) { same_bits("hq2 hk1 d40 q33 kv3475 causal sinks", 12); }
Test(opencl_order, a_group_with_too_many_rows_for_chunks, .timeout = 300) { same_bits("hq8 hk2 d24 q70 kv2400 causal", 12); }
Test(opencl_order, chunks_of_altered_logits, .timeout = 300) { same_bits("b2 hq2 d33 dv50 q11 kv2400 f16 o=f32 kvlens wl=1500 softcap=8 alibi", 8); }
