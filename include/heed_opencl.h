/* SPDX-License-Identifier: MIT */
/* heed_opencl.h - lend heed your OpenCL objects, or take events from it. A program that calls OpenCL itself links it itself, and may
 * define CL_TARGET_OPENCL_VERSION before this header (heed asks for nothing beyond 1.2). */
#ifndef HEED_OPENCL_H
#define HEED_OPENCL_H

#include "heed.h"
#include <CL/cl.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Add a device that the caller already has a cl_context for. Both objects are retained until the context is
 * destroyed; *device is its number. A device that cannot be used is added all the same, and heed_device_get_info() says why. */
HEED_API heed_status heed_context_add_cl_device(heed_context *context, cl_context cl, cl_device_id id, int32_t *device);

/* View of a cl_mem for a device of the context; its size and cl_context are asked from OpenCL and checked. The caller keeps ownership. */
HEED_API heed_status heed_tensor_from_cl(heed_context *context, int32_t device, cl_mem mem, heed_tensor layout, heed_tensor *tensor);

/* heed_run() on the caller's queue (in-order or out-of-order): returns once everything is enqueued. wait: events to wait for.
 * done: an event that completes with o and lse, to be released by the caller; may be NULL. On a failure found before the first
 * launch nothing was enqueued; if a later enqueue fails, what was enqueued runs out, *done (if asked for) completes after it, o is
 * undefined and the status is DEVICE_FAILED. Until done has completed, the tensors and the workspace belong to this run; plan and
 * batch may be destroyed or updated at once (the run keeps what it needs). Work is cut into launches short enough for a desktop's
 * watchdog. Never validated by validate_every. */
HEED_API heed_status heed_run_cl(const heed_plan *plan, const heed_batch *batch, const heed_tensors *tensors, const heed_tensor *workspace,
                                 cl_command_queue queue, cl_uint num_wait, const cl_event *wait, cl_event *done);

/* heed_append(), heed_rotate(), heed_merge() in the same way: their arguments, then queue, num_wait, wait, done. */
HEED_API heed_status heed_append_cl(const heed_plan *plan, const heed_batch *batch, heed_type new_type, const heed_tensor *new_k,
                                    const heed_tensor *new_v, const heed_tensors *tensors,
                                    cl_command_queue queue, cl_uint num_wait, const cl_event *wait, cl_event *done);
HEED_API heed_status heed_rotate_cl(const heed_plan *plan, const heed_batch *batch, int32_t heads, const heed_tensor *x,
                                    const heed_tensors *tensors,
                                    cl_command_queue queue, cl_uint num_wait, const cl_event *wait, cl_event *done);
HEED_API heed_status heed_merge_cl(const heed_plan *plan, const heed_batch *batch, const heed_tensor *o_a, const heed_tensor *lse_a,
                                   const heed_tensor *o_b, const heed_tensor *lse_b, const heed_tensor *o, const heed_tensor *lse,
                                   cl_command_queue queue, cl_uint num_wait, const cl_event *wait, cl_event *done);

#ifdef __cplusplus
}
#endif
#endif
