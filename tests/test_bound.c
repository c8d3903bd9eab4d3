/* SPDX-License-Identifier: MIT
 * test_bound.c - the bound holds for every correct kernel tried here, and planted errors cross it. The kernel is a simulated online softmax
 * in f32: tiles of keys, lanes in the dot product, weights in f16 or bf16 where asked, and a list of bugs.
 */
#include "bound.h"
#include "rig.h"
#include "view.h"

#include <criterion/criterion.h>
#include <float.h>
#include <stddef.h>

enum { KEYS = 300, DIM = 64, VDIM = 6 };

enum bug {
    GOOD,
    MASK_OFF_BY_ONE,
    KEY_DROPPED,
    KEY_TWICE,
    RESCALE_MISSING,
    EXP_WRONG,
    EXP_CUT,
    SCALE_OFF,
    LOGITS_F16,
    SUMS_F16,
    SINK_IGNORED,
    CAP_IGNORED,
    BIAS_IGNORED,
    ALIBI_IGNORED,
    HIDDEN_TIMES_ZERO,
    LSE_BASE,
    BUGS
};
static const char *const bug_names[BUGS] = {"good",
                                            "mask off by one",
                                            "last key dropped",
                                            "last key twice",
                                            "rescale missing",
                                            "exp wrong by 1e-4",
                                            "exp cut off at -10",
                                            "scale off by 2^-12",
                                            "logits in f16",
                                            "sums in f16",
                                            "sink ignored",
                                            "softcap ignored",
                                            "bias ignored",
                                            "alibi ignored",
                                            "hidden v times 0",
                                            "lse without its maximum"};

struct kernel {
    int lanes, tile;
    bool chain;        /* one chain of additions over all keys, no lanes: the wall's case */
    heed_type weights; /* in which weights meet v */
    double exp_noise;  /* relative error put into each exp, of changing sign */
    enum bug bug;
};

struct state {
    struct rig r;
    float q[DIM], k[KEYS * DIM], v[KEYS * VDIM], bias[KEYS], slope[1], sink[1];
    uint64_t random;
};

static float to_type(heed_type type, float x)
{
    if (type == HEED_F16) return f16_to_f32(f32_to_f16(x));
    if (type == HEED_BF16) return bf16_to_f32(f32_to_bf16(x));
    return x;
}

static float sim_exp(struct state *s, const struct kernel *kernel, float x)
{
    if (kernel->bug == EXP_CUT && x < -10) return 0;
    float y = expf(x);
    if (x == 0) return 1;
    if (kernel->bug == EXP_WRONG) y *= 1 - 1e-4f; /* exp(0) is right: the normaliser cannot hide it */
    if (kernel->exp_noise > 0) y *= (float)(1 + kernel->exp_noise * (rig_unit(&s->random) < 0.5 ? 1 : -1));
    return y;
}

/* Rules 1 to 4 for key j in f32. */
static float sim_logit(struct state *s, const struct kernel *kernel, int j)
{
    const struct problem *p = &s->r.plan.problem;
    float lane[64] = {0}, x = 0;
    for (int d = 0; d < p->head_dim; d++) lane[d % kernel->lanes] += s->q[d] * s->k[j * DIM + d];
    for (int n = 0; n < kernel->lanes; n++) x += lane[n];
    x *= kernel->bug == SCALE_OFF ? p->scale * (1 + 0x1p-12f) : p->scale;
    if (kernel->bug == LOGITS_F16) x = to_type(HEED_F16, x);
    if (p->softcap > 0 && kernel->bug != CAP_IGNORED) x = p->softcap * tanhf(x / p->softcap);
    if ((p->flags & HEED_ALIBI) && kernel->bug != ALIBI_IGNORED) x -= s->slope[0] * fabsf((float)(s->r.sequences[0].position - j));
    if ((p->flags & HEED_BIAS) && kernel->bug != BIAS_IGNORED) x += s->bias[j];
    return x;
}

static float sum_type(const struct kernel *kernel, float x) { return kernel->bug == SUMS_F16 ? to_type(HEED_F16, x) : x; }

