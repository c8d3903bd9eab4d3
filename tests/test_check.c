/* SPDX-License-Identifier: MIT
 * test_check.c - heed_check() and the validation of runs: a wrong element is found and named, a right one is not, and a mismatch leaves a
 * case that replays.
 */
#include "check.h"
#include "counting.h"
#include "harness_parts.h"
#include "inner.h"
#include "plan.h"
#include "problem.h"
#include "shadow.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static heed_context *make_context(uint32_t validate_every, const char *report_dir)
{
    heed_context *context = NULL;
    const heed_context_options options = {.struct_size = sizeof options,
                                          .num_threads = 2,
                                          .flags = HEED_NO_OPENCL | HEED_NO_ENVIRONMENT,
                                          .validate_every = validate_every,
                                          .report_dir = report_dir};
    cr_assert_eq(heed_context_create(&options, &context), HEED_OK, "%s", heed_error_message());
    return context;
}

static struct instance *make_instance(const char *text)
{
    struct problem_line line;
    char message[256];
    cr_assert(line_parse(text, &line, message, sizeof message), "%s: %s", text, message);
    struct instance *instance = instance_new(&line, INSTANCE_GUARD_AFTER, message, sizeof message);
    cr_assert(instance, "%s: %s", text, message);
    return instance;
}

static void make_prepared(heed_context *context, const char *kernel, const struct instance *instance, struct prepared *prepared)
{
    cr_assert_eq(prepared_make(context, 0, kernel, instance, false, prepared), HEED_OK, "%s: %s", instance->line.text,
                 heed_error_message());
}

/* ---- heed_check ----------------------------------------------------------------- */

static const char *const problems[] = {
    "hq4 hk2 d64 q9 kv70 causal lse",
    "b2 hq4 hk2 d32 dv16 q1 kv300 f16 o=f32 sinks lse lse2",
    "b3 hq4 hk2 d16 q9 kv40 ragged softcap=5 bias=f32 biasfirst lse",
    "b2 hq2 d32 q3 kv33 kv=q8_0 page=4 mask=bits lse",
    "hq2 d8 q5 kv9 scores=0 mask=bool",
    "hq2 d8 q5 kv9 scores=1 softcap=2",
    "hq2 d8 q5 kv9 scores=2 alibi causal",
    "hq2 d8 q5 kv9 scores=3 wl=2",
    "b2 hq2 d8 q5 kv9 keyrange tree sinks lse lsenosink",
    "b2 hq4 d8 q5 kv9 scores=3 srows=2 sheads=3,0 keysums",
    "b2 hq4 d8 q5 kv9 keysums sumheads lse",
    "hq2 d8 q3 kv0 lse",
};
enum { PROBLEMS = sizeof problems / sizeof *problems };

Test(check, agrees_with_the_reference_and_with_itself)
{
    heed_context *context = make_context(0, NULL);
    for (int n = 0; n < PROBLEMS; n++) {
        struct instance *in = make_instance(problems[n]);
        struct prepared run;
        heed_plan *against;
        heed_check_report report = {.struct_size = sizeof report};
        make_prepared(context, NULL, in, &run);
        cr_assert_eq(heed_check(run.plan, NULL, &in->lengths, &in->tensors, &report), HEED_OK, "%s: %s", problems[n], heed_error_message());
        uint64_t rows = (uint64_t)in->q_total * (uint64_t)in->problem.q_heads, scores = 0;
        for (int32_t b = 0, heads, each; b < in->line.batch; b++)
            for (int role = 0; role < ROLE_COUNT; role++)
                if (in->shape[role].given && (role == ROLE_SCORES || role == ROLE_KEY_SUMS)) {
                    const int64_t bytes = instance_output_rows(in, (enum role)role, b, &heads, &each);
                    scores += (uint64_t)(bytes / 4 * heads * each);
                }
        uint64_t want = rows * ((uint64_t)in->problem.v_head_dim + ((in->problem.flags & HEED_WRITE_LSE) != 0)) + scores;
        cr_assert_eq(report.elements, want, "%s: %llu elements, not %llu", problems[n], (unsigned long long)report.elements,
                     (unsigned long long)want);
        cr_assert(report.outside == 0 && report.worst_ratio <= 1 && report.worst_ratio >= 0);
        cr_assert(report.kernel[0] && report.struct_size == sizeof report);
        uint64_t bits = instance_bits(in); /* the outputs are the run's */
        instance_reset(in);
        cr_assert_eq(prepared_run(&run), HEED_OK);
        cr_assert_eq(instance_bits(in), bits, "%s: heed_check leaves what heed_run writes", problems[n]);

        cr_assert_eq(heed_plan_create(context, 0, &in->line.desc, "reference", &against), HEED_OK);
        cr_assert_eq(heed_check(run.plan, against, &in->lengths, &in->tensors, &report), HEED_OK, "%s: %s", problems[n],
                     heed_error_message());
        cr_assert_eq(report.elements, want);
        heed_plan_destroy(against);
        prepared_release(&run);
        instance_free(in);
    }
    heed_context_destroy(context);
}

