/* SPDX-License-Identifier: MIT
 * devices.c - growing the list of devices. A list that has been read stays valid: devices are never moved or removed.
 */
#include "devices.h"
#include "status.h"
#include <string.h>

struct device *device_new(struct heed_context *context, const struct backend *backend)
{
    struct device *device = memory_new(&context->services, 1, sizeof *device);
    if (!device) return NULL;
    device->context = context;
    device->backend = backend;
    device->info.struct_size = sizeof device->info;
    device->info.backend = backend->id;
    return device;
}

heed_status device_append(struct heed_context *context, struct device *device)
{
    const size_t count = (size_t)context->device_count;
    struct device **longer = memory_new(&context->services, count + 1, sizeof *longer);
    if (!longer) return out_of_memory((count + 1) * sizeof *longer);
    if (count) memcpy(longer, context->devices, count * sizeof *longer);
    longer[count] = device;
    memory_delete(&context->services, context->devices);
    context->devices = longer;
    context->device_count++;
    return HEED_OK;
}
