/* SPDX-License-Identifier: MIT
 * test_reference.c - the definition against values computed by hand, rule by rule of doc/semantics.md. What is wrong here is wrong everywhere. Layouts,
 * types, scores, and everything at once: test_reference_layouts.c.
 */
#include "reference_rig.h"

/* ---- rules 1 and 6 ---------------------------------------------------------- */

Test(reference, one_key_is_its_value)
{
    struct rig r;
    const float q[2] = {-2, 3}, k[2] = {5, -7}, v[2] = {-4, 0.5f};
    rig_init(&r, 1, 1, 1, 1, 2, 2);
    r.plan.problem.scale = 0.5f;
    rig_tensors(&r, q, k, v, NULL, NULL);
    struct reference_row *row = rig_row(&r, 0, 0, 0);
    SAME(row->o[0], -4);
    SAME(row->o[1], 0.5);
    SAME(row->lse, -15.5);
    SAME(row->raw[0], -15.5);
    SAME(row->magnitude[0], 15.5);
    SAME(row->query_size, 5);
    SAME(row->key_size[0], 12);
    cr_assert_eq(row->visible, 1);
    rig_done(&r);
}

Test(reference, softmax_of_three)
{
    struct rig r;
    three_init(&r, 1, 3);
    struct reference_row *row = rig_row(&r, 0, 0, 0);
    NEAR(row->o[0], three_want(7, -INFINITY));
    NEAR(row->lse, 2 + log(1 + exp(-1) + exp(-2)));
    NEAR(row->weight[1], exp(1) / (1 + exp(1) + exp(2)));
    SAME(row->maximum, 2);
    rig_done(&r);
}

Test(reference, negative_scale)
{
    struct rig r;
    three_init(&r, 1, 3);
    r.plan.problem.scale = -1;
    NEAR(rig_row(&r, 0, 0, 0)->o[0], (1 + 10 * exp(-1) + 100 * exp(-2)) / (1 + exp(-1) + exp(-2)));
    rig_done(&r);
}

/* ---- rules 5 and section 2: who sees what ------------------------------------ */

static void expect_visible(struct rig *r, int32_t i, unsigned visible, const char *what)
{
    struct reference_row *row = rig_row(r, 0, 0, i);
    unsigned seen = 0;
    for (int32_t j = 0; j < row->kv_len; j++)
        if (row->logit[j] != -INFINITY) seen |= 1u << j;
    cr_assert_eq(seen, visible, "%s, query %d: sees %x, not %x", what, i, seen, visible);
    if (visible) NEAR(row->o[0], three_want(visible, -INFINITY));
}

Test(reference, causal_and_positions)
{
    struct rig r;
    three_init(&r, 2, 4);
    r.plan.problem.flags = HEED_CAUSAL; /* the last query stands at the last key */
    expect_visible(&r, 0, 7, "bottom right");
    expect_visible(&r, 1, 15, "bottom right");
    r.sequences[0].position = 0;
    expect_visible(&r, 0, 1, "top left");
    expect_visible(&r, 1, 3, "top left");
    r.sequences[0].position = -1;
    expect_visible(&r, 0, 0, "negative position");
    expect_visible(&r, 1, 1, "negative position");
    r.sequences[0].position = 100;
    expect_visible(&r, 0, 15, "beyond the keys");
    r.sequences[0].first = 99; /* keys at 99 ... 102 */
    expect_visible(&r, 0, 3, "kv_first");
    int32_t tree[2] = {101, 99};
    r.batch.q_positions = tree;
    expect_visible(&r, 0, 7, "q_positions");
    expect_visible(&r, 1, 1, "q_positions");
    rig_done(&r);
}

Test(reference, windows_and_key_range)
{
    struct rig r;
    three_init(&r, 2, 4);
    r.sequences[0].position = 1;
    r.plan.problem.flags = HEED_WINDOW;
    r.plan.problem.window_left = 1;
    r.plan.problem.window_right = 0;
    expect_visible(&r, 0, 3, "left 1, right 0");
    expect_visible(&r, 1, 6, "left 1, right 0");
    r.plan.problem.window_left = -1;
    r.plan.problem.window_right = 1;
    expect_visible(&r, 0, 7, "right 1");
    r.plan.problem.window_left = 0;
    r.plan.problem.window_right = -1;
    expect_visible(&r, 1, 12, "left 0");
    r.plan.problem.window_left = -1;
    const int32_t ranges[4] = {1, 3, 2, 2};
    r.plan.problem.flags = HEED_KEY_RANGE;
    r.call.key_range = rig_view(ranges, 1, 2, 8);
    expect_visible(&r, 0, 6, "key range");
    expect_visible(&r, 1, 0, "empty key range");
    const int32_t wide[4] = {-5, 100, 3, 1};
    r.call.key_range = rig_view(wide, 1, 2, 8);
    expect_visible(&r, 0, 15, "clipped key range");
    expect_visible(&r, 1, 0, "reversed key range");
    r.plan.problem.flags |= HEED_CAUSAL; /* all conditions compose */
    expect_visible(&r, 0, 3, "key range and causal");
    rig_done(&r);
}