/* Query 0 by an online softmax over tiles of keys, in f32. */
static void simulate(struct state *s, const struct kernel *kernel, float *o, float *lse)
{
    const struct problem *p = &s->r.plan.problem;
    const struct sequence *sequence = &s->r.sequences[0];
    int32_t begin, end;
    visible_by_position(p, sequence, sequence->position, &begin, &end);
    if (kernel->bug == MASK_OFF_BY_ONE && end < sequence->kv_len) end++;
    if (kernel->bug == KEY_DROPPED && end > begin) end--;
    float m = -INFINITY, l = 0;
    if ((p->flags & HEED_SINKS) && kernel->bug != SINK_IGNORED) m = s->sink[0], l = 1;
    for (int c = 0; c < VDIM; c++) o[c] = 0;
    bool forgotten = kernel->bug != RESCALE_MISSING;
    for (int first = begin / kernel->tile * kernel->tile; first < end; first += kernel->tile) {
        float x[512], tile_m = m, part[VDIM] = {0}, part_l = 0;
        int n = first + kernel->tile < end ? kernel->tile : end - first;
        for (int t = 0; t < n; t++) {
            x[t] = first + t < begin || s->bias[first + t] == -INFINITY ? -INFINITY : sim_logit(s, kernel, first + t);
            tile_m = fmaxf(tile_m, x[t]);
        }
        if (tile_m == -INFINITY) continue;
        float rescale = m == -INFINITY ? 0 : sim_exp(s, kernel, m - tile_m);
        if (!forgotten && rescale > 0 && rescale < 1) rescale = 1, forgotten = true;
        for (int c = 0; c < VDIM; c++) o[c] *= rescale;
        l *= rescale;
        m = tile_m;
        for (int t = 0; t < n; t++) {
            if (x[t] == -INFINITY && kernel->bug != HIDDEN_TIMES_ZERO) continue;
            float w = x[t] == -INFINITY ? 0 : sim_exp(s, kernel, x[t] - m);
            if (kernel->bug == KEY_TWICE && first + t == end - 1) w *= 2;
            float *to_l = kernel->chain ? &l : &part_l, *to = kernel->chain ? o : part;
            *to_l += w;
            for (int c = 0; c < VDIM; c++) to[c] = sum_type(kernel, to[c] + to_type(kernel->weights, w) * s->v[(first + t) * VDIM + c]);
        }
        for (int c = 0; c < VDIM; c++) o[c] = sum_type(kernel, o[c] + part[c]);
        l += part_l;
    }
    for (int c = 0; c < VDIM; c++) o[c] = to_type(p->o_type, l > 0 ? o[c] / l : 0);
    *lse = l > 0 ? (kernel->bug == LSE_BASE ? logf(l) : m + logf(l)) : -INFINITY;
}

/* ---- data ---------------------------------------------------------------------- */

enum data { NORMAL, PEAKY, HUGE_LOGITS, FLAT, OFFSET, OUTLIER, CANCELLING, NEAR_TIES, RISING, SPREAD, DATA };

static void make_data(struct state *s, enum data data, int n, uint64_t seed)
{
    rig_fill(s->q, DIM, seed), rig_fill(s->k, n * DIM, seed + 1000), rig_fill(s->v, n * VDIM, seed + 2000),
        rig_fill(s->bias, n, seed + 3000);
    s->random = seed;
    s->slope[0] = 0.1f;
    s->sink[0] = 0.5f;
    float q_scale = data == PEAKY ? 8 : data == HUGE_LOGITS ? 1000 : data == FLAT ? 0 : data == NEAR_TIES ? 1e-3f : 1;
    for (int d = 0; d < DIM; d++) s->q[d] *= q_scale;
    for (int j = 0; j < n; j++)
        for (int c = 0; c < VDIM; c++) {
            float *v = &s->v[j * VDIM + c];
            if (data == OFFSET) *v += 1000;
            if (data == OUTLIER && j == n / 3) *v = 1e4f;
            if (data == CANCELLING) *v = (j % 2 ? -100.0f : 100.0f) + 1e-3f * *v;
        }
    if (data != RISING && data != SPREAD) return;
    for (int d = 0; d < DIM; d++) s->q[d] = d == 0; /* logits rise from key to key, by 0.5, or span 20 */
    for (int j = 0; j < n; j++) s->k[j * DIM] = data == RISING ? 0.5f * (float)j : 20 * (float)j / (float)n;
}

