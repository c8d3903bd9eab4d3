/* SPDX-License-Identifier: MIT
 * bound.c - how far a correct kernel's output may lie from the definition's: doc/accuracy.md, step by step, for one output row. Every
 * number comes from the data, the types and the row's declared arithmetic; there is no tolerance here, and no knowledge of any kernel.
 */
#include "bound.h"
#include "dtype.h"
#include "mutant.h"
#include "view.h"

#include <float.h>
#include <math.h>

#define U 0x1p-24 /* unit roundoff of f32 */
#define LN2 0.69314718055994530942

/* Any order, exp wrong by 4 ulp with 4 roundings of its argument, tiles of 16 keys: data/README.md, 1.3. */
const struct arithmetic bound_wall = {.dot_lanes = 1,
                                      .key_block = 0,
                                      .rescale_block = 16,
                                      .exp_ulp = 4,
                                      .exp_roundings = 4,
                                      .tanh_ulp = 5,
                                      .log_ulp = 3,
                                      .div_roundings = 6,
                                      .weight_type = HEED_F32};

bool bound_holds(double got, double want, double bound)
{
    if (got == want || bound == INFINITY) return true;
    if (MUTANT(bound_nan_passes) && isnan(got)) return true;
    if (isnan(want)) return isnan(got);
    return fabs(got - want) <= bound;
}

/* A product of k factors (1 + d)^(+1 or -1), |d| <= u, is 1 + t with |t| <= gamma(k). */
static double gamma_of(double k) { return k * U / (1 - k * U); }

static double max_of(double a, double b) { return a > b ? a : b; }
static double min_of(double a, double b) { return a < b ? a : b; }

/* What the derivation needs of a row's arithmetic for this problem and this number of keys. */
struct terms {
    double dot;         /* gamma(h_d + 3 ...): relative to the magnitude of a score */
    double tanh_error;  /* relative error of the softcap */
    double exp_error;   /* (T + 1) exps, each 2au / (1 - 2au) */
    double exp_once;    /* one of them */
    double roundings;   /* r u */
    double chain;       /* h_n + T */
    double division;    /* e_div */
    double log_error;   /* 2 a_l + 2 */
    double weight;      /* u_P, 0 for f32 */
    double tiny_weight; /* what may be lost of a weight that underflows */
    double tiny;        /* what may be lost of a product that underflows */
    double losses;      /* of products and of sums, for each product */
    double rescales;    /* T; where sums are flushed, one more loss each */
    double above;       /* R: weights are smaller by a factor of up to e^R, their sum too; what underflows counts more */
    double tiny_input;  /* the same for an input or a scaled q */
};

static bool is_float(heed_type type) { return type == HEED_F32 || type == HEED_F16 || type == HEED_BF16; }

