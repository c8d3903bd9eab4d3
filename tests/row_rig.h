/* SPDX-License-Identifier: MIT
 * row_rig.h - for the tests of one CPU row at a time (test_prefill.c, test_decode.c): a context capped at an instruction set, data of one KV head and
 * several query heads, asked for whole or in parts, and whether a row's bits are the same. The test says how large: HEADS, DIM, V_DIM, KEYS, QUERIES.
 */
#ifndef HEED_ROW_RIG_H
#define HEED_ROW_RIG_H

#include "counting.h"
#include "heed.h"
#include <stdlib.h>
#include <string.h>

static const char *const isas[] = {"scalar", "avx2", "avx512"};
enum { ISAS = 3 };

/* NULL: this machine lacks the instruction set (the plan would take a weaker row). kernel: the name of its row, cpu.ISA.KIND. */
static inline heed_context *context_of(const char *isa, const char *kind, char *kernel, size_t capacity)
{
    heed_context *context = NULL;
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = 2, .flags = HEED_NO_OPENCL | HEED_NO_ENVIRONMENT,
                                          .cpu_features = isa};
    const heed_desc desc = {.struct_size = sizeof desc, .q_heads = 1, .head_dim = 1};
    heed_plan *plan = NULL;
    snprintf(kernel, capacity, "cpu.%s.%s", isa, kind);
    if (heed_context_create(&options, &context) != HEED_OK) return NULL;
    if (heed_plan_create(context, 0, &desc, kernel, &plan) != HEED_OK) {
        fprintf(stderr, "skipped: %s: %s\n", kernel, heed_error_message());
        heed_context_destroy(context);
        return NULL;
    }
    heed_plan_destroy(plan);
    return context;
}

/* heed_run() with the row `kernel`, for both kinds of step if it has them. */
static inline void run(heed_context *context, const char *kernel, heed_desc *desc, const heed_lengths *lengths, const heed_tensors *t)
{
    heed_plan *plan = NULL;
    heed_batch *batch = NULL;
    desc->struct_size = sizeof *desc;
    cr_assert(heed_plan_create(context, 0, desc, kernel, &plan) == HEED_OK && heed_batch_create(plan, lengths, &batch) == HEED_OK, "%s",
              heed_error_message());
    const size_t bytes = heed_batch_workspace_size(batch);
    void *memory = aligned_alloc(64, (bytes + 127) / 64 * 64);
    memset(memory, 0xff, bytes); /* NaN */
    const heed_tensor workspace = {.data = memory, .bytes = bytes};
    cr_assert(heed_run(plan, batch, t, bytes ? &workspace : NULL) == HEED_OK, "%s", heed_error_message());
    free(memory);
    heed_batch_destroy(batch);
    heed_plan_destroy(plan);
}

static inline heed_tensor tensor_of(const void *data, size_t bytes, int64_t head, int64_t token)
{
    return (heed_tensor){.data = (void *)data, .bytes = bytes, .head_stride = head, .token_stride = token};
}

/* ---- data of one KV head, all f32 ------------------------------------------------ */

struct data {
    float q[HEADS][QUERIES][DIM], k[KEYS][DIM], v[KEYS][V_DIM];
    unsigned char mask[QUERIES][KEYS];
};

struct answer {
    float o[HEADS][QUERIES][V_DIM], lse[HEADS][QUERIES];
};

static struct data data;
static struct answer whole, other;

static inline void data_fill(struct data *x, uint64_t seed)
{
    struct random random = {seed};
    for (size_t n = 0; n < sizeof x->q / sizeof(float); n++) (&x->q[0][0][0])[n] = (float)random_normal(&random);
    for (size_t n = 0; n < sizeof x->k / sizeof(float); n++) (&x->k[0][0])[n] = (float)random_normal(&random);
    for (size_t n = 0; n < sizeof x->v / sizeof(float); n++) (&x->v[0][0])[n] = (float)random_normal(&random);
    memset(x->mask, 1, sizeof x->mask);
}

/* How much of the data one call sees. */
struct ask {
    int32_t head, heads, query, queries, keys; /* heads [head, head + heads) as one group, ... */
    int32_t page;                              /* > 0: pages in reverse order */
    int32_t position;                          /* of the first query, causal; -1: not causal */
    bool masked;
};

static inline void ask(heed_context *context, const char *kernel, const struct data *x, const struct ask *a, struct answer *out)
{
    heed_desc desc = {.q_heads = a->heads, .kv_heads = 1, .head_dim = DIM, .v_head_dim = V_DIM, .page_size = a->page,
                      .flags = HEED_WRITE_LSE | (a->position >= 0 ? HEED_CAUSAL : 0) | (a->masked ? HEED_MASK_BOOL : 0)};
    heed_lengths lengths = {.struct_size = sizeof lengths, .batch = 1, .q_len = a->queries, .kv_len = a->keys,
                            .q_position = a->position >= 0 ? &a->position : NULL};
    heed_tensors t = {.struct_size = sizeof t};
    const int32_t pages = a->page ? (a->keys + a->page - 1) / a->page : 1, rows = a->page ? a->page : a->keys;
    int32_t *table = calloc((size_t)pages, sizeof *table);
    float *k = malloc((size_t)(pages * rows) * DIM * sizeof *k), *v = malloc((size_t)(pages * rows) * V_DIM * sizeof *v);
    for (int32_t n = 0; n < pages; n++) table[n] = pages - 1 - n;
    for (int32_t j = 0; j < a->keys; j++) {
        const size_t row = (size_t)(table[j / rows] * rows + j % rows);
        memcpy(k + row * DIM, x->k[j], sizeof x->k[j]);
        memcpy(v + row * V_DIM, x->v[j], sizeof x->v[j]);
    }
    lengths.page_table = a->page ? table : NULL;
    lengths.page_table_stride = pages;
    t.q = tensor_of(x->q[a->head][a->query], sizeof(float) * (size_t)((a->heads - 1) * QUERIES + a->queries) * DIM, QUERIES * DIM, DIM);
    t.k = tensor_of(k, (size_t)(pages * rows) * DIM * sizeof *k, DIM, DIM);
    t.v = tensor_of(v, (size_t)(pages * rows) * V_DIM * sizeof *v, V_DIM, V_DIM);
    t.k.batch_stride = (int64_t)rows * DIM;
    t.v.batch_stride = (int64_t)rows * V_DIM;
    t.o = tensor_of(out->o, sizeof out->o, QUERIES * V_DIM, V_DIM);
    t.lse = tensor_of(out->lse, sizeof out->lse, QUERIES, 1);
    t.mask = tensor_of(x->mask[a->query], (size_t)((a->queries - 1) * KEYS + a->keys), 0, KEYS);
    memset(out, 0xa5, sizeof *out);
    run(context, kernel, &desc, &lengths, &t);
    free(table);
    free(k);
    free(v);
}

/* Row (head, query) of the whole against the same row asked for in another way: place (h, i) of that answer. */
static inline bool same_row(int head, int query, int h, int i)
{
    return !memcmp(whole.o[head][query], other.o[h][i], sizeof whole.o[head][query]) &&
           !memcmp(&whole.lse[head][query], &other.lse[h][i], sizeof(float));
}

#endif
