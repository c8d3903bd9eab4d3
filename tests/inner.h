/* SPDX-License-Identifier: MIT
 * inner.h - for tests of inner rooms: services over malloc that count and can fail, a random sequence, a plan without a table.
 * No data, no kernels: those are in harness.h.
 */
#ifndef HEED_INNER_H
#define HEED_INNER_H

#include "problem.h"
#include <stdlib.h>
#include <string.h>

/* Allocations in use, and how many more may succeed (negative: all). */
struct inner_memory {
    int in_use, allowed;
};

static inline void *inner_alloc(void *user, size_t bytes, size_t alignment)
{
    struct inner_memory *memory = user;
    void *block = NULL;
    if (memory->allowed == 0 || posix_memalign(&block, alignment, bytes)) return NULL;
    if (memory->allowed > 0) memory->allowed--;
    memset(block, 0xa5, bytes);
    memory->in_use++;
    return block;
}

static inline void inner_free(void *user, void *block)
{
    ((struct inner_memory *)user)->in_use--;
    free(block);
}

static inline uint64_t inner_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* A plan on a device of either kind, enough for the room `problem`: no rows, no state. */
struct inner {
    struct inner_memory memory;
    struct services services;
    struct backend backend;
    struct device device;
    struct heed_plan plan;
    struct heed_batch batch;
};

static inline void inner_begin(struct inner *inner)
{
    memset(inner, 0, sizeof *inner);
    inner->memory.allowed = -1;
    inner->services.allocator = (heed_allocator){&inner->memory, inner_alloc, inner_free};
    inner->backend.id = HEED_BACKEND_CPU;
    inner->device.info.backend = HEED_BACKEND_CPU;
    inner->device.backend = &inner->backend;
    inner->plan.device = &inner->device;
    inner->batch.plan = &inner->plan;
}

/* The descriptor as a line of words. */
static inline heed_status inner_problem(struct inner *inner, const char *words)
{
    heed_desc desc;
    heed_status status = heed_desc_parse(words, &desc);
    return status ? status : problem_from_desc(&desc, &inner->plan.problem);
}

static inline heed_status inner_lengths(struct inner *inner, const heed_lengths *lengths)
{
    lengths_release(&inner->services, &inner->batch);
    return lengths_take(&inner->services, &inner->plan.problem, lengths, &inner->batch);
}

static inline void inner_end(struct inner *inner) { lengths_release(&inner->services, &inner->batch); }

#endif
