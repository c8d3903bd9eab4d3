/* SPDX-License-Identifier: MIT
 * test_bound_edges.c - the edges of the bound: rows that see nothing, what is not finite, keys too far to count, scores of every stage; and that each
 * constant that a row declares changes it by about what the derivation says.
 */
#include "bound_rig.h"

/* ---- edges -------------------------------------------------------------------------------- */

Test(bound_edges, empty_rows_are_exact)
{
    static struct state s;
    double o_bound[VDIM], lse_bound;
    make_state(&s, NORMAL, 16, true, 3);
    s.r.sequences[0].position = -1;
    bound_row(&s.r.call, 0, 0, 0, rig_row(&s.r, 0, 0, 0), &bound_wall, o_bound, &lse_bound);
    for (int c = 0; c < VDIM; c++) cr_assert(o_bound[c] == 0);
    cr_assert(lse_bound == 0, "the sink itself");
    s.r.plan.problem.flags |= HEED_LSE_BASE2;
    bound_row(&s.r.call, 0, 0, 0, rig_row(&s.r, 0, 0, 0), &bound_wall, o_bound, &lse_bound);
    cr_assert(lse_bound > 0 && lse_bound < 1e-6, "the sink over ln 2 is rounded");
    s.r.plan.problem.flags &= ~HEED_SINKS;
    bound_row(&s.r.call, 0, 0, 0, rig_row(&s.r, 0, 0, 0), &bound_wall, o_bound, &lse_bound);
    cr_assert(lse_bound == 0);
    rig_done(&s.r);
}

Test(bound_edges, what_is_not_finite)
{
    cr_assert(bound_holds(1, 1, 0) && bound_holds(-INFINITY, -INFINITY, 0) && bound_holds(1.5, 1, 0.5) && bound_holds(0.0, -0.0, 0));
    cr_assert_not(bound_holds(1.5, 1, 0.499));
    cr_assert_not(bound_holds(NAN, 1, 100));
    cr_assert_not(bound_holds(1, NAN, 100));
    cr_assert(bound_holds(NAN, NAN, 0));
    cr_assert_not(bound_holds(INFINITY, -INFINITY, 100));
    cr_assert_not(bound_holds(1, -INFINITY, 100));
    cr_assert(bound_holds(NAN, 1, INFINITY), "an infinite bound promises nothing");
}

Test(bound_edges, nan_rows_and_infinite_values)
{
    static struct state s;
    double o_bound[VDIM], lse_bound;
    make_state(&s, NORMAL, 16, false, 3);
    s.v[0] = NAN;      /* column 0 alone */
    s.v[1] = INFINITY; /* column 1 is infinite */
    struct reference_row *row = rig_row(&s.r, 0, 0, 0);
    bound_row(&s.r.call, 0, 0, 0, row, &bound_wall, o_bound, &lse_bound);
    cr_assert(isnan(row->o[0]) && !bound_holds(1, row->o[0], o_bound[0]) && bound_holds(NAN, row->o[0], o_bound[0]));
    cr_assert(row->o[1] == INFINITY && !bound_holds(1, row->o[1], o_bound[1]) && bound_holds(INFINITY, row->o[1], o_bound[1]));
    cr_assert(isfinite(row->o[2]) && o_bound[2] < 1e-4 && lse_bound < 1e-4);
    s.k[0] = NAN;
    row = rig_row(&s.r, 0, 0, 0);
    bound_row(&s.r.call, 0, 0, 0, row, &bound_wall, o_bound, &lse_bound);
    cr_assert(isnan(row->lse_out) && !bound_holds(1, row->o[2], o_bound[2]) && !bound_holds(1, row->lse_out, lse_bound));
    rig_done(&s.r);
}

/* A key far below all others cannot loosen the bound, however large its own error. */
Test(bound_edges, far_keys_cost_nothing)
{
    static struct state s;
    double near[VDIM], far[VDIM], lse_near, lse_far;
    make_state(&s, NORMAL, 16, false, 5);
    s.r.plan.problem.flags |= HEED_BIAS;
    s.bias[3] = -300;
    bound_row(&s.r.call, 0, 0, 0, rig_row(&s.r, 0, 0, 0), &bound_wall, near, &lse_near);
    s.bias[3] = -1e30f;
    bound_row(&s.r.call, 0, 0, 0, rig_row(&s.r, 0, 0, 0), &bound_wall, far, &lse_far);
    for (int c = 0; c < VDIM; c++) cr_assert(far[c] < 1.5 * near[c], "column %d: %g beside %g", c, far[c], near[c]);
    cr_assert(lse_far < 1.5 * lse_near, "lse: %g beside %g", lse_far, lse_near);
    rig_done(&s.r);
}

