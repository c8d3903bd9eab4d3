/* SPDX-License-Identifier: MIT
 * test_context.c - the public API as a caller lives with it: creating and destroying in any order, every NULL, sizes of structs, devices,
 * buffers, batches, heed_forward and its plans, explanations, the log, validation and its reports.
 */
#include "counting.h"
#include "harness_parts.h"
#include "plan.h"
#include <math.h>
#include <unistd.h>

#define EXPECT(counts, good) count_check(counts, good, "test_context.c: " #good)
/* The status, and a message that says more than nothing. */
#define REFUSES(counts, call, status) count_check(counts, (call) == (status) && heed_error_message()[0], "test_context.c: " #call " is " #status)

static heed_context_options cpu_options(void)
{
    return (heed_context_options){.struct_size = sizeof(heed_context_options), .num_threads = 2, .flags = HEED_NO_OPENCL | HEED_NO_ENVIRONMENT};
}

static heed_context *cpu_context(void)
{
    heed_context *context = NULL;
    const heed_context_options options = cpu_options();
    cr_assert(heed_context_create(&options, &context) == HEED_OK, "%s", heed_error_message());
    return context;
}

static struct instance *problem(const char *text)
{
    struct problem_line line;
    char why[256] = "";
    cr_assert(line_parse(text, &line, why, sizeof why), "%s", why);
    struct instance *in = instance_new(&line, INSTANCE_GUARD_AFTER, why, sizeof why);
    cr_assert(in != NULL, "%s", why);
    return in;
}

static const char *const usual = "b2 hq4 hk2 d64 q9 kv90 causal lse";

/* ---- contexts ------------------------------------------------------------------------ */

Test(context, create)
{
    struct counts c = {0};
    heed_context *context = NULL;
    heed_context_options o = cpu_options();
    EXPECT(&c, heed_version() == HEED_VERSION_MAJOR * 10000 + HEED_VERSION_MINOR * 100 + HEED_VERSION_PATCH);
    REFUSES(&c, heed_context_create(&o, NULL), HEED_INVALID_ARGUMENT);
    EXPECT(&c, heed_context_create(NULL, &context) == HEED_OK);
    heed_context_destroy(context);
    heed_context_destroy(NULL);
    o.struct_size = 0;
    REFUSES(&c, heed_context_create(&o, &context), HEED_INVALID_ARGUMENT);
    o = cpu_options();
    o.flags |= 0x100;
    REFUSES(&c, heed_context_create(&o, &context), HEED_UNSUPPORTED);
    EXPECT(&c, strstr(heed_error_message(), "flags") != NULL);
    o = cpu_options();
    o.reserved = 1;
    REFUSES(&c, heed_context_create(&o, &context), HEED_UNSUPPORTED);
    o = cpu_options();
    o.num_threads = -1;
    REFUSES(&c, heed_context_create(&o, &context), HEED_INVALID_ARGUMENT);
    o = cpu_options();
    o.cpu_features = "no such set";
    REFUSES(&c, heed_context_create(&o, &context), HEED_INVALID_ARGUMENT);
    const heed_threads no_function = {.workers = 2};
    o = cpu_options();
    o.threads = &no_function;
    REFUSES(&c, heed_context_create(&o, &context), HEED_INVALID_ARGUMENT);
    const heed_allocator half = {0};
    o = cpu_options();
    o.allocator = &half;
    REFUSES(&c, heed_context_create(&o, &context), HEED_INVALID_ARGUMENT);
    count_end(&c);
}