/* Element d of output row (b, h, i), in place, or NULL. */
static float *element(struct instance *in, enum role role, int32_t b, int32_t h, int32_t i, int32_t d)
{
    const struct shape *s = &in->shape[role];
    return (float *)(in->block[s->home].data + s->start + b * s->batch + h * s->head + i * s->token) + d;
}

Test(check, finds_and_names_one_wrong_element)
{
    static const struct {
        enum role role;
        int32_t b, h, i, d;
        float change;
    } faults[] = {{ROLE_O, 0, 0, 0, 0, 1e-3f},
                  {ROLE_O, 1, 3, 8, 15, -1e-3f},
                  {ROLE_LSE, 1, 2, 7, 0, 1e-3f},
                  {ROLE_SCORES, 0, 1, 4, 39, 1e-2f},
                  {ROLE_KEY_SUMS, 1, 3, 0, 39, 1e-3f},
                  {ROLE_O, 1, 0, 3, 7, NAN}};
    heed_context *context = make_context(0, NULL);
    struct instance *in = make_instance("b2 hq4 hk2 d16 q9 kv40 lse scores=2 keysums");
    struct prepared run;
    make_prepared(context, NULL, in, &run);
    for (size_t n = 0; n < sizeof faults / sizeof *faults; n++) {
        heed_check_report report;
        cr_assert_eq(prepared_run(&run), HEED_OK);
        cr_assert_eq(prepared_compare(&run, &report), HEED_OK, "%s", heed_error_message());
        *element(in, faults[n].role, faults[n].b, faults[n].h, faults[n].i, faults[n].d) += faults[n].change;
        cr_assert_eq(prepared_compare(&run, &report), HEED_MISMATCH, "fault %zu", n);
        cr_assert_eq(report.outside, 1);
        cr_assert_eq(report.worst_output, faults[n].role == ROLE_O ? 0 : faults[n].role == ROLE_LSE ? 1 : faults[n].role == ROLE_SCORES ? 2 : 3);
        cr_assert_eq(report.worst_batch, faults[n].b);
        cr_assert_eq(report.worst_head, faults[n].h);
        cr_assert_eq(report.worst_token, faults[n].role == ROLE_KEY_SUMS ? -1 : faults[n].i);
        cr_assert_eq(report.worst_dim, faults[n].role == ROLE_LSE ? -1 : faults[n].d);
        cr_assert(report.worst_ratio > 1 &&
                  (isnan(faults[n].change) ? isnan(report.got) : report.max_abs_error > 0.5 * fabs((double)faults[n].change)));
        cr_assert(strstr(heed_error_message(), "hq4") && strstr(heed_error_message(), "[b ") && strstr(heed_error_message(), report.kernel),
                  "%s", heed_error_message());
    }
    prepared_release(&run);
    instance_free(in);
    heed_context_destroy(context);
}

Test(check, two_computations_inside_both_bounds)
{
    heed_context *context = make_context(0, NULL);
    struct instance *in = make_instance("hq4 hk2 d16 q9 kv40 causal lse");
    struct prepared run;
    struct call call;
    struct shadow shadow;
    struct twin twin;
    heed_plan *other;
    heed_check_report report;
    make_prepared(context, NULL, in, &run);
    cr_assert_eq(heed_plan_create(context, 0, &in->line.desc, "cpu.scalar.prefill", &other), HEED_OK, "%s", heed_error_message());
    cr_assert_eq(prepared_run(&run), HEED_OK);
    cr_assert_eq(tensors_take(run.plan, run.batch, &run.tensors, run.workspace.data ? &run.workspace : NULL, false, &call), HEED_OK);
    cr_assert_eq(shadow_inputs(&call, &shadow), HEED_OK);
    cr_assert_eq(twin_run(other, &shadow, &twin), HEED_OK, "%s", heed_error_message());
    cr_assert_eq(check_call(&call, &twin.results.call, &report), HEED_OK, "%s", heed_error_message());
    float *o = element(in, ROLE_O, 0, 2, 5, 3), *theirs = (float *)(twin.results.call.o.data + ((unsigned char *)o - call.o.data));
    cr_assert_float_eq(*o, *theirs, 1e-5);
    *theirs += 1e-3f;
    cr_assert_eq(check_call(&call, &twin.results.call, &report), HEED_MISMATCH);
    cr_assert(report.outside == 1 && report.worst_head == 2 && report.worst_token == 5 && report.worst_dim == 3);
    cr_assert_float_eq(report.expected, *theirs, 0);
    twin_release(&twin);
    shadow_release(&shadow);
    heed_plan_destroy(other);
    prepared_release(&run);
    instance_free(in);
    heed_context_destroy(context);
}

