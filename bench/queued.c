/* SPDX-License-Identifier: MIT
 * queued.c - heed_run_cl() many times, one wait. The time of a run alone holds the start and the wait, which on a GPU may be longer than a step of decode.
 */
#include "queued.h"
#include "status.h"
#include "tool.h"
#ifdef HEED_OPENCL
#include "opencl/cl.h"
#include "context.h"
#include "heed_opencl.h"

heed_status queued_open(heed_context *context, int32_t device, void **queue)
{
    cl_int code = CL_SUCCESS;
    *queue = NULL;
    if (device == 0) return HEED_OK;
    struct cl_device *cl = cl_device_of(context->devices[device]);
    *queue = clCreateCommandQueue(cl->context, cl->id, 0, &code);
    return *queue ? HEED_OK : cl_failed(cl, "clCreateCommandQueue", code);
}

heed_status queued_runs(struct prepared *p, void *queue, int count, double *seconds)
{
    struct cl_device *cl = cl_device_of(p->context->devices[p->device]);
    heed_status status = HEED_OK;
    const double begin = seconds_now();
    for (int n = 0; n < count && status == HEED_OK; n++)
        status = heed_run_cl(p->plan, p->batch, &p->tensors, p->workspace.data ? &p->workspace : NULL, queue, 0, NULL, NULL);
    const heed_status end = CL(cl, clFinish(queue));
    *seconds = seconds_now() - begin;
    return status != HEED_OK ? status : end;
}

void queued_close(void *queue)
{
    if (queue) clReleaseCommandQueue(queue);
}
#else
heed_status queued_open(heed_context *context, int32_t device, void **queue)
{
    (void)context, (void)device;
    *queue = NULL;
    return HEED_OK;
}

heed_status queued_runs(struct prepared *p, void *queue, int count, double *seconds)
{
    (void)p, (void)queue, (void)count, (void)seconds;
    return fail(HEED_UNSUPPORTED, "built without OpenCL");
}

void queued_close(void *queue) { (void)queue; }
#endif