/* A longer struct is fine while what we do not know is 0; a shorter one means 0 for the rest. */
Test(context, struct_sizes)
{
    struct counts c = {0};
    heed_context *context = NULL;
    struct {
        heed_context_options known;
        unsigned char later[32];
    } longer = {.known = cpu_options()};
    longer.known.struct_size = sizeof longer;
    EXPECT(&c, heed_context_create(&longer.known, &context) == HEED_OK);
    heed_context_destroy(context);
    longer.later[31] = 1;
    REFUSES(&c, heed_context_create(&longer.known, &context), HEED_UNSUPPORTED);
    heed_context_options shorter = cpu_options();
    shorter.struct_size = offsetof(heed_context_options, threads);
    shorter.validate_every = 77; /* behind the end: not read */
    EXPECT(&c, heed_context_create(&shorter, &context) == HEED_OK);
    heed_device_info info = {.struct_size = offsetof(heed_device_info, name)};
    info.name[0] = '?';
    EXPECT(&c, heed_device_get_info(context, 0, &info) == HEED_OK && info.name[0] == '?');
    info.struct_size = 1;
    REFUSES(&c, heed_device_get_info(context, 0, &info), HEED_INVALID_ARGUMENT);
    heed_context_destroy(context);
    count_end(&c);
}

Test(context, statuses)
{
    struct counts c = {0};
    for (int n = HEED_OK; n <= HEED_INTERNAL; n++) {
        EXPECT(&c, heed_status_string((heed_status)n) && heed_status_string((heed_status)n)[0]);
        for (int m = HEED_OK; m < n; m++) EXPECT(&c, strcmp(heed_status_string((heed_status)n), heed_status_string((heed_status)m)) != 0);
    }
    EXPECT(&c, heed_status_string((heed_status)999) != NULL);
    EXPECT(&c, heed_status_string((heed_status)-1) != NULL);
    count_end(&c);
}

/* ---- NULL everywhere -------------------------------------------------------------------- */

