/* SPDX-License-Identifier: MIT
 * shadow.c - host copies of a call's tensors, and a second run of the same problem by another plan.
 */
#include "shadow.h"
#include "mutant.h"
#include "schedule.h"
#include "status.h"
#include "view.h"

#include <string.h>

static const enum role input_roles[] = {ROLE_Q,     ROLE_K,     ROLE_V,       ROLE_MASK,    ROLE_BIAS,
                                        ROLE_ALIBI, ROLE_SINKS, ROLE_K_SCALE, ROLE_V_SCALE, ROLE_KEY_RANGE};
static const enum role output_roles[] = {ROLE_O, ROLE_LSE, ROLE_SCORES, ROLE_KEY_SUMS};
enum { INPUTS = sizeof input_roles / sizeof *input_roles, OUTPUTS = sizeof output_roles / sizeof *output_roles };

static struct view *view_of(struct call *call, enum role role)
{
    return (struct view *)call_view(call, role); /* of our own copy of the call */
}

static const struct services *services_of(const struct call *call) { return &call->plan->context->services; }

/* Does this input share host bytes with an output? (o = q in place) */
static bool overwritten(const struct call *call, enum role role)
{
    const struct view *in = call_view(call, role);
    struct byte_range ours, theirs;
    if (MUTANT(shadow_q_not_saved)) return false;
    if (call_range(call, role, &ours) != HEED_OK) return false;
    for (int n = 0; n < OUTPUTS; n++) {
        const struct view *out = call_view(call, output_roles[n]);
        if (!out->given || out->memory != HEED_MEMORY_HOST || call_range(call, output_roles[n], &theirs) != HEED_OK) continue;
        uintptr_t a = (uintptr_t)in->data + (uintptr_t)ours.begin, b = (uintptr_t)out->data + (uintptr_t)theirs.begin;
        if (a < b + (uintptr_t)(theirs.end - theirs.begin) && b < a + (uintptr_t)(ours.end - ours.begin)) return true;
    }
    return false;
}

/* Point the shadow's view of this role at new host memory of the range it reaches; with `read` the bytes come along. */
static heed_status copy_role(const struct call *call, struct shadow *shadow, enum role role, bool read)
{
    struct view *view = view_of(&shadow->call, role);
    struct byte_range range;
    heed_status status = call_range(call, role, &range);
    if (status != HEED_OK) return status;
    size_t bytes = (size_t)(range.end - range.begin);
    unsigned char *copy = memory_new(services_of(call), bytes ? bytes : 1, 1);
    if (!copy) return out_of_memory(bytes);
    if (read && bytes && view->memory == HEED_MEMORY_HOST) {
        memcpy(copy, view->data + range.begin, bytes);
    } else if (read && bytes) {
        struct device *device = call->plan->device;
        const heed_tensor tensor = view_memory(view);
        status = device->backend->tensor_read(device, &tensor, (uint64_t)(view->offset + range.begin), copy, bytes);
    }
    if (status != HEED_OK) {
        memory_delete(services_of(call), copy);
        return status;
    }
    shadow->copy[role] = copy;
    view->data = copy - range.begin;
    view->mem = NULL;
    view->offset = 0;
    view->memory = HEED_MEMORY_HOST;
    return HEED_OK;
}

heed_status shadow_inputs(const struct call *call, struct shadow *shadow)
{
    memset(shadow, 0, sizeof *shadow);
    shadow->call = *call;
    for (int n = 0; n < INPUTS; n++) {
        enum role role = input_roles[n];
        const struct view *view = call_view(call, role);
        if (!view->given || (view->memory == HEED_MEMORY_HOST && !overwritten(call, role))) continue;
        heed_status status = copy_role(call, shadow, role, true);
        if (status != HEED_OK) {
            shadow_release(shadow);
            return status;
        }
    }
    return HEED_OK;
}

heed_status shadow_outputs(const struct call *call, struct shadow *shadow)
{
    for (int n = 0; n < OUTPUTS; n++) {
        const struct view *view = call_view(call, output_roles[n]);
        if (!view->given || view->memory == HEED_MEMORY_HOST) continue;
        heed_status status = copy_role(call, shadow, output_roles[n], true);
        if (status != HEED_OK) return status;
    }
    return HEED_OK;
}

heed_status shadow_scratch(struct shadow *shadow)
{
    struct call call = shadow->call;
    for (int n = 0; n < OUTPUTS; n++) {
        if (!call_view(&call, output_roles[n])->given) continue;
        heed_status status = copy_role(&call, shadow, output_roles[n], false);
        if (status != HEED_OK) return status;
    }
    return HEED_OK;
}

void shadow_release(struct shadow *shadow)
{
    if (!shadow->call.plan) return;
    for (int n = 0; n < ROLE_COUNT; n++) {
        memory_delete(services_of(&shadow->call), shadow->copy[n]);
        shadow->copy[n] = NULL;
    }
}

/* ---- the second run ------------------------------------------------------ */

/* The lengths are the first batch's own (borrowed); the work list and what the device wants are the twin's. */
static heed_status twin_batch(struct heed_plan *plan, const struct heed_batch *batch, struct heed_batch *twin)
{
    const struct services *services = &plan->context->services;
    const struct backend *backend = plan->device->backend;
    *twin = *batch;
    twin->plan = plan;
    twin->state = NULL;
    memset(twin->work, 0, sizeof twin->work);
    heed_status status = schedule_batch(services, twin);
    if (status == HEED_OK && backend->batch_prepare) {
        status = backend->batch_prepare(twin);
        if (status != HEED_OK) schedule_release(services, twin);
    }
    if (status != HEED_OK) {
        twin->plan = NULL;
        return status;
    }
    if (backend->workspace) twin->workspace_bytes += backend->workspace(twin);
    return HEED_OK;
}

heed_status twin_run(struct heed_plan *plan, const struct shadow *inputs, struct twin *twin)
{
    struct device *device = plan->device;
    memset(twin, 0, sizeof *twin);
    heed_status status = twin_batch(plan, inputs->call.batch, &twin->batch);
    if (status != HEED_OK) return status;
    struct call *call = &twin->results.call;
    *call = inputs->call;
    call->plan = plan;
    call->batch = &twin->batch;
    call->workspace = (struct view){0};
    status = shadow_scratch(&twin->results);

    struct heed_buffer workspace = {.context = plan->context, .device = device, .bytes = twin->batch.workspace_bytes};
    bool host = device->info.backend == HEED_BACKEND_CPU;
    if (status == HEED_OK && workspace.bytes) {
        status = device->backend->buffer_create(&workspace);
        if (status == HEED_OK)
            call->workspace = (struct view){.data = host ? workspace.data : NULL,
                                            .mem = host ? NULL : workspace.data,
                                            .bytes = workspace.bytes,
                                            .memory = host ? HEED_MEMORY_HOST : HEED_MEMORY_CL_BUFFER,
                                            .given = true};
    }
    if (status == HEED_OK) {
        call->may_copy = call->private_output = !host;
        status = device->backend->run(call, NULL);
    }
    if (workspace.data) device->backend->buffer_destroy(&workspace);
    return status;
}

void twin_release(struct twin *twin)
{
    struct heed_plan *plan = twin->batch.plan;
    if (!plan) return;
    shadow_release(&twin->results);
    if (twin->batch.state) plan->device->backend->batch_release(&twin->batch);
    schedule_release(&plan->context->services, &twin->batch);
}
