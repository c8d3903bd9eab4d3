/* SPDX-License-Identifier: MIT
 * plain_loops.c - the honest baseline: attention as one would write it at once, three loops, -O3, on the same threads. Scores of a row in
 * one array, softmax by expf, then the weighted sum. Nothing is blocked, nothing is written by hand for an instruction set.
 */
#include "peers.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>

static const char *version(void) { return "cc " __VERSION__; }

static const char *refuses(const struct instance *instance)
{
    const struct problem *p = &instance->problem;
    if (p->q_type != HEED_F32 || p->k_type != HEED_F32 || p->v_type != HEED_F32 || p->o_type != HEED_F32) return "f32 only";
    if (p->page_size || instance->line.ragged || instance->line.kvlens || instance->line.tree || instance->line.pos_given ||
        instance->line.kvfirst_given)
        return "dense sequences of equal lengths only";
    if ((p->flags & ~(HEED_CAUSAL | HEED_INVARIANT)) || p->softcap != 0) return "causal is all it knows";
    return NULL;
}

struct task {
    const struct instance *instance;
    float *o, *scores; /* scores: one row per worker */
};

static const float *row_of(const heed_tensor *t, int32_t b, int32_t h, int32_t i)
{
    return (const float *)t->data + t->offset + b * t->batch_stride + h * t->head_stride + i * t->token_stride;
}

/* o = softmax(scale q.k) v over keys [0, keys) */
static void query(const struct problem *p, const float *q, const heed_tensor *k, const heed_tensor *v, int32_t b, int32_t g, int32_t keys,
                  float *s, float *o)
{
    float m = -FLT_MAX, l = 0;
    for (int32_t j = 0; j < keys; j++) {
        const float *kj = row_of(k, b, g, j);
        float dot = 0;
        for (int32_t d = 0; d < p->head_dim; d++) dot += q[d] * kj[d];
        s[j] = dot * p->scale;
        m = s[j] > m ? s[j] : m;
    }
    for (int32_t j = 0; j < keys; j++) l += s[j] = expf(s[j] - m);
    for (int32_t d = 0; d < p->v_head_dim; d++) o[d] = 0;
    for (int32_t j = 0; j < keys; j++) {
        const float *vj = row_of(v, b, g, j), w = s[j] / l;
        for (int32_t d = 0; d < p->v_head_dim; d++) o[d] += w * vj[d];
    }
}

static void head(void *arg, int32_t n, int32_t worker)
{
    const struct task *task = arg;
    const struct instance *instance = task->instance;
    const struct problem *p = &instance->problem;
    const heed_tensors *t = &instance->tensors;
    const int32_t b = n / p->q_heads, h = n % p->q_heads, q_len = instance->line.q_len, kv_len = instance->line.kv_len;
    for (int32_t i = 0; i < q_len; i++) {
        int32_t keys = kv_len;
        if (p->flags & HEED_CAUSAL) keys = (p->flags & HEED_TOP_LEFT ? i : kv_len - q_len + i) + 1;
        keys = keys < 0 ? 0 : keys > kv_len ? kv_len : keys;
        float *o = task->o + t->o.offset + b * t->o.batch_stride + h * t->o.head_stride + i * t->o.token_stride;
        query(p, row_of(&t->q, b, h, i), &t->k, &t->v, b, h / p->group, keys, task->scores + (size_t)worker * (size_t)kv_len, o);
    }
}

static bool run(const struct services *services, const struct instance *instance, float *o)
{
    const heed_threads *threads = &services->threads;
    struct task task = {instance, o, malloc(sizeof(float) * (size_t)instance->line.kv_len * (size_t)threads->workers + 1)};
    if (!task.scores) return false;
    threads->parallel_for(threads->user, instance->line.batch * instance->problem.q_heads, head, &task);
    free(task.scores);
    return true;
}

const struct peer peer_plain_loops = {"plain-loops", version, refuses, run};