Test(context, nulls)
{
    struct counts c = {0};
    heed_context *context = cpu_context();
    struct instance *in = problem(usual);
    struct prepared p;
    int32_t device;
    heed_plan *plan = NULL;
    heed_batch *batch = NULL;
    heed_buffer *buffer = NULL;
    heed_check_report report = {.struct_size = sizeof report};
    char text[8];
    cr_assert(prepared_make(context, 0, NULL, in, false, &p) == HEED_OK, "%s", heed_error_message());
    EXPECT(&c, heed_device_count(NULL) == 0);
    REFUSES(&c, heed_device_get_info(NULL, 0, NULL), HEED_INVALID_ARGUMENT);
    REFUSES(&c, heed_device_get_info(context, 0, NULL), HEED_INVALID_ARGUMENT);
    REFUSES(&c, heed_device_find(NULL, "cpu", &device), HEED_INVALID_ARGUMENT);
    REFUSES(&c, heed_device_find(context, NULL, &device), HEED_INVALID_ARGUMENT);
    REFUSES(&c, heed_device_find(context, "cpu", NULL), HEED_INVALID_ARGUMENT);
    REFUSES(&c, heed_plan_create(NULL, 0, &in->line.desc, NULL, &plan), HEED_INVALID_ARGUMENT);
    REFUSES(&c, heed_plan_create(context, 0, NULL, NULL, &plan), HEED_INVALID_ARGUMENT);
    REFUSES(&c, heed_plan_create(context, 0, &in->line.desc, NULL, NULL), HEED_INVALID_ARGUMENT);
    REFUSES(&c, heed_batch_create(NULL, &in->lengths, &batch), HEED_INVALID_ARGUMENT);
    REFUSES(&c, heed_batch_create(p.plan, NULL, &batch), HEED_INVALID_ARGUMENT);
    REFUSES(&c, heed_batch_create(p.plan, &in->lengths, NULL), HEED_INVALID_ARGUMENT);
    REFUSES(&c, heed_batch_update(NULL, &in->lengths), HEED_INVALID_ARGUMENT);
    REFUSES(&c, heed_batch_update(p.batch, NULL), HEED_INVALID_ARGUMENT);
    REFUSES(&c, heed_run(NULL, p.batch, &in->tensors, NULL), HEED_INVALID_ARGUMENT);
    REFUSES(&c, heed_run(p.plan, NULL, &in->tensors, NULL), HEED_INVALID_ARGUMENT);
    REFUSES(&c, heed_run(p.plan, p.batch, NULL, NULL), HEED_INVALID_ARGUMENT);
    REFUSES(&c, heed_forward(NULL, 0, &in->line.desc, &in->lengths, &in->tensors), HEED_INVALID_ARGUMENT);
    REFUSES(&c, heed_forward(context, 0, NULL, &in->lengths, &in->tensors), HEED_INVALID_ARGUMENT);
    REFUSES(&c, heed_forward(context, 0, &in->line.desc, NULL, &in->tensors), HEED_INVALID_ARGUMENT);
    REFUSES(&c, heed_forward(context, 0, &in->line.desc, &in->lengths, NULL), HEED_INVALID_ARGUMENT);
    REFUSES(&c, heed_check(NULL, NULL, &in->lengths, &in->tensors, &report), HEED_INVALID_ARGUMENT);
    REFUSES(&c, heed_check(p.plan, NULL, NULL, &in->tensors, &report), HEED_INVALID_ARGUMENT);
    REFUSES(&c, heed_check(p.plan, NULL, &in->lengths, NULL, &report), HEED_INVALID_ARGUMENT);
    REFUSES(&c, heed_check(p.plan, NULL, &in->lengths, &in->tensors, NULL), HEED_INVALID_ARGUMENT);
    REFUSES(&c, heed_append(p.plan, p.batch, HEED_F32, NULL, NULL, NULL), HEED_INVALID_ARGUMENT);
    REFUSES(&c, heed_rotate(p.plan, p.batch, 1, NULL, NULL), HEED_INVALID_ARGUMENT);
    REFUSES(&c, heed_merge(p.plan, p.batch, NULL, NULL, NULL, NULL, NULL, NULL), HEED_INVALID_ARGUMENT);
    REFUSES(&c, heed_buffer_create(NULL, 0, 64, &buffer), HEED_INVALID_ARGUMENT);
    REFUSES(&c, heed_buffer_create(context, 0, 64, NULL), HEED_INVALID_ARGUMENT);
    REFUSES(&c, heed_buffer_write(NULL, 0, text, 1), HEED_INVALID_ARGUMENT);
    REFUSES(&c, heed_buffer_read(NULL, 0, text, 1), HEED_INVALID_ARGUMENT);
    REFUSES(&c, heed_desc_check(NULL), HEED_INVALID_ARGUMENT);
    REFUSES(&c, heed_desc_parse(NULL, &in->line.desc), HEED_INVALID_ARGUMENT);
    REFUSES(&c, heed_desc_parse("d64", NULL), HEED_INVALID_ARGUMENT);
    EXPECT(&c, heed_plan_explain(NULL, text, sizeof text) == 0);
    EXPECT(&c, heed_batch_workspace_size(NULL) == 0);
    EXPECT(&c, heed_buffer_tensor(NULL, (heed_tensor){0}).data == NULL);
    heed_plan_destroy(NULL);
    heed_batch_destroy(NULL);
    heed_buffer_destroy(NULL);
    prepared_release(&p);
    instance_free(in);
    heed_context_destroy(context);
    count_end(&c);
}

/* ---- devices, buffers ---------------------------------------------------------------------- */

Test(context, devices)
{
    struct counts c = {0};
    heed_context *context = cpu_context();
    heed_device_info info = {.struct_size = sizeof info};
    int32_t device = -7;
    EXPECT(&c, heed_device_count(context) == 1);
    EXPECT(&c, heed_device_get_info(context, 0, &info) == HEED_OK && info.backend == HEED_BACKEND_CPU && info.usable);
    EXPECT(&c, info.name[0] && info.compute_units >= 1 && info.memory_bytes > 0 && (info.types >> HEED_F32 & 1));
    EXPECT(&c, heed_device_find(context, "cpu", &device) == HEED_OK && device == 0);
    EXPECT(&c, heed_device_find(context, info.name, &device) == HEED_OK && device == 0);
    REFUSES(&c, heed_device_find(context, "opencl:0", &device), HEED_DEVICE_NOT_FOUND);
    REFUSES(&c, heed_device_find(context, "no such device", &device), HEED_DEVICE_NOT_FOUND);
    REFUSES(&c, heed_device_get_info(context, 1, &info), HEED_DEVICE_NOT_FOUND);
    REFUSES(&c, heed_device_get_info(context, -1, &info), HEED_DEVICE_NOT_FOUND);
    heed_context_destroy(context);
    count_end(&c);
}

