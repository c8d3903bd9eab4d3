/* SPDX-License-Identifier: MIT
 * lifetime.c - freeing a context, once nobody holds it.
 */
#include "lifetime.h"
#include "cpu/cpu.h"
#include "status.h"
#ifdef HEED_OPENCL
#include "opencl/opencl.h"
#endif

static void context_free(struct heed_context *context)
{
    struct services services = context->services; /* outlives the block that holds it */
    for (int32_t i = 0; i < context->device_count; i++) {
        struct device *device = context->devices[i];
#ifdef HEED_OPENCL
        if (device->info.backend == HEED_BACKEND_OPENCL) opencl_device_release(device);
#endif
        memory_delete(&services, device);
    }
    memory_delete(&services, context->devices);
    cpu_threads_destroy(&context->services);
    memory_delete(&services, services.cache_dir);
    memory_delete(&services, services.tuning_file);
    memory_delete(&services, context->report_dir);
    pthread_mutex_destroy(&context->lock);
    memory_delete(&services, context);
}

void context_hold(struct heed_context *context) { atomic_fetch_add(&context->refs, 1); }

void context_drop(struct heed_context *context)
{
    if (atomic_fetch_sub(&context->refs, 1) == 1) context_free(context);
}
