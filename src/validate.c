/* SPDX-License-Identifier: MIT
 * validate.c - validate_every: every n-th run is computed again by the other wing and compared.
 */
#include "check.h"
#include "problem.h"
#include "status.h"
#include "view.h"
#include <string.h>

/* o = q in place: the run overwrites what a second computation has to read. */
static bool overwrites_q(const struct call *call)
{
    return call->o.given && call->q.given && call->o.data == call->q.data && call->o.mem == call->q.mem && call->o.offset == call->q.offset;
}

static heed_status read_back(const struct call *call, const struct byte_range *range, unsigned char *to)
{
    const size_t bytes = (size_t)(range->end - range->begin);
    if (call->q.memory == HEED_MEMORY_HOST) {
        memcpy(to, call->q.data + range->begin, bytes);
        return HEED_OK;
    }
    const heed_tensor tensor = view_memory(&call->q);
    struct device *device = call->plan->device;
    return device->backend->tensor_read(device, &tensor, (uint64_t)(call->q.offset + range->begin), to, bytes);
}

/* A copy of q's bytes, and the call as it would be with it. */
static heed_status save_q(const struct call *call, struct call *saved, unsigned char **copy)
{
    struct byte_range range;
    *saved = *call;
    *copy = NULL;
    heed_status status = call_range(call, ROLE_Q, &range);
    if (status != HEED_OK || !overwrites_q(call) || range.end <= range.begin) return status;
    const size_t bytes = (size_t)(range.end - range.begin);
    *copy = memory_new(&call->plan->context->services, bytes, 1);
    if (!*copy) return out_of_memory(bytes);
    saved->q.data = *copy - range.begin;
    saved->q.mem = NULL;
    saved->q.offset = 0;
    saved->q.memory = HEED_MEMORY_HOST;
    return read_back(call, &range, *copy);
}

heed_status run_validated(const struct call *call)
{
    struct heed_context *context = call->plan->context;
    const struct backend *backend = call->plan->device->backend;
    const uint32_t every = context->validate_every;
    if (!every || (atomic_fetch_add(&context->runs, 1) + 1) % every) return backend->run(call, NULL);

    struct call saved;
    unsigned char *copy;
    heed_status status = save_q(call, &saved, &copy);
    if (status == HEED_OK) status = backend->run(call, NULL);
    if (status == HEED_OK) status = check_validate(context, &saved);
    memory_delete(&context->services, copy);
    return status;
}
