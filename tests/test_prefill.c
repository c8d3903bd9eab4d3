/* SPDX-License-Identifier: MIT
 * test_prefill.c - what test_agree cannot see of the CPU's prefill rows: the same bits on every instruction set; a row's bits are its own,
 * whatever tile, panel or group it stands in; a key hidden from one row of a panel and seen by another; o over q; far ALiBi distances.
 */
#include "harness_parts.h"
#include <math.h>

enum { HEADS = 6, DIM = 40, V_DIM = 24, KEYS = 330, QUERIES = 150 };
#include "row_rig.h"

static struct data dirty;

/* ---- the same bits on every instruction set ---------------------------------- */

static const char *const lines[] = {
    "hq2 d128 q130 kv200 lse", "hq2 d128 q130 kv200 causal lse", "hq3 hk1 d17 dv33 q65 kv97 causal lse", "hq1 d1 dv1 q70 kv95 lse",
    "hq8 hk1 d64 q17 kv193 causal lse", "hq5 hk1 d40 q33 kv300 wl=40 wr=7 lse", "hq2 d576 dv512 q20 kv100 lse", "hq1 d1024 q18 kv30 lse",
    "hq4 hk2 d64 q50 kv260 mask=bool seed=3 lse", "hq4 hk2 d64 q50 kv260 mask=bits bf16 o=f32 seed=4 lse",
    "hq4 d96 q40 kv150 bias=f16 softcap=20 alibi sinks causal lse", "hq4 d32 q40 kv150 bias=bf16 biasfirst softcap=5 lse lse2 sinks lsenosink",
    "b3 hq4 hk2 d64 q60 kv300 page=16 kvlens causal lse", "b3 hq4 hk2 d48 q60 kv300 page=7 kvlens tree f16 o=f32 lse",
    "b2 hq4 hk2 d64 q40 kv200 ragged keyrange lse", "hq4 hk2 d64 dv32 kv=q8_0 q20 kv200 lse", "hq4 hk2 d64 kv=q4_0 q20 kv200 page=7 lse",
    "hq4 hk2 d48 kv=i8 q20 kv200 q=f16 o=f16 lse", "hq4 hk2 d37 kv=f8_e4m3 q20 kv200 q=bf16 o=bf16 lse", "hq4 hk2 d37 dv65 kv=f8_e5m2 q20 kv99 lse",
    "hq2 d64 q70 kv300 data=spike causal lse", "hq2 d64 q70 kv300 data=huge lse", "hq2 d64 q20 kv100 data=denormal lse",
    "hq4 hk2 d64 q1 kv300 invariant lse", "hq8 hk1 d64 q3 kv300 invariant causal lse", "b2 hq2 d64 q70 kv150 layout=qkv causal kv=f32 kvfirst=9 wl=30 q150 lse",
};

Test(prefill, same_bits_on_every_instruction_set)
{
    struct counts counts = {0};
    for (size_t n = 0; n < sizeof lines / sizeof *lines; n++) {
        uint64_t bits = 0;
        bool have = false;
        for (int isa = 0; isa < 2 * ISAS; isa++) {
            struct problem_line line;
            struct outcome outcome;
            char kernel[64], why[256], what[300];
            heed_context *context = context_of(isas[isa % ISAS], "prefill", kernel, sizeof kernel - 16);
            if (!context) {
                counts.skipped++;
                continue;
            }
            if (isa >= ISAS) strcat(kernel, ".grouped");
            cr_assert(line_parse(lines[n], &line, why, sizeof why), "%s: %s", lines[n], why);
            line_check(context, 0, kernel, &line, &outcome);
            if (isa < ISAS || outcome.verdict != VERDICT_SKIP) count_outcome(&counts, "cpu", kernel, lines[n], &outcome);
            snprintf(what, sizeof what, "bits of %s differ from another row's: \"%s\"", kernel, lines[n]);
            if (have && outcome.verdict == VERDICT_PASS) count_check(&counts, bits == outcome.bits, what);
            if (outcome.verdict == VERDICT_PASS) bits = outcome.bits, have = true;
            heed_context_destroy(context);
        }
    }
    count_end(&counts);
}

