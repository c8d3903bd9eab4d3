/* SPDX-License-Identifier: MIT
 * openblas.c - attention as two matrix products by OpenBLAS and a softmax between them: what one gets from the best plain BLAS, with the whole
 * score matrix of a head in memory. Heads are spread over heed's own threads; OpenBLAS itself runs on one. Built with -DHEED_PEERS=ON.
 */
#ifdef HEED_PEER_OPENBLAS
#include "peers.h"
#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const char *version(void) { return openblas_get_config(); }

static const char *refuses(const struct instance *instance)
{
    const struct problem *p = &instance->problem;
    const char *reason = peer_plain_loops.refuses(instance);
    if (reason) return reason;
    return instance->tensors.q.token_stride < p->head_dim || instance->tensors.k.token_stride < p->head_dim ? "rows must not overlap" : NULL;
}

struct task {
    const struct instance *instance;
    float *o, *scores; /* scores: one matrix per worker */
    size_t matrix;
    int32_t rows;      /* queries of a product: the tokens of a head, or in decode the heads of a group */
};

/* Row r sees keys [0, keys): weights in place, the hidden ones 0. */
static void softmax(float *s, int32_t keys, int32_t kv_len)
{
    float m = -INFINITY, l = 0;
    for (int32_t j = 0; j < keys; j++) m = s[j] > m ? s[j] : m;
    for (int32_t j = 0; j < keys; j++) l += s[j] = expf(s[j] - m);
    for (int32_t j = 0; j < keys; j++) s[j] /= l;
    for (int32_t j = keys; j < kv_len; j++) s[j] = 0;
}

static void product(void *arg, int32_t n, int32_t worker)
{
    const struct task *task = arg;
    const struct problem *p = &task->instance->problem;
    const heed_tensors *t = &task->instance->tensors;
    const int32_t q_len = task->instance->line.q_len, kv_len = task->instance->line.kv_len, step = q_len == 1 ? p->group : 1;
    const int32_t b = n / (p->q_heads / step), h = n % (p->q_heads / step) * step, g = h / p->group;
    const int64_t q_row = q_len == 1 ? t->q.head_stride : t->q.token_stride, o_row = q_len == 1 ? t->o.head_stride : t->o.token_stride;
    const float *q = (const float *)t->q.data + t->q.offset + b * t->q.batch_stride + h * t->q.head_stride;
    const float *k = (const float *)t->k.data + t->k.offset + b * t->k.batch_stride + g * t->k.head_stride;
    const float *v = (const float *)t->v.data + t->v.offset + b * t->v.batch_stride + g * t->v.head_stride;
    float *o = task->o + t->o.offset + b * t->o.batch_stride + h * t->o.head_stride, *s = task->scores + (size_t)worker * task->matrix;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, task->rows, kv_len, p->head_dim, p->scale, q, (blasint)q_row, k,
                (blasint)t->k.token_stride, 0, s, kv_len);
    for (int32_t r = 0; r < task->rows; r++) {
        const int32_t i = q_len == 1 ? 0 : r;
        int32_t keys = kv_len;
        if (p->flags & HEED_CAUSAL) keys = (p->flags & HEED_TOP_LEFT ? i : kv_len - q_len + i) + 1;
        softmax(s + (size_t)r * (size_t)kv_len, keys < 0 ? 0 : keys > kv_len ? kv_len : keys, kv_len);
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, task->rows, p->v_head_dim, kv_len, 1, s, kv_len, v, (blasint)t->v.token_stride, 0,
                o, (blasint)o_row);
}

static bool run(const struct services *services, const struct instance *instance, float *o)
{
    const heed_threads *threads = &services->threads;
    const int32_t q_len = instance->line.q_len, step = q_len == 1 ? instance->problem.group : 1, rows = q_len == 1 ? step : q_len;
    struct task task = {.instance = instance, .o = o, .rows = rows, .matrix = (size_t)rows * (size_t)instance->line.kv_len};
    if (task.matrix == 0) return true;
    task.scores = malloc(sizeof(float) * task.matrix * (size_t)threads->workers);
    if (!task.scores) return false;
    openblas_set_num_threads(1);
    threads->parallel_for(threads->user, instance->line.batch * (instance->problem.q_heads / step), product, &task);
    free(task.scores);
    return true;
}

const struct peer peer_openblas = {"openblas", version, refuses, run};
#else
typedef int peer_openblas_is_not_built;
#endif
