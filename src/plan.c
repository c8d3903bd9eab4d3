/* SPDX-License-Identifier: MIT
 * plan.c - walk the table, keep the first row that fits, remember why the others did not.
 */
#include "plan.h"
#include "lifetime.h"
#include "mutant.h"
#include "problem.h"
#include "registry.h"
#include "schedule.h"
#include "status.h"
#include <string.h>

static const char *const kind_names[KIND_COUNT] = {"prefill", "decode", "scores", "merge", "append", "rotate"};

/* Up to how many query tokens a step is decode: while the row for decode is quicker with so many rows than that for prefill. One at least, but for groups so
 * large that even one token makes many rows, where the row for prefill can share them out as well; from 16 on, but with tiles, or most of its lanes would idle. */
static int32_t decode_threshold(const struct heed_plan *plan)
{
    const struct kernel_row *row = plan->row[KIND_DECODE], *prefill = plan->row[KIND_PREFILL];
    const int32_t group = plan->problem.group, dim = plan->problem.head_dim;
    int32_t rows = row->decode_rows > 0 ? row->decode_rows : 8;
    if (rows > 8 && dim < row->decode_dim) rows = rows * dim / row->decode_dim > 8 ? rows * dim / row->decode_dim : 8;
    if (prefill->step_rows > 0 && rows > prefill->step_rows) rows = prefill->step_rows;
    const int32_t alone = group == 1 || prefill->packs_group ? 1 : row->decode_queries, queries = rows / group;
    const bool named = plan->insisted && !strcmp(plan->insisted, row->name);
    if (prefill->packs_group && prefill->short_chunk > 0 && group > rows && (group >= 16 || prefill->step_rows > 0) && !named) return 0;
    return queries > alone ? queries : alone > 1 ? alone : 1;
}

/* Up to how many query tokens make few items, so that many cores want chunks of their keys, too. Rows of the panel's order count the group, whether they pack it or
 * not: so all of them cut the same sequences, and give the same bits. HEED_INVARIANT wants one chain whatever the queries. */
static int32_t short_threshold(const struct heed_plan *plan)
{
    const struct kernel_row *row = plan->row[KIND_PREFILL];
    if ((plan->problem.flags & HEED_INVARIANT) && !MUTANT(plan_short_invariant)) return 0;
    return row->short_rows / (row->packs_group || (row->order == ORDER_PANEL && !MUTANT(plan_short_alone)) ? plan->problem.group : 1);
}

struct walk {
    struct heed_plan *plan;
    const char *insisted;       /* a row's name, or NULL */
    char *text;                 /* explain */
    size_t length;
    char refusal[256];          /* of the row insisted on, else of the last row */
    heed_status status;         /* of the same row: what kind of refusal it was */
    bool insisted_seen, insisted_refused;
};

/* NULL: the row may serve this kind of step. */
static const char *row_refusal(struct walk *walk, const struct kernel_row *row, enum kind kind, char *text, size_t capacity)
{
    struct heed_plan *plan = walk->plan;
    walk->status = HEED_UNSUPPORTED;
    const char *reason = registry_refusal(row, &plan->problem, kind, text, capacity);
    if (reason) return reason;
    const struct kernel_row *prefill = plan->row[KIND_PREFILL];
    if (kind == KIND_DECODE && (plan->problem.flags & HEED_INVARIANT) && prefill && prefill->order != row->order)
        return "its order of arithmetic is not that of the prefill row";
    const heed_status status = plan->device->backend->admit(plan->device, &plan->problem, row, kind, text, capacity);
    if (status == HEED_OK) return NULL;
    walk->status = status; /* a failed build or a lost device is no missing ability */
    return text;
}

/* The row of this name, if it does this kind of step. name may be NULL. */
static const struct kernel_row *row_named(const struct heed_plan *plan, const char *name, enum kind kind)
{
    const struct kernel_row *row, *found = NULL;
    for (int32_t n = 0; name && (row = registry_row(plan->device->backend, n)); n++)
        if (!strcmp(row->name, name) && (row->kinds & KIND_BIT(kind))) found = row;
    return found;
}

