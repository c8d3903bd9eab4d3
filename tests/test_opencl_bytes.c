/* SPDX-License-Identifier: MIT
 * test_opencl_bytes.c - decode on a matrix unit with keys and values of 8 bits (kernels/matrix_bytes.cl), on an emulated one: every code of every type, and what is
 * not finite reaches those who see it and nobody else. More lines: script/gpu_check.
 */
#include "dtype.h"
#include "emulated_rig.h"
#include <math.h>

enum { Q_LEN = 8, KV_LEN = 40, HEADS = 2, DIM = 32, BYTES = KV_LEN * 34 };

/* Query i sees keys up to i + 32. */
struct case_of_bytes {
    heed_type type;
    float q[Q_LEN * HEADS * DIM];
    _Alignas(64) uint16_t q_bits[Q_LEN * HEADS * DIM];
    _Alignas(64) uint8_t k[BYTES];
    _Alignas(64) uint8_t v[BYTES];
    float k_scale[KV_LEN], v_scale[KV_LEN];
    float o[Q_LEN * HEADS * DIM], lse[Q_LEN * HEADS];
};

static bool has_scale(heed_type type) { return type != HEED_Q8_0; }
static int row_bytes(heed_type type) { return type == HEED_Q8_0 ? 34 : DIM; }

static void run_case(heed_context *context, int32_t device, const char *row, struct case_of_bytes *x)
{
    const heed_desc desc = {.struct_size = sizeof desc, .q_heads = HEADS, .kv_heads = 1, .head_dim = DIM, .q_type = HEED_BF16, .k_type = x->type,
                            .v_type = x->type, .o_type = HEED_F32, .flags = HEED_CAUSAL | HEED_WRITE_LSE};
    const heed_lengths lengths = {.struct_size = sizeof lengths, .batch = 1, .q_len = Q_LEN, .kv_len = KV_LEN};
    const heed_tensor keys = {.data = x->k, .bytes = (uint64_t)(KV_LEN * row_bytes(x->type)), .token_stride = row_bytes(x->type), .head_stride = row_bytes(x->type)}; /* bytes, also of blocks */
    heed_tensor values = keys;
    values.data = x->v;
    heed_tensors tensors = {.struct_size = sizeof tensors,
                            .q = {.data = x->q_bits, .bytes = sizeof x->q_bits, .head_stride = DIM, .token_stride = HEADS * DIM},
                            .k = keys,
                            .v = values,
                            .o = {.data = x->o, .bytes = sizeof x->o, .head_stride = DIM, .token_stride = HEADS * DIM},
                            .lse = {.data = x->lse, .bytes = sizeof x->lse, .head_stride = 1, .token_stride = HEADS}};
    heed_plan *plan = NULL;
    heed_batch *batch = NULL;
    static _Alignas(64) char space[1 << 18];
    const heed_tensor workspace = {.data = space, .bytes = sizeof space};
    if (has_scale(x->type)) {
        tensors.k_scale = (heed_tensor){.data = x->k_scale, .bytes = sizeof x->k_scale, .token_stride = 1};
        tensors.v_scale = (heed_tensor){.data = x->v_scale, .bytes = sizeof x->v_scale, .token_stride = 1};
    }
    cr_assert_eq(heed_plan_create(context, device, &desc, row, &plan), HEED_OK, "%s", heed_error_message());
    cr_assert_eq(heed_batch_create(plan, &lengths, &batch), HEED_OK, "%s", heed_error_message());
    cr_assert_leq(heed_batch_workspace_size(batch), sizeof space);
    cr_assert_eq(heed_run(plan, batch, &tensors, heed_batch_workspace_size(batch) ? &workspace : NULL), HEED_OK, "%s", heed_error_message());
    heed_batch_destroy(batch);
    heed_plan_destroy(plan);
}

/* Every finite code of the type, in keys and values; scales between 0.5 and 1.5. */
static void fill_case(struct case_of_bytes *x, heed_type type)
{
    struct random random = {11};
    const bool float8 = type == HEED_F8_E4M3 || type == HEED_F8_E5M2;
    memset(x, 0, sizeof *x);
    x->type = type;
    for (int n = 0; n < Q_LEN * HEADS * DIM; n++) x->q[n] = (float)random_normal(&random) * (type == HEED_F8_E5M2 ? 1e-4f : type == HEED_F8_E4M3 ? 0.01f : 0.03f);
    row_from_f32(HEED_BF16, x->q, x->q_bits, NULL, Q_LEN * HEADS * DIM);
    for (int j = 0; j < KV_LEN; j++) {
        x->k_scale[j] = 0.5f + (float)(j * 7 % KV_LEN) / KV_LEN;
        x->v_scale[j] = 0.5f + (float)(j * 11 % KV_LEN) / KV_LEN;
        for (int n = 0; n < 2; n++) {
            uint8_t *const row = (n ? x->v : x->k) + j * row_bytes(type);
            const uint16_t scale = f32_to_f16(n ? x->v_scale[j] : x->k_scale[j]);
            if (type == HEED_Q8_0) memcpy(row, &scale, sizeof scale);
            for (int d = 0; d < DIM; d++) {
                const uint8_t code = (uint8_t)(j * DIM + d + n * 131);
                const bool endless = float8 && (code & 0x7f) >= (type == HEED_F8_E4M3 ? 0x7f : 0x7c);
                row[row_bytes(type) - DIM + d] = endless ? code & 0x80 : code;
            }
        }
    }
}

