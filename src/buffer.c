/* SPDX-License-Identifier: MIT
 * buffer.c - public entry points: device memory for callers without OpenCL code of their own.
 */
#include "context.h"
#include "lifetime.h"
#include "status.h"

heed_status heed_buffer_create(heed_context *context, int32_t index, size_t bytes, heed_buffer **out)
{
    struct device *device;
    if (!context || !out) return fail(HEED_INVALID_ARGUMENT, "%s is NULL", context ? "buffer" : "context");
    if (bytes == 0) return fail(HEED_INVALID_ARGUMENT, "bytes is 0: a buffer holds at least one byte");
    heed_status status = device_get(context, index, &device);
    if (status != HEED_OK) return status;
    if (!device->info.usable) return fail(HEED_UNSUPPORTED, "device %s is not usable: %s", device->info.name, device->info.reason);
    if (bytes > device->info.memory_bytes && device->info.memory_bytes)
        return fail(HEED_UNSUPPORTED, "bytes %zu is more than device %s has (%llu)", bytes, device->info.name,
                    (unsigned long long)device->info.memory_bytes);
    struct heed_buffer *buffer = memory_new(&context->services, 1, sizeof *buffer);
    if (!buffer) return out_of_memory(sizeof *buffer);
    *buffer = (struct heed_buffer){.context = context, .device = device, .bytes = bytes};
    status = device->backend->buffer_create(buffer);
    if (status != HEED_OK) {
        memory_delete(&context->services, buffer);
        return status;
    }
    context_hold(context);
    *out = buffer;
    return HEED_OK;
}

void heed_buffer_destroy(heed_buffer *buffer)
{
    if (!buffer) return;
    struct heed_context *context = buffer->context;
    buffer->device->backend->buffer_destroy(buffer);
    memory_delete(&context->services, buffer);
    context_drop(context);
}

/* Shared by read and write: [offset, offset + bytes) must lie inside. */
static heed_status inside(const heed_buffer *buffer, size_t offset, const void *host, size_t bytes)
{
    if (!buffer) return fail(HEED_INVALID_ARGUMENT, "buffer is NULL");
    if (!host && bytes) return fail(HEED_INVALID_ARGUMENT, "host memory is NULL for %zu bytes", bytes);
    if (offset > buffer->bytes || bytes > buffer->bytes - offset)
        return fail(HEED_OUT_OF_BOUNDS, "offset %zu + bytes %zu lies beyond the buffer's %zu bytes", offset, bytes, buffer->bytes);
    return HEED_OK;
}

heed_status heed_buffer_write(heed_buffer *buffer, size_t offset, const void *from, size_t bytes)
{
    heed_status status = inside(buffer, offset, from, bytes);
    return status == HEED_OK && bytes ? buffer->device->backend->buffer_write(buffer, offset, from, bytes) : status;
}

heed_status heed_buffer_read(const heed_buffer *buffer, size_t offset, void *to, size_t bytes)
{
    heed_status status = inside(buffer, offset, to, bytes);
    return status == HEED_OK && bytes ? buffer->device->backend->buffer_read(buffer, offset, to, bytes) : status;
}

heed_tensor heed_buffer_tensor(const heed_buffer *buffer, heed_tensor layout)
{
    layout.data = buffer ? buffer->data : NULL;
    layout.bytes = buffer ? buffer->bytes : 0;
    layout.memory = buffer && buffer->device->info.backend == HEED_BACKEND_OPENCL ? HEED_MEMORY_CL_BUFFER : HEED_MEMORY_HOST;
    return layout;
}
