/* SPDX-License-Identifier: MIT
 * opencl_api.c - public entry points of heed_opencl.h: the caller's devices, buffers, queues and events.
 */
#include "heed_opencl.h"
#include "context.h"
#include "opencl/opencl.h"
#include "problem.h"
#include "status.h"

static heed_status null_argument(const char *name) { return fail(HEED_INVALID_ARGUMENT, "%s is NULL", name); }

heed_status heed_context_add_cl_device(heed_context *context, cl_context cl, cl_device_id id, int32_t *device)
{
    if (!context) return null_argument("context");
    if (!cl) return null_argument("cl");
    if (!id) return null_argument("id");
    if (!device) return null_argument("device");
    return opencl_add_device(context, cl, id, device);
}

static heed_status opencl_device(heed_context *context, int32_t index, struct device **device)
{
    heed_status status = device_get(context, index, device);
    if (status != HEED_OK || (*device)->info.backend == HEED_BACKEND_OPENCL) return status;
    return fail(HEED_INVALID_ARGUMENT, "device %d, %s, is no OpenCL device", index, (*device)->info.name);
}

heed_status heed_tensor_from_cl(heed_context *context, int32_t index, cl_mem mem, heed_tensor layout, heed_tensor *tensor)
{
    struct device *device;
    if (!context) return null_argument("context");
    if (!tensor) return null_argument("tensor");
    heed_status status = opencl_device(context, index, &device);
    return status == HEED_OK ? opencl_tensor_from_cl(device, mem, layout, tensor) : status;
}

/* What the four calls on a caller's queue check before all else. */
static heed_status check(const heed_plan *plan, const heed_batch *batch)
{
    if (!plan) return null_argument("plan");
    if (!batch) return null_argument("batch");
    if (batch->plan != plan) return fail(HEED_INVALID_ARGUMENT, "batch was made for another plan");
    if (plan->device->info.backend != HEED_BACKEND_OPENCL)
        return fail(HEED_INVALID_ARGUMENT, "the plan is one of device %s, which has no queues", plan->device->info.name);
    return HEED_OK;
}

static struct queue_args args_of(cl_command_queue queue, cl_uint num_wait, const cl_event *wait, cl_event *done)
{
    return (struct queue_args){queue, num_wait, wait, done};
}

heed_status heed_run_cl(const heed_plan *plan, const heed_batch *batch, const heed_tensors *tensors, const heed_tensor *workspace,
                        cl_command_queue queue, cl_uint num_wait, const cl_event *wait, cl_event *done)
{
    struct call call;
    const struct queue_args args = args_of(queue, num_wait, wait, done);
    heed_status status = check(plan, batch);
    if (status == HEED_OK) status = tensors_take(plan, batch, tensors, workspace, false, &call);
    return status == HEED_OK ? plan->device->backend->run(&call, &args) : status;
}

heed_status heed_append_cl(const heed_plan *plan, const heed_batch *batch, heed_type new_type, const heed_tensor *new_k,
                           const heed_tensor *new_v, const heed_tensors *tensors, cl_command_queue queue, cl_uint num_wait,
                           const cl_event *wait, cl_event *done)
{
    struct call call;
    const struct queue_args args = args_of(queue, num_wait, wait, done);
    heed_status status = check(plan, batch);
    if (status == HEED_OK) status = append_take(plan, batch, new_type, new_k, new_v, tensors, &call);
    return status == HEED_OK ? plan->device->backend->append(&call, &args) : status;
}

heed_status heed_rotate_cl(const heed_plan *plan, const heed_batch *batch, int32_t heads, const heed_tensor *x, const heed_tensors *tensors,
                           cl_command_queue queue, cl_uint num_wait, const cl_event *wait, cl_event *done)
{
    struct call call;
    const struct queue_args args = args_of(queue, num_wait, wait, done);
    heed_status status = check(plan, batch);
    if (status == HEED_OK) status = rotate_take(plan, batch, heads, x, tensors, &call);
    return status == HEED_OK ? plan->device->backend->rotate(&call, &args) : status;
}

heed_status heed_merge_cl(const heed_plan *plan, const heed_batch *batch, const heed_tensor *o_a, const heed_tensor *lse_a,
                          const heed_tensor *o_b, const heed_tensor *lse_b, const heed_tensor *o, const heed_tensor *lse,
                          cl_command_queue queue, cl_uint num_wait, const cl_event *wait, cl_event *done)
{
    struct call call;
    const struct queue_args args = args_of(queue, num_wait, wait, done);
    heed_status status = check(plan, batch);
    if (status == HEED_OK) status = merge_take(plan, batch, o_a, lse_a, o_b, lse_b, o, lse, &call);
    return status == HEED_OK ? plan->device->backend->merge(&call, &args) : status;
}