/* A state with one query that sees n keys (all but hidden ones) of 1.1 n. */
static void make_state(struct state *s, enum data data, int n, bool features, uint64_t seed)
{
    int keys = n + n / 10 + 1 < KEYS ? n + n / 10 + 1 : KEYS;
    make_data(s, data, keys, seed);
    rig_init(&s->r, 1, 1, 1, keys, DIM, VDIM);
    struct problem *p = &s->r.plan.problem;
    p->scale = data == RISING || data == SPREAD ? 1 : 0.125f;
    p->flags = HEED_CAUSAL;
    s->r.sequences[0].position = n - 1;
    rig_tensors(&s->r, s->q, s->k, s->v, NULL, NULL);
    s->r.call.bias = rig_view(s->bias, 1, 1, 4 * keys);
    s->r.call.alibi = rig_view(s->slope, 1, 1, 4);
    s->r.call.sinks = rig_view(s->sink, 1, 1, 4);
    if (!features) {
        memset(s->bias, 0, sizeof s->bias);
        return;
    }
    p->flags |= HEED_BIAS | HEED_ALIBI | HEED_SINKS;
    p->softcap = 3;
    for (int j = 0; j < n; j += 7) s->bias[j] = -INFINITY;
}

static struct arithmetic arithmetic_of(const struct kernel *kernel)
{
    return (struct arithmetic){.dot_lanes = kernel->lanes,
                               .dot_extra = kernel->lanes,
                               .key_block = kernel->chain ? 0 : kernel->tile,
                               .sum_extra = 1,
                               .rescale_block = kernel->tile,
                               .exp_ulp = 1.1f,
                               .exp_roundings = 1,
                               .tanh_ulp = 2,
                               .log_ulp = 1,
                               .div_roundings = 1,
                               .weight_type = kernel->weights};
}

/* Elements outside the bound; *worst is the largest error / bound. */
static int outside(struct state *s, const struct kernel *kernel, const struct arithmetic *arithmetic, double *worst)
{
    double o_bound[VDIM], lse_bound;
    float o[VDIM], lse;
    int count = 0;
    simulate(s, kernel, o, &lse);
    struct reference_row *row = rig_row(&s->r, 0, 0, 0);
    bound_row(&s->r.call, 0, 0, 0, row, arithmetic, o_bound, &lse_bound, NULL);
    for (int c = 0; c < VDIM; c++) {
        if (!bound_holds((double)o[c], row->o[c], o_bound[c])) count++;
        if (o_bound[c] > 0 && fabs((double)o[c] - row->o[c]) / o_bound[c] > *worst) *worst = fabs((double)o[c] - row->o[c]) / o_bound[c];
    }
    if (!bound_holds((double)lse, row->lse_out, lse_bound)) count++;
    if (lse_bound > 0 && isfinite(lse) && fabs((double)lse - row->lse_out) / lse_bound > *worst)
        *worst = fabs((double)lse - row->lse_out) / lse_bound;
    return count;
}

static const int lengths[] = {1, 2, 3, 7, 16, 33, 64, 100, 270};
enum { LENGTHS = sizeof lengths / sizeof *lengths };
static const heed_type halves[] = {HEED_F32, HEED_F16, HEED_BF16};

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
    bound_row(&s.r.call, 0, 0, 0, rig_row(&s.r, 0, 0, 0), &arithmetic, o_bound, &lse_bound, NULL);
    for (int c = 0; c < VDIM; c++) {
        if (c < 4)
            cr_assert(o_bound[c] > 0 && o_bound[c] < 12 * 0x1p-24, "column %d: %g", c, o_bound[c]);
        else
            cr_assert(o_bound[c] == 0, "column %d: %g", c, o_bound[c]);
    }
    struct arithmetic poor = arithmetic;
    poor.exp_ulp = 1e4f, poor.exp_roundings = 1e4f; /* exp(0) is 1 all the same */
    double unchanged = o_bound[0];
    bound_row(&s.r.call, 0, 0, 0, rig_row(&s.r, 0, 0, 0), &poor, o_bound, &lse_bound, NULL);
    cr_assert(o_bound[0] == unchanged, "%g, not %g", o_bound[0], unchanged);
    cr_assert_eq(outside(&s, &good, &arithmetic, &worst), 0);
    cr_assert(outside(&s, &bad, &arithmetic, &worst) > 0);
    rig_done(&s.r);
}

