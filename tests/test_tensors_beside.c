/* SPDX-License-Identifier: MIT
 * test_tensors_beside.c - tensors of the calls beside attention: append, rotate and the merge of two, each byte and each overlap counted.
 */
#include "tensors_rig.h"

Test(tensors_beside, appended)
{
    make("hq4 hk2 d8 rope=4 kv=i8", LENGTHS(.batch = 2, .q_len = 3, .kv_lens = INTS(9, 3)));
    ACCEPT(append());
    cr_assert(f.call.new_type == HEED_F32 && f.call.k.given && f.call.k_scale.given && f.call.rope_cos.given && !f.call.q.given);
    f.new_k.bytes--;
    EXPECT(append(), HEED_OUT_OF_BOUNDS, "new_k: offset");
    f.new_k.bytes++, f.new_v.token_stride *= 2;
    EXPECT(append(), HEED_OUT_OF_BOUNDS, "new_v: offset");
    f.new_v.token_stride /= 2, f.x.k.bytes = 10;
    EXPECT(append(), HEED_OUT_OF_BOUNDS, "k: offset");
    f.x.k.bytes = 9 * 2 * 8 * 2, f.x.v_scale.data = NULL;
    EXPECT(append(), HEED_INVALID_ARGUMENT, "v_scale.data is NULL");
    f.x.v_scale.data = f.arena + 10 * PLACE;
    const int64_t token = f.x.v_scale.token_stride;
    f.x.v_scale.token_stride = 0; /* one scale for all is for reading: append would write it once per token */
    EXPECT(append(), HEED_INVALID_ARGUMENT, "v_scale: its rows overlap each other");
    f.x.v_scale.token_stride = token, f.x.rope_sin.data = NULL;
    EXPECT(append(), HEED_INVALID_ARGUMENT, "rope_sin.data is NULL");
    f.x.rope_sin.data = f.arena + 14 * PLACE;
    f.x.rope_cos.bytes = 9 * 8; /* positions 6 .. 8 and 0 .. 2 */
    ACCEPT(append());
    range_is(ROLE_ROPE_COS, 0, 72);
    f.x.rope_cos.bytes--;
    EXPECT(append(), HEED_OUT_OF_BOUNDS, "rope_cos: offset");
    f.x.rope_cos.bytes = 128;
    /* only one of both */
    ACCEPT(append_take(&f.inner.plan, &f.inner.batch, HEED_F16, &f.new_k, NULL, &f.x, &f.call));
    cr_assert(!f.call.v.given && !f.call.new_v.given && f.call.new_type == HEED_F16);
    f.x.rope_cos.data = NULL;
    ACCEPT(append_take(&f.inner.plan, &f.inner.batch, HEED_BF16, NULL, &f.new_v, &f.x, &f.call));
    cr_assert(!f.call.k.given && !f.call.rope_cos.given);
    EXPECT(append_take(&f.inner.plan, &f.inner.batch, HEED_I8, NULL, &f.new_v, &f.x, &f.call), HEED_UNSUPPORTED, "new_type is i8");
    EXPECT(append_take(&f.inner.plan, &f.inner.batch, (heed_type)44, NULL, &f.new_v, &f.x, &f.call), HEED_INVALID_ARGUMENT,
           "new_type is 44");
    EXPECT(append_take(&f.inner.plan, &f.inner.batch, HEED_F32, NULL, &f.new_v, NULL, &f.call), HEED_INVALID_ARGUMENT,
           "heed_tensors is NULL");
}

Test(tensors_beside, appended_beyond)
{
    make("hq4 hk2 d8", LENGTHS(.batch = 2, .q_len = 3, .kv_lens = INTS(9, 2)));
    EXPECT(append(), HEED_INVALID_ARGUMENT, "q_len 3 of sequence 1 is above its kv_len 2");
    make("hq4 hk2 d8 rope=4", LENGTHS(.batch = 1, .q_len = 3, .kv_len = 9, .q_position = INTS(-1)));
    EXPECT(append(), HEED_OUT_OF_BOUNDS, "position -1 is outside rope_cos");
    make("hq4 hk2 d8 rope=4", LENGTHS(.batch = 1, .q_len = 3, .kv_len = 9, .q_positions = INTS(3, 15, 0)));
    ACCEPT(append());
    make("hq4 hk2 d8 rope=4", LENGTHS(.batch = 1, .q_len = 3, .kv_len = 9, .q_positions = INTS(3, 16, 0)));
    EXPECT(append(), HEED_OUT_OF_BOUNDS, "rope_cos: offset");
    make("hq4 hk2 d8 rope=4", LENGTHS(.batch = 1, .q_len = 3, .kv_len = 9, .q_positions = INTS(3, 5, -7)));
    EXPECT(append(), HEED_OUT_OF_BOUNDS, "position -7");
    make("hq4 hk2 d8", LENGTHS(.batch = 2, .q_len = 3, .kv_len = 9));
    f.x.k.batch_stride = 0;
    EXPECT(append(), HEED_INVALID_ARGUMENT, "k: its rows overlap each other");
    make("hq4 hk2 d8", LENGTHS(.batch = 2, .q_len = 3, .kv_len = 9));
    f.x.v.data = (unsigned char *)f.x.k.data + 32;
    EXPECT(append(), HEED_INVALID_ARGUMENT, "k overlaps v");
    f.x.v.data = f.new_k.data;
    EXPECT(append(), HEED_INVALID_ARGUMENT, "v overlaps new_k");
    make("hq4 hk2 d8 kv=i8", LENGTHS(.batch = 2, .q_len = 3, .kv_len = 9));
    f.x.k_scale.token_stride = 0;
    EXPECT(append(), HEED_INVALID_ARGUMENT, "k_scale: its rows overlap");
}

