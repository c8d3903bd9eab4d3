/* SPDX-License-Identifier: MIT
 * test_decode.c - what test_agree cannot see of the decode rows: the bits of a row are those of its visible keys and their places alone, on
 * every instruction set; chunks and their merge are no different from one piece; a hidden NaN stays hidden beside a visible one.
 */
#include "bound.h"
#include "dtype.h"
#include "internal.h"
#include <math.h>

enum { HEADS = 8, DIM = 72, V_DIM = 56, KEYS = 1100, QUERIES = 8 };
#include "row_rig.h"

/* ---- the same bits on every instruction set ---------------------------------- */

static const char *const lines[] = {
    "hq8 hk2 d128 q1 kv511 lse",          "hq8 hk2 d128 q1 kv512 lse",          "hq8 hk2 d128 q1 kv513 lse",
    "hq4 hk1 d64 q1 kv1024 lse",          "hq4 hk1 d64 q1 kv1025 lse",          "hq71 hk1 d40 q1 kv700 lse",
    "hq7 hk1 d80 q1 kv600 f16 o=f32 lse", "hq3 hk1 d17 dv33 q2 kv530 causal lse", "hq1 d9 dv70 q8 kv90 causal lse",
    "hq6 hk2 d64 q2 kv700 mask=bool seed=3 lse", "hq6 hk2 d64 q2 kv700 mask=bits bf16 o=f32 seed=4 lse",
    "hq4 d128 q1 kv442 bias=f16 lse", "hq8 hk2 d64 kv=i8 q2 kv600 mask=bool lse",
    "hq4 hk2 d96 q1 kv900 bias=f16 softcap=20 alibi sinks lse", "hq4 hk2 d32 q2 kv900 bias=bf16 biasfirst softcap=5 lse lse2 sinks lsenosink",
    "b3 hq8 hk2 d64 q1 kv1300 page=16 kvlens wl=600 causal lse", "b2 hq4 hk2 d64 q2 kv600 ragged keyrange lse",
    "hq8 hk2 d64 dv32 kv=q8_0 q1 kv700 lse", "hq8 hk2 d64 kv=q4_0 q1 kv700 page=7 lse", "hq8 hk2 d48 kv=i8 q1 kv700 q=f16 o=f32 lse",
    "hq8 hk2 d37 kv=f8_e4m3 q1 kv700 lse", "hq8 hk2 d37 dv65 kv=f8_e5m2 q=bf16 o=f32 q1 kv700 lse", "hq4 hk4 d576 dv512 q1 kv300 lse",
    "hq16 hk1 d1024 q1 kv520 lse", "hq2 d1 dv1 q1 kv600 lse", "hq8 hk2 d128 q1 kv2000 data=spike lse", "hq8 hk2 d128 q1 kv600 data=huge lse",
};

Test(decode, same_bits_on_every_instruction_set)
{
    struct counts counts = {0};
    char kernel[64];
    for (size_t n = 0; n < sizeof lines / sizeof *lines; n++) {
        uint64_t bits = 0;
        bool have = false;
        for (int isa = 0; isa < ISAS; isa++) {
            struct problem_line line;
            struct outcome outcome;
            char why[256];
            heed_context *context = context_of(isas[isa], "decode", kernel, sizeof kernel);
            if (!context) {
                counts.skipped++;
                continue;
            }
            cr_assert(line_parse(lines[n], &line, why, sizeof why), "%s: %s", lines[n], why);
            line_check(context, 0, kernel, &line, &outcome);
            count_outcome(&counts, "cpu", kernel, lines[n], &outcome);
            char what[300];
            snprintf(what, sizeof what, "bits of %s differ from a narrower instruction set: \"%s\"", kernel, lines[n]);
            if (have) count_check(&counts, bits == outcome.bits, what);
            bits = outcome.bits;
            have = outcome.verdict == VERDICT_PASS;
            heed_context_destroy(context);
        }
    }
    count_end(&counts);
}

/* ---- a row's bits are its own --------------------------------------------------- */

