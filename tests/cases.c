/* SPDX-License-Identifier: MIT
 * cases.c - a stored case: loaded, run on a row of a device, held against what is stored, then against the reference.
 */
#include "cases_parts.h"
#include "context.h"
#include "dtype.h"
#include "registry.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- loading --------------------------------------------------------------------- */

static const char *last_part(const char *folder)
{
    const char *slash = strrchr(folder, '/');
    return slash && slash[1] ? slash + 1 : folder;
}

static bool read_case(struct stored_case *stored, struct case_files *files, enum instance_variant variant, char *message, size_t capacity)
{
    const char *format = key_text(files->root, "format", ""), *op = key_text(files->root, "op", "");
    snprintf(stored->name, sizeof stored->name, "%s", key_text(files->root, "name", last_part(stored->folder)));
    snprintf(stored->op, sizeof stored->op, "%s", *op ? op : "attention");
    if (!strcmp(format, "heed-case/1") || !strcmp(format, "heed-case/2")) {
        stored->kind = format[10] == '1' ? CASE_HEED_1 : CASE_HEED_2;
        return case_read_heed(stored, files, variant, message, capacity);
    }
    if (*op) {
        stored->kind = CASE_ONNX;
        return case_read_onnx(stored, files, variant, message, capacity);
    }
    message_set(message, capacity, "%s: format \"%s\" is not known", stored->folder, format);
    return false;
}

struct stored_case *case_load(const char *folder, enum instance_variant variant, char *message, size_t capacity)
{
    struct case_files files;
    struct stored_case *stored = calloc(1, sizeof *stored);
    if (!stored || strlen(folder) >= sizeof stored->folder || !files_read(folder, &files, message, capacity)) {
        if (!stored) message_set(message, capacity, "no memory for %s", folder);
        free(stored);
        return NULL;
    }
    snprintf(stored->folder, sizeof stored->folder, "%s", folder);
    stored->supported = read_case(stored, &files, variant, message, capacity);
    files_free(&files);
    if (stored->supported) return stored;
    case_free(stored);
    return NULL;
}

void case_free(struct stored_case *stored)
{
    if (!stored) return;
    instance_free(stored->instance);
    free(stored->o);
    free(stored->lse);
    free(stored->scores);
    free(stored->o_bound);
    free(stored->lse_bound);
    if (stored->files) files_free(stored->files);
    free(stored->files);
    free(stored);
}

/* ---- comparing --------------------------------------------------------------------- */

/* u and half the smallest denormal of an output type: what storing adds to a bound that was made for f32. */
static double widened(heed_type type, double bound, double want)
{
    if (type == HEED_F16) return bound + 0x1p-11 * (fabs(want) + bound) + 0x1p-25;
    if (type == HEED_BF16) return bound + 0x1p-8 * (fabs(want) + bound) + 0x1p-134;
    return bound;
}

struct comparison {
    const struct stored_case *stored;
    struct outcome *outcome;
};

static void compare(struct comparison *c, int output, const int32_t place[4], double got, double want, const double *bound)
{
    heed_check_report *r = &c->outcome->report;
    double allowed = bound ? *bound : c->stored->atol + c->stored->rtol * fabs(want);
    if (bound && output == 0 && c->stored->kind == CASE_HEED_1) allowed = widened(c->stored->instance->problem.o_type, allowed, want);
    const double error = fabs(got - want);
    const bool good = got == want || error <= allowed || (isnan(got) && isnan(want));
    const double ratio = got == want || (isnan(got) && isnan(want)) ? 0 : allowed > 0 && error < INFINITY ? error / allowed : INFINITY;
    r->elements++;
    r->outside += !good;
    if (error < INFINITY && error > r->max_abs_error) r->max_abs_error = error;
    if (bound && allowed > 0 && error < INFINITY) {
        c->outcome->bounded++;
        c->outcome->beyond_tenth += error > allowed / 10;
        c->outcome->signed_ratio += (got - want) / allowed;
        c->outcome->squared_ratio += error / allowed * (error / allowed);
    }
    if (!(ratio > r->worst_ratio)) return;
    r->worst_ratio = ratio;
    r->worst_output = output;
    r->worst_batch = place[0];
    r->worst_head = place[1];
    r->worst_token = place[2];
    r->worst_dim = place[3];
    r->got = got;
    r->expected = want;
    r->bound = allowed;
}

static double element_of(heed_type type, const unsigned char *row, int32_t d)
{
    double x;
    row_to_f64(type, row + d * type_row_bytes(type, 1), 1.0f, &x, 1);
    return x;
}