Test(tensors_beside, rotated)
{
    make("hq4 hk2 d8 rope=8", LENGTHS(.batch = 2, .q_len = 3, .kv_len = 9));
    const struct heed_plan *plan = &f.inner.plan;
    const struct heed_batch *batch = &f.inner.batch;
    ACCEPT(rotate_take(plan, batch, 4, &f.x.q, &f.x, &f.call));
    cr_assert(f.call.heads == 4 && f.call.x.given && f.call.rope_sin.given);
    range_is(ROLE_X, 0, 2 * 3 * 4 * 32);
    f.x.q.bytes += 32; /* a fifth head is the first of the next token */
    EXPECT(rotate_take(plan, batch, 5, &f.x.q, &f.x, &f.call), HEED_INVALID_ARGUMENT, "x: its rows overlap");
    f.x.q.bytes -= 32;
    EXPECT(rotate_take(plan, batch, 0, &f.x.q, &f.x, &f.call), HEED_INVALID_ARGUMENT, "heads is 0");
    EXPECT(rotate_take(plan, batch, 4, NULL, &f.x, &f.call), HEED_INVALID_ARGUMENT, "x is NULL");
    EXPECT(rotate_take(plan, batch, 4, &f.x.q, NULL, &f.call), HEED_INVALID_ARGUMENT, "heed_tensors is NULL");
    f.x.q.bytes--;
    EXPECT(rotate_take(plan, batch, 4, &f.x.q, &f.x, &f.call), HEED_OUT_OF_BOUNDS, "x: offset");
    f.x.q.bytes++, f.x.rope_cos.data = f.x.q.data;
    EXPECT(rotate_take(plan, batch, 4, &f.x.q, &f.x, &f.call), HEED_INVALID_ARGUMENT, "x");
}

static heed_status merge(const heed_tensor *o, const heed_tensor *lse)
{
    heed_tensor o_a = f.x.o, o_b = f.x.o, lse_a = f.x.lse, lse_b = f.x.lse;
    o_a.data = f.arena + 20 * PLACE, o_b.data = f.arena + 21 * PLACE;
    lse_a.data = f.arena + 22 * PLACE, lse_b.data = f.arena + 23 * PLACE;
    return merge_take(&f.inner.plan, &f.inner.batch, &o_a, &lse_a, &o_b, &lse_b, o, lse, &f.call);
}

Test(tensors_beside, merged)
{
    make("hq4 hk2 d8 lse sinks", LENGTHS(.batch = 2, .q_len = 3, .kv_len = 9));
    heed_tensor o = f.x.o, lse = f.x.lse;
    ACCEPT(merge(&o, &lse));
    cr_assert(f.call.o_a.given && f.call.lse_b.given && f.call.lse.given && !f.call.sinks.given);
    o.data = f.arena + 20 * PLACE, lse.data = f.arena + 23 * PLACE;
    ACCEPT(merge(&o, &lse));
    o.data = f.arena + 21 * PLACE + 32;
    EXPECT(merge(&o, &lse), HEED_INVALID_ARGUMENT, "o overlaps o_b: it may only be in place");
    o.data = f.arena + 22 * PLACE;
    EXPECT(merge(&o, &lse), HEED_INVALID_ARGUMENT, "o overlaps lse_a");
    o = f.x.o, lse.bytes--;
    EXPECT(merge(&o, &lse), HEED_OUT_OF_BOUNDS, "lse: offset");
    EXPECT(merge(NULL, &lse), HEED_INVALID_ARGUMENT, "o is NULL");
    EXPECT(merge(&o, NULL), HEED_INVALID_ARGUMENT, "lse is NULL");
    make("hq4 hk2 d8 lse sinks lsenosink", LENGTHS(.batch = 2, .q_len = 3, .kv_len = 9));
    EXPECT(merge(&f.x.o, &f.x.lse), HEED_INVALID_ARGUMENT, "HEED_LSE_WITHOUT_SINK");
}