Test(context, buffers)
{
    struct counts c = {0};
    heed_context *context = cpu_context();
    heed_buffer *buffer = NULL;
    unsigned char from[100], to[100];
    for (int n = 0; n < 100; n++) from[n] = (unsigned char)(n * 7 + 1);
    REFUSES(&c, heed_buffer_create(context, 0, 0, &buffer), HEED_INVALID_ARGUMENT);
    REFUSES(&c, heed_buffer_create(context, 0, SIZE_MAX, &buffer), HEED_UNSUPPORTED);
    REFUSES(&c, heed_buffer_create(context, 5, 64, &buffer), HEED_DEVICE_NOT_FOUND);
    cr_assert(heed_buffer_create(context, 0, 100, &buffer) == HEED_OK, "%s", heed_error_message());
    EXPECT(&c, heed_buffer_write(buffer, 0, from, 100) == HEED_OK);
    EXPECT(&c, heed_buffer_read(buffer, 40, to, 60) == HEED_OK && !memcmp(to, from + 40, 60));
    EXPECT(&c, heed_buffer_write(buffer, 100, NULL, 0) == HEED_OK);
    REFUSES(&c, heed_buffer_write(buffer, 1, from, 100), HEED_OUT_OF_BOUNDS);
    REFUSES(&c, heed_buffer_read(buffer, SIZE_MAX, to, 2), HEED_OUT_OF_BOUNDS);
    REFUSES(&c, heed_buffer_read(buffer, 0, NULL, 2), HEED_INVALID_ARGUMENT);
    const heed_tensor t = heed_buffer_tensor(buffer, (heed_tensor){.token_stride = 9});
    EXPECT(&c, t.token_stride == 9 && t.bytes == 100 && t.memory == HEED_MEMORY_HOST && (uintptr_t)t.data % 64 == 0);
    heed_context_destroy(context); /* the buffer keeps it */
    EXPECT(&c, heed_buffer_read(buffer, 0, to, 100) == HEED_OK && !memcmp(to, from, 100));
    heed_buffer_destroy(buffer);
    count_end(&c);
}

/* ---- plans and batches ------------------------------------------------------------------------ */

static uint64_t run_bits(struct counts *c, struct prepared *p)
{
    EXPECT(c, prepared_reset(p) == HEED_OK);
    EXPECT(c, prepared_run(p) == HEED_OK);
    return instance_bits(p->instance);
}

Test(context, lifetimes)
{
    struct counts c = {0};
    heed_context *context = cpu_context();
    struct instance *in = problem(usual);
    struct prepared p;
    cr_assert(prepared_make(context, 0, NULL, in, false, &p) == HEED_OK, "%s", heed_error_message());
    const uint64_t bits = run_bits(&c, &p);
    heed_context_destroy(context); /* before the plan, the batch after both: each keeps what it needs */
    EXPECT(&c, run_bits(&c, &p) == bits);
    heed_plan *plan = p.plan;
    heed_batch *second = NULL;
    EXPECT(&c, heed_batch_create(plan, &in->lengths, &second) == HEED_OK);
    heed_plan_destroy(plan);
    p.plan = NULL;
    EXPECT(&c, heed_run(plan, second, &in->tensors, p.workspace.data ? &p.workspace : NULL) == HEED_OK); /* the batch holds its plan */
    EXPECT(&c, instance_bits(in) == bits);
    heed_batch_destroy(second);
    prepared_release(&p);
    instance_free(in);
    count_end(&c);
}

