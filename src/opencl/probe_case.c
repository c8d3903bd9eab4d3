/* SPDX-License-Identifier: MIT
 * probe_case.c - one row on a device: attention run twice, the same bits, each element inside the bound that the definition gives.
 */
#include "probe_case.h"
#include "../mutant.h"
#include "opencl.h"
#include "../bound.h"
#include "../dtype.h"
#include "../reference.h"
#include "../view.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- judging ------------------------------------------------------------------- */

static double output_at(heed_type type, const void *row, int32_t index)
{
    float x;
    row_to_f32(type, (const char *)row + (size_t)index * (size_t)type_row_bytes(type, 1), 1.0f, &x, 1);
    return (double)x;
}

static heed_status wrong_element(const char *name, int32_t b, int32_t h, int32_t i, int32_t d, double got, double want, double bound)
{
    char texts[3][32];
    text_of_double(got, texts[0], sizeof texts[0]);
    text_of_double(want, texts[1], sizeof texts[1]);
    text_of_double(bound, texts[2], sizeof texts[2]);
    return fail(HEED_UNSUPPORTED, "wrong result in its probe: %s[b %d, h %d, i %d, %d] is %s, should be %s within %s", name, b, h, i, d,
                texts[0], texts[1], texts[2]);
}

/* Rows that are looked at one by one: all of a short sequence, else those around the edges of tiles. */
static bool sampled_query(int32_t i, int32_t q_len)
{
    static const int32_t edges[] = {0, 1, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129};
    if (q_len <= 8 || i >= q_len - 2) return true;
    for (size_t n = 0; n < sizeof edges / sizeof *edges; n++)
        if (edges[n] == i) return true;
    return false;
}

static bool sampled_head(const struct problem *p, int32_t h)
{
    return p->q_heads <= 4 || h == 0 || h == p->group - 1 || h == p->group || h == p->q_heads - 1;
}

struct judge {
    const struct call *call;
    const struct arithmetic *arithmetic;
    struct reference_row *row;
    double *o_bound;                             /* [v_head_dim] */
    double *score_bound, *weight_bound;          /* [kv_max] */
    double *sum, *sum_bound;
    float *kept;                                 /* the sums of all query rows; NULL: none are kept */
};

static float *kept_row(const struct judge *j, const struct sequence *s, int32_t h, int32_t i)
{
    return j->kept + 2 * ((s->q_index + i) * j->call->plan->problem.q_heads + h);
}

/* m + ln l of the row is its lse, as the pass over the scores will find it. */
static heed_status judge_kept(struct judge *j, const struct sequence *s, int32_t b, int32_t h, int32_t i)
{
    const float *kept = kept_row(j, s, h, i);
    double e_max, want = j->row->lse;
    const double off = bound_sums(&j->call->plan->problem, j->row, j->arithmetic, &e_max), got = kept[1] == 0 ? -INFINITY : (double)kept[0] + log((double)kept[1]);
    const double bound = off + 0x1p-22 * (fabs(j->row->maximum) + e_max + fabs(want)) + 0x1p-22;
    if (j->row->visible == 0) return kept[1] == 0 ? HEED_OK : wrong_element("kept l", b, h, i, 0, (double)kept[1], 0, 0);
    return bound_holds(got, want, bound) ? HEED_OK : wrong_element("kept m + ln l", b, h, i, 0, got, want, bound);
}

static heed_status judge_row(struct judge *j, int32_t b, int32_t h, int32_t i)
{
    const struct problem *p = &j->call->plan->problem;
    const struct sequence *s = &j->call->batch->sequences[b];
    double lse_bound;
    reference_compute(j->call, b, h, i, j->row);
    bound_row(j->call, b, h, i, j->row, j->arithmetic, j->o_bound, &lse_bound);
    if (j->row->order_matters) return HEED_OK;
    const void *o = query_row(&j->call->o, s, b, h, i);
    for (int32_t d = 0; d < p->v_head_dim; d++) {
        const double got = output_at(p->o_type, o, d);
        if (!bound_holds(got, j->row->o[d], j->o_bound[d])) return wrong_element("o", b, h, i, d, got, j->row->o[d], j->o_bound[d]);
    }
    if (j->call->lse.given) {
        const double got = (double)*(const float *)query_row(&j->call->lse, s, b, h, i);
        if (!bound_holds(got, j->row->lse_out, lse_bound)) return wrong_element("lse", b, h, i, 0, got, j->row->lse_out, lse_bound);
    }
    return j->kept ? judge_kept(j, s, b, h, i) : HEED_OK;
}

/* ---- the pass over the scores ------------------------------------------------- */

static const struct arithmetic definition = {.exact_double = true};

