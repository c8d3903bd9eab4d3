/* SPDX-License-Identifier: MIT
 * check.c - one problem, two computations, element by element against the bound: heed_check() and the validation of runs. What a bound is
 * stands in bound.c, what is right in reference.c; here is only the walk over all rows.
 */
#include "check.h"
#include "bound.h"
#include "dtype.h"
#include "mutant.h"
#include "plan.h"
#include "problem.h"
#include "reference.h"
#include "report.h"
#include "schedule.h"
#include "shadow.h"
#include "status.h"
#include "view.h"

#include <math.h>
#include <string.h>

enum { ROWS_PER_TASK = 4, OUTPUT_O = 0, OUTPUT_LSE = 1, OUTPUT_SCORES = 2, OUTPUT_KEY_SUMS = 3 };

/* ---- counting ------------------------------------------------------------ */

/* One worker's sums; the worst element by ratio, the first of equals in the order of places, so that reports do not depend on threads. */
struct tally {
    uint64_t elements, outside, finite;
    double worst_ratio, max_abs_error, signed_error;
    int32_t output, b, h, i, d;
    double got, want, bound;
    const struct kernel_row *row;
};

/* Place in the order b, h, i, output, d: negative if a comes first. */
static int compare_places(const struct tally *a, const struct tally *b)
{
    const int32_t x[5] = {a->b, a->h, a->i, a->output, a->d}, y[5] = {b->b, b->h, b->i, b->output, b->d};
    for (int n = 0; n < 5; n++)
        if (x[n] != y[n]) return x[n] < y[n] ? -1 : 1;
    return 0;
}

static double ratio_of(double got, double want, double bound)
{
    if (bound_holds(got, want, bound))
        return got == want || !(bound > 0) || bound == INFINITY || isnan(want) ? 0 : fabs(got - want) / bound;
    double ratio = bound > 0 ? fabs(got - want) / bound : INFINITY;
    return isnan(ratio) ? INFINITY : ratio;
}

static void take_worst(struct tally *to, const struct tally *from)
{
    bool first = !to->row;
    if (!first && from->worst_ratio < to->worst_ratio) return;
    if (!first && from->worst_ratio == to->worst_ratio && compare_places(from, to) >= 0) return;
    to->worst_ratio = from->worst_ratio;
    to->output = from->output;
    to->b = from->b, to->h = from->h, to->i = from->i, to->d = from->d;
    to->got = from->got, to->want = from->want, to->bound = from->bound;
    to->row = from->row;
}

static void count(struct tally *to, struct tally *place, double got, double want, double bound)
{
    double error = fabs(got - want);
    to->elements++;
    if (!bound_holds(got, want, bound)) to->outside++;
    if (error < INFINITY) {
        to->finite++;
        to->signed_error += got - want;
        if (error > to->max_abs_error) to->max_abs_error = error;
    }
    place->worst_ratio = MUTANT(check_worst_by_error) ? error : ratio_of(got, want, bound);
    place->got = got, place->want = want, place->bound = bound;
    take_worst(to, place);
}

static void add_tally(struct tally *to, const struct tally *from)
{
    to->elements += from->elements;
    to->outside += from->outside;
    to->finite += from->finite;
    to->signed_error += from->signed_error;
    if (from->max_abs_error > to->max_abs_error) to->max_abs_error = from->max_abs_error;
    if (from->row) take_worst(to, from);
}

/* ---- one row ------------------------------------------------------------- */

struct worker {
    struct reference_row *reference;
    double *o_bound, *o_other;                       /* [v_head_dim] */
    double *score_bound, *score_other;               /* [kv_len] */
    double *weight_bound, *weight_other;             /* [kv_len] of one row's probabilities */
    double *sum, *sum_bound, *sum_other;             /* [kv_len] of the rows so far */
    struct tally tally;
};
enum { WORKER_KEY_ARRAYS = 7 };

