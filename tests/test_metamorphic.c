/* SPDX-License-Identifier: MIT
 * test_metamorphic.c - two ways to say one thing give the same bits (doc/semantics.md, section 6): no tolerance, no reference. On every row
 * of every device, decode and prefill.
 */
#include "counting.h"
#include "harness_parts.h"
#include "schedule.h"
#include <math.h>

/* ---- two sides --------------------------------------------------------------------- */

/* Changes an instance after its data was filled in and before keys are hidden. */
typedef void edit_fn(struct instance *instance, const void *arg);

static struct instance *build(const char *text, enum instance_variant variant, edit_fn *edit, const void *arg)
{
    struct problem_line line;
    char why[256] = "";
    cr_assert(line_parse(text, &line, why, sizeof why), "%s: %s", text, why);
    struct instance *in = instance_begin(&line, variant, why, sizeof why);
    cr_assert(in && instance_lengths(in, why, sizeof why) && instance_lay_out(in, why, sizeof why), "%s: %s", text, why);
    instance_fill(in);
    if (edit) edit(in, arg);
    cr_assert(instance_hide(in, HIDDEN_POISON) && instance_seal(in), "%s: no memory", text);
    return in;
}

struct bench {
    heed_context *context;
    int32_t device;
    const char *device_name, *kernel;
    struct counts *counts;
};

/* Outputs into the instance's memory. SKIP where the row refuses or is not the row of this kind of step. */
static enum verdict run(const struct bench *bench, struct instance *in, char *why, size_t capacity)
{
    struct prepared prepared;
    heed_status status = prepared_make(bench->context, bench->device, bench->kernel, in, false, &prepared);
    if (status != HEED_OK) {
        snprintf(why, capacity, "%s", heed_error_message());
        return status == HEED_UNSUPPORTED ? VERDICT_SKIP : VERDICT_FAIL;
    }
    bool used = bench->kernel == NULL;
    for (int32_t b = 0; b < in->line.batch && !used; b++)
        used = in->q_lens[b] && !strcmp(prepared.plan->row[sequence_kind(prepared.plan, in->q_lens[b])]->name, bench->kernel);
    status = prepared_reset(&prepared);
    if (used && status == HEED_OK) status = prepared_run(&prepared);
    if (used && status == HEED_OK) status = prepared_fetch(&prepared);
    if (status != HEED_OK) snprintf(why, capacity, "%s", heed_error_message());
    if (!used) snprintf(why, capacity, "no sequence is a step of this row's kind");
    prepared_release(&prepared);
    return status != HEED_OK ? VERDICT_FAIL : used ? VERDICT_PASS : VERDICT_SKIP;
}

static bool same_row(const struct instance *a, int32_t ab, int32_t ah, int32_t ai, const struct instance *b, int32_t bb, int32_t bh, int32_t bi)
{
    const enum role roles[2] = {ROLE_O, ROLE_LSE};
    for (int n = 0; n < 2; n++) {
        if (!a->shape[roles[n]].given || !b->shape[roles[n]].given) continue;
        if (memcmp(instance_query_row(a, roles[n], ab, ah, ai), instance_query_row(b, roles[n], bb, bh, bi), (size_t)a->shape[roles[n]].row_bytes))
            return false;
    }
    return true;
}

static void count_verdict(const struct bench *bench, const char *name, const char *line, enum verdict verdict, const char *why)
{
    struct outcome outcome = {.verdict = verdict};
    char text[800];
    snprintf(outcome.message, sizeof outcome.message, "%s", why);
    snprintf(text, sizeof text, "%s: %s", name, line);
    count_outcome(bench->counts, bench->device_name, bench->kernel, text, &outcome);
}

