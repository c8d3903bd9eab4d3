/* SPDX-License-Identifier: MIT
 * harness_run.c - an instance on a device: planned, run, fetched, compared with the reference inside its bound, run again for the same bits.
 */
#include "check.h"
#include "context.h"
#include "dtype.h"
#include "harness_parts.h"
#include "registry.h"
#include "schedule.h"
#include "status.h"
#include <stdlib.h>
#include <string.h>

/* ---- prepared ------------------------------------------------------------------------ */

static heed_status make_buffer(struct prepared *prepared, enum role role)
{
    const struct block *block = &prepared->instance->block[role];
    const size_t bytes = block->bytes ? block->bytes : 64; /* a device has no empty buffers */
    heed_status status = heed_buffer_create(prepared->context, prepared->device, bytes, &prepared->buffer[role]);
    if (status == HEED_OK && block->bytes) status = heed_buffer_write(prepared->buffer[role], 0, block->data, block->bytes);
    return status;
}

static heed_status move_to_device(struct prepared *prepared)
{
    const struct instance *in = prepared->instance;
    heed_status status = HEED_OK;
    for (int role = 0; role < ROLE_COUNT && status == HEED_OK; role++)
        if (in->block[role].map) status = make_buffer(prepared, (enum role)role);
    for (int role = 0; role < ROLE_COUNT && status == HEED_OK; role++) {
        if (!in->shape[role].given) continue;
        heed_tensor *tensor = role_tensor(&prepared->tensors, (enum role)role);
        *tensor = heed_buffer_tensor(prepared->buffer[in->shape[role].home], *tensor);
    }
    return status;
}

static heed_status make_workspace(struct prepared *prepared)
{
    const size_t bytes = heed_batch_workspace_size(prepared->batch);
    if (bytes == 0) return HEED_OK;
    if (prepared->backend == HEED_BACKEND_CPU) {
        prepared->workspace_memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
        if (!prepared->workspace_memory) return out_of_memory(bytes);
        memset(prepared->workspace_memory, 0xFF, (bytes + 63) / 64 * 64); /* garbage at entry: NaN */
        prepared->workspace = (heed_tensor){.data = prepared->workspace_memory, .bytes = bytes};
        return HEED_OK;
    }
    heed_status status = heed_buffer_create(prepared->context, prepared->device, bytes, &prepared->workspace_buffer);
    if (status == HEED_OK) prepared->workspace = heed_buffer_tensor(prepared->workspace_buffer, (heed_tensor){0});
    return status;
}

heed_status prepared_make(heed_context *context, int32_t device, const char *kernel, const struct instance *in, bool in_host,
                          struct prepared *prepared)
{
    heed_device_info info = {.struct_size = sizeof info};
    *prepared = (struct prepared){.context = context, .device = device, .instance = in, .tensors = in->tensors};
    heed_status status = heed_device_get_info(context, device, &info);
    prepared->backend = info.backend;
    if (status == HEED_OK) status = heed_plan_create(context, device, &in->line.desc, kernel, &prepared->plan);
    if (status == HEED_OK) status = heed_batch_create(prepared->plan, &in->lengths, &prepared->batch);
    if (status == HEED_OK) status = make_workspace(prepared);
    if (status == HEED_OK && info.backend == HEED_BACKEND_OPENCL && !in_host) status = move_to_device(prepared);
    if (status != HEED_OK) prepared_release(prepared);
    return status;
}

heed_status prepared_run(struct prepared *prepared)
{
    return heed_run(prepared->plan, prepared->batch, &prepared->tensors, prepared->workspace.data ? &prepared->workspace : NULL);
}

heed_status prepared_reset(struct prepared *prepared)
{
    struct instance *in = (struct instance *)prepared->instance;
    heed_status status = HEED_OK;
    instance_reset(in);
    for (int role = 0; role < ROLE_COUNT && status == HEED_OK; role++)
        if (role_is_output((enum role)role) && prepared->buffer[role] && in->block[role].bytes)
            status = heed_buffer_write(prepared->buffer[role], 0, in->block[role].data, in->block[role].bytes);
    return status;
}

heed_status prepared_fetch(struct prepared *prepared)
{
    const struct instance *in = prepared->instance;
    heed_status status = HEED_OK;
    for (int role = 0; role < ROLE_COUNT && status == HEED_OK; role++)
        if (role_is_output((enum role)role) && prepared->buffer[role] && in->block[role].bytes)
            status = heed_buffer_read(prepared->buffer[role], 0, in->block[role].data, in->block[role].bytes);
    return status;
}

