/* SPDX-License-Identifier: MIT
 * test_scores.c - scores of chosen heads and rows, and key sums: what is refused, what the sums are sums of, to the bit, and that instruction sets,
 * threads and the choice itself change no bit. That every row of the table is right stands in test_agree.c.
 */
#include "counting.h"
#include "inner.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define EXPECT(counts, condition) count_check(counts, condition, #condition)

/* ---- lengths ------------------------------------------------------------------------ */

static void refused(struct counts *c, const char *words, const heed_lengths *lengths, const char *part)
{
    struct inner inner;
    inner_begin(&inner);
    EXPECT(c, inner_problem(&inner, words) == HEED_OK);
    const heed_status status = inner_lengths(&inner, lengths);
    if (part) {
        EXPECT(c, status == HEED_INVALID_ARGUMENT && strstr(heed_error_message(), part) != NULL);
    } else {
        EXPECT(c, status == HEED_OK);
    }
    inner_end(&inner);
    EXPECT(c, inner.memory.in_use == 0);
}

Test(scores, lengths)
{
    struct counts c = {0};
    const int32_t twice[3] = {2, 0, 2}, beyond[2] = {1, 4}, below[1] = {-1}, good[3] = {3, 0, 2};
#define WITH(...) (&(heed_lengths){.struct_size = sizeof(heed_lengths), .batch = 1, .q_len = 3, .kv_len = 5, __VA_ARGS__})
    refused(&c, "hq4 scores=3", WITH(.score_rows = -1), "score_rows is -1");
    refused(&c, "hq4 keysums", WITH(.score_rows = -1), "score_rows is -1");
    refused(&c, "hq4 scores=3", WITH(.score_head_count = -2), "score_head_count is -2");
    refused(&c, "hq4 scores=3", WITH(.score_head_count = 2), "score_heads is NULL: score_head_count is 2");
    refused(&c, "hq4 scores=3", WITH(.score_head_count = 3, .score_heads = twice), "score_heads[2] is 2: so is score_heads[0]");
    refused(&c, "hq4 scores=3", WITH(.score_head_count = 2, .score_heads = beyond), "score_heads[1] is 4: there are query heads 0 to 3");
    refused(&c, "hq4 scores=3", WITH(.score_head_count = 1, .score_heads = below), "score_heads[0] is -1");
    refused(&c, "hq4 scores=3", WITH(.score_head_count = 3, .score_heads = good, .score_rows = 100), NULL);
    refused(&c, "hq4 scores=3", WITH(.score_heads = twice), NULL); /* a count of 0: all */
    refused(&c, "hq4 keysums", WITH(.score_head_count = 3, .score_heads = twice), NULL); /* sums look at no heads */
    refused(&c, "hq4", WITH(.score_head_count = -2, .score_rows = -1), NULL);            /* nobody looks at any of it */
#undef WITH
    count_end(&c);
}

/* ---- runs --------------------------------------------------------------------------- */

static heed_context *cpu_context(const char *isa, int32_t threads)
{
    heed_context *context = NULL;
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = threads, .flags = HEED_NO_OPENCL | HEED_NO_ENVIRONMENT, .cpu_features = isa};
    return heed_context_create(&options, &context) == HEED_OK ? context : NULL;
}

/* A line, run by a device. row: NULL, or the row of the pass; NULL comes back where the device does not take it. */
static struct instance *run_line_on(heed_context *context, int32_t device, const char *text, const char *row)
{
    struct problem_line line;
    struct prepared prepared;
    char why[256] = "";
    cr_assert(line_parse(text, &line, why, sizeof why), "%s", why);
    struct instance *in = instance_new(&line, INSTANCE_GUARD_AFTER, why, sizeof why);
    cr_assert(in != NULL, "%s", why);
    heed_status status = prepared_make(context, device, row, in, false, &prepared);
    if (row && status == HEED_UNSUPPORTED) {
        fprintf(stderr, "skipped: %s\n", heed_error_message());
        instance_free(in);
        return NULL;
    }
    if (status == HEED_OK) status = prepared_run(&prepared);
    if (status == HEED_OK) status = prepared_fetch(&prepared);
    cr_assert(status == HEED_OK, "%s: %s", text, heed_error_message());
    prepared_release(&prepared);
    return in;
}

