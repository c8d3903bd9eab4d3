/* SPDX-License-Identifier: MIT
 * test_opencl_subgroup.c - the row of sub-groups where there are none: not offered, with the reason, and right on emulated ones, which a tuning file asks for. Real ones:
 * script/check intel.
 */
#include "emulated_rig.h"

Test(opencl_subgroup, no_lanes_no_row)
{
    heed_context *context = NULL;
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = 1};
    heed_desc desc = {.struct_size = sizeof desc, .q_heads = 2, .kv_heads = 2, .head_dim = 32, .q_type = HEED_F32, .k_type = HEED_F32, .v_type = HEED_F32,
                      .o_type = HEED_F32};
    cr_assert_eq(unsetenv("HEED_TUNING"), 0);
    cr_assert_eq(heed_context_create(&options, &context), HEED_OK);
    for (int32_t device = 1; device < heed_device_count(context); device++) {
        heed_device_info info = {.struct_size = sizeof info};
        heed_plan *plan = NULL;
        cr_assert_eq(heed_device_get_info(context, device, &info), HEED_OK);
        if (strcmp(info.family, "pocl-cpu") || strncmp(info.driver, "3.1", 3)) continue;
        cr_assert_eq(heed_plan_create(context, device, &desc, "opencl.tile.sg", &plan), HEED_UNSUPPORTED);
        cr_assert(strstr(heed_error_message(), "sub-groups") != NULL, "%s", heed_error_message());
    }
    heed_context_destroy(context);
}

Test(opencl_subgroup, emulated_lanes_agree)
{
    static const char *const lines[] = {"hq4 hk2 d64 q67 kv67 causal lse", "hq4 hk2 d64 q67 kv1251 causal lse",
                                        "b2 hq2 hk1 d40 dv24 q21 kv130 f16 o=f32 ragged page=5 causal wl=30 softcap=8 alibi sinks mask=bool bias=f16 lse"};
    struct counts counts = {0};
    if (!test_wants_device("opencl")) return;
    heed_context *context = emulated_context("sgemulated=1 sglanes=8");
    for (size_t n = 0; context && n < sizeof lines / sizeof *lines; n++) {
        char why[256] = "";
        struct problem_line line;
        struct outcome outcome;
        cr_assert(line_parse(lines[n], &line, why, sizeof why), "%s", why);
        line_check(context, 1, "opencl.tile.sg", &line, &outcome);
        count_outcome(&counts, "opencl:0", "opencl.tile.sg", lines[n], &outcome);
        count_check(&counts, outcome.verdict == VERDICT_PASS, "the row of emulated sub-groups is offered and right");
    }
    heed_context_destroy(context);
    count_end(&counts);
}