void prepared_release(struct prepared *prepared)
{
    for (int role = 0; role < ROLE_COUNT; role++) heed_buffer_destroy(prepared->buffer[role]);
    heed_buffer_destroy(prepared->workspace_buffer);
    free(prepared->workspace_memory);
    heed_batch_destroy(prepared->batch);
    heed_plan_destroy(prepared->plan);
    *prepared = (struct prepared){0};
}

/* ---- compared --------------------------------------------------------------------------- */

/* The instance's host memory as the library's inner views, made here and not by tensors.c: the harness believes its own strides. */
static struct view view_of(const struct instance *in, enum role role)
{
    const struct shape *s = &in->shape[role];
    if (!s->given) return (struct view){0};
    const struct block *block = &in->block[s->home];
    return (struct view){.data = block->data + s->start, .batch = s->batch,
                         .head = s->head, .token = s->token, .bytes = block->bytes, .given = true};
}

static bool is_key_role(enum role role) { return role == ROLE_K || role == ROLE_V || role == ROLE_K_SCALE || role == ROLE_V_SCALE; }

heed_status prepared_compare(const struct prepared *prepared, heed_check_report *report)
{
    const struct instance *in = prepared->instance;
    struct call call = {.plan = prepared->plan, .batch = prepared->batch};
    struct view *const views[ROLE_COUNT] = {
        [ROLE_Q] = &call.q,         [ROLE_K] = &call.k,         [ROLE_V] = &call.v,         [ROLE_O] = &call.o,
        [ROLE_LSE] = &call.lse,     [ROLE_MASK] = &call.mask,   [ROLE_BIAS] = &call.bias,   [ROLE_ALIBI] = &call.alibi,
        [ROLE_SINKS] = &call.sinks, [ROLE_K_SCALE] = &call.k_scale, [ROLE_V_SCALE] = &call.v_scale, [ROLE_SCORES] = &call.scores,
        [ROLE_KEY_RANGE] = &call.key_range, [ROLE_KEY_SUMS] = &call.key_sums};
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (!views[role]) continue;
        *views[role] = view_of(in, (enum role)role);
        const bool chosen = role == ROLE_KEY_SUMS || (role == ROLE_SCORES && in->line.srows > 0);
        const bool packed = is_key_role((enum role)role) ? in->kv_start != NULL : in->q_start != NULL && !chosen;
        if (packed) views[role]->batch = 0;
    }
    *report = (heed_check_report){.struct_size = sizeof *report};
    return check_call(&call, NULL, report);
}

/* ---- rows of the table -------------------------------------------------------------------- */

const char *device_row(heed_context *context, int32_t index, int32_t n)
{
    struct device *device;
    const struct kernel_row *row;
    if (device_get(context, index, &device) != HEED_OK) return NULL;
    for (int32_t at = 0; (row = registry_row(device->backend, at)); at++) {
        if (!(row->kinds & (KIND_BIT(KIND_PREFILL) | KIND_BIT(KIND_DECODE) | KIND_BIT(KIND_SCORES)))) continue;
        if (n-- == 0) return row->name;
    }
    return NULL;
}

/* Is any sequence of the problem a step that the row named computes in this plan? A problem without queries is everybody's. */
static bool row_is_used(const struct prepared *prepared, const char *kernel)
{
    const struct instance *in = prepared->instance;
    const struct kernel_row *scores = prepared->plan->row[KIND_SCORES];
    bool any = false;
    if (scores && !strcmp(scores->name, kernel)) return true;
    for (int32_t b = 0; b < in->line.batch; b++) {
        if (in->q_lens[b] == 0) continue;
        any = true;
        if (!strcmp(prepared->plan->row[sequence_kind(prepared->plan, in->q_lens[b])]->name, kernel)) return true;
    }
    const char *end = strrchr(kernel, '.'); /* a row for scores alone has nothing to do without */
    return !any && !(end && strstr(end, "scores"));
}

/* ---- verdicts ------------------------------------------------------------------------------ */

static void verdict(struct outcome *outcome, enum verdict verdict, const char *what, const char *why)
{
    outcome->verdict = verdict;
    message_set(outcome->message, sizeof outcome->message, "%s%s%s", what, *what && *why ? ": " : "", why);
}

