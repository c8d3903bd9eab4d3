/* SPDX-License-Identifier: MIT
 * test_reference_layouts.c - the definition on every layout and storage type, its scores at every stage, and random problems with everything at once
 * against a second, even plainer reading of doc/semantics.md.
 */
#include "reference_rig.h"

/* ---- layouts ------------------------------------------------------------------------------ */

Test(reference_layouts, groups_share_kv_heads)
{
    struct rig r;
    const float q[4] = {1, 1, 1, 1}, k[2] = {5, 7}, v[2] = {-1, -2};
    rig_init(&r, 4, 2, 1, 1, 1, 1);
    rig_tensors(&r, q, k, v, NULL, NULL);
    for (int32_t h = 0; h < 4; h++) {
        struct reference_row *row = rig_row(&r, 0, h, 0);
        SAME(row->lse, h < 2 ? 5 : 7);
        SAME(row->o[0], h < 2 ? -1 : -2);
    }
    rig_done(&r);
}

Test(reference_layouts, pages_and_packed_sequences)
{
    struct rig r;
    const float k[8] = {NAN, NAN, 2, 3, 0, 1, NAN, NAN}, v[8] = {NAN, NAN, 100, 1000, 1, 10, NAN, NAN};
    int32_t table[4] = {-1, -1, 2, 1};
    three_init(&r, 1, 4);
    r.plan.problem.page_size = 2;
    r.batch.page_table = table;
    r.sequences[0].first_page = 2;
    r.call.k = (struct view){.data = (unsigned char *)k, .batch = 8, .token = 4, .given = true};
    r.call.v = (struct view){.data = (unsigned char *)v, .batch = 8, .token = 4, .given = true};
    NEAR(rig_row(&r, 0, 0, 0)->o[0], three_want(15, -INFINITY));
    r.sequences[0].kv_len = 3;
    NEAR(rig_row(&r, 0, 0, 0)->o[0], three_want(7, -INFINITY));

    r.plan.problem.page_size = 0; /* packed: sequence 1 begins at query 1 and key 4 */
    r.batch.batch = 2;
    const float q[2] = {9, 1};
    r.sequences[1] = (struct sequence){.q_len = 1, .kv_len = 2, .q_token = 1, .kv_token = 4, .q_index = 1, .position = 1};
    r.call.q = (struct view){.data = (unsigned char *)q, .token = 4, .given = true};
    r.call.k.batch = r.call.v.batch = 0;
    NEAR(rig_row(&r, 1, 0, 0)->o[0], three_want(3, -INFINITY));
    rig_done(&r);
}

Test(reference_layouts, strides_batches_and_heads)
{
    /* [2, 3 tokens, 2 heads, 1] for q, k; v reversed by a negative token stride. */
    struct rig r;
    float q[12], k[12], v[12];
    for (int n = 0; n < 12; n++) q[n] = (float)(n + 1) * 0.1f, k[n] = (float)(n % 5), v[n] = (float)(n * n);
    rig_init(&r, 2, 2, 3, 3, 1, 1);
    r.batch.batch = 2;
    r.call.q = r.call.k = (struct view){.data = (unsigned char *)q, .batch = 24, .token = 8, .head = 4, .given = true};
    r.call.k.data = (unsigned char *)k;
    r.call.v = (struct view){.data = (unsigned char *)(v + 4), .batch = 24, .token = -8, .head = 4, .given = true};
    for (int b = 0; b < 2; b++)
        for (int h = 0; h < 2; h++)
            for (int i = 0; i < 3; i++) {
                double l = 0, o = 0;
                for (int j = 0; j < 3; j++) {
                    double w = exp((double)q[b * 6 + i * 2 + h] * (double)k[b * 6 + j * 2 + h]);
                    l += w, o += w * (double)v[b * 6 + (2 - j) * 2 + h];
                }
                NEAR(rig_row(&r, b, h, i)->o[0], o / l);
            }
    rig_done(&r);
}

