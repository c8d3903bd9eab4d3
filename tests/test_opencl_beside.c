/* SPDX-License-Identifier: MIT
 * test_opencl_beside.c - append, rotate and merge on an OpenCL device give what the CPU gives, and what an absent scale means to them.
 */
#include "opencl_rig.h"
#include "context.h"
#include "opencl/cl.h"

enum { CACHE_PAGES = 5, CACHE_PAGE = 4, CACHE_ROWS = CACHE_PAGES * CACHE_PAGE * RIG_KV_HEADS, NEW_TOKENS = 3 };

/* A paged f16 cache, new tokens, queries to rotate, two parts to merge: everything that one device makes of it. */
struct beside {
    uint16_t k[CACHE_ROWS * RIG_DIM], v[CACHE_ROWS * RIG_DIM];
    float x[RIG_BATCH * NEW_TOKENS * RIG_HEADS * RIG_DIM], o[2][RIG_BATCH * NEW_TOKENS * RIG_HEADS * RIG_DIM];
    float lse[2][RIG_BATCH * NEW_TOKENS * RIG_HEADS];
};

static heed_tensor beside_tensor(void *data, size_t bytes, int32_t heads, int32_t dim, int32_t tokens)
{
    return (heed_tensor){.data = data, .bytes = bytes, .head_stride = dim, .token_stride = (int64_t)heads * dim,
                         .batch_stride = (int64_t)heads * dim * tokens};
}

/* queue NULL: the blocking calls. */
static void beside_run(heed_context *context, int32_t device, cl_command_queue queue, struct beside *made)
{
    static const int32_t pages[RIG_BATCH * 2] = {4, 0, 1, 3}, first[RIG_BATCH] = {0, 2};
    struct random random = {99};
    float fresh[RIG_BATCH * NEW_TOKENS * RIG_KV_HEADS * RIG_DIM], cosine[16 * 8], sine[16 * 8];
    const heed_desc desc = {.struct_size = sizeof desc,
                            .q_heads = RIG_HEADS,
                            .kv_heads = RIG_KV_HEADS,
                            .head_dim = RIG_DIM,
                            .k_type = HEED_F16,
                            .v_type = HEED_F16,
                            .page_size = CACHE_PAGE,
                            .rope_dim = 16,
                            .rope_offset = 8,
                            .flags = HEED_WRITE_LSE};
    const heed_lengths lengths = {.struct_size = sizeof lengths, .batch = RIG_BATCH, .q_len = NEW_TOKENS, .kv_len = 7, .page_table = pages,
                                  .page_table_stride = 2, .kv_first = first};
    heed_plan *plan = NULL;
    heed_batch *batch = NULL;
    memset(made, 0x11, sizeof *made);
    for (size_t i = 0; i < sizeof fresh / sizeof *fresh; i++) fresh[i] = (float)random_normal(&random);
    for (size_t i = 0; i < sizeof made->x / sizeof *made->x; i++) made->x[i] = (float)random_normal(&random);
    for (size_t i = 0; i < 16 * 8; i++) cosine[i] = (float)cos((double)i), sine[i] = (float)sin((double)i);
    for (int part = 0; part < 2; part++) {
        for (size_t i = 0; i < sizeof made->o[0] / sizeof(float); i++) made->o[part][i] = (float)random_normal(&random);
        for (size_t i = 0; i < sizeof made->lse[0] / sizeof(float); i++)
            made->lse[part][i] = i % 4 == 0 ? -INFINITY : (float)random_normal(&random);
    }
    heed_tensors tensors = {.struct_size = sizeof tensors,
                            .k = beside_tensor(made->k, sizeof made->k, RIG_KV_HEADS, RIG_DIM, CACHE_PAGE),
                            .v = beside_tensor(made->v, sizeof made->v, RIG_KV_HEADS, RIG_DIM, CACHE_PAGE),
                            .rope_cos = beside_tensor(cosine, sizeof cosine, 1, 8, 16),
                            .rope_sin = beside_tensor(sine, sizeof sine, 1, 8, 16)};
    const heed_tensor new_rows = beside_tensor(fresh, sizeof fresh, RIG_KV_HEADS, RIG_DIM, NEW_TOKENS);
    const heed_tensor x = beside_tensor(made->x, sizeof made->x, RIG_HEADS, RIG_DIM, NEW_TOKENS);
    heed_tensor o[2], lse[2];
    for (int part = 0; part < 2; part++) {
        o[part] = beside_tensor(made->o[part], sizeof made->o[part], RIG_HEADS, RIG_DIM, NEW_TOKENS);
        lse[part] = beside_tensor(made->lse[part], sizeof made->lse[part], RIG_HEADS, 1, NEW_TOKENS);
    }
    cr_assert_eq(heed_plan_create(context, device, &desc, NULL, &plan), HEED_OK, "%s", heed_error_message());
    cr_assert_eq(heed_batch_create(plan, &lengths, &batch), HEED_OK, "%s", heed_error_message());
    if (queue) {
        cl_event appended = NULL, rotated = NULL, merged = NULL;
        cr_assert_eq(heed_append_cl(plan, batch, HEED_F32, &new_rows, &new_rows, &tensors, queue, 0, NULL, &appended), HEED_OK, "%s",
                     heed_error_message());
        cr_assert_eq(heed_rotate_cl(plan, batch, RIG_HEADS, &x, &tensors, queue, 1, &appended, &rotated), HEED_OK, "%s",
                     heed_error_message());
        cr_assert_eq(heed_merge_cl(plan, batch, &o[0], &lse[0], &o[1], &lse[1], &o[0], &lse[0], queue, 1, &rotated, &merged), HEED_OK, "%s",
                     heed_error_message());
        CL_GOOD(clWaitForEvents(1, &merged));
        clReleaseEvent(appended), clReleaseEvent(rotated), clReleaseEvent(merged);
    } else {
        cr_assert_eq(heed_append(plan, batch, HEED_F32, &new_rows, &new_rows, &tensors), HEED_OK, "%s", heed_error_message());
        cr_assert_eq(heed_rotate(plan, batch, RIG_HEADS, &x, &tensors), HEED_OK, "%s", heed_error_message());
        cr_assert_eq(heed_merge(plan, batch, &o[0], &lse[0], &o[1], &lse[1], &o[0], &lse[0]), HEED_OK, "%s", heed_error_message());
    }
    heed_batch_destroy(batch);
    heed_plan_destroy(plan);
}