static struct instance *run_line(heed_context *context, const char *text) { return run_line_on(context, 0, text, NULL); }

/* Row t of head n (score_rows or not), and a row of sums. */
static const float *score_at(const struct instance *in, int32_t b, int32_t n, int32_t t)
{
    const struct shape *s = &in->shape[ROLE_SCORES];
    const int64_t first = in->line.srows || !in->q_start ? 0 : in->q_start[b];
    return (const float *)(in->block[ROLE_SCORES].data + s->start + (in->line.srows || !in->q_start ? b : 0) * s->batch + (first + t) * s->token + n * s->head);
}

static const float *sums_at(const struct instance *in, int32_t b, int32_t h)
{
    const struct shape *s = &in->shape[ROLE_KEY_SUMS];
    return (const float *)(in->block[ROLE_KEY_SUMS].data + s->start + b * s->batch + h * s->head);
}

/* doc/semantics.md, section 6: sixteen partial sums, the tree. */
static float sum_of(const struct instance *in, int32_t b, int32_t h, int32_t rows, int32_t j)
{
    float x[16] = {0}, four[4];
    for (int32_t t = 0; t < rows; t++) x[t % 16] += score_at(in, b, h, t)[j];
    for (int n = 0; n < 4; n++) four[n] = (x[4 * n] + x[4 * n + 2]) + (x[4 * n + 1] + x[4 * n + 3]);
    return (four[0] + four[1]) + (four[2] + four[3]);
}

static bool same_float(float a, float b) { return memcmp(&a, &b, sizeof a) == 0; }

Test(scores, sums_are_sums_of_the_scores)
{
    static const char *const lines[] = {"b2 hq6 hk2 d40 q50 kv1030 causal scores=3 keysums", "b2 hq6 hk2 d40 q50 kv130 causal scores=3 keysums sumheads srows=37",
                                        "hq8 hk2 d64 q1 kv1100 f16 scores=3 keysums sinks", "hq8 hk2 d64 q5 kv600 scores=3 keysums sumheads causal",
                                        "b3 hq4 hk4 d33 q90 kv200 ragged scores=3 keysums mask=bool srows=17", "hq2 d8 q16 kv15 scores=3 keysums",
                                        "hq5 hk1 d8 q3 kv97 scores=3 keysums srows=2 bias=f32"};
    static const char *const isas[] = {"scalar", "vector", "avx2", "avx512", NULL};
    struct counts c = {0};
    for (int k = 0; k < 5; k++) {
        heed_context *context = cpu_context(isas[k], 2);
        if (!context) fprintf(stderr, "skipped: %s\n", heed_error_message());
        for (size_t n = 0; context && n < sizeof lines / sizeof *lines; n++) {
            struct instance *in = run_line(context, lines[n]);
            const bool together = in->problem.flags & HEED_KEY_SUMS_ALL_HEADS;
            int64_t wrong = 0;
            for (int32_t b = 0; b < in->line.batch; b++) {
                const int32_t rows = in->line.srows && in->line.srows < in->q_lens[b] ? in->line.srows : in->q_lens[b];
                for (int32_t h = 0; h < (together ? 1 : in->problem.q_heads); h++)
                    for (int32_t j = 0; j < in->kv_lens[b]; j++) {
                        float want = together ? 0 : sum_of(in, b, h, rows, j);
                        for (int32_t each = 0; together && each < in->problem.q_heads; each++) want += sum_of(in, b, each, rows, j);
                        wrong += !same_float(want, sums_at(in, b, h)[j]);
                    }
            }
            EXPECT(&c, wrong == 0);
            if (wrong) fprintf(stderr, "%s on %s: %lld sums\n", lines[n], isas[k] ? isas[k] : "the best", (long long)wrong);
            instance_free(in);
        }
        heed_context_destroy(context);
    }
    count_end(&c);
}

