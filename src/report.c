/* SPDX-License-Identifier: MIT
 * report.c - a mismatch in one line, and the folder with case.json that replays it (doc/cases.md).
 */
#include "report.h"
#include "dtype.h"
#include "mutant.h"
#include "report_arrays.h"
#include "status.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- words --------------------------------------------------------------- */

size_t report_problem(const struct call *call, char *text, size_t capacity)
{
    heed_desc desc = call->plan->desc;
    desc.max_batch = call->batch->batch;
    desc.max_q_len = call->batch->q_len_max;
    desc.max_kv_len = call->batch->kv_len_max;
    size_t n = heed_desc_format(&desc, text, capacity);
    if (call->batch->q_packed || call->batch->kv_packed) n = text_append(text, capacity, n, " ragged");
    if (call->batch->q_positions) n = text_append(text, capacity, n, " tree");
    return n;
}

heed_status report_mismatch(const struct call *got, const struct call *other, const heed_check_report *report)
{
    static const char *const outputs[] = {"o", "lse", "scores", "key_sums"};
    char problem[512], place[96], mine[40], theirs[40], bound[40];
    report_problem(got, problem, sizeof problem);
    text_of_double(report->got, mine, sizeof mine);
    text_of_double(report->expected, theirs, sizeof theirs);
    text_of_double(report->bound, bound, sizeof bound);
    size_t n = text_append(place, sizeof place, 0, "%s[b %lld, h %lld", outputs[report->worst_output], (long long)report->worst_batch,
                           (long long)report->worst_head);
    if (report->worst_token >= 0) n = text_append(place, sizeof place, n, ", i %lld", (long long)report->worst_token);
    if (report->worst_dim >= 0) n = text_append(place, sizeof place, n, ", %lld", (long long)report->worst_dim);
    text_append(place, sizeof place, n, "]");
    return fail(HEED_MISMATCH, "\"%s\": %s is %s by %s, %s by %s, bound %s; %llu of %llu elements lie outside", problem, place, mine,
                report->kernel, theirs, other ? other->plan->device->info.name : "the reference", bound,
                (unsigned long long)report->outside, (unsigned long long)report->elements);
}

/* ---- case.json ------------------------------------------------------------ */

static void put_string(FILE *json, const char *key, const char *text)
{
    fprintf(json, "  \"%s\": \"", key);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') fputc('\\', json);
        if ((unsigned char)*text >= 0x20) fputc(*text, json);
    }
    fputs("\",\n", json);
}

static void put_number(FILE *json, double x)
{
    char text[40];
    text_of_double(x, text, sizeof text);
    fprintf(json, isfinite(x) ? "%s" : "\"%s\"", text);
}

static void put_flag(FILE *json, const char *key, bool value) { fprintf(json, "  \"%s\": %s,\n", key, value ? "true" : "false"); }

enum per_sequence { Q_LEN, KV_LEN, Q_POSITION, KV_FIRST };

static void put_lengths(FILE *json, const char *key, const struct heed_batch *batch, enum per_sequence what)
{
    fprintf(json, "  \"%s\": [", key);
    for (int32_t b = 0; b < batch->batch; b++) {
        const struct sequence *s = &batch->sequences[b];
        const int64_t values[] = {s->q_len, s->kv_len, s->position, s->first};
        fprintf(json, "%s%lld", b ? ", " : "", (long long)values[what]);
    }
    fputs("],\n", json);
}

/* The heads in the order of the scores tensor. */
static void put_score_heads(FILE *json, const struct call *call)
{
    fputs("  \"score_heads\": [", json);
    for (int32_t n = 0; n < call->batch->score_head_count; n++)
        for (int32_t h = 0; h < call->plan->problem.q_heads; h++)
            if (call->batch->head_slots[h] == n) fprintf(json, "%s%d", n ? ", " : "", h);
    fputs("],\n", json);
}

