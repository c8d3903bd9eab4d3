/* SPDX-License-Identifier: MIT
 * test_tensors.c - tensors of a call: every byte within reach counted, every overlap found, every fault named, on a plan without kernels.
 */
#include "dtype.h"
#include "inner.h"
#include "ranges.h"
#include "view.h"
#include <criterion/criterion.h>
#include <stdio.h>

#define EXPECT(call, expected, fragment)                                                                                  \
    do {                                                                                                                  \
        heed_status got_ = (call);                                                                                        \
        cr_expect_eq(got_, expected, "%s: %s, \"%s\"", #call, heed_status_string(got_), heed_error_message());            \
        cr_expect(strstr(heed_error_message(), fragment), "\"%s\" does not hold \"%s\"", heed_error_message(), fragment); \
    } while (0)
#define ACCEPT(call) cr_expect_eq(call, HEED_OK, "%s: \"%s\"", #call, heed_error_message())

#define LENGTHS(...) (&(heed_lengths){.struct_size = sizeof(heed_lengths), __VA_ARGS__})
#define INTS(...) ((const int32_t[]){__VA_ARGS__})

#define PICK(n) ((int64_t)(inner_random(state) % (n)))

enum { ARENA = 1 << 20, PLACE = 1 << 15 };

/* A problem, lengths and dense tensors [batch, len, heads, dim], each in a place of its own. */
struct fixture {
    struct inner inner;
    heed_tensors x;
    heed_tensor workspace, new_k, new_v;
    struct call call;
    unsigned char *arena;
};

static struct fixture f;

static heed_tensor dense(int place, int64_t batch, int64_t tokens, int64_t heads, int64_t row_units, int64_t row_bytes)
{
    heed_tensor t = {.data = f.arena + place * PLACE, .bytes = (uint64_t)(batch * tokens * heads * row_bytes)};
    t.head_stride = row_units;
    t.token_stride = heads * row_units;
    t.batch_stride = tokens * heads * row_units;
    return t;
}

static int64_t row_units(heed_type type, int64_t n) { return type_is_block(type) ? type_row_bytes(type, n) : n; }

static void make(const char *words, const heed_lengths *lengths)
{
    const struct problem *p = &f.inner.plan.problem;
    const struct heed_batch *b = &f.inner.batch;
    if (!f.arena) {
        inner_begin(&f.inner);
        f.arena = aligned_alloc(4096, ARENA);
    }
    cr_assert_eq(inner_problem(&f.inner, words), HEED_OK, "%s: %s", words, heed_error_message());
    cr_assert_eq(inner_lengths(&f.inner, lengths), HEED_OK, "%s", heed_error_message());
    const int64_t qb = b->q_packed ? 1 : b->batch, qt = b->q_packed ? b->q_total : b->q_len_max;
    int64_t kb = b->kv_packed ? 1 : b->batch, kt = b->kv_packed ? b->kv_total : b->kv_len_max;
    if (p->page_size) kb = b->page_max + 1, kt = p->page_size;
#define ROWS(place, batch, tokens, heads, type, dim) dense(place, batch, tokens, heads, row_units(type, dim), type_row_bytes(type, dim))
    memset(&f.x, 0, sizeof f.x);
    f.x.struct_size = sizeof f.x;
    f.x.q = ROWS(0, qb, qt, p->q_heads, p->q_type, p->head_dim);
    f.x.k = ROWS(1, kb, kt, p->kv_heads, p->k_type, p->head_dim);
    f.x.v = ROWS(2, kb, kt, p->kv_heads, p->v_type, p->v_head_dim);
    f.x.o = ROWS(3, qb, qt, p->q_heads, p->o_type, p->v_head_dim);
    f.x.lse = ROWS(4, qb, qt, p->q_heads, HEED_F32, 1);
    f.x.mask = ROWS(5, qb, qt, p->q_heads, HEED_I8, p->flags & HEED_MASK_BITS ? (b->kv_len_max + 7) / 8 : b->kv_len_max);
    f.x.bias = ROWS(6, qb, qt, p->q_heads, p->bias_type, b->kv_len_max);
    f.x.alibi_slopes = ROWS(7, 1, 1, 1, HEED_F32, p->q_heads);
    f.x.sinks = ROWS(8, 1, 1, 1, HEED_F32, p->q_heads);
    f.x.k_scale = ROWS(9, kb, kt, p->kv_heads, HEED_F32, 1);
    f.x.v_scale = ROWS(10, kb, kt, p->kv_heads, HEED_F32, 1);
    f.x.scores = ROWS(11, qb, qt, p->q_heads, HEED_F32, b->kv_len_max);
    f.x.key_range = ROWS(12, qb, qt, 1, HEED_F32, 2);
    f.x.rope_cos = ROWS(13, 1, 16, 1, HEED_F32, p->rope_dim / 2);
    f.x.rope_sin = ROWS(14, 1, 16, 1, HEED_F32, p->rope_dim / 2);
    f.new_k = ROWS(15, qb, qt, p->kv_heads, p->q_type, p->head_dim);
    f.new_v = ROWS(16, qb, qt, p->kv_heads, p->q_type, p->v_head_dim);
    f.workspace = (heed_tensor){.data = f.arena + 17 * PLACE, .bytes = 4096};
    f.inner.batch.workspace_bytes = 0;
}

static heed_status run(void) { return tensors_take(&f.inner.plan, &f.inner.batch, &f.x, &f.workspace, false, &f.call); }

static heed_status append(void) { return append_take(&f.inner.plan, &f.inner.batch, HEED_TYPE_DEFAULT, &f.new_k, &f.new_v, &f.x, &f.call); }

static struct byte_range range_of(enum role role)
{
    struct byte_range range;
    cr_assert_eq(call_range(&f.call, role, &range), HEED_OK);
    return range;
}

static void range_is(enum role role, int64_t begin, int64_t end)
{
    const struct byte_range range = range_of(role);
    cr_expect(range.begin == begin && range.end == end, "%s reaches %lld to %lld, not %lld to %lld", role_name(role),
              (long long)range.begin, (long long)range.end, (long long)begin, (long long)end);
}

/* A tensor fits exactly: one byte less is out of bounds. */
static void tight(heed_tensor *t, const char *name)
{
    char fragment[40];
    snprintf(fragment, sizeof fragment, "%s: offset", name);
    ACCEPT(run());
    t->bytes--;
    EXPECT(run(), HEED_OUT_OF_BOUNDS, fragment);
    t->bytes++;
    ACCEPT(run());
}

#define ALL "hq4 hk2 d8 dv6 causal alibi sinks mask=bool bias=f16 lse scores=3 keyrange kv=i8"

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
        EXPECT(run(), HEED_UNSUPPORTED, "HEED_MEMORY_CL_SVM");
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

/* ---- overlaps ------------------------------------------------------------------------------ */

Test(tensors, rows_of_outputs_must_not_overlap)
{
    make("hq4 d8 lse scores=0", LENGTHS(.batch = 2, .q_len = 3, .kv_len = 5));
    heed_tensor saved = f.x.o;
    f.x.o.head_stride = 7;
    EXPECT(run(), HEED_INVALID_ARGUMENT, "o: its rows overlap each other");
    f.x.o = saved, f.x.o.token_stride = 0;
    EXPECT(run(), HEED_INVALID_ARGUMENT, "o: its rows overlap");
    f.x.o = saved, f.x.o.batch_stride = f.x.o.token_stride;
    EXPECT(run(), HEED_INVALID_ARGUMENT, "o: its rows overlap");
    f.x.o = saved, f.x.o.batch_stride = f.x.o.token_stride * 3 - 1;
    EXPECT(run(), HEED_INVALID_ARGUMENT, "o: its rows overlap");
    f.x.o = saved, f.x.o.token_stride = 4 * 8 - 8; /* the last head on the first of the next token */
    EXPECT(run(), HEED_INVALID_ARGUMENT, "o: its rows overlap");
    f.x.o = saved, f.x.o.offset = 7 * 8, f.x.o.head_stride = -8, f.x.o.bytes += 4096; /* backwards is no overlap */
    ACCEPT(run());
    f.x.o = saved;
    f.x.lse.head_stride = 0;
    EXPECT(run(), HEED_INVALID_ARGUMENT, "lse: its rows overlap");
    f.x.lse.head_stride = 1;
    f.x.scores.token_stride = 4;
    EXPECT(run(), HEED_INVALID_ARGUMENT, "scores: its rows overlap");
}

/* Heads outside tokens, tokens outside batches: any order of nesting. */
Test(tensors, any_nesting_is_accepted)
{
    make("hq4 d8", LENGTHS(.batch = 2, .q_len = 3, .kv_len = 5));
    static const int orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    const int64_t extents[3] = {2, 3, 4};
    for (int n = 0; n < 6; n++) {
        int64_t *strides[3] = {&f.x.o.batch_stride, &f.x.o.token_stride, &f.x.o.head_stride}, step = 8;
        for (int m = 0; m < 3; m++) {
            *strides[orders[n][m]] = step;
            step *= extents[orders[n][m]];
        }
        ACCEPT(run());
    }
}

/* Strides that do not nest, but whose rows never meet: 3 x 4 places at 5 t + 3 * 8 h, and one where two of them do. */
Test(tensors, strides_that_do_not_nest)
{
    make("hq3 d2", LENGTHS(.batch = 1, .q_len = 4, .kv_len = 1));
    f.x.o.bytes = 4096;
    f.x.o.token_stride = 5, f.x.o.head_stride = 7; /* 0 5 10 15, 7 12 17 22, 14 19 24 29: 14 and 15 meet */
    EXPECT(run(), HEED_INVALID_ARGUMENT, "o: its rows overlap");
    f.x.o.token_stride = 6, f.x.o.head_stride = 8; /* 0 6 12 18, 8 14 20 26, 16 22 28 34: at least 2 apart */
    ACCEPT(run());
    f.x.o.token_stride = 6, f.x.o.head_stride = 9; /* 18 = 2 * 9 = 3 * 6 */
    EXPECT(run(), HEED_INVALID_ARGUMENT, "o: its rows overlap");
}

/* [token][q | k | v | o] in one buffer. */
static void interleave(int64_t q_heads, int64_t kv_heads, int64_t d)
{
    const int64_t step = (2 * q_heads + 2 * kv_heads) * d;
    heed_tensor *const each[] = {&f.x.q, &f.x.k, &f.x.v, &f.x.o};
    const int64_t offsets[] = {0, q_heads * d, (q_heads + kv_heads) * d, (q_heads + 2 * kv_heads) * d};
    for (int n = 0; n < 4; n++) {
        each[n]->data = f.arena;
        each[n]->bytes = ARENA;
        each[n]->offset = offsets[n];
        each[n]->token_stride = step;
        each[n]->head_stride = d;
        each[n]->batch_stride = step * 5;
    }
}

Test(tensors, packed_qkvo_in_one_buffer)
{
    make("hq4 hk2 d8", LENGTHS(.batch = 3, .q_len = 5, .kv_len = 5));
    interleave(4, 2, 8);
    ACCEPT(run());
    f.x.o.offset--;
    EXPECT(run(), HEED_INVALID_ARGUMENT, "o overlaps v");
    f.x.o.offset += 2; /* the last head runs into the next token's q */
    EXPECT(run(), HEED_INVALID_ARGUMENT, "o overlaps q");
    f.x.o.offset--;
    f.x.o.batch_stride += 8;
    EXPECT(run(), HEED_INVALID_ARGUMENT, "o overlaps");
    /* other lengths: keys of more tokens than there are queries */
    make("hq4 hk2 d8", LENGTHS(.batch = 3, .q_len = 2, .kv_len = 5));
    interleave(4, 2, 8);
    ACCEPT(run());
    /* o over the unused tokens of q (2 of 5): apart, though in the midst of it */
    f.x.o.offset = 2 * f.x.q.token_stride;
    ACCEPT(run());
    f.x.o.offset = 1 * f.x.q.token_stride;
    EXPECT(run(), HEED_INVALID_ARGUMENT, "o overlaps q");
    make("hq4 hk2 d8", LENGTHS(.batch = 3, .q_start = INTS(0, 4, 9, 11), .kv_start = INTS(0, 4, 9, 11)));
    interleave(4, 2, 8);
    ACCEPT(run());
    f.x.o.offset = f.x.k.offset;
    EXPECT(run(), HEED_INVALID_ARGUMENT, "o overlaps k");
}

Test(tensors, in_place)
{
    make("hq4 d8", LENGTHS(.batch = 2, .q_len = 3, .kv_len = 5));
    f.x.o = f.x.q;
    ACCEPT(run());
    f.x.o.offset = 8, f.x.o.bytes += 32;
    EXPECT(run(), HEED_INVALID_ARGUMENT, "o overlaps q: it may only be in place, with the same layout");
    f.x.o = f.x.q;
    f.x.o.head_stride = 24, f.x.o.token_stride = 8;
    EXPECT(run(), HEED_INVALID_ARGUMENT, "o overlaps q: it may only be in place");
    f.x.o = f.x.k;
    EXPECT(run(), HEED_INVALID_ARGUMENT, "o overlaps k");
    make("hq4 d8 dv4", LENGTHS(.batch = 2, .q_len = 3, .kv_len = 5));
    f.x.o = f.x.q;
    EXPECT(run(), HEED_INVALID_ARGUMENT, "o overlaps q: it may only be in place");
    make("hq4 d8 f32 o=f16", LENGTHS(.batch = 2, .q_len = 3, .kv_len = 5));
    f.x.o.data = f.x.q.data, f.x.o.head_stride = 16, f.x.o.token_stride = 64, f.x.o.batch_stride = 192, f.x.o.bytes = f.x.q.bytes;
    EXPECT(run(), HEED_INVALID_ARGUMENT, "o overlaps q: it may only be in place");
    /* v as a view of k, and both of q: inputs may overlap as they like */
    make("hq4 d8", LENGTHS(.batch = 2, .q_len = 3, .kv_len = 3));
    f.x.v = f.x.k = f.x.q;
    ACCEPT(run());
}

Test(tensors, other_outputs_must_not_overlap)
{
    make(ALL, LENGTHS(.batch = 2, .q_len = 3, .kv_len = 5));
    void *saved = f.x.lse.data;
    f.x.lse.data = (unsigned char *)f.x.o.data + 8;
    EXPECT(run(), HEED_INVALID_ARGUMENT, "o overlaps lse");
    f.x.lse.data = f.x.sinks.data;
    EXPECT(run(), HEED_INVALID_ARGUMENT, "lse overlaps sinks");
    f.x.lse.data = (unsigned char *)f.x.sinks.data + 16; /* just behind it */
    ACCEPT(run());
    f.x.lse.data = saved;
    saved = f.x.scores.data;
    f.x.scores.data = f.x.bias.data;
    EXPECT(run(), HEED_INVALID_ARGUMENT, "scores overlaps bias");
    f.x.scores.data = saved;
    f.x.mask.data = (unsigned char *)f.x.o.data + 7;
    EXPECT(run(), HEED_INVALID_ARGUMENT, "o overlaps mask");
}

/* Against a table of bytes: random small layouts, decided by writing every row down. */
static void mark(const struct placed *p, int64_t at, unsigned char *bytes, unsigned char bit, bool *twice, bool *met)
{
    for (int64_t b = 0; b < p->shape.batch; b++)
        for (int64_t t = 0; t < p->shape.token; t++)
            for (int64_t h = 0; h < p->shape.head; h++)
                for (int64_t n = 0; n < p->shape.row_bytes; n++) {
                    unsigned char *byte = bytes + at + b * p->view.batch + t * p->view.token + h * p->view.head + n;
                    if (*byte & bit) *twice = true;
                    if (*byte & ~bit) *met = true;
                    *byte |= bit;
                }
}

static struct placed random_rows(uint64_t *state, unsigned char *bytes, int64_t middle)
{
    static const int64_t steps[] = {0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96};
    struct placed p = {.shape = {.batch = 1 + PICK(3), .token = 1 + PICK(4), .head = 1 + PICK(4), .row_bytes = 1 + PICK(6)}};
    p.view.batch = steps[PICK(14)] * (PICK(4) ? 1 : -1);
    p.view.token = steps[PICK(14)] * (PICK(4) ? 1 : -1);
    p.view.head = steps[PICK(14)] * (PICK(4) ? 1 : -1);
    p.view.data = bytes + middle;
    p.view.given = true;
    cr_assert(range_of_box(&p.shape, &p.view, &p.box));
    return p;
}

Test(tensors, overlaps_agree_with_brute_force)
{
    enum { BYTES = 4096 };
    static unsigned char bytes[BYTES];
    uint64_t seed = 31337, *state = &seed;
    int met_count = 0, twice_count = 0;
    for (int n = 0; n < 60000; n++) {
        const int64_t at_a = BYTES / 2, at_b = BYTES / 2 + PICK(200) - 100;
        struct placed a = random_rows(state, bytes, at_a), b = random_rows(state, bytes, at_b);
        bool twice_a = false, twice_b = false, met = false, ignored = false;
        memset(bytes, 0, sizeof bytes);
        mark(&a, at_a, bytes, 1, &twice_a, &ignored);
        mark(&b, at_b, bytes, 2, &twice_b, &met);
        cr_assert_eq(overlap_within(&a), twice_a ? MEETING : APART, "%lld x %lld x %lld rows of %lld, strides %lld %lld %lld",
                     (long long)a.shape.batch, (long long)a.shape.token, (long long)a.shape.head, (long long)a.shape.row_bytes,
                     (long long)a.view.batch, (long long)a.view.token, (long long)a.view.head);
        cr_assert_eq(overlap_between(&a, &b), met ? MEETING : APART, "case %d", n);
        cr_assert_eq(overlap_between(&b, &a), met ? MEETING : APART, "case %d", n);
        met_count += met, twice_count += twice_a;
    }
    cr_assert(met_count > 6000 && met_count < 54000 && twice_count > 6000 && twice_count < 54000, "%d %d of both sorts", met_count,
              twice_count);
}

/* Very large tensors are as quick as small ones, interleaved or not. */
Test(tensors, large_extents)
{
    struct placed a = {.shape = {.batch = 512, .token = 131072, .head = 128, .row_bytes = 256}}, b;
    a.view.head = 256, a.view.token = 4 * 128 * 256, a.view.batch = a.view.token * 131072, a.view.data = f.arena;
    cr_assert(range_of_box(&a.shape, &a.view, &a.box));
    b = a;
    b.view.data += 128 * 256;
    cr_assert_eq(overlap_within(&a), APART);
    cr_assert_eq(overlap_between(&a, &b), APART);
    b.view.data--;
    cr_assert_eq(overlap_between(&a, &b), MEETING);
    a.shape.token = b.shape.token = 131071;
    a.view.token = b.view.token = 3 * (INT64_C(1) << 24) + 771, a.view.batch = b.view.batch = 5 * (INT64_C(1) << 24) + 1283; /* a lattice */
    cr_assert(range_of_box(&a.shape, &a.view, &a.box) && range_of_box(&b.shape, &b.view, &b.box));
    overlap_between(&a, &b); /* whatever it says, it says it soon */
}

/* ---- append, rotate, merge ------------------------------------------------------------------ */

Test(tensors, appended)
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

Test(tensors, appended_beyond)
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

Test(tensors, rotated)
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

Test(tensors, merged)
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