Test(context, batches)
{
    struct counts c = {0};
    heed_context *context = cpu_context();
    struct instance *in = problem(usual), *other = problem("b2 hq4 hk2 d64 q5 kv40 causal lse");
    struct prepared p, q;
    cr_assert(prepared_make(context, 0, NULL, in, false, &p) == HEED_OK && prepared_make(context, 0, NULL, other, false, &q) == HEED_OK);
    const uint64_t bits = run_bits(&c, &p), other_bits = run_bits(&c, &q);
    REFUSES(&c, heed_run(p.plan, q.batch, &other->tensors, NULL), HEED_INVALID_ARGUMENT); /* another plan's batch */
    heed_lengths bad = in->lengths;
    bad.kv_len = -1;
    REFUSES(&c, heed_batch_update(p.batch, &bad), HEED_OUT_OF_BOUNDS);
    EXPECT(&c, run_bits(&c, &p) == bits); /* a refused update changes nothing */
    EXPECT(&c, heed_batch_update(p.batch, &other->lengths) == HEED_OK);
    instance_reset(other);
    EXPECT(&c, heed_run(p.plan, p.batch, &other->tensors, p.workspace.data ? &p.workspace : NULL) == HEED_OK);
    EXPECT(&c, instance_bits(other) == other_bits);
    instance_reset(other);
    const uint64_t untouched = instance_bits(other);
    REFUSES(&c, heed_run(q.plan, q.batch, &(heed_tensors){.struct_size = sizeof(heed_tensors)}, NULL), HEED_INVALID_ARGUMENT);
    heed_tensors shorter = other->tensors;
    shorter.k.bytes -= 1;
    REFUSES(&c, heed_run(q.plan, q.batch, &shorter, NULL), HEED_OUT_OF_BOUNDS);
    EXPECT(&c, instance_bits(other) == untouched);
    prepared_release(&p);
    prepared_release(&q);
    instance_free(in);
    instance_free(other);
    heed_context_destroy(context);
    count_end(&c);
}

Test(context, workspace)
{
    struct counts c = {0};
    heed_context *context = cpu_context();
    struct instance *in = problem("hq8 hk2 d64 q1 kv3000 causal lse");
    struct prepared p;
    cr_assert(prepared_make(context, 0, NULL, in, false, &p) == HEED_OK, "%s", heed_error_message());
    const size_t bytes = heed_batch_workspace_size(p.batch);
    cr_assert(bytes > 0, "3000 keys were meant to be split");
    heed_tensor w = p.workspace;
    instance_reset(in);
    const uint64_t untouched = instance_bits(in);
    REFUSES(&c, heed_run(p.plan, p.batch, &in->tensors, NULL), HEED_WORKSPACE_TOO_SMALL);
    w.bytes = bytes - 1;
    REFUSES(&c, heed_run(p.plan, p.batch, &in->tensors, &w), HEED_WORKSPACE_TOO_SMALL);
    w.bytes = bytes;
    w.data = (unsigned char *)w.data + 4;
    REFUSES(&c, heed_run(p.plan, p.batch, &in->tensors, &w), HEED_INVALID_ARGUMENT);
    EXPECT(&c, instance_bits(in) == untouched);
    prepared_release(&p);
    instance_free(in);
    heed_context_destroy(context);
    count_end(&c);
}

Test(context, plans)
{
    struct counts c = {0};
    heed_context *context = cpu_context();
    heed_plan *plan = NULL;
    char text[EXPLAIN_BYTES], few[10];
    heed_desc desc = {.struct_size = sizeof desc, .q_heads = 4, .kv_heads = 2, .head_dim = 64};
    REFUSES(&c, heed_plan_create(context, HEED_DEVICE_AUTO, &desc, NULL, &plan), HEED_INVALID_ARGUMENT);
    REFUSES(&c, heed_plan_create(context, 1, &desc, NULL, &plan), HEED_DEVICE_NOT_FOUND);
    REFUSES(&c, heed_plan_create(context, 0, &desc, "no.such.row", &plan), HEED_INVALID_ARGUMENT);
    EXPECT(&c, strstr(heed_error_message(), "no.such.row") != NULL);
    desc.flags = UINT64_C(1) << 60;
    REFUSES(&c, heed_plan_create(context, 0, &desc, NULL, &plan), HEED_UNSUPPORTED);
    desc.q_type = HEED_F8_E5M2, desc.o_type = HEED_F32; /* only the last row takes such q: the others say why not */
    desc.flags = HEED_WRITE_SCORES;
    cr_assert(heed_plan_create(context, 0, &desc, NULL, &plan) == HEED_OK, "%s", heed_error_message());
    const size_t length = heed_plan_explain(plan, text, sizeof text);
    EXPECT(&c, length == strlen(text) && strstr(text, "scores   reference") && strstr(text, "yes") && strstr(text, "q type f8_e5m2"));
    EXPECT(&c, heed_plan_explain(plan, few, sizeof few) == length && strlen(few) == 9 && !strncmp(few, text, 9));
    EXPECT(&c, heed_plan_explain(plan, NULL, 0) == length);
    heed_plan_destroy(plan);
    desc.q_type = desc.o_type = HEED_TYPE_DEFAULT;
    desc.flags = HEED_INVARIANT; /* one order for prefill and decode */
    cr_assert(heed_plan_create(context, 0, &desc, NULL, &plan) == HEED_OK, "%s", heed_error_message());
    EXPECT(&c, plan->row[KIND_PREFILL]->order == plan->row[KIND_DECODE]->order && plan->row[KIND_DECODE]->order != ORDER_OWN);
    heed_plan_destroy(plan);
    desc.flags = 0;
    cr_assert(heed_plan_create(context, 0, &desc, "reference", &plan) == HEED_OK, "%s", heed_error_message());
    EXPECT(&c, !strcmp(plan->row[KIND_PREFILL]->name, "reference") && !strcmp(plan->row[KIND_DECODE]->name, "reference"));
    heed_plan_destroy(plan);
    heed_context_destroy(context);
    count_end(&c);
}

