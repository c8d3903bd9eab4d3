/* SPDX-License-Identifier: MIT
 * append.inc.h - template: what stands beside attention, one row at a time: new tokens into the cache (rotated, converted), rotation in
 * place, and the merge of two results (o, lse). Not the merge of a run's own partial results: that is merge.inc.h.
 */
#ifndef HEED_APPEND_INC_H
#define HEED_APPEND_INC_H

#include "lanes.inc.h"
#include "merge.inc.h"

/* ---- rotation --------------------------------------------------------------- */

/* x' = x cos - y sin, y' = y cos + x sin; every product and sum is rounded on its own, as in the definition: the same bits.
 * x: head_dim floats in scratch. */
static void rotate_f32(const struct call *call, int64_t position, float *x)
{
    const struct problem *p = &call->plan->problem;
    const int32_t half = p->rope_dim / 2;
    if (half == 0) return;
    if (MUTANT(cpu_append_rope_position)) position = 0;
    const float *c = (const float *)(call->rope_cos.data + position * call->rope_cos.token);
    const float *s = (const float *)(call->rope_sin.data + position * call->rope_sin.token);
    x += p->rope_offset;
    if (p->flags & HEED_ROPE_INTERLEAVED) {
        for (int32_t n = 0; n < half; n++) {
            const float a = x[2 * n], b = x[2 * n + 1];
            x[2 * n] = a * c[n] - b * s[n];
            x[2 * n + 1] = b * c[n] + a * s[n];
        }
        return;
    }
    for (int32_t n = 0; n < half; n += VW) {
        const int left = lanes_left(half - n);
        const vf a = vload_n(x + n, left), b = vload_n(x + half + n, left), cos = vload_n(c + n, left), sin = vload_n(s + n, left);
        vstore_n(x + n, vsub(vmul(a, cos), vmul(b, sin)), left);
        vstore_n(x + half + n, vadd(vmul(b, cos), vmul(a, sin)), left);
    }
}

/* ---- rows in and out ---------------------------------------------------------- */

INLINE bool widens(heed_type type) { return type == HEED_F32 || type == HEED_F16 || type == HEED_BF16; }

static void load_f32(heed_type type, const unsigned char *row, float *to, int32_t dim)
{
    if (!widens(type)) {
        row_to_f32(type, row, 1.0f, to, dim);
        return;
    }
    for (int32_t d = 0; d < dim; d += VW) vstore_n(to + d, vload_row_n(type, row, d, lanes_left(dim - d)), lanes_left(dim - d));
}

/* One row of f32 into the cache's key j, with its scale where the type has one. */
static void store_key(const struct call *call, const struct view *view, const struct view *scales, heed_type type, int32_t b, int32_t g,
                      int32_t j, const float *x, int32_t dim)
{
    const struct sequence *s = &call->batch->sequences[b];
    const int32_t *pages = call->batch->page_table, page_size = call->plan->problem.page_size;
    void *row = key_row(view, s, pages, page_size, b, g, j);
    if (widens(type))
        store_row(type, row, x, dim);
    else
        row_from_f32(type, x, row, scales->given ? (float *)key_row(scales, s, pages, page_size, b, g, j) : NULL, dim);
}

/* New token i of sequence b, KV head g: key kv_len - q_len + i, k rotated at p_i, v as it is. */
static void append_row(const struct call *call, int32_t b, int32_t g, int32_t i, void *scratch)
{
    const struct problem *p = &call->plan->problem;
    const struct sequence *s = &call->batch->sequences[b];
    const int32_t j = s->kv_len - s->q_len + i;
    float *x = scratch;
    if (call->new_k.given) {
        load_f32(call->new_type, query_row(&call->new_k, s, b, g, i), x, p->head_dim);
        rotate_f32(call, query_position(call->batch, s, i), x);
        store_key(call, &call->k, &call->k_scale, p->k_type, b, g, j, x, p->head_dim);
    }
    if (call->new_v.given) {
        load_f32(call->new_type, query_row(&call->new_v, s, b, g, i), x, p->v_head_dim);
        if (MUTANT(cpu_append_rotates_v) && p->v_head_dim >= p->rope_offset + p->rope_dim)
            rotate_f32(call, query_position(call->batch, s, i), x);
        store_key(call, &call->v, &call->v_scale, p->v_type, b, g, j, x, p->v_head_dim);
    }
}

/* Row (b, h, i) of x in place, by the rule for new k. */
static void rotate_row(const struct call *call, int32_t b, int32_t h, int32_t i, void *scratch)
{
    const struct problem *p = &call->plan->problem;
    const struct sequence *s = &call->batch->sequences[b];
    unsigned char *row = query_row(&call->x, s, b, h, i);
    float *x = scratch;
    load_f32(p->q_type, row, x, p->head_dim);
    rotate_f32(call, query_position(call->batch, s, i), x);
    store_row(p->q_type, row, x, p->head_dim);
}