static void put_problem(FILE *json, const struct call *call, const char *name)
{
    const struct problem *p = &call->plan->problem;
    const struct heed_batch *batch = call->batch;
    char problem[512], version[32];
    report_problem(call, problem, sizeof problem);
    text_append(version, sizeof version, 0, "%d.%d.%d", HEED_VERSION_MAJOR, HEED_VERSION_MINOR, HEED_VERSION_PATCH);
    put_string(json, "format", "heed-case/2");
    put_string(json, "name", name);
    put_string(json, "problem", problem);
    put_string(json, "version", version);
    put_string(json, "q_layout", batch->q_packed ? "ragged" : "dense");
    put_string(json, "kv_layout", p->page_size ? "paged" : batch->kv_packed ? "ragged" : "dense");
    fprintf(json, "  \"batch\": %d,\n  \"q_heads\": %d,\n  \"kv_heads\": %d,\n  \"head_dim\": %d,\n  \"v_head_dim\": %d,\n", batch->batch,
            p->q_heads, p->kv_heads, p->head_dim, p->v_head_dim);
    if (p->page_size) fprintf(json, "  \"page_size\": %d,\n", p->page_size);
    put_lengths(json, "q_len", batch, Q_LEN);
    put_lengths(json, "kv_len", batch, KV_LEN);
    put_lengths(json, "q_position", batch, Q_POSITION);
    put_lengths(json, "kv_first", batch, KV_FIRST);
    put_flag(json, "causal", p->flags & HEED_CAUSAL);
    fprintf(json, "  \"window\": [%d, %d],\n  \"scale\": ", MUTANT(report_window_lost) ? -1 : p->window_left, p->window_right);
    put_number(json, (double)p->scale);
    fputs(",\n  \"softcap\": ", json);
    put_number(json, (double)p->softcap);
    fputs(",\n  \"exact\": [],\n  \"poison\": true,\n", json);
    put_string(json, "o_type", type_name(p->o_type));
    put_flag(json, "bias_first", p->flags & HEED_BIAS_FIRST);
    put_flag(json, "write_lse", p->flags & HEED_WRITE_LSE);
    put_flag(json, "lse_base2", p->flags & HEED_LSE_BASE2);
    put_flag(json, "lse_without_sink", p->flags & HEED_LSE_WITHOUT_SINK);
    put_flag(json, "invariant", p->flags & HEED_INVARIANT);
    if (p->flags & HEED_WRITE_SCORES) fprintf(json, "  \"scores_stage\": %d,\n", p->scores_stage);
    put_flag(json, "key_sums", p->flags & HEED_WRITE_KEY_SUMS);
    put_flag(json, "key_sums_all_heads", p->flags & HEED_KEY_SUMS_ALL_HEADS);
    if (batch->score_rows > 0) fprintf(json, "  \"score_rows\": %d,\n", batch->score_rows);
    if (batch->head_slots && batch->score_head_count < p->q_heads) put_score_heads(json, call);
}

static void put_worst(FILE *json, const struct call *call, const heed_check_report *r)
{
    put_string(json, "device", call->plan->device->info.name);
    put_string(json, "kernel", r->kernel);
    fprintf(json,
            "  \"worst\": {\"output\": %d, \"batch\": %lld, \"head\": %lld, \"token\": %lld, \"dim\": %lld, \"got\": ", r->worst_output,
            (long long)r->worst_batch, (long long)r->worst_head, (long long)r->worst_token, (long long)r->worst_dim);
    put_number(json, r->got);
    fputs(", \"expected\": ", json);
    put_number(json, r->expected);
    fputs(", \"bound\": ", json);
    put_number(json, r->bound);
    fputs("},\n", json);
}

/* ---- the folder ----------------------------------------------------------- */

/* A new folder below report_dir: the first free number of this second and process. */
static heed_status make_folder(const char *report_dir, char *folder, size_t capacity, char *name, size_t name_capacity)
{
    const long long now = (long long)time(NULL);
    if (mkdir(report_dir, 0777) != 0 && errno != EEXIST)
        return fail(HEED_INTERNAL, "cannot make report_dir %s: %s", report_dir, strerror(errno));
    for (int n = 0; n < 10000; n++) {
        text_append(name, name_capacity, 0, "mismatch_%lld_%d_%d", now, (int)getpid(), n);
        if (text_append(folder, capacity, 0, "%s/%s", report_dir, name) >= capacity)
            return fail(HEED_INVALID_ARGUMENT, "report_dir is longer than %zu bytes", capacity);
        if (mkdir(folder, 0777) == 0) return HEED_OK;
        if (errno != EEXIST) return fail(HEED_INTERNAL, "cannot make %s: %s", folder, strerror(errno));
    }
    return fail(HEED_INTERNAL, "no free name for a case below %s", report_dir);
}

static heed_status store_case(const struct call *call, const heed_check_report *report, const char *folder, const char *name)
{
    char path[4096];
    if (text_append(path, sizeof path, 0, "%s/case.json", folder) >= sizeof path)
        return fail(HEED_INVALID_ARGUMENT, "report_dir is longer than %zu bytes", sizeof path);
    FILE *json = fopen(path, "wb");
    if (!json) return fail(HEED_INTERNAL, "cannot write %s: %s", path, strerror(errno));
    struct store to = {.call = call, .folder = folder, .json = json};
    fputs("{\n", json);
    put_problem(json, call, name);
    put_worst(json, call, report);
    fputs("  \"inputs\": [", json);
    heed_status status = store_inputs(&to);
    fputs("\n  ],\n  \"outputs\": [", json);
    to.listed = 0;
    if (status == HEED_OK) status = store_outputs(&to);
    fputs("\n  ]\n}\n", json);
    if (fclose(json) != 0 && status == HEED_OK) status = fail(HEED_INTERNAL, "cannot write %s: %s", path, strerror(errno));
    return status;
}

void report_case(struct heed_context *context, const struct call *call, const heed_check_report *report)
{
    char mismatch[1024], folder[4000], name[96];
    text_append(mismatch, sizeof mismatch, 0, "%s", heed_error_message());
    log_line(&context->services, 0, "validation: %s", mismatch);
    if (context->report_dir) {
        heed_status status = make_folder(context->report_dir, folder, sizeof folder, name, sizeof name);
        if (status == HEED_OK) status = store_case(call, report, folder, name);
        if (status == HEED_OK)
            log_line(&context->services, 0, "validation: the case is stored in %s", folder);
        else
            log_line(&context->services, 0, "validation: the case could not be stored: %s", heed_error_message());
    }
    fail(HEED_MISMATCH, "%s", mismatch);
}
