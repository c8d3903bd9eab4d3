/* SPDX-License-Identifier: MIT
 * attention.c - see attention.h. A plan for the model, a batch per step, a run per layer. On the CPU heed reads q, k and v where the projections
 * left them, by strides; an OpenCL device gets the same block as it is, in a buffer of its own.
 */
#include "attention.h"
#include <heed.h>
#include <stdlib.h>

struct attention {
    struct attention_options options;
    heed_context *context;
    heed_plan *plan;
    heed_batch *batch;
    heed_buffer *qkv, *o, *space; /* qkv, o: not on the CPU */
    size_t space_bytes;
    heed_device_info info;
    int32_t device, rows; /* rows of the present batch */
};

static bool failed(heed_status status, const char *what, struct message *message)
{
    return refuse(message, status == HEED_DEVICE_NOT_FOUND ? 3 : status == HEED_INVALID_ARGUMENT ? 2 : 4, "%s: %s", what, heed_error_message());
}

static size_t row_bytes(const struct attention *a)
{
    return sizeof(float) * (size_t)a->options.heads * (size_t)a->options.head_dim;
}

static bool device_open(struct attention *a, struct message *message)
{
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = a->options.threads};
    heed_status status = heed_context_create(&options, &a->context);
    if (status != HEED_OK) return failed(status, "heed_context_create", message);
    if ((status = heed_device_find(a->context, a->options.device, &a->device)) != HEED_OK) return failed(status, "--device", message);
    a->info.struct_size = sizeof a->info;
    if ((status = heed_device_get_info(a->context, a->device, &a->info)) != HEED_OK) return failed(status, "--device", message);
    return a->info.usable || refuse(message, 3, "--device %s: %s cannot be used: %s", a->options.device, a->info.name, a->info.reason);
}

static bool plan_open(struct attention *a, struct message *message)
{
    const heed_desc desc = {.struct_size = sizeof desc, .q_heads = a->options.heads, .head_dim = a->options.head_dim,
                            .max_q_len = a->options.most_tokens, .max_kv_len = a->options.most_tokens};
    heed_status status = heed_plan_create(a->context, a->device, &desc, NULL, &a->plan);
    if (status != HEED_OK) return failed(status, "heed_plan_create", message);
    if (a->info.backend == HEED_BACKEND_CPU) return true;
    const size_t bytes = row_bytes(a) * (size_t)a->options.most_rows;
    status = heed_buffer_create(a->context, a->device, 3 * bytes, &a->qkv);
    if (status == HEED_OK) status = heed_buffer_create(a->context, a->device, bytes, &a->o);
    return status == HEED_OK || failed(status, "heed_buffer_create", message);
}

bool attention_open(const struct attention_options *options, struct attention **attention, struct message *message)
{
    struct attention *a = calloc(1, sizeof *a);
    if (!a) return out_of_memory(message);
    a->options = *options;
    if (!device_open(a, message) || !plan_open(a, message)) {
        attention_close(a);
        return false;
    }
    *attention = a;
    return true;
}

void attention_close(struct attention *a)
{
    if (!a) return;
    heed_batch_destroy(a->batch);
    heed_plan_destroy(a->plan);
    heed_buffer_destroy(a->qkv);
    heed_buffer_destroy(a->o);
    heed_buffer_destroy(a->space);
    heed_context_destroy(a->context);
    free(a);
}

const char *attention_device(const struct attention *a)
{
    return a->info.name;
}

size_t attention_explain(const struct attention *a, char *text, size_t capacity)
{
    return heed_plan_explain(a->plan, text, capacity);
}

/* The workspace grows when a batch wants more than any before it. */
static bool space_grow(struct attention *a, struct message *message)
{
    const size_t bytes = heed_batch_workspace_size(a->batch);
    if (bytes <= a->space_bytes) return true;
    heed_buffer_destroy(a->space);
    a->space = NULL, a->space_bytes = 0;
    const heed_status status = heed_buffer_create(a->context, a->device, bytes, &a->space);
    if (status != HEED_OK) return failed(status, "heed_buffer_create", message);
    a->space_bytes = bytes;
    return true;
}

bool attention_lengths(struct attention *a, int32_t count, const int32_t *start, struct message *message)
{
    const heed_lengths lengths = {.struct_size = sizeof lengths, .batch = count, .q_start = start, .kv_start = start};
    const heed_status status = a->batch ? heed_batch_update(a->batch, &lengths) : heed_batch_create(a->plan, &lengths, &a->batch);
    if (status != HEED_OK) return failed(status, "heed_batch", message);
    a->rows = start[count];
    return space_grow(a, message);
}

bool attention_run(struct attention *a, float *qkv, float *o, struct message *message)
{
    const int64_t dim = a->options.head_dim, row = dim * a->options.heads; /* in elements, as heed wants its strides */
    const size_t bytes = row_bytes(a) * (size_t)a->rows;
    heed_tensor from = {.data = qkv, .bytes = 3 * bytes, .head_stride = dim, .token_stride = 3 * row};
    heed_tensor to = {.data = o, .bytes = bytes, .head_stride = dim, .token_stride = row};
    heed_status status = HEED_OK;
    if (a->qkv) {
        if ((status = heed_buffer_write(a->qkv, 0, qkv, 3 * bytes)) != HEED_OK) return failed(status, "heed_buffer_write", message);
        from = heed_buffer_tensor(a->qkv, from), to = heed_buffer_tensor(a->o, to);
    }
    heed_tensors t = {.struct_size = sizeof t, .q = from, .k = from, .v = from, .o = to};
    t.k.offset = row, t.v.offset = 2 * row;
    const heed_tensor space = a->space ? heed_buffer_tensor(a->space, (heed_tensor){0}) : (heed_tensor){0};
    if ((status = heed_run(a->plan, a->batch, &t, a->space ? &space : NULL)) != HEED_OK) return failed(status, "heed_run", message);
    if (a->o && (status = heed_buffer_read(a->o, 0, o, bytes)) != HEED_OK) return failed(status, "heed_buffer_read", message);
    return true;
}