/* ---- edges -------------------------------------------------------------------------------- */

Test(bound, empty_rows_are_exact)
{
    static struct state s;
    double o_bound[VDIM], lse_bound;
    make_state(&s, NORMAL, 16, true, 3);
    s.r.sequences[0].position = -1;
    bound_row(&s.r.call, 0, 0, 0, rig_row(&s.r, 0, 0, 0), &bound_wall, o_bound, &lse_bound, NULL);
    for (int c = 0; c < VDIM; c++) cr_assert(o_bound[c] == 0);
    cr_assert(lse_bound == 0, "the sink itself");
    s.r.plan.problem.flags |= HEED_LSE_BASE2;
    bound_row(&s.r.call, 0, 0, 0, rig_row(&s.r, 0, 0, 0), &bound_wall, o_bound, &lse_bound, NULL);
    cr_assert(lse_bound > 0 && lse_bound < 1e-6, "the sink over ln 2 is rounded");
    s.r.plan.problem.flags &= ~HEED_SINKS;
    bound_row(&s.r.call, 0, 0, 0, rig_row(&s.r, 0, 0, 0), &bound_wall, o_bound, &lse_bound, NULL);
    cr_assert(lse_bound == 0);
    rig_done(&s.r);
}

Test(bound, what_is_not_finite)
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

Test(bound, nan_rows_and_infinite_values)
{
    static struct state s;
    double o_bound[VDIM], lse_bound;
    make_state(&s, NORMAL, 16, false, 3);
    s.v[0] = NAN;      /* column 0 alone */
    s.v[1] = INFINITY; /* column 1 is infinite */
    struct reference_row *row = rig_row(&s.r, 0, 0, 0);
    bound_row(&s.r.call, 0, 0, 0, row, &bound_wall, o_bound, &lse_bound, NULL);
    cr_assert(isnan(row->o[0]) && !bound_holds(1, row->o[0], o_bound[0]) && bound_holds(NAN, row->o[0], o_bound[0]));
    cr_assert(row->o[1] == INFINITY && !bound_holds(1, row->o[1], o_bound[1]) && bound_holds(INFINITY, row->o[1], o_bound[1]));
    cr_assert(isfinite(row->o[2]) && o_bound[2] < 1e-4 && lse_bound < 1e-4);
    s.k[0] = NAN;
    row = rig_row(&s.r, 0, 0, 0);
    bound_row(&s.r.call, 0, 0, 0, row, &bound_wall, o_bound, &lse_bound, NULL);
    cr_assert(isnan(row->lse_out) && !bound_holds(1, row->o[2], o_bound[2]) && !bound_holds(1, row->lse_out, lse_bound));
    rig_done(&s.r);
}

/* A key far below all others cannot loosen the bound, however large its own error. */
Test(bound, far_keys_cost_nothing)
{
    static struct state s;
    double near[VDIM], far[VDIM], lse_near, lse_far;
    make_state(&s, NORMAL, 16, false, 5);
    s.r.plan.problem.flags |= HEED_BIAS;
    s.bias[3] = -300;
    bound_row(&s.r.call, 0, 0, 0, rig_row(&s.r, 0, 0, 0), &bound_wall, near, &lse_near, NULL);
    s.bias[3] = -1e30f;
    bound_row(&s.r.call, 0, 0, 0, rig_row(&s.r, 0, 0, 0), &bound_wall, far, &lse_far, NULL);
    for (int c = 0; c < VDIM; c++) cr_assert(far[c] < 1.5 * near[c], "column %d: %g beside %g", c, far[c], near[c]);
    cr_assert(lse_far < 1.5 * lse_near, "lse: %g beside %g", lse_far, lse_near);
    rig_done(&s.r);
}