Test(reference, masks_and_bias)
{
    struct rig r;
    three_init(&r, 2, 4);
    const unsigned char shows[8] = {1, 0, 255, 0, 0, 0, 0, 0}, bits[2] = {0xf0 | 10, 0};
    r.plan.problem.flags = HEED_MASK_BOOL;
    r.call.mask = rig_view(shows, 1, 2, 4);
    expect_visible(&r, 0, 5, "mask");
    expect_visible(&r, 1, 0, "mask");
    r.plan.problem.flags = HEED_MASK_BITS;
    r.call.mask = rig_view(bits, 1, 2, 1);
    expect_visible(&r, 0, 10, "bits");
    expect_visible(&r, 1, 0, "bits");
    const float bias[8] = {0, -INFINITY, 0, -INFINITY, -FLT_MAX, -FLT_MAX, -FLT_MAX, -FLT_MAX};
    r.plan.problem.flags = HEED_BIAS;
    r.call.bias = rig_view(bias, 1, 2, 16);
    expect_visible(&r, 0, 5, "bias");
    struct reference_row *row = rig_row(&r, 0, 0, 1); /* finite is not hidden; what is added to it is lost in f32, not in double */
    cr_assert_eq(row->visible, 4);
    r.plan.problem.flags = HEED_BIAS | HEED_MASK_BOOL;
    r.call.mask = rig_view(shows, 0, 2, 4);
    r.call.mask.token = 0; /* repeated for every query */
    expect_visible(&r, 0, 5, "mask and bias");
    rig_done(&r);
}

Test(reference, wide_bit_masks)
{
    struct rig r;
    float k[11] = {0}, v[11], q[1] = {1};
    const unsigned char bits[2] = {0x00, 0x04};
    for (int j = 0; j < 11; j++) v[j] = (float)j;
    rig_init(&r, 1, 1, 1, 11, 1, 1);
    r.plan.problem.flags = HEED_MASK_BITS;
    rig_tensors(&r, q, k, v, NULL, NULL);
    r.call.mask = rig_view(bits, 1, 1, 2);
    struct reference_row *row = rig_row(&r, 0, 0, 0);
    cr_assert_eq(row->visible, 1);
    SAME(row->o[0], 10);
    cr_assert_eq(row->begin, 10);
    cr_assert_eq(row->end, 11);
    rig_done(&r);
}

/* ---- rules 2 to 4: softcap, ALiBi, bias ---------------------------------------- */

Test(reference, softcap_bias_alibi_in_their_order)
{
    struct rig r;
    const float bias[3] = {0.5f, -1, 0.25f}, slope[1] = {0.75f};
    three_init(&r, 1, 3);
    r.plan.problem.scale = 3;
    r.plan.problem.softcap = 2;
    r.plan.problem.flags = HEED_BIAS | HEED_ALIBI;
    r.call.bias = rig_view(bias, 1, 1, 12);
    r.call.alibi = rig_view(slope, 1, 1, 4);
    r.sequences[0].position = 1;
    struct reference_row *row = rig_row(&r, 0, 0, 0);
    for (int j = 0; j < 3; j++) {
        NEAR(row->raw[j], 3.0 * j);
        NEAR(row->capped[j], 2 * tanh(3.0 * j / 2));
        NEAR(row->logit[j], 2 * tanh(3.0 * j / 2) - 0.75 * abs(1 - j) + (double)bias[j]);
        NEAR(row->added[j], 0.75 * abs(1 - j) + fabs((double)bias[j]));
    }
    cr_assert_eq(row->terms, 2);
    r.plan.problem.flags |= HEED_BIAS_FIRST; /* under the cap, and not again */
    row = rig_row(&r, 0, 0, 0);
    for (int j = 0; j < 3; j++) {
        NEAR(row->raw[j], 3.0 * j);
        NEAR(row->capped[j], 2 * tanh((3.0 * j + (double)bias[j]) / 2));
        NEAR(row->logit[j], 2 * tanh((3.0 * j + (double)bias[j]) / 2) - 0.75 * abs(1 - j));
    }
    r.plan.problem.softcap = 0;
    NEAR(rig_row(&r, 0, 0, 0)->capped[1], 2);
    rig_done(&r);
}

