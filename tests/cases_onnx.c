/* SPDX-License-Identifier: MIT
 * cases_onnx.c - converted node tests of the ONNX operators Attention, RotaryEmbedding and TensorScatter: what they mean in heed.
 */
#include "cases_parts.h"
#include "dtype.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- arrays of 3 or 4 axes --------------------------------------------------------- */

/* [b, heads, len, dim], or with three axes [b, len, heads * dim]. */
struct packed {
    const struct case_array *array;
    int32_t batch, heads, len, dim;
};

static bool packed_of(const struct case_array *array, int32_t heads, struct packed *to)
{
    if (!array) return false;
    const struct npy *npy = &array->npy;
    *to = (struct packed){.array = array, .batch = (int32_t)npy->shape[0]};
    if (npy->rank == 4) {
        to->heads = (int32_t)npy->shape[1];
        to->len = (int32_t)npy->shape[2];
        to->dim = (int32_t)npy->shape[3];
        return true;
    }
    if (npy->rank != 3 || heads < 1 || npy->shape[2] % heads) return false;
    to->heads = heads;
    to->len = (int32_t)npy->shape[1];
    to->dim = (int32_t)(npy->shape[2] / heads);
    return true;
}

static int64_t packed_at(const struct packed *p, int32_t b, int32_t h, int32_t t)
{
    if (p->array->npy.rank == 4) return (((int64_t)b * p->heads + h) * p->len + t) * p->dim;
    return (((int64_t)b * p->len + t) * p->heads + h) * p->dim;
}

static void packed_row(const struct packed *p, int32_t b, int32_t h, int32_t t, unsigned char *to)
{
    const size_t size = npy_type_size(p->array->npy.type);
    memcpy(to, (const unsigned char *)p->array->npy.data + (size_t)packed_at(p, b, h, t) * size, (size_t)p->dim * size);
}

/* ---- Attention ------------------------------------------------------------------------ */

struct attention {
    struct packed q, k, v, y, past_k, past_v;
    const struct case_array *mask, *nonpad, *scores;
    int32_t past; /* keys before K */
};

static bool read_attention(const struct case_files *files, const json_t *attributes, struct attention *to)
{
    bool good = true;
    const int32_t q_heads = key_int(attributes, "q_num_heads", 0, &good), kv_heads = key_int(attributes, "kv_num_heads", 0, &good);
    memset(to, 0, sizeof *to);
    if (!packed_of(files_array(files, "Q"), q_heads, &to->q) || !packed_of(files_array(files, "K"), kv_heads, &to->k) ||
        !packed_of(files_array(files, "V"), kv_heads, &to->v) || !packed_of(files_array(files, "Y"), q_heads, &to->y))
        return false;
    if (files_array(files, "past_key")) {
        if (!packed_of(files_array(files, "past_key"), 0, &to->past_k) || !packed_of(files_array(files, "past_value"), 0, &to->past_v))
            return false;
        to->past = to->past_k.len;
    }
    to->mask = files_array(files, "attn_mask");
    to->nonpad = files_array(files, "nonpad_kv_seqlen");
    to->scores = files_array(files, "qk_matmul_output");
    return good;
}

static heed_desc desc_of(const struct attention *a, const json_t *attributes, bool *good)
{
    heed_desc d = {.struct_size = sizeof d, .q_heads = a->q.heads, .kv_heads = a->k.heads, .head_dim = a->q.dim, .v_head_dim = a->v.dim};
    d.q_type = a->q.array->npy.type == NPY_F2 ? HEED_F16 : HEED_F32;
    d.scale = (float)key_number(attributes, "scale", 0, good);
    d.softcap = (float)key_number(attributes, "softcap", 0, good);
    if (key_int(attributes, "is_causal", 0, good)) d.flags |= HEED_CAUSAL;
    if (a->mask) d.flags |= a->mask->npy.type == NPY_B1 ? HEED_MASK_BOOL : HEED_BIAS;
    if (a->mask && a->mask->npy.type == NPY_F4) d.bias_type = HEED_F32;
    if (a->mask && a->mask->npy.type == NPY_F2) d.bias_type = HEED_F16;
    if (a->scores) {
        d.flags |= HEED_WRITE_SCORES;
        d.scores_stage = key_int(attributes, "qk_matmul_output_mode", 0, good);
    }
    return d;
}