static void check_row_bits(heed_context *context, const char *kernel, struct counts *counts)
{
    static const int32_t lengths[] = {1, 15, 16, 17, 511, 512, 513, 1024, 1025, KEYS}, page_sizes[] = {1, 7, 16, 512, 640};
    data_fill(&data, 11);
    for (size_t n = 0; n < sizeof lengths / sizeof *lengths; n++) {
        const struct ask all = {.heads = HEADS, .queries = 1, .keys = lengths[n], .position = -1};
        char what[160];
        ask(context, kernel, &data, &all, &whole);
        for (int32_t heads = 1; heads <= HEADS; heads++)
            for (int32_t head = 0; head + heads <= HEADS; head += heads) {
                const struct ask part = {.head = head, .heads = heads, .queries = 1, .keys = lengths[n], .position = -1};
                ask(context, kernel, &data, &part, &other);
                for (int32_t h = 0; h < heads; h++) {
                    snprintf(what, sizeof what, "%s: head %d alone or in a group of %d, %d keys", kernel, head + h, heads, lengths[n]);
                    count_check(counts, same_row(head + h, 0, h, 0), what);
                }
            }
        for (size_t p = 0; p < sizeof page_sizes / sizeof *page_sizes; p++) {
            struct ask paged = all;
            paged.page = page_sizes[p];
            ask(context, kernel, &data, &paged, &other);
            snprintf(what, sizeof what, "%s: %d keys in pages of %d", kernel, lengths[n], page_sizes[p]);
            count_check(counts, !memcmp(&whole, &other, sizeof whole), what);
        }
        struct ask longer = all; /* the keys behind are hidden by position; then by a mask, where all chunks are computed and merged */
        longer.keys = KEYS;
        longer.position = lengths[n] - 1;
        ask(context, kernel, &data, &longer, &other);
        snprintf(what, sizeof what, "%s: %d visible keys of %d, causal", kernel, lengths[n], KEYS);
        count_check(counts, !memcmp(&whole, &other, sizeof whole), what);
        longer.position = -1;
        longer.masked = true;
        memset(data.mask[0] + lengths[n], 0, (size_t)(KEYS - lengths[n]));
        ask(context, kernel, &data, &longer, &other);
        memset(data.mask, 1, sizeof data.mask);
        snprintf(what, sizeof what, "%s: %d visible keys of %d, masked", kernel, lengths[n], KEYS);
        count_check(counts, !memcmp(&whole, &other, sizeof whole), what);
    }
}

/* One head, several queries: together or one by one, causal. */
static void check_query_bits(heed_context *context, const char *kernel, struct counts *counts)
{
    static const int32_t lengths[] = {QUERIES, 130, 512, 515, 1027};
    for (size_t n = 0; n < sizeof lengths / sizeof *lengths; n++) {
        const struct ask all = {.heads = 1, .queries = QUERIES, .keys = lengths[n], .position = lengths[n] - QUERIES};
        ask(context, kernel, &data, &all, &whole);
        for (int32_t i = 0; i < QUERIES; i++) {
            const struct ask one = {.heads = 1, .query = i, .queries = 1, .keys = all.position + i + 1, .position = all.position + i};
            char what[160];
            ask(context, kernel, &data, &one, &other);
            snprintf(what, sizeof what, "%s: query %d of %d alone, %d keys", kernel, i, QUERIES, lengths[n]);
            count_check(counts, same_row(0, i, 0, 0), what);
        }
    }
}

Test(decode, bits_of_a_row_are_its_own)
{
    struct counts counts = {0};
    char kernel[64];
    for (int isa = 0; isa < ISAS; isa++) {
        heed_context *context = context_of(isas[isa], "decode", kernel, sizeof kernel);
        if (!context) {
            counts.skipped++;
            continue;
        }
        check_row_bits(context, kernel, &counts);
        check_query_bits(context, kernel, &counts);
        heed_context_destroy(context);
    }
    count_end(&counts);
}

/* ---- hidden beside visible --------------------------------------------------------- */

/* Keys with NaN or infinity, in K or in V, seen by some queries of a tile and not by others: who does not see them has the bits of a clean
 * cache, who does has NaN. */
Test(decode, a_key_hidden_from_one_row_of_the_tile)
{
    struct counts counts = {0};
    char kernel[64];
    static struct data dirty;
    static const int32_t keys[] = {40, 600};
    for (int isa = 0; isa < ISAS; isa++) {
        heed_context *context = context_of(isas[isa], "decode", kernel, sizeof kernel);
        if (!context) {
            counts.skipped++;
            continue;
        }
        for (int variant = 0; variant < 16; variant++) {
            const int32_t kv_len = keys[variant & 1];
            const bool in_v = variant & 2, masked = variant & 4;
            const float poison = variant & 8 ? INFINITY : NAN;
            data_fill(&data, 12);
            dirty = data;
            const struct ask all = {.heads = 1, .queries = QUERIES, .keys = kv_len, .position = masked ? -1 : kv_len - QUERIES, .masked = masked};
            const int32_t spoiled = kv_len - QUERIES + 5; /* causal: queries 5, 6, 7 see it */
            for (int32_t i = 0; masked && i < 5; i++) data.mask[i][spoiled] = dirty.mask[i][spoiled] = 0;
            float *row = in_v ? dirty.v[spoiled] : dirty.k[spoiled];
            row[0] = row[17] = poison;
            ask(context, kernel, &data, &all, &whole);
            ask(context, kernel, &dirty, &all, &other);
            for (int32_t i = 0; i < QUERIES; i++) {
                char what[160];
                bool good;
                snprintf(what, sizeof what, "%s: %s %s of key %d, %s, query %d", kernel, poison > 0 ? "infinity in" : "NaN in", in_v ? "v" : "k",
                         spoiled, masked ? "masked" : "causal", i);
                if (i < 5)
                    good = same_row(0, i, 0, i);
                else if (in_v) /* that column alone */
                    good = !isfinite(other.o[0][i][0]) && !isfinite(other.o[0][i][17]) && other.o[0][i][1] == whole.o[0][i][1];
                else /* q . k is +-infinity or NaN: never a plain number, unless it hides the key */
                    good = isnan(other.o[0][i][0]) || (poison > 0 && isfinite(other.o[0][i][0]));
                count_check(&counts, good, what);
            }
        }
        heed_context_destroy(context);
    }
    count_end(&counts);
}

