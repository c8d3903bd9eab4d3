/* SPDX-License-Identifier: MIT
 * test_tensors.c - tensors of a call: every byte within reach counted, every fault named, in the caller's memory and a device's. What may overlap:
 * test_overlap.c; append, rotate, merge: test_tensors_beside.c.
 */
#include "tensors_rig.h"

/* ---- reach --------------------------------------------------------------------------------- */

Test(tensors, every_tensor_fits_to_the_byte)
{
    make(ALL, LENGTHS(.batch = 3, .q_len = 5, .kv_lens = INTS(7, 0, 3)));
    tight(&f.x.q, "q");
    tight(&f.x.o, "o");
    tight(&f.x.lse, "lse");
    tight(&f.x.alibi_slopes, "alibi_slopes");
    tight(&f.x.sinks, "sinks");
    tight(&f.x.key_range, "key_range");
    /* of what depends on kv_len the last sequence has 3 of 7: the box of 7 would not fit */
    f.x.k.bytes = (2 * 7 + 3) * 2 * 8;
    f.x.v.bytes = (2 * 7 + 3) * 2 * 6;
    f.x.k_scale.bytes = f.x.v_scale.bytes = (2 * 7 + 3) * 2 * 4;
    tight(&f.x.k, "k");
    tight(&f.x.v, "v");
    tight(&f.x.k_scale, "k_scale");
    tight(&f.x.v_scale, "v_scale");
    const int64_t pairs = 3 * 5 * 4 * 7;
    f.x.mask.bytes = (uint64_t)pairs - 4;
    f.x.bias.bytes = (uint64_t)(pairs - 4) * 2;
    f.x.scores.bytes = (uint64_t)(pairs - 4) * 4;
    tight(&f.x.mask, "mask");
    tight(&f.x.bias, "bias");
    tight(&f.x.scores, "scores");
    range_is(ROLE_K, 0, (2 * 7 + 3) * 2 * 8);
    range_is(ROLE_SCORES, 0, (pairs - 4) * 4);
    range_is(ROLE_MASK, 0, pairs - 4);
    range_is(ROLE_ALIBI, 0, 16);
    range_is(ROLE_ROPE_COS, 0, 0);
}

/* Scores of two heads and the last two queries of each sequence; a row of sums per head, or one. */
Test(tensors, chosen_scores_fit_to_the_byte)
{
    make("hq4 hk2 d8 scores=3 keysums", LENGTHS(.batch = 3, .q_start = INTS(0, 5, 6, 9), .kv_lens = INTS(7, 4, 3), .score_rows = 2, .score_head_count = 2, .score_heads = INTS(3, 0)));
    f.x.scores = (heed_tensor){.data = f.arena + 11 * PLACE, .bytes = (2 * 28 + 14 + 7 + 3) * 4, .head_stride = 7, .token_stride = 14, .batch_stride = 28};
    f.x.key_sums = (heed_tensor){.data = f.arena + 18 * PLACE, .bytes = (3 * 4 * 7 - 4) * 4, .head_stride = 7, .token_stride = INT64_MAX, .batch_stride = 28};
    tight(&f.x.scores, "scores");
    tight(&f.x.key_sums, "key_sums");
    range_is(ROLE_SCORES, 0, (2 * 28 + 14 + 7 + 3) * 4);
    range_is(ROLE_KEY_SUMS, 0, (2 * 28 + 3 * 7 + 3) * 4);
    f.x.key_sums.head_stride = 6;
    EXPECT(run(), HEED_INVALID_ARGUMENT, "key_sums: its rows overlap each other");
    f.x.key_sums.head_stride = 7;
    f.x.key_sums.data = f.x.scores.data;
    EXPECT(run(), HEED_INVALID_ARGUMENT, "overlaps");
    make("hq4 hk2 d8 keysums sumheads", LENGTHS(.batch = 2, .q_len = 0, .kv_len = 9));
    f.x.key_sums = (heed_tensor){.data = f.arena + 18 * PLACE, .bytes = 18 * 4, .head_stride = 1, .batch_stride = 9};
    tight(&f.x.key_sums, "key_sums");
}