/* ---- heed_forward ---------------------------------------------------------------------------------- */

Test(context, forward)
{
    struct counts c = {0};
    heed_context *context = cpu_context();
    struct instance *in = problem(usual);
    struct prepared p;
    cr_assert(prepared_make(context, 0, NULL, in, false, &p) == HEED_OK, "%s", heed_error_message());
    const uint64_t bits = run_bits(&c, &p);
    for (int32_t device = HEED_DEVICE_AUTO; device <= 0; device++)
        for (int n = 0; n < 3; n++) { /* the second time from the plan that was kept */
            instance_reset(in);
            EXPECT(&c, heed_forward(context, device, &in->line.desc, &in->lengths, &in->tensors) == HEED_OK);
            EXPECT(&c, instance_bits(in) == bits);
        }
    REFUSES(&c, heed_forward(context, 3, &in->line.desc, &in->lengths, &in->tensors), HEED_DEVICE_NOT_FOUND);

    /* in place */
    struct instance *place = problem(usual), *apart = in;
    heed_tensors same = place->tensors;
    same.o = same.q;
    EXPECT(&c, heed_forward(context, 0, &place->line.desc, &place->lengths, &same) == HEED_OK);
    bool equal = true;
    for (int32_t b = 0; b < 2; b++)
        for (int32_t h = 0; h < 4; h++)
            for (int32_t i = 0; i < 9; i++)
                equal = equal && !memcmp(instance_query_row(place, ROLE_Q, b, h, i), instance_query_row(apart, ROLE_O, b, h, i), 64 * 4);
    count_check(&c, equal, "test_context.c: o = q in place gives the same bits");
    instance_free(place);
    prepared_release(&p);
    instance_free(in);
    heed_context_destroy(context);
    count_end(&c);
}

/* More kinds of problem than plans are kept (64), then the first ones again: other plans, the same bits. */
Test(context, many_plans)
{
    struct counts c = {0};
    heed_context *context = cpu_context();
    uint64_t bits[90];
    for (int round = 0; round < 2; round++)
        for (int n = 0; n < 90; n++) {
            char text[80];
            snprintf(text, sizeof text, "hq2 d%d q1 kv9 lse", n + 1);
            struct instance *in = problem(text);
            EXPECT(&c, heed_forward(context, 0, &in->line.desc, &in->lengths, &in->tensors) == HEED_OK);
            if (round == 0) bits[n] = instance_bits(in);
            EXPECT(&c, instance_bits(in) == bits[n]);
            instance_free(in);
        }
    heed_context_destroy(context);
    count_end(&c);
}

/* ---- checks, validation, reports, the log -------------------------------------------------------------- */

