/* SPDX-License-Identifier: MIT
 * test_opencl_matrix.c - rows of matrix units where there is no matrix unit: not offered on an ordinary device, and right on an emulated one, which a tuning
 * file asks for. The emulated unit has the layouts, the swizzle, the ring and the masks of the real one. More lines: script/gpu_check.
 */
#include "emulated_rig.h"
#include "opencl/cl.h"
#include <math.h>
#include <stdio.h>
#include <unistd.h>

/* With an emulated matrix unit in the layout of that number (enum cl_matrix). */
static heed_context *emulated(int like)
{
    char settings[64];
    snprintf(settings, sizeof settings, "matrix=1 mlike=%d", like);
    return emulated_context(settings);
}

Test(opencl_matrix, no_unit_no_row)
{
    heed_context *context = NULL;
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = 1};
    heed_desc desc = {.struct_size = sizeof desc, .q_heads = 2, .kv_heads = 2, .head_dim = 32, .q_type = HEED_BF16, .k_type = HEED_BF16,
                      .v_type = HEED_BF16, .o_type = HEED_BF16};
    heed_plan *plan = NULL;
    cr_assert_eq(unsetenv("HEED_TUNING"), 0);
    cr_assert_eq(heed_context_create(&options, &context), HEED_OK);
    for (int32_t device = 1; device < heed_device_count(context); device++) {
        heed_device_info info = {.struct_size = sizeof info};
        cr_assert_eq(heed_device_get_info(context, device, &info), HEED_OK);
        if (strcmp(info.family, "pocl-cpu")) continue;
        cr_assert_str_eq(info.matrix_unit, "none");
        cr_assert_eq(heed_plan_create(context, device, &desc, "opencl.prefill_matrix_bf16", &plan), HEED_UNSUPPORTED);
        cr_assert(strstr(heed_error_message(), "a matrix unit") != NULL, "%s", heed_error_message());
    }
    heed_context_destroy(context);
}

/* What no device of ours is: asked for by a tuning file, NVIDIA's assembly is still not shown to another vendor's compiler. */
Test(opencl_matrix, no_foreign_assembly)
{
    char path[] = "/tmp/heed-tuning-XXXXXX";
    heed_context *context = NULL;
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = 1};
    const int file = mkstemp(path);
    const char line[] = "\"pocl-cpu\" matrix=2\n";
    cr_assert(file >= 0 && write(file, line, sizeof line - 1) == sizeof line - 1);
    close(file);
    cr_assert_eq(setenv("HEED_TUNING", path, 1), 0);
    cr_assert_eq(heed_context_create(&options, &context), HEED_OK);
    heed_desc desc = {.struct_size = sizeof desc, .q_heads = 1, .kv_heads = 1, .head_dim = 32, .q_type = HEED_F16, .k_type = HEED_F16,
                      .v_type = HEED_F16, .o_type = HEED_F16};
    heed_plan *plan = NULL;
    for (int32_t device = 1; device < heed_device_count(context); device++) {
        heed_device_info info = {.struct_size = sizeof info};
        cr_assert_eq(heed_device_get_info(context, device, &info), HEED_OK);
        if (!strcmp(info.family, "pocl-cpu"))
            cr_assert_eq(heed_plan_create(context, device, &desc, "opencl.prefill_matrix_f16", &plan), HEED_UNSUPPORTED);
    }
    unlink(path);
    heed_context_destroy(context);
}

/* longer: the same problem, so that the compiled program is the same one, on more keys than one chunk has; or NULL. */
static void agree_both(const char *row, int like, const char *text, const char *longer)
{
    char why[256] = "";
    struct counts counts = {0};
    struct problem_line line;
    struct outcome outcome;
    if (!test_wants_device("opencl")) return;
    heed_context *context = emulated(like);
    if (!context) return;
    for (int n = 0; n < (longer ? 2 : 1); n++) {
        cr_assert(line_parse(n ? longer : text, &line, why, sizeof why), "%s", why);
        line_check(context, 1, row, &line, &outcome);
        count_outcome(&counts, "opencl:0", row, n ? longer : text, &outcome);
    }
    heed_device_info info = {.struct_size = sizeof info};
    cr_assert_eq(heed_device_get_info(context, 1, &info), HEED_OK);
    if (outcome.verdict == VERDICT_PASS) count_check(&counts, !strcmp(info.matrix_unit, "emulated"), "a matrix unit that was proved is named");
    heed_context_destroy(context);
    count_end(&counts);
}