Test(check, in_place)
{
    enum { N = 2 * 5 * 16 };
    heed_context *context = make_context(1, NULL);
    float q[N], k[N], v[N];
    heed_desc desc;
    heed_plan *plan;
    heed_batch *batch;
    heed_check_report report = {.struct_size = sizeof report};
    cr_assert_eq(heed_desc_parse("hq2 d16 causal", &desc), HEED_OK);
    cr_assert_eq(heed_plan_create(context, 0, &desc, NULL, &plan), HEED_OK);
    const heed_lengths lengths = {.struct_size = sizeof lengths, .batch = 1, .q_len = 5, .kv_len = 5};
    const heed_tensor rows = {.bytes = sizeof q, .batch_stride = N, .head_stride = 16, .token_stride = 32};
    heed_tensors tensors = {.struct_size = sizeof tensors, .q = rows, .k = rows, .v = rows};
    for (int n = 0; n < N; n++) q[n] = (float)(n % 7), k[n] = (float)(n % 5) - 2, v[n] = (float)(n % 11);
    tensors.q.data = q, tensors.k.data = k, tensors.v.data = v;
    tensors.o = tensors.q;
    cr_assert_eq(heed_check(plan, NULL, &lengths, &tensors, &report), HEED_OK, "%s", heed_error_message());
    cr_assert_eq(report.elements, N);
    for (int n = 0; n < N; n++) q[n] = (float)(n % 7);
    cr_assert_eq(heed_batch_create(plan, &lengths, &batch), HEED_OK);
    size_t bytes = heed_batch_workspace_size(batch);
    heed_tensor workspace = {.data = aligned_alloc(64, (bytes + 64) / 64 * 64), .bytes = bytes};
    cr_assert_eq(heed_run(plan, batch, &tensors, bytes ? &workspace : NULL), HEED_OK, "validated in place: %s", heed_error_message());
    free(workspace.data);
    heed_batch_destroy(batch);
    heed_plan_destroy(plan);
    heed_context_destroy(context);
}

Test(check, bad_arguments)
{
    heed_context *context = make_context(0, NULL);
    struct instance *in = make_instance("hq2 d8 q5 kv9 lse");
    struct prepared run;
    heed_plan *other;
    heed_desc desc;
    struct {
        heed_check_report report;
        unsigned char tail[8];
    } wide;
    heed_check_report report = {.struct_size = sizeof report};
    make_prepared(context, NULL, in, &run);
    cr_assert_eq(heed_check(NULL, NULL, &in->lengths, &in->tensors, &report), HEED_INVALID_ARGUMENT);
    cr_assert_eq(heed_check(run.plan, NULL, NULL, &in->tensors, &report), HEED_INVALID_ARGUMENT);
    cr_assert_eq(heed_check(run.plan, NULL, &in->lengths, NULL, &report), HEED_INVALID_ARGUMENT);
    cr_assert_eq(heed_check(run.plan, NULL, &in->lengths, &in->tensors, NULL), HEED_INVALID_ARGUMENT);
    report.struct_size = 0;
    cr_assert_eq(heed_check(run.plan, NULL, &in->lengths, &in->tensors, &report), HEED_INVALID_ARGUMENT);
    memset(&wide, 0xff, sizeof wide);
    wide.report.struct_size = 16; /* an old caller: size and elements, nothing behind */
    cr_assert_eq(heed_check(run.plan, NULL, &in->lengths, &in->tensors, &wide.report), HEED_OK);
    cr_assert(wide.report.elements == 2 * 5 * 9 && wide.report.outside == UINT64_MAX);
    wide.report.struct_size = sizeof wide.report + 8; /* a newer one: zeros behind */
    cr_assert_eq(heed_check(run.plan, NULL, &in->lengths, &in->tensors, &wide.report), HEED_OK);
    cr_assert(wide.tail[0] == 0 && wide.tail[7] == 0 && wide.report.struct_size == sizeof wide.report + 8);
    report.struct_size = sizeof report;
    cr_assert_eq(heed_desc_parse("hq2 d8 lse causal", &desc), HEED_OK);
    cr_assert_eq(heed_plan_create(context, 0, &desc, NULL, &other), HEED_OK);
    cr_assert_eq(heed_check(run.plan, other, &in->lengths, &in->tensors, &report), HEED_INVALID_ARGUMENT);
    cr_assert(strstr(heed_error_message(), "flags"), "%s", heed_error_message());
    heed_plan_destroy(other);
    heed_lengths beyond = in->lengths;
    beyond.kv_len = 1000;
    cr_assert_eq(heed_check(run.plan, NULL, &beyond, &in->tensors, &report), HEED_OUT_OF_BOUNDS);
    prepared_release(&run);
    instance_free(in);
    heed_context_destroy(context);
}

