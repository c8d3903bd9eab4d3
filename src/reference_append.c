/* SPDX-License-Identifier: MIT
 * reference_append.c - the definition of what stands beside attention: writing new tokens into the cache, rotating, merging two results.
 * One row at a time; rotation and conversion are in f32 by doc/semantics.md, section 3, merging in double.
 */
#include "reference.h"
#include "dtype.h"
#include "view.h"

#include <math.h>
#include <string.h>

/* Pair n of rope_dim / 2: x' = x cos - y sin, y' = y cos + x sin. Every product and sum is rounded to f32 on its own. */
void reference_rotate_row(const struct call *call, int64_t position, float *x)
{
    const struct problem *p = &call->plan->problem;
    int32_t half = p->rope_dim / 2;
    if (half == 0) return;
    const float *c = (const float *)(call->rope_cos.data + position * call->rope_cos.token);
    const float *s = (const float *)(call->rope_sin.data + position * call->rope_sin.token);
    bool interleaved = p->flags & HEED_ROPE_INTERLEAVED;
    for (int32_t n = 0; n < half; n++) {
        float *first = x + p->rope_offset + (interleaved ? 2 * n : n);
        float *second = interleaved ? first + 1 : first + half;
        float a = *first, b = *second;
        *first = a * c[n] - b * s[n];
        *second = b * c[n] + a * s[n];
    }
}

/* One row of f32 into the cache's row j, with its scale where the type has one. */
static void store_key_row(const struct call *call, const struct view *view, const struct view *scales, heed_type type, int32_t b, int32_t g,
                          int32_t j, const float *x, int32_t n)
{
    const struct sequence *s = &call->batch->sequences[b];
    const int32_t *pages = call->batch->page_table;
    int32_t page_size = call->plan->problem.page_size;
    float *scale = scales->given ? (float *)key_row(scales, s, pages, page_size, b, g, j) : NULL;
    row_from_f32(type, x, key_row(view, s, pages, page_size, b, g, j), scale, n);
}

/* New token i of sequence b, KV head g: key kv_len - q_len + i, k rotated at p_i, v as it is. */
void reference_append(const struct call *call, int32_t b, int32_t g, int32_t i)
{
    const struct problem *p = &call->plan->problem;
    const struct sequence *s = &call->batch->sequences[b];
    int32_t j = s->kv_len - s->q_len + i;
    float x[MAX_HEAD_DIM];
    if (call->new_k.given) {
        row_to_f32(call->new_type, query_row(&call->new_k, s, b, g, i), 1.0f, x, p->head_dim);
        reference_rotate_row(call, query_position(call->batch, s, i), x);
        store_key_row(call, &call->k, &call->k_scale, p->k_type, b, g, j, x, p->head_dim);
    }
    if (call->new_v.given) {
        row_to_f32(call->new_type, query_row(&call->new_v, s, b, g, i), 1.0f, x, p->v_head_dim);
        store_key_row(call, &call->v, &call->v_scale, p->v_type, b, g, j, x, p->v_head_dim);
    }
}

/* Row (b, h, i) of x in place, by the rule for new k. */
void reference_rotate(const struct call *call, int32_t b, int32_t h, int32_t i)
{
    const struct problem *p = &call->plan->problem;
    const struct sequence *s = &call->batch->sequences[b];
    void *row = query_row(&call->x, s, b, h, i);
    float x[MAX_HEAD_DIM];
    row_to_f32(p->q_type, row, 1.0f, x, p->head_dim);
    reference_rotate_row(call, query_position(call->batch, s, i), x);
    row_from_f32(p->q_type, x, row, NULL, p->head_dim);
}

/* A part that weighs nothing is not read, so the other one passes bit for bit. */
static void keep_part(const struct call *call, const struct sequence *s, int32_t b, int32_t h, int32_t i, const struct view *o_part,
                      float lse_part)
{
    const struct problem *p = &call->plan->problem;
    memmove(query_row(&call->o, s, b, h, i), query_row(o_part, s, b, h, i), (size_t)type_row_bytes(p->o_type, p->v_head_dim));
    *(float *)query_row(&call->lse, s, b, h, i) = lse_part;
}

/* m = max(l_a, l_b), w = e^(l - m), o = (w_a o_a + w_b o_b) / (w_a + w_b), lse = m + ln(w_a + w_b). */
void reference_merge(const struct call *call, int32_t b, int32_t h, int32_t i)
{
    const struct problem *p = &call->plan->problem;
    const struct sequence *s = &call->batch->sequences[b];
    const double base = (p->flags & HEED_LSE_BASE2) ? 0.69314718055994530942 : 1; /* ln 2 */
    const double nothing = 0x1p-149;                                              /* a weight that f32 cannot hold */
    float raw_a = *(const float *)query_row(&call->lse_a, s, b, h, i), raw_b = *(const float *)query_row(&call->lse_b, s, b, h, i);
    double l_a = (double)raw_a * base, l_b = (double)raw_b * base;
    double m = l_a > l_b || isnan(l_a) ? l_a : l_b;
    void *o = query_row(&call->o, s, b, h, i);

    if (m == -INFINITY) {
        for (int32_t d = 0; d < p->v_head_dim; d++) store_output(p->o_type, o, d, 0);
        *(float *)query_row(&call->lse, s, b, h, i) = -INFINITY;
        return;
    }
    double w_a = exp(l_a - m), w_b = exp(l_b - m);
    if (w_b < nothing) {
        keep_part(call, s, b, h, i, &call->o_a, raw_a);
        return;
    }
    if (w_a < nothing) {
        keep_part(call, s, b, h, i, &call->o_b, raw_b);
        return;
    }
    const unsigned char *o_a = query_row(&call->o_a, s, b, h, i), *o_b = query_row(&call->o_b, s, b, h, i);
    int64_t size = type_row_bytes(p->o_type, 1);
    for (int32_t d = 0; d < p->v_head_dim; d++) {
        double x, y; /* element by element, because o may be o_a or o_b */
        row_to_f64(p->o_type, o_a + d * size, 1.0f, &x, 1);
        row_to_f64(p->o_type, o_b + d * size, 1.0f, &y, 1);
        store_output(p->o_type, o, d, (w_a * x + w_b * y) / (w_a + w_b));
    }
    *(float *)query_row(&call->lse, s, b, h, i) = (float)((m + log(w_a + w_b)) / base);
}