static void explain_mismatch(const struct heed_check_report *r, struct outcome *outcome)
{
    static const char *const names[] = {"o", "lse", "scores", "key_sums"};
    char got[40], expected[40], bound[40];
    text_of_double(r->got, got, sizeof got);
    text_of_double(r->expected, expected, sizeof expected);
    text_of_double(r->bound, bound, sizeof bound);
    outcome->verdict = VERDICT_FAIL;
    message_set(outcome->message, sizeof outcome->message, "%s[b %lld, h %lld, i %lld, d %lld] of %s is %s, expected %s within %s; %llu of %llu outside",
                names[r->worst_output], (long long)r->worst_batch, (long long)r->worst_head, (long long)r->worst_token, (long long)r->worst_dim,
                r->kernel, got, expected, bound, (unsigned long long)r->outside, (unsigned long long)r->elements);
}

/* One run into fresh outputs; false: the outcome says why not. */
static bool run_once(struct prepared *prepared, struct outcome *outcome, const char *which, uint64_t *bits)
{
    heed_status status = prepared_reset(prepared);
    if (status == HEED_OK) status = prepared_run(prepared);
    if (status == HEED_OK) status = prepared_fetch(prepared);
    if (status != HEED_OK) {
        verdict(outcome, VERDICT_FAIL, which, heed_error_message());
        return false;
    }
    char why[256];
    if (!instance_untouched(prepared->instance, why, sizeof why)) {
        verdict(outcome, VERDICT_FAIL, which, why);
        return false;
    }
    *bits = instance_bits(prepared->instance);
    return true;
}

static void check_prepared(struct prepared *prepared, struct outcome *outcome)
{
    uint64_t first, second;
    if (!run_once(prepared, outcome, "run", &first)) return;
    heed_status status = prepared_compare(prepared, &outcome->report);
    message_set(outcome->kernel, sizeof outcome->kernel, "%s", outcome->report.kernel);
    outcome->bits = first;
    if (status == HEED_MISMATCH) {
        explain_mismatch(&outcome->report, outcome);
        return;
    }
    if (status != HEED_OK) {
        verdict(outcome, VERDICT_FAIL, "comparing", heed_error_message());
        return;
    }
    if (!run_once(prepared, outcome, "second run", &second)) return;
    if (first != second)
        verdict(outcome, VERDICT_FAIL, "", "the second run gives other bits");
    else
        outcome->verdict = VERDICT_PASS;
}

static void check_in(heed_context *context, int32_t device, const char *kernel, struct instance *in, bool in_host, struct outcome *outcome)
{
    struct prepared prepared;
    *outcome = (struct outcome){.verdict = VERDICT_FAIL};
    message_set(outcome->kernel, sizeof outcome->kernel, "%s", kernel ? kernel : "");
    heed_status status = prepared_make(context, device, kernel, in, in_host, &prepared);
    if (status != HEED_OK) {
        verdict(outcome, status == HEED_UNSUPPORTED ? VERDICT_SKIP : VERDICT_FAIL, "", heed_error_message());
        return;
    }
    if (kernel && !row_is_used(&prepared, kernel))
        verdict(outcome, VERDICT_SKIP, kernel, "no sequence is a step of this row's kind");
    else
        check_prepared(&prepared, outcome);
    prepared_release(&prepared);
}

void instance_check(heed_context *context, int32_t device, const char *kernel, struct instance *in, struct outcome *outcome)
{
    check_in(context, device, kernel, in, false, outcome);
}

void line_check(heed_context *context, int32_t device, const char *kernel, const struct problem_line *line, struct outcome *outcome)
{
    const enum instance_variant variants[2] = {INSTANCE_GUARD_AFTER, INSTANCE_GUARD_BEFORE};
    struct outcome first = {0};
    for (int n = 0; n < 2; n++) {
        char why[256];
        *outcome = (struct outcome){.verdict = VERDICT_FAIL};
        struct instance *in = instance_new(line, variants[n], why, sizeof why);
        if (!in) {
            verdict(outcome, VERDICT_FAIL, "instance", why);
            return;
        }
        check_in(context, device, kernel, in, false, outcome);
        instance_free(in);
        if (outcome->verdict != VERDICT_PASS) return;
        if (n == 0)
            first = *outcome;
        else if (first.bits != outcome->bits)
            verdict(outcome, VERDICT_FAIL, "", "other bits with the tensors at other addresses and strides");
    }
    if (outcome->verdict == VERDICT_PASS && first.report.worst_ratio > outcome->report.worst_ratio) *outcome = first;
}