Test(reference_layouts, every_storage_type)
{
    static const heed_type types[] = {HEED_F32, HEED_F16, HEED_BF16, HEED_I8, HEED_Q8_0, HEED_Q4_0, HEED_F8_E4M3, HEED_F8_E5M2};
    float q[32], x[64], y[64];
    rig_fill(q, 32, 1);
    rig_fill(x, 64, 2);
    rig_fill(y, 64, 3);
    for (int t = 0; t < 8; t++) {
        struct rig r;
        unsigned char k[256], v[256];
        float k_scale[2] = {1, 1}, v_scale[2] = {1, 1};
        double want_k[2][32], want_v[2][32];
        heed_type type = types[t];
        rig_init(&r, 1, 1, 1, 2, 32, 32);
        r.plan.problem.k_type = r.plan.problem.v_type = type;
        bool scaled = type == HEED_I8 || type == HEED_F8_E4M3;
        for (int j = 0; j < 2; j++) {
            row_from_f32(type, x + 32 * j, k + j * type_row_bytes(type, 32), scaled ? k_scale + j : NULL, 32);
            row_from_f32(type, y + 32 * j, v + j * type_row_bytes(type, 32), scaled ? v_scale + j : NULL, 32);
            row_to_f64(type, k + j * type_row_bytes(type, 32), k_scale[j], want_k[j], 32);
            row_to_f64(type, v + j * type_row_bytes(type, 32), v_scale[j], want_v[j], 32);
        }
        rig_tensors(&r, q, k, v, NULL, NULL);
        if (scaled) r.call.k_scale = rig_view(k_scale, 1, 2, 4), r.call.v_scale = rig_view(v_scale, 1, 2, 4);
        double s[2] = {0, 0};
        for (int j = 0; j < 2; j++)
            for (int d = 0; d < 32; d++) s[j] += (double)q[d] * want_k[j][d];
        struct reference_row *row = rig_row(&r, 0, 0, 0);
        for (int d = 0; d < 32; d++) NEAR(row->o[d], (exp(s[0]) * want_v[0][d] + exp(s[1]) * want_v[1][d]) / (exp(s[0]) + exp(s[1])));
        for (int d = 0; d < 32; d++)
            cr_assert(fabs(want_k[0][d] - (double)x[d]) < 0.3, "%s does not store what it was given", type_name(type));
        rig_done(&r);
    }
}

/* ---- a second reading of the rules, for random problems with everything at once -------------- */

struct plain {
    int32_t q_heads, kv_heads, q_len, kv_len, dim, v_dim;
    float *q, *k, *v, *bias, *slopes, *sinks;
    unsigned char *mask;
    double scale, cap, position;
    int32_t left, right;
    bool causal;
};

/* One output of the plain softmax, without a maximum: for logits of ordinary size. */
static double plain_output(const struct plain *p, int32_t h, int32_t i, int32_t c, double *sum)
{
    int32_t g = h / (p->q_heads / p->kv_heads);
    double l = exp((double)p->sinks[h]), o = 0;
    for (int32_t j = 0; j < p->kv_len; j++) {
        double at = p->position + i, s = 0;
        if (p->causal && j > at) continue;
        if (p->left >= 0 && j < at - p->left) continue;
        if (p->right >= 0 && j > at + p->right) continue;
        if (!p->mask[i * p->kv_len + j]) continue;
        for (int32_t d = 0; d < p->dim; d++)
            s += (double)p->q[(h * p->q_len + i) * p->dim + d] * (double)p->k[(g * p->kv_len + j) * p->dim + d];
        s = p->cap * tanh(s * p->scale / p->cap) + (double)p->bias[(h * p->q_len + i) * p->kv_len + j] -
            (double)p->slopes[h] * fabs(at - j);
        l += exp(s);
        o += exp(s) * (double)p->v[(g * p->kv_len + j) * p->v_dim + c];
    }
    *sum = l;
    return o / l;
}

Test(reference_layouts, everything_at_once)
{
    enum { HQ = 6, HK = 2, Q = 5, KV = 37, D = 9, DV = 4 };
    static float q[HQ * Q * D], k[HK * KV * D], v[HK * KV * DV], bias[HQ * Q * KV], slopes[HQ], sinks[HQ], o[HQ * Q * DV], lse[HQ * Q];
    static unsigned char mask[Q * KV];
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct rig r;
        uint64_t state = seed * 77;
        rig_fill(q, HQ * Q * D, seed), rig_fill(k, HK * KV * D, seed + 100), rig_fill(v, HK * KV * DV, seed + 200);
        rig_fill(bias, HQ * Q * KV, seed + 300), rig_fill(slopes, HQ, seed + 400), rig_fill(sinks, HQ, seed + 500);
        for (int n = 0; n < Q * KV; n++) mask[n] = rig_unit(&state) < 0.7;
        rig_init(&r, HQ, HK, Q, KV, D, DV);
        struct problem *p = &r.plan.problem;
        p->scale = 0.37f;
        p->softcap = 1.5f;
        p->flags = HEED_BIAS | HEED_ALIBI | HEED_SINKS | HEED_MASK_BOOL | (seed % 2 ? HEED_CAUSAL : 0);
        p->window_left = seed % 3 ? 7 + (int32_t)seed : -1;
        p->window_right = seed % 5 ? (int32_t)seed % 4 : -1;
        r.sequences[0].position = (int32_t)(seed * 2) - 3;
        rig_tensors(&r, q, k, v, o, lse);
        r.call.bias = rig_view(bias, HQ, Q, KV * 4);
        r.call.mask = rig_view(mask, 0, Q, KV);
        r.call.mask.head = 0;
        r.call.alibi = rig_view(slopes, 1, 1, 4);
        r.call.sinks = rig_view(sinks, 1, 1, 4);
        struct plain plain = {HQ,
                              HK,
                              Q,
                              KV,
                              D,
                              DV,
                              q,
                              k,
                              v,
                              bias,
                              slopes,
                              sinks,
                              mask,
                              (double)p->scale,
                              (double)p->softcap,
                              (double)r.sequences[0].position,
                              p->window_left,
                              p->window_right,
                              seed % 2};
        for (int32_t h = 0; h < HQ; h++) {
            struct work_item item = {.head = h, .q_end = Q, .kv_end = KV, .part = -1};
            reference_item(&r.call, &item, r.scratch);
            for (int32_t i = 0; i < Q; i++)
                for (int32_t c = 0; c < DV; c++) {
                    double sum, want = plain_output(&plain, h, i, c, &sum);
                    cr_assert_float_eq(o[(h * Q + i) * DV + c], want, 1e-7 * (1 + fabs(want)), "seed %d, head %d, query %d: %.9g, not %.9g",
                                       (int)seed, h, i, (double)o[(h * Q + i) * DV + c], want);
                    cr_assert_float_eq(lse[h * Q + i], log(sum), 1e-7 * (1 + fabs(log(sum))));
                }
        }
        rig_done(&r);
    }
}