/* A bias at the edge of f32 in every place hides nothing: the row is the mean of its values. */
Test(decode, the_lowest_finite_bias_hides_nothing)
{
    struct counts counts = {0};
    char kernel[64];
    for (int isa = 0; isa < ISAS; isa++) {
        heed_context *context = context_of(isas[isa], "decode", kernel, sizeof kernel);
        if (!context) {
            counts.skipped++;
            continue;
        }
        static float bias[KEYS];
        float o[2] = {9, 9}, lse = 9, q[2] = {1, 2}, k[KEYS][2], v[KEYS][2];
        for (int32_t j = 0; j < KEYS; j++) {
            k[j][0] = k[j][1] = (float)(j % 3);
            v[j][0] = (float)(j % 4);
            v[j][1] = 5;
            bias[j] = -3.4028234e38f;
        }
        heed_desc desc = {.struct_size = sizeof desc, .q_heads = 1, .head_dim = 2, .flags = HEED_BIAS | HEED_WRITE_LSE};
        const heed_lengths lengths = {.struct_size = sizeof lengths, .batch = 1, .q_len = 1, .kv_len = KEYS};
        heed_tensors t = {.struct_size = sizeof t, .q = tensor_of(q, sizeof q, 0, 0), .k = tensor_of(k, sizeof k, 0, 2),
                          .v = tensor_of(v, sizeof v, 0, 2), .o = tensor_of(o, sizeof o, 0, 0), .lse = tensor_of(&lse, sizeof lse, 0, 0),
                          .bias = tensor_of(bias, sizeof bias, 0, 0)};
        cr_assert(heed_forward(context, 0, &desc, &lengths, &t) == HEED_OK, "%s", heed_error_message());
        count_check(&counts, fabsf(o[0] - 1.5f) < 1e-5f && fabsf(o[1] - 5) < 1e-5f && fabsf(lse / -3.4028234e38f - 1) < 1e-6f, kernel);
        heed_context_destroy(context);
    }
    count_end(&counts);
}

/* ---- what is a step of decode ------------------------------------------------------ */

/* A dot product ends in a tree over 16 lanes however short it is: short heads are decode for fewer rows; tiles beat it from more than 8 on; and of large
 * groups one token makes so many rows that it is prefill. */
Test(decode, longest_step)
{
    static const struct { const char *isa, *line; int32_t most, cut; } cases[] = {
        {"avx512", "hq4 d128 f32", 24, 256},          {"avx512", "hq4 d64 f32", 24, 256},         {"avx512", "hq4 d40 f32", 15, 256},
        {"avx512", "hq4 d16 f32", 8, 256},            {"avx512", "hq32 hk8 d128 bf16", 6, 64},    {"avx512", "hq16 hk1 d128 f32", 1, 16},
        {"avx512", "hq32 hk1 d128 f32", 0, 8},        {"avx512", "hq4 d128 f32 invariant", 8, 0}, {"avx2", "hq4 d40 f32", 8, 256},
        {"avx2", "hq15 hk1 d40 f32", 1, 17},          {"avx2", "hq16 hk1 d40 f32", 0, 16},        {"amx", "hq4 d128 bf16", 8, 128},
        {"amx", "hq32 hk8 d128 bf16", 2, 32},         {"amx", "hq9 hk1 d128 bf16", 0, 14},        {"amx", "hq4 d40 f32", 15, 256},
    };
    struct counts counts = {0};
    for (size_t n = 0; n < sizeof cases / sizeof *cases; n++) {
        const heed_context_options options = {.struct_size = sizeof options, .num_threads = 1, .cpu_features = cases[n].isa, .flags = HEED_NO_OPENCL | HEED_NO_ENVIRONMENT};
        char text[128], what[200], message[256] = "";
        heed_context *context = NULL;
        heed_plan *plan = NULL;
        struct problem_line line;
        if (heed_context_create(&options, &context) != HEED_OK) {
            counts.skipped++;
            continue;
        }
        snprintf(text, sizeof text, "%s q1 kv1", cases[n].line);
        cr_assert(line_parse(text, &line, message, sizeof message), "%s", message);
        cr_assert_eq(heed_plan_create(context, 0, &line.desc, NULL, &plan), HEED_OK, "%s", heed_error_message());
        snprintf(what, sizeof what, "%s, %s: decode up to %d queries, cut up to %d", cases[n].isa, cases[n].line, (int)plan->decode_max_q_len, (int)plan->short_max_q_len);
        count_check(&counts, plan->decode_max_q_len == cases[n].most && plan->short_max_q_len == cases[n].cut, what);
        heed_plan_destroy(plan);
        heed_context_destroy(context);
    }
    count_end(&counts);
}