/* With one order of arithmetic for every kind of step the weights have the same bits, and so have their sums. */
Test(scores, the_same_bits_by_every_instruction_set_and_thread)
{
    static const char *const lines[] = {"b2 hq6 hk2 d40 q50 kv1030 causal keysums invariant", "hq8 hk2 d64 q1 kv1100 keysums scores=3 invariant",
                                        "hq8 hk1 d64 q5 kv600 keysums sumheads scores=2 alibi srows=4 invariant", "hq4 hk2 d64 q70 kv300 keysums sinks kv=q8_0 invariant"};
    static const struct { const char *isa; int32_t threads; } ways[] = {{"avx512", 1}, {"avx512", 5}, {"avx2", 1}, {"avx2", 3}, {"scalar", 2}};
    struct counts c = {0};
    for (size_t n = 0; n < sizeof lines / sizeof *lines; n++) {
        uint64_t bits = 0;
        bool first = true;
        for (size_t k = 0; k < sizeof ways / sizeof *ways; k++) {
            heed_context *context = cpu_context(ways[k].isa, ways[k].threads);
            if (!context) continue;
            struct instance *in = run_line(context, lines[n]);
            EXPECT(&c, first || instance_bits(in) == bits);
            bits = instance_bits(in);
            first = false;
            instance_free(in);
            heed_context_destroy(context);
        }
    }
    count_end(&c);
}

/* OpenCL's rows have the bits of the CPU: few queries or many, cut keys, heads that are passed over. */
Test(scores, opencl_has_the_same_bits)
{
    static const struct { const char *row, *line; } tried[] = {
        {"opencl.scores_cpu", "b2 hq6 hk2 d40 q50 kv300 causal keysums scores=3 sheads=5,0,3 srows=47 invariant"},
        {"opencl.scores_tile", "b2 hq6 hk2 d40 q90 kv300 causal keysums scores=3 sheads=5,0,3 srows=77 invariant"},
        {"opencl.scores_cpu", "b2 hq8 hk2 d64 q5 kv600 keysums sumheads sinks alibi srows=4 invariant ragged"}};
    struct counts c = {0};
    heed_context *context = NULL;
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = 2};
    if (!test_wants_device("opencl")) return;
    cr_assert(heed_context_create(&options, &context) == HEED_OK, "%s", heed_error_message());
    for (int32_t device = 1; device < heed_device_count(context); device++) {
        heed_device_info info = {.struct_size = sizeof info};
        if (heed_device_get_info(context, device, &info) != HEED_OK || !info.usable) continue;
        for (size_t n = 0; n < sizeof tried / sizeof *tried; n++) {
            struct instance *there = run_line_on(context, device, tried[n].line, tried[n].row);
            if (!there) continue;
            struct instance *here = run_line(context, tried[n].line);
            EXPECT(&c, instance_bits(here) == instance_bits(there));
            instance_free(here);
            instance_free(there);
        }
    }
    heed_context_destroy(context);
    count_end(&c);
}

/* Chosen rows and heads have the bits that they have among all. */
Test(scores, a_choice_changes_no_bit)
{
    struct counts c = {0};
    heed_context *context = cpu_context(NULL, 2);
    for (int stage = 0; stage < 4; stage++) {
        char all_words[128], some_words[160];
        snprintf(all_words, sizeof all_words, "b2 hq6 hk2 d40 q50 kv130 causal softcap=9 alibi scores=%d", stage);
        snprintf(some_words, sizeof some_words, "%s srows=19 sheads=5,0,3", all_words);
        struct instance *all = run_line(context, all_words), *some = run_line(context, some_words);
        const int32_t heads[3] = {5, 0, 3};
        for (int32_t b = 0; b < 2; b++)
            for (int n = 0; n < 3; n++)
                for (int32_t t = 0; t < 19; t++) EXPECT(&c, !memcmp(score_at(some, b, n, t), score_at(all, b, heads[n], 50 - 19 + t), 130 * sizeof(float)));
        instance_free(all);
        instance_free(some);
    }
    heed_context_destroy(context);
    count_end(&c);
}