/* ---- rule 7: scores ------------------------------------------------------------------------------ */

Test(reference_layouts, scores_at_every_stage)
{
    struct rig r;
    const float k[4] = {0, NAN, 2, 3}, bias[4] = {0, 0, 0.5f, -INFINITY}, slope[1] = {0};
    const unsigned char shows[4] = {1, 0, 1, 1};
    int32_t slot = 0;
    float o, lse, scores[5];
    three_init(&r, 1, 4);
    rig_tensors(&r, three_q, k, three_v, &o, &lse);
    r.plan.problem.softcap = 2;
    r.plan.problem.flags = HEED_WRITE_SCORES | HEED_MASK_BOOL | HEED_BIAS | HEED_ALIBI;
    r.call.mask = rig_view(shows, 1, 1, 4);
    r.call.bias = rig_view(bias, 1, 1, 16);
    r.call.alibi = rig_view(slope, 1, 1, 4);
    r.call.scores = rig_view(scores, 1, 1, 16);
    r.batch.head_slots = &slot;
    struct work_item item = {.q_end = 1, .kv_end = 4, .part = -1};
    double capped = 2 * tanh(1), w = exp(capped + 0.5);
    const double want[4][4] = {
        {0, NAN, 2, 3}, {0, NAN, capped, 2 * tanh(1.5)}, {0, -INFINITY, capped + 0.5, -INFINITY}, {1 / (1 + w), 0, w / (1 + w), 0}};
    for (int32_t stage = 0; stage < 4; stage++) {
        r.plan.problem.scores_stage = stage;
        for (int j = 0; j < 5; j++) scores[j] = 77;
        for (int j = 0; j < 4; j++) r.scratch->raw[j] = r.scratch->capped[j] = r.scratch->logit[j] = r.scratch->weight[j] = 55;
        reference_item(&r.call, &item, r.scratch);
        reference_scores_item(&r.call, &item, r.scratch);
        for (int j = 0; j < 4; j++)
            cr_assert(scores[j] == (float)want[stage][j] || (isnan(scores[j]) && isnan(want[stage][j])), "stage %d, key %d: %g, not %g",
                      stage, j, (double)scores[j], want[stage][j]);
        cr_assert_float_eq(o, (1 + 100 * w) / (1 + w), 1e-4, "a hidden NaN shows in the scores and only there");
        SAME(scores[4], 77);
    }
    rig_done(&r);
}

Test(reference_layouts, output_types_and_in_place)
{
    struct rig r;
    uint16_t half[1];
    float same[1] = {1};
    three_init(&r, 1, 3);
    r.plan.problem.o_type = HEED_F16;
    r.call.o = rig_view(half, 1, 1, 2);
    struct work_item item = {.q_end = 1, .kv_end = 3, .part = -1};
    reference_item(&r.call, &item, r.scratch);
    SAME(f16_to_f32(half[0]), f16_to_f32(f32_to_f16((float)three_want(7, -INFINITY))));
    r.plan.problem.o_type = HEED_F32;
    r.call.q = r.call.o = rig_view(same, 1, 1, 4);
    reference_item(&r.call, &item, r.scratch);
    SAME(same[0], (float)three_want(7, -INFINITY));
    rig_done(&r);
}