/* Equal values leave only roundings, whatever the weights' errors; and the convex hull is the wall. */
Test(bound_edges, values_decide)
{
    static struct state s;
    double o_bound[VDIM], lse_bound;
    make_state(&s, HUGE_LOGITS, 64, false, 7);
    for (int n = 0; n < KEYS * VDIM; n++) s.v[n] = n % VDIM == 0 ? 3 : s.v[n];
    struct reference_row *row = rig_row(&s.r, 0, 0, 0);
    bound_row(&s.r.call, 0, 0, 0, row, &bound_wall, o_bound, &lse_bound);
    cr_assert(o_bound[0] < 400 * 3 * 0x1p-24, "equal values: %g", o_bound[0]);
    for (int c = 1; c < VDIM; c++) cr_assert(o_bound[c] < 10, "column %d: %g", c, o_bound[c]);
    for (int n = DIM; n < KEYS * DIM; n++) s.k[n] = s.k[n % DIM]; /* equal logits whose error is large: any weights may come out */
    for (int d = 0; d < DIM; d++) s.q[d] *= 1e6f;
    bound_row(&s.r.call, 0, 0, 0, rig_row(&s.r, 0, 0, 0), &bound_wall, o_bound, &lse_bound);
    cr_assert(o_bound[0] < 400 * 3 * 0x1p-24);
    for (int c = 1; c < VDIM; c++) cr_assert(o_bound[c] > 0.5 && o_bound[c] < 6, "column %d: %g", c, o_bound[c]);
    rig_done(&s.r);
}

Test(bound_edges, overflow_promises_nothing)
{
    static struct state s;
    double o_bound[VDIM], lse_bound;
    make_state(&s, NORMAL, 16, false, 9);
    for (int j = 0; j < 16; j++) s.v[j * VDIM] = FLT_MAX / 2; /* the sum before its division is infinite */
    bound_row(&s.r.call, 0, 0, 0, rig_row(&s.r, 0, 0, 0), &bound_wall, o_bound, &lse_bound);
    cr_assert(o_bound[0] == INFINITY && o_bound[1] < 1e-4);
    s.r.plan.problem.o_type = HEED_F16;
    for (int j = 0; j < 16; j++) s.v[j * VDIM] = 1e5f;
    bound_row(&s.r.call, 0, 0, 0, rig_row(&s.r, 0, 0, 0), &bound_wall, o_bound, &lse_bound);
    cr_assert(o_bound[0] == INFINITY, "an f16 output of 1e5");
    rig_done(&s.r);
}

Test(bound_edges, scores_of_every_stage)
{
    static struct state s;
    double scores[KEYS];
    make_state(&s, NORMAL, 64, true, 11);
    struct problem *p = &s.r.plan.problem;
    const struct kernel kernel = {.lanes = 1, .tile = 16, .chain = true, .weights = HEED_F32};
    p->flags |= HEED_WRITE_SCORES;
    for (int32_t stage = 0; stage < 4; stage++) {
        p->scores_stage = stage;
        struct reference_row *row = rig_row(&s.r, 0, 0, 0);
        bound_scores(p, row, &bound_wall, &bound_wall, scores, NULL);
        for (int j = 0; j < row->kv_len; j++) {
            double want = reference_score(p, row, j);
            bool hidden = row->logit[j] == -INFINITY;
            if (stage >= 2 && hidden) cr_assert(scores[j] == 0);
            if (stage < 2 || !hidden) cr_assert(scores[j] > 0 && scores[j] < 1e-3, "stage %d, key %d: %g", stage, j, scores[j]);
            if (stage == 2 && !hidden) cr_assert(bound_holds((double)sim_logit(&s, &kernel, j), want, scores[j]));
            if (stage == 3 && !hidden) cr_assert(scores[j] < 1e-3 * want + 1e-12, "key %d: %g for %g", j, scores[j], want);
        }
    }
    rig_done(&s.r);
}