struct check_work {
    const struct call *got, *other; /* other may be NULL */
    struct worker *workers;
    int32_t *first_task; /* [batch + 1] */
};

static double element(heed_type type, const void *row, int32_t d)
{
    double x;
    row_to_f64(type, (const unsigned char *)row + (int64_t)d * type_row_bytes(type, 1), 1.0f, &x, 1);
    return x;
}

static const struct kernel_row *row_of(const struct call *call, int32_t b)
{
    return call->plan->row[sequence_kind(call->plan, call->batch->sequences[b].q_len)];
}

/* Row of the pass over the scores, of the call's own plan. */
static const struct arithmetic *scores_arithmetic(const struct call *call) { return &call->plan->row[KIND_SCORES]->arithmetic; }

/* Scores of row (b, h, i) where they are written, and its share of the key sums. */
static void check_scores(const struct check_work *work, struct worker *w, struct tally *place)
{
    const struct call *got = work->got, *other = work->other;
    const struct problem *p = &got->plan->problem;
    const struct sequence *s = &got->batch->sequences[place->b];
    const struct reference_row *row = w->reference;
    const int32_t b = place->b, i = place->i, slot = got->batch->head_slots ? got->batch->head_slots[place->h] : -1;
    const bool sums = p->flags & HEED_WRITE_KEY_SUMS;
    if (i < first_scored(got->batch, s) || (slot < 0 && !sums)) return;
    bound_scores(p, row, &row_of(got, b)->arithmetic, scores_arithmetic(got), slot < 0 ? NULL : w->score_bound, sums ? w->weight_bound : NULL);
    if (other)
        bound_scores(p, row, &row_of(other, b)->arithmetic, scores_arithmetic(other), slot < 0 ? NULL : w->score_other, sums ? w->weight_other : NULL);
    for (int32_t j = 0; sums && j < s->kv_len; j++) {
        w->sum[j] += row->weight[j];
        w->sum_bound[j] += w->weight_bound[j];
        if (other) w->sum_other[j] += w->weight_other[j];
    }
    if (slot < 0) return;
    const void *mine = scored_row(got, b, slot, i), *theirs = other ? scored_row(other, b, slot, i) : NULL;
    place->output = OUTPUT_SCORES;
    place->row = got->plan->row[KIND_SCORES];
    for (place->d = 0; place->d < s->kv_len; place->d++) {
        double want = other ? element(HEED_F32, theirs, place->d) : reference_score(p, row, place->d);
        count(&w->tally, place, element(HEED_F32, mine, place->d), want, w->score_bound[place->d] + (other ? w->score_other[place->d] : 0));
    }
}

/* All outputs of row (b, h, i). want is the reference's value, or the other computation's with both bounds added. */
static void check_row(const struct check_work *work, struct worker *w, int32_t b, int32_t h, int32_t i)
{
    const struct call *got = work->got, *other = work->other;
    const struct problem *p = &got->plan->problem;
    const struct sequence *s = &got->batch->sequences[b];
    const struct reference_row *row = w->reference;
    double lse_bound, lse_other = 0;

    reference_compute(got, b, h, i, w->reference);
    bound_row(got, b, h, i, row, &row_of(got, b)->arithmetic, w->o_bound, &lse_bound);
    if (other) bound_row(other, b, h, i, row, &row_of(other, b)->arithmetic, w->o_other, &lse_other);

    struct tally place = {.b = b, .h = h, .i = i, .row = row_of(got, b), .output = OUTPUT_O};
    const void *o = query_row(&got->o, s, b, h, i), *o_other = other ? query_row(&other->o, s, b, h, i) : NULL;
    for (place.d = 0; place.d < p->v_head_dim; place.d++) {
        double want = other ? element(other->plan->problem.o_type, o_other, place.d) : row->o[place.d];
        count(&w->tally, &place, element(p->o_type, o, place.d), want, w->o_bound[place.d] + (other ? w->o_other[place.d] : 0));
    }
    place.d = -1;
    if ((p->flags & HEED_WRITE_LSE) && !MUTANT(check_lse_forgotten)) {
        place.output = OUTPUT_LSE;
        double want = other ? element(HEED_F32, query_row(&other->lse, s, b, h, i), 0) : row->lse_out;
        count(&w->tally, &place, element(HEED_F32, query_row(&got->lse, s, b, h, i), 0), want, lse_bound + lse_other);
    }
    if (p->flags & (HEED_WRITE_SCORES | HEED_WRITE_KEY_SUMS)) check_scores(work, w, &place);
}