/* Both sides run, every row compared: row (b, h, i) of one with row (b, h, i) of the other. */
static void expect_same(const struct bench *bench, const char *name, struct instance *a, struct instance *b)
{
    char why[512] = "";
    enum verdict verdict = run(bench, a, why, sizeof why);
    if (verdict == VERDICT_PASS) verdict = run(bench, b, why, sizeof why);
    for (int32_t s = 0; s < a->line.batch && verdict == VERDICT_PASS; s++)
        for (int32_t h = 0; h < a->problem.q_heads; h++)
            for (int32_t i = 0; i < a->q_lens[s]; i++)
                if (!same_row(a, s, h, i, b, s, h, i) && verdict == VERDICT_PASS) {
                    verdict = VERDICT_FAIL;
                    snprintf(why, sizeof why, "row b %d, h %d, i %d differs from that of \"%.300s\"", (int)s, (int)h, (int)i, b->line.text);
                }
    count_verdict(bench, name, a->line.text, verdict, why);
    instance_free(a);
    instance_free(b);
}

/* ---- edits ---------------------------------------------------------------------------- */

/* Rows of q, k and v from another instance; KV head h takes the head that h / (heads here / heads there) was there. */
static void copy_rows(struct instance *in, const void *arg)
{
    const struct instance *from = arg;
    const int32_t times = in->problem.kv_heads / from->problem.kv_heads;
    const enum role roles[4] = {ROLE_K, ROLE_V, ROLE_K_SCALE, ROLE_V_SCALE};
    for (int32_t b = 0; b < in->line.batch; b++)
        for (int n = 0; n < 4; n++)
            for (int32_t g = 0; g < in->problem.kv_heads && in->shape[roles[n]].given; g++)
                for (int32_t j = 0; j < in->kv_lens[b] && j < from->kv_lens[b]; j++)
                    memcpy(instance_key_row(in, roles[n], b, g, j), instance_key_row(from, roles[n], b, g / times, j),
                           (size_t)in->shape[roles[n]].row_bytes);
}

/* K and V of a shorter instance, and ranges that hide the keys behind them. */
static void first_keys(struct instance *in, const void *arg)
{
    const struct instance *shorter = arg;
    copy_rows(in, shorter);
    for (int32_t b = 0; b < in->line.batch; b++)
        for (int32_t i = 0; i < in->q_lens[b]; i++)
            memcpy(instance_query_row(in, ROLE_KEY_RANGE, b, 0, i), (const int32_t[2]){0, shorter->kv_lens[b]}, 2 * sizeof(int32_t));
}

static void show_all(struct instance *in, const void *arg)
{
    (void)arg;
    for (int32_t b = 0; b < in->line.batch; b++)
        for (int32_t h = 0; h < in->problem.q_heads; h++)
            for (int32_t i = 0; i < in->q_lens[b]; i++)
                memset(instance_query_row(in, ROLE_MASK, b, h, i), 0xFF,
                       (size_t)(in->problem.flags & HEED_MASK_BITS ? (in->kv_lens[b] + 7) / 8 : in->kv_lens[b]));
}

/* The mask that says what another instance's key ranges say. */
static void mask_of_ranges(struct instance *in, const void *arg)
{
    const struct instance *ranges = arg;
    int32_t begin, end;
    for (int32_t b = 0; b < in->line.batch; b++)
        for (int32_t i = 0; i < in->q_lens[b]; i++) {
            instance_range(ranges, b, i, &begin, &end);
            for (int32_t h = 0; h < in->problem.q_heads; h++)
                for (int32_t j = 0; j < in->kv_lens[b]; j++) instance_query_row(in, ROLE_MASK, b, h, i)[j] = j >= begin && j < end;
        }
}

/* The mask that says what causality and windows of another instance say. */
static void every_position(struct instance *in, const void *arg)
{
    const struct instance *from = arg;
    int32_t *next = in->q_positions = calloc((size_t)in->q_total + 1, sizeof *next);
    for (int32_t b = 0; b < in->line.batch; b++)
        for (int32_t i = 0; i < in->q_lens[b]; i++) *next++ = (int32_t)instance_position(from, b, i);
    in->lengths.q_positions = in->q_positions;
}

/* The same relative positions with key 0 elsewhere. */
static void shifted(struct instance *in, const void *arg)
{
    const struct instance *from = arg;
    in->q_position = calloc((size_t)in->line.batch + 1, sizeof *in->q_position);
    for (int32_t b = 0; b < in->line.batch; b++)
        in->q_position[b] = (int32_t)(instance_position(from, b, 0) - instance_first(from, b) + instance_first(in, b));
    in->lengths.q_position = in->q_position;
}