static struct terms terms_of(const struct problem *p, const struct arithmetic *a, const struct reference_row *row)
{
    /* Hidden keys add exact zeros, so a chain meets at most n roundings; but the blocks are counted over the span of the visible keys. Where two products
     * are added first, each meets that addition and half as many of the others; a pair of which one key is hidden is still one of the chain. */
    double n = row->visible, span = (double)row->end - row->begin;
    double lanes = a->dot_lanes > 0 ? a->dot_lanes : 1, together = a->together > 1 ? a->together : 1, first = together > 1;
    double h_d = ceil(p->head_dim / (lanes * together)) + first + a->dot_extra + (is_float(p->k_type) ? 0 : 1);
    double steps = a->add_roundings > 0 ? (double)a->add_roundings : 1;
    h_d *= steps;
    double h_n = together > 1 ? min_of(n, ceil(span / together) + 1) + first : n;
    if (a->key_block > 0) h_n = min_of(h_n, ceil(a->key_block / together) + first + ceil(span / a->key_block) + 1);
    h_n = h_n * steps + a->sum_extra + (is_float(p->v_type) ? 0 : 1);
    if (MUTANT(bound_chain_forgotten)) h_n = 0;
    double block = a->rescale_block > 0 ? a->rescale_block : 1;
    double rescales = min_of(ceil(span / block) + 2, n + 1);
    double exp_once = 2 * (double)a->exp_ulp * U / (1 - 2 * (double)a->exp_ulp * U);
    bool half = a->weight_type == HEED_F16;
    return (struct terms){
        .dot = gamma_of(h_d + 3),
        .tanh_error = (2 * (double)a->tanh_ulp + 4) * U,
        .exp_error = (rescales + 1) * exp_once,
        .exp_once = exp_once,
        .roundings = (double)a->exp_roundings * U,
        .chain = h_n + rescales,
        .division = (double)a->div_roundings,
        .log_error = 2 * (double)a->log_ulp + 2,
        .weight = half                          ? 0x1p-11
                  : a->weight_type == HEED_BF16 ? 0x1p-8
                                                : 0,
        .tiny_weight = half ? (a->flushes ? 0x1p-14 : 0x1p-25) : 0x1p-126,
        .tiny = a->flushes ? 0x1p-126 : 0x1p-150,
        .tiny_input = a->flushes ? 0x1p-126 : 0x1p-150,
        /* A machine that rounds between flushes a product, half a sum of two, and half of what the chain is then (a fused one rounds once). */
        .losses = together > 1 ? 2 : 1,
        .rescales = rescales,
        .above = a->above,
    };
}

/* ---- steps 1 to 3: the logit -------------------------------------------- */

/* e_j of stage 0: |error of scale * q.k|. */
static double score_error(const struct problem *p, const struct terms *t, const struct reference_row *row, int32_t j)
{
    double scale = fabs((double)p->scale);
    if (row->query_size == 0) return 0; /* nothing is rounded, so exp(0) stays exact */
    if (MUTANT(bound_dot_is_exact)) return 0;
    return t->dot * row->magnitude[j] +
           t->tiny_input * (row->key_size[j] * max_of(scale, 1) + row->query_size * scale + t->losses * p->head_dim * max_of(scale, 1));
}

/* The rounding of a sum of k terms of total size b added to x, slope times distance and a change to base 2 included. */
static double added_error(double b, double k, double x) { return k > 0 ? U * (4 * b + k * fabs(x)) : 0; }

/* e_j of stage 1: the softcap's derivative is between 0 and 1, so earlier errors are not enlarged. Underflow in s / c and tanh comes back c times. */
static double capped_error(const struct problem *p, const struct terms *t, const struct reference_row *row, int32_t j)
{
    double e = score_error(p, t, row, j);
    if (p->flags & HEED_BIAS_FIRST) e += added_error(row->added[j], row->terms, fabs(row->raw[j]) + row->added[j]);
    if (p->softcap > 0 && p->softcap < 0x1p-126f) return 0x1p-125; /* 1 / c may not be a number of f32, or c itself is flushed: got and wanted are tiny */
    if (p->softcap > 0) {
        e += t->tanh_error * fabs(row->capped[j]);
        if (row->capped[j] != 0) e += t->tiny * (4 * (double)p->softcap + 1);
        e = min_of(e, 2 * (double)p->softcap);
    }
    return e;
}

/* e_j of stage 2, visible keys only. */
static double logit_error(const struct problem *p, const struct terms *t, const struct reference_row *row, int32_t j)
{
    double terms = (p->flags & HEED_BIAS_FIRST) ? (p->flags & HEED_ALIBI) != 0 : row->terms;
    return capped_error(p, t, row, j) + added_error(row->added[j], terms, row->logit[j]);
}

/* ---- step 4: the weights ------------------------------------------------ */