/* A device that reads q again after o is written; the CPU keeps a copy, and so does heed_forward(). */
Test(tensors, scores_in_place)
{
    make("hq2 d8 keysums", LENGTHS(.batch = 2, .q_len = 3, .kv_len = 5));
    f.x.key_sums = (heed_tensor){.data = f.arena + 18 * PLACE, .bytes = 2 * 2 * 5 * 4, .head_stride = 5, .batch_stride = 10};
    f.x.o = f.x.q;
    ACCEPT(run());
    f.inner.device.info.backend = HEED_BACKEND_OPENCL;
    EXPECT(run(), HEED_UNSUPPORTED, "o overlaps q");
    ACCEPT(tensors_take(&f.inner.plan, &f.inner.batch, &f.x, NULL, true, &f.call));
    f.inner.plan.problem.flags = 0;
    ACCEPT(run());
    f.inner.device.info.backend = HEED_BACKEND_CPU;
}

Test(tensors, views_are_in_bytes)
{
    make("hq4 hk2 d8 f16 kv=q8_0 d32 o=f32", LENGTHS(.batch = 2, .q_len = 3, .kv_len = 5));
    f.x.q.offset = 4;
    f.x.q.bytes += 8;
    f.x.k.offset = 6;
    f.x.k.bytes += 6;
    ACCEPT(run());
    cr_assert_eq((void *)f.call.q.data, f.arena + 8);
    cr_assert(f.call.q.head == 64 && f.call.q.token == 4 * 64 && f.call.q.batch == 3 * 4 * 64 && f.call.q.given);
    cr_assert_eq((void *)f.call.k.data, f.arena + PLACE + 6, "offset and strides of blocks are bytes");
    cr_assert(f.call.k.head == 34 && f.call.k.token == 68 && f.call.k.batch == 340);
    cr_assert(f.call.o.head == 128 && f.call.plan == &f.inner.plan && f.call.batch == &f.inner.batch);
    cr_assert(!f.call.lse.given && !f.call.mask.given && !f.call.k_scale.given && !f.call.lse.data);
}

Test(tensors, negative_strides)
{
    make("hq2 d4 bias=f32", LENGTHS(.batch = 2, .q_len = 3, .kv_len = 5));
    /* a relative-position bias: row i begins one element before row i - 1; 2 + 5 elements */
    f.x.bias = (heed_tensor){.data = f.arena + 6 * PLACE, .bytes = 7 * 4, .offset = 2, .token_stride = -1};
    tight(&f.x.bias, "bias");
    range_is(ROLE_BIAS, -8, 20);
    f.x.bias.offset = 1;
    EXPECT(run(), HEED_OUT_OF_BOUNDS, "bias: offset, strides and lengths reach bytes -4 to 24");
    f.x.bias.offset = 3;
    EXPECT(run(), HEED_OUT_OF_BOUNDS, "bytes 4 to 32 of 28");
    /* keys backwards */
    f.x.bias.offset = 2;
    f.x.k.offset = 4 * 8;
    f.x.k.token_stride = -8;
    tight(&f.x.k, "k");
    range_is(ROLE_K, -4 * 32, 160 + 32);
}

Test(tensors, broadcast_strides)
{
    make("hq2 d4 mask=bool bias=f16", LENGTHS(.batch = 2, .q_len = 3, .kv_len = 5));
    f.x.mask = (heed_tensor){.data = f.arena + 5 * PLACE, .bytes = 5};
    f.x.bias = (heed_tensor){.data = f.arena + 6 * PLACE, .bytes = 20, .head_stride = 5};
    f.x.k = (heed_tensor){.data = f.arena + PLACE, .bytes = 80, .token_stride = 4};
    tight(&f.x.mask, "mask");
    tight(&f.x.bias, "bias");
    tight(&f.x.k, "k");
    range_is(ROLE_MASK, 0, 5);
}

Test(tensors, mask_bits)
{
    make("hq2 d4 mask=bits", LENGTHS(.batch = 1, .q_len = 3, .kv_len = 17));
    f.x.mask = (heed_tensor){.data = f.arena + 5 * PLACE, .bytes = 1 + 3 * 6, .offset = 1, .head_stride = 3, .token_stride = 6};
    tight(&f.x.mask, "mask");
    cr_assert(f.call.mask.token == 6 && f.call.mask.head == 3);
}

