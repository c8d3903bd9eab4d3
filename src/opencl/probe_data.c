/* SPDX-License-Identifier: MIT
 * probe_data.c - lengths and tensors of the probe's problem: tails, an empty sequence, keys hidden from all (NaN in K, V and scales), a key
 * that some queries see and others do not (NaN in one column of V), a row that sees nothing.
 */
#include "probe_case.h"
#include "../dtype.h"
#include "../schedule.h"
#include "../view.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { EXTRA = 5 }; /* tokens behind the longest sequence: NaN */

/* ---- memory and numbers -------------------------------------------------------- */

void *probe_block(struct probe_set *set, size_t bytes)
{
    if (set->block_count == PROBE_BLOCKS) return NULL;
    void *block = aligned_alloc(64, (bytes + 127) / 64 * 64);
    if (!block) return NULL;
    memset(block, 0, bytes);
    set->block_bytes[set->block_count] = bytes;
    set->blocks[set->block_count++] = block;
    return block;
}

void probe_release(struct probe_set *set)
{
    if (set->batch.state) cl_batch_release(&set->batch);
    schedule_release(&set->device->services, &set->batch);
    lengths_release(&set->device->services, &set->batch);
    for (int i = 0; i < set->block_count; i++) free(set->blocks[i]);
    set->block_count = 0;
}