static void compare_row(struct comparison *c, int32_t b, int32_t h, int32_t i, int64_t n)
{
    const struct stored_case *s = c->stored;
    const struct instance *in = s->instance;
    const int32_t dim = in->problem.v_head_dim;
    const unsigned char *o = instance_query_row(in, ROLE_O, b, h, i);
    for (int32_t d = 0; s->o && d < dim; d++)
        compare(c, 0, (const int32_t[4]){b, h, i, d}, element_of(in->problem.o_type, o, d), s->o[n * dim + d],
                s->o_bound ? &s->o_bound[n * dim + d] : NULL);
    if (s->lse && in->shape[ROLE_LSE].given)
        compare(c, 1, (const int32_t[4]){b, h, i, -1}, element_of(HEED_F32, instance_query_row(in, ROLE_LSE, b, h, i), 0), s->lse[n],
                s->lse_bound ? &s->lse_bound[n] : NULL);
    for (int32_t j = 0; s->scores && j < in->kv_lens[b]; j++)
        compare(c, 2, (const int32_t[4]){b, h, i, j}, element_of(HEED_F32, instance_query_row(in, ROLE_SCORES, b, h, i), j),
                s->scores[n * in->line.kv_len + j], NULL);
}

static void compare_stored(const struct stored_case *stored, struct outcome *outcome)
{
    struct comparison c = {stored, outcome};
    const struct instance *in = stored->instance;
    int64_t n = 0;
    outcome->report = (heed_check_report){.struct_size = sizeof outcome->report};
    for (int32_t b = 0; b < in->line.batch; b++)
        for (int32_t h = 0; h < in->problem.q_heads; h++)
            for (int32_t i = 0; i < in->q_lens[b]; i++) compare_row(&c, b, h, i, n++);
}

/* ---- checking ------------------------------------------------------------------------- */

static bool poisoned_run(heed_context *context, int32_t device, const char *kernel, struct stored_case *stored, enum hidden with,
                         struct outcome *outcome)
{
    struct outcome again;
    static const char *const names[] = {"NaN and infinity", "0"};
    if (!instance_hide(stored->instance, with) || !instance_seal(stored->instance)) {
        outcome->verdict = VERDICT_FAIL;
        message_set(outcome->message, sizeof outcome->message, "no memory to hide keys");
        return false;
    }
    instance_check(context, device, kernel, stored->instance, &again);
    if (again.verdict == VERDICT_PASS && again.bits == outcome->bits) return true;
    outcome->verdict = VERDICT_FAIL;
    message_set(outcome->message, sizeof outcome->message, "with %s in hidden keys: %s", names[with],
                again.verdict == VERDICT_PASS ? "other bits" : again.message);
    return false;
}

/* Does the row round its weights to 16 bits before they meet V? Stored bounds are those of f32 weights; such a row has a wider one of its own. */
static bool rounds_weights(heed_context *context, int32_t device, const char *name)
{
    struct device *d;
    const struct kernel_row *row;
    if (device_get(context, device, &d) != HEED_OK) return false;
    for (int32_t n = 0; (row = registry_row(d->backend, n)); n++)
        if (!strcmp(row->name, name)) return row->arithmetic.weight_type == HEED_BF16 || row->arithmetic.weight_type == HEED_F16;
    return false;
}

/* The instance's own check, by the row's own bound, leaves the outputs in place: they are compared with what is stored. */
static void attention_check(heed_context *context, int32_t device, const char *kernel, struct stored_case *stored, struct outcome *outcome)
{
    instance_check(context, device, kernel, stored->instance, outcome);
    if (outcome->verdict != VERDICT_PASS) return;
    const heed_check_report own = outcome->report;
    if (!rounds_weights(context, device, own.kernel)) compare_stored(stored, outcome);
    memcpy(outcome->report.kernel, own.kernel, sizeof own.kernel);
    if (outcome->report.outside) {
        const heed_check_report *r = &outcome->report;
        outcome->verdict = VERDICT_FAIL;
        message_set(outcome->message, sizeof outcome->message, "output %d [%lld %lld %lld %lld] is %g, stored %g, allowed %g; %llu of %llu outside",
                    r->worst_output, (long long)r->worst_batch, (long long)r->worst_head, (long long)r->worst_token, (long long)r->worst_dim, r->got,
                    r->expected, r->bound, (unsigned long long)r->outside, (unsigned long long)r->elements);
        return;
    }
    if (stored->kind == CASE_ONNX) return;
    if (poisoned_run(context, device, kernel, stored, HIDDEN_ZERO, outcome)) poisoned_run(context, device, kernel, stored, HIDDEN_POISON, outcome);
}

void case_check(heed_context *context, int32_t device, const char *kernel, struct stored_case *stored, struct outcome *outcome)
{
    if (stored->instance) {
        attention_check(context, device, kernel, stored, outcome);
        return;
    }
    *outcome = (struct outcome){.verdict = VERDICT_SKIP};
    if (kernel)
        message_set(outcome->message, sizeof outcome->message, "%s is no attention: its own rows compute it", stored->op);
    else if (!strcmp(stored->op, "RotaryEmbedding"))
        onnx_rotate_check(context, device, stored, outcome);
    else
        onnx_scatter_check(context, device, stored, outcome);
}