Test(tensors, packed)
{
    make("hq2 d4 mask=bool lse", LENGTHS(.batch = 3, .q_start = INTS(0, 2, 2, 6), .kv_start = INTS(0, 9, 9, 14), .kv_lens = INTS(9, 0, 4)));
    f.x.q.batch_stride = f.x.k.batch_stride = f.x.mask.batch_stride = INT64_MAX; /* unused */
    tight(&f.x.q, "q");
    cr_assert(f.call.q.batch == 0 && f.call.k.batch == 0 && f.call.mask.batch == 0);
    f.x.k.bytes -= 32; /* the last of 14 rows is not in use */
    tight(&f.x.k, "k");
    range_is(ROLE_K, 0, 13 * 32);
    range_is(ROLE_Q, 0, 6 * 32);
    range_is(ROLE_MASK, 0, 5 * 18 + 9 + 4);
    f.x.mask.bytes = 5 * 18 + 9 + 4;
    tight(&f.x.mask, "mask");
}

Test(tensors, paged)
{
    make("hq2 hk1 d4 page=4 kv=i8",
         LENGTHS(.batch = 2, .q_len = 1, .kv_lens = INTS(6, 3), .page_table_stride = 2, .page_table = INTS(3, 5, 1, -9)));
    f.x.k.bytes -= 2 * 4; /* two tokens of page 5 are in use */
    tight(&f.x.k, "k");
    range_is(ROLE_K, 0, 5 * 16 + 8);
    f.x.v_scale.bytes -= 2 * 4;
    tight(&f.x.v_scale, "v_scale");
    cr_assert_eq(f.call.k.batch, 16);
    f.x.v.batch_stride = 1000;
    EXPECT(run(), HEED_OUT_OF_BOUNDS, "6 x 4 x 1 rows of 4 bytes: pages, tokens, heads");
    make("hq2 hk1 d4 page=4", LENGTHS(.batch = 1, .q_len = 1, .kv_len = 3, .page_table_stride = 1, .page_table = INTS(0)));
    f.x.k.batch_stride = INT64_MIN; /* one page: its stride means nothing */
    f.x.k.bytes -= 16;
    tight(&f.x.k, "k");
    range_is(ROLE_K, 0, 48);
    /* heads before tokens */
    make("hq2 d4 page=4", LENGTHS(.batch = 1, .q_len = 1, .kv_len = 6, .page_table_stride = 2, .page_table = INTS(0, 1)));
    f.x.k.token_stride = 4, f.x.k.head_stride = 16, f.x.k.batch_stride = 32;
    f.x.k.bytes = 128 + 64 + 32;
    tight(&f.x.k, "k");
}

Test(tensors, stride_of_a_single_step_means_nothing)
{
    make("hq1 d4 lse", LENGTHS(.batch = 1, .q_len = 1, .kv_len = 1));
    heed_tensor *const each[] = {&f.x.q, &f.x.k, &f.x.v, &f.x.o, &f.x.lse};
    for (int n = 0; n < 5; n++) each[n]->batch_stride = INT64_MAX, each[n]->head_stride = INT64_MIN, each[n]->token_stride = INT64_MAX / 3;
    ACCEPT(run());
    cr_assert(f.call.q.batch == 0 && f.call.q.token == 0 && f.call.o.head == 0);
}

Test(tensors, beyond_64_bits)
{
    make("hq2 d4", LENGTHS(.batch = 3, .q_len = 2, .kv_len = 5));
    const int64_t huge[] = {INT64_MAX, INT64_MIN, INT64_MAX / 4, INT64_MIN / 4, INT64_MAX / 8 - 5, INT64_C(1) << 58, -(INT64_C(1) << 58)};
    for (size_t n = 0; n < sizeof huge / sizeof *huge; n++) {
        heed_tensor saved = f.x.k;
        f.x.k.batch_stride = huge[n];
        EXPECT(run(), HEED_OUT_OF_BOUNDS, "k: offset");
        f.x.k = saved, f.x.k.token_stride = huge[n];
        EXPECT(run(), HEED_OUT_OF_BOUNDS, "k: offset");
        f.x.k = saved, f.x.k.head_stride = huge[n];
        EXPECT(run(), HEED_OUT_OF_BOUNDS, "k: offset");
        f.x.k = saved, f.x.k.offset = huge[n];
        EXPECT(run(), HEED_OUT_OF_BOUNDS, "k: offset");
        f.x.k.bytes = UINT64_MAX;
        if (huge[n] < 0) EXPECT(run(), HEED_OUT_OF_BOUNDS, "k: offset");
        f.x.k = saved;
    }
    ACCEPT(run());
}