/* Keys = past followed by K; the queries stand behind the past, or end at the last real key where the caller owns the cache. */
static bool set_lengths(struct instance *in, const struct attention *a)
{
    const int32_t batch = in->line.batch;
    in->q_position = calloc((size_t)batch + 1, sizeof *in->q_position);
    if (!in->q_position || (a->nonpad && a->nonpad->npy.count != batch)) return false;
    for (int32_t b = 0; b < batch; b++) {
        in->q_lens[b] = a->q.len;
        in->kv_lens[b] = a->nonpad ? (int32_t)array_value(a->nonpad, b) : a->past + a->k.len;
        in->q_position[b] = a->nonpad ? in->kv_lens[b] - a->q.len : a->past;
        if (in->kv_lens[b] < 0 || in->kv_lens[b] > a->past + a->k.len) return false;
    }
    in->q_total = (int64_t)batch * a->q.len;
    in->lengths = (heed_lengths){.struct_size = sizeof in->lengths, .batch = batch, .q_len = a->q.len, .kv_len = a->past + a->k.len,
                                 .kv_lens = in->kv_lens, .q_position = in->q_position};
    return true;
}

static void copy_cache(struct instance *in, enum role role, const struct packed *past, const struct packed *now)
{
    for (int32_t b = 0; b < in->line.batch; b++)
        for (int32_t g = 0; g < in->problem.kv_heads; g++)
            for (int32_t j = 0; j < in->kv_lens[b]; j++) {
                unsigned char *to = instance_key_row(in, role, b, g, j);
                const int32_t before = past->array ? past->len : 0;
                if (j < before)
                    packed_row(past, b, g, j, to);
                else
                    packed_row(now, b, g, j - before, to);
            }
}

static void copy_mask(struct instance *in, const struct case_array *mask)
{
    const bool is_bool = mask->npy.type == NPY_B1;
    const heed_type type = in->problem.bias_type;
    for (int32_t b = 0; b < in->line.batch; b++)
        for (int32_t h = 0; h < in->problem.q_heads; h++)
            for (int32_t i = 0; i < in->q_lens[b]; i++)
                for (int32_t j = 0; j < in->kv_lens[b]; j++) {
                    const int64_t place[4] = {b, h, i, j};
                    double value = is_bool ? 0 : -INFINITY;
                    broadcast_value(mask, place, 4, in->line.kv_len, &value);
                    const float x = (float)value;
                    if (is_bool)
                        instance_query_row(in, ROLE_MASK, b, h, i)[j] = value != 0;
                    else
                        row_from_f32(type, &x, instance_query_row(in, ROLE_BIAS, b, h, i) + j * type_row_bytes(type, 1), NULL, 1);
                }
}

static bool expect(struct stored_case *stored, const struct attention *a)
{
    const struct instance *in = stored->instance;
    const int32_t dim = in->problem.v_head_dim, keys = in->line.kv_len;
    const int64_t rows = rows_before(in, in->line.batch);
    double *o = stored->o = malloc((size_t)(rows * dim + 1) * sizeof *o);
    if (a->scores) stored->scores = malloc((size_t)(rows * keys + 1) * sizeof(double));
    if (!o || (a->scores && (!stored->scores || a->scores->npy.count != rows * keys))) return false;
    for (int32_t b = 0; b < in->line.batch; b++)
        for (int32_t h = 0; h < in->problem.q_heads; h++)
            for (int32_t i = 0; i < in->q_lens[b]; i++)
                for (int32_t d = 0; d < dim; d++) *o++ = array_value(a->y.array, packed_at(&a->y, b, h, i) + d);
    for (int64_t n = 0; a->scores && n < rows * keys; n++) stored->scores[n] = array_value(a->scores, n);
    return true;
}