Test(check, every_allocation_may_fail)
{
    struct inner_memory memory = {.allowed = -1};
    const heed_allocator allocator = {&memory, inner_alloc, inner_free};
    const heed_context_options options = {
        .struct_size = sizeof options, .num_threads = 1, .flags = HEED_NO_OPENCL | HEED_NO_ENVIRONMENT, .allocator = &allocator};
    heed_context *context;
    cr_assert_eq(heed_context_create(&options, &context), HEED_OK);
    struct instance *in = make_instance("b2 hq2 d8 q5 kv9 lse page=2 scores=1");
    struct prepared run;
    heed_check_report report = {.struct_size = sizeof report};
    heed_plan *against;
    make_prepared(context, NULL, in, &run);
    cr_assert_eq(heed_plan_create(context, 0, &in->line.desc, "reference", &against), HEED_OK);
    int before = memory.in_use, n = 0;
    for (; n < 100; n++) {
        memory.allowed = n;
        heed_status status = heed_check(run.plan, against, &in->lengths, &in->tensors, &report);
        cr_assert_eq(memory.in_use, before, "allocation %d: %d blocks leaked", n, memory.in_use - before);
        if (status == HEED_OK) break;
        cr_assert_eq(status, HEED_OUT_OF_MEMORY, "allocation %d: %s", n, heed_error_message());
    }
    cr_assert(n > 5 && n < 100, "%d allocations", n);
    memory.allowed = -1;
    heed_plan_destroy(against);
    prepared_release(&run);
    instance_free(in);
    heed_context_destroy(context);
    cr_assert_eq(memory.in_use, 0);
}

/* ---- validation ---------------------------------------------------------------------- */

/* A row that promises more than it can hold: only roundings of double. Every ordinary kernel is then out of its bound. */
static struct kernel_row boasters[2];

static void promise_too_much(heed_plan *plan)
{
    for (int kind = 0; kind < 2; kind++) {
        boasters[kind] = *plan->row[kind];
        boasters[kind].arithmetic = (struct arithmetic){.exact_double = true};
        plan->row[kind] = &boasters[kind];
    }
}

static char folder[] = "/tmp/heed-test-check-XXXXXX";

static void remove_folder(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    cr_assert_eq(system(command), 0);
}

Test(validate, right_runs_pass_and_wrong_ones_do_not)
{
    cr_assert(mkdtemp(folder));
    heed_context *context = make_context(2, folder);
    struct instance *in = make_instance("hq4 hk2 d64 q9 kv170 causal softcap=3 lse");
    struct prepared run;
    char message[512];
    int32_t count;
    make_prepared(context, NULL, in, &run);
    for (int n = 0; n < 4; n++) cr_assert_eq(prepared_run(&run), HEED_OK, "%s", heed_error_message());
    promise_too_much(run.plan);
    int mismatches = 0;
    for (int n = 0; n < 4; n++) mismatches += prepared_run(&run) == HEED_MISMATCH;
    cr_assert_eq(mismatches, 2, "every second run is validated, and these %d of 4 were refused", mismatches);
    cr_assert(strstr(heed_error_message(), "hq4 hk2") && strstr(heed_error_message(), "softcap=3") && strstr(heed_error_message(), "bound"),
              "%s", heed_error_message());
    char **names = cases_list(folder, &count, message, sizeof message);
    cr_assert(names && count == 2, "%d cases: %s", count, names ? "" : message);
    for (int n = 0; n < count; n++) free(names[n]);
    free(names);
    prepared_release(&run);
    instance_free(in);
    heed_context_destroy(context);
    remove_folder();
}