Test(tensors, nothing_to_reach)
{
    make("hq2 d4 lse mask=bool", LENGTHS(.batch = 0, .q_len = 2, .kv_len = 5));
    memset((unsigned char *)&f.x + sizeof f.x.struct_size, 0, sizeof f.x - sizeof f.x.struct_size);
    ACCEPT(run());
    cr_assert(f.call.o.given && f.call.lse.given && f.call.mask.given);
    range_is(ROLE_O, 0, 0);
    make("hq2 d4", LENGTHS(.batch = 2, .q_len = 0, .kv_len = 5));
    f.x.q.data = f.x.o.data = NULL, f.x.q.offset = INT64_MAX, f.x.o.token_stride = INT64_MIN;
    ACCEPT(run());
    make("hq2 d4 bias=f32", LENGTHS(.batch = 2, .q_len = 2, .kv_len = 0));
    f.x.k.data = f.x.v.data = f.x.bias.data = NULL, f.x.k.bytes = 0;
    ACCEPT(run());
    f.x.o.data = NULL;
    EXPECT(run(), HEED_INVALID_ARGUMENT, "o.data is NULL");
}

/* Every address that the formulas of view.h give, by role. */
static void addresses(enum role role, bool keys, struct byte_range *range)
{
    const struct view *v = call_view(&f.call, role);
    const struct problem *p = &f.inner.plan.problem;
    const struct heed_batch *batch = &f.inner.batch;
    struct shape shape;
    role_shape(&f.call, role, &shape);
    *range = (struct byte_range){INT64_MAX, INT64_MIN};
    for (int32_t b = 0; b < batch->batch; b++) {
        const struct sequence *s = &batch->sequences[b];
        const int32_t tokens = keys ? s->kv_len : s->q_len;
        int64_t bytes = shape.row_bytes;
        if (role == ROLE_BIAS) bytes = s->kv_len * 2;
        if (role == ROLE_MASK) bytes = (s->kv_len + 7) / 8;
        for (int32_t h = 0; bytes && h < shape.head; h++)
            for (int32_t n = 0; n < tokens; n++) {
                const int64_t at = keys ? key_offset(v, s, batch->page_table, p->page_size, b, h, n) : query_offset(v, s, b, h, n);
                if (at < range->begin) range->begin = at;
                if (at + bytes > range->end) range->end = at + bytes;
            }
    }
    if (range->begin > range->end) *range = (struct byte_range){0, 0};
}

static void random_strides(uint64_t *state, heed_tensor *t)
{
    t->batch_stride = PICK(64) - 16, t->head_stride = PICK(32) - 8, t->token_stride = PICK(32) - 8;
    t->offset = 1000, t->bytes = 4000;
}

/* Lengths and strides at random: the range is what the address formulas reach, and the call fits it to the byte at both ends. */
static void check_random_ranges(uint64_t *state, bool paged)
{
    static const struct {
        enum role role;
        size_t tensor;
        bool keys;
        int unit;
    } each[] = {
        {ROLE_Q, offsetof(heed_tensors, q), false, 4},
        {ROLE_K, offsetof(heed_tensors, k), true, 2},
        {ROLE_V, offsetof(heed_tensors, v), true, 1},
        {ROLE_V_SCALE, offsetof(heed_tensors, v_scale), true, 4},
        {ROLE_BIAS, offsetof(heed_tensors, bias), false, 2},
        {ROLE_MASK, offsetof(heed_tensors, mask), false, 1},
        {ROLE_KEY_RANGE, offsetof(heed_tensors, key_range), false, 4},
    };
    int32_t q_start[4] = {0}, kv_start[4] = {0}, kv_lens[3], table[9];
    for (int b = 0; b < 3; b++) {
        q_start[b + 1] = q_start[b] + (int32_t)PICK(4);
        kv_start[b + 1] = kv_start[b] + (int32_t)PICK(7);
        kv_lens[b] = (int32_t)PICK(7);
    }
    for (int n = 0; n < 9; n++) table[n] = (int32_t)PICK(5);
    heed_lengths lengths = {
        .struct_size = sizeof lengths, .batch = 1 + (int32_t)PICK(3), .q_len = (int32_t)PICK(4), .kv_len = (int32_t)PICK(7)};
    if (PICK(2)) lengths.q_start = q_start;
    if (PICK(2))
        lengths.kv_start = kv_start;
    else if (PICK(2))
        lengths.kv_lens = kv_lens;
    if (paged) lengths.page_table = table, lengths.page_table_stride = 3;
    make(paged ? "hq4 hk2 d3 k=f16 v=i8 bias=f16 mask=bits keyrange page=2" : "hq4 hk2 d3 k=f16 v=i8 bias=f16 mask=bits keyrange",
         &lengths);
    for (size_t n = 0; n < sizeof each / sizeof *each; n++)
        random_strides(state, (heed_tensor *)(void *)((unsigned char *)&f.x + each[n].tensor));
    f.x.q.offset = f.x.v_scale.offset = f.x.key_range.offset = 300;
    ACCEPT(run());
    for (size_t n = 0; n < sizeof each / sizeof *each; n++) {
        heed_tensor *t = (heed_tensor *)(void *)((unsigned char *)&f.x + each[n].tensor), saved = *t;
        struct byte_range expected, got = range_of(each[n].role);
        const bool pages = paged && each[n].keys;
        addresses(each[n].role, each[n].keys, &expected);
        cr_assert(pages ? got.begin <= expected.begin && got.end >= expected.end : got.begin == expected.begin && got.end == expected.end,
                  "%s reaches %lld to %lld, not %lld to %lld", role_name(each[n].role), (long long)got.begin, (long long)got.end,
                  (long long)expected.begin, (long long)expected.end);
        if (got.end == 0 && got.begin == 0) continue;
        t->bytes = (uint64_t)(t->offset * each[n].unit + got.end);
        ACCEPT(run());
        t->bytes--;
        cr_assert_eq(run(), HEED_OUT_OF_BOUNDS);
        *t = saved;
        t->offset = -got.begin / each[n].unit; /* a multiple */
        ACCEPT(run());
        t->offset--;
        cr_assert_eq(run(), HEED_OUT_OF_BOUNDS);
        *t = saved;
        ACCEPT(run());
    }
}

