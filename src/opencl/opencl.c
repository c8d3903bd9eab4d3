/* SPDX-License-Identifier: MIT
 * opencl.c - the OpenCL wing's backend: its table of functions, buffers, and reading and writing the caller's device tensors.
 */
#include "opencl.h"
#include "cl.h"
#include "../mutant.h"

/* A wait on our own queue. After three failures in a row the device counts as lost: it is not asked again until somebody makes a new
 * context. */
heed_status cl_wait_failed(struct cl_device *device, const char *call, cl_int code)
{
    if (atomic_fetch_add(&device->failed_waits, 1) + 1 >= 3) atomic_store(&device->lost, code);
    return cl_failed(device, call, code);
}

/* ---- buffers --------------------------------------------------------------- */

static heed_status buffer_create(struct heed_buffer *buffer)
{
    struct cl_device *device = cl_device_of(buffer->device);
    heed_status status = cl_device_open(device);
    if (status != HEED_OK) return status;
    if (buffer->bytes > device->max_alloc)
        return fail(HEED_UNSUPPORTED, "buffer of %zu bytes: %s allocates at most %llu at once", buffer->bytes, device->name,
                    (unsigned long long)device->max_alloc);
    cl_int code = CL_SUCCESS;
    cl_mem mem = clCreateBuffer(device->context, CL_MEM_READ_WRITE, buffer->bytes ? buffer->bytes : 1, NULL, &code);
    if (!mem) return cl_failed(device, "clCreateBuffer", code);
    buffer->data = mem;
    return HEED_OK;
}

static void buffer_destroy(struct heed_buffer *buffer)
{
    if (buffer->data && !cl_device_forked(cl_device_of(buffer->device))) clReleaseMemObject(buffer->data);
    buffer->data = NULL;
}

/* A blocking transfer, and then a finished queue: on one CPU runtime a "blocking" write was seen to return before other queues see it. A
 * failed one may still be under way in host memory of the caller: the queue is finished before we return. */
static heed_status transfer(struct cl_device *device, cl_mem mem, size_t offset, void *to, const void *from, size_t bytes)
{
    heed_status status = cl_device_open(device);
    if (status != HEED_OK || bytes == 0) return status;
    cl_int code = to ? clEnqueueReadBuffer(device->queue, mem, CL_TRUE, offset, bytes, to, 0, NULL, NULL)
                     : clEnqueueWriteBuffer(device->queue, mem, CL_TRUE, offset, bytes, from, 0, NULL, NULL);
    const cl_int finish = clFinish(device->queue);
    if (code != CL_SUCCESS) return cl_failed(device, to ? "clEnqueueReadBuffer" : "clEnqueueWriteBuffer", code);
    if (finish != CL_SUCCESS) {
        clFinish(device->queue);
        return cl_wait_failed(device, "clFinish", finish);
    }
    atomic_store(&device->failed_waits, 0);
    return HEED_OK;
}

static heed_status buffer_write(struct heed_buffer *buffer, size_t offset, const void *from, size_t bytes)
{
    return transfer(cl_device_of(buffer->device), buffer->data, offset, NULL, from, bytes);
}

static heed_status buffer_read(const struct heed_buffer *buffer, size_t offset, void *to, size_t bytes)
{
    return transfer(cl_device_of(buffer->device), buffer->data, offset, to, NULL, bytes);
}

/* ---- the caller's tensors ------------------------------------------------------ */

/* Asked from OpenCL, because a cl_mem of another context is accepted as a kernel argument in silence. */
static heed_status mem_bytes(struct cl_device *device, cl_mem mem, uint64_t *bytes)
{
    cl_context owner = NULL;
    size_t size = 0;
    heed_status status = cl_device_open(device);
    if (status != HEED_OK) return status;
    cl_int code = clGetMemObjectInfo(mem, CL_MEM_CONTEXT, sizeof owner, &owner, NULL);
    if (code == CL_SUCCESS) code = clGetMemObjectInfo(mem, CL_MEM_SIZE, sizeof size, &size, NULL);
    if (code == CL_INVALID_MEM_OBJECT) return fail(HEED_INVALID_ARGUMENT, "mem is no cl_mem: clGetMemObjectInfo: CL_INVALID_MEM_OBJECT");
    if (code != CL_SUCCESS) return cl_failed(device, "clGetMemObjectInfo", code);
    if (owner != device->context && !MUTANT(cl_foreign_mem))
        return fail(HEED_INVALID_ARGUMENT, "the cl_mem belongs to another cl_context than device %s", device->name);
    *bytes = size;
    return HEED_OK;
}