static void no_sinks(struct instance *in, const void *arg)
{
    (void)arg;
    float *sinks = (float *)(in->block[ROLE_SINKS].data + in->shape[ROLE_SINKS].start);
    for (int32_t h = 0; h < in->problem.q_heads; h++) sinks[h] = -HUGE_VALF;
}

/* q times 2 (with half the scale): powers of two change no bit. */
static void doubled(struct instance *in, const void *arg)
{
    (void)arg;
    for (int32_t b = 0; b < in->line.batch; b++)
        for (int32_t h = 0; h < in->problem.q_heads; h++)
            for (int32_t i = 0; i < in->q_lens[b]; i++) {
                float *q = (float *)instance_query_row(in, ROLE_Q, b, h, i);
                for (int32_t d = 0; d < in->problem.head_dim; d++) q[d] *= 2;
            }
}

/* One sequence of a batch, or some of its queries, alone. */
struct part {
    const struct instance *whole;
    int32_t b, q_begin, q_end;
};

static void take_part(struct instance *in, const void *arg)
{
    const struct part *part = arg;
    const struct instance *whole = part->whole;
    const enum role keys[4] = {ROLE_K, ROLE_V, ROLE_K_SCALE, ROLE_V_SCALE}, queries[4] = {ROLE_Q, ROLE_MASK, ROLE_BIAS, ROLE_KEY_RANGE};
    for (int n = 0; n < 4; n++)
        for (int32_t g = 0; g < in->problem.kv_heads && in->shape[keys[n]].given; g++)
            for (int32_t j = 0; j < in->kv_lens[0]; j++)
                memcpy(instance_key_row(in, keys[n], 0, g, j), instance_key_row(whole, keys[n], part->b, g, j), (size_t)in->shape[keys[n]].row_bytes);
    for (int n = 0; n < 4; n++)
        for (int32_t h = 0; h < (queries[n] == ROLE_KEY_RANGE ? 1 : in->problem.q_heads) && in->shape[queries[n]].given; h++)
            for (int32_t i = 0; i < in->q_lens[0]; i++)
                memcpy(instance_query_row(in, queries[n], 0, h, i), instance_query_row(whole, queries[n], part->b, h, part->q_begin + i),
                       (size_t)in->shape[queries[n]].row_bytes);
    const enum role tables[2] = {ROLE_ALIBI, ROLE_SINKS};
    for (int n = 0; n < 2; n++)
        if (in->shape[tables[n]].given)
            memcpy(in->block[tables[n]].data + in->shape[tables[n]].start, whole->block[tables[n]].data + whole->shape[tables[n]].start,
                   (size_t)in->shape[tables[n]].row_bytes);
    in->q_position = calloc(2, sizeof *in->q_position);
    in->q_position[0] = (int32_t)instance_position(whole, part->b, part->q_begin);
    in->lengths.q_position = in->q_position;
}

/* ---- the relations ------------------------------------------------------------------------ */

static void with_edit(const struct bench *bench, const char *name, const char *one, const char *other, edit_fn *edit)
{
    struct instance *a = build(one, INSTANCE_GUARD_AFTER, NULL, NULL);
    expect_same(bench, name, a, build(other, INSTANCE_GUARD_BEFORE, edit, a));
}

/* Each sequence of a packed batch as a problem of its own. words: what the batch's line has beside lengths. */
static void sequences_alone(const struct bench *bench, const char *name, const char *batch, const char *words)
{
    char why[512] = "", text[LINE_BYTES + 64];
    struct instance *whole = build(batch, INSTANCE_GUARD_AFTER, NULL, NULL);
    enum verdict verdict = run(bench, whole, why, sizeof why);
    for (int32_t b = 0; b < whole->line.batch && verdict == VERDICT_PASS; b++) {
        if (whole->q_lens[b] == 0) continue;
        snprintf(text, sizeof text, "b1 q%d kv%d %s", (int)whole->q_lens[b], (int)whole->kv_lens[b], words);
        const struct part part = {whole, b, 0, whole->q_lens[b]};
        struct instance *alone = build(text, INSTANCE_GUARD_BEFORE, take_part, &part);
        const enum verdict own = run(bench, alone, why, sizeof why);
        if (own == VERDICT_FAIL) verdict = own;
        for (int32_t h = 0; h < alone->problem.q_heads && own == VERDICT_PASS; h++)
            for (int32_t i = 0; i < alone->q_lens[0]; i++)
                if (!same_row(whole, b, h, i, alone, 0, h, i) && verdict == VERDICT_PASS) {
                    verdict = VERDICT_FAIL;
                    snprintf(why, sizeof why, "row b %d, h %d, i %d is another when alone: \"%.300s\"", (int)b, (int)h, (int)i, text);
                }
        instance_free(alone);
    }
    count_verdict(bench, name, batch, verdict, why);
    instance_free(whole);
}