/* Equal values leave only roundings, whatever the weights' errors; and the convex hull is the wall. */
Test(bound, values_decide)
{
    static struct state s;
    double o_bound[VDIM], lse_bound;
    make_state(&s, HUGE_LOGITS, 64, false, 7);
    for (int n = 0; n < KEYS * VDIM; n++) s.v[n] = n % VDIM == 0 ? 3 : s.v[n];
    struct reference_row *row = rig_row(&s.r, 0, 0, 0);
    bound_row(&s.r.call, 0, 0, 0, row, &bound_wall, o_bound, &lse_bound, NULL);
    cr_assert(o_bound[0] < 400 * 3 * 0x1p-24, "equal values: %g", o_bound[0]);
    for (int c = 1; c < VDIM; c++) cr_assert(o_bound[c] < 10, "column %d: %g", c, o_bound[c]);
    for (int n = DIM; n < KEYS * DIM; n++) s.k[n] = s.k[n % DIM]; /* equal logits whose error is large: any weights may come out */
    for (int d = 0; d < DIM; d++) s.q[d] *= 1e6f;
    bound_row(&s.r.call, 0, 0, 0, rig_row(&s.r, 0, 0, 0), &bound_wall, o_bound, &lse_bound, NULL);
    cr_assert(o_bound[0] < 400 * 3 * 0x1p-24);
    for (int c = 1; c < VDIM; c++) cr_assert(o_bound[c] > 0.5 && o_bound[c] < 6, "column %d: %g", c, o_bound[c]);
    rig_done(&s.r);
}

Test(bound, overflow_promises_nothing)
{
    static struct state s;
    double o_bound[VDIM], lse_bound;
    make_state(&s, NORMAL, 16, false, 9);
    for (int j = 0; j < 16; j++) s.v[j * VDIM] = FLT_MAX / 2; /* the sum before its division is infinite */
    bound_row(&s.r.call, 0, 0, 0, rig_row(&s.r, 0, 0, 0), &bound_wall, o_bound, &lse_bound, NULL);
    cr_assert(o_bound[0] == INFINITY && o_bound[1] < 1e-4);
    s.r.plan.problem.o_type = HEED_F16;
    for (int j = 0; j < 16; j++) s.v[j * VDIM] = 1e5f;
    bound_row(&s.r.call, 0, 0, 0, rig_row(&s.r, 0, 0, 0), &bound_wall, o_bound, &lse_bound, NULL);
    cr_assert(o_bound[0] == INFINITY, "an f16 output of 1e5");
    rig_done(&s.r);
}

Test(bound, scores_of_every_stage)
{
    static struct state s;
    double o_bound[VDIM], lse_bound, scores[KEYS];
    make_state(&s, NORMAL, 64, true, 11);
    struct problem *p = &s.r.plan.problem;
    const struct kernel kernel = {.lanes = 1, .tile = 16, .chain = true, .weights = HEED_F32};
    p->flags |= HEED_WRITE_SCORES;
    for (int32_t stage = 0; stage < 4; stage++) {
        p->scores_stage = stage;
        struct reference_row *row = rig_row(&s.r, 0, 0, 0);
        bound_row(&s.r.call, 0, 0, 0, row, &bound_wall, o_bound, &lse_bound, scores);
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

Test(bound, the_reference_only_rounds)
{
    static struct state s;
    const struct arithmetic exact = {.exact_double = true};
    double o_bound[VDIM], lse_bound;
    make_state(&s, OFFSET, 64, true, 13);
    struct reference_row *row = rig_row(&s.r, 0, 0, 0);
    bound_row(&s.r.call, 0, 0, 0, row, &exact, o_bound, &lse_bound, NULL);
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
    bound_row(&s->r.call, 0, 0, 0, rig_row(&s->r, 0, 0, 0), arithmetic, o_bound, &lse_bound, NULL);
    return (struct size){o_bound[2], lse_bound};
}

/* A row in which nothing but the changed constant differs: the bound must grow by about what the derivation says. */
Test(bound, every_constant_counts)
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
Test(bound, quantised_rows_round_once_more)
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