static void agree(const char *row, int like, const char *text) { agree_both(row, like, text, NULL); }
static void agree_cut(const char *row, int like)
{
    agree_both(row, like, "hq2 hk1 d32 q35 kv49 bf16 causal lse", "hq2 hk1 d32 q35 kv1651 bf16 causal lse");
}

Test(opencl_matrix, bf16_agrees) { agree_cut("opencl.prefill_matrix_bf16", 2); }
Test(opencl_matrix, f16_agrees)
{
    agree("opencl.prefill_matrix_f16", 2, "b2 hq2 hk1 d40 dv24 q21 kv50 f16 o=f32 ragged page=5 causal wl=30 softcap=8 alibi sinks mask=bool bias=f16 lse");
}

/* AMD's and Intel's layouts, by the numbers of enum cl_matrix. */
Test(opencl_matrix, wmma3_agrees) { agree_cut("opencl.prefill_columns_bf16", 3); }
Test(opencl_matrix, wmma4_agrees) { agree("opencl.decode_columns_bf16", 4, "hq8 hk1 d32 q1 kv700 bf16 causal lse"); }
Test(opencl_matrix, mfma_agrees)
{
    agree("opencl.prefill_columns_f16", 5, "b2 hq2 hk1 d40 dv24 q21 kv50 f16 o=f32 ragged page=5 causal wl=30 softcap=8 alibi sinks mask=bool bias=f16 lse");
}
Test(opencl_matrix, dpas8_agrees)
{
    agree("opencl.decode_columns_f16", 6,
          "b2 hq4 hk2 d40 dv24 q3 kv77 f16 o=f32 ragged page=5 causal wl=30 softcap=8 alibi sinks mask=bool bias=f16 keyrange lse");
}
/* NVIDIA's warpgroups: three of them with three turns to a tile, and all features. */
Test(opencl_matrix, warpgroups_agree) { agree_cut("opencl.prefill_warpgroup3_bf16", 8); }
Test(opencl_matrix, warpgroup_agrees)
{
    agree("opencl.prefill_warpgroup2_f16", 8, "b2 hq2 hk1 d40 dv24 q21 kv50 f16 o=f32 ragged page=5 causal wl=30 softcap=8 alibi sinks mask=bool bias=f16 lse");
}
/* Tiles in boxes: three warpgroups, keys that nobody sees before and behind, and all features that the row has. */
Test(opencl_matrix, boxes_agree)
{
    agree_both("opencl.prefill_bulk3_bf16", 8, "hq2 hk1 d32 q35 kv149 pos=60 bf16 causal wl=20 lse", "hq2 hk1 d32 q35 kv1651 pos=1520 bf16 causal wl=20 lse");
}
Test(opencl_matrix, boxes_of_all_features_agree)
{
    agree("opencl.prefill_bulk2_f16", 8, "b2 hq2 hk1 d40 dv24 q21 kv50 f16 o=f32 ragged causal wl=30 softcap=8 alibi sinks mask=bool bias=f16 lse");
}
Test(opencl_matrix, dpas16_agrees) { agree_cut("opencl.prefill_columns_bf16", 7); }

/* ---- local memory beyond what a driver names ------------------------------------------ */