static bool read_attention_case(struct stored_case *stored, const struct case_files *files, enum instance_variant variant, char *message,
                                size_t capacity)
{
    const json_t *attributes = json_object_get(files->root, "attributes");
    struct problem_line line = {.seed = 1};
    struct attention a;
    bool good = read_attention(files, attributes, &a);
    if (good) line.desc = desc_of(&a, attributes, &good);
    if (!good) {
        message_set(message, capacity, "%s: inputs or attributes of Attention are not understood", stored->folder);
        return false;
    }
    snprintf(line.text, sizeof line.text, "%s", stored->name);
    line.batch = a.q.batch;
    line.desc.max_batch = line.batch;
    line.desc.max_q_len = line.q_len = a.q.len;
    line.desc.max_kv_len = line.kv_len = a.past + a.k.len;
    struct instance *in = stored->instance = instance_begin(&line, variant, message, capacity);
    if (!in) return false;
    in->stored = true;
    if (!set_lengths(in, &a) || !instance_lay_out(in, message, capacity)) return false;
    for (int32_t b = 0; b < line.batch; b++)
        for (int32_t h = 0; h < a.q.heads; h++)
            for (int32_t i = 0; i < a.q.len; i++) packed_row(&a.q, b, h, i, instance_query_row(in, ROLE_Q, b, h, i));
    copy_cache(in, ROLE_K, &a.past_k, &a.k);
    copy_cache(in, ROLE_V, &a.past_v, &a.v);
    if (a.mask) copy_mask(in, a.mask);
    good = expect(stored, &a) && instance_seal(in);
    if (!good) message_set(message, capacity, "%s: no memory, or Y has another shape", stored->folder);
    return good;
}

/* ---- the operators beside attention ------------------------------------------------------ */

bool case_read_onnx(struct stored_case *stored, struct case_files *files, enum instance_variant variant, char *message, size_t capacity)
{
    bool good = true;
    stored->rtol = key_number(files->root, "rtol", 1e-3, &good);
    stored->atol = key_number(files->root, "atol", 1e-7, &good);
    if (!strcmp(stored->op, "Attention")) return read_attention_case(stored, files, variant, message, capacity);
    if (strcmp(stored->op, "RotaryEmbedding") && strcmp(stored->op, "TensorScatter")) {
        message_set(message, capacity, "operator %s is not heed's", stored->op);
        return false;
    }
    struct case_files *kept = malloc(sizeof *kept);
    if (!kept) return false;
    *kept = *files;
    *files = (struct case_files){0};
    stored->files = kept;
    return true;
}

/* Arrays of one call on a device: host memory for the CPU, buffers for OpenCL. */
struct lent {
    heed_context *context;
    int32_t device;
    bool buffers;
    int32_t count;
    heed_buffer *buffer[8];
};

static heed_tensor lend(struct lent *lent, void *data, size_t bytes, heed_tensor layout, heed_status *status)
{
    layout.data = data;
    layout.bytes = bytes;
    if (!lent->buffers || *status != HEED_OK) return layout;
    heed_buffer **buffer = &lent->buffer[lent->count++];
    *status = heed_buffer_create(lent->context, lent->device, bytes, buffer);
    if (*status == HEED_OK) *status = heed_buffer_write(*buffer, 0, data, bytes);
    return *status == HEED_OK ? heed_buffer_tensor(*buffer, layout) : layout;
}

/* The first tensor lent is the one that changes. */
static heed_status take_back(struct lent *lent, void *data, size_t bytes, heed_status status)
{
    if (status == HEED_OK && lent->buffers) status = heed_buffer_read(lent->buffer[0], 0, data, bytes);
    for (int32_t n = 0; n < lent->count; n++) heed_buffer_destroy(lent->buffer[n]);
    return status;
}

static bool is_opencl(heed_context *context, int32_t device)
{
    heed_device_info info = {.struct_size = sizeof info};
    return heed_device_get_info(context, device, &info) == HEED_OK && info.backend == HEED_BACKEND_OPENCL;
}