/* ---- a row's bits are its own --------------------------------------------------- */

/* Any heads and queries, asked for together or in parts, down to one row: as HEED_INVARIANT wants it. */
Test(prefill, bits_of_a_row_are_its_own)
{
    struct counts counts = {0};
    static const int32_t sizes[] = {1, 2, 5, 16, 17, 33, 63, 64, 65, 100};
    char kernel[64], what[200];
    for (int isa = 0; isa < ISAS; isa++) {
        heed_context *context = context_of(isas[isa], "prefill", kernel, sizeof kernel);
        if (!context) continue;
        data_fill(&data, 5);
        for (int causal = 0; causal < 2; causal++) {
            const struct ask all = {.heads = HEADS, .queries = QUERIES, .keys = KEYS, .position = causal ? KEYS - QUERIES : -1};
            ask(context, kernel, &data, &all, &whole);
            for (size_t n = 0; n < sizeof sizes / sizeof *sizes; n++)
                for (int32_t query = 3; query + sizes[n] <= QUERIES; query += 37 + sizes[n]) {
                    const int32_t head = query % HEADS, heads = 1 + (int32_t)n % (HEADS - head);
                    struct ask part = {.head = head, .heads = heads, .query = query, .queries = sizes[n], .keys = KEYS,
                                       .position = causal ? KEYS - QUERIES + query : -1};
                    if (causal) part.keys = part.position + sizes[n]; /* and no key behind the last visible one */
                    ask(context, kernel, &data, &part, &other);
                    snprintf(what, sizeof what, "%s: heads %d+%d, queries %d+%d, causal %d", kernel, head, heads, query, sizes[n], causal);
                    bool same = true;
                    for (int32_t h = 0; h < heads; h++)
                        for (int32_t i = 0; i < sizes[n]; i++) same = same && same_row(head + h, query + i, h, i);
                    count_check(&counts, same, what);
                }
        }
        heed_context_destroy(context);
    }
    count_end(&counts);
}

/* ---- hidden beside visible --------------------------------------------------------- */

/* One spoiled key, seen by the queries from `first_seen` on: who does not see it has the bits of a clean cache, who does is not a number. */
Test(prefill, a_key_hidden_from_one_row_of_the_panel)
{
    struct counts counts = {0};
    static const int32_t spoiled_keys[] = {0, 95, 96, 200, 300};
    char kernel[64], what[200];
    for (int isa = 0; isa < ISAS; isa++) {
        heed_context *context = context_of(isas[isa], "prefill", kernel, sizeof kernel);
        if (!context) continue;
        for (int variant = 0; variant < 8 * 5; variant++) {
            const int32_t spoiled = spoiled_keys[variant / 8];
            const bool in_v = variant & 1, masked = variant & 2;
            const float poison = variant & 4 ? INFINITY : NAN;
            const int32_t first_seen = masked ? 70 : spoiled - (KEYS - QUERIES) > 0 ? spoiled - (KEYS - QUERIES) : 0;
            data_fill(&data, 6);
            dirty = data;
            for (int32_t i = 0; masked && i < first_seen; i++) data.mask[i][spoiled] = dirty.mask[i][spoiled] = 0;
            float *row = in_v ? dirty.v[spoiled] : dirty.k[spoiled];
            row[0] = row[17] = poison;
            const struct ask all = {.heads = 1, .queries = QUERIES, .keys = KEYS, .position = masked ? -1 : KEYS - QUERIES, .masked = masked};
            ask(context, kernel, &data, &all, &whole);
            ask(context, kernel, &dirty, &all, &other);
            bool good = true;
            for (int32_t i = 0; i < QUERIES; i++) {
                const float *o = other.o[0][i];
                if (i < first_seen)
                    good = good && same_row(0, i, 0, i);
                else if (in_v) /* that column alone */
                    good = good && !isfinite(o[0]) && !isfinite(o[17]) && o[1] == whole.o[0][i][1];
                else /* q . k is +-infinity or NaN: never a plain number, unless it hides the key */
                    good = good && (isnan(o[0]) || (poison > 0 && isfinite(o[0])));
            }
            snprintf(what, sizeof what, "%s: %s in %s of key %d, %s", kernel, poison > 0 ? "infinity" : "NaN", in_v ? "v" : "k", spoiled,
                     masked ? "masked" : "causal");
            count_check(&counts, good, what);
        }
        heed_context_destroy(context);
    }
    count_end(&counts);
}

