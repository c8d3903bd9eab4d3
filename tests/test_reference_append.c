/* SPDX-License-Identifier: MIT
 * test_reference_append.c - the definition of what stands beside attention, against values computed by hand: merging two results, rotating,
 * writing new tokens into the cache.
 */
#include "rig.h"

#include <criterion/criterion.h>

#define SAME(got, want) cr_assert((got) == (want), "%s is %.17g, not %.17g", #got, (double)(got), (double)(want))
#define PLUS_ZERO(got) cr_assert((got) == 0 && !signbit(got), "%s is %g, not +0", #got, (double)(got))

/* ---- merging ----------------------------------------------------------------------------------------- */

struct merge_rig {
    struct rig r;
    float o_a[2], o_b[2], o[2], lse_a, lse_b, lse;
};

static void merge_init(struct merge_rig *m)
{
    memset(m, 0, sizeof *m);
    rig_init(&m->r, 1, 1, 1, 1, 1, 2);
    m->r.call.o_a = rig_view(m->o_a, 1, 1, 8);
    m->r.call.o_b = rig_view(m->o_b, 1, 1, 8);
    m->r.call.o = rig_view(m->o, 1, 1, 8);
    m->r.call.lse_a = rig_view(&m->lse_a, 1, 1, 4);
    m->r.call.lse_b = rig_view(&m->lse_b, 1, 1, 4);
    m->r.call.lse = rig_view(&m->lse, 1, 1, 4);
}

static void merge_run(struct merge_rig *m, float lse_a, float a, float lse_b, float b)
{
    m->lse_a = lse_a, m->lse_b = lse_b;
    m->o_a[0] = a, m->o_a[1] = a + 1, m->o_b[0] = b, m->o_b[1] = b + 1;
    reference_merge(&m->r.call, 0, 0, 0);
}

Test(reference, merge_weighs_by_lse)
{
    struct merge_rig m;
    merge_init(&m);
    merge_run(&m, 2, 1, 1, 5);
    cr_assert_float_eq(m.o[0], (exp(2) + 5 * exp(1)) / (exp(2) + exp(1)), 1e-6);
    cr_assert_float_eq(m.o[1], (2 * exp(2) + 6 * exp(1)) / (exp(2) + exp(1)), 1e-6);
    cr_assert_float_eq(m.lse, log(exp(2) + exp(1)), 1e-6);
    m.r.plan.problem.flags = HEED_LSE_BASE2;
    merge_run(&m, 2, 1, 1, 5); /* weights 4 and 2 */
    cr_assert_float_eq(m.o[0], 14.0 / 6, 1e-6);
    cr_assert_float_eq(m.lse, log2(6), 1e-6);
    rig_done(&m.r);
}

Test(reference, merge_identities)
{
    struct merge_rig m;
    merge_init(&m);
    merge_run(&m, 0.1f, 0.3f, -INFINITY, NAN);
    cr_assert(m.o[0] == 0.3f && m.o[1] == 1.3f && m.lse == 0.1f, "an empty part b changes no bit");
    merge_run(&m, -INFINITY, NAN, 0.1f, 0.3f);
    cr_assert(m.o[0] == 0.3f && m.o[1] == 1.3f && m.lse == 0.1f, "an empty part a changes no bit");
    merge_run(&m, 500, 0.3f, 0.1f, NAN);
    cr_assert(m.o[0] == 0.3f && m.lse == 500, "a part of weight 0 is not read");
    merge_run(&m, 0, 1, -1, NAN);
    cr_assert(isnan(m.o[0]), "a part that weighs is");
    merge_run(&m, -INFINITY, NAN, -INFINITY, NAN);
    PLUS_ZERO(m.o[0]);
    SAME(m.lse, -INFINITY);
    merge_run(&m, NAN, 1, 0, 1);
    cr_assert(isnan(m.lse) && isnan(m.o[0]));
    merge_run(&m, 0, 1, NAN, 1);
    cr_assert(isnan(m.lse) && isnan(m.o[0]));
    merge_run(&m, NAN, NAN, -INFINITY, 1);
    cr_assert(isnan(m.lse) && isnan(m.o[0]));
    m.r.call.o = m.r.call.o_a; /* o may be o_a */
    m.r.call.lse = m.r.call.lse_a;
    merge_run(&m, 0, 1, 0, 3);
    cr_assert(m.o_a[0] == 2 && m.o_a[1] == 3);
    rig_done(&m.r);
}

Test(reference, split_and_merged_is_whole)
{
    enum { KV = 50, D = 8 };
    float q[D], k[KV * D], v[KV * 2];
    rig_fill(q, D, 11), rig_fill(k, KV * D, 12), rig_fill(v, KV * 2, 13);
    struct rig whole;
    rig_init(&whole, 1, 1, 1, KV, D, 2);
    rig_tensors(&whole, q, k, v, NULL, NULL);
    struct reference_row *want = rig_row(&whole, 0, 0, 0);
    for (int32_t cut = 0; cut <= KV; cut += 5) {
        struct merge_rig m;
        merge_init(&m);
        int32_t range[2][2] = {{0, cut}, {cut, KV}};
        float *o[2] = {m.o_a, m.o_b}, *lse[2] = {&m.lse_a, &m.lse_b};
        for (int side = 0; side < 2; side++) {
            struct rig part;
            rig_init(&part, 1, 1, 1, KV, D, 2);
            rig_tensors(&part, q, k, v, o[side], lse[side]);
            part.plan.problem.flags |= HEED_KEY_RANGE;
            part.call.key_range = rig_view(range[side], 1, 1, 8);
            struct work_item item = {.q_end = 1, .kv_end = KV, .part = -1};
            reference_item(&part.call, &item, part.scratch);
            rig_done(&part);
        }
        reference_merge(&m.r.call, 0, 0, 0);
        for (int d = 0; d < 2; d++) cr_assert_float_eq(m.o[d], want->o[d], 1e-6);
        cr_assert_float_eq(m.lse, want->lse, 1e-6);
        rig_done(&m.r);
    }
    rig_done(&whole);
}