static void choose(struct walk *walk, enum kind kind)
{
    const struct backend *backend = walk->plan->device->backend;
    const struct kernel_row *row, *wanted = row_named(walk->plan, walk->insisted, kind);
    if (wanted) walk->insisted_seen = true;

    for (int32_t n = 0; (row = registry_row(backend, n)); n++) {
        if (!(row->kinds & KIND_BIT(kind))) continue;
        char text[256] = "";
        const char *reason = wanted && row != wanted          ? "another row was insisted on"
                             : row->on_request && row != wanted ? "only where it is asked for by name"
                             : row->steps_in_order && row != wanted && kind == KIND_DECODE && !(walk->plan->problem.flags & HEED_INVARIANT)
                                 ? "steps of decode for HEED_INVARIANT alone"
                                                                : row_refusal(walk, row, kind, text, sizeof text);
        walk->length = text_append(walk->text, EXPLAIN_BYTES, walk->length, "%-8s %-30s %s%s%s\n", kind_names[kind], row->name,
                                   reason ? "no   " : "yes", reason ? reason : "", "");
        if (!reason) {
            walk->plan->row[kind] = row;
            return;
        }
        if (!wanted || row == wanted) text_append(walk->refusal, sizeof walk->refusal, 0, "%s: %s", row->name, reason);
        if (row == wanted) walk->insisted_refused = true;
    }
}

/* Fills plan->row[] and the explanation, or says which kind of step has no row. */
static heed_status choose_rows(struct heed_plan *plan, const char *kernel, char *text)
{
    struct walk walk = {.plan = plan, .insisted = kernel, .text = text, .status = HEED_UNSUPPORTED};
    for (int kind = 0; kind < KIND_COUNT; kind++) {
        const bool wanted = kind != KIND_SCORES || (plan->problem.flags & (HEED_WRITE_SCORES | HEED_WRITE_KEY_SUMS));
        if (!wanted) {
            walk.insisted_seen |= row_named(plan, kernel, KIND_SCORES) != NULL; /* nothing for it to do */
            continue;
        }
        /* merging partial results is part of a run; appending and rotating need rope and cache rules that problem.c has checked */
        choose(&walk, (enum kind)kind);
        const bool failed = walk.status != HEED_UNSUPPORTED && !plan->row[kind]; /* the call's own message is longer: a build log */
        if (walk.insisted_refused) return fail(walk.status, "kernel %s", failed ? heed_error_message() : walk.refusal);
        if (!plan->row[kind] && kind < WORK_KINDS)
            return fail(walk.status, "no row of %s can do this %s step; the last one, %s", plan->device->info.name, kind_names[kind],
                        failed ? heed_error_message() : walk.refusal);
    }
    if (kernel && !walk.insisted_seen)
        return fail(HEED_INVALID_ARGUMENT, "kernel \"%s\" is no row of the table of device %s", kernel, plan->device->info.name);
    return HEED_OK;
}

static void plan_free(struct heed_plan *plan)
{
    struct heed_context *context = plan->context;
    if (plan->state) plan->device->backend->plan_release(plan);
    memory_delete(&context->services, plan->explain);
    memory_delete(&context->services, plan->insisted);
    memory_delete(&context->services, plan);
    context_drop(context);
}

void plan_hold(struct heed_plan *plan) { atomic_fetch_add(&plan->refs, 1); }

void plan_drop(struct heed_plan *plan)
{
    if (plan && atomic_fetch_sub(&plan->refs, 1) == 1) plan_free(plan);
}

heed_status plan_make(struct heed_context *context, struct device *device, const heed_desc *desc, const char *kernel,
                      struct heed_plan **out)
{
    const struct services *services = &context->services;
    struct problem problem;
    heed_desc taken;
    heed_status status = struct_take(&taken, sizeof taken, desc, "heed_desc");
    if (status == HEED_OK) status = problem_from_desc(&taken, &problem);
    if (status != HEED_OK) return status;
    if (!device->info.usable) return fail(HEED_UNSUPPORTED, "device %s is not usable: %s", device->info.name, device->info.reason);