/* A score that overflows to -infinity hides its key: NaN in that key's V does not matter to who cannot see it. */
Test(prefill, a_key_hidden_by_overflow)
{
    struct counts counts = {0};
    char kernel[64];
    for (int isa = 0; isa < ISAS; isa++) {
        heed_context *context = context_of(isas[isa], "prefill", kernel, sizeof kernel);
        if (!context) continue;
        data_fill(&data, 7);
        for (int32_t i = 0; i < QUERIES; i++) data.q[0][i][0] = 1e20f;
        for (int32_t j = 0; j < KEYS; j++) data.k[j][0] = 0;
        dirty = data;
        for (int32_t d = 0; d < DIM; d++) data.k[50][d] = dirty.k[50][d] = 0;
        data.k[50][0] = dirty.k[50][0] = -1e30f;
        for (int32_t d = 0; d < V_DIM; d++) dirty.v[50][d] = NAN;
        const struct ask all = {.heads = 1, .queries = QUERIES, .keys = KEYS, .position = -1};
        ask(context, kernel, &data, &all, &whole);
        ask(context, kernel, &dirty, &all, &other);
        bool good = true;
        for (int32_t i = 0; i < QUERIES; i++) good = good && same_row(0, i, 0, i) && isfinite(other.o[0][i][3]);
        count_check(&counts, good, kernel);
        heed_context_destroy(context);
    }
    count_end(&counts);
}

/* ---- o over q, far distances, the lowest bias ------------------------------------------ */

Test(prefill, output_over_the_query)
{
    struct counts counts = {0};
    static float q[QUERIES][HEADS][DIM], o[QUERIES][HEADS][DIM], k[KEYS][2][DIM], v[KEYS][2][DIM];
    char kernel[64];
    for (int isa = 0; isa < ISAS; isa++) {
        heed_context *context = context_of(isas[isa], "prefill", kernel, sizeof kernel);
        if (!context) continue;
        struct random random = {8};
        for (size_t n = 0; n < sizeof q / sizeof(float); n++) (&q[0][0][0])[n] = (float)random_normal(&random);
        for (size_t n = 0; n < sizeof k / sizeof(float); n++) (&k[0][0][0])[n] = (float)random_normal(&random);
        for (size_t n = 0; n < sizeof v / sizeof(float); n++) (&v[0][0][0])[n] = (float)random_normal(&random);
        heed_desc desc = {.q_heads = HEADS, .kv_heads = 2, .head_dim = DIM, .flags = HEED_CAUSAL};
        const heed_lengths lengths = {.struct_size = sizeof lengths, .batch = 1, .q_len = QUERIES, .kv_len = KEYS};
        heed_tensors t = {.struct_size = sizeof t, .q = tensor_of(q, sizeof q, DIM, HEADS * DIM), .k = tensor_of(k, sizeof k, DIM, 2 * DIM),
                          .v = tensor_of(v, sizeof v, DIM, 2 * DIM), .o = tensor_of(o, sizeof o, DIM, HEADS * DIM)};
        run(context, kernel, &desc, &lengths, &t);
        t.o = t.q;
        run(context, kernel, &desc, &lengths, &t);
        count_check(&counts, !memcmp(q, o, sizeof q), kernel);
        heed_context_destroy(context);
    }
    count_end(&counts);
}

