/* SPDX-License-Identifier: MIT
 * forward.c - heed_forward(): the one call for everything, which the CPU can always answer.
 */
#include "check.h"
#include "context.h"
#include "plan.h"
#include "problem.h"
#include "schedule.h"
#include "status.h"
#include <string.h>

/* Plan, batch and run on one device; all memory that the run needs comes from the context's allocator. */
static heed_status forward_on(struct heed_context *context, struct device *device, const heed_desc *desc, const heed_lengths *lengths,
                              const heed_tensors *tensors)
{
    struct heed_plan *plan;
    struct heed_batch *batch;
    struct call call;
    heed_status status = plan_cached(context, device, desc, &plan);
    if (status != HEED_OK) return status;
    status = batch_make(plan, lengths, &batch);
    if (status != HEED_OK) {
        plan_drop(plan);
        return status;
    }
    struct heed_buffer workspace = {.context = context, .device = device, .bytes = batch->workspace_bytes};
    heed_tensor space = {.bytes = workspace.bytes};
    if (workspace.bytes) {
        status = device->backend->buffer_create(&workspace);
        space.data = workspace.data;
        space.memory = device->info.backend == HEED_BACKEND_CPU ? HEED_MEMORY_HOST : HEED_MEMORY_CL_BUFFER;
    }
    if (status == HEED_OK) {
        status = tensors_take(plan, batch, tensors, workspace.bytes ? &space : NULL, true, &call);
        if (status == HEED_OK) {
            call.may_copy = call.private_output = device->info.backend != HEED_BACKEND_CPU;
            status = run_validated(&call);
        }
        if (workspace.bytes) device->backend->buffer_destroy(&workspace);
    }
    batch_drop(batch);
    plan_drop(plan);
    return status;
}

/* Multiply-adds of the run if nothing were hidden: enough to tell a crumb from a loaf. Bad input counts as 0: the CPU will name the fault. */
static double size_of(const heed_desc *desc, const heed_lengths *lengths)
{
    heed_lengths given = {0};
    heed_desc taken = {0};
    if (struct_take(&given, sizeof given, lengths, "heed_lengths") != HEED_OK || struct_take(&taken, sizeof taken, desc, "heed_desc") != HEED_OK)
        return 0;
    if (given.batch <= 0) return 0;
    const double queries = given.q_start ? given.q_start[given.batch] : (double)given.batch * given.q_len;
    double keys = given.kv_len;
    if (given.kv_start) keys = given.kv_start[given.batch] / (double)given.batch;
    for (int32_t b = 0; given.kv_lens && b < given.batch; b++)
        if (b == 0 || given.kv_lens[b] > keys) keys = given.kv_lens[b];
    return queries * keys * taken.q_heads * (taken.head_dim + (taken.v_head_dim ? taken.v_head_dim : taken.head_dim));
}

/* What a device may fail with while the CPU can still answer. Never the caller's mistakes, never FORKED, never a mismatch. */
static bool cpu_may_answer(heed_status status)
{
    return status == HEED_DEVICE_FAILED || status == HEED_BUILD_FAILED || status == HEED_UNSUPPORTED || status == HEED_OUT_OF_MEMORY;
}

heed_status heed_forward(heed_context *context, int32_t index, const heed_desc *desc, const heed_lengths *lengths,
                         const heed_tensors *tensors)
{
    struct device *device;
    if (!context || !desc || !lengths || !tensors)
        return fail(HEED_INVALID_ARGUMENT, "%s is NULL", !context ? "context" : !desc ? "desc" : !lengths ? "lengths" : "tensors");
    heed_status status =
        index == HEED_DEVICE_AUTO ? device_choose(context, size_of(desc, lengths), &device) : device_get(context, index, &device);
    if (status != HEED_OK) return status;
    status = forward_on(context, device, desc, lengths, tensors);
    if (device->info.backend == HEED_BACKEND_CPU || !cpu_may_answer(status) || (context->services.flags & HEED_NO_FALLBACK)) return status;
    log_line(&context->services, 1, "%s: %s (%s); the CPU answers", device->info.name, heed_error_message(), heed_status_string(status));
    return forward_on(context, context->devices[0], desc, lengths, tensors);
}