/* The kernel that fills it, on a device that has so much; here the driver says the truth, so the probe itself is what is tested. */
Test(opencl_matrix, local_memory_is_found_by_filling_it)
{
    struct counts counts = {0};
    heed_context *context = NULL;
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = 1};
    struct problem problem;
    cl_ulong bytes = 0, before = (cl_ulong)-1;
    if (!test_wants_device("opencl")) return;
    cr_assert_eq(unsetenv("HEED_TUNING"), 0);
    cr_assert_eq(heed_context_create(&options, &context), HEED_OK);
    cr_assert_eq(cl_unit_problem(HEED_F16, &problem), HEED_OK);
    for (int32_t device = 1; device < heed_device_count(context); device++) {
        struct cl_device *d = cl_device_of(context->devices[device]);
        if (d->family != FAMILY_POCL_CPU || cl_device_open(d) != HEED_OK) continue;
        for (int n = 0; cl_local_row(n, &bytes); n++) {
            bool wrong = false;
            count_check(&counts, bytes < before, "the largest first");
            before = bytes;
            if (bytes > d->local_bytes) continue;
            const heed_status status = cl_unit_case(d, &problem, cl_local_row(n, &bytes), &wrong);
            count_check(&counts, status == HEED_OK && !wrong, "every word keeps what was written there");
        }
        break;
    }
    heed_context_destroy(context);
    count_end(&counts);
}

/* ---- f32 as three products of TF32 -------------------------------------------------- */

Test(opencl_matrix, tf32_agrees)
{
    agree_both("opencl.prefill_tf32x3", 2, "hq2 hk1 d32 q19 kv33 f32 causal lse", "hq2 hk1 d32 q19 kv1639 f32 causal lse");
}

static heed_tensor floats_of(float *data, int32_t tokens) { return (heed_tensor){.data = data, .bytes = (uint64_t)tokens * 32 * 4, .token_stride = 32, .head_stride = 32}; }

/* Chosen by its name and never else. An infinite key: its score is infinite whatever the sign of the query's small part, so weight 0 where it is -infinity. */
Test(opencl_matrix, tf32_is_asked_for)
{
    enum { QUERIES = 17, KEYS = 20, ODD_KEY = 3 };
    static float q[QUERIES * 32], k[KEYS * 32], v[KEYS * 32], o[2][QUERIES * 32];
    char text[8192];
    struct counts counts = {0};
    struct random random = {7};
    const heed_desc desc = {.struct_size = sizeof desc, .q_heads = 1, .kv_heads = 1, .head_dim = 32, .q_type = HEED_F32, .k_type = HEED_F32, .v_type = HEED_F32,
                            .o_type = HEED_F32};
    const heed_lengths lengths = {.struct_size = sizeof lengths, .batch = 1, .q_len = QUERIES, .kv_len = KEYS};
    heed_tensors tensors = {.struct_size = sizeof tensors, .q = floats_of(q, QUERIES), .k = floats_of(k, KEYS), .v = floats_of(v, KEYS)};
    static _Alignas(64) char space[1 << 16];
    const heed_tensor workspace = {.data = space, .bytes = sizeof space};
    heed_plan *plan = NULL;
    if (!test_wants_device("opencl")) return;
    heed_context *context = emulated(2);
    if (!context) return;
    cr_assert_eq(heed_plan_create(context, 1, &desc, NULL, &plan), HEED_OK, "%s", heed_error_message());
    heed_plan_explain(plan, text, sizeof text);
    count_check(&counts, strstr(text, "only where it is asked for by name") != NULL && strstr(text, "opencl.prefill_tf32x3      yes") == NULL, "not chosen by itself");
    heed_plan_destroy(plan);
    for (int n = 0; n < QUERIES * 32; n++) q[n] = (float)fabs(random_normal(&random)) + 0.01f;
    for (int n = 0; n < KEYS * 32; n++) k[n] = (float)random_normal(&random), v[n] = (float)random_normal(&random);
    k[ODD_KEY * 32 + 5] = -INFINITY;
    for (int run = 0; run < 2; run++) {
        heed_batch *batch = NULL;
        tensors.o = floats_of(o[run], QUERIES);
        cr_assert_eq(heed_plan_create(context, run, &desc, run ? "opencl.prefill_tf32x3" : "reference", &plan), HEED_OK, "%s", heed_error_message());
        cr_assert_eq(heed_batch_create(plan, &lengths, &batch), HEED_OK);
        const size_t bytes = heed_batch_workspace_size(batch); /* of the reference */
        cr_assert_leq(bytes, sizeof space);
        cr_assert_eq(heed_run(plan, batch, &tensors, bytes ? &workspace : NULL), HEED_OK, "%s", heed_error_message());
        heed_batch_destroy(batch);
        heed_plan_destroy(plan);
    }
    bool near = true;
    for (int n = 0; n < QUERIES * 32; n++) near = near && fabsf(o[0][n] - o[1][n]) < 1e-5f;
    count_check(&counts, near, "an infinite score is made again");
    heed_context_destroy(context);
    count_end(&counts);
}

