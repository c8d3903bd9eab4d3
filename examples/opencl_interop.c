/* SPDX-License-Identifier: MIT
 * opencl_interop.c - heed inside a program that already uses OpenCL: its context, its queue, its buffers, its events. Nothing blocks until
 * the result is read.
 * Build: cc opencl_interop.c -lheed -lOpenCL
 */
#define CL_USE_DEPRECATED_OPENCL_1_2_APIS /* clCreateCommandQueue, which every device has */
#include <heed_opencl.h>
#include <stdio.h>
#include <stdlib.h>

enum { HEADS = 8, KV_HEADS = 2, DIM = 64, TOKENS = 128 };

#define CHECK(call)                                                                                                              \
    do {                                                                                                                         \
        if ((call) != HEED_OK) {                                                                                                 \
            fprintf(stderr, "%s: %s\n", #call, heed_error_message());                                                            \
            return 1;                                                                                                            \
        }                                                                                                                        \
    } while (0)

/* [tokens, heads, DIM] of f32 */
static heed_tensor layout(int32_t heads)
{
    return (heed_tensor){.head_stride = DIM, .token_stride = (int64_t)heads * DIM};
}

static cl_mem buffer(cl_context cl, size_t floats, float *from)
{
    return clCreateBuffer(cl, CL_MEM_READ_WRITE | (from ? CL_MEM_COPY_HOST_PTR : 0), floats * sizeof(float), from, NULL);
}

int main(void)
{
    /* What the program has anyway. */
    cl_platform_id platform;
    cl_device_id id;
    cl_uint found = 0;
    if (clGetPlatformIDs(1, &platform, &found) != CL_SUCCESS || found == 0 ||
        clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 1, &id, NULL) != CL_SUCCESS) {
        printf("no OpenCL device here\n");
        return 0;
    }
    cl_context cl = clCreateContext(NULL, 1, &id, NULL, NULL, NULL);
    cl_command_queue queue = clCreateCommandQueue(cl, id, 0, NULL);
    float *x = malloc(sizeof(float) * TOKENS * HEADS * DIM);
    if (!cl || !queue || !x) return 1;
    for (int i = 0; i < TOKENS * HEADS * DIM; i++) x[i] = (float)(i % 17 - 8) / 8;
    cl_mem q = buffer(cl, TOKENS * HEADS * DIM, x), k = buffer(cl, TOKENS * KV_HEADS * DIM, x), v = buffer(cl, TOKENS * KV_HEADS * DIM, x);
    cl_mem o = buffer(cl, TOKENS * HEADS * DIM, NULL);
    cl_event ready = clCreateUserEvent(cl, NULL), done; /* stands for the program's own last command */

    /* heed joins in: a device for the context, a plan for this sort of problem, a batch for these lengths. */
    heed_context *context;
    heed_plan *plan;
    heed_batch *batch;
    int32_t device;
    const heed_desc desc = {.struct_size = sizeof desc, .q_heads = HEADS, .kv_heads = KV_HEADS, .head_dim = DIM, .flags = HEED_CAUSAL};
    const heed_lengths lengths = {.struct_size = sizeof lengths, .batch = 1, .q_len = TOKENS, .kv_len = TOKENS};
    CHECK(heed_context_create(NULL, &context));
    CHECK(heed_context_add_cl_device(context, cl, id, &device));
    CHECK(heed_plan_create(context, device, &desc, NULL, &plan));
    CHECK(heed_batch_create(plan, &lengths, &batch));

    heed_tensors tensors = {.struct_size = sizeof tensors};
    CHECK(heed_tensor_from_cl(context, device, q, layout(HEADS), &tensors.q));
    CHECK(heed_tensor_from_cl(context, device, k, layout(KV_HEADS), &tensors.k));
    CHECK(heed_tensor_from_cl(context, device, v, layout(KV_HEADS), &tensors.v));
    CHECK(heed_tensor_from_cl(context, device, o, layout(HEADS), &tensors.o));
    heed_buffer *space = NULL;
    heed_tensor workspace = {0};
    if (heed_batch_workspace_size(batch)) CHECK(heed_buffer_create(context, device, heed_batch_workspace_size(batch), &space));
    if (space) workspace = heed_buffer_tensor(space, workspace);

    CHECK(heed_run_cl(plan, batch, &tensors, &workspace, queue, 1, &ready, &done)); /* enqueued, waiting for `ready` */
    heed_batch_destroy(batch); /* the queued run keeps what it needs */
    heed_plan_destroy(plan);
    clSetUserEventStatus(ready, CL_COMPLETE);
    if (clEnqueueReadBuffer(queue, o, CL_TRUE, 0, sizeof(float) * TOKENS * HEADS * DIM, x, 1, &done, NULL) != CL_SUCCESS) return 1;
    printf("o[0] = %g, o[last] = %g\n", (double)x[0], (double)x[TOKENS * HEADS * DIM - 1]);

    clReleaseEvent(ready), clReleaseEvent(done);
    clReleaseMemObject(q), clReleaseMemObject(k), clReleaseMemObject(v), clReleaseMemObject(o);
    heed_buffer_destroy(space);
    heed_context_destroy(context);
    clReleaseCommandQueue(queue), clReleaseContext(cl);
    free(x);
    return 0;
}