/* Distances beyond 2^24 are no longer whole numbers in f32. */
Test(prefill, alibi_far_away)
{
    struct counts counts = {0};
    static const int32_t positions[] = {0, 0xfffff0, 0xffff00, 1 << 24, 1000000007, -1000000007};
    static const float slopes[2] = {1e-7f, 0.5f};
    char kernel[64], what[200];
    for (int isa = 0; isa < ISAS; isa++) {
        heed_context *context = context_of(isas[isa], "prefill", kernel, sizeof kernel);
        if (!context) continue;
        data_fill(&data, 9);
        for (int n = 0; n < 6; n++) {
            const heed_desc desc = {.struct_size = sizeof desc, .q_heads = 2, .kv_heads = 1, .head_dim = DIM, .v_head_dim = V_DIM,
                                    .flags = HEED_ALIBI | HEED_WRITE_LSE};
            const heed_lengths lengths = {.struct_size = sizeof lengths, .batch = 1, .q_len = 40, .kv_len = 200, .q_position = &positions[n]};
            heed_tensors t = {.struct_size = sizeof t, .q = tensor_of(data.q, sizeof data.q, QUERIES * DIM, DIM),
                              .k = tensor_of(data.k, sizeof data.k, 0, DIM), .v = tensor_of(data.v, sizeof data.v, 0, V_DIM),
                              .o = tensor_of(whole.o, sizeof whole.o, QUERIES * V_DIM, V_DIM),
                              .lse = tensor_of(whole.lse, sizeof whole.lse, QUERIES, 1), .alibi_slopes = tensor_of(slopes, sizeof slopes, 0, 0)};
            heed_plan *plan = NULL;
            heed_check_report report = {.struct_size = sizeof report};
            cr_assert(heed_plan_create(context, 0, &desc, kernel, &plan) == HEED_OK, "%s", heed_error_message());
            const heed_status status = heed_check(plan, NULL, &lengths, &t, &report);
            snprintf(what, sizeof what, "%s: position %d: error / bound %g", kernel, positions[n], report.worst_ratio);
            count_check(&counts, status == HEED_OK && report.outside == 0, what);
            heed_plan_destroy(plan);
        }
        heed_context_destroy(context);
    }
    count_end(&counts);
}

/* A bias at the edge of f32 in every place hides nothing: the row is the mean of its values. */
Test(prefill, the_lowest_finite_bias_hides_nothing)
{
    struct counts counts = {0};
    static float bias[KEYS], k[KEYS][2], v[KEYS][2];
    char kernel[64];
    for (int isa = 0; isa < ISAS; isa++) {
        heed_context *context = context_of(isas[isa], "prefill", kernel, sizeof kernel);
        if (!context) continue;
        float o[20][2], lse[20], q[20][2];
        for (int32_t i = 0; i < 20; i++) q[i][0] = 1, q[i][1] = 2;
        for (int32_t j = 0; j < KEYS; j++) {
            k[j][0] = k[j][1] = (float)(j % 3);
            v[j][0] = (float)(j % 3);
            v[j][1] = 5;
            bias[j] = -3.4028234e38f;
        }
        heed_desc desc = {.q_heads = 1, .head_dim = 2, .flags = HEED_BIAS | HEED_WRITE_LSE};
        const heed_lengths lengths = {.struct_size = sizeof lengths, .batch = 1, .q_len = 20, .kv_len = KEYS};
        const heed_tensors t = {.struct_size = sizeof t, .q = tensor_of(q, sizeof q, 0, 2), .k = tensor_of(k, sizeof k, 0, 2),
                                .v = tensor_of(v, sizeof v, 0, 2), .o = tensor_of(o, sizeof o, 0, 2), .lse = tensor_of(lse, sizeof lse, 0, 1),
                                .bias = tensor_of(bias, sizeof bias, 0, 0)};
        run(context, kernel, &desc, &lengths, &t);
        count_check(&counts, fabsf(o[19][0] - 1) < 1e-5f && fabsf(o[19][1] - 5) < 1e-5f && fabsf(lse[19] / -3.4028234e38f - 1) < 1e-6f, kernel);
        heed_context_destroy(context);
    }
    count_end(&counts);
}