/* ---- the other wing ------------------------------------------------------------------- */

/* A context with OpenCL whose device 1 works, or NULL with a word on standard error. */
static heed_context *make_two_wings(const char *report_dir)
{
    heed_context *context = NULL;
    heed_device_info info = {.struct_size = sizeof info};
    const heed_context_options options = {.struct_size = sizeof options,
                                          .num_threads = 2,
                                          .flags = HEED_NO_ENVIRONMENT,
                                          .validate_every = 1,
                                          .report_dir = report_dir,
                                          .cache_dir = ""};
    cr_assert_eq(heed_context_create(&options, &context), HEED_OK, "%s", heed_error_message());
    if (heed_device_count(context) > 1 && heed_device_get_info(context, 1, &info) == HEED_OK && info.usable) return context;
    fprintf(stderr, "skipped: opencl: %s\n", info.reason[0] ? info.reason : "no device");
    heed_context_destroy(context);
    return NULL;
}

Test(two_wings, check_each_other)
{
    cr_assert(mkdtemp(folder));
    heed_context *context = make_two_wings(folder);
    static const char *const lines[] = {"b2 hq4 hk2 d16 q9 kv40 causal lse", "b3 hq4 hk2 d32 q9 kv40 f16 page=8 ragged sinks lse scores=2"};
    for (int n = 0; context && n < 2; n++) {
        struct instance *in = make_instance(lines[n]);
        struct prepared host, device;
        heed_check_report report = {.struct_size = sizeof report};
        char message[512];
        int32_t count;
        make_prepared(context, NULL, in, &host);
        cr_assert_eq(prepared_make(context, 1, NULL, in, false, &device), HEED_OK, "%s", heed_error_message());
        cr_assert_eq(prepared_run(&host), HEED_OK, "the CPU, checked by OpenCL: %s", heed_error_message());
        cr_assert_eq(prepared_run(&device), HEED_OK, "OpenCL, checked by the CPU: %s", heed_error_message());
        cr_assert_eq(heed_check(device.plan, NULL, &in->lengths, &device.tensors, &report), HEED_OK, "%s", heed_error_message());
        cr_assert(report.elements > 0 && strstr(report.kernel, "opencl"));
        cr_assert_eq(heed_check(device.plan, host.plan, &in->lengths, &device.tensors, &report), HEED_OK, "%s", heed_error_message());
        cr_assert_eq(heed_check(host.plan, device.plan, &in->lengths, &host.tensors, &report), HEED_OK, "%s", heed_error_message());
        promise_too_much(device.plan);
        boasters[0].arithmetic = boasters[1].arithmetic = (struct arithmetic){.exact_double = true};
        cr_assert_eq(heed_check(device.plan, NULL, &in->lengths, &device.tensors, &report), HEED_MISMATCH);
        prepared_release(&device);
        prepared_release(&host);
        instance_free(in);
        char **names = cases_list(folder, &count, message, sizeof message);
        cr_assert(!names || count == 0, "heed_check stores nothing");
        free(names);
    }
    heed_context_destroy(context);
    remove_folder();
}

Test(two_wings, in_place_on_a_device)
{
    heed_context *context = make_two_wings(NULL);
    if (!context) return;
    struct instance *in = make_instance("b2 hq4 hk2 d16 q9 kv40 causal");
    struct prepared device;
    heed_check_report report = {.struct_size = sizeof report};
    cr_assert_eq(prepared_make(context, 1, NULL, in, false, &device), HEED_OK, "%s", heed_error_message());
    device.tensors.o = device.tensors.q;
    cr_assert_eq(prepared_run(&device), HEED_OK, "validated in place: %s", heed_error_message());
    cr_assert_eq(heed_check(device.plan, NULL, &in->lengths, &device.tensors, &report), HEED_OK, "%s", heed_error_message());
    prepared_release(&device);
    instance_free(in);
    /* with sums of weights, whose pass reads q once more, only where q can be kept: heed_forward() writes o last */
    in = make_instance("b2 hq4 hk2 d16 q9 kv40 causal keysums");
    cr_assert_eq(prepared_make(context, 1, NULL, in, false, &device), HEED_OK, "%s", heed_error_message());
    device.tensors.o = device.tensors.q;
    cr_assert_eq(prepared_run(&device), HEED_UNSUPPORTED, "o overlaps q, and sums are written");
    heed_tensors host = in->tensors;
    host.o = host.q;
    cr_assert_eq(heed_forward(context, 1, &in->line.desc, &in->lengths, &host), HEED_OK, "validated in place with sums: %s", heed_error_message());
    prepared_release(&device);
    instance_free(in);
    heed_context_destroy(context);
}

