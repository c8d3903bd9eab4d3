/* SPDX-License-Identifier: MIT
 * test_bound.c - the bound holds for every correct kernel tried here, and planted errors cross it. The kernels are simulated (bound_rig.h); where the
 * bound is exact or promises nothing, and that every constant counts: test_bound_edges.c.
 */
#include "bound_rig.h"

/* ---- it holds --------------------------------------------------------------------- */

Test(bound, holds_for_correct_kernels)
{
    static struct state s;
    for (int shape = 0; shape < 4; shape++)
        for (int type = 0; type < 3; type++)
            for (int data = 0; data < DATA; data++)
                for (int n = 0; n < LENGTHS; n++)
                    for (uint64_t seed = 1; seed <= 6; seed++) {
                        const struct kernel kernel = {
                            .lanes = shape % 2 ? 16 : 1, .tile = shape < 2 ? 64 : 16, .chain = shape == 3, .weights = halves[type]};
                        struct arithmetic arithmetic = arithmetic_of(&kernel);
                        double worst = 0;
                        make_state(&s, (enum data)data, lengths[n], seed % 2, seed * 17 + (uint64_t)n);
                        if (type > 0) s.r.plan.problem.o_type = halves[type];
                        int bad = outside(&s, &kernel, &arithmetic, &worst);
                        cr_assert_eq(bad, 0, "shape %d, %s, data %d, %d keys, seed %d: %d outside, worst %g", shape,
                                     type_name(halves[type]), data, lengths[n], (int)seed, bad, worst);
                        if (type == 0) /* G2: half of the bound always */
                            cr_assert(worst <= 0.5, "f32, data %d, %d keys: %g of the bound", data, lengths[n], worst);
                        rig_done(&s.r);
                    }
}

Test(bound, holds_for_a_poor_exp_when_it_is_declared)
{
    static struct state s;
    int caught = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        const struct kernel kernel = {.lanes = 1, .tile = 16, .chain = true, .weights = HEED_F32, .exp_noise = 6 * 0x1p-24};
        const struct kernel poor = {.lanes = 16, .tile = 64, .weights = HEED_F32, .exp_noise = 1e-4};
        struct arithmetic good = arithmetic_of(&poor), wide = good;
        double worst = 0;
        make_state(&s, SPREAD, 270, false, seed);
        cr_assert_eq(outside(&s, &kernel, &bound_wall, &worst), 0, "the wall allows 4 ulp of exp");
        wide.exp_ulp = 1e-4f * 0x1p23f * 1.1f;
        cr_assert_eq(outside(&s, &poor, &wide, &worst), 0, "declared 1e-4");
        caught += outside(&s, &poor, &good, &worst) > 0;
        rig_done(&s.r);
    }
    cr_assert(caught > 20, "undeclared 1e-4: seen in %d of 40", caught);
}

/* ---- it catches ----------------------------------------------------------------------- */

Test(bound, planted_errors_cross_it)
{
    static struct state s;
    for (int bug = 1; bug < BUGS; bug++) {
        int seen = 0, tried = 0;
        for (int data = 0; data < DATA; data++)
            for (int n = 3; n < LENGTHS; n++)
                for (uint64_t seed = 1; seed <= 4; seed++) {
                    const struct kernel kernel = {.lanes = 16, .tile = 64, .weights = HEED_F32, .bug = (enum bug)bug};
                    struct arithmetic arithmetic = arithmetic_of(&kernel);
                    double worst = 0;
                    make_state(&s, (enum data)data, lengths[n], bug >= SINK_IGNORED && bug < HIDDEN_TIMES_ZERO ? true : seed % 2,
                               seed * 31 + (uint64_t)n);
                    if (bug == HIDDEN_TIMES_ZERO)
                        for (int c = 0; c < VDIM; c++) s.v[c] = NAN; /* key 0: bias -infinity where there are features */
                    if (bug != HIDDEN_TIMES_ZERO || (s.r.plan.problem.flags & HEED_BIAS))
                        tried++, seen += outside(&s, &kernel, &arithmetic, &worst) > 0;
                    rig_done(&s.r);
                }
        cr_assert(seen * 100 >= tried * 12, "%s: seen in %d of %d problems", bug_names[bug], seen, tried);
    }
}

Test(bound, aimed_cases_always_catch)
{
    static struct state s;
    static const struct {
        enum bug bug;
        enum data data;
        int keys;
        bool features;
    } aims[] = {{RESCALE_MISSING, RISING, 100, false}, {EXP_WRONG, SPREAD, 33, false},    {SCALE_OFF, SPREAD, 100, false},
                {MASK_OFF_BY_ONE, RISING, 100, false}, {KEY_DROPPED, RISING, 100, false}, {KEY_TWICE, NORMAL, 16, false},
                {SINK_IGNORED, NORMAL, 7, true},       {LOGITS_F16, NORMAL, 33, false},   {SUMS_F16, NORMAL, 100, false}};
    for (size_t n = 0; n < sizeof aims / sizeof *aims; n++)
        for (uint64_t seed = 1; seed <= 20; seed++) {
            const struct kernel kernel = {.lanes = 16, .tile = 64, .weights = HEED_F32, .bug = aims[n].bug};
            struct arithmetic arithmetic = arithmetic_of(&kernel);
            double worst = 0;
            make_state(&s, aims[n].data, aims[n].keys, aims[n].features, seed);
            cr_assert(outside(&s, &kernel, &arithmetic, &worst) > 0, "%s, seed %d: worst %g of the bound", bug_names[aims[n].bug],
                      (int)seed, worst);
            rig_done(&s.r);
        }
}

/* q = 0 and one-hot values: hidden columns are 0 without tolerance, visible ones 1 / n within a few roundings and no slack for exp. */
Test(bound, one_hot_probe_is_exact)
{
    static struct state s;
    const struct kernel good = {.lanes = 16, .tile = 64, .weights = HEED_F32},
                        bad = {.lanes = 16, .tile = 64, .weights = HEED_F32, .bug = MASK_OFF_BY_ONE};
    make_state(&s, FLAT, 4, false, 1);
    for (int n = 0; n < VDIM * VDIM && n / VDIM < s.r.sequences[0].kv_len; n++) s.v[n] = n % VDIM == n / VDIM;
    struct arithmetic arithmetic = arithmetic_of(&good);
    double o_bound[VDIM], lse_bound, worst = 0;
    bound_row(&s.r.call, 0, 0, 0, rig_row(&s.r, 0, 0, 0), &arithmetic, o_bound, &lse_bound);
    for (int c = 0; c < VDIM; c++) {
        if (c < 4)
            cr_assert(o_bound[c] > 0 && o_bound[c] < 12 * 0x1p-24, "column %d: %g", c, o_bound[c]);
        else
            cr_assert(o_bound[c] == 0, "column %d: %g", c, o_bound[c]);
    }
    struct arithmetic poor = arithmetic;
    poor.exp_ulp = 1e4f, poor.exp_roundings = 1e4f; /* exp(0) is 1 all the same */
    double unchanged = o_bound[0];
    bound_row(&s.r.call, 0, 0, 0, rig_row(&s.r, 0, 0, 0), &poor, o_bound, &lse_bound);
    cr_assert(o_bound[0] == unchanged, "%g, not %g", o_bound[0], unchanged);
    cr_assert_eq(outside(&s, &good, &arithmetic, &worst), 0);
    cr_assert(outside(&s, &bad, &arithmetic, &worst) > 0);
    rig_done(&s.r);
}