Test(reference, alibi_counts_positions)
{
    struct rig r;
    const float slopes[2] = {1, 2};
    const float q[2] = {0, 0};
    rig_init(&r, 2, 1, 1, 4, 1, 1);
    rig_tensors(&r, q, three_k, three_v, NULL, NULL);
    r.plan.problem.flags = HEED_ALIBI;
    r.call.alibi = rig_view(slopes, 2, 1, 4);
    r.sequences[0].first = 10;
    r.sequences[0].position = 12;
    struct reference_row *row = rig_row(&r, 0, 1, 0);
    SAME(row->logit[0], -4);
    SAME(row->logit[2], 0);
    SAME(row->logit[3], -2);
    SAME(rig_row(&r, 0, 0, 0)->logit[0], -2);
    rig_done(&r);
}

/* ---- sinks, empty rows, lse ------------------------------------------------------ */

Test(reference, sinks_and_lse_flags)
{
    struct rig r;
    const float sinks[1] = {1.5f};
    three_init(&r, 1, 3);
    r.plan.problem.flags = HEED_SINKS;
    r.call.sinks = rig_view(sinks, 1, 1, 4);
    double keys = 1 + exp(1) + exp(2);
    struct reference_row *row = rig_row(&r, 0, 0, 0);
    NEAR(row->o[0], three_want(7, 1.5));
    NEAR(row->lse, log(keys + exp(1.5)));
    NEAR(row->lse_out, log(keys + exp(1.5)));
    NEAR(row->sink_weight, exp(1.5) / (keys + exp(1.5)));
    r.plan.problem.flags |= HEED_LSE_WITHOUT_SINK;
    row = rig_row(&r, 0, 0, 0);
    NEAR(row->o[0], three_want(7, 1.5));
    NEAR(row->lse_out, log(keys));
    r.plan.problem.flags |= HEED_LSE_BASE2;
    NEAR(rig_row(&r, 0, 0, 0)->lse_out, log2(keys));
    NEAR(rig_row(&r, 0, 0, 0)->lse, log(keys + exp(1.5)));
    const float none[1] = {-INFINITY}, high[1] = {800};
    r.plan.problem.flags = HEED_SINKS;
    r.call.sinks.data = (unsigned char *)none;
    NEAR(rig_row(&r, 0, 0, 0)->o[0], three_want(7, -INFINITY));
    r.call.sinks.data = (unsigned char *)high; /* in the maximum, too */
    row = rig_row(&r, 0, 0, 0);
    cr_assert(row->o[0] < 1e-300);
    SAME(row->lse, 800);
    SAME(row->maximum, 800);
    SAME(row->sink_weight, 1);
    r.plan.problem.flags |= HEED_LSE_WITHOUT_SINK;
    NEAR(rig_row(&r, 0, 0, 0)->lse_out, log(keys));
    rig_done(&r);
}

Test(reference, rows_that_see_nothing)
{
    struct rig r;
    const float sinks[1] = {-3.25f};
    three_init(&r, 1, 3);
    r.plan.problem.flags = HEED_CAUSAL;
    r.sequences[0].position = -1;
    struct reference_row *row = rig_row(&r, 0, 0, 0);
    PLUS_ZERO(row->o[0]);
    SAME(row->lse, -INFINITY);
    SAME(row->lse_out, -INFINITY);
    cr_assert_eq(row->visible, 0);
    r.plan.problem.flags |= HEED_SINKS;
    r.call.sinks = rig_view(sinks, 1, 1, 4);
    row = rig_row(&r, 0, 0, 0);
    PLUS_ZERO(row->o[0]);
    SAME(row->lse, -3.25);
    r.plan.problem.flags |= HEED_LSE_WITHOUT_SINK;
    SAME(rig_row(&r, 0, 0, 0)->lse_out, -INFINITY);
    r.plan.problem.flags = 0;
    r.sequences[0].kv_len = 0;
    row = rig_row(&r, 0, 0, 0);
    PLUS_ZERO(row->o[0]);
    SAME(row->lse, -INFINITY);
    rig_done(&r);
}

/* ---- section 4, and what is not finite ---------------------------------------------- */