/* HEED_INVARIANT: all queries at once, in pieces, token by token. */
static void in_pieces(const struct bench *bench, const char *name, int32_t q_len, int32_t kv_len, const char *words)
{
    static const int32_t pieces[] = {1, 1, 2, 7, 16, 33, 5};
    char why[512] = "", text[LINE_BYTES + 64], line[LINE_BYTES];
    snprintf(line, sizeof line, "b1 q%d kv%d %s", (int)q_len, (int)kv_len, words);
    struct instance *whole = build(line, INSTANCE_GUARD_AFTER, NULL, NULL);
    enum verdict verdict = run(bench, whole, why, sizeof why);
    int32_t begin = 0;
    for (size_t n = 0; begin < q_len && verdict == VERDICT_PASS; n++) {
        const int32_t want = pieces[n % (sizeof pieces / sizeof *pieces)], count = begin + want > q_len ? q_len - begin : want;
        snprintf(text, sizeof text, "b1 q%d kv%d %s", (int)count, (int)kv_len, words);
        const struct part part = {whole, 0, begin, begin + count};
        struct instance *piece = build(text, INSTANCE_GUARD_BEFORE, take_part, &part);
        if (run(bench, piece, why, sizeof why) != VERDICT_PASS) verdict = VERDICT_FAIL;
        for (int32_t h = 0; h < piece->problem.q_heads && verdict == VERDICT_PASS; h++)
            for (int32_t i = 0; i < count; i++)
                if (!same_row(whole, 0, h, begin + i, piece, 0, h, i) && verdict == VERDICT_PASS) {
                    verdict = VERDICT_FAIL;
                    snprintf(why, sizeof why, "row h %d, i %d is another in a piece of %d", (int)h, (int)(begin + i), (int)count);
                }
        instance_free(piece);
        begin += count;
    }
    count_verdict(bench, name, line, verdict, why);
    instance_free(whole);
}

#define BOTH(name, a, b, edit)                                          \
    snprintf(one, sizeof one, "b2 %s " a, step);                        \
    snprintf(other, sizeof other, "b2 %s " b, step);                    \
    with_edit(bench, name, one, other, edit)

