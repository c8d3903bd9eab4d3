/* SPDX-License-Identifier: MIT
 * rig.h - the smallest thing that reference.c, bound.c and check.c accept: a plan, a batch and a call around plain arrays, without a
 * context, a device or the checks of problem.c. For tests of the definition itself.
 */
#ifndef HEED_RIG_H
#define HEED_RIG_H

#include "dtype.h"
#include "internal.h"
#include "reference.h"
#include "status.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { RIG_BATCH = 4 };

struct rig {
    struct heed_context context;
    struct device device;
    struct heed_plan plan;
    struct heed_batch batch;
    struct sequence sequences[RIG_BATCH];
    struct kernel_row row;
    struct call call;
    struct reference_row *scratch;
};

static inline void *rig_alloc(void *user, size_t bytes, size_t alignment)
{
    (void)user;
    return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

static inline void rig_free(void *user, void *block)
{
    (void)user;
    free(block);
}

static inline void rig_serial(void *user, int32_t count, void (*task)(void *arg, int32_t i, int32_t worker), void *arg)
{
    (void)user;
    for (int32_t i = 0; i < count; i++) task(arg, i, 0);
}

/* One sequence, dense, every type f32, the last query at the last key; change the fields afterwards. */
static inline void rig_init(struct rig *r, int32_t q_heads, int32_t kv_heads, int32_t q_len, int32_t kv_len, int32_t dim, int32_t v_dim)
{
    memset(r, 0, sizeof *r);
    r->context.services.allocator = (heed_allocator){.alloc = rig_alloc, .free = rig_free};
    r->context.services.threads = (heed_threads){.workers = 1, .parallel_for = rig_serial};
    r->device.context = &r->context;
    r->row = (struct kernel_row){.name = "rig", .kinds = 3};
    r->plan.context = &r->context;
    r->plan.device = &r->device;
    r->plan.row[KIND_PREFILL] = r->plan.row[KIND_DECODE] = &r->row;
    r->plan.desc.struct_size = sizeof r->plan.desc;
    r->plan.problem = (struct problem){.q_type = HEED_F32,
                                       .k_type = HEED_F32,
                                       .v_type = HEED_F32,
                                       .o_type = HEED_F32,
                                       .bias_type = HEED_F32,
                                       .q_heads = q_heads,
                                       .kv_heads = kv_heads,
                                       .group = q_heads / kv_heads,
                                       .head_dim = dim,
                                       .v_head_dim = v_dim,
                                       .scale = 1.0f,
                                       .window_left = -1,
                                       .window_right = -1};
    for (int32_t b = 0; b < RIG_BATCH; b++)
        r->sequences[b] = (struct sequence){.q_len = q_len, .kv_len = kv_len, .position = kv_len - q_len, .q_index = b * q_len};
    r->batch.plan = &r->plan;
    r->batch.batch = 1;
    r->batch.sequences = r->sequences;
    r->batch.q_len_max = q_len;
    r->batch.kv_len_max = kv_len;
    r->batch.q_total = q_len;
    r->batch.page_max = -1;
    r->call.plan = &r->plan;
    r->call.batch = &r->batch;
    r->scratch = reference_row_new(&r->context.services, &r->plan.problem, kv_len > 64 ? kv_len : 64);
}

static inline void rig_done(struct rig *r) { reference_row_delete(&r->context.services, r->scratch); }

/* Dense [batch, heads, tokens] rows of row_bytes. */
static inline struct view rig_view(const void *data, int64_t heads, int64_t tokens, int64_t row_bytes)
{
    return (struct view){.data = (unsigned char *)data,
                         .batch = heads * tokens * row_bytes,
                         .head = tokens * row_bytes,
                         .token = row_bytes,
                         .bytes = UINT64_MAX,
                         .given = true};
}

/* q, k, v (and o, lse) as dense arrays of the rig's types. */
static inline void rig_tensors(struct rig *r, const void *q, const void *k, const void *v, void *o, float *lse)
{
    const struct problem *p = &r->plan.problem;
    int32_t q_len = r->sequences[0].q_len, kv_len = r->sequences[0].kv_len;
    r->call.q = rig_view(q, p->q_heads, q_len, type_row_bytes(p->q_type, p->head_dim));
    r->call.k = rig_view(k, p->kv_heads, kv_len, type_row_bytes(p->k_type, p->head_dim));
    r->call.v = rig_view(v, p->kv_heads, kv_len, type_row_bytes(p->v_type, p->v_head_dim));
    if (o) r->call.o = rig_view(o, p->q_heads, q_len, type_row_bytes(p->o_type, p->v_head_dim));
    if (lse) {
        r->call.lse = rig_view(lse, p->q_heads, q_len, sizeof(float));
        r->plan.problem.flags |= HEED_WRITE_LSE;
    }
}

static inline struct reference_row *rig_row(struct rig *r, int32_t b, int32_t h, int32_t i)
{
    reference_compute(&r->call, b, h, i, r->scratch);
    return r->scratch;
}

/* Seeded numbers, normal enough: the sum of four uniforms. */
static inline double rig_unit(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

static inline float rig_random(uint64_t *state)
{
    double sum = 0;
    for (int n = 0; n < 4; n++) sum += rig_unit(state) - 0.5;
    return (float)(sum * 1.7320508);
}

static inline void rig_fill(float *x, int64_t n, uint64_t seed)
{
    for (int64_t i = 0; i < n; i++) x[i] = rig_random(&seed);
}

#endif
