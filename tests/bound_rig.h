/* SPDX-License-Identifier: MIT
 * bound_rig.h - for the tests of the bound: a simulated kernel, an online softmax in f32 with tiles of keys, lanes in the dot product, weights in f16
 * or bf16 where asked, and a list of bugs; data of many kinds; one row held against its bound.
 */
#ifndef HEED_BOUND_RIG_H
#define HEED_BOUND_RIG_H

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

static inline float to_type(heed_type type, float x)
{
    if (type == HEED_F16) return f16_to_f32(f32_to_f16(x));
    if (type == HEED_BF16) return bf16_to_f32(f32_to_bf16(x));
    return x;
}

static inline float sim_exp(struct state *s, const struct kernel *kernel, float x)
{
    if (kernel->bug == EXP_CUT && x < -10) return 0;
    float y = expf(x);
    if (x == 0) return 1;
    if (kernel->bug == EXP_WRONG) y *= 1 - 1e-4f; /* exp(0) is right: the normaliser cannot hide it */
    if (kernel->exp_noise > 0) y *= (float)(1 + kernel->exp_noise * (rig_unit(&s->random) < 0.5 ? 1 : -1));
    return y;
}

/* Rules 1 to 4 for key j in f32. */
static inline float sim_logit(struct state *s, const struct kernel *kernel, int j)
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

static inline float sum_type(const struct kernel *kernel, float x) { return kernel->bug == SUMS_F16 ? to_type(HEED_F16, x) : x; }

/* Query 0 by an online softmax over tiles of keys, in f32. */
static inline void simulate(struct state *s, const struct kernel *kernel, float *o, float *lse)
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

static inline void make_data(struct state *s, enum data data, int n, uint64_t seed)
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
static inline void make_state(struct state *s, enum data data, int n, bool features, uint64_t seed)
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

static inline struct arithmetic arithmetic_of(const struct kernel *kernel)
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
static inline int outside(struct state *s, const struct kernel *kernel, const struct arithmetic *arithmetic, double *worst)
{
    double o_bound[VDIM], lse_bound;
    float o[VDIM], lse;
    int count = 0;
    simulate(s, kernel, o, &lse);
    struct reference_row *row = rig_row(&s->r, 0, 0, 0);
    bound_row(&s->r.call, 0, 0, 0, row, arithmetic, o_bound, &lse_bound);
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

#endif