static void judge(const struct stored_case *stored, heed_status status, const float *got, const struct case_array *want, struct outcome *outcome)
{
    *outcome = (struct outcome){.verdict = VERDICT_PASS};
    if (status != HEED_OK) {
        outcome->verdict = status == HEED_UNSUPPORTED ? VERDICT_SKIP : VERDICT_FAIL;
        message_set(outcome->message, sizeof outcome->message, "%s", heed_error_message());
        return;
    }
    for (int64_t n = 0; n < want->npy.count; n++) {
        const double expected = array_value(want, n), error = fabs((double)got[n] - expected);
        outcome->report.elements++;
        if (error <= stored->atol + stored->rtol * fabs(expected)) continue;
        outcome->report.outside++;
        outcome->verdict = VERDICT_FAIL;
        message_set(outcome->message, sizeof outcome->message, "element %lld is %g, expected %g", (long long)n, (double)got[n], expected);
    }
}

/* A plan for calls beside attention: one float type, heads of one kind. */
static heed_status plan_and_batch(heed_context *context, int32_t device, const heed_desc *desc, const heed_lengths *lengths, heed_plan **plan,
                                  heed_batch **batch)
{
    *plan = NULL;
    *batch = NULL;
    heed_status status = heed_plan_create(context, device, desc, NULL, plan);
    return status == HEED_OK ? heed_batch_create(*plan, lengths, batch) : status;
}

/* X [b, heads, len, dim] or [b, len, heads * dim] in place; tables [positions, rope_dim / 2], or [b, len, rope_dim / 2] without position_ids. */
void onnx_rotate_check(heed_context *context, int32_t device, const struct stored_case *stored, struct outcome *outcome)
{
    const struct case_files *files = stored->files;
    const json_t *attributes = json_object_get(files->root, "attributes");
    bool good = true;
    struct packed x;
    const struct case_array *c = files_array(files, "cos_cache"), *s = files_array(files, "sin_cache");
    const struct case_array *ids = files_array(files, "position_ids"), *want = files_array(files, "Y");
    *outcome = (struct outcome){.verdict = VERDICT_FAIL, .message = "inputs are not understood"};
    if (!packed_of(files_array(files, "X"), key_int(attributes, "num_heads", 0, &good), &x) || !c || !s || !want ||
        x.array->npy.type != NPY_F4 || want->npy.count != x.array->npy.count)
        return;
    const bool rank4 = x.array->npy.rank == 4;
    const int32_t half = (int32_t)c->npy.shape[c->npy.rank - 1], tokens = x.batch * x.len;
    heed_desc desc = {.struct_size = sizeof desc, .q_heads = x.heads, .head_dim = x.dim, .rope_dim = 2 * half};
    if (key_int(attributes, "interleaved", 0, &good)) desc.flags |= HEED_ROPE_INTERLEAVED;
    int32_t *positions = calloc((size_t)tokens, sizeof *positions);
    float *data = malloc(x.array->npy.bytes);
    if (!positions || !data || (ids && ids->npy.count != tokens)) {
        free(positions);
        free(data);
        return;
    }
    for (int32_t n = 0; n < tokens; n++) positions[n] = ids ? (int32_t)array_value(ids, n) : n;
    memcpy(data, x.array->npy.data, x.array->npy.bytes);

    const heed_lengths lengths = {.struct_size = sizeof lengths, .batch = x.batch, .q_len = x.len, .kv_len = x.len, .q_positions = positions};
    heed_plan *plan;
    heed_batch *batch;
    struct lent lent = {.context = context, .device = device, .buffers = is_opencl(context, device)};
    heed_status status = plan_and_batch(context, device, &desc, &lengths, &plan, &batch);
    const int64_t head = rank4 ? (int64_t)x.len * x.dim : x.dim, token = rank4 ? x.dim : (int64_t)x.heads * x.dim;
    const heed_tensor layout = {.batch_stride = (int64_t)x.len * x.heads * x.dim, .head_stride = head, .token_stride = token};
    const heed_tensor moved = lend(&lent, data, x.array->npy.bytes, layout, &status);
    heed_tensors tensors = {.struct_size = sizeof tensors};
    tensors.rope_cos = lend(&lent, c->npy.data, c->npy.bytes, (heed_tensor){.token_stride = half}, &status);
    tensors.rope_sin = lend(&lent, s->npy.data, s->npy.bytes, (heed_tensor){.token_stride = half}, &status);
    if (status == HEED_OK) status = heed_rotate(plan, batch, x.heads, &moved, &tensors);
    status = take_back(&lent, data, x.array->npy.bytes, status);
    judge(stored, status, data, want, outcome);
    heed_batch_destroy(batch);
    heed_plan_destroy(plan);
    free(positions);
    free(data);
}