Test(context, check)
{
    struct counts c = {0};
    heed_context *context = cpu_context();
    struct instance *in = problem(usual), *other = problem("b2 hq4 hk4 d64 q9 kv90 causal lse");
    heed_plan *plan = NULL, *reference = NULL, *wrong = NULL;
    heed_check_report report = {.struct_size = sizeof report};
    cr_assert(heed_plan_create(context, 0, &in->line.desc, NULL, &plan) == HEED_OK, "%s", heed_error_message());
    cr_assert(heed_plan_create(context, 0, &in->line.desc, "reference", &reference) == HEED_OK, "%s", heed_error_message());
    cr_assert(heed_plan_create(context, 0, &other->line.desc, NULL, &wrong) == HEED_OK, "%s", heed_error_message());
    EXPECT(&c, heed_check(plan, NULL, &in->lengths, &in->tensors, &report) == HEED_OK);
    EXPECT(&c, report.elements == 2 * 4 * 9 * 65 && report.outside == 0 && report.worst_ratio <= 1 && report.kernel[0]);
    EXPECT(&c, heed_check(plan, reference, &in->lengths, &in->tensors, &report) == HEED_OK && report.outside == 0);
    REFUSES(&c, heed_check(plan, wrong, &in->lengths, &in->tensors, &report), HEED_INVALID_ARGUMENT);
    report.struct_size = 0;
    REFUSES(&c, heed_check(plan, NULL, &in->lengths, &in->tensors, &report), HEED_INVALID_ARGUMENT);
    heed_plan_destroy(plan);
    heed_plan_destroy(reference);
    heed_plan_destroy(wrong);
    instance_free(in);
    instance_free(other);
    heed_context_destroy(context);
    count_end(&c);
}

/* Threads that forget the last task of the next parallel_for when told to: a wrong result by no fault of any kernel. */
struct forgetful {
    bool armed;
    int32_t calls;
};

static void forgetful_for(void *user, int32_t count, void (*task)(void *arg, int32_t i, int32_t worker), void *arg)
{
    struct forgetful *f = user;
    const int32_t done = f->armed ? count - 1 : count;
    f->armed = false;
    f->calls++;
    for (int32_t i = 0; i < done; i++) task(arg, i, i % 3);
}

struct log_lines {
    int32_t count;
    char last[600];
};

static void keep_line(void *user, int32_t level, const char *line)
{
    struct log_lines *log = user;
    (void)level;
    log->count++;
    snprintf(log->last, sizeof log->last, "%s", line);
}