/* ---- two results ---------------------------------------------------------------- */

/* e^x for x <= 0 in double: n = rint(x / ln 2), a series for the rest (|r| <= 0.35, 14 terms: within 2e-16), 0 below -700. */
static double exp_two(double x)
{
    if (!(x >= -700)) return x < -700 ? 0 : x;
    const double n = (x * 1.4426950408889634 + 0x1.8p52) - 0x1.8p52, r = (x - n * 0x1.62e42fefap-1) - n * 0x1.cf79abc9e3b39p-40;
    double sum = 1;
    for (int k = 14; k >= 1; k--) sum = 1 + sum * r / k;
    uint64_t bits = (uint64_t)((int64_t)n + 1023) << 52;
    double power;
    memcpy(&power, &bits, sizeof power);
    return sum * power;
}

/* A part that weighs nothing is not read, so the other one passes bit for bit. */
static void keep_part(const struct call *call, const struct sequence *s, int32_t b, int32_t h, int32_t i, const struct view *o_part,
                      float lse_part)
{
    const struct problem *p = &call->plan->problem;
    memmove(query_row(&call->o, s, b, h, i), query_row(o_part, s, b, h, i), (size_t)type_row_bytes(p->o_type, p->v_head_dim));
    *(float *)query_row(&call->lse, s, b, h, i) = lse_part;
}

/* m = max(l_a, l_b), w = e^(l - m), o = w_a / (w_a + w_b) o_a + w_b / (w_a + w_b) o_b, lse = m + ln(w_a + w_b). The weights are double,
 * the sum is one product and one fma in f32. o may be o_a or o_b, lse likewise. */
static void merge_two(const struct call *call, int32_t b, int32_t h, int32_t i, void *scratch)
{
    const struct problem *p = &call->plan->problem;
    const struct sequence *s = &call->batch->sequences[b];
    const double base = (p->flags & HEED_LSE_BASE2) && !MUTANT(cpu_merge_two_base) ? 0.69314718055994530942 : 1; /* ln 2 */
    const double nothing = 0x1p-149; /* a weight that f32 cannot hold */
    const float raw_a = *(const float *)query_row(&call->lse_a, s, b, h, i), raw_b = *(const float *)query_row(&call->lse_b, s, b, h, i);
    const double l_a = (double)raw_a * base, l_b = (double)raw_b * base, m = l_a > l_b || l_a != l_a ? l_a : l_b;
    float *sum = scratch;
    if (m == -(double)INFINITY) {
        memset(sum, 0, (size_t)p->v_head_dim * sizeof *sum);
        store_row(p->o_type, query_row(&call->o, s, b, h, i), sum, p->v_head_dim);
        *(float *)query_row(&call->lse, s, b, h, i) = -INFINITY;
        return;
    }
    const double w_a = exp_two(l_a - m), w_b = exp_two(l_b - m), w = w_a + w_b;
    if (w_b < nothing) {
        keep_part(call, s, b, h, i, &call->o_a, raw_a);
        return;
    }
    if (w_a < nothing) {
        keep_part(call, s, b, h, i, &call->o_b, raw_b);
        return;
    }
    const unsigned char *o_a = query_row(&call->o_a, s, b, h, i), *o_b = query_row(&call->o_b, s, b, h, i);
    const vf c_a = vset1((float)(w_a / w)), c_b = vset1((float)(w_b / w));
    for (int32_t d = 0; d < p->v_head_dim; d += VW) {
        const int left = lanes_left(p->v_head_dim - d);
        vstore_n(sum + d, vfma(c_a, vload_row_n(p->o_type, o_a, d, left), vmul(c_b, vload_row_n(p->o_type, o_b, d, left))), left);
    }
    store_row(p->o_type, query_row(&call->o, s, b, h, i), sum, p->v_head_dim);
    *(float *)query_row(&call->lse, s, b, h, i) = (float)((m + log_one(w)) / base);
}

static const struct cpu_kernel append_kernel = {.append = append_row, .rotate = rotate_row, .merge = merge_two};

#define APPEND_ROWS(isa, need)                                                                                                    \
    {.name = "cpu." isa ".append", .kinds = KIND_BIT(KIND_APPEND) | KIND_BIT(KIND_ROTATE) | KIND_BIT(KIND_MERGE),                 \
     .order = ORDER_OWN, .needs = (need), .features = FEATURES_ALL, .q_types = TYPES_FLOAT, .k_types = TYPES_ALL,                  \
     .v_types = TYPES_ALL, .o_types = TYPES_FLOAT, .cpu = &append_kernel}
#endif
