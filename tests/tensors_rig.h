/* SPDX-License-Identifier: MIT
 * tensors_rig.h - for the tests of a call's tensors: a problem, lengths and tensors that fit it, each in a place of its own, on a plan without
 * kernels. A test changes one thing and says what has to come of it.
 */
#ifndef HEED_TENSORS_RIG_H
#define HEED_TENSORS_RIG_H

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

static inline heed_tensor dense(int place, int64_t batch, int64_t tokens, int64_t heads, int64_t row_units, int64_t row_bytes)
{
    heed_tensor t = {.data = f.arena + place * PLACE, .bytes = (uint64_t)(batch * tokens * heads * row_bytes)};
    t.head_stride = row_units;
    t.token_stride = heads * row_units;
    t.batch_stride = tokens * heads * row_units;
    return t;
}

static inline int64_t row_units(heed_type type, int64_t n) { return type_is_block(type) ? type_row_bytes(type, n) : n; }

static inline void make(const char *words, const heed_lengths *lengths)
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

static inline heed_status run(void) { return tensors_take(&f.inner.plan, &f.inner.batch, &f.x, &f.workspace, false, &f.call); }

static inline heed_status append(void) { return append_take(&f.inner.plan, &f.inner.batch, HEED_TYPE_DEFAULT, &f.new_k, &f.new_v, &f.x, &f.call); }

static inline struct byte_range range_of(enum role role)
{
    struct byte_range range;
    cr_assert_eq(call_range(&f.call, role, &range), HEED_OK);
    return range;
}

static inline void range_is(enum role role, int64_t begin, int64_t end)
{
    const struct byte_range range = range_of(role);
    cr_expect(range.begin == begin && range.end == end, "%s reaches %lld to %lld, not %lld to %lld", role_name(role),
              (long long)range.begin, (long long)range.end, (long long)begin, (long long)end);
}

/* A tensor fits exactly: one byte less is out of bounds. */
static inline void tight(heed_tensor *t, const char *name)
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

#endif