Test(context, validation)
{
    struct counts c = {0};
    heed_context *context = NULL;
    struct forgetful forgetful = {0};
    struct log_lines log = {0};
    char folder[] = "/tmp/heed-report-XXXXXX", why[256], command[160];
    cr_assert(mkdtemp(folder) != NULL);
    const heed_threads threads = {.user = &forgetful, .workers = 3, .parallel_for = forgetful_for};
    heed_context_options o = cpu_options();
    o.threads = &threads;
    o.log = keep_line;
    o.log_user = &log;
    o.validate_every = 2;
    o.report_dir = folder;
    cr_assert(heed_context_create(&o, &context) == HEED_OK, "%s", heed_error_message());
    static const char *const lines[] = {
        /* all large enough to be handed to threads */
        "b2 hq4 hk2 d64 q70 kv90 causal lse",
        "b2 hq4 hk2 d32 q45 kv160 page=7 kvlens mask=bits bias=f16 keyrange alibi sinks softcap=9 lse lse2",
        "b3 hq8 hk4 d32 q190 kv960 ragged kvfirst=5 tree causal wl=90 kv=i8 f16 o=f32 lse",
        "hq8 d32 q1 kv3000 kv=q4_0 o=bf16",
        "b3 hq4 d32 q90 kv120 kvlens kv=f8_e4m3 bias=f32 biasfirst softcap=3 sinks lse lsenosink",
    };
    for (size_t n = 0; n < sizeof lines / sizeof *lines; n++) {
        struct instance *in = problem(lines[n]);
        struct prepared p;
        cr_assert(prepared_make(context, 0, NULL, in, false, &p) == HEED_OK, "%s: %s", lines[n], heed_error_message());
        EXPECT(&c, prepared_reset(&p) == HEED_OK);
        EXPECT(&c, prepared_run(&p) == HEED_OK); /* not validated: every second run is */
        EXPECT(&c, prepared_run(&p) == HEED_OK); /* validated, and right */
        EXPECT(&c, prepared_run(&p) == HEED_OK);
        EXPECT(&c, prepared_reset(&p) == HEED_OK);
        if (p.workspace_memory) memset(p.workspace_memory, 0xFF, p.workspace.bytes);
        forgetful.armed = true; /* NaN stays where the last task's rows belong */
        const heed_status status = prepared_run(&p);
        count_check(&c, status == HEED_MISMATCH, lines[n]);
        prepared_release(&p);
        instance_free(in);
    }
    EXPECT(&c, forgetful.calls > 0 && log.count > 0 && strstr(log.last, folder));

    /* What was stored is read back, and replayed by a healthy context it is right. */
    int32_t count = 0;
    heed_context *healthy = cpu_context();
    char **folders = cases_list(folder, &count, why, sizeof why);
    EXPECT(&c, count == (int32_t)(sizeof lines / sizeof *lines));
    for (int32_t n = 0; n < count; n++) {
        struct outcome outcome = {.verdict = VERDICT_FAIL};
        struct stored_case *stored = case_load(folders[n], INSTANCE_GUARD_AFTER, outcome.message, sizeof outcome.message);
        EXPECT(&c, stored && stored->kind == CASE_HEED_2);
        if (stored) case_check(healthy, 0, NULL, stored, &outcome);
        count_outcome(&c, "cpu", NULL, folders[n], &outcome);
        case_free(stored);
        free(folders[n]);
    }
    free(folders);
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    EXPECT(&c, system(command) == 0);
    heed_context_destroy(healthy);
    heed_context_destroy(context);
    count_end(&c);
}

/* HEED_LOG and the others are read, unless the caller forbids it. */
Test(context, environment)
{
    struct counts c = {0};
    heed_context *context = NULL;
    heed_context_options o = {.struct_size = sizeof o, .num_threads = 1, .flags = HEED_NO_OPENCL};
    setenv("HEED_CPU", "no such set", 1);
    REFUSES(&c, heed_context_create(&o, &context), HEED_INVALID_ARGUMENT);
    EXPECT(&c, strstr(heed_error_message(), "HEED_CPU") != NULL);
    o.flags |= HEED_NO_ENVIRONMENT;
    EXPECT(&c, heed_context_create(&o, &context) == HEED_OK);
    heed_context_destroy(context);
    o.flags = HEED_NO_OPENCL;
    o.cpu_features = "scalar"; /* an API value beats the environment */
    EXPECT(&c, heed_context_create(&o, &context) == HEED_OK);
    heed_plan *plan = NULL;
    const heed_desc desc = {.struct_size = sizeof desc, .q_heads = 4, .head_dim = 64};
    EXPECT(&c, heed_plan_create(context, 0, &desc, NULL, &plan) == HEED_OK && strstr(plan->row[KIND_DECODE]->name, "scalar"));
    REFUSES(&c, heed_plan_create(context, 0, &desc, "cpu.avx512.decode", &plan) , HEED_UNSUPPORTED);
    heed_plan_destroy(plan);
    heed_context_destroy(context);
    unsetenv("HEED_CPU");
    setenv("HEED_THREADS", "0x", 1);
    o.cpu_features = NULL;
    o.num_threads = 0;
    REFUSES(&c, heed_context_create(&o, &context), HEED_INVALID_ARGUMENT);
    unsetenv("HEED_THREADS");
    setenv("HEED_DEVICE", "no such device", 1);
    EXPECT(&c, heed_context_create(&o, &context) == HEED_OK);
    struct instance *in = problem(usual);
    REFUSES(&c, heed_forward(context, HEED_DEVICE_AUTO, &in->line.desc, &in->lengths, &in->tensors), HEED_DEVICE_NOT_FOUND);
    instance_free(in);
    heed_context_destroy(context);
    unsetenv("HEED_DEVICE");
    count_end(&c);
}
