/* SPDX-License-Identifier: MIT
 * opencl.h - the OpenCL wing as the upper floors see it: its backend, and finding devices.
 */
#ifndef HEED_OPENCL_WING_H
#define HEED_OPENCL_WING_H

#include "../internal.h"

extern const struct backend opencl_backend;

/* All devices of all platforms, ranked by us (GPUs first, then accelerators, then CPUs; in a family by compute units), appended to
 * context->devices. No platform is no error. Called under context->lock, once, at the first question for OpenCL devices. */
heed_status opencl_list_devices(struct heed_context *context);
/* A device the caller has a cl_context for (heed_context_add_cl_device). cl, id: cl_context, cl_device_id. */
heed_status opencl_add_device(struct heed_context *context, void *cl, void *id, int32_t *index);
void opencl_device_release(struct device *device); /* waits for what still runs */
/* heed_tensor_from_cl: size and context of a cl_mem asked from OpenCL. */
heed_status opencl_tensor_from_cl(struct device *device, void *mem, heed_tensor layout, heed_tensor *tensor);

#endif