static heed_status tensor_bytes(struct device *device, const heed_tensor *tensor, uint64_t *bytes)
{
    *bytes = tensor->bytes;
    if (tensor->memory == HEED_MEMORY_CL_BUFFER) return mem_bytes(cl_device_of(device), tensor->data, bytes);
    if (tensor->memory == HEED_MEMORY_CL_SVM && !cl_device_of(device)->shares)
        return fail(HEED_UNSUPPORTED, "HEED_MEMORY_CL_SVM: device %s has no shared virtual memory", cl_device_of(device)->name);
    return HEED_OK;
}

heed_status opencl_tensor_from_cl(struct device *device, void *mem, heed_tensor layout, heed_tensor *tensor)
{
    uint64_t bytes = 0;
    if (!mem) return fail(HEED_INVALID_ARGUMENT, "mem is NULL");
    heed_status status = mem_bytes(cl_device_of(device), mem, &bytes);
    if (status != HEED_OK) return status;
    if (layout.bytes > bytes)
        return fail(HEED_OUT_OF_BOUNDS, "layout.bytes is %llu, the cl_mem has %llu", (unsigned long long)layout.bytes,
                    (unsigned long long)bytes);
    *tensor = layout;
    tensor->data = mem;
    tensor->memory = HEED_MEMORY_CL_BUFFER;
    if (tensor->bytes == 0) tensor->bytes = bytes;
    return HEED_OK;
}

/* Shared memory goes through a cl_mem of the same bytes: so it needs no function beyond OpenCL 1.2. */
static heed_status tensor_transfer(struct device *device, const heed_tensor *tensor, uint64_t first, void *to, const void *from, size_t bytes)
{
    struct cl_device *d = cl_device_of(device);
    if (tensor->memory != HEED_MEMORY_CL_SVM) return transfer(d, tensor->data, first, to, from, bytes);
    heed_status status = cl_device_open(d);
    if (status != HEED_OK || bytes == 0) return status;
    cl_int code = CL_SUCCESS;
    cl_mem mem = clCreateBuffer(d->context, CL_MEM_READ_WRITE | CL_MEM_USE_HOST_PTR, bytes, (unsigned char *)tensor->data + first, &code);
    if (!mem) return cl_failed(d, "clCreateBuffer", code);
    status = transfer(d, mem, 0, to, from, bytes);
    clReleaseMemObject(mem);
    return status;
}

static heed_status tensor_read(struct device *device, const heed_tensor *tensor, uint64_t first, void *to, size_t bytes)
{
    return tensor_transfer(device, tensor, first, to, NULL, bytes);
}

static heed_status tensor_write(struct device *device, const heed_tensor *tensor, uint64_t first, const void *from, size_t bytes)
{
    return tensor_transfer(device, tensor, first, NULL, from, bytes);
}

static const struct kernel_row *const lists[] = {cl_rows, NULL};

const struct backend opencl_backend = {
    .id = HEED_BACKEND_OPENCL,
    .lists = lists,
    .admit = cl_admit,
    .plan_prepare = cl_plan_prepare,
    .plan_release = cl_plan_release,
    .batch_prepare = cl_batch_prepare,
    .batch_release = cl_batch_release,
    .workspace = cl_workspace_bytes,
    .run = cl_run,
    .append = cl_append,
    .rotate = cl_rotate,
    .merge = cl_merge,
    .buffer_create = buffer_create,
    .buffer_destroy = buffer_destroy,
    .buffer_write = buffer_write,
    .buffer_read = buffer_read,
    .tensor_read = tensor_read,
    .tensor_write = tensor_write,
    .tensor_bytes = tensor_bytes,
};
