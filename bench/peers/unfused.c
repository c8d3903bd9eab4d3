/* SPDX-License-Identifier: MIT
 * unfused.c - scores, softmax, values, per head. Two ways to use threads are tried on each problem and the faster one is kept: heads over
 * heed's own threads with one thread per product, or head after head with the library's own threads inside a product.
 */
#include "unfused.h"
#include "internal.h"
#include "pin.h"
#include "tool.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>

const char *unfused_refuses(const struct peer *self, const struct instance *instance)
{
    const struct problem *p = &instance->problem;
    const char *reason = peer_plain_loops.refuses(self, instance);
    if (reason) return reason;
    return instance->tensors.q.token_stride < p->head_dim || instance->tensors.k.token_stride < p->head_dim ? "rows must not overlap" : NULL;
}

/* Row r sees keys [0, keys): weights in place, the hidden ones 0. */
PEER_LOOPS void unfused_softmax_row(float *s, int32_t keys, int32_t kv_len);
PEER_LOOPS void unfused_softmax_row(float *s, int32_t keys, int32_t kv_len)
{
    float m = -FLT_MAX, l = 0;
    for (int32_t j = 0; j < keys; j++) m = s[j] > m ? s[j] : m;
    for (int32_t j = 0; j < keys; j++) l += s[j] = expf(s[j] - m);
    const float inverse = keys ? 1 / l : 0;
    for (int32_t j = 0; j < keys; j++) s[j] *= inverse;
    for (int32_t j = keys; j < kv_len; j++) s[j] = 0;
}

static void softmax(const struct unfused *u, float *s)
{
    const struct problem *p = &u->instance->problem;
    const int32_t q_len = u->instance->line.q_len, kv_len = u->shape.kv_len;
    for (int32_t r = 0; r < u->shape.rows; r++) {
        const int32_t i = q_len == 1 ? 0 : r;
        int32_t keys = kv_len;
        if (p->flags & HEED_CAUSAL) keys = (p->flags & HEED_TOP_LEFT ? i : kv_len - q_len + i) + 1;
        unfused_softmax_row(s + (size_t)r * (size_t)kv_len, keys < 0 ? 0 : keys > kv_len ? kv_len : keys, kv_len);
    }
}

static const float *part(const heed_tensor *t, int32_t b, int32_t h)
{
    return (const float *)t->data + t->offset + b * t->batch_stride + h * t->head_stride;
}

static void task(void *arg, int32_t n, int32_t worker)
{
    const struct unfused *u = arg;
    const struct problem *p = &u->instance->problem;
    const heed_tensors *t = &u->instance->tensors;
    const int32_t per_batch = p->q_heads / u->step, b = n / per_batch, h = n % per_batch * u->step, g = h / p->group;
    float *s = u->matrices + (size_t)worker * u->matrix;
    const bool all_seen = !(p->flags & HEED_CAUSAL) || u->instance->line.q_len == 1;
    u->scores(&u->shape, part(&t->q, b, h), part(&t->k, b, g), s, worker);
    if (u->softmax && all_seen && !(p->flags & HEED_TOP_LEFT)) u->softmax(&u->shape, s, worker);
    else softmax(u, s);
    u->values(&u->shape, s, part(&t->v, b, g), u->o + t->o.offset + b * t->o.batch_stride + h * t->o.head_stride, worker);
}

static void all_heads(struct unfused *u)
{
    const heed_threads *threads = &u->services->threads;
    if (u->threads) u->threads(u->inside ? threads->workers : 1); /* for the whole process: not once per head */
    if (!u->inside) {
        threads->parallel_for(threads->user, u->tasks, task, u);
        return;
    }
    for (int32_t n = 0; n < u->tasks; n++) task(u, n, 0);
}

/* Seconds of the faster of two runs. */
static double try_setting(struct unfused *u, bool inside)
{
    double best = 1e30;
    u->inside = inside;
    pin_caller(!inside);
    for (int n = 0; n < 2; n++) {
        const double begin = seconds_now();
        all_heads(u);
        const double seconds = seconds_now() - begin;
        if (seconds < best) best = seconds;
    }
    pin_caller(false);
    return best;
}

const char *unfused_begin(struct unfused *u, const struct services *services, const struct instance *instance)
{
    const struct problem *p = &instance->problem;
    const heed_tensors *t = &instance->tensors;
    const bool one = instance->line.q_len == 1;
    const int workers = services->threads.workers;
    u->services = services;
    u->instance = instance;
    u->step = one ? p->group : 1;
    u->tasks = instance->line.batch * (p->q_heads / u->step);
    u->shape = (struct unfused_shape){.rows = one ? p->group : instance->line.q_len, .kv_len = instance->line.kv_len,
                                      .head_dim = p->head_dim, .v_head_dim = p->v_head_dim,
                                      .q_row = one ? t->q.head_stride : t->q.token_stride, .k_row = t->k.token_stride,
                                      .v_row = t->v.token_stride, .o_row = one ? t->o.head_stride : t->o.token_stride,
                                      .scale = p->scale};
    u->matrix = ((size_t)u->shape.rows * (size_t)u->shape.kv_len + 15) / 16 * 16;
    if (u->matrix == 0) return "nothing to multiply";
    u->matrices = aligned_alloc(64, sizeof(float) * u->matrix * (size_t)workers);
    const struct block *block = &instance->block[ROLE_O];
    u->o = aligned_alloc(64, (block->bytes + 127) / 64 * 64);
    if (!u->matrices || !u->o) return "out of memory";
    if (u->begin && !u->begin(&u->shape, workers)) return "the library refuses this product";
    const double outside = try_setting(u, false);
    if (workers > 1 && u->threads) {
        const double inside = try_setting(u, true);
        u->inside = inside < outside;
    }
    free(u->o); /* runs write where they are told */
    u->o = NULL;
    return NULL;
}

const char *unfused_run(struct unfused *u, float *o, int count, double *seconds)
{
    u->o = o;
    for (int n = 0; n < count; n++) {
        const double begin = seconds_now();
        all_heads(u);
        seconds[n] = seconds_now() - begin;
    }
    u->o = NULL;
    return NULL;
}

const char *unfused_setting(const struct unfused *u)
{
    return u->inside ? "threads inside a product" : "a head per thread";
}

void unfused_end(struct unfused *u)
{
    free(u->matrices);
    free(u->o);
    u->matrices = u->o = NULL;
}
