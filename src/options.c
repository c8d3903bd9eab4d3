/* SPDX-License-Identifier: MIT
 * options.c - context options and environment variables: HEED_THREADS, HEED_CPU, HEED_CACHE_DIR, HEED_LOG, HEED_VALIDATE, HEED_TUNING, HEED_DEVICE.
 */
#include "options.h"
#include "cpu/cpu.h"
#include "problem.h"
#include "status.h"
#include <stdlib.h>
#include <string.h>

static void *plain_alloc(void *user, size_t bytes, size_t alignment)
{
    (void)user;
    return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

static void plain_free(void *user, void *block)
{
    (void)user;
    free(block);
}

static heed_status take(const heed_context_options *given, heed_context_options *options)
{
    memset(options, 0, sizeof *options);
    options->struct_size = sizeof *options;
    if (!given) return HEED_OK;
    heed_status status = struct_take(options, sizeof *options, given, "heed_context_options");
    if (status != HEED_OK) return status;
    const uint32_t known = HEED_NO_OPENCL | HEED_NO_FALLBACK | HEED_NO_ENVIRONMENT;
    if (options->flags & ~known)
        return fail(HEED_UNSUPPORTED, "heed_context_options.flags 0x%x has bits that this version does not know (0x%x)", options->flags,
                    options->flags & ~known);
    if (options->reserved) return fail(HEED_UNSUPPORTED, "heed_context_options.reserved is %u, must be 0", options->reserved);
    if (options->num_threads < 0)
        return fail(HEED_INVALID_ARGUMENT, "num_threads %d is negative; 0 means one per core", options->num_threads);
    if (options->threads && (!options->threads->parallel_for || options->threads->workers < 1))
        return fail(HEED_INVALID_ARGUMENT, "threads needs parallel_for and workers >= 1, has workers %d", options->threads->workers);
    if (options->threads && options->threads->workers > MAX_WORKERS)
        return fail(HEED_UNSUPPORTED, "threads.workers %d, at most %d", options->threads->workers, MAX_WORKERS);
    if (options->allocator && (!options->allocator->alloc || !options->allocator->free))
        return fail(HEED_INVALID_ARGUMENT, "allocator needs both alloc and free");
    return HEED_OK;
}

heed_status options_allocator(const heed_context_options *given, heed_allocator *allocator)
{
    heed_context_options options;
    heed_status status = take(given, &options);
    if (status != HEED_OK) return status;
    *allocator = options.allocator ? *options.allocator : (heed_allocator){NULL, plain_alloc, plain_free};
    return HEED_OK;
}

static const char *variable(const struct services *services, const char *name)
{
    const char *value = services->flags & HEED_NO_ENVIRONMENT ? NULL : getenv(name);
    return value && *value ? value : NULL;
}

const char *options_device(const struct services *services) { return variable(services, "HEED_DEVICE"); }

/* A whole number in [low, high] from a variable; *value is left alone if it is not set. */
static heed_status number(const struct services *services, const char *name, long low, long high, long *value)
{
    const char *text = variable(services, name);
    if (!text) return HEED_OK;
    char *end;
    long read = strtol(text, &end, 10);
    if (*end || read < low || read > high)
        return fail(HEED_INVALID_ARGUMENT, "environment variable %s=\"%s\" is no whole number from %ld to %ld", name, text, low, high);
    *value = read;
    return HEED_OK;
}

static heed_status take_isa(const heed_context_options *options, struct services *services)
{
    const char *cap = options->cpu_features ? options->cpu_features : variable(services, "HEED_CPU");
    services->isa = cpu_isa_present();
    if (cap && !cpu_isa_cap(cap, services->isa, &services->isa))
        return fail(HEED_INVALID_ARGUMENT, "%s \"%s\" is no instruction set that this library knows "
                    "(scalar, vector; x86: avx2 avx512 avx512vbmi avx512bf16 amx; ARM: neon sve; RISC-V: rvv)",
                    options->cpu_features ? "cpu_features" : "environment variable HEED_CPU", cap);
    return HEED_OK;
}

/* $HEED_CACHE_DIR, else $XDG_CACHE_HOME/heed, else $HOME/.cache/heed; "" and "off" mean memory only. */
static heed_status take_cache_dir(const heed_context_options *options, struct services *services)
{
    const char *dir = options->cache_dir ? options->cache_dir : variable(services, "HEED_CACHE_DIR"), *end = "";
    if (!dir && (dir = variable(services, "XDG_CACHE_HOME"))) end = "/heed";
    if (!dir && (dir = variable(services, "HOME"))) end = "/.cache/heed";
    if (!dir || !*dir || !strcmp(dir, "off")) return HEED_OK;
    const size_t bytes = strlen(dir) + strlen(end) + 1;
    services->cache_dir = memory_new(services, bytes, 1);
    if (!services->cache_dir) return out_of_memory(bytes);
    text_append(services->cache_dir, bytes, 0, "%s%s", dir, end);
    return HEED_OK;
}

static heed_status take_copy(const struct services *services, const char *text, char **copy)
{
    if (text && !(*copy = memory_string(services, text))) return out_of_memory(strlen(text) + 1);
    return HEED_OK;
}

static heed_status take_threads(const heed_context_options *options, struct services *services)
{
    if (options->threads) {
        services->threads = *options->threads;
        return HEED_OK;
    }
    long threads = options->num_threads;
    heed_status status = threads ? HEED_OK : number(services, "HEED_THREADS", 1, MAX_WORKERS, &threads);
    if (status != HEED_OK) return status;
    if (threads > MAX_WORKERS) return fail(HEED_UNSUPPORTED, "num_threads %ld, at most %d", threads, MAX_WORKERS);
    return cpu_threads_create(services, (int32_t)threads);
}

heed_status options_take(const heed_context_options *given, struct heed_context *context)
{
    struct services *services = &context->services;
    heed_context_options options;
    heed_status status = take(given, &options);
    if (status != HEED_OK) return status;
    services->flags = options.flags;
    services->log = options.log;
    services->log_user = options.log_user;
    long level = 1, validate = options.validate_every;
    if ((status = number(services, "HEED_LOG", 0, 3, &level)) == HEED_OK && !validate)
        status = number(services, "HEED_VALIDATE", 0, INT32_MAX, &validate);
    services->log_level = (int32_t)level;
    context->validate_every = (uint32_t)validate;
    if (status == HEED_OK) status = take_isa(&options, services);
    if (status == HEED_OK) status = take_cache_dir(&options, services);
    if (status == HEED_OK) status = take_copy(services, variable(services, "HEED_TUNING"), &services->tuning_file);
    if (status == HEED_OK) status = take_copy(services, options.report_dir, &context->report_dir);
    if (status == HEED_OK) status = take_threads(&options, services);
    if (status != HEED_OK) {
        memory_delete(services, services->cache_dir);
        memory_delete(services, services->tuning_file);
        memory_delete(services, context->report_dir);
    }
    return status;
}
