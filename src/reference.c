/* SPDX-License-Identifier: MIT
 * reference.c - attention in double precision: doc/semantics.md as loops, one output row at a time, in the order of its rules. This is
 * the definition. It is not fast, knows no tiles and no vectors, and every kernel is held against it.
 */
#include "reference.h"
#include "dtype.h"
#include "status.h"
#include "view.h"

#include <float.h>
#include <math.h>

/* ---- one row's memory --------------------------------------------------- */

enum { KEY_ARRAYS = 9 }; /* raw ... sums */

static size_t row_doubles(const struct problem *problem, int32_t kv_len_max)
{
    return (size_t)KEY_ARRAYS * (size_t)kv_len_max + 2 * (size_t)problem->head_dim + 7 * (size_t)problem->v_head_dim;
}

size_t reference_row_bytes(const struct problem *problem, int32_t kv_len_max)
{
    return sizeof(struct reference_row) + row_doubles(problem, kv_len_max) * sizeof(double);
}

struct reference_row *reference_row_place(void *memory, const struct problem *problem, int32_t kv_len_max)
{
    struct reference_row *row = memory;
    double *next = (double *)(row + 1);
    double **arrays[KEY_ARRAYS] = {&row->raw,       &row->capped,   &row->logit, &row->weight,
                                   &row->magnitude, &row->key_size, &row->added, &row->error, &row->sums};
    for (int n = 0; n < KEY_ARRAYS; n++, next += kv_len_max) *arrays[n] = next;
    row->q_row = next;
    row->k_row = row->q_row + problem->head_dim;
    row->v_row = row->k_row + problem->head_dim;
    row->o = row->v_row + problem->v_head_dim;
    row->scratch = row->o + problem->v_head_dim;
    return row;
}

struct reference_row *reference_row_new(const struct services *services, const struct problem *problem, int32_t kv_len_max)
{
    void *memory = memory_new(services, 1, reference_row_bytes(problem, kv_len_max));
    return memory ? reference_row_place(memory, problem, kv_len_max) : NULL;
}

void reference_row_delete(const struct services *services, struct reference_row *row) { memory_delete(services, row); }

/* ---- inputs of one row -------------------------------------------------- */

/* Key-like row j in double. k and v of i8 and f8 have a scale per row; it is 1 where none is given. */
static void load_row(const struct call *call, const struct view *view, const struct view *scales, heed_type type, int32_t b, int32_t g,
                     int32_t j, double *to, int32_t n)
{
    const struct sequence *s = &call->batch->sequences[b];
    const int32_t *pages = call->batch->page_table;
    int32_t page_size = call->plan->problem.page_size;
    float scale = 1.0f;
    if (scales->given) scale = *(const float *)key_row(scales, s, pages, page_size, b, g, j);
    row_to_f64(type, key_row(view, s, pages, page_size, b, g, j), scale, to, n);
}

void reference_value_row(const struct call *call, int32_t b, int32_t g, int32_t j, double *to)
{
    const struct problem *p = &call->plan->problem;
    load_row(call, &call->v, &call->v_scale, p->v_type, b, g, j, to, p->v_head_dim);
}

/* Is key j let through by the mask? */
static bool mask_shows(const struct call *call, const struct sequence *s, int32_t b, int32_t h, int32_t i, int32_t j)
{
    uint64_t flags = call->plan->problem.flags;
    if (!(flags & (HEED_MASK_BOOL | HEED_MASK_BITS))) return true;
    const unsigned char *row = query_row(&call->mask, s, b, h, i);
    return (flags & HEED_MASK_BITS) ? (row[j / 8] >> (j % 8)) & 1 : row[j] != 0;
}

static double bias_of(const struct call *call, const struct sequence *s, int32_t b, int32_t h, int32_t i, int32_t j)
{
    const struct problem *p = &call->plan->problem;
    if (!(p->flags & HEED_BIAS)) return 0;
    const unsigned char *row = query_row(&call->bias, s, b, h, i);
    double bias;
    row_to_f64(p->bias_type, row + (int64_t)j * type_row_bytes(p->bias_type, 1), 1.0f, &bias, 1);
    return bias;
}

/* Keys [*begin, *end) that query i may see by causality, window, length and key range. */
static void visible_range(const struct call *call, int32_t b, int32_t i, int32_t *begin, int32_t *end)
{
    const struct problem *p = &call->plan->problem;
    const struct sequence *s = &call->batch->sequences[b];
    visible_by_position(p, s, query_position(call->batch, s, i), begin, end);
    if (p->flags & HEED_KEY_RANGE) {
        const int32_t *range = query_row(&call->key_range, s, b, 0, i);
        if (range[0] > *begin) *begin = range[0];
        if (range[1] < *end) *end = range[1];
    }
    if (*begin >= *end) *begin = *end = 0;
}

/* ---- rules 1 to 5: logits ----------------------------------------------- */

/* An intermediate of f32: what lies beyond its range is infinite. So a logit that overflows downwards hides its key (rule 5), and one that
 * overflows upwards makes the row NaN (rule 4), in the definition as in every kernel. */