/* The sums of query head h, or of all heads (h = 0), after all their rows. */
static void check_sums(const struct check_work *work, struct worker *w, int32_t b, int32_t h)
{
    const struct call *got = work->got, *other = work->other;
    const struct sequence *s = &got->batch->sequences[b];
    const int32_t rows = s->q_len - first_scored(got->batch, s);
    struct tally place = {.b = b, .h = h, .output = OUTPUT_KEY_SUMS, .row = got->plan->row[KIND_SCORES]};
    for (place.d = 0; place.d < s->kv_len && !MUTANT(check_sums_forgotten); place.d++) {
        const int32_t j = place.d;
        double bound = bound_key_sum(&got->plan->problem, scores_arithmetic(got), rows, w->sum[j], w->sum_bound[j]);
        if (other) bound += bound_key_sum(&got->plan->problem, scores_arithmetic(other), rows, w->sum[j], w->sum_other[j]);
        const double want = other ? (double)key_sums_row(other, b, h)[j] : w->sum[j];
        count(&w->tally, &place, (double)key_sums_row(got, b, h)[j], want, bound);
    }
}

/* ---- all rows, on the context's threads ---------------------------------- */

/* Queries of one head per task; with key sums all of them, so that one worker adds them up in order. */
static int32_t rows_per_task(const struct call *got, int32_t q_len)
{
    if (!(got->plan->problem.flags & HEED_WRITE_KEY_SUMS)) return ROWS_PER_TASK;
    return q_len > 0 ? q_len : 1;
}

/* Heads per task: all where they share one row of sums. */
static int32_t heads_per_task(const struct problem *p)
{
    return (p->flags & HEED_WRITE_KEY_SUMS) && (p->flags & HEED_KEY_SUMS_ALL_HEADS) ? p->q_heads : 1;
}

static int64_t tasks_of(const struct call *got, int32_t q_len)
{
    const struct problem *p = &got->plan->problem;
    const int32_t rows = rows_per_task(got, q_len);
    int64_t tiles = ((int64_t)q_len + rows - 1) / rows;
    if (p->flags & HEED_WRITE_KEY_SUMS) tiles = 1; /* also without a query: sums are written */
    return tiles * (p->q_heads / heads_per_task(p));
}

/* Task t: some queries of one head of one sequence, and its key sums; or of all heads. */
static void check_task(void *arg, int32_t t, int32_t number)
{
    const struct check_work *work = arg;
    const struct heed_batch *batch = work->got->batch;
    const struct problem *p = &work->got->plan->problem;
    struct worker *w = &work->workers[number];
    int32_t low = 0, high = batch->batch; /* the sequence: first_task[low] <= t < first_task[low + 1] */
    while (high - low > 1) {
        int32_t middle = low + (high - low) / 2;
        if (work->first_task[middle] <= t)
            low = middle;
        else
            high = middle;
    }
    const bool sums = p->flags & HEED_WRITE_KEY_SUMS;
    const int32_t q_len = batch->sequences[low].q_len, rows = rows_per_task(work->got, q_len), tiles = q_len > 0 ? (q_len - 1) / rows + 1 : 1;
    const int32_t rest = t - work->first_task[low], h = rest / tiles, first = rest % tiles * rows, heads = heads_per_task(p);
    int32_t end = q_len - first < rows ? q_len : first + rows;
    if (MUTANT(check_last_rows_forgotten) && end == q_len) end--;
    if (sums) memset(w->sum, 0, 3 * (size_t)batch->kv_len_max * sizeof *w->sum);
    for (int32_t n = h; n < h + heads; n++)
        for (int32_t i = first; i < end; i++) check_row(work, w, low, n, i);
    if (sums) check_sums(work, w, low, h);
}