static bool same_kind(float got, float want) { return isnan(want) ? isnan(got) : isinf(want) ? got == want : isfinite(got); }

/* The spoilt case on the row: infinite and NaN as the definition has it; rows before the spoilt keys, whose tiles they share, keep their bits. */
static void spoilt_case(heed_context *context, const char *row, const struct case_of_bytes *plain, struct case_of_bytes *spoilt, int first, struct counts *counts)
{
    static struct case_of_bytes wanted;
    bool kinds = true, bits = true;
    wanted = *spoilt;
    run_case(context, 0, "reference", &wanted);
    run_case(context, 1, row, spoilt);
    for (int n = 0; n < Q_LEN * HEADS * DIM; n++) {
        kinds = kinds && same_kind(spoilt->o[n], wanted.o[n]);
        if (n / (HEADS * DIM) + KV_LEN - Q_LEN < first) bits = bits && !memcmp(&spoilt->o[n], &plain->o[n], sizeof(float));
    }
    for (int n = 0; n < Q_LEN * HEADS; n++) kinds = kinds && same_kind(spoilt->lse[n], wanted.lse[n]);
    count_check(counts, kinds, "NaN and infinity as the definition has them");
    count_check(counts, bits, "and no bit of rows that do not see them");
}

static void bytes(heed_type type)
{
    static struct case_of_bytes plain, spoilt, wanted;
    const char *const row = "opencl.decode_bytes_bf16";
    struct counts counts = {0};
    heed_device_info info = {.struct_size = sizeof info};
    if (!test_wants_device("opencl")) return;
    heed_context *context = emulated_context("matrix=1 mlike=2");
    if (!context) return;
    cr_assert_eq(heed_device_get_info(context, 1, &info), HEED_OK);
    if (!strcmp(info.family, "pocl-cpu")) { /* works on the caller's memory */
        fill_case(&plain, type);
        wanted = spoilt = plain;
        run_case(context, 0, "reference", &wanted);
        run_case(context, 1, row, &plain);
        float largest = 0, off = 0;
        for (int n = 0; n < Q_LEN * HEADS * DIM; n++) {
            largest = fmaxf(largest, fabsf(wanted.o[n]));
            off = fmaxf(off, fabsf(plain.o[n] - wanted.o[n]));
        }
        count_check(&counts, largest > 0 && off < 0.01f * largest, "every code is worth what it says");
        /* values: of key 35, which the last five queries see */
        if (type == HEED_F8_E4M3) spoilt.v[35 * DIM] = 0xff;
        else if (type == HEED_F8_E5M2) spoilt.v[35 * DIM] = 0x7c, spoilt.v[35 * DIM + 1] = 0xfc, spoilt.v[35 * DIM + 2] = 0x7d;
        else if (type == HEED_I8) spoilt.v_scale[35] = INFINITY;
        else spoilt.v[35 * 34] = 0, spoilt.v[35 * 34 + 1] = 0xfc; /* -infinity */
        spoilt_case(context, row, &plain, &spoilt, 35, &counts);
        /* keys: of key 37, NaN; then all products negative and endless, which hides it */
        spoilt = plain;
        if (type == HEED_F8_E4M3) spoilt.k[37 * DIM + 3] = 0x7f;
        else if (type == HEED_F8_E5M2) spoilt.k[37 * DIM + 3] = 0xfe;
        else if (type == HEED_I8) spoilt.k_scale[37] = NAN;
        else spoilt.k[37 * 34] = 1, spoilt.k[37 * 34 + 1] = 0x7e;
        spoilt_case(context, row, &plain, &spoilt, 37, &counts);
        spoilt = plain;
        for (int n = 0; n < Q_LEN * HEADS * DIM; n++) spoilt.q_bits[n] &= 0x7fff;
        for (int d = 0; d < DIM; d++) spoilt.k[38 * row_bytes(type) + row_bytes(type) - DIM + d] = type == HEED_F8_E5M2 ? 0xfc : 0xfe;
        if (has_scale(type)) spoilt.k_scale[38] = INFINITY;
        else spoilt.k[38 * 34] = 0, spoilt.k[38 * 34 + 1] = 0x7c;
        spoilt_case(context, row, &plain, &spoilt, 0, &counts);
        spoilt.k[38 * row_bytes(type) + row_bytes(type) - DIM + 1] = 1; /* one of them positive: NaN, although the product alone is negative */
        spoilt_case(context, row, &plain, &spoilt, 0, &counts);
    }
    heed_context_destroy(context);
    count_end(&counts);
}

Test(opencl_bytes, i8) { bytes(HEED_I8); }
Test(opencl_bytes, q8_0) { bytes(HEED_Q8_0); }
Test(opencl_bytes, f8_e4m3) { bytes(HEED_F8_E4M3); }
Test(opencl_bytes, f8_e5m2) { bytes(HEED_F8_E5M2); }