static double in_range(double x)
{
    if (x > FLT_MAX) return INFINITY;
    if (x < -FLT_MAX) return -INFINITY;
    return x;
}

/* In base 2, or with the scale applied after the sum, an intermediate may leave the range of f32 though the score does not. */
bool reference_may_overflow(const struct problem *problem, double magnitude)
{
    double scale = fabs((double)problem->scale);
    return magnitude * 1.4427 * (scale < 1 ? 1 / scale : 1) > 0.999 * (double)FLT_MAX;
}

/* Rule 1: raw = scale * sum_d q[d] k[d]; beside it the sums of magnitudes that the bound needs. True if the score is not finite
 * in whatever order it is summed. */
static bool score_key(const struct call *call, int32_t b, int32_t g, int32_t j, struct reference_row *row)
{
    const struct problem *p = &call->plan->problem;
    const double *q = row->q_row, *k = row->k_row;
    double dot = 0, size = 0, key_size = 0;
    load_row(call, &call->k, &call->k_scale, p->k_type, b, g, j, row->k_row, p->head_dim);
    for (int32_t d = 0; d < p->head_dim; d++) {
        double product = q[d] * k[d];
        dot += product;
        size += fabs(product);
        key_size += fabs(k[d]);
    }
    row->raw[j] = in_range((double)p->scale * dot);
    row->magnitude[j] = fabs((double)p->scale) * size;
    row->key_size[j] = key_size;
    return isnan(dot) || (isinf(row->raw[j]) && fabs(dot) == size);
}

/* Rules 1 to 5 for all keys: row->raw, capped, logit. */
static void compute_logits(const struct call *call, int32_t b, int32_t h, int32_t i, struct reference_row *row)
{
    const struct problem *p = &call->plan->problem;
    const struct sequence *s = &call->batch->sequences[b];
    int64_t position = query_position(call->batch, s, i);
    double slope = (p->flags & HEED_ALIBI) ? (double)((const float *)call->alibi.data)[h] : 0;
    bool first = p->flags & HEED_BIAS_FIRST;
    bool show_all = (p->flags & HEED_WRITE_SCORES) && p->scores_stage <= 1; /* rule 7: hidden keys too */
    int32_t begin, end, g = h / p->group;
    visible_range(call, b, i, &begin, &end);

    row->visible = row->begin = row->end = 0;
    row->order_matters = false;
    for (int32_t j = 0; j < row->kv_len; j++) {
        row->logit[j] = -INFINITY;
        bool visible = j >= begin && j < end && mask_shows(call, s, b, h, i, j);
        if (!visible && !show_all) continue;
        double bias = bias_of(call, s, b, h, i, j);
        if (bias == -INFINITY) visible = false;
        if (!visible && !show_all) continue;

        bool never_finite = score_key(call, b, g, j, row);
        if (visible && !never_finite && reference_may_overflow(p, row->magnitude[j])) row->order_matters = true;
        double x = row->raw[j];
        if (first) x = in_range(x + bias);
        if (p->softcap > 0) x = (double)p->softcap * tanh(x / (double)p->softcap);
        row->capped[j] = x;
        double alibi = (p->flags & HEED_ALIBI) ? slope * fabs((double)(position - (s->first + j))) : 0;
        x -= alibi;
        if (!first) x += bias;
        row->added[j] = fabs(alibi) + fabs(bias);

        x = in_range(x);
        if (!visible || x == -INFINITY) continue;
        row->logit[j] = x;
        if (row->visible++ == 0) row->begin = j;
        row->end = j + 1;
    }
}

/* ---- rules 6 and 8: softmax and output ---------------------------------- */

/* The maximum of the visible logits and the sink; NaN if one of them is; -infinity for nothing. */
static double largest(const struct reference_row *row, double sink)
{
    double m = sink;
    for (int32_t j = row->begin; j < row->end && !isnan(m); j++)
        if (!(row->logit[j] <= m)) m = row->logit[j];
    return m;
}

/* log(sum e^(s - m)) + m over the visible keys and the sink. -infinity for nothing. */
static double log_sum(const struct reference_row *row, double sink)
{
    double m = largest(row, sink), l;
    if (m == -INFINITY || isnan(m)) return m;
    if (row->visible == 0) return sink; /* rule 8, without the detour */
    l = sink == -INFINITY ? 0 : exp(sink - m);
    for (int32_t j = row->begin; j < row->end; j++)
        if (row->logit[j] != -INFINITY) l += exp(row->logit[j] - m);
    return m + log(l); /* m = +infinity: exp(NaN) */
}