static void relations(const struct bench *bench)
{
    static const char *const steps[2] = {"q1 kv700", "q37 kv150"};
    char one[LINE_BYTES], other[LINE_BYTES];
    for (int n = 0; n < 2 && !test_is_over(bench->counts); n++) {
        const char *step = steps[n];
        BOTH("repeated heads", "hq8 hk2 d64 causal lse", "hq8 hk8 d64 causal lse", copy_rows);
        BOTH("repeated heads", "hq8 hk2 d64 kv=i8 lse", "hq8 hk8 d64 kv=i8 lse", copy_rows);
        BOTH("pages", "hq4 hk2 d64 kvlens causal lse", "hq4 hk2 d64 kvlens causal lse page=16", NULL);
        BOTH("pages", "hq4 hk2 d64 kvlens kv=q8_0 lse page=1", "hq4 hk2 d64 kvlens kv=q8_0 lse page=37", NULL);
        BOTH("pages", "hq4 hk2 d64 f16 o=f32 causal lse page=4", "hq4 hk2 d64 f16 o=f32 causal lse", NULL);
        BOTH("layout", "hq4 hk2 d64 causal lse", "hq4 hk2 d64 causal lse layout=bhld", NULL);
        BOTH("wide window", "hq4 hk2 d64 lse", "hq4 hk2 d64 lse wl=5000 wr=5000", NULL);
        BOTH("wide window", "hq4 hk2 d64 causal lse", "hq4 hk2 d64 causal wl=2147483647 lse", NULL);
        BOTH("mask of all true", "hq4 hk2 d64 lse causal", "hq4 hk2 d64 lse causal mask=bool", show_all);
        BOTH("mask of all true", "hq4 hk2 d64 lse", "hq4 hk2 d64 lse mask=bits bcast=h", show_all);
        BOTH("mask of a range", "hq4 hk2 d64 lse keyrange", "hq4 hk2 d64 lse mask=bool", mask_of_ranges);
        BOTH("mask of a window", "hq4 hk2 d64 lse causal wl=40", "hq4 hk2 d64 lse mask=bool", mask_of_ranges);
        BOTH("positions one by one", "hq4 hk2 d64 lse causal wl=90 alibi pos=20", "hq4 hk2 d64 lse causal wl=90 alibi", every_position);
        BOTH("key 0 elsewhere", "hq4 hk2 d64 lse causal wl=90 alibi pos=120", "hq4 hk2 d64 lse causal wl=90 alibi kvfirst=1000", shifted);
        BOTH("sinks of -infinity", "hq4 hk2 d64 lse", "hq4 hk2 d64 lse sinks", no_sinks);
        BOTH("powers of two", "hq4 hk2 d64 lse scale=0.25", "hq4 hk2 d64 lse scale=0.125", doubled);
    }
    if (test_is_over(bench->counts)) return;
    sequences_alone(bench, "ragged", "b5 q1 kv600 kvlens hq4 hk2 d64 causal lse", "hq4 hk2 d64 causal lse");
    sequences_alone(bench, "ragged", "b5 q70 kv150 ragged hq4 hk2 d64 causal lse seed=2", "hq4 hk2 d64 causal lse seed=2");
    sequences_alone(bench, "ragged", "b5 q70 kv150 ragged page=8 hq4 hk2 d64 wl=33 sinks lse", "hq4 hk2 d64 wl=33 sinks lse");
    sequences_alone(bench, "ragged", "b4 q9 kv400 ragged hq4 hk1 d64 f16 o=f32 alibi causal lse", "hq4 hk1 d64 f16 o=f32 alibi causal lse");
    sequences_alone(bench, "ragged", "b3 q9 kv150 ragged hq4 hk2 d64 kv=i8 lse seed=3", "hq4 hk2 d64 kv=i8 lse seed=3");
    in_pieces(bench, "pieces", 70, 300, "hq8 hk2 d64 causal invariant lse");
    in_pieces(bench, "pieces", 40, 700, "hq4 hk2 d128 f16 o=f32 causal invariant wl=200 lse");
    in_pieces(bench, "pieces", 40, 90, "hq4 hk4 d40 sinks softcap=5 alibi invariant lse");
}

/* Few queries and many keys, which prefill takes in chunks; and so few keys that one chunk holds them, beside many of which no others are seen. */
static void relations_short(const struct bench *bench, const char *type)
{
    char one[LINE_BYTES], other[LINE_BYTES], words[LINE_BYTES / 2];
    snprintf(one, sizeof one, "b2 q9 kv1100 hq4 hk2 d16 %s sinks lse", type);
    snprintf(other, sizeof other, "b2 q9 kv4000 hq4 hk2 d16 %s sinks keyrange lse", type);
    with_edit(bench, "keys behind", one, other, first_keys);
    snprintf(words, sizeof words, "hq4 hk2 d16 %s wl=2900 causal lse seed=4", type);
    snprintf(other, sizeof other, "b3 q50 kv9000 ragged %s", words);
    sequences_alone(bench, "short prefill", other, words);
    snprintf(words, sizeof words, "hq8 hk1 d16 %s causal invariant lse", type);
    in_pieces(bench, "pieces", 140, 3700, words);
}