/* ---- bits ------------------------------------------------------------------------ */

enum { Q_LEN = 19, KV_LEN = 33, HEADS = 2, DIM = 32, ROOM = KV_LEN * HEADS * DIM + 1, BF16_NAN = 0x7fc1, BF16_INFINITY = 0x7f80, BF16_MINUS = 0xff80 };

/* The line of bf16_agrees, so that the compiled program is the same one. Query i sees keys up to i + 14. */
struct case_of_bits {
    _Alignas(64) uint16_t q[ROOM];
    _Alignas(64) uint16_t k[ROOM];
    _Alignas(64) uint16_t v[ROOM];
    _Alignas(64) uint16_t o[ROOM];
    float lse[Q_LEN * HEADS];
};

static heed_tensor rows_of(uint16_t *data, int32_t tokens, int32_t heads)
{
    return (heed_tensor){.data = data, .bytes = (uint64_t)tokens * (uint64_t)heads * DIM * 2, .head_stride = DIM, .token_stride = heads * DIM,
                         .batch_stride = (int64_t)tokens * heads * DIM};
}

/* shift: elements between the arrays' beginning and the tensors', so that no row lies at a multiple of 16 bytes. */
static void run_bits(heed_context *context, const char *row, struct case_of_bits *x, int shift)
{
    const heed_desc desc = {.struct_size = sizeof desc, .q_heads = HEADS, .kv_heads = 1, .head_dim = DIM, .q_type = HEED_BF16, .k_type = HEED_BF16,
                            .v_type = HEED_BF16, .o_type = HEED_BF16, .flags = HEED_CAUSAL | HEED_WRITE_LSE};
    const heed_lengths lengths = {.struct_size = sizeof lengths, .batch = 1, .q_len = Q_LEN, .kv_len = KV_LEN};
    const heed_tensors tensors = {.struct_size = sizeof tensors, .q = rows_of(x->q + shift, Q_LEN, HEADS), .k = rows_of(x->k + shift, KV_LEN, 1),
                                  .v = rows_of(x->v + shift, KV_LEN, 1), .o = rows_of(x->o + shift, Q_LEN, HEADS),
                                  .lse = {.data = x->lse, .bytes = sizeof x->lse, .head_stride = 1, .token_stride = HEADS, .batch_stride = Q_LEN * HEADS}};
    heed_plan *plan = NULL;
    heed_batch *batch = NULL;
    heed_buffer *buffer = NULL;
    cr_assert_eq(heed_plan_create(context, 1, &desc, row, &plan), HEED_OK, "%s", heed_error_message());
    plan->decode_max_q_len = 0; /* where bf16 dots are quick, PoCL's row of decode would take so few queries */
    cr_assert_eq(heed_batch_create(plan, &lengths, &batch), HEED_OK, "%s", heed_error_message());
    cr_assert(batch->work[KIND_PREFILL].count > 0 && !strcmp(batch->work[KIND_PREFILL].row->name, row));
    const size_t bytes = heed_batch_workspace_size(batch);
    cr_assert_eq(heed_buffer_create(context, 1, bytes + 64, &buffer), HEED_OK, "%s", heed_error_message());
    const heed_tensor workspace = heed_buffer_tensor(buffer, (heed_tensor){0});
    cr_assert_eq(heed_run(plan, batch, &tensors, bytes ? &workspace : NULL), HEED_OK, "%s", heed_error_message());
    heed_buffer_destroy(buffer);
    heed_batch_destroy(batch);
    heed_plan_destroy(plan);
}