/* Errors of all weights in the exponent: row->error[j] = d_j, *d_0 of the sink. Returns the error of the maximum. */
static double weight_errors(const struct problem *p, const struct terms *t, struct reference_row *row, double *d_0)
{
    double m = row->maximum, top = row->sink, own = 0;
    for (int32_t j = row->begin; j < row->end; j++) {
        if (row->logit[j] == -INFINITY) continue;
        double e = row->error[j] = logit_error(p, t, row, j);
        top = max_of(top, row->logit[j] + e);
        if (row->logit[j] == m) own = max_of(own, e);
    }
    double e_max = max_of(top - m, own); /* the computed maximum lies in [m - own, top] */
    for (int32_t j = row->begin; j < row->end; j++) {
        if (row->logit[j] == -INFINITY) continue;
        double distance = m - row->logit[j] + row->error[j] + e_max + t->above; /* all arguments of exp together; exp(0) is exactly 1 */
        row->error[j] += t->roundings * distance + (distance > 0 ? t->exp_error : 0);
    }
    *d_0 = 0;
    if (row->sink != -INFINITY) {
        double distance = m - row->sink + e_max + t->above;
        *d_0 = t->roundings * distance + (distance > 0 ? t->exp_error : 0);
    }
    return e_max;
}

/* log sum e^(s_i - m + d_i) over the weights, the sink's with its own d (absent: -infinity), without overflow; d counted or not. */
static double log_sum(const struct reference_row *row, double sink, double d_0, bool with_errors)
{
    double m = row->maximum, first = sink == -INFINITY ? -INFINITY : sink - m + (with_errors ? d_0 : 0), top = first, sum = 0;
    for (int32_t j = row->begin; j < row->end; j++)
        if (row->logit[j] != -INFINITY) top = max_of(top, row->logit[j] - m + (with_errors ? row->error[j] : 0));
    if (sink != -INFINITY) sum = exp(first - top);
    for (int32_t j = row->begin; j < row->end; j++)
        if (row->logit[j] != -INFINITY) sum += exp(row->logit[j] - m + (with_errors ? row->error[j] : 0) - top);
    return top + log(sum);
}

/* L = log sum p_i e^(d_i), of all weights or (sink -infinity) of the keys' alone. As a difference of logarithms, because the errors of far
 * keys are large and weigh nothing. */
static double log_of_errors(const struct reference_row *row, double sink, double d_0)
{
    return max_of(log_sum(row, sink, d_0, true) - log_sum(row, sink, d_0, false), 0);
}

/* p e^x, from log p, without overflow to infinity (which times 0 would be NaN). */
static double grown(double log_p, double x) { return exp(min_of(log_p + x, 660)); }

/* p (e^x - 1). */
static double growth(double p, double log_p, double x) { return x < 1 ? p * expm1(x) : grown(log_p, x); }

/* ---- steps 5 to 7: the output ------------------------------------------- */

/* What the output's type adds: its rounding, its smallest step; infinite where it overflows. */
static double stored(heed_type type, double value, double bound, bool flushes)
{
    double u = type == HEED_F16 ? 0x1p-11 : type == HEED_BF16 ? 0x1p-8 : U;
    double step = type == HEED_F16 ? 0x1p-25 : flushes ? 0x1p-126 : type == HEED_BF16 ? 0x1p-134 : 0x1p-150;
    double limit = type == HEED_F16 ? 65504 : type == HEED_BF16 ? 0x1.fep127 : (double)FLT_MAX;
    double size = fabs(value) + bound;
    return size * (1 + u) >= limit ? INFINITY : bound + u * size + step;
}

/* Sums over the visible keys, per component c; each array has v_head_dim elements. */
struct columns {
    double *moved;    /* sum f_j |v - o|,  f_j = p_j (e^(d_j + L) - 1) */
    double *weighted; /* sum g_j |v|,      g_j = p_j e^(d_j + L) */
    double *spread;   /* max |v - o| */
    double *largest;  /* max |v| */
    double *sum;      /* sum |v|; NaN where an infinite v has so small a weight that f32 may have lost it */
};

