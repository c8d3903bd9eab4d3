/* SPDX-License-Identifier: MIT
 * context.c - public entry points: contexts and their devices.
 */
#include "context.h"
#include "cpu/cpu.h"
#include "devices.h"
#include "lifetime.h"
#include "options.h"
#include "plan.h"
#include "problem.h"
#include "registry.h"
#include "status.h"
#include <ctype.h>
#include <string.h>
#include <unistd.h>
#ifdef HEED_OPENCL
#include "opencl/opencl.h"
#endif

/* Below so many multiply-adds a launch on another device costs more than it saves (about 5 MFLOP). */
static const double worth_the_trip = 2.5e6;

static heed_status add_cpu(struct heed_context *context)
{
    struct device *cpu = device_new(context, &cpu_backend);
    if (!cpu) return out_of_memory(sizeof *cpu);
    cpu_device_info(&context->services, &cpu->info);
    cpu_device_costs(cpu);
    heed_status status = device_append(context, cpu);
    if (status != HEED_OK) memory_delete(&context->services, cpu);
    return status;
}

heed_status heed_context_create(const heed_context_options *options, heed_context **out)
{
    heed_allocator allocator;
    if (!out) return fail(HEED_INVALID_ARGUMENT, "context is NULL");
    heed_status status = options_allocator(options, &allocator);
    if (status != HEED_OK) return status;
    struct services services = {.allocator = allocator};
    struct heed_context *context = memory_new(&services, 1, sizeof *context);
    if (!context) return out_of_memory(sizeof *context);
    context->services = services;
    status = options_take(options, context);
    if (status != HEED_OK) {
        memory_delete(&services, context);
        return status;
    }
    atomic_init(&context->refs, 1);
    pthread_mutex_init(&context->lock, NULL);
    context->pid = (int)getpid();
    status = add_cpu(context);
    if (status != HEED_OK) {
        context_drop(context);
        return status;
    }
    *out = context;
    return HEED_OK;
}

void heed_context_destroy(heed_context *context)
{
    if (!context) return;
    plan_cache_clear(context);
    context_drop(context);
}

/* ---- devices ---------------------------------------------------------------- */

/* OpenCL is asked once, at the first question for its devices: its threads would break a later fork(). */
static void list_opencl(struct heed_context *context)
{
    pthread_mutex_lock(&context->lock);
    if (!context->opencl_listed) {
        context->opencl_listed = true;
#ifdef HEED_OPENCL
        if (!(context->services.flags & HEED_NO_OPENCL) && opencl_list_devices(context) != HEED_OK)
            log_line(&context->services, 1, "OpenCL devices could not be listed: %s", heed_error_message());
#endif
    }
    pthread_mutex_unlock(&context->lock);
}

int32_t device_count(struct heed_context *context)
{
    list_opencl(context);
    pthread_mutex_lock(&context->lock);
    const int32_t count = context->device_count;
    pthread_mutex_unlock(&context->lock);
    return count;
}

heed_status device_get(struct heed_context *context, int32_t index, struct device **device)
{
    if (index != 0) list_opencl(context);
    pthread_mutex_lock(&context->lock);
    const int32_t count = context->device_count;
    *device = index >= 0 && index < count ? context->devices[index] : NULL;
    pthread_mutex_unlock(&context->lock);
    if (*device) return HEED_OK;
    return fail(HEED_DEVICE_NOT_FOUND, "device %d does not exist: this context has devices 0 to %d", index, count - 1);
}

static bool contains(const char *name, const char *part)
{
    const size_t length = strlen(part);
    for (; *name; name++) {
        size_t i = 0;
        while (i < length && name[i] && tolower((unsigned char)name[i]) == tolower((unsigned char)part[i])) i++;
        if (i == length) return true;
    }
    return false;
}

/* "opencl" or "opencl:N": the N-th OpenCL device. -1: text is something else. */
static int32_t opencl_number(const char *text)
{
    if (strncmp(text, "opencl", 6)) return -1;
    if (!text[6]) return 0;
    if (text[6] != ':' || !text[7] || strlen(text + 7) > 6) return -1;
    int32_t n = 0;
    for (const char *c = text + 7; *c; c++) {
        if (*c < '0' || *c > '9') return -1;
        n = n * 10 + (*c - '0');
    }
    return n;
}

static bool device_matches(const heed_device_info *info, const char *text, int32_t wanted, int32_t seen)
{
    if (wanted >= 0) return info->backend == HEED_BACKEND_OPENCL && seen == wanted;
    return contains(info->name, text) || contains(info->platform, text) || contains(info->vendor, text);
}

heed_status device_find(struct heed_context *context, const char *text, int32_t *index)
{
    if (!strcmp(text, "cpu")) {
        *index = 0;
        return HEED_OK;
    }
    const int32_t wanted = opencl_number(text), count = device_count(context);
    int32_t seen = 0;
    for (int32_t i = wanted >= 0 ? 1 : 0; *text && i < count; i++) {
        struct device *device;
        if (device_get(context, i, &device) != HEED_OK) break;
        if (device_matches(&device->info, text, wanted, seen)) {
            *index = i;
            return HEED_OK;
        }
        seen += device->info.backend == HEED_BACKEND_OPENCL;
    }
    return fail(HEED_DEVICE_NOT_FOUND, "no device matches \"%s\": \"cpu\", \"opencl:N\" or part of a name; %d device%s here", text, count,
                count == 1 ? "" : "s");
}

heed_status device_choose(struct heed_context *context, double multiply_adds, struct device **device)
{
    const char *named = options_device(&context->services);
    int32_t index = 0;
    if (named) {
        heed_status status = device_find(context, named, &index);
        return status == HEED_OK ? device_get(context, index, device) : status;
    }
    if (multiply_adds > worth_the_trip && !(context->services.flags & HEED_NO_OPENCL)) {
        const int32_t count = device_count(context);
        for (int32_t i = 1; i < count && !index; i++)
            if (device_get(context, i, device) == HEED_OK && (*device)->automatic && (*device)->info.usable) index = i;
    }
    return device_get(context, index, device);
}

int32_t heed_device_count(const heed_context *context)
{
    return context ? device_count((heed_context *)context) : 0; /* listing is invisible to the caller: const is honest for him */
}

heed_status heed_device_get_info(const heed_context *context, int32_t index, heed_device_info *info)
{
    struct device *device;
    if (!context || !info) return fail(HEED_INVALID_ARGUMENT, "%s is NULL", context ? "info" : "context");
    const size_t given = info->struct_size, known = sizeof *info;
    if (given < sizeof given) return fail(HEED_INVALID_ARGUMENT, "heed_device_info.struct_size is %zu: set it to sizeof the struct", given);
    heed_status status = device_get((heed_context *)context, index, &device);
    if (status != HEED_OK) return status;
    pthread_mutex_lock(&((heed_context *)context)->lock); /* probes write the reason */
    memcpy(info, &device->info, given < known ? given : known);
    pthread_mutex_unlock(&((heed_context *)context)->lock);
    if (given > known) memset((unsigned char *)info + known, 0, given - known);
    info->struct_size = given;
    return HEED_OK;
}

heed_status heed_device_find(const heed_context *context, const char *text, int32_t *device)
{
    if (!context || !text || !device)
        return fail(HEED_INVALID_ARGUMENT, "%s is NULL", !context ? "context" : !text ? "text" : "device");
    return device_find((heed_context *)context, text, device);
}