Test(tensors, ranges_agree_with_addresses)
{
    uint64_t state = 4711;
    for (int n = 0; n < 1500; n++) check_random_ranges(&state, n % 3 == 2);
    inner_end(&f.inner);
    cr_assert_eq(f.inner.memory.in_use, 0);
}

/* ---- faults -------------------------------------------------------------------------------- */

Test(tensors, missing)
{
    make(ALL, LENGTHS(.batch = 2, .q_len = 3, .kv_len = 5));
    static const struct {
        size_t offset;
        const char *fragment;
    } each[] = {
        {offsetof(heed_tensors, q), "q.data is NULL"},
        {offsetof(heed_tensors, k), "k.data is NULL"},
        {offsetof(heed_tensors, v), "v.data is NULL"},
        {offsetof(heed_tensors, o), "o.data is NULL"},
        {offsetof(heed_tensors, lse), "lse.data is NULL"},
        {offsetof(heed_tensors, mask), "mask.data is NULL"},
        {offsetof(heed_tensors, bias), "bias.data is NULL"},
        {offsetof(heed_tensors, alibi_slopes), "alibi_slopes.data is NULL"},
        {offsetof(heed_tensors, sinks), "sinks.data is NULL"},
        {offsetof(heed_tensors, k_scale), "k_scale.data is NULL"},
        {offsetof(heed_tensors, v_scale), "v_scale.data is NULL"},
        {offsetof(heed_tensors, scores), "scores.data is NULL"},
        {offsetof(heed_tensors, key_range), "key_range.data is NULL"},
    };
    for (size_t n = 0; n < sizeof each / sizeof *each; n++) {
        heed_tensor *t = (heed_tensor *)(void *)((unsigned char *)&f.x + each[n].offset), saved = *t;
        t->data = NULL;
        EXPECT(run(), HEED_INVALID_ARGUMENT, each[n].fragment);
        *t = saved;
        t->reserved = 1;
        EXPECT(run(), HEED_UNSUPPORTED, "reserved word");
        *t = saved, t->reserved2[1] = 1;
        EXPECT(run(), HEED_UNSUPPORTED, "reserved word");
        *t = saved, t->memory = (heed_memory)7;
        EXPECT(run(), HEED_INVALID_ARGUMENT, "memory is 7");
        *t = saved, t->memory = HEED_MEMORY_CL_BUFFER;
        EXPECT(run(), HEED_INVALID_ARGUMENT, "the CPU takes host memory");
        *t = saved, t->memory = HEED_MEMORY_CL_SVM;
        EXPECT(run(), HEED_INVALID_ARGUMENT, "HEED_MEMORY_CL_SVM: the CPU takes host memory");
        *t = saved;
    }
    ACCEPT(run());
    EXPECT(tensors_take(&f.inner.plan, &f.inner.batch, NULL, NULL, false, &f.call), HEED_INVALID_ARGUMENT, "heed_tensors is NULL");
    f.x.struct_size = 0;
    EXPECT(run(), HEED_INVALID_ARGUMENT, "heed_tensors.struct_size is 0");
}