/* ---- append and rotate ---------------------------------------------------------------------------------- */

/* Quarter turns at position 1 (cos 0, sin 1), half turns at 2: results are exact. */
static const float turn_cos[3][2] = {{1, 1}, {0, 0}, {-1, -1}}, turn_sin[3][2] = {{0, 0}, {1, 1}, {0, 0}};

Test(reference, rotation_pairs)
{
    struct rig r;
    float x[12] = {9, 1, 2, 3, 4, 8, 9, 1, 2, 3, 4, 8};
    rig_init(&r, 1, 1, 2, 2, 6, 6);
    r.plan.problem.rope_dim = 4;
    r.plan.problem.rope_offset = 1;
    r.sequences[0].position = 1;
    r.call.rope_cos = rig_view(turn_cos, 1, 3, 8);
    r.call.rope_sin = rig_view(turn_sin, 1, 3, 8);
    r.call.x = rig_view(x, 1, 2, 24);
    reference_rotate(&r.call, 0, 0, 0); /* (1, 3), (2, 4) -> (-3, 1), (-4, 2) */
    reference_rotate(&r.call, 0, 0, 1);
    const float want[12] = {9, -3, -4, 1, 2, 8, 9, -1, -2, -3, -4, 8};
    for (int d = 0; d < 12; d++) SAME(x[d], want[d]);
    r.plan.problem.flags = HEED_ROPE_INTERLEAVED; /* (a, b), (c, d) -> (-b, a), (-d, c) */
    reference_rotate(&r.call, 0, 0, 0);
    const float turned[6] = {9, 4, -3, -2, 1, 8};
    for (int d = 0; d < 6; d++) SAME(x[d], turned[d]);
    rig_done(&r);
}

Test(reference, append_puts_rotates_and_converts)
{
    struct rig r;
    /* 5 keys in all, the last 2 are new; new tokens stand at positions 1 and 2 whatever their slots. */
    const uint16_t new_k[4] = {0x3c00, 0x4000, 0x4200, 0x4400}; /* f16 1 2, 3 4 */
    const uint16_t new_v[4] = {0x3c00, 0x4000, 0x4200, 0x4400};
    float k[10];
    int8_t v[10];
    float v_scale[5] = {7, 7, 7, 7, 7};
    for (int n = 0; n < 10; n++) k[n] = 55, v[n] = 99;
    rig_init(&r, 1, 1, 2, 5, 2, 2);
    r.plan.problem.v_type = HEED_I8;
    r.plan.problem.rope_dim = 2;
    r.sequences[0].position = 1;
    r.call.new_type = HEED_F16;
    r.call.new_k = rig_view(new_k, 1, 2, 4);
    r.call.new_v = rig_view(new_v, 1, 2, 4);
    r.call.k = rig_view(k, 1, 5, 8);
    r.call.v = rig_view(v, 1, 5, 2);
    r.call.v_scale = rig_view(v_scale, 1, 5, 4);
    r.call.rope_cos = rig_view(turn_cos, 1, 3, 8);
    r.call.rope_sin = rig_view(turn_sin, 1, 3, 8);
    for (int32_t i = 0; i < 2; i++) reference_append(&r.call, 0, 0, i);
    const float want_k[10] = {55, 55, 55, 55, 55, 55, -2, 1, -3, -4};
    for (int n = 0; n < 10; n++) SAME(k[n], want_k[n]);
    cr_assert(v[5] == 99 && v[7] == 127 && v[9] == 127, "i8 with the row's own scale");
    cr_assert(v[6] == 64 && v[8] == 95, "quotients are rounded half to even");
    SAME(v_scale[3], 2.0f / 127);
    SAME(v_scale[4], 4.0f / 127);
    SAME(v_scale[2], 7);
    r.call.new_v.given = false; /* either may be absent */
    v[6] = 0;
    reference_append(&r.call, 0, 0, 0);
    cr_assert_eq(v[6], 0);
    rig_done(&r);
}

Test(reference, append_to_pages)
{
    struct rig r;
    const float new_v[2] = {5, 6};
    float v[6] = {0};
    int32_t table[2] = {2, 0};
    rig_init(&r, 1, 1, 2, 3, 1, 1);
    r.plan.problem.page_size = 2;
    r.batch.page_table = table;
    r.call.new_type = HEED_F32;
    r.call.new_v = rig_view(new_v, 1, 2, 4);
    r.call.v = (struct view){.data = (unsigned char *)v, .batch = 8, .token = 4, .given = true};
    for (int32_t i = 0; i < 2; i++) reference_append(&r.call, 0, 0, i); /* keys 1 and 2: page 2 slot 1, page 0 slot 0 */
    const float want[6] = {6, 0, 0, 0, 0, 5};
    for (int n = 0; n < 6; n++) SAME(v[n], want[n]);
    rig_done(&r);
}
