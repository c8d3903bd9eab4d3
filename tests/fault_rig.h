/* SPDX-License-Identifier: MIT
 * fault_rig.h - for the tests that work with the layer of fault_layer.c: load it, arm it, count what is alive, a right answer afterwards. Knows
 * of the wing's inside what it must: the device's state.
 */
#ifndef HEED_FAULT_RIG_H
#define HEED_FAULT_RIG_H

#include "opencl_rig.h"
#include "context.h"
#include "fault_layer.h"
#include "opencl/cl.h"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

/* The loader reads OPENCL_LAYERS at its first call, so this comes before everything. */
static inline struct fault_state *layer(void)
{
    setenv("OPENCL_LAYERS", HEED_FAULT_LAYER, 1);
    void *library = dlopen(HEED_FAULT_LAYER, RTLD_NOW);
    cr_assert(library != NULL, "%s", dlerror());
    struct fault_state *state = dlsym(library, "fault_state");
    cr_assert(state != NULL);
    return state;
}

static inline void arm(struct fault_state *f, const char *only, long at, int code, bool forever)
{
    atomic_store(&f->at, 0);
    snprintf(f->only, sizeof f->only, "%s", only);
    atomic_store(&f->calls, 0);
    atomic_store(&f->hits, 0);
    atomic_store(&f->code, code);
    atomic_store(&f->forever, forever);
    atomic_store(&f->at, at);
}

static inline void disarm(struct fault_state *f) { atomic_store(&f->at, 0); }

static inline void nothing_alive(struct fault_state *f, const char *what, long at)
{
    static const char *const names[FAULT_KINDS] = {"contexts", "queues", "buffers", "programs", "kernels", "events"};
    for (int kind = 0; kind < FAULT_KINDS; kind++)
        cr_assert_eq(atomic_load(&f->alive[kind]), 0, "%s %ld: %ld %s alive", what, at, atomic_load(&f->alive[kind]), names[kind]);
}

static inline void make_right(struct rig *r, heed_context *context, int32_t device, bool copies)
{
    struct device *inside;
    cr_assert_eq(device_get(context, device, &inside), HEED_OK);
    if (copies) cl_device_of(inside)->unified = false;
    rig_clear(r);
    cr_assert_eq(heed_forward(context, device, &r->desc, &r->lengths, &r->tensors), HEED_OK, "%s", heed_error_message());
    cr_assert(rig_right(r, r->o, r->lse));
}

static inline heed_context *cached_context(const char *cache_dir, uint32_t flags)
{
    heed_context *context = NULL;
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = 1, .cache_dir = cache_dir, .flags = flags};
    cr_assert_eq(heed_context_create(&options, &context), HEED_OK, "%s", heed_error_message());
    return context;
}

static inline heed_context *plain_context(uint32_t flags) { return cached_context("", flags); }

#endif
