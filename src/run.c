/* SPDX-License-Identifier: MIT
 * run.c - public entry points: plans, batches and the blocking calls on them.
 */
#include "check.h"
#include "context.h"
#include "plan.h"
#include "problem.h"
#include "status.h"
#include <string.h>

static heed_status null_argument(const char *name) { return fail(HEED_INVALID_ARGUMENT, "%s is NULL", name); }

heed_status heed_plan_create(heed_context *context, int32_t index, const heed_desc *desc, const char *kernel, heed_plan **plan)
{
    struct device *device;
    if (!context) return null_argument("context");
    if (!desc) return null_argument("desc");
    if (!plan) return null_argument("plan");
    if (index == HEED_DEVICE_AUTO)
        return fail(HEED_INVALID_ARGUMENT, "device HEED_DEVICE_AUTO: only heed_forward() chooses by size, a plan needs a device");
    heed_status status = device_get(context, index, &device);
    return status == HEED_OK ? plan_make(context, device, desc, kernel, plan) : status;
}

void heed_plan_destroy(heed_plan *plan) { plan_drop(plan); }

size_t heed_plan_explain(const heed_plan *plan, char *text, size_t capacity)
{
    if (!plan) return 0;
    const size_t length = strlen(plan->explain);
    if (text && capacity) {
        const size_t n = length < capacity ? length : capacity - 1;
        memcpy(text, plan->explain, n);
        text[n] = 0;
    }
    return length;
}

heed_status heed_batch_create(const heed_plan *plan, const heed_lengths *lengths, heed_batch **batch)
{
    if (!plan) return null_argument("plan");
    if (!lengths) return null_argument("lengths");
    if (!batch) return null_argument("batch");
    return batch_make((heed_plan *)plan, lengths, batch);
}

heed_status heed_batch_update(heed_batch *batch, const heed_lengths *lengths)
{
    if (!batch) return null_argument("batch");
    if (!lengths) return null_argument("lengths");
    return batch_update(batch, lengths);
}

void heed_batch_destroy(heed_batch *batch) { batch_drop(batch); }

size_t heed_batch_workspace_size(const heed_batch *batch) { return batch ? batch->workspace_bytes : 0; }

static heed_status batch_fits(const heed_plan *plan, const heed_batch *batch)
{
    if (!plan) return null_argument("plan");
    if (!batch) return null_argument("batch");
    if (batch->plan != plan) return fail(HEED_INVALID_ARGUMENT, "batch was made for another plan");
    return HEED_OK;
}

heed_status heed_run(const heed_plan *plan, const heed_batch *batch, const heed_tensors *tensors, const heed_tensor *workspace)
{
    struct call call;
    heed_status status = batch_fits(plan, batch);
    if (status == HEED_OK) status = tensors_take(plan, batch, tensors, workspace, false, &call);
    return status == HEED_OK ? run_validated(&call) : status;
}

heed_status heed_append(const heed_plan *plan, const heed_batch *batch, heed_type new_type, const heed_tensor *new_k,
                        const heed_tensor *new_v, const heed_tensors *tensors)
{
    struct call call;
    heed_status status = batch_fits(plan, batch);
    if (status == HEED_OK) status = append_take(plan, batch, new_type, new_k, new_v, tensors, &call);
    return status == HEED_OK ? plan->device->backend->append(&call, NULL) : status;
}

heed_status heed_rotate(const heed_plan *plan, const heed_batch *batch, int32_t heads, const heed_tensor *x, const heed_tensors *tensors)
{
    struct call call;
    heed_status status = batch_fits(plan, batch);
    if (status == HEED_OK) status = rotate_take(plan, batch, heads, x, tensors, &call);
    return status == HEED_OK ? plan->device->backend->rotate(&call, NULL) : status;
}

heed_status heed_merge(const heed_plan *plan, const heed_batch *batch, const heed_tensor *o_a, const heed_tensor *lse_a,
                       const heed_tensor *o_b, const heed_tensor *lse_b, const heed_tensor *o, const heed_tensor *lse)
{
    struct call call;
    heed_status status = batch_fits(plan, batch);
    if (status == HEED_OK) status = merge_take(plan, batch, o_a, lse_a, o_b, lse_b, o, lse, &call);
    return status == HEED_OK ? plan->device->backend->merge(&call, NULL) : status;
}