static void workers_delete(const struct services *services, struct worker *workers, int32_t n)
{
    for (int32_t w = 0; workers && w < n; w++) {
        reference_row_delete(services, workers[w].reference);
        memory_delete(services, workers[w].o_bound);
    }
    memory_delete(services, workers);
}

static struct worker *workers_new(const struct services *services, const struct problem *p, int32_t kv_len_max, int32_t n)
{
    struct worker *workers = memory_new(services, (size_t)n, sizeof *workers);
    size_t v = (size_t)p->v_head_dim, k = (p->flags & (HEED_WRITE_SCORES | HEED_WRITE_KEY_SUMS)) ? (size_t)kv_len_max : 0;
    for (int32_t w = 0; workers && w < n; w++) {
        workers[w].reference = reference_row_new(services, p, kv_len_max);
        workers[w].o_bound = memory_new(services, 2 * v + WORKER_KEY_ARRAYS * k, sizeof(double));
        if (!workers[w].reference || !workers[w].o_bound) {
            workers_delete(services, workers, n);
            return NULL;
        }
        workers[w].o_other = workers[w].o_bound + v;
        double **const arrays[WORKER_KEY_ARRAYS] = {&workers[w].score_bound, &workers[w].score_other, &workers[w].weight_bound, &workers[w].weight_other,
                                                    &workers[w].sum,         &workers[w].sum_bound,   &workers[w].sum_other};
        for (size_t n = 0; n < WORKER_KEY_ARRAYS; n++) *arrays[n] = workers[w].o_other + v + n * k;
    }
    return workers;
}

static heed_status count_tasks(const struct call *got, int32_t *first_task)
{
    int64_t tasks = 0;
    for (int32_t b = 0; b <= got->batch->batch; b++) {
        if (tasks > INT32_MAX) return fail(HEED_UNSUPPORTED, "more than 2^31 - 1 groups of rows in one check");
        first_task[b] = (int32_t)tasks;
        if (b == got->batch->batch) break;
        tasks += tasks_of(got, got->batch->sequences[b].q_len);
    }
    return HEED_OK;
}

static void fill_report(const struct tally *t, const struct heed_plan *plan, heed_check_report *report)
{
    size_t struct_size = report->struct_size;
    memset(report, 0, sizeof *report);
    report->struct_size = struct_size;
    report->elements = t->elements;
    report->outside = t->outside;
    report->worst_ratio = t->worst_ratio;
    report->max_abs_error = t->max_abs_error;
    report->mean_signed_error = t->finite ? t->signed_error / (double)t->finite : 0;
    report->worst_output = t->output;
    report->worst_batch = t->b;
    report->worst_head = t->h;
    report->worst_token = t->output == OUTPUT_KEY_SUMS ? -1 : t->i;
    report->worst_dim = t->d;
    report->got = t->got;
    report->expected = t->want;
    report->bound = t->bound;
    const char *name = t->row ? t->row->name : plan->row[KIND_PREFILL]->name;
    text_append(report->kernel, sizeof report->kernel, 0, "%s", name);
}