/* Scores of a chosen row, and its weights into the sums. */
static heed_status judge_scores_row(struct judge *j, int32_t b, int32_t h, int32_t i)
{
    const struct heed_batch *batch = j->call->batch;
    const struct problem *p = &j->call->plan->problem;
    const int32_t kv_len = batch->sequences[b].kv_len, slot = batch->head_slots ? batch->head_slots[h] : -1;
    reference_compute(j->call, b, h, i, j->row);
    bound_scores(p, j->row, &definition, j->arithmetic, j->score_bound, j->weight_bound);
    for (int32_t k = 0; k < kv_len; k++) {
        j->sum[k] += j->row->weight[k];
        j->sum_bound[k] += j->weight_bound[k];
    }
    const float *scores = slot < 0 ? NULL : scored_row(j->call, b, slot, i);
    for (int32_t k = 0; scores && k < kv_len; k++) {
        const double want = reference_score(p, j->row, k);
        if (!bound_holds((double)scores[k], want, j->score_bound[k]))
            return wrong_element("scores", b, h, i, k, (double)scores[k], want, j->score_bound[k]);
    }
    return HEED_OK;
}

static heed_status judge_sums(struct judge *j, int32_t b, int32_t h, int32_t rows)
{
    const float *sums = key_sums_row(j->call, b, h);
    for (int32_t k = 0; k < j->call->batch->sequences[b].kv_len; k++) {
        const double bound = bound_key_sum(&j->call->plan->problem, j->arithmetic, rows, j->sum[k], j->sum_bound[k]);
        if (!bound_holds((double)sums[k], j->sum[k], bound)) return wrong_element("key_sums", b, h, 0, k, (double)sums[k], j->sum[k], bound);
    }
    return HEED_OK;
}

/* Everything that the pass wrote of sequence b. */
static heed_status judge_scores(struct judge *j, int32_t b)
{
    const struct problem *p = &j->call->plan->problem;
    const struct sequence *s = &j->call->batch->sequences[b];
    const int32_t first = first_scored(j->call->batch, s);
    const bool sums = p->flags & HEED_WRITE_KEY_SUMS, together = p->flags & HEED_KEY_SUMS_ALL_HEADS;
    heed_status status = HEED_OK;
    for (int32_t h = 0; h < p->q_heads && status == HEED_OK; h++) {
        if (h == 0 || !together) memset(j->sum, 0, (size_t)s->kv_len * sizeof *j->sum), memset(j->sum_bound, 0, (size_t)s->kv_len * sizeof *j->sum);
        for (int32_t i = first; i < s->q_len && status == HEED_OK; i++) status = judge_scores_row(j, b, h, i);
        if (status == HEED_OK && sums && !together) status = judge_sums(j, b, h, s->q_len - first);
    }
    return status == HEED_OK && sums && together ? judge_sums(j, b, 0, s->q_len - first) : status;
}

/* The sums that attention would have kept, by the definition. */
static heed_status make_kept(struct judge *j)
{
    const struct heed_batch *batch = j->call->batch;
    for (int32_t b = 0; b < batch->batch; b++)
        for (int32_t i = first_scored(batch, &batch->sequences[b]); i < batch->sequences[b].q_len; i++)
            for (int32_t h = 0; h < j->call->plan->problem.q_heads; h++) {
                float *kept = kept_row(j, &batch->sequences[b], h, i);
                reference_compute(j->call, b, h, i, j->row);
                kept[0] = (float)j->row->maximum;
                kept[1] = j->row->lse == -INFINITY ? 0 : (float)exp(j->row->lse - (double)kept[0]);
            }
    return HEED_OK;
}

/* No row may be left as it was, looked at or not. */
static heed_status check_written(const struct call *call)
{
    const struct problem *p = &call->plan->problem;
    const size_t bytes = (size_t)type_row_bytes(p->o_type, p->v_head_dim);
    for (int32_t b = 0; b < call->batch->batch; b++) {
        const struct sequence *s = &call->batch->sequences[b];
        for (int32_t i = 0; i < s->q_len; i++)
            for (int32_t h = 0; h < p->q_heads; h++) {
                const unsigned char *row = query_row(&call->o, s, b, h, i);
                size_t n = 0;
                while (n < bytes && row[n] == PROBE_SENTINEL) n++;
                if (n == bytes) return fail(HEED_UNSUPPORTED, "wrong result in its probe: o[b %d, h %d, i %d] was not written", b, h, i);
            }
    }
    return HEED_OK;
}