static void fill_bits(struct case_of_bits *x)
{
    struct random random = {7};
    uint16_t *const all[] = {x->q, x->k, x->v};
    for (int n = 0; n < 3; n++)
        for (int c = 0; c < ROOM; c++) {
            const float value = (float)random_normal(&random);
            uint32_t bits;
            memcpy(&bits, &value, sizeof bits);
            all[n][c] = (uint16_t)(bits >> 16);
        }
}

/* NaN and infinity in V and K reach exactly those elements that see them; everything else keeps its bits, although it shares tiles with them. */
static void hidden_keys(const struct case_of_bits *plain, const struct case_of_bits *spoilt, struct counts *counts)
{
    bool good = true;
    for (int i = 0; i < Q_LEN; i++)
        for (int h = 0; h < HEADS; h++)
            for (int d = 0; d < DIM; d++) {
                const int at = (i * HEADS + h) * DIM + d, last = i + KV_LEN - Q_LEN;
                const uint16_t got = spoilt->o[at], size = got & 0x7fff;
                if (last >= 32) good = good && size > 0x7f80;                            /* a score is NaN */
                else if (last >= 20 && d == 0) good = good && size > 0x7f80;             /* a value is NaN */
                else if (last >= 25 && d == 1) good = good && size > 0x7f80;             /* infinity and -infinity */
                else if (last >= 20 && d == 1) good = good && got == BF16_INFINITY;
                else if (last >= 20 && d == 2) good = good && got == BF16_MINUS;
                else good = good && got == plain->o[at];
            }
    for (int i = 0; i < Q_LEN - 1; i++) good = good && !memcmp(&plain->lse[i * HEADS], &spoilt->lse[i * HEADS], sizeof(float) * HEADS);
    count_check(counts, good, "NaN and infinity in keys change what sees them and no other bit");
}

static void bits(const char *row, int like)
{
    static struct case_of_bits plain, spoilt, shifted;
    struct counts counts = {0};
    heed_device_info info = {.struct_size = sizeof info};
    if (!test_wants_device("opencl")) return;
    heed_context *context = emulated(like);
    if (!context) return;
    cr_assert_eq(heed_device_get_info(context, 1, &info), HEED_OK);
    if (!strcmp(info.family, "pocl-cpu")) { /* works on the caller's memory */
        fill_bits(&plain);
        shifted = spoilt = plain;
        spoilt.v[20 * DIM] = BF16_NAN;
        spoilt.v[20 * DIM + 1] = BF16_INFINITY;
        spoilt.v[20 * DIM + 2] = BF16_MINUS;
        spoilt.v[25 * DIM + 1] = BF16_MINUS;
        for (int d = 0; d < DIM; d++) spoilt.k[32 * DIM + d] = BF16_NAN;
        for (int n = ROOM - 1; n > 0; n--) shifted.q[n] = plain.q[n - 1], shifted.k[n] = plain.k[n - 1], shifted.v[n] = plain.v[n - 1];
        run_bits(context, row, &plain, 0);
        run_bits(context, row, &spoilt, 0);
        run_bits(context, row, &shifted, 1);
        hidden_keys(&plain, &spoilt, &counts);
        count_check(&counts, !memcmp(plain.o, shifted.o + 1, sizeof plain.o - 2 * sizeof *plain.o) && !memcmp(plain.lse, shifted.lse, sizeof plain.lse),
                    "rows at any address give the same bits");
    }
    heed_context_destroy(context);
    count_end(&counts);
}

Test(opencl_matrix, bits_of_rows_depend_on_what_they_see) { bits("opencl.prefill_matrix_bf16", 2); }
Test(opencl_matrix, bits_of_warpgroups_depend_on_what_they_see) { bits("opencl.prefill_warpgroup2_bf16", 8); }
Test(opencl_matrix, bits_of_boxes_depend_on_what_they_see) { bits("opencl.prefill_bulk2_bf16", 8); }
Test(opencl_matrix, bits_of_columns_depend_on_what_they_see) { bits("opencl.prefill_columns_bf16", 3); }