heed_status check_call(const struct call *got, const struct call *other, heed_check_report *report)
{
    const struct services *services = &got->plan->context->services;
    int32_t n = services->threads.workers > 0 ? services->threads.workers : 1;
    struct check_work work = {.got = got, .other = other};
    struct tally total = {0};

    work.first_task = memory_new(services, (size_t)got->batch->batch + 1, sizeof *work.first_task);
    work.workers = workers_new(services, &got->plan->problem, got->batch->kv_len_max, n);
    heed_status status = HEED_OK;
    if (!work.first_task || !work.workers)
        status = out_of_memory((size_t)n * reference_row_bytes(&got->plan->problem, got->batch->kv_len_max));
    else
        status = count_tasks(got, work.first_task);
    if (status == HEED_OK) {
        int32_t tasks = work.first_task[got->batch->batch];
        if (tasks > 0) services->threads.parallel_for(services->threads.user, tasks, check_task, &work);
        for (int32_t w = 0; w < n; w++) add_tally(&total, &work.workers[w].tally);
        fill_report(&total, got->plan, report);
        if (total.outside > 0) status = report_mismatch(got, other, report);
    }
    workers_delete(services, work.workers, n);
    memory_delete(services, work.first_task);
    return status;
}

/* ---- heed_check ---------------------------------------------------------- */

/* Two plans of one problem: all that lengths and tensors mean must be the same; o's type and hints may differ only with a buffer of its
 * own, and the second run writes rows of the first one's layout, so o's type must be the same too. */
static heed_status same_problem(const struct problem *a, const struct problem *b)
{
    const struct {
        const char *name;
        int64_t one, two;
    } fields[] = {
        {"q_type", a->q_type, b->q_type},
        {"k_type", a->k_type, b->k_type},
        {"v_type", a->v_type, b->v_type},
        {"o_type", a->o_type, b->o_type},
        {"bias_type", a->bias_type, b->bias_type},
        {"q_heads", a->q_heads, b->q_heads},
        {"kv_heads", a->kv_heads, b->kv_heads},
        {"head_dim", a->head_dim, b->head_dim},
        {"v_head_dim", a->v_head_dim, b->v_head_dim},
        {"window_left", a->window_left, b->window_left},
        {"window_right", a->window_right, b->window_right},
        {"page_size", a->page_size, b->page_size},
        {"scores_stage", a->scores_stage, b->scores_stage},
        {"flags", (int64_t)(a->flags & ~HEED_INVARIANT), (int64_t)(b->flags & ~HEED_INVARIANT)},
    };
    for (size_t n = 0; n < sizeof fields / sizeof *fields; n++)
        if (fields[n].one != fields[n].two)
            return fail(HEED_INVALID_ARGUMENT, "against is a plan of another problem: %s %lld, not %lld", fields[n].name,
                        (long long)fields[n].two, (long long)fields[n].one);
    if (a->scale != b->scale || a->softcap != b->softcap)
        return fail(HEED_INVALID_ARGUMENT, "against is a plan of another problem: its scale or softcap differs");
    return HEED_OK;
}

/* Run the checked call as heed_run would, on the caller's own outputs, and see inputs and outputs from the host. */
static heed_status run_and_look(const struct call *call, struct shadow *shadow)
{
    heed_status status = shadow_inputs(call, shadow);
    if (status != HEED_OK) return status;
    status = call->plan->device->backend->run(call, NULL);
    if (status == HEED_OK) status = shadow_outputs(call, shadow);
    if (status != HEED_OK) shadow_release(shadow);
    return status;
}

static heed_status check_batch(const struct heed_plan *plan, const struct heed_plan *against, const struct heed_batch *batch,
                               const heed_tensors *tensors, heed_check_report *report)
{
    struct device *device = plan->device;
    bool host = device->info.backend == HEED_BACKEND_CPU;
    struct heed_buffer workspace = {.context = plan->context, .device = device, .bytes = batch->workspace_bytes};
    heed_tensor space = {.bytes = workspace.bytes, .memory = host ? HEED_MEMORY_HOST : HEED_MEMORY_CL_BUFFER};
    struct call call;
    struct shadow shadow;
    heed_status status = HEED_OK;
    if (workspace.bytes) status = device->backend->buffer_create(&workspace);
    if (status != HEED_OK) return status;
    space.data = workspace.data;
    status = tensors_take(plan, batch, tensors, workspace.bytes ? &space : NULL, false, &call);
    if (status == HEED_OK) {
        call.may_copy = !host; /* host tensors may be staged: this is a check, not a race */
        status = run_and_look(&call, &shadow);
    }
    if (status == HEED_OK) {
        struct twin twin = {.batch.plan = NULL};
        if (against) status = twin_run((struct heed_plan *)against, &shadow, &twin);
        if (status == HEED_OK) status = check_call(&shadow.call, against ? &twin.results.call : NULL, report);
        twin_release(&twin);
        shadow_release(&shadow);
    }
    if (workspace.data) device->backend->buffer_destroy(&workspace);
    return status;
}