/* What judging needs; in blocks of the set. */
static heed_status judge_begin(struct probe_set *set, const struct call *call, const struct kernel_row *kernel, struct judge *j)
{
    const struct problem *p = &set->plan.problem;
    const size_t keys = (size_t)set->kv_max + 1;
    *j = (struct judge){.call = call, .arithmetic = &kernel->arithmetic};
    j->row = reference_row_new(&set->device->services, p, set->kv_max);
    j->o_bound = probe_block(set, ((size_t)p->v_head_dim + 4 * keys) * sizeof(double));
    if (set->batch.kept_bytes) j->kept = probe_block(set, set->batch.kept_bytes);
    if (!j->row || !j->o_bound || (set->batch.kept_bytes && !j->kept)) return fail(HEED_OUT_OF_MEMORY, "no memory to judge the probe");
    j->score_bound = j->o_bound + p->v_head_dim;
    j->weight_bound = j->score_bound + keys;
    j->sum = j->weight_bound + keys;
    j->sum_bound = j->sum + keys;
    return HEED_OK;
}

static void judge_end(struct probe_set *set, struct judge *j)
{
    if (j->row) reference_row_delete(&set->device->services, j->row);
    j->row = NULL;
}

static heed_status judge_call(struct probe_set *set, struct judge *j, const struct heed_buffer *workspace)
{
    const struct problem *p = &j->call->plan->problem;
    heed_status status = HEED_OK;
    if (set->kind == KIND_SCORES) {
        for (int32_t b = 0; b < PROBE_BATCH && status == HEED_OK; b++) status = judge_scores(j, b);
        return status;
    }
    status = check_written(j->call);
    if (status == HEED_OK && j->kept) status = opencl_backend.buffer_read(workspace, set->batch.kept_offset, j->kept, set->batch.kept_bytes);
    for (int32_t b = 0; b < PROBE_BATCH && status == HEED_OK; b++)
        for (int32_t i = 0; i < set->q_lens[b] && status == HEED_OK; i++)
            for (int32_t h = 0; h < p->q_heads && status == HEED_OK; h++)
                if (sampled_query(i, set->q_lens[b]) && sampled_head(p, h)) status = judge_row(j, b, h, i);
    return status;
}

/* ---- running ---------------------------------------------------------------------- */

enum { OUTPUTS = 4 };

static void outputs_of(struct probe_set *set, heed_tensor *list[OUTPUTS])
{
    heed_tensor *const all[OUTPUTS] = {&set->tensors.o, &set->tensors.lse, &set->tensors.scores, &set->tensors.key_sums};
    for (int n = 0; n < OUTPUTS; n++) list[n] = all[n]->data ? all[n] : NULL;
    if (set->kind == KIND_SCORES) list[0] = list[1] = NULL;
}

static heed_status run_twice(struct probe_set *set, struct judge *judge, const struct heed_buffer *workspace, float *pair_seconds, bool *wrong)
{
    const struct cl_batch *lists = set->batch.state;
    heed_tensor *list[OUTPUTS];
    unsigned char *first[OUTPUTS] = {0};
    outputs_of(set, list);
    heed_status status = cl_run(judge->call, NULL);
    for (int n = 0; n < OUTPUTS && status == HEED_OK; n++) {
        if (!list[n]) continue;
        first[n] = probe_block(set, list[n]->bytes);
        if (!first[n]) return fail(HEED_OUT_OF_MEMORY, "no memory to judge the probe");
        memcpy(first[n], list[n]->data, list[n]->bytes);
        memset(list[n]->data, PROBE_SENTINEL, list[n]->bytes);
    }
    const double begin = cl_seconds();
    if (status == HEED_OK) status = cl_run(judge->call, NULL);
    const double spent = cl_seconds() - begin, pairs = lists->pairs[set->kind];
    if (status != HEED_OK) return status;
    *pair_seconds = (float)(spent / (pairs > 1 ? pairs : 1));
    status = MUTANT(cl_probe_blind) ? HEED_OK : judge_call(set, judge, workspace);
    for (int n = 0; n < OUTPUTS && status == HEED_OK; n++)
        if (list[n] && !MUTANT(cl_probe_once) && memcmp(first[n], list[n]->data, list[n]->bytes))
            status = fail(HEED_UNSUPPORTED, "two runs of its probe gave different bits");
    *wrong = status == HEED_UNSUPPORTED;
    return status;
}