static void sum_columns(const struct call *call, int32_t b, int32_t g, struct reference_row *row, double l, struct columns *to)
{
    int32_t n = call->plan->problem.v_head_dim;
    for (int32_t c = 0; c < 5 * n; c++) row->scratch[c] = 0;
    for (int32_t j = row->begin; j < row->end; j++) {
        if (row->logit[j] == -INFINITY) continue;
        double x = row->error[j] + l, log_p = row->logit[j] - row->lse;
        double f = growth(row->weight[j], log_p, x), w = grown(log_p, x);
        double lost = row->weight[j] < 0x1p-100 ? NAN : INFINITY;
        reference_value_row(call, b, g, j, row->v_row);
        for (int32_t c = 0; c < n; c++) {
            double v = fabs(row->v_row[c]), away = fabs(row->v_row[c] - row->o[c]);
            to->moved[c] += f * away;
            to->weighted[c] += w * v;
            to->spread[c] = max_of(away, to->spread[c]);
            to->largest[c] = max_of(v, to->largest[c]);
            to->sum[c] += v < INFINITY ? v : lost;
        }
    }
}

/* A row may fold the scale of v into the weight: what is lost of that product is multiplied by the stored value. */
static double largest_stored(heed_type type)
{
    return type == HEED_I8 || type == HEED_Q8_0 ? 128 : type == HEED_F8_E4M3 ? 448 : type == HEED_F8_E5M2 ? 57344 : 1;
}

static double output_bound(const struct problem *p, const struct arithmetic *a, const struct terms *t, const struct reference_row *row,
                           const struct columns *s, double sink_growth, int32_t c)
{
    double o = fabs(row->o[c]), n = row->visible;
    if (isnan(row->o[c])) return isnan(s->sum[c]) && s->largest[c] == INFINITY ? INFINITY : 0;
    if (isnan(s->sum[c])) return INFINITY;
    if (isinf(row->o[c]) || s->sum[c] == 0) return 0;                /* an infinite value demands itself; zeros weigh nothing */
    double overflow = s->weighted[c] * exp(row->lse - row->maximum); /* the sum before it is divided */
    if (!(overflow < 0.999 * (double)FLT_MAX) && s->largest[c] * n > 0.999 * (double)FLT_MAX) return INFINITY;

    double spread = row->sink == -INFINITY ? s->spread[c] : max_of(s->spread[c], o);
    double moved = min_of(s->moved[c] + sink_growth * o, spread);
    if (MUTANT(bound_ten_times)) moved *= 10;
    double weighted = min_of(s->weighted[c], s->largest[c]);
    double numerator = moved + gamma_of(t->chain) * weighted + t->weight * (weighted + o);
    double w = numerator + gamma_of(t->chain + t->division) * (o + numerator);
    double lost = t->losses * n * largest_stored(p->v_type) + 2;
    if (a->flushes) lost += t->rescales + 1; /* a sum that was rescaled to a denormal; and denormal values, whose weights are at most 1 together */
    w += (t->tiny_weight * (s->sum[c] + n * o) + lost * t->tiny) * exp(t->above);
    return stored(p->o_type, o, w, a->flushes);
}

/* ---- lse and scores ------------------------------------------------------ */

static double lse_bound_of(const struct problem *p, const struct arithmetic *a, const struct terms *t, const struct reference_row *row,
                           double l, double e_max)
{
    double lse = (p->flags & HEED_LSE_BASE2) ? row->lse_out * LN2 : row->lse_out;
    double g = gamma_of(t->chain);
    double x = l + g / (1 - g) + (row->visible + 1.0) * 0x1p-126 * exp(t->above); /* the sum takes weights before they are rounded to P */
    double m = row->maximum;
    if (p->flags & HEED_LSE_WITHOUT_SINK) m = min_of(m, lse); /* the keys' own maximum is near: between lse - log n and lse */
    double spread = max_of(fabs(lse - m), log(row->visible + 1.0)) + t->above;
    double bound = x + U * (t->log_error * (spread + x) + 2 * (fabs(m) + e_max + t->above) + 2 * (fabs(lse) + x)) + t->tiny;
    if (p->flags & HEED_LSE_BASE2) bound = bound / LN2 + 2 * U * fabs(row->lse_out);
    return a->flushes ? bound + 0x1p-126 : bound;
}