/* A few of the relations for rows that take bf16 alone. */
static void relations_bf16(const struct bench *bench)
{
    static const char *const steps[2] = {"q1 kv701", "q37 kv151"};
    char one[LINE_BYTES], other[LINE_BYTES];
    for (int n = 0; n < 2 && !test_is_over(bench->counts); n++) {
        const char *step = steps[n];
        BOTH("repeated heads", "hq8 hk2 d64 bf16 o=f32 causal lse", "hq8 hk8 d64 bf16 o=f32 causal lse", copy_rows);
        BOTH("pages", "hq4 hk2 d63 bf16 o=f32 kvlens causal lse", "hq4 hk2 d63 bf16 o=f32 kvlens causal lse page=7", NULL);
        BOTH("layout", "hq4 hk2 d64 bf16 o=f32 causal lse", "hq4 hk2 d64 bf16 o=f32 causal lse layout=bhld", NULL);
        BOTH("mask of all true", "hq4 hk2 d40 bf16 o=f32 lse", "hq4 hk2 d40 bf16 o=f32 lse mask=bits bcast=h", show_all);
        BOTH("mask of a range", "hq4 hk2 d64 bf16 o=f32 lse keyrange", "hq4 hk2 d64 bf16 o=f32 lse mask=bool", mask_of_ranges);
        BOTH("mask of a window", "hq4 hk2 d64 bf16 o=f32 lse causal wl=41", "hq4 hk2 d64 bf16 o=f32 lse mask=bool", mask_of_ranges);
        BOTH("key 0 elsewhere", "hq4 hk2 d64 bf16 o=f32 lse causal wl=90 alibi pos=120", "hq4 hk2 d64 bf16 o=f32 lse causal wl=90 alibi kvfirst=1000", shifted);
    }
    if (test_is_over(bench->counts)) return;
    sequences_alone(bench, "ragged", "b5 q70 kv150 ragged hq4 hk2 d64 bf16 o=f32 causal lse seed=2", "hq4 hk2 d64 bf16 o=f32 causal lse seed=2");
    sequences_alone(bench, "ragged", "b5 q1 kv600 kvlens hq4 hk2 d64 bf16 o=f32 causal lse", "hq4 hk2 d64 bf16 o=f32 causal lse");
    in_pieces(bench, "pieces", 70, 300, "hq8 hk2 d64 bf16 o=f32 causal invariant lse");
}

#undef BOTH

/* ---- devices --------------------------------------------------------------------------------- */

static heed_context *context_of(const char *isa, int32_t threads, bool opencl)
{
    heed_context *context = NULL;
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = threads, .cpu_features = isa,
                                          .flags = opencl ? 0 : HEED_NO_OPENCL | HEED_NO_ENVIRONMENT};
    return heed_context_create(&options, &context) == HEED_OK ? context : NULL;
}

static void relations_cpu(const char *isa)
{
    struct counts counts = {0};
    const char *row;
    if (!test_wants_isa(isa)) return;
    heed_context *context = context_of(isa, 2, false);
    char part[32];
    snprintf(part, sizeof part, "cpu.%s.", isa);
    if (!context) {
        counts.skipped++;
        fprintf(stderr, "skipped: cpu.%s: %s\n", isa, heed_error_message());
    }
    for (int32_t n = 0; context && (row = device_row(context, 0, n)); n++) {
        const struct bench bench = {context, 0, "cpu", row, &counts};
        const bool bf16 = !strcmp(isa, "avx512bf16") || !strcmp(isa, "amx"), own = !strncmp(row, part, strlen(part));
        if (own && bf16)
            relations_bf16(&bench);
        else if (own || (!strcmp(isa, "scalar") && !strcmp(row, "reference")))
            relations(&bench);
        if (own && strstr(row, ".prefill") && !test_is_over(&counts)) relations_short(&bench, bf16 ? "bf16 o=f32" : "f32");
    }
    heed_context_destroy(context);
    count_end(&counts);
}

Test(metamorphic, scalar) { relations_cpu("scalar"); }
Test(metamorphic, avx2) { relations_cpu("avx2"); }
Test(metamorphic, avx512) { relations_cpu("avx512"); }
Test(metamorphic, avx512bf16) { relations_cpu("avx512bf16"); }
Test(metamorphic, amx) { relations_cpu("amx"); }