static uint64_t bits(struct probe_set *set)
{
    uint64_t z = set->random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* Near normal: the sum of four uniform numbers. */
float probe_normal(struct probe_set *set)
{
    const uint64_t x = bits(set);
    const float sum = (float)(x & 0xffff) + (float)(x >> 16 & 0xffff) + (float)(x >> 32 & 0xffff) + (float)(x >> 48);
    return (sum - 131070.0f) * (1.7320508f / 65536.0f);
}

/* ---- lengths ---------------------------------------------------------------------- */

/* Multiply-adds of a choice of lengths. An interpreter is a thousand times slower than a driver. */
static double cost(const struct problem *p, int32_t q, int32_t kv)
{
    return (double)p->q_heads * (p->head_dim + p->v_head_dim) * q * kv;
}

static double budget(const struct cl_device *device)
{
    const uint32_t everything = CL_NEEDS_CPU | CL_NEEDS_GPU;
    return (device->provides & everything) == everything ? 4e5 : 4e7;
}

static void choose_lengths(struct probe_set *set, enum kind kind)
{
    static const int32_t prefill[][2] = {{131, 150}, {67, 77}, {19, 45}, {7, 19}, {5, 9}};
    const struct kernel_row *row = set->plan.row[KIND_PREFILL];
    const int32_t chunk = row->kv_chunk > 0 ? row->kv_chunk : 64;
    const int32_t decode[][2] = {{1, 2 * chunk + 37}, {1, chunk + 5}, {1, 77}, {1, 19}, {1, 9}};
    const int32_t (*sizes)[2] = kind == KIND_DECODE ? decode : prefill;
    int n = 0;
    while (n < 4 && cost(&set->plan.problem, sizes[n][0], sizes[n][1]) > budget(set->device)) n++;
    const int32_t q = sizes[n][0], kv = sizes[n][1];
    const int32_t q_lens[PROBE_BATCH] = {q, kind == KIND_DECODE ? 1 : 3, kind == KIND_DECODE ? 1 : 2, 1};
    const int32_t kv_lens[PROBE_BATCH] = {kv, kv / 2 + 1, 0, kv / 3 + 1};
    set->cut.short_chunk = kv / 3 + 1; /* three chunks, which begin in the midst of tiles */
    memcpy(set->q_lens, q_lens, sizeof q_lens);
    memcpy(set->kv_lens, kv_lens, sizeof kv_lens);
    if (kind >= WORK_KINDS) { /* append: the new tokens are among the keys */
        set->kv_lens[2] = set->q_lens[2];
        set->kv_lens[0] = set->q_lens[0] + 3;
        set->kv_lens[1] = set->q_lens[1] + 1;
    }
    for (int b = 0; b < PROBE_BATCH; b++) {
        set->q_start[b + 1] = set->q_start[b] + set->q_lens[b];
        set->q_position[b] = set->kv_lens[b] - set->q_lens[b];
        if (set->kv_lens[b] > set->kv_max) set->kv_max = set->kv_lens[b];
    }
    if (kind < WORK_KINDS) set->q_position[1] -= 2; /* the newest keys are hidden by causality */
    if (kind >= WORK_KINDS)
        for (int b = 0; b < PROBE_BATCH; b++)
            if (set->q_position[b] < 0) set->q_position[b] = 0;
}

static void choose_pages(struct probe_set *set)
{
    const int32_t size = set->plan.problem.page_size;
    int32_t next = 0;
    set->slots = set->kv_max + EXTRA;
    if (size == 0) return;
    /* Small pages cannot hold long sequences in the table's room: shorten them. */
    const int64_t room = 256 * (int64_t)size;
    for (int b = 0; b < PROBE_BATCH; b++)
        if (set->kv_lens[b] > room) set->kv_lens[b] = (int32_t)room;
    if (size < set->slots) set->slots = size;
    set->page_rows = (set->kv_max + size - 1) / size;
    if (set->page_rows > 256) set->page_rows = 256;
    if (set->page_rows < 1) set->page_rows = 1;
    for (int32_t n = set->page_rows - 1; n >= 0; n--) /* neighbours in a sequence are no neighbours in the pool */
        for (int b = 0; b < PROBE_BATCH; b++) set->page_table[b * set->page_rows + n] = next++;
}

int32_t probe_token_row(const struct probe_set *set, int32_t b, int32_t j)
{
    const int32_t size = set->plan.problem.page_size;
    if (size == 0) return b * set->slots + j;
    return set->page_table[b * set->page_rows + j / size] * set->slots + j % size;
}

int32_t probe_pool_tokens(const struct probe_set *set)
{
    return PROBE_BATCH * (set->plan.problem.page_size ? set->page_rows : 1) * set->slots;
}

heed_status probe_lengths(struct probe_set *set, enum kind kind)
{
    choose_lengths(set, kind);
    choose_pages(set);
    const bool choice = kind == KIND_SCORES && set->plan.problem.q_heads > 1; /* of heads, not in their order, and of queries */
    set->score_heads[0] = set->plan.problem.q_heads - 1;
    const heed_lengths lengths = {
        .score_rows = choice ? 19 : 0, /* more than there are partial sums */
        .score_head_count = choice ? 2 : 0,
        .score_heads = choice ? set->score_heads : NULL,
        .struct_size = sizeof lengths,
        .batch = PROBE_BATCH,
        .q_start = set->q_start,
        .kv_lens = set->kv_lens,
        .q_position = set->q_position,
        .page_table = set->plan.problem.page_size ? set->page_table : NULL,
        .page_table_stride = set->page_rows,
    };
    heed_status status = lengths_take(&set->device->services, &set->plan.problem, &lengths, &set->batch);
    if (status == HEED_OK) status = schedule_batch(&set->device->services, &set->batch);
    for (int k = 0; k < WORK_KINDS; k++)
        if (k != (int)kind) set->batch.work[k].count = set->batch.work[k].merge_count = 0; /* another row's */
    if (status == HEED_OK) status = cl_batch_prepare(&set->batch);
    if (status == HEED_OK) set->batch.workspace_bytes += cl_workspace_bytes(&set->batch);
    return status;
}

/* ---- tensors -------------------------------------------------------------------------- */

static int64_t stride_of(heed_type type, int64_t rows, int32_t dim)
{
    return type_is_block(type) ? rows * type_row_bytes(type, dim) : rows * dim;
}

heed_tensor probe_rows(struct probe_set *set, heed_type type, int64_t tokens, int32_t heads, int32_t dim, float *scales)
{
    const size_t row_bytes = (size_t)type_row_bytes(type, dim), bytes = (size_t)tokens * (size_t)heads * row_bytes;
    unsigned char *data = probe_block(set, bytes);
    float x[MAX_HEAD_DIM];
    if (!data) return (heed_tensor){0};
    for (int64_t r = 0; r < tokens * heads; r++) {
        for (int32_t d = 0; d < dim; d++) x[d] = probe_normal(set);
        row_from_f32(type, x, data + (size_t)r * row_bytes, scales ? scales + r : NULL, dim);
    }
    return (heed_tensor){.data = data, .bytes = bytes, .token_stride = stride_of(type, heads, dim), .head_stride = stride_of(type, 1, dim)};
}

/* A tensor [tokens, columns] of one head, as mask, bias, scores and lse have it. */
static heed_tensor plain(struct probe_set *set, size_t tokens, size_t columns, size_t element, int64_t head_columns, int fill)
{
    const size_t bytes = tokens * columns * element;
    void *data = probe_block(set, bytes);
    if (data) memset(data, fill, bytes);
    return (heed_tensor){.data = data, .bytes = bytes, .token_stride = (int64_t)columns, .head_stride = head_columns};
}

static bool has_scale(heed_type type) { return type == HEED_I8 || type == HEED_F8_E4M3 || type == HEED_F8_E5M2; }

static void fill_masks(struct probe_set *set)
{
    const struct problem *p = &set->plan.problem;
    const size_t tokens = (size_t)set->q_start[PROBE_BATCH], keys = (size_t)set->kv_max;
    heed_tensors *t = &set->tensors;
    if (p->flags & HEED_MASK_BOOL) {
        t->mask = plain(set, tokens, keys, 1, 0, 0);
        for (size_t n = 0; t->mask.data && n < tokens * keys; n++) ((unsigned char *)t->mask.data)[n] = (bits(set) & 3) != 0;
    }
    if (p->flags & HEED_MASK_BITS) {
        t->mask = plain(set, tokens, (keys + 7) / 8, 1, 0, 0);
        for (size_t n = 0; t->mask.data && n < t->mask.bytes; n++)
            ((unsigned char *)t->mask.data)[n] = (unsigned char)(bits(set) | bits(set) >> 32);
    }
    if (p->flags & HEED_BIAS) {
        t->bias = plain(set, tokens, keys, (size_t)type_row_bytes(p->bias_type, 1), 0, 0);
        for (size_t n = 0; t->bias.data && n < tokens * keys; n++) {
            const float x = bits(set) % 7 == 0 ? -INFINITY : probe_normal(set);
            row_from_f32(p->bias_type, &x, (char *)t->bias.data + n * (size_t)type_row_bytes(p->bias_type, 1), NULL, 1);
        }
    }
    if (p->flags & HEED_KEY_RANGE) {
        t->key_range = plain(set, tokens, 2, 4, 0, 0);
        int32_t *range = t->key_range.data;
        for (int b = 0; range && b < PROBE_BATCH; b++)
            for (int32_t i = set->q_start[b]; i < set->q_start[b + 1]; i++) {
                range[2 * i] = (int32_t)(bits(set) % 4);
                range[2 * i + 1] = i % 5 == 4 ? range[2 * i] : set->kv_lens[b] - (int32_t)(bits(set) % 3);
            }
    }
    /* the second query of sequence 0 sees nothing, where something can hide its keys */
    const size_t row = set->q_lens[0] > 1 ? 1 : 0;
    if ((p->flags & (HEED_MASK_BOOL | HEED_MASK_BITS)) && t->mask.data && set->q_lens[0] > 1)
        memset((char *)t->mask.data + row * (size_t)t->mask.token_stride, 0, (size_t)t->mask.token_stride);
}

bool probe_visible(const struct probe_set *set, int32_t b, int32_t i, int32_t j)
{
    const struct problem *p = &set->plan.problem;
    const struct sequence *s = &set->batch.sequences[b];
    const size_t row = (size_t)(set->q_start[b] + i), keys = (size_t)set->kv_max, at = row * keys + (size_t)j;
    int32_t begin, end;
    float bias = 0;
    visible_by_position(p, s, query_position(&set->batch, s, i), &begin, &end);
    if (j < begin || j >= end) return false;
    if ((p->flags & HEED_MASK_BOOL) && !((const unsigned char *)set->tensors.mask.data)[at]) return false;
    if ((p->flags & HEED_MASK_BITS) &&
        !(((const unsigned char *)set->tensors.mask.data)[row * ((keys + 7) / 8) + (size_t)j / 8] >> j % 8 & 1))
        return false;
    if (p->flags & HEED_BIAS)
        row_to_f32(p->bias_type, (const char *)set->tensors.bias.data + at * (size_t)type_row_bytes(p->bias_type, 1), 1, &bias, 1);
    if (bias == -INFINITY) return false;
    const int32_t *range = set->tensors.key_range.data;
    return !(p->flags & HEED_KEY_RANGE) || (j >= range[2 * row] && j < range[2 * row + 1]);
}

/* NaN into every element (or one column) of token row t. */
static void poison(const struct problem *p, heed_type type, const heed_tensor *tensor, float *scales, int32_t dim, int32_t t,
                   int32_t column)
{
    const size_t row_bytes = (size_t)type_row_bytes(type, dim);
    float x[MAX_HEAD_DIM];
    for (int32_t g = 0; g < p->kv_heads; g++) {
        const size_t r = (size_t)t * (size_t)p->kv_heads + (size_t)g;
        void *row = (char *)tensor->data + r * row_bytes;
        row_to_f32(type, row, 1.0f, x, dim);
        for (int32_t d = 0; d < dim; d++)
            if (column < 0 || d == column) x[d] = NAN;
        row_from_f32(type, x, row, NULL, dim);
        if (scales && column < 0) scales[r] = NAN;
    }
}

static void poison_keys(struct probe_set *set, float *k_scales, float *v_scales)
{
    const struct problem *p = &set->plan.problem;
    const bool column = p->v_type == HEED_F32 || p->v_type == HEED_F16 || p->v_type == HEED_BF16;
    const int32_t size = p->page_size;
    for (int b = 0; b < PROBE_BATCH; b++) {
        int32_t partly = -1;
        const int32_t room = size ? (set->kv_lens[b] + size - 1) / size * size : set->slots;
        for (int32_t j = 0; j < room; j++) {
            int32_t seen = 0;
            if (size && j % size >= set->slots) continue; /* the pool's pages are no larger than the longest sequence */
            for (int32_t i = 0; i < set->q_lens[b] && j < set->kv_lens[b]; i++) seen += probe_visible(set, b, i, j);
            if (seen > 0 && seen < set->q_lens[b]) partly = j;
            if (seen > 0) continue;
            poison(p, p->k_type, &set->tensors.k, k_scales, p->head_dim, probe_token_row(set, b, j), -1);
            poison(p, p->v_type, &set->tensors.v, v_scales, p->v_head_dim, probe_token_row(set, b, j), -1);
        }
        if (partly >= 0 && column && b == 0)
            poison(p, p->v_type, &set->tensors.v, NULL, p->v_head_dim, probe_token_row(set, b, partly), p->v_head_dim / 2);
    }
}

/* k or v of the pool, with its scales. */
static heed_tensor pool(struct probe_set *set, heed_type type, int32_t dim, heed_tensor *scale_tensor, float **scales)
{
    const struct problem *p = &set->plan.problem;
    const int64_t tokens = probe_pool_tokens(set);
    *scales = NULL;
    if (has_scale(type)) {
        *scale_tensor = plain(set, (size_t)tokens, (size_t)p->kv_heads, sizeof(float), 1, 0);
        scale_tensor->batch_stride = (int64_t)set->slots * p->kv_heads;
        *scales = scale_tensor->data;
        if (!*scales) return (heed_tensor){0};
    }
    heed_tensor tensor = probe_rows(set, type, tokens, p->kv_heads, dim, *scales);
    tensor.batch_stride = set->slots * tensor.token_stride;
    return tensor;
}

heed_status probe_fill(struct probe_set *set)
{
    const struct problem *p = &set->plan.problem;
    const size_t tokens = (size_t)set->q_start[PROBE_BATCH], heads = (size_t)p->q_heads, keys = (size_t)set->kv_max;
    const size_t o_element = (size_t)type_row_bytes(p->o_type, 1);
    heed_tensors *t = &set->tensors;
    float *k_scales, *v_scales;
    t->struct_size = sizeof *t;
    t->q = probe_rows(set, p->q_type, (int64_t)tokens, p->q_heads, p->head_dim, NULL);
    t->k = pool(set, p->k_type, p->head_dim, &t->k_scale, &k_scales);
    t->v = pool(set, p->v_type, p->v_head_dim, &t->v_scale, &v_scales);
    t->o = plain(set, tokens, heads * (size_t)p->v_head_dim, o_element, p->v_head_dim, PROBE_SENTINEL);
    if (p->flags & HEED_WRITE_LSE) t->lse = plain(set, tokens, heads, 4, 1, PROBE_SENTINEL);
    if (p->flags & HEED_WRITE_SCORES) { /* [batch or packed, token, head, key] */
        const size_t chosen = (size_t)set->batch.score_head_count, rows = set->batch.score_rows ? PROBE_BATCH * (size_t)set->batch.score_rows : tokens;
        t->scores = plain(set, rows, chosen * keys, 4, (int64_t)keys, PROBE_SENTINEL);
        t->scores.batch_stride = set->batch.score_rows * t->scores.token_stride;
    }
    if (p->flags & HEED_WRITE_KEY_SUMS) {
        t->key_sums = plain(set, PROBE_BATCH, heads * keys, 4, (int64_t)keys, PROBE_SENTINEL);
        t->key_sums.batch_stride = t->key_sums.token_stride;
    }
    if (p->flags & HEED_ALIBI) {
        t->alibi_slopes = plain(set, 1, heads, 4, 0, 0);
        for (size_t h = 0; t->alibi_slopes.data && h < heads; h++) ((float *)t->alibi_slopes.data)[h] = 0.5f / (float)(1 + h % 8);
    }
    if (p->flags & HEED_SINKS) {
        t->sinks = plain(set, 1, heads, 4, 0, 0);
        for (size_t h = 0; t->sinks.data && h < heads; h++) ((float *)t->sinks.data)[h] = probe_normal(set);
    }
    fill_masks(set);
    const uint64_t f = p->flags;
    if (!t->q.data || !t->k.data || !t->v.data || !t->o.data || ((f & HEED_WRITE_LSE) && !t->lse.data) ||
        ((f & HEED_WRITE_SCORES) && !t->scores.data) || ((f & HEED_WRITE_KEY_SUMS) && !t->key_sums.data) || ((f & HEED_ALIBI) && !t->alibi_slopes.data) ||
        ((f & HEED_SINKS) && !t->sinks.data) || ((f & (HEED_MASK_BOOL | HEED_MASK_BITS)) && !t->mask.data) ||
        ((f & HEED_BIAS) && !t->bias.data) || ((f & HEED_KEY_RANGE) && !t->key_range.data))
        return fail(HEED_OUT_OF_MEMORY, "no memory for the probe's tensors");
    poison_keys(set, k_scales, v_scales);
    return HEED_OK;
}