heed_status heed_check(const heed_plan *plan, const heed_plan *against, const heed_lengths *lengths, const heed_tensors *tensors,
                       heed_check_report *report)
{
    heed_check_report result = {0};
    struct heed_batch *batch;
    if (!plan || !lengths || !tensors || !report)
        return fail(HEED_INVALID_ARGUMENT, "%s is NULL", !plan ? "plan" : !lengths ? "lengths" : !tensors ? "tensors" : "report");
    const size_t given = report->struct_size, known = sizeof result;
    if (given < sizeof given)
        return fail(HEED_INVALID_ARGUMENT, "heed_check_report.struct_size is %zu: set it to sizeof the struct", given);
    heed_status status = against ? same_problem(&plan->problem, &against->problem) : HEED_OK;
    if (status == HEED_OK) status = batch_make((heed_plan *)plan, lengths, &batch);
    if (status != HEED_OK) return status;
    status = check_batch(plan, against, batch, tensors, &result);
    batch_drop(batch);
    if (status != HEED_OK && status != HEED_MISMATCH) return status;
    memcpy(report, &result, given < known ? given : known);
    if (given > known) memset((unsigned char *)report + known, 0, given - known);
    report->struct_size = given;
    return status;
}

/* ---- validate_every ------------------------------------------------------ */

/* A device of the other wing that is already listed and can be asked, or NULL. */
static struct device *partner_of(struct heed_context *context, const struct device *device)
{
    struct device *partner = NULL;
    pthread_mutex_lock(&context->lock);
    for (int32_t n = 0; n < context->device_count && !partner; n++) {
        struct device *other = context->devices[n];
        if (other->info.backend != device->info.backend && other->info.usable) partner = other;
    }
    pthread_mutex_unlock(&context->lock);
    return partner;
}

/* The partner's results in *twin, or false: then the reference is asked instead. */
static bool ask_partner(struct heed_context *context, const struct shadow *shadow, struct heed_plan **plan, struct twin *twin)
{
    struct device *partner = partner_of(context, shadow->call.plan->device);
    *plan = NULL;
    memset(twin, 0, sizeof *twin);
    if (!partner) return false;
    heed_status status = plan_cached(context, partner, &shadow->call.plan->desc, plan);
    if (status == HEED_OK) status = twin_run(*plan, shadow, twin);
    if (status == HEED_OK) return true;
    log_line(&context->services, 1, "validation: %s could not compute again (%s); the reference does", partner->info.name,
             heed_error_message());
    return false;
}

heed_status check_validate(struct heed_context *context, const struct call *call)
{
    struct shadow shadow;
    struct heed_plan *plan;
    struct twin twin;
    heed_check_report report = {.struct_size = sizeof report};
    heed_status status = shadow_inputs(call, &shadow);
    if (status != HEED_OK) return status;
    status = shadow_outputs(call, &shadow);
    if (status == HEED_OK) {
        bool partner = ask_partner(context, &shadow, &plan, &twin);
        status = check_call(&shadow.call, partner ? &twin.results.call : NULL, &report);
        twin_release(&twin);
        if (plan) plan_drop(plan);
        if (status == HEED_MISMATCH) report_case(context, &shadow.call, &report);
    }
    shadow_release(&shadow);
    return status;
}