    struct heed_plan *plan = memory_new(services, 1, sizeof *plan);
    if (!plan) return out_of_memory(sizeof *plan);
    atomic_init(&plan->refs, 1);
    plan->context = context;
    context_hold(context);
    plan->device = device;
    plan->desc = taken;
    plan->desc.struct_size = sizeof taken;
    plan->problem = problem;
    plan->explain = memory_new(services, EXPLAIN_BYTES, 1);
    if (kernel) plan->insisted = memory_string(services, kernel);
    if (!plan->explain || (kernel && !plan->insisted))
        status = out_of_memory(EXPLAIN_BYTES);
    else
        status = choose_rows(plan, kernel, plan->explain);
    if (status == HEED_OK) plan->decode_max_q_len = decode_threshold(plan), plan->short_max_q_len = short_threshold(plan);
    if (status == HEED_OK && device->backend->plan_prepare) status = device->backend->plan_prepare(plan);
    if (status != HEED_OK) {
        plan_drop(plan);
        return status;
    }
    log_line(services, 3, "plan on %s: prefill %s, decode %s", device->info.name, plan->row[KIND_PREFILL]->name,
             plan->row[KIND_DECODE]->name);
    *out = plan;
    return HEED_OK;
}

/* ---- batches -------------------------------------------------------------- */

/* Lengths and work of *batch into place; on failure it holds nothing but its plan. */
static heed_status batch_fill(struct heed_batch *batch, const heed_lengths *lengths)
{
    struct heed_plan *plan = batch->plan;
    const struct services *services = &plan->context->services;
    const struct backend *backend = plan->device->backend;
    heed_status status = lengths_take(services, &plan->problem, lengths, batch);
    if (status != HEED_OK) return status;
    status = schedule_batch(services, batch);
    if (status == HEED_OK && backend->batch_prepare) {
        status = backend->batch_prepare(batch);
        if (status != HEED_OK) schedule_release(services, batch);
    }
    if (status != HEED_OK) {
        lengths_release(services, batch);
        return status;
    }
    if (backend->workspace) batch->workspace_bytes += backend->workspace(batch);
    return HEED_OK;
}

static void batch_empty(struct heed_batch *batch)
{
    const struct services *services = &batch->plan->context->services;
    if (batch->state) batch->plan->device->backend->batch_release(batch);
    batch->state = NULL;
    schedule_release(services, batch);
    lengths_release(services, batch);
}

heed_status batch_make(struct heed_plan *plan, const heed_lengths *lengths, struct heed_batch **out)
{
    const struct services *services = &plan->context->services;
    struct heed_batch *batch = memory_new(services, 1, sizeof *batch);
    if (!batch) return out_of_memory(sizeof *batch);
    atomic_init(&batch->refs, 1);
    batch->plan = plan;
    heed_status status = batch_fill(batch, lengths);
    if (status != HEED_OK) {
        memory_delete(services, batch);
        return status;
    }
    plan_hold(plan);
    *out = batch;
    return HEED_OK;
}

/* The new lengths are made beside the old ones, so that a refused update changes nothing. */
heed_status batch_update(struct heed_batch *batch, const heed_lengths *lengths)
{
    struct heed_batch next = {.plan = batch->plan};
    heed_status status = batch_fill(&next, lengths);
    if (status != HEED_OK) return status;
    batch_empty(batch);
    const int refs = atomic_load(&batch->refs);
    *batch = next;
    atomic_init(&batch->refs, refs);
    return HEED_OK;
}

void batch_drop(struct heed_batch *batch)
{
    if (!batch || atomic_fetch_sub(&batch->refs, 1) != 1) return;
    struct heed_plan *plan = batch->plan;
    batch_empty(batch);
    memory_delete(&plan->context->services, batch);
    plan_drop(plan);
}
