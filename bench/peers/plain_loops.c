/* SPDX-License-Identifier: MIT
 * plain_loops.c - the honest baseline: attention as one would write it at once, three loops, -O3 -ffast-math for this machine's own
 * instruction set, on the same threads. Scores of a row in one array, softmax by expf, then the weighted sum. Nothing is blocked, nothing is
 * written by hand for an instruction set. Rows (b, h, i) are spread over the threads in a few parts per thread.
 */
#include "internal.h"
#include "tool.h"
#include "unfused.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>

static const char *absent(const struct peer *self)
{
    (void)self;
    return NULL;
}

static const char *version(const struct peer *self)
{
    (void)self;
    return "cc " __VERSION__ " -O3 -ffast-math, for this machine";
}

static const char *refuses(const struct peer *self, const struct instance *instance)
{
    (void)self;
    const struct problem *p = &instance->problem;
    if (p->q_type != HEED_F32 || p->k_type != HEED_F32 || p->v_type != HEED_F32 || p->o_type != HEED_F32) return "f32 only";
    if (p->page_size || instance->line.ragged || instance->line.kvlens || instance->line.tree || instance->line.pos_given ||
        instance->line.kvfirst_given)
        return "dense sequences of equal lengths only";
    if ((p->flags & ~(HEED_CAUSAL | HEED_INVARIANT)) || p->softcap != 0) return "causal is all it knows";
    return NULL;
}

static struct {
    const struct services *services;
    const struct instance *instance;
    float *o, *scores; /* scores: one row per worker */
    int64_t rows, part; /* all rows (b, h, i), and those of one task */
} plain;

/* o = softmax(scale q.k) v over keys [0, keys), all in f32; rows of k and v lie k_row and v_row apart */
PEER_LOOPS void plain_query(const float *q, const float *k, int64_t k_row, const float *v, int64_t v_row, int32_t head_dim, int32_t v_head_dim,
                            float scale, int32_t keys, float *s, float *o);
PEER_LOOPS void plain_query(const float *q, const float *k, int64_t k_row, const float *v, int64_t v_row, int32_t head_dim, int32_t v_head_dim,
                            float scale, int32_t keys, float *s, float *o)
{
    float m = -FLT_MAX, l = 0;
    for (int32_t j = 0; j < keys; j++) {
        const float *kj = k + j * k_row;
        float dot = 0;
        for (int32_t d = 0; d < head_dim; d++) dot += q[d] * kj[d];
        s[j] = dot * scale;
        m = s[j] > m ? s[j] : m;
    }
    for (int32_t j = 0; j < keys; j++) l += s[j] = expf(s[j] - m);
    for (int32_t d = 0; d < v_head_dim; d++) o[d] = 0;
    for (int32_t j = 0; j < keys; j++) {
        const float *vj = v + j * v_row, w = s[j] / l;
        for (int32_t d = 0; d < v_head_dim; d++) o[d] += w * vj[d];
    }
}

static float *place(const heed_tensor *t, float *data, int32_t b, int32_t h, int32_t i)
{
    return data + t->offset + b * t->batch_stride + h * t->head_stride + i * t->token_stride;
}

static void rows(void *arg, int32_t n, int32_t worker)
{
    (void)arg;
    const struct problem *p = &plain.instance->problem;
    const heed_tensors *t = &plain.instance->tensors;
    const int32_t q_len = plain.instance->line.q_len, kv_len = plain.instance->line.kv_len;
    const int64_t end = (n + 1) * plain.part < plain.rows ? (n + 1) * plain.part : plain.rows;
    for (int64_t row = n * plain.part; row < end; row++) {
        const int32_t i = (int32_t)(row % q_len), h = (int32_t)(row / q_len % p->q_heads), b = (int32_t)(row / q_len / p->q_heads);
        int32_t keys = kv_len;
        if (p->flags & HEED_CAUSAL) keys = (p->flags & HEED_TOP_LEFT ? i : kv_len - q_len + i) + 1;
        keys = keys < 0 ? 0 : keys > kv_len ? kv_len : keys;
        plain_query(place(&t->q, t->q.data, b, h, i), place(&t->k, t->k.data, b, h / p->group, 0), t->k.token_stride,
                    place(&t->v, t->v.data, b, h / p->group, 0), t->v.token_stride, p->head_dim, p->v_head_dim, p->scale, keys,
                    plain.scores + (size_t)worker * (size_t)kv_len, place(&t->o, plain.o, b, h, i));
    }
}

static const char *begin(const struct peer *self, const struct services *services, const struct instance *instance)
{
    (void)self;
    plain.services = services;
    plain.instance = instance;
    plain.rows = (int64_t)instance->line.batch * instance->problem.q_heads * instance->line.q_len;
    plain.part = (plain.rows + 8 * services->threads.workers - 1) / (8 * services->threads.workers);
    plain.scores = malloc(sizeof(float) * (size_t)instance->line.kv_len * (size_t)services->threads.workers + 1);
    return plain.scores ? NULL : "out of memory";
}

static const char *run(const struct peer *self, float *o, int count, double *seconds)
{
    (void)self;
    const heed_threads *threads = &plain.services->threads;
    plain.o = o;
    for (int n = 0; n < count && plain.part; n++) {
        const double start = seconds_now();
        threads->parallel_for(threads->user, (int32_t)((plain.rows + plain.part - 1) / plain.part), rows, NULL);
        seconds[n] = seconds_now() - start;
    }
    return NULL;
}

static const char *setting(const struct peer *self)
{
    (void)self;
    return "eight parts per thread";
}

static bool on_heed_threads(const struct peer *self)
{
    (void)self;
    return true;
}

static void end(const struct peer *self)
{
    (void)self;
    free(plain.scores);
    plain.scores = NULL;
}

const struct peer peer_plain_loops = {"plain-loops", absent, version, refuses, begin, run, NULL, setting, on_heed_threads, end, 0};