/* The caches and the rotated queries to the bit, the merged rows within rounding. */
static void same_beside(const struct beside *got, const struct beside *want)
{
    cr_assert(!memcmp(got->k, want->k, sizeof got->k), "k");
    cr_assert(!memcmp(got->v, want->v, sizeof got->v), "v");
    cr_assert(!memcmp(got->x, want->x, sizeof got->x), "x");
    for (size_t i = 0; i < sizeof got->o[0] / sizeof(float); i++) cr_assert_leq(fabsf(got->o[0][i] - want->o[0][i]), 1e-6f, "o %zu", i);
    for (size_t i = 0; i < sizeof got->lse[0] / sizeof(float); i++)
        cr_assert(got->lse[0][i] == want->lse[0][i] || fabsf(got->lse[0][i] - want->lse[0][i]) <= 1e-6f, "lse %zu", i);
}

Test(opencl_beside, append_rotate_and_merge_give_what_the_cpu_gives)
{
    CL_TEST_BEGIN(context, device);
    struct device *inside;
    struct beside *cpu = malloc(sizeof *cpu), *made = malloc(sizeof *made);
    cr_assert_eq(device_get(context, device, &inside), HEED_OK);
    if (!cl_device_of(inside)->unified) {
        heed_context_destroy(context);
        cr_skip_test("no device that works on host memory");
    }
    struct lent lent = lent_make(context, device, CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE);
    beside_run(context, 0, NULL, cpu);
    beside_run(context, device, NULL, made);
    same_beside(made, cpu);
    beside_run(context, lent.device, lent.queue, made);
    same_beside(made, cpu);
    free(cpu), free(made);
    lent_free(&lent);
    heed_context_destroy(context);
}

/* An f8 cache without scales counts as one with scales of 1: with, without, and the CPU without. */
Test(opencl_beside, an_absent_scale_is_one)
{
    enum { HEADS = 2, DIM = 8, KEYS = 19 };
    CL_TEST_BEGIN(context, device);
    unsigned char k[KEYS * HEADS * DIM], v[sizeof k];
    float q[HEADS * DIM], ones[KEYS * HEADS], o[3][HEADS * DIM];
    for (size_t i = 0; i < sizeof k; i++) k[i] = (unsigned char)(0x28 + i * 7 % 32), v[i] = (unsigned char)(0x30 + i * 5 % 16); /* 0.1 .. 2 */
    for (size_t i = 0; i < HEADS * DIM; i++) q[i] = 0.1f * (float)(i + 1);
    for (size_t i = 0; i < KEYS * HEADS; i++) ones[i] = 1.0f;
    const heed_desc desc = {.struct_size = sizeof desc, .q_type = HEED_F32, .k_type = HEED_F8_E4M3, .v_type = HEED_F8_E4M3, .o_type = HEED_F32,
                            .q_heads = HEADS, .head_dim = DIM};
    const heed_lengths lengths = {.struct_size = sizeof lengths, .batch = 1, .q_len = 1, .kv_len = KEYS};
    for (int n = 0; n < 3; n++) {
        heed_tensors tensors = {.struct_size = sizeof tensors,
                                .q = beside_tensor(q, sizeof q, HEADS, DIM, 1),
                                .k = beside_tensor(k, sizeof k, HEADS, DIM, KEYS),
                                .v = beside_tensor(v, sizeof v, HEADS, DIM, KEYS),
                                .o = beside_tensor(o[n], sizeof o[n], HEADS, DIM, 1)};
        if (n == 1) tensors.k_scale = tensors.v_scale = beside_tensor(ones, sizeof ones, HEADS, 1, KEYS);
        cr_assert_eq(heed_forward(context, n == 2 ? 0 : device, &desc, &lengths, &tensors), HEED_OK, "%s", heed_error_message());
    }
    cr_assert(!memcmp(o[0], o[1], sizeof o[0]), "absent and 1 give the same bits");
    for (size_t i = 0; i < HEADS * DIM; i++) cr_assert(fabsf(o[0][i] - o[2][i]) <= 1e-5f && o[0][i] > 0.1f, "o %zu", i);
    heed_context_destroy(context);
}