/* m = max, l = sum e^(s - m), weight = e^(s - m) / l, o = sum weight v. */
static void compute_output(const struct call *call, int32_t b, int32_t g, struct reference_row *row)
{
    const struct problem *p = &call->plan->problem;
    double m = largest(row, row->sink), l = 0;
    row->maximum = m;
    for (int32_t d = 0; d < p->v_head_dim; d++) row->o[d] = 0;
    for (int32_t j = 0; j < row->kv_len; j++) row->weight[j] = 0;
    row->sink_weight = 0;
    if (row->visible == 0) {
        row->sink_weight = row->sink == -INFINITY ? 0 : 1;
        return;
    }
    for (int32_t j = row->begin; j < row->end; j++)
        if (row->logit[j] != -INFINITY) l += row->weight[j] = exp(row->logit[j] - m);
    if (row->sink != -INFINITY) l += row->sink_weight = exp(row->sink - m);
    row->sink_weight /= l;
    for (int32_t j = row->begin; j < row->end; j++) {
        if (row->logit[j] == -INFINITY) continue; /* a hidden key's V is never read */
        row->weight[j] /= l;
        reference_value_row(call, b, g, j, row->v_row);
        for (int32_t d = 0; d < p->v_head_dim; d++) row->o[d] += row->weight[j] * row->v_row[d];
    }
}

void reference_compute(const struct call *call, int32_t b, int32_t h, int32_t i, struct reference_row *row)
{
    const struct problem *p = &call->plan->problem;
    const struct sequence *s = &call->batch->sequences[b];
    row->kv_len = s->kv_len;
    row->terms = ((p->flags & HEED_ALIBI) != 0) + ((p->flags & HEED_BIAS) != 0);
    row->sink = (p->flags & HEED_SINKS) ? (double)((const float *)call->sinks.data)[h] : -INFINITY;
    row_to_f64(p->q_type, query_row(&call->q, s, b, h, i), 1.0f, row->q_row, p->head_dim);
    row->query_size = 0;
    for (int32_t d = 0; d < p->head_dim; d++) row->query_size += fabs(row->q_row[d]);

    compute_logits(call, b, h, i, row);
    compute_output(call, b, h / p->group, row);
    row->lse = log_sum(row, row->sink);
    row->lse_out = (p->flags & HEED_LSE_WITHOUT_SINK) ? log_sum(row, -INFINITY) : row->lse;
    if (p->flags & HEED_LSE_BASE2) row->lse_out *= 1.4426950408889634074; /* 1 / ln 2 */
}

double reference_score(const struct problem *problem, const struct reference_row *row, int32_t j)
{
    const double *stages[4] = {row->raw, row->capped, row->logit, row->weight};
    return stages[problem->scores_stage][j];
}

/* ---- the row of the table ----------------------------------------------- */

/* Queries [q_begin, q_end) of query head item->head, all keys: this row never splits them and never packs groups. */
void reference_item(const struct call *call, const struct work_item *item, struct reference_row *row)
{
    const struct problem *p = &call->plan->problem;
    int32_t b = item->sequence, h = item->head;
    const struct sequence *s = &call->batch->sequences[b];
    for (int32_t i = item->q_begin; i < item->q_end; i++) {
        reference_compute(call, b, h, i, row);
        void *o = query_row(&call->o, s, b, h, i);
        for (int32_t d = 0; d < p->v_head_dim; d++) store_output(p->o_type, o, d, row->o[d]);
        if (p->flags & HEED_WRITE_LSE) store_output(HEED_F32, query_row(&call->lse, s, b, h, i), 0, row->lse_out);
        if (p->features & FEATURE_SUMS) { /* for another row's pass over the scores */
            float *kept = kept_sums(call, s, h, i);
            kept[0] = (float)row->maximum;
            kept[1] = row->lse == -INFINITY ? 0 : (float)exp(row->lse - (double)kept[0]);
        }
    }
}

/* The chosen queries of one head: their scores, and their weights added to row->sums. */
static void score_head(const struct call *call, const struct work_item *item, int32_t h, struct reference_row *row)
{
    const struct problem *p = &call->plan->problem;
    const int32_t b = item->sequence, slot = call->batch->head_slots ? call->batch->head_slots[h] : -1;
    if (slot < 0 && !(p->flags & HEED_WRITE_KEY_SUMS)) return;
    for (int32_t i = item->q_begin; i < item->q_end; i++) {
        reference_compute(call, b, h, i, row);
        for (int32_t j = 0; j < row->kv_len; j++) row->sums[j] += row->weight[j];
        if (slot < 0) continue;
        void *scores = scored_row(call, b, slot, i);
        for (int32_t j = 0; j < row->kv_len; j++) store_output(HEED_F32, scores, j, reference_score(p, row, j));
    }
}

/* One query head, or with item->head -1 all of them, and every key: this row never cuts them. */
void reference_scores_item(const struct call *call, const struct work_item *item, struct reference_row *row)
{
    const struct problem *p = &call->plan->problem;
    const int32_t first = item->head < 0 ? 0 : item->head, end = item->head < 0 ? p->q_heads : first + 1;
    for (int32_t j = 0; j < item->kv_end; j++) row->sums[j] = 0;
    for (int32_t h = first; h < end; h++) score_head(call, item, h, row);
    if (!(p->flags & HEED_WRITE_KEY_SUMS)) return;
    float *sums = key_sums_row(call, item->sequence, first);
    for (int32_t j = 0; j < item->kv_end; j++) store_output(HEED_F32, sums, j, row->sums[j]);
}