Test(tensors, off_is_not_looked_at)
{
    make("hq2 d4 kv=f8_e4m3", LENGTHS(.batch = 2, .q_len = 3, .kv_len = 5));
    heed_tensor *const each[] = {&f.x.lse, &f.x.mask, &f.x.bias, &f.x.alibi_slopes, &f.x.sinks, &f.x.scores, &f.x.key_range, &f.x.rope_cos};
    for (size_t n = 0; n < sizeof each / sizeof *each; n++) memset(each[n], 0xff, sizeof *each[n]);
    f.x.k_scale.data = f.x.v_scale.data = NULL; /* f8 without scales: 1 */
    f.x.k_scale.memory = (heed_memory)99;
    ACCEPT(run());
    cr_assert(!f.call.k_scale.given && !f.call.mask.given && !f.call.rope_cos.given);
    make("hq2 d4 kv=f8_e4m3", LENGTHS(.batch = 2, .q_len = 3, .kv_len = 5));
    tight(&f.x.k_scale, "k_scale");
    cr_assert(f.call.k_scale.given && f.call.k_scale.head == 4);
    f.x.v_scale = (heed_tensor){.data = f.arena + 10 * PLACE, .bytes = 4};
    tight(&f.x.v_scale, "v_scale");
    make("hq2 d4 k=i8", LENGTHS(.batch = 2, .q_len = 3, .kv_len = 5));
    f.x.v_scale.data = NULL;
    ACCEPT(run());
    f.x.k_scale.data = NULL;
    EXPECT(run(), HEED_INVALID_ARGUMENT, "k_scale.data is NULL");
}

Test(tensors, alignment)
{
    make("hq2 d32 f16 k=q4_0 v=i8 lse mask=bool", LENGTHS(.batch = 2, .q_len = 3, .kv_len = 5));
    static const struct {
        size_t offset;
        int bad, good;
        const char *fragment;
    } each[] = {
        {offsetof(heed_tensors, q), 1, 2, "q: its first element is not aligned to 2 bytes, as f16"},
        {offsetof(heed_tensors, k), 1, 2, "k: its first element is not aligned to 2 bytes, as q4_0"},
        {offsetof(heed_tensors, lse), 2, 4, "lse: its first element is not aligned to 4 bytes, as f32"},
        {offsetof(heed_tensors, v_scale), 1, 4, "v_scale: its first"},
        {offsetof(heed_tensors, v), 0, 1, ""},
        {offsetof(heed_tensors, mask), 0, 3, ""},
    };
    for (size_t n = 0; n < sizeof each / sizeof *each; n++) {
        heed_tensor *t = (heed_tensor *)(void *)((unsigned char *)&f.x + each[n].offset), saved = *t;
        t->data = (unsigned char *)t->data + each[n].bad;
        if (each[n].bad) EXPECT(run(), HEED_INVALID_ARGUMENT, each[n].fragment);
        t->data = (unsigned char *)saved.data + each[n].good;
        ACCEPT(run());
        *t = saved;
    }
    f.x.k.offset = 1;
    f.x.k.bytes++;
    EXPECT(run(), HEED_INVALID_ARGUMENT, "k: its first element");
    f.x.k.offset = 0;
    f.x.k.head_stride++;
    EXPECT(run(), HEED_INVALID_ARGUMENT, "k: its strides");
}