/* ---- by hand ------------------------------------------------------------------------- */

/* One head of dimension 1, two queries, four keys; q and k make the logits q k. */
struct small {
    float q[2], k[4], v[4], o[2], sums[4], scores[8], bias[8];
};

static heed_status forward(heed_context *context, struct small *s, uint64_t flags, heed_tensor o)
{
#define ROWS(array) (heed_tensor){.data = array, .bytes = sizeof array, .token_stride = 1}
    const heed_desc desc = {.struct_size = sizeof desc, .q_heads = 1, .head_dim = 1, .scale = 1, .scores_stage = 3, .flags = flags};
    const heed_lengths lengths = {.struct_size = sizeof lengths, .batch = 1, .q_len = 2, .kv_len = 4};
    heed_tensors t = {.struct_size = sizeof t, .q = ROWS(s->q), .k = ROWS(s->k), .v = ROWS(s->v), .o = o, .scores = ROWS(s->scores), .bias = ROWS(s->bias),
                      .key_sums = ROWS(s->sums)};
    t.scores.token_stride = t.bias.token_stride = 4;
    return heed_forward(context, 0, &desc, &lengths, &t);
}

Test(scores, by_hand)
{
    struct counts c = {0};
    static const char *const isas[] = {"scalar", NULL};
    for (int n = 0; n < 2; n++) {
        heed_context *context = cpu_context(isas[n], 1);
        struct small s = {.q = {0, 1}, .k = {0, 0, NAN, 0}};
        const heed_tensor o = ROWS(s.o), in_place = ROWS(s.q);
        /* causal: query 0 stands at key 2 and sees the NaN, so does query 1; key 3 is seen by query 1 alone */
        EXPECT(&c, forward(context, &s, HEED_CAUSAL | HEED_WRITE_KEY_SUMS, o) == HEED_OK);
        EXPECT(&c, isnan(s.sums[0]) && isnan(s.sums[2]) && isnan(s.sums[3]));
        /* a hidden NaN is not there */
        for (int j = 0; j < 8; j++) s.bias[j] = j % 4 == 2 ? -INFINITY : 0;
        EXPECT(&c, forward(context, &s, HEED_CAUSAL | HEED_BIAS | HEED_WRITE_KEY_SUMS, o) == HEED_OK);
        EXPECT(&c, fabsf(s.sums[0] - (0.5f + 1.0f / 3)) < 1e-6f && s.sums[2] == 0 && !signbit(s.sums[2]) && fabsf(s.sums[3] - 1.0f / 3) < 1e-6f);
        /* every logit as low as a float goes: weights are 1/4 all the same */
        s.k[2] = 0;
        for (int j = 0; j < 8; j++) s.bias[j] = -FLT_MAX;
        EXPECT(&c, forward(context, &s, HEED_BIAS | HEED_WRITE_KEY_SUMS | HEED_WRITE_SCORES, o) == HEED_OK);
        for (int j = 0; j < 4; j++) EXPECT(&c, s.scores[j] == 0.25f && s.sums[j] == 0.5f);
        /* in place: o takes the room of q, which the pass reads once more */
        struct small apart = s;
        apart.q[0] = s.q[0] = 2, apart.q[1] = s.q[1] = -1, apart.k[1] = s.k[1] = 3;
        const heed_tensor elsewhere = ROWS(apart.o);
        EXPECT(&c, forward(context, &apart, HEED_WRITE_KEY_SUMS | HEED_WRITE_SCORES, elsewhere) == HEED_OK);
        EXPECT(&c, forward(context, &s, HEED_WRITE_KEY_SUMS | HEED_WRITE_SCORES, in_place) == HEED_OK);
        EXPECT(&c, !memcmp(s.q, apart.o, sizeof s.q) && !memcmp(s.sums, apart.sums, sizeof s.sums) && !memcmp(s.scores, apart.scores, sizeof s.scores));
        heed_context_destroy(context);
    }
    count_end(&c);
}