Test(reference, hidden_keys_do_not_exist)
{
    struct rig r;
    const float k[4] = {0, NAN, INFINITY, 3}, v[4] = {1, NAN, -INFINITY, 1000};
    const unsigned char shows[4] = {1, 0, 0, 1};
    three_init(&r, 1, 4);
    r.call.k.data = (unsigned char *)k;
    r.call.v.data = (unsigned char *)v;
    r.plan.problem.flags = HEED_MASK_BOOL;
    r.call.mask = rig_view(shows, 1, 1, 4);
    NEAR(rig_row(&r, 0, 0, 0)->o[0], three_want(9, -INFINITY));
    const float bias[4] = {0, -INFINITY, -INFINITY, 0};
    r.plan.problem.flags = HEED_BIAS;
    r.call.bias = rig_view(bias, 1, 1, 16);
    NEAR(rig_row(&r, 0, 0, 0)->o[0], three_want(9, -INFINITY));
    const float nan_bias[4] = {0, NAN, NAN, 0};
    r.plan.problem.flags = HEED_BIAS | HEED_MASK_BOOL; /* a bias that the mask hides is hidden, too */
    r.call.bias = rig_view(nan_bias, 1, 1, 16);
    NEAR(rig_row(&r, 0, 0, 0)->o[0], three_want(9, -INFINITY));
    rig_done(&r);
}

Test(reference, visible_nan_and_infinity)
{
    struct rig r;
    const float k[3] = {0, NAN, 2}, v[6] = {1, 2, 3, NAN, 5, 6}, q[1] = {1};
    rig_init(&r, 1, 1, 1, 3, 1, 2);
    rig_tensors(&r, q, three_k, v, NULL, NULL);
    struct reference_row *row = rig_row(&r, 0, 0, 0);
    cr_assert(isfinite(row->o[0]) && isnan(row->o[1]) && isfinite(row->lse), "NaN in v: that column alone");
    r.call.k.data = (unsigned char *)k;
    row = rig_row(&r, 0, 0, 0);
    cr_assert(isnan(row->o[0]) && isnan(row->o[1]) && isnan(row->lse), "NaN in k: the row");
    cr_assert(isnan(row->logit[1]) && row->logit[2] == 2);
    const float bias[3] = {0, INFINITY, 0};
    r.call.k.data = (unsigned char *)three_k;
    r.plan.problem.flags = HEED_BIAS;
    r.call.bias = rig_view(bias, 1, 1, 12);
    row = rig_row(&r, 0, 0, 0);
    cr_assert(isnan(row->o[0]) && isnan(row->lse), "+infinity in a visible bias: the row");
    const float sinks[1] = {NAN};
    r.plan.problem.flags = HEED_SINKS;
    r.call.sinks = rig_view(sinks, 1, 1, 4);
    row = rig_row(&r, 0, 0, 0);
    cr_assert(isnan(row->o[0]) && isnan(row->lse) && isnan(row->maximum), "a NaN sink: the row");
    rig_done(&r);
}

Test(reference, overflowing_logits)
{
    struct rig r;
    const float q[2] = {1e30f, 1e30f}, k[6] = {1, 1, -1e30f, -1e30f, 2, -2}, v[3] = {1, 10, 100};
    rig_init(&r, 1, 1, 1, 3, 2, 1);
    rig_tensors(&r, q, k, v, NULL, NULL);
    struct reference_row *row = rig_row(&r, 0, 0, 0); /* 2e30, -2e60, 0 */
    cr_assert_eq(row->visible, 2, "a logit that overflows downwards hides its key");
    SAME(row->o[0], 1);
    cr_assert_not(row->order_matters);
    const float up[6] = {1e30f, 1e30f, 0, 0, 0, 0};
    r.call.k.data = (unsigned char *)up;
    row = rig_row(&r, 0, 0, 0);
    cr_assert(isnan(row->o[0]) && isnan(row->lse) && !row->order_matters, "one that overflows upwards makes the row NaN");
    const float mixed[6] = {1e30f, -1e30f, 0, 0, 0, 0};
    r.call.k.data = (unsigned char *)mixed;
    cr_assert(rig_row(&r, 0, 0, 0)->order_matters, "sums that overflow in one order and not in another");
    const float down[6] = {1e30f, -2e30f, 0, 0, 0, 0};
    r.call.k.data = (unsigned char *)down;
    row = rig_row(&r, 0, 0, 0);
    cr_assert(row->order_matters && row->visible == 2, "also where the exact sum overflows");
    const float large[6] = {1e12f, 0, 0, 0, 0, 0};
    r.call.k.data = (unsigned char *)large;
    r.plan.problem.scale = 1e-6f; /* 1e36 when scaled first, infinite when scaled last */
    cr_assert(rig_row(&r, 0, 0, 0)->order_matters);
    r.plan.problem.scale = 1e-3f;
    const float fits[6] = {1e7f, 0, 0, 0, 0, 0};
    r.call.k.data = (unsigned char *)fits;
    cr_assert_not(rig_row(&r, 0, 0, 0)->order_matters);
    rig_done(&r);
}