Test(tensors, workspace)
{
    make("hq2 d4", LENGTHS(.batch = 2, .q_len = 3, .kv_len = 5));
    ACCEPT(tensors_take(&f.inner.plan, &f.inner.batch, &f.x, NULL, false, &f.call));
    cr_assert_not(f.call.workspace.given);
    f.inner.batch.workspace_bytes = 1000;
    ACCEPT(run());
    cr_assert(f.call.workspace.given);
    cr_assert_eq((void *)f.call.workspace.data, f.workspace.data);
    EXPECT(tensors_take(&f.inner.plan, &f.inner.batch, &f.x, NULL, false, &f.call), HEED_WORKSPACE_TOO_SMALL, "1000 bytes are needed");
    f.workspace.bytes = 1000;
    ACCEPT(run());
    f.workspace.bytes = 999;
    EXPECT(run(), HEED_WORKSPACE_TOO_SMALL, "999 bytes");
    f.workspace.bytes = 4096, f.workspace.offset = 3136;
    EXPECT(run(), HEED_WORKSPACE_TOO_SMALL, "from offset 3136 on");
    f.workspace.offset = 3072;
    ACCEPT(run());
    cr_assert_eq((void *)f.call.workspace.data, (unsigned char *)f.workspace.data + 3072);
    f.workspace.offset = 32;
    EXPECT(run(), HEED_INVALID_ARGUMENT, "aligned to 64");
    f.workspace.offset = -64;
    EXPECT(run(), HEED_INVALID_ARGUMENT, "aligned to 64");
    f.workspace.offset = 0, f.workspace.data = (unsigned char *)f.workspace.data + 32;
    EXPECT(run(), HEED_INVALID_ARGUMENT, "aligned to 64");
    f.workspace.data = f.x.v.data;
    EXPECT(run(), HEED_INVALID_ARGUMENT, "workspace overlaps v");
    f.workspace.data = f.x.o.data;
    EXPECT(run(), HEED_INVALID_ARGUMENT, "o overlaps workspace");
    f.workspace.data = f.arena + 17 * PLACE, f.workspace.reserved = 3;
    EXPECT(run(), HEED_UNSUPPORTED, "workspace: a reserved word");
}

/* ---- devices ---------------------------------------------------------------------------------- */

/* A device whose memory objects are numbers: the size of 0x1000 * n is n * 100 bytes. */
static heed_status fake_bytes(struct device *device, const heed_tensor *tensor, uint64_t *bytes)
{
    (void)device;
    if ((uintptr_t)tensor->data == 0x99000) return HEED_DEVICE_FAILED;
    *bytes = (uintptr_t)tensor->data / 0x1000 * 100;
    return HEED_OK;
}

static void to_device(heed_tensor *t, uintptr_t mem)
{
    t->memory = HEED_MEMORY_CL_BUFFER;
    t->data = (void *)mem;
}

Test(tensors, device_memory)
{
    make("hq2 d4", LENGTHS(.batch = 1, .q_len = 3, .kv_len = 3)); /* 96 bytes each */
    f.inner.device.info.backend = f.inner.backend.id = HEED_BACKEND_OPENCL;
    f.inner.backend.tensor_bytes = fake_bytes;
    to_device(&f.x.q, 0x1000);
    to_device(&f.x.o, 0x2000);
    f.x.o.offset = 8, f.x.o.bytes = 200;
    ACCEPT(run());
    cr_assert(f.call.q.mem == (void *)0x1000 && !f.call.q.data && f.call.o.offset == 32 && f.call.k.data && !f.call.k.mem);
    f.x.q.bytes = 101;
    EXPECT(run(), HEED_OUT_OF_BOUNDS, "q.bytes is 101: its cl_mem has 100 bytes");
    f.x.q.bytes = 95;
    EXPECT(run(), HEED_OUT_OF_BOUNDS, "q: offset");
    f.x.q.bytes = 100, f.x.q.offset = 1;
    ACCEPT(run());
    f.x.q.offset = 0;
    to_device(&f.x.q, 0x99000);
    cr_assert_eq(run(), HEED_DEVICE_FAILED);
    to_device(&f.x.q, 0x2000); /* o behind it in the same memory: 32 bytes on, so they meet */
    EXPECT(run(), HEED_INVALID_ARGUMENT, "o overlaps q");
    f.x.o.offset = 24;
    ACCEPT(run());
    EXPECT(tensors_take(&f.inner.plan, &f.inner.batch, &f.x, NULL, true, &f.call), HEED_INVALID_ARGUMENT, "heed_forward takes host memory");
    f.inner.batch.workspace_bytes = 128;
    EXPECT(run(), HEED_INVALID_ARGUMENT, "an OpenCL device takes memory of its own");
    to_device(&f.workspace, 0x3000);
    f.workspace.bytes = 300;
    ACCEPT(run());
    cr_assert(f.call.workspace.mem == (void *)0x3000);
    to_device(&f.workspace, 0x1000);
    f.workspace.bytes = 100;
    EXPECT(run(), HEED_WORKSPACE_TOO_SMALL, "128 are needed");
}