Test(metamorphic, opencl)
{
    struct counts counts = {0};
    const char *row;
    if (!test_wants_device("opencl")) return;
    heed_context *context = context_of(NULL, 2, true);
    cr_assert(context != NULL, "%s", heed_error_message());
    const int32_t devices = heed_device_count(context);
    if (devices == 1) {
        counts.skipped++;
        fprintf(stderr, "skipped: opencl: no OpenCL device\n");
    }
    for (int32_t device = 1; device < devices; device++) {
        char name[32];
        snprintf(name, sizeof name, "opencl:%d", (int)device - 1);
        for (int32_t n = 0; (row = device_row(context, device, n)); n++) {
            const bool for_gpus = strcmp(row, "opencl.naive") && !strstr(row, "_cpu"); /* seconds of compilation for each relation */
            if (for_gpus && !getenv("HEED_TEST_ALL"))
                count_left_out(&counts, row, 1);
            else
                relations(&(struct bench){context, device, name, row, &counts});
            if (!strcmp(row, "opencl.prefill_cpu") && !test_is_over(&counts)) relations_short(&(struct bench){context, device, name, row, &counts}, "f32");
        }
    }
    heed_context_destroy(context);
    count_end(&counts);
}

/* The number of threads changes no bit; nor do instruction sets for f32 (an aim of doc/semantics.md, section 6: kept by these rows). */
static const char *const same_everywhere[] = {
    "hq16 hk4 d64 q1 kv4000 causal lse", /* all large enough to be handed to threads */
    "hq8 hk2 d64 q70 kv150 causal lse",
    "hq3 d80 q130 kv260 softcap=9 alibi lse",
    "b5 hq4 hk2 d40 q33 kv500 ragged sinks causal lse",
    "b3 hq16 hk8 d128 q1 kv900 kvlens page=16 kv=q8_0 lse",
    "b2 hq4 hk2 d64 q29 kv300 mask=bool bias=f32 lse",
};

static uint64_t bits_on(heed_context *context, const char *text)
{
    char why[512] = "";
    struct counts none = {0};
    struct instance *in = build(text, INSTANCE_GUARD_AFTER, NULL, NULL);
    const enum verdict verdict = run(&(struct bench){context, 0, "cpu", NULL, &none}, in, why, sizeof why);
    const uint64_t bits = verdict == VERDICT_PASS ? instance_bits(in) : 0;
    cr_assert(verdict == VERDICT_PASS, "%s: %s", text, why);
    instance_free(in);
    return bits;
}

Test(metamorphic, threads)
{
    struct counts counts = {0};
    enum { LINES = sizeof same_everywhere / sizeof *same_everywhere };
    uint64_t bits[LINES];
    if (!test_wants_device("cpu")) return;
    for (int32_t threads = 1; threads <= 7; threads++) {
        heed_context *context = context_of(NULL, threads, false);
        cr_assert(context != NULL, "%s", heed_error_message());
        for (int n = 0; n < LINES; n++) {
            char what[LINE_BYTES + 64];
            const uint64_t now = bits_on(context, same_everywhere[n]);
            if (threads == 1) bits[n] = now;
            snprintf(what, sizeof what, "%d threads give other bits than one: \"%s\"", (int)threads, same_everywhere[n]);
            count_check(&counts, now == bits[n], what);
        }
        heed_context_destroy(context);
    }
    count_end(&counts);
}

Test(metamorphic, instruction_sets)
{
    struct counts counts = {0};
    static const char *const isas[] = {"avx2", "avx512"};
    if (!test_wants_device("cpu")) return;
    heed_context *scalar = context_of("scalar", 2, false);
    cr_assert(scalar != NULL, "%s", heed_error_message());
    for (int s = 0; s < 2; s++) {
        heed_context *context = context_of(isas[s], 2, false);
        if (!context) {
            counts.skipped++;
            fprintf(stderr, "skipped: cpu.%s: %s\n", isas[s], heed_error_message());
            continue;
        }
        for (size_t n = 0; n < sizeof same_everywhere / sizeof *same_everywhere; n++) {
            char what[LINE_BYTES + 64];
            snprintf(what, sizeof what, "%s gives other bits than scalar: \"%s\"", isas[s], same_everywhere[n]);
            count_check(&counts, bits_on(context, same_everywhere[n]) == bits_on(scalar, same_everywhere[n]), what);
        }
        heed_context_destroy(context);
    }
    heed_context_destroy(scalar);
    count_end(&counts);
}