/* What the sums of attention are worth counts in the weights of the pass behind it, and every weight in its sum. */
Test(bound_edges, weights_and_their_sums)
{
    static struct state s;
    static const struct arithmetic exact = {.exact_double = true};
    double near[KEYS], far[KEYS], sum = 0, all = 0, e_max;
    make_state(&s, NORMAL, 64, true, 11);
    struct problem *p = &s.r.plan.problem;
    struct reference_row *row = rig_row(&s.r, 0, 0, 0);
    bound_scores(p, row, &exact, &bound_wall, NULL, near);
    bound_scores(p, row, &bound_wall, &bound_wall, NULL, far);
    const double x = bound_sums(p, row, &bound_wall, &e_max);
    for (int j = 0; j < row->kv_len; j++) {
        if (row->logit[j] == -INFINITY) cr_assert(near[j] == 0 && far[j] == 0);
        else cr_assert(near[j] > 0 && far[j] > near[j] + 0.8 * x * row->weight[j] && far[j] < 1e-3, "key %d: %g beside %g", j, far[j], near[j]);
        sum += row->weight[j], all += far[j];
    }
    cr_assert(bound_key_sum(p, &bound_wall, row->kv_len, sum, all) > all);
    cr_assert(bound_key_sum(p, &bound_wall, 1000 * row->kv_len, sum, all) > bound_key_sum(p, &bound_wall, row->kv_len, sum, all));
    cr_assert(bound_key_sum(p, &exact, row->kv_len, sum, 0) <= 0x1p-23 * sum);
    cr_assert_eq(bound_key_sum(p, &bound_wall, 1, 0, 0), 0, "a key that nobody sees gets exactly 0");
    rig_done(&s.r);
}

Test(bound_edges, the_reference_only_rounds)
{
    static struct state s;
    const struct arithmetic exact = {.exact_double = true};
    double o_bound[VDIM], lse_bound;
    make_state(&s, OFFSET, 64, true, 13);
    struct reference_row *row = rig_row(&s.r, 0, 0, 0);
    bound_row(&s.r.call, 0, 0, 0, row, &exact, o_bound, &lse_bound);
    for (int c = 0; c < VDIM; c++) {
        cr_assert(bound_holds((double)(float)row->o[c], row->o[c], o_bound[c]));
        cr_assert_not(bound_holds((double)nextafterf(nextafterf((float)row->o[c], 1e9f), 1e9f), row->o[c], o_bound[c]));
    }
    rig_done(&s.r);
}

/* ---- every constant counts ---------------------------------------------------------------------- */

struct size {
    double o, lse;
};

static struct size size_of(struct state *s, const struct arithmetic *arithmetic)
{
    double o_bound[VDIM], lse_bound;
    bound_row(&s->r.call, 0, 0, 0, rig_row(&s->r, 0, 0, 0), arithmetic, o_bound, &lse_bound);
    return (struct size){o_bound[2], lse_bound};
}

