/* SPDX-License-Identifier: MIT
 * test_overlap.c - which tensors of a call may share bytes: every overlap found and named, every nesting that is none accepted; layouts at random
 * against a table of bytes; extents of terabytes decided at once.
 */
#include "tensors_rig.h"

Test(overlap, rows_of_outputs_must_not_overlap)
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
Test(overlap, any_nesting_is_accepted)
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
Test(overlap, strides_that_do_not_nest)
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

Test(overlap, packed_qkvo_in_one_buffer)
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

Test(overlap, in_place)
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

Test(overlap, other_outputs_must_not_overlap)
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

Test(overlap, overlaps_agree_with_brute_force)
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
Test(overlap, large_extents)
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
