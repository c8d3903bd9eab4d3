/* SPDX-License-Identifier: MIT
 * decode_loop.c - the loop of a language model, one layer: a prompt, then token after token, against a paged cache that heed_append() fills.
 * The projections of a real model are replaced by a small formula, so that the program stands alone.
 * Build: cc decode_loop.c -lheed -lm
 */
#include <heed.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

enum { Q_HEADS = 4, KV_HEADS = 2, DIM = 16, PAGE = 8, PAGES = 6, PROMPT = 11, STEPS = 6, MOST = PROMPT + STEPS, ROPE = DIM / 2 };

static float cache_k[PAGES][PAGE][KV_HEADS][DIM], cache_v[PAGES][PAGE][KV_HEADS][DIM]; /* any page may serve any sequence */
static float q[MOST][Q_HEADS][DIM], new_k[MOST][KV_HEADS][DIM], new_v[MOST][KV_HEADS][DIM], o[MOST][Q_HEADS][DIM];
static float rope_cos[MOST][ROPE], rope_sin[MOST][ROPE];

/* In a model: x W_q, x W_k, x W_v of the step's tokens. */
static void project(int first, int count)
{
    for (int i = 0; i < count; i++)
        for (int d = 0; d < DIM; d++) {
            for (int h = 0; h < Q_HEADS; h++) q[i][h][d] = sinf((float)((first + i) * 7 + h * 3 + d));
            for (int g = 0; g < KV_HEADS; g++) new_k[i][g][d] = cosf((float)((first + i) * 5 + g + d));
            for (int g = 0; g < KV_HEADS; g++) new_v[i][g][d] = (float)(first + i) + 0.01f * (float)d;
        }
}

static heed_tensor rows(void *data, size_t bytes, int heads) /* [token][head][dim] */
{
    return (heed_tensor){.data = data, .bytes = bytes, .head_stride = DIM, .token_stride = heads * DIM};
}

/* One step: `count` new tokens behind `past` others. Rotate and append k and v, rotate q, attend. */
static heed_status step(const heed_plan *plan, heed_batch **batch, int past, int count, const int32_t *page_table)
{
    heed_lengths lengths = {.struct_size = sizeof lengths, .batch = 1, .q_len = count, .kv_len = past + count, .page_table = page_table,
                            .page_table_stride = PAGES};
    heed_tensors t = {.struct_size = sizeof t, .q = rows(q, sizeof q, Q_HEADS), .o = rows(o, sizeof o, Q_HEADS),
                      .k = rows(cache_k, sizeof cache_k, KV_HEADS), .v = rows(cache_v, sizeof cache_v, KV_HEADS),
                      .rope_cos = {rope_cos, sizeof rope_cos, .token_stride = ROPE}, .rope_sin = {rope_sin, sizeof rope_sin, .token_stride = ROPE}};
    heed_tensor k = rows(new_k, sizeof new_k, KV_HEADS), v = rows(new_v, sizeof new_v, KV_HEADS), workspace = {0};
    t.k.batch_stride = t.v.batch_stride = PAGE * KV_HEADS * DIM; /* from page to page */
    project(past, count);

    heed_status status = *batch ? heed_batch_update(*batch, &lengths) : heed_batch_create(plan, &lengths, batch);
    if (status != HEED_OK) return status;
    if ((status = heed_append(plan, *batch, HEED_F32, &k, &v, &t)) != HEED_OK) return status;
    if ((status = heed_rotate(plan, *batch, Q_HEADS, &t.q, &t)) != HEED_OK) return status;
    workspace.bytes = heed_batch_workspace_size(*batch);
    if (workspace.bytes) workspace.data = aligned_alloc(64, (workspace.bytes + 63) / 64 * 64);
    status = heed_run(plan, *batch, &t, workspace.data ? &workspace : NULL);
    free(workspace.data);
    return status;
}

int main(void)
{
    const int32_t page_table[PAGES] = {4, 1, 5, 0, 2, 3}; /* the sequence's pages, in any order */
    for (int p = 0; p < MOST; p++)
        for (int n = 0; n < ROPE; n++) {
            const float angle = (float)p * powf(10000.0f, -(float)n / ROPE);
            rope_cos[p][n] = cosf(angle);
            rope_sin[p][n] = sinf(angle);
        }
    heed_context *context = NULL;
    heed_plan *plan = NULL;
    heed_batch *batch = NULL;
    heed_desc desc = {.struct_size = sizeof desc, .q_heads = Q_HEADS, .kv_heads = KV_HEADS, .head_dim = DIM, .page_size = PAGE,
                      .rope_dim = DIM, .flags = HEED_CAUSAL};
    heed_status status = heed_context_create(NULL, &context);
    if (status == HEED_OK) status = heed_plan_create(context, 0, &desc, NULL, &plan);
    if (status == HEED_OK) status = step(plan, &batch, 0, PROMPT, page_table);
    if (status == HEED_OK) printf("prompt of %d tokens: o[last, head 0] = %.4f %.4f ...\n", PROMPT, o[PROMPT - 1][0][0], o[PROMPT - 1][0][1]);
    for (int past = PROMPT; status == HEED_OK && past < MOST; past++) {
        status = step(plan, &batch, past, 1, page_table);
        if (status == HEED_OK) printf("token %d, cache of %d keys: o[head 0] = %.4f %.4f ...\n", past, past + 1, o[0][0][0], o[0][0][1]);
    }
    /* The same tokens all at once must say the same about the last one. */
    const float last = o[0][0][0];
    if (status == HEED_OK) status = step(plan, &batch, 0, MOST, page_table);
    const bool same = fabsf(o[MOST - 1][0][0] - last) < 1e-4f;
    if (status == HEED_OK) printf("all %d at once:          o[head 0] = %.4f, %s\n", MOST, o[MOST - 1][0][0], same ? "the same" : "DIFFERENT");
    if (status != HEED_OK) fprintf(stderr, "%s: %s\n", heed_status_string(status), heed_error_message());
    heed_batch_destroy(batch);
    heed_plan_destroy(plan);
    heed_context_destroy(context);
    return status == HEED_OK && same ? 0 : 1;
}