/* update [b, heads, tokens, dim] into past_cache [b, heads, capacity, dim] at write_indices[b] + t: heed_append of k alone. Circular: pages
 * of one token whose table repeats. */
void onnx_scatter_check(heed_context *context, int32_t device, const struct stored_case *stored, struct outcome *outcome)
{
    const struct case_files *files = stored->files;
    const struct case_array *past = files_array(files, "past_cache"), *update = files_array(files, "update");
    const struct case_array *at = files_array(files, "write_indices"), *want = files_array(files, "present_cache");
    *outcome = (struct outcome){.verdict = VERDICT_FAIL, .message = "inputs are not understood"};
    if (!past || !update || !at || !want || past->npy.rank != update->npy.rank || past->npy.type != NPY_F4) return;
    const int32_t rank = past->npy.rank, batch = (int32_t)past->npy.shape[0], heads = rank == 4 ? (int32_t)past->npy.shape[1] : 1;
    const int32_t capacity = (int32_t)past->npy.shape[rank - 2], dim = (int32_t)past->npy.shape[rank - 1];
    const int32_t tokens = (int32_t)update->npy.shape[rank - 2];
    const bool circular = !strcmp(key_text(json_object_get(files->root, "attributes"), "mode", "linear"), "circular");
    const int32_t columns = 2 * capacity + tokens;
    int32_t *kv_lens = calloc((size_t)batch + 1, sizeof *kv_lens), *table = calloc((size_t)(batch * columns), sizeof *table);
    float *data = malloc(past->npy.bytes);
    if (heads != 1 || !kv_lens || !table || !data) {
        free(kv_lens);
        free(table);
        free(data);
        return;
    }
    memcpy(data, past->npy.data, past->npy.bytes);
    for (int32_t b = 0; b < batch; b++) {
        kv_lens[b] = (int32_t)array_value(at, b) + tokens;
        for (int32_t n = 0; n < columns; n++) table[b * columns + n] = b * capacity + n % capacity;
    }
    const heed_desc desc = {.struct_size = sizeof desc, .q_heads = 1, .head_dim = dim, .page_size = circular};
    heed_lengths lengths = {.struct_size = sizeof lengths, .batch = batch, .q_len = tokens, .kv_len = capacity, .kv_lens = kv_lens};
    if (circular) {
        lengths.page_table = table;
        lengths.page_table_stride = columns;
    }
    heed_plan *plan;
    heed_batch *lengths_batch;
    struct lent lent = {.context = context, .device = device, .buffers = is_opencl(context, device)};
    heed_status status = plan_and_batch(context, device, &desc, &lengths, &plan, &lengths_batch);
    heed_tensors tensors = {.struct_size = sizeof tensors};
    tensors.k = lend(&lent, data, past->npy.bytes, (heed_tensor){.batch_stride = circular ? dim : (int64_t)capacity * dim, .token_stride = dim}, &status);
    const heed_tensor from = lend(&lent, update->npy.data, update->npy.bytes, (heed_tensor){.batch_stride = (int64_t)tokens * dim, .token_stride = dim}, &status);
    if (status == HEED_OK) status = heed_append(plan, lengths_batch, HEED_F32, &from, NULL, &tensors);
    status = take_back(&lent, data, past->npy.bytes, status);
    judge(stored, status, data, want, outcome);
    heed_batch_destroy(lengths_batch);
    heed_plan_destroy(plan);
    free(kv_lens);
    free(table);
    free(data);
}