/* A row in which nothing but the changed constant differs: the bound must grow by about what the derivation says. */
Test(bound_edges, every_constant_counts)
{
    static struct state s;
    const struct arithmetic base = {.dot_lanes = 64,
                                    .key_block = 32,
                                    .rescale_block = 1000,
                                    .exp_ulp = 1,
                                    .exp_roundings = 1,
                                    .tanh_ulp = 1,
                                    .log_ulp = 1,
                                    .div_roundings = 1};
    make_state(&s, NORMAL, 270, true, 21);
    struct problem *p = &s.r.plan.problem;
    const struct {
        const char *name;
        size_t offset;
        double value;
        bool real, o, lse;
    } changes[] = {
        {"dot_lanes", offsetof(struct arithmetic, dot_lanes), 1, false, true, true},
        {"dot_extra", offsetof(struct arithmetic, dot_extra), 60, false, true, true},
        {"key_block", offsetof(struct arithmetic, key_block), 0, false, true, true},
        {"sum_extra", offsetof(struct arithmetic, sum_extra), 200, false, true, true},
        {"rescale_block", offsetof(struct arithmetic, rescale_block), 2, false, true, true},
        {"above", offsetof(struct arithmetic, above), 80, true, true, true},
        {"exp_ulp", offsetof(struct arithmetic, exp_ulp), 20, true, true, true},
        {"exp_roundings", offsetof(struct arithmetic, exp_roundings), 40, true, true, true},
        {"tanh_ulp", offsetof(struct arithmetic, tanh_ulp), 50, true, true, true},
        {"log_ulp", offsetof(struct arithmetic, log_ulp), 50, true, false, true},
        {"div_roundings", offsetof(struct arithmetic, div_roundings), 500, true, true, false},
        {"weight_type", offsetof(struct arithmetic, weight_type), HEED_F16, false, true, false},
    };
    const struct size before = size_of(&s, &base);
    for (size_t n = 0; n < sizeof changes / sizeof *changes; n++) {
        struct arithmetic changed = base;
        unsigned char *field = (unsigned char *)&changed + changes[n].offset;
        const float real = (float)changes[n].value;
        const int32_t whole = (int32_t)changes[n].value;
        memcpy(field, changes[n].real ? (const void *)&real : (const void *)&whole, 4);
        const struct size after = size_of(&s, &changed);
        cr_assert(changes[n].o ? after.o > 1.3 * before.o : after.o == before.o, "%s: o from %g to %g", changes[n].name, before.o, after.o);
        cr_assert(changes[n].lse ? after.lse > 1.3 * before.lse : after.lse == before.lse, "%s: lse from %g to %g", changes[n].name,
                  before.lse, after.lse);
    }
    /* a key block of the span's size or more is one chain over n, not over the block */
    struct arithmetic one_chain = base, long_block = base;
    one_chain.key_block = 0, long_block.key_block = 10000;
    cr_assert(size_of(&s, &one_chain).o == size_of(&s, &long_block).o);
    /* bias and ALiBi, cap, base 2 and flushing have their terms */
    for (int j = 0; j < KEYS; j++) s.bias[j] *= 1024;
    cr_assert(size_of(&s, &base).lse > 5 * before.lse, "large biases round coarsely");
    for (int j = 0; j < KEYS; j++) s.bias[j] /= 1024;
    float kept[KEYS];
    memcpy(kept, s.bias, sizeof kept);
    const double sink = s.sink[0];
    for (int j = 0; j < KEYS; j++) s.bias[j] += 1024;
    s.sink[0] += 1024; /* the same weights */
    cr_assert(size_of(&s, &base).o > 20 * before.o, "what is added to large biases is rounded");
    memcpy(s.bias, kept, sizeof kept);
    s.sink[0] = (float)sink;
    p->flags |= HEED_LSE_BASE2;
    const struct size base2 = size_of(&s, &base);
    cr_assert(base2.lse > before.lse / log(2) && base2.lse < before.lse / log(2) + 1e-5 && base2.o == before.o, "base 2: %g and %g",
              base2.lse, before.lse);
    p->flags &= ~HEED_LSE_BASE2;
    struct arithmetic flushes = base;
    flushes.flushes = true;
    for (int n = 0; n < KEYS * VDIM; n++) s.v[n] *= 0x1p-126f;
    cr_assert(size_of(&s, &flushes).o > 100 * size_of(&s, &base).o, "flushed products");
    rig_done(&s.r);
}

/* Quantised K and V have one rounding more: scale times code. */
Test(bound_edges, quantised_rows_round_once_more)
{
    static struct state s;
    const struct arithmetic a = {.dot_lanes = 64,
                                 .key_block = 1,
                                 .rescale_block = 1000,
                                 .exp_ulp = 1,
                                 .exp_roundings = 1,
                                 .tanh_ulp = 1,
                                 .log_ulp = 1,
                                 .div_roundings = 1};
    int8_t k[64], v[64];
    float ones[64];
    for (int n = 0; n < 64; n++) k[n] = (int8_t)(n % 9 - 4), v[n] = (int8_t)(n % 5 + 1);
    make_state(&s, NORMAL, 7, false, 5);
    struct problem *p = &s.r.plan.problem;
    p->head_dim = 8;
    for (int n = 0; n < 64; n++) ones[n] = (float)k[n];
    s.r.call.k = rig_view(ones, 1, 8, 32);
    const struct size plain = size_of(&s, &a);
    p->k_type = HEED_I8;
    s.r.call.k = rig_view(k, 1, 8, 8);
    const struct size coded_k = size_of(&s, &a);
    cr_assert(coded_k.lse > plain.lse && coded_k.lse < 1.5 * plain.lse, "%g, then %g", plain.lse, coded_k.lse);
    p->v_type = HEED_I8;
    s.r.call.v = rig_view(v, 1, 8, VDIM);
    float same[64];
    for (int n = 0; n < 64; n++) same[n] = (float)v[n];
    const struct size coded_v = size_of(&s, &a);
    p->v_type = HEED_F32;
    s.r.call.v = rig_view(same, 1, 8, VDIM * 4);
    cr_assert(coded_v.o > size_of(&s, &a).o);
    rig_done(&s.r);
}