/* Every sort of input comes back from its case: the stored results are met by an honest run of the problem as it was read. */
static const char *const stored[] = {
    "hq4 hk2 d64 q9 kv170 causal lse",
    "b2 hq4 hk2 d32 dv16 q9 kv70 f16 o=f32 sinks lse lse2 lsenosink topleft causal",
    "b3 hq4 hk2 d32 q9 kv40 bf16 o=bf16 ragged softcap=5 bias=f32 biasfirst lse",
    "b3 hq4 hk2 d32 q9 kv40 ragged mask=bits bias=bf16 alibi causal kvfirst=100 lse",
    "b2 hq4 hk2 d32 q9 kv33 k=q8_0 v=q4_0 page=4 mask=bool bcast=h lse",
    "b3 hq4 hk2 d32 q9 kv33 k=i8 v=f8_e4m3 q=f16 o=f32 ragged keyrange lse",
    "b2 hq4 hk2 d32 q9 kv33 k=f8_e5m2 v=bf16 page=5 tree causal keyrange lse",
    "b2 hq4 hk2 d32 q9 kv33 kvlens mask=bits bcast=bhq wl=7 lse",
    "b3 hq4 hk2 d32 q9 kv40 ragged page=3 kv=i8 bias=f16 bcast=q mask=bool bcast=h lse invariant",
    "b2 hq2 d8 q5 kv20 wl=3 wr=1 lse",
    "b2 hq2 d8 q9 kv20 scores=3 scale=-0.3 lse",
    "b3 hq2 d8 q9 kv20 tree ragged causal",
};

Test(validate, stored_cases_replay)
{
    cr_assert(mkdtemp(folder));
    for (size_t n = 0; n < sizeof stored / sizeof *stored; n++) {
        char report_dir[128], message[512];
        int32_t count;
        snprintf(report_dir, sizeof report_dir, "%s/%zu", folder, n);
        heed_context *context = make_context(1, report_dir), *honest = make_context(0, NULL);
        struct instance *in = make_instance(stored[n]);
        struct prepared run;
        make_prepared(context, NULL, in, &run);
        cr_assert_eq(prepared_run(&run), HEED_OK, "%s: %s", stored[n], heed_error_message());
        struct call call;
        cr_assert_eq(tensors_take(run.plan, run.batch, &run.tensors, run.workspace.data ? &run.workspace : NULL, false, &call), HEED_OK);
        memset(call.o.data, 0x7f, in->problem.o_type == HEED_F32 ? 4 : 2); /* huge, or NaN */
        heed_status status = check_validate(context, &call);
        cr_assert_eq(status, HEED_MISMATCH, "%s: %s", stored[n], heed_error_message());
        prepared_release(&run);
        char **names = cases_list(report_dir, &count, message, sizeof message);
        cr_assert(names && count == 1, "%s: no case", stored[n]);
        struct stored_case *again = case_load(names[0], INSTANCE_GUARD_AFTER, message, sizeof message);
        cr_assert(again && again->supported, "%s: %s", stored[n], again ? again->message : message);
        struct outcome outcome;
        case_check(honest, 0, NULL, again, &outcome);
        cr_assert_eq(outcome.verdict, VERDICT_PASS, "%s: %s", stored[n], outcome.message);
        case_free(again);
        free(names[0]);
        free(names);
        instance_free(in);
        heed_context_destroy(honest);
        heed_context_destroy(context);
    }
    remove_folder();
}

Test(validate, a_folder_that_cannot_be_written)
{
    heed_context *context = make_context(1, "/proc/no/such/folder");
    struct instance *in = make_instance("hq4 hk2 d64 q9 kv170 causal softcap=3 lse");
    struct prepared run;
    make_prepared(context, NULL, in, &run);
    promise_too_much(run.plan);
    cr_assert_eq(prepared_run(&run), HEED_MISMATCH);
    cr_assert(strstr(heed_error_message(), "hq4"), "the message is the mismatch's: %s", heed_error_message());
    prepared_release(&run);
    instance_free(in);
    heed_context_destroy(context);
}
