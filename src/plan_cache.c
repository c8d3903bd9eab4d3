/* SPDX-License-Identifier: MIT
 * plan_cache.c - the plans that heed_forward keeps: at most 64, least recently used first to go, keyed by device and descriptor.
 */
#include "plan.h"
#include "problem.h"
#include "status.h"
#include <stddef.h>
#include <string.h>

enum { PLANS_KEPT = 64 };

struct plan_entry {
    struct plan_entry *next;
    struct device *device;
    heed_desc key;
    struct heed_plan *plan;
};

/* All fields but the flags are words without padding between them; before the flags there may be some where a size_t has 4 bytes. */
enum { WORDS_BYTES = offsetof(heed_desc, scores_stage) + sizeof(int32_t) };
_Static_assert(WORDS_BYTES == sizeof(size_t) + 20 * 4 && offsetof(heed_desc, flags) + sizeof(uint64_t) == sizeof(heed_desc), "heed_desc has other fields");

static bool same_desc(const heed_desc *a, const heed_desc *b) { return !memcmp(a, b, WORDS_BYTES) && a->flags == b->flags; }

static int32_t round_up(int32_t hint)
{
    int64_t power = 1;
    if (hint <= 0) return hint;
    while (power < hint) power *= 2;
    return power > INT32_MAX ? INT32_MAX : (int32_t)power;
}

/* Takes the entry for (device, key) out of the list, or returns NULL. */
static struct plan_entry *unlink_entry(struct heed_context *context, const struct device *device, const heed_desc *key)
{
    for (struct plan_entry **at = &context->plans; *at; at = &(*at)->next)
        if ((*at)->device == device && same_desc(&(*at)->key, key)) {
            struct plan_entry *entry = *at;
            *at = entry->next;
            return entry;
        }
    return NULL;
}

static void put_first(struct heed_context *context, struct plan_entry *entry)
{
    entry->next = context->plans;
    context->plans = entry;
}

/* Takes out and returns what stands behind the last place, or NULL. */
static struct plan_entry *overflow(struct heed_context *context)
{
    struct plan_entry **at = &context->plans;
    for (int n = 0; *at && n < PLANS_KEPT; n++) at = &(*at)->next;
    struct plan_entry *entry = *at;
    *at = NULL;
    return entry;
}

static void free_entries(struct heed_context *context, struct plan_entry *entry)
{
    while (entry) {
        struct plan_entry *next = entry->next;
        plan_drop(entry->plan);
        memory_delete(&context->services, entry);
        entry = next;
    }
}

heed_status plan_cached(struct heed_context *context, struct device *device, const heed_desc *desc, struct heed_plan **plan)
{
    heed_desc key;
    heed_status status = struct_take(&key, sizeof key, desc, "heed_desc");
    if (status != HEED_OK) return status;
    key.struct_size = sizeof key;
    key.max_batch = round_up(key.max_batch);
    key.max_q_len = round_up(key.max_q_len);
    key.max_kv_len = round_up(key.max_kv_len);

    pthread_mutex_lock(&context->lock);
    struct plan_entry *entry = unlink_entry(context, device, &key);
    if (entry) {
        put_first(context, entry);
        plan_hold(entry->plan);
        *plan = entry->plan;
    }
    pthread_mutex_unlock(&context->lock);
    if (entry) return HEED_OK;

    /* Made without the lock: compiling may take seconds. Two threads may make the same plan; the list then holds both for a while. */
    status = plan_make(context, device, &key, NULL, plan);
    if (status != HEED_OK) return status;
    entry = memory_new(&context->services, 1, sizeof *entry);
    if (!entry) return HEED_OK; /* works, is only not remembered */
    *entry = (struct plan_entry){.device = device, .key = key, .plan = *plan};
    plan_hold(*plan);
    pthread_mutex_lock(&context->lock);
    put_first(context, entry);
    struct plan_entry *old = overflow(context);
    pthread_mutex_unlock(&context->lock);
    free_entries(context, old);
    return HEED_OK;
}

void plan_cache_clear(struct heed_context *context)
{
    pthread_mutex_lock(&context->lock);
    struct plan_entry *all = context->plans;
    context->plans = NULL;
    pthread_mutex_unlock(&context->lock);
    free_entries(context, all);
}