/* An infinite or NaN score demands itself, except where an f32 sum may overflow on the way. */
static double stage_bound(const struct problem *p, const struct arithmetic *a, double magnitude, double score, double e)
{
    if (isnan(score)) return 0;
    if (reference_may_overflow(p, magnitude)) return isinf(magnitude) ? 0 : INFINITY;
    return stored(HEED_F32, fabs(score), e + 3 * U * fabs(score), a->flushes);
}

/* ---- scores and key sums: a pass of its own ------------------------------- */

/* p' = e^(s' - m') / l' with this row's m' and l' and the pass's s': the exponent is off by e_j of the pass, by X (how far m' + ln l' is from lse
 * without its own roundings) and by the rounding of the difference; then come exp, the quotient, and what underflows. */
static double weight_bound(const struct terms *t, const struct reference_row *row, double e, double x, double e_max, int32_t j)
{
    const double weight = row->weight[j], distance = fabs(row->maximum - row->logit[j]) + e + e_max + t->above;
    double d = e + x + t->roundings * distance + (distance > 0 ? t->exp_once : 0);
    if (MUTANT(bound_edges_sums_exact)) d -= x;
    d = growth(weight, row->logit[j] - row->lse, d);
    return d + gamma_of(t->division + 2) * (weight + d) + 0x1p-125 * exp(t->above);
}

static void score_bounds(const struct problem *p, const struct arithmetic *a, const struct terms *t, const struct reference_row *row,
                         double x, double e_max, double *bound)
{
    for (int32_t j = 0; j < row->kv_len; j++) {
        if (p->scores_stage == 0) {
            bound[j] = stage_bound(p, a, row->magnitude[j], row->raw[j], score_error(p, t, row, j));
        } else if (p->scores_stage == 1) {
            bound[j] = stage_bound(p, a, row->magnitude[j], row->capped[j], capped_error(p, t, row, j));
        } else if (row->logit[j] == -INFINITY) {
            bound[j] = 0; /* hidden: exactly -infinity, or 0 */
        } else if (p->scores_stage == 2) {
            bound[j] = row->order_matters ? INFINITY : stage_bound(p, a, 0, row->logit[j], logit_error(p, t, row, j));
        } else {
            const double e = weight_bound(t, row, logit_error(p, t, row, j), x, e_max, j);
            bound[j] = row->order_matters ? INFINITY : stored(HEED_F32, row->weight[j], e, a->flushes);
        }
    }
}

/* ---- one row ------------------------------------------------------------ */

static void set_all(double *bound, int32_t n, double value)
{
    for (int32_t c = 0; c < n; c++) bound[c] = value;
}

/* The reference as a row: its own error is far below one rounding of the output. */
static double rounding_alone(heed_type type, double value)
{
    return isfinite(value) && value != 0 ? stored(type, fabs(value), 0x1p-45 * fabs(value), false) : 0;
}

static void exact_bounds(const struct problem *p, const struct reference_row *row, double *o_bound, double *lse_bound)
{
    double size = 0x1p-45; /* room for another order of the same double sums */
    for (int32_t c = 0; c < p->v_head_dim; c++) o_bound[c] = rounding_alone(p->o_type, row->o[c]);
    *lse_bound = rounding_alone(HEED_F32, row->lse_out) + (isfinite(row->lse_out) ? size : 0);
}