static heed_status probe_attention(struct probe_set *set, const struct kernel_row *kernel, float *pair_seconds, bool *wrong)
{
    struct cl_device *device = set->device;
    struct heed_buffer workspace = {.context = &device->shadow_context, .device = &device->shadow, .bytes = set->batch.workspace_bytes};
    heed_tensor space = {.bytes = workspace.bytes, .memory = HEED_MEMORY_CL_BUFFER};
    struct call call;
    struct judge judge = {0};
    heed_status status = probe_fill(set);
    if (status == HEED_OK && workspace.bytes) {
        status = opencl_backend.buffer_create(&workspace);
        space.data = workspace.data;
    }
    if (status == HEED_OK) status = tensors_take(&set->plan, &set->batch, &set->tensors, workspace.bytes ? &space : NULL, false, &call);
    if (status == HEED_OK) status = judge_begin(set, &call, kernel, &judge);
    if (status == HEED_OK && set->kind == KIND_SCORES && judge.kept) {
        status = make_kept(&judge);
        if (status == HEED_OK) status = opencl_backend.buffer_write(&workspace, set->batch.kept_offset, judge.kept, set->batch.kept_bytes);
    }
    if (status == HEED_OK) {
        call.may_copy = call.private_output = !device->unified;
        status = run_twice(set, &judge, &workspace, pair_seconds, wrong);
    }
    judge_end(set, &judge);
    if (workspace.data) opencl_backend.buffer_destroy(&workspace);
    return status;
}

static heed_status probe_one(struct cl_device *device, const struct problem *problem, const struct kernel_row *row, enum kind kind, bool cut,
                             float *work_seconds, bool *wrong)
{
    struct probe_set *set = calloc(1, sizeof *set);
    if (!set) return out_of_memory(sizeof *set);
    set->device = device;
    set->random = 1;
    set->plan =
        (struct heed_plan){.context = &device->shadow_context, .device = &device->shadow, .problem = *problem, .state = &set->state};
    set->cut = *row;
    for (int k = 0; k < KIND_COUNT; k++) set->plan.row[k] = cut ? &set->cut : row;
    set->plan.short_max_q_len = cut ? INT32_MAX : 0;
    set->kind = kind;
    if (kind != KIND_SCORES) { /* attention keeps its sums; what is made of them is another row's */
        set->plan.row[KIND_SCORES] = NULL;
        set->plan.problem.flags &= ~(HEED_WRITE_SCORES | HEED_WRITE_KEY_SUMS);
    }
    static const struct kernel_row steps = {.name = "decode", .order = ORDER_OWN}; /* so that the last sequences are steps: the pass may do these another way */
    if (kind == KIND_SCORES) set->plan.row[KIND_DECODE] = &steps;
    set->plan.decode_max_q_len = kind == KIND_DECODE ? INT32_MAX : kind == KIND_SCORES ? 3 : 0;
    set->batch.plan = &set->plan;
    struct cl_step *step = &set->state.step[kind];
    heed_status status = cl_step_prepare(device, problem, row, step);
    if (status == HEED_OK) {
        atomic_store(&step->pair_seconds, 1e-9f); /* one launch: it is small */
        status = probe_lengths(set, kind);
    }
    if (status == HEED_OK)
        status = kind < WORK_KINDS ? probe_attention(set, row, work_seconds, wrong) : probe_beside(set, kind, wrong);
    *work_seconds /= (float)(problem->head_dim + problem->v_head_dim);
    cl_step_release(device, step);
    probe_release(set);
    free(set);
    return status;
}

/* The keys as a whole and, where the row cuts those of few queries, in chunks: far smaller ones than its own, of which a kernel knows nothing. */
static heed_status probe_both(struct cl_device *device, const struct problem *problem, const struct kernel_row *row, enum kind kind,
                              float *work_seconds, bool *wrong)
{
    float seconds_cut = 0;
    heed_status status = probe_one(device, problem, row, kind, false, work_seconds, wrong);
    if (status == HEED_OK && row->short_chunk > 0 && !MUTANT(cl_probe_whole)) status = probe_one(device, problem, row, kind, true, &seconds_cut, wrong);
    return status;
}

heed_status probe_case(struct cl_device *device, const struct problem *problem, const struct kernel_row *row, enum kind kind,
                       float *work_seconds, bool *wrong)
{
    uint64_t hash[2];
    const char *text;
    bool served;
    heed_status status = cl_program_hash(device, row, problem, hash);
    if (status == HEED_OK) status = probe_both(device, problem, row, kind, work_seconds, wrong);
    for (int n = 0; status == HEED_OK; n++) {
        struct problem other;
        float seconds_of = 0;
        char message[512];
        status = probe_problem(device, row, hash, n, &other, &text, &served);
        if (!text) break;
        if (status != HEED_OK || !served) continue;
        status = probe_both(device, &other, row, kind, &seconds_of, wrong);
        if (status != HEED_OK) {
            snprintf(message, sizeof message, "%s", heed_error_message());
            fail(status, "%.*s (%s)", (int)strcspn(message, "\n"), message, text);
        }
    }
    return status;
}
