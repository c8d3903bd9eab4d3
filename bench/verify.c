/* SPDX-License-Identifier: MIT
 * verify.c - a sample of rows of a result, each recomputed in double and held against its own bound.
 */
#include "verify.h"
#include "bound.h"
#include "dtype.h"
#include "plan.h"
#include "reference.h"
#include "schedule.h"
#include "status.h"
#include "view.h"
#include <math.h>

/* Error / bound of one number; beyond all bounds where NaN or infinity disagree. */
static double ratio_of(double got, double want, double bound)
{
    if (got == want || (isnan(got) && isnan(want))) return 0;
    if (!isfinite(got) || !isfinite(want)) return INFINITY;
    return bound > 0 ? fabs(got - want) / bound : INFINITY;
}

struct verifier {
    struct call call;
    struct reference_row *row;
    double *bound;
    float *values;
};

static double row_worst(struct verifier *v, const struct arithmetic *arithmetic, int32_t b, int32_t h, int32_t i)
{
    const struct problem *p = &v->call.plan->problem;
    const struct sequence *s = &v->call.batch->sequences[b];
    double lse_bound = 0, worst = 0;
    reference_compute(&v->call, b, h, i, v->row);
    bound_row(&v->call, b, h, i, v->row, arithmetic, v->bound, &lse_bound);
    row_to_f32(p->o_type, query_row(&v->call.o, s, b, h, i), 1, v->values, p->v_head_dim);
    for (int32_t d = 0; d < p->v_head_dim; d++) {
        const double ratio = ratio_of(v->values[d], v->row->o[d], v->bound[d]);
        if (!(ratio <= worst)) worst = ratio;
    }
    if (v->call.lse.given) {
        const double ratio = ratio_of(*(const float *)query_row(&v->call.lse, s, b, h, i), v->row->lse_out, lse_bound);
        if (!(ratio <= worst)) worst = ratio;
    }
    return worst;
}

/* Row n of all rows in the order (b, h, i). */
static bool row_place(const struct instance *instance, int64_t n, int32_t *b, int32_t *h, int32_t *i)
{
    const int32_t heads = instance->problem.q_heads;
    for (*b = 0; *b < instance->line.batch; ++*b) {
        const int64_t count = (int64_t)heads * instance->q_lens[*b];
        if (n < count) {
            *h = (int32_t)(n / instance->q_lens[*b]);
            *i = (int32_t)(n % instance->q_lens[*b]);
            return true;
        }
        n -= count;
    }
    return false;
}

static heed_status walk(struct verifier *v, const struct prepared *prepared, struct instance *instance, double budget, double *worst,
                        int64_t *checked, int64_t *rows)
{
    const struct problem *p = &instance->problem;
    *rows = (int64_t)p->q_heads * instance->q_total;
    const double row_cost = (double)instance->line.kv_len * (p->head_dim + 2.0 * p->v_head_dim) + 1;
    int64_t take = (int64_t)(budget / row_cost) + 2;
    if (take > *rows) take = *rows;
    *worst = 0;
    for (*checked = 0; *checked < take; ++*checked) {
        int32_t b, h, i;
        /* first, last and evenly between */
        const int64_t n = take > 1 ? (int64_t)((double)*checked * (double)(*rows - 1) / (double)(take - 1)) : 0;
        if (!row_place(instance, n, &b, &h, &i)) return fail(HEED_INTERNAL, "row %lld does not exist", (long long)n);
        const struct kernel_row *row = prepared->plan->row[sequence_kind(prepared->plan, instance->q_lens[b])];
        const double ratio = row_worst(v, &row->arithmetic, b, h, i);
        if (!(ratio <= *worst)) *worst = ratio;
    }
    return HEED_OK;
}

heed_status verify_scores(const struct prepared *prepared, const struct instance *instance, double budget, double *worst, int64_t *checked)
{
    const struct problem *p = &instance->problem;
    const double rows = (double)p->q_heads * (double)instance->q_total;
    heed_check_report report;
    if (!(p->flags & (HEED_WRITE_SCORES | HEED_WRITE_KEY_SUMS)) || rows * instance->line.kv_len * (p->head_dim + 2.0 * p->v_head_dim) > budget) return HEED_OK;
    const heed_status status = prepared_compare(prepared, &report);
    if (status != HEED_OK && status != HEED_MISMATCH) return status;
    if (!(report.worst_ratio <= *worst)) *worst = report.worst_ratio;
    *checked = (int64_t)rows;
    return HEED_OK;
}

heed_status verify_rows(const struct prepared *prepared, struct instance *instance, double budget, double *worst, int64_t *checked,
                        int64_t *rows)
{
    struct verifier v = {0};
    heed_plan *plan = NULL;
    heed_batch *batch = NULL;
    const struct services *services = &prepared->context->services;
    heed_status status = heed_plan_create(prepared->context, 0, &instance->line.desc, "reference", &plan);
    if (status == HEED_OK) status = heed_batch_create(plan, &instance->lengths, &batch);
    /* a workspace only so that the tensors pass the checks of a run: nothing runs on this plan */
    const size_t bytes = status == HEED_OK ? heed_batch_workspace_size(batch) : 0;
    heed_tensor workspace = {.data = memory_new(services, bytes + 64, 1), .bytes = bytes};
    if (!workspace.data) status = out_of_memory(bytes);
    if (status == HEED_OK) status = tensors_take(plan, batch, &instance->tensors, bytes ? &workspace : NULL, true, &v.call);
    if (status == HEED_OK) {
        v.row = reference_row_new(services, &instance->problem, instance->line.kv_len);
        v.bound = memory_new(services, (size_t)instance->problem.v_head_dim, sizeof *v.bound);
        v.values = memory_new(services, (size_t)instance->problem.v_head_dim, sizeof *v.values);
        if (!v.row || !v.bound || !v.values) status = out_of_memory((size_t)instance->line.kv_len * sizeof(double));
        else status = walk(&v, prepared, instance, budget, worst, checked, rows);
        if (v.row) reference_row_delete(services, v.row);
        memory_delete(services, v.bound);
        memory_delete(services, v.values);
    }
    memory_delete(services, workspace.data);
    heed_batch_destroy(batch);
    heed_plan_destroy(plan);
    return status;
}