void bound_row(const struct call *call, int32_t b, int32_t h, int32_t i, const struct reference_row *row,
               const struct arithmetic *arithmetic, double *o_bound, double *lse_bound)
{
    const struct problem *p = &call->plan->problem;
    struct reference_row *scratch = (struct reference_row *)row; /* its error, v_row and scratch alone are written */
    int32_t n = p->v_head_dim;
    (void)i;
    if (arithmetic->exact_double) {
        exact_bounds(p, row, o_bound, lse_bound);
        return;
    }
    struct terms t = terms_of(p, arithmetic, row);
    bool not_a_number = isnan(row->lse);
    if (row->visible == 0 || not_a_number) {
        /* Rule 8: 0 and the sink, exactly. A NaN row demands NaN, except that a sum may have overflowed to it or not. */
        double nothing = row->order_matters || (row->visible == 0 && not_a_number) ? INFINITY : 0;
        set_all(o_bound, n, nothing);
        *lse_bound = (p->flags & HEED_LSE_BASE2) && isfinite(row->lse_out) ? 2 * U * fabs(row->lse_out) : nothing;
        if (not_a_number && isfinite(row->lse_out)) *lse_bound = INFINITY; /* a NaN sink that is left out of lse: no weights to go by */
        return;
    }
    double d_0, e_max = weight_errors(p, &t, scratch, &d_0);
    double l = log_of_errors(row, row->sink, d_0);
    if (row->order_matters) {
        set_all(o_bound, n, INFINITY);
        *lse_bound = INFINITY;
        return;
    }
    struct columns s = {scratch->scratch, scratch->scratch + n, scratch->scratch + 2 * n, scratch->scratch + 3 * n,
                        scratch->scratch + 4 * n};
    sum_columns(call, b, h / p->group, scratch, l, &s);
    double sink_growth = row->sink == -INFINITY ? 0 : growth(row->sink_weight, row->sink - row->lse, d_0 + l);
    for (int32_t c = 0; c < n; c++) o_bound[c] = output_bound(p, arithmetic, &t, row, &s, sink_growth, c);
    double l_out = (p->flags & HEED_LSE_WITHOUT_SINK) ? log_of_errors(row, -INFINITY, 0) : l;
    *lse_bound = lse_bound_of(p, arithmetic, &t, row, l_out, e_max);
}

double bound_sums(const struct problem *p, const struct reference_row *row, const struct arithmetic *arithmetic, double *e_max)
{
    *e_max = 0;
    if (row->visible == 0 || isnan(row->lse)) return 0;
    if (arithmetic->exact_double) return 2 * U;
    const struct terms t = terms_of(p, arithmetic, row);
    double d_0;
    *e_max = weight_errors(p, &t, (struct reference_row *)row, &d_0);
    const double g = gamma_of(t.chain);
    return log_of_errors(row, row->sink, d_0) + g / (1 - g) + (row->visible + 1.0) * 0x1p-126;
}

void bound_scores(const struct problem *p, const struct reference_row *row, const struct arithmetic *attention,
                  const struct arithmetic *scores, double *score_bound, double *weight_bounds)
{
    double e_max, x;
    if (scores->exact_double) {
        for (int32_t j = 0; score_bound && j < row->kv_len; j++) score_bound[j] = rounding_alone(HEED_F32, reference_score(p, row, j));
        for (int32_t j = 0; weight_bounds && j < row->kv_len; j++) weight_bounds[j] = 0x1p-45 * row->weight[j];
        return;
    }
    const struct terms t = terms_of(p, scores, row);
    x = bound_sums(p, row, attention, &e_max);
    if (score_bound) score_bounds(p, scores, &t, row, x, e_max, score_bound);
    for (int32_t j = 0; weight_bounds && j < row->kv_len; j++) {
        weight_bounds[j] = row->logit[j] == -INFINITY ? 0 : row->order_matters ? INFINITY : weight_bound(&t, row, logit_error(p, &t, row, j), x, e_max, j);
        if (isnan(row->weight[j]) && !row->order_matters) weight_bounds[j] = 0; /* NaN is demanded of the sum */
    }
}

double bound_key_sum(const struct problem *p, const struct arithmetic *scores, int32_t rows, double sum, double weights)
{
    const double heads = (p->flags & HEED_KEY_SUMS_ALL_HEADS) ? p->q_heads : 0;
    if (isnan(sum) || sum == 0) return weights;
    if (scores->exact_double) return rounding_alone(HEED_F32, sum) + weights;
    return stored(HEED_F32, sum, weights + gamma_of(ceil(rows / 16.0) + 4 + heads) * (sum + weights), scores->flushes);
}
