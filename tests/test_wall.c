/* SPDX-License-Identifier: MIT
 * test_wall.c - bound.c against the bounds that were stored with the golden cases, computed by another program from the same derivation:
 * what it adds is known (a change to base 2, dots that underflow), so the two stay close, and where a case is exact both are 0.
 */
#include "bound.h"
#include "check.h"
#include "harness.h"
#include "problem.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct ratios {
    double log_sum;
    int64_t count;
};

static void take_ratio(struct ratios *r, double ours, double stored, const char *name, const char *what, int64_t n)
{
    bool zeros = stored == 0 ? ours == 0 : ours > 0 || stored < 1e-40; /* theirs allows denormals where all values are 0 */
    cr_assert(zeros, "%s, %s %lld: bound %g, stored %g", name, what, (long long)n, ours, stored);
    if (stored < 1e-40 || !isfinite(ours)) return;
    double ratio = ours / stored;
    /* a rescale happens at most once a logit; far keys of large error cost nothing here, there they reach the convex hull */
    cr_assert(ratio > 0.8 || !strcmp(name, "logits_1e8"), "%s, %s %lld: bound %g, stored %g", name, what, (long long)n, ours, stored);
    cr_assert(ratio < 2, "%s, %s %lld: bound %g, stored %g", name, what, (long long)n, ours, stored);
    r->log_sum += log(ratio);
    r->count++;
}

/* The bounds of one case, row by row. */
static void compare_case(heed_context *context, struct stored_case *stored, struct ratios *o, struct ratios *lse)
{
    const struct instance *in = stored->instance;
    struct prepared run;
    struct call call;
    double bound[MAX_HEAD_DIM], lse_bound;
    int64_t n = 0;
    if (prepared_make(context, 0, "reference", in, false, &run) != HEED_OK) cr_assert_fail("%s: %s", stored->name, heed_error_message());
    cr_assert_eq(tensors_take(run.plan, run.batch, &run.tensors, run.workspace.data ? &run.workspace : NULL, false, &call), HEED_OK,
                 "%s: %s", stored->name, heed_error_message());
    struct reference_row *row = reference_row_new(&context->services, &in->problem, run.batch->kv_len_max);
    call.plan = run.plan;
    for (int32_t b = 0; b < in->line.batch; b++)
        for (int32_t h = 0; h < in->problem.q_heads; h++)
            for (int32_t i = 0; i < in->q_lens[b]; i++, n++) {
                reference_compute(&call, b, h, i, row);
                bound_row(&call, b, h, i, row, &bound_wall, bound, &lse_bound);
                for (int32_t c = 0; c < in->problem.v_head_dim; c++) {
                    int64_t at = n * in->problem.v_head_dim + c;
                    double want = stored->o[at];
                    /* 1/sqrt(head_dim) is a float here, a double there */
                    cr_assert(fabs(row->o[c] - want) <= 1e-13 * fabs(want) + 0.1 * stored->o_bound[at], "%s, o %lld: %.17g, stored %.17g",
                              stored->name, (long long)at, row->o[c], want);
                    if (in->problem.o_type == HEED_F32 && !stored->uniform && !stored->zero_pattern)
                        take_ratio(o, bound[c], stored->o_bound[at], stored->name, "o", at);
                }
                if (stored->lse_bound && !stored->uniform && !stored->zero_pattern)
                    take_ratio(lse, lse_bound, stored->lse_bound[n], stored->name, "lse", n);
            }
    reference_row_delete(&context->services, row);
    prepared_release(&run);
}

Test(wall, is_the_golden_wall)
{
    heed_context *context;
    int32_t count, used = 0;
    char message[512];
    struct ratios o = {0}, lse = {0};
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = 1, .flags = HEED_NO_OPENCL | HEED_NO_ENVIRONMENT};
    cr_assert_eq(heed_context_create(&options, &context), HEED_OK);
    char **names = cases_list(HEED_BINARY_DIR "/golden", &count, message, sizeof message);
    cr_assert(names && count >= 239, "%d cases: %s", count, names ? "" : message);
    for (int32_t n = 0; n < count; n++) {
        struct stored_case *stored = case_load(names[n], INSTANCE_PLAIN, message, sizeof message);
        cr_assert(stored, "%s", message);
        if (stored->supported && stored->instance && stored->o_bound) compare_case(context, stored, &o, &lse), used++;
        case_free(stored);
        free(names[n]);
    }
    free(names);
    heed_context_destroy(context);
    cr_assert(exp(o.log_sum / (double)o.count) < 1.2 && exp(lse.log_sum / (double)lse.count) < 1.4,
              "on average %.3f and %.3f of the stored bounds", exp(o.log_sum / (double)o.count), exp(lse.log_sum / (double)lse.count));
    cr_assert(used >= 200, "%d cases used", used);
}
