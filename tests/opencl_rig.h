/* SPDX-License-Identifier: MIT
 * opencl_rig.h - for the tests of the OpenCL wing: a device, the caller's own OpenCL objects, one attention problem with its right answer
 * from the definition. Knows nothing of the wing's inside.
 */
#ifndef HEED_OPENCL_RIG_H
#define HEED_OPENCL_RIG_H

#define CL_USE_DEPRECATED_OPENCL_1_2_APIS /* clCreateCommandQueue, which every device has */
#include "heed_opencl.h"
#include "harness.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- devices ------------------------------------------------------------------- */

static inline heed_context *cl_test_context(const char *cache_dir)
{
    heed_context *context = NULL;
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = 1, .cache_dir = cache_dir ? cache_dir : ""};
    cr_assert_eq(heed_context_create(&options, &context), HEED_OK, "%s", heed_error_message());
    return context;
}

/* The OpenCL device of the tests: the first that is usable, preferably one that works on the caller's memory. -1: none. */
static inline int32_t cl_test_device(heed_context *context)
{
    int32_t best = -1;
    for (int32_t n = heed_device_count(context) - 1; n > 0; n--) {
        heed_device_info info = {.struct_size = sizeof info};
        cr_assert_eq(heed_device_get_info(context, n, &info), HEED_OK);
        if (info.backend == HEED_BACKEND_OPENCL && info.usable && (best < 0 || !strcmp(info.family, "pocl-cpu"))) best = n;
    }
    return best;
}

#define CL_TEST_BEGIN(context, device)                                                                                           \
    heed_context *context = cl_test_context(NULL);                                                                               \
    const int32_t device = cl_test_device(context);                                                                              \
    if (device < 0) {                                                                                                            \
        heed_context_destroy(context);                                                                                           \
        cr_skip_test("no OpenCL device");                                                                                        \
    }

/* The simulator's clFlush waits for user events, and two threads are one too many for it. */
#define CL_TEST_NOT_SIMULATED(context, device)                                                                                   \
    do {                                                                                                                         \
        heed_device_info info_ = {.struct_size = sizeof info_};                                                                  \
        cr_assert_eq(heed_device_get_info(context, device, &info_), HEED_OK);                                                    \
        if (strstr(info_.name, "Oclgrind")) {                                                                                    \
            heed_context_destroy(context);                                                                                       \
            cr_skip_test("not on a simulator");                                                                                  \
        }                                                                                                                        \
    } while (0)

/* ---- one problem ------------------------------------------------------------------ */

enum { RIG_HEADS = 4, RIG_KV_HEADS = 2, RIG_DIM = 32, RIG_BATCH = 2 };

struct rig {
    heed_desc desc;
    heed_lengths lengths;
    heed_tensors tensors;     /* host memory */
    int32_t q_len, kv_len;
    size_t q_floats, kv_floats, lse_floats;
    float *q, *k, *v, *o, *lse;
    float *right, *right_lse; /* from the definition */
};

static inline heed_tensor rig_tensor(float *data, int32_t tokens, int32_t heads, int32_t dim)
{
    return (heed_tensor){.data = data, .bytes = sizeof(float) * (size_t)(RIG_BATCH * tokens * heads * dim), .head_stride = dim,
                         .token_stride = (int64_t)heads * dim, .batch_stride = (int64_t)tokens * heads * dim};
}

static inline void rig_answer(struct rig *r)
{
    heed_context *context = NULL;
    heed_plan *plan = NULL;
    heed_batch *batch = NULL;
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = 1, .flags = HEED_NO_OPENCL | HEED_NO_ENVIRONMENT};
    heed_tensors tensors = r->tensors;
    tensors.o.data = r->right;
    tensors.lse.data = r->right_lse;
    cr_assert_eq(heed_context_create(&options, &context), HEED_OK);
    cr_assert_eq(heed_plan_create(context, 0, &r->desc, "reference", &plan), HEED_OK, "%s", heed_error_message());
    cr_assert_eq(heed_batch_create(plan, &r->lengths, &batch), HEED_OK);
    const size_t bytes = (heed_batch_workspace_size(batch) + 63) / 64 * 64;
    const heed_tensor workspace = {.data = aligned_alloc(64, bytes + 64), .bytes = bytes};
    cr_assert_eq(heed_run(plan, batch, &tensors, &workspace), HEED_OK, "%s", heed_error_message());
    free(workspace.data);
    heed_batch_destroy(batch);
    heed_plan_destroy(plan);
    heed_context_destroy(context);
}

/* f32, causal, two sequences, grouped heads. */
static inline struct rig *rig_new(int32_t q_len, int32_t kv_len, uint64_t seed)
{
    struct rig *r = calloc(1, sizeof *r);
    struct random random = {seed};
    r->desc = (heed_desc){.struct_size = sizeof r->desc, .q_heads = RIG_HEADS, .kv_heads = RIG_KV_HEADS, .head_dim = RIG_DIM,
                          .flags = HEED_CAUSAL | HEED_WRITE_LSE};
    r->lengths = (heed_lengths){.struct_size = sizeof r->lengths, .batch = RIG_BATCH, .q_len = q_len, .kv_len = kv_len};
    r->q_len = q_len;
    r->kv_len = kv_len;
    r->q_floats = (size_t)(RIG_BATCH * q_len * RIG_HEADS * RIG_DIM);
    r->kv_floats = (size_t)(RIG_BATCH * kv_len * RIG_KV_HEADS * RIG_DIM);
    r->lse_floats = (size_t)(RIG_BATCH * q_len * RIG_HEADS);
    float **const all[] = {&r->q, &r->k, &r->v, &r->o, &r->right, &r->lse, &r->right_lse};
    const size_t floats[] = {r->q_floats, r->kv_floats, r->kv_floats, r->q_floats, r->q_floats, r->lse_floats, r->lse_floats};
    for (size_t n = 0; n < sizeof all / sizeof *all; n++) {
        *all[n] = malloc(floats[n] * sizeof(float));
        for (size_t i = 0; i < floats[n]; i++) (*all[n])[i] = n < 3 ? (float)random_normal(&random) : NAN;
    }
    r->tensors = (heed_tensors){.struct_size = sizeof r->tensors,
                                .q = rig_tensor(r->q, q_len, RIG_HEADS, RIG_DIM),
                                .k = rig_tensor(r->k, kv_len, RIG_KV_HEADS, RIG_DIM),
                                .v = rig_tensor(r->v, kv_len, RIG_KV_HEADS, RIG_DIM),
                                .o = rig_tensor(r->o, q_len, RIG_HEADS, RIG_DIM),
                                .lse = rig_tensor(r->lse, q_len, RIG_HEADS, 1)};
    rig_answer(r);
    return r;
}

static inline void rig_free(struct rig *r)
{
    free(r->q), free(r->k), free(r->v), free(r->o), free(r->lse), free(r->right), free(r->right_lse);
    free(r);
}

static inline void rig_clear(struct rig *r)
{
    for (size_t i = 0; i < r->q_floats; i++) r->o[i] = NAN;
    for (size_t i = 0; i < r->lse_floats; i++) r->lse[i] = NAN;
}

/* Values of order 1: a far larger distance than any bound, a far smaller one than any mistake. */
static inline bool rig_right(const struct rig *r, const float *o, const float *lse)
{
    for (size_t i = 0; i < r->q_floats; i++)
        if (!(fabsf(o[i] - r->right[i]) <= 1e-5f)) return false;
    for (size_t i = 0; lse && i < r->lse_floats; i++)
        if (!(fabsf(lse[i] - r->right_lse[i]) <= 1e-5f)) return false;
    return true;
}

/* ---- the caller's own OpenCL ---------------------------------------------------------- */

struct lent {
    cl_platform_id platform;
    cl_device_id id;
    cl_context context;
    cl_command_queue queue;
    int32_t device; /* of the heed context */
};

#define CL_GOOD(call) cr_assert_eq((call), CL_SUCCESS, #call)

/* The cl_device_id behind a device of the context, by name. */
static inline struct lent lent_make(heed_context *context, int32_t device, cl_command_queue_properties properties)
{
    struct lent lent = {.device = -1};
    heed_device_info info = {.struct_size = sizeof info};
    cl_platform_id platforms[16];
    cl_uint count = 0;
    cl_int code;
    cr_assert_eq(heed_device_get_info(context, device, &info), HEED_OK);
    CL_GOOD(clGetPlatformIDs(16, platforms, &count));
    for (cl_uint p = 0; p < count; p++) {
        cl_device_id ids[16];
        cl_uint devices = 0;
        if (clGetDeviceIDs(platforms[p], CL_DEVICE_TYPE_ALL, 16, ids, &devices) != CL_SUCCESS) continue;
        for (cl_uint d = 0; d < devices; d++) {
            char name[256] = "";
            clGetDeviceInfo(ids[d], CL_DEVICE_NAME, sizeof name, name, NULL);
            if (!strncmp(name, info.name, sizeof info.name - 1)) lent.platform = platforms[p], lent.id = ids[d];
        }
    }
    cr_assert(lent.id != NULL);
    lent.context = clCreateContext(NULL, 1, &lent.id, NULL, NULL, &code);
    CL_GOOD(code);
    lent.queue = clCreateCommandQueue(lent.context, lent.id, properties, &code);
    CL_GOOD(code);
    cr_assert_eq(heed_context_add_cl_device(context, lent.context, lent.id, &lent.device), HEED_OK, "%s", heed_error_message());
    return lent;
}

static inline void lent_free(struct lent *lent)
{
    clReleaseCommandQueue(lent->queue);
    clReleaseContext(lent->context);
}

static inline cl_mem lent_buffer(const struct lent *lent, const void *from, size_t bytes)
{
    cl_int code;
    cl_mem mem = clCreateBuffer(lent->context, CL_MEM_READ_WRITE | (from ? CL_MEM_COPY_HOST_PTR : 0), bytes, (void *)from, &code);
    CL_GOOD(code);
    return mem;
}

/* The rig's tensors in buffers of the caller. mems: q k v o lse. */
static inline heed_tensors rig_buffers(const struct rig *r, heed_context *context, const struct lent *lent, cl_mem mems[5])
{
    heed_tensors tensors = r->tensors;
    heed_tensor *const all[] = {&tensors.q, &tensors.k, &tensors.v, &tensors.o, &tensors.lse};
    for (int n = 0; n < 5; n++) {
        mems[n] = lent_buffer(lent, all[n]->data, all[n]->bytes);
        heed_tensor layout = *all[n];
        layout.data = NULL;
        cr_assert_eq(heed_tensor_from_cl(context, lent->device, mems[n], layout, all[n]), HEED_OK, "%s", heed_error_message());
    }
    return tensors;
}

static inline void mems_free(cl_mem mems[5])
{
    for (int n = 0; n < 5; n++) clReleaseMemObject(mems[n]);
}

/* Reads o and lse back by a queue and compares. */
static inline bool rig_buffers_right(struct rig *r, cl_command_queue queue, cl_mem mems[5])
{
    rig_clear(r);
    CL_GOOD(clEnqueueReadBuffer(queue, mems[3], CL_TRUE, 0, r->q_floats * sizeof(float), r->o, 0, NULL, NULL));
    CL_GOOD(clEnqueueReadBuffer(queue, mems[4], CL_TRUE, 0, r->lse_floats * sizeof(float), r->lse, 0, NULL, NULL));
    return rig_right(r, r->o, r->lse);
}

/* A workspace for the batch, as tensor; mem is NULL where none is needed. */
static inline heed_tensor lent_workspace(const struct lent *lent, const heed_batch *batch, cl_mem *mem)
{
    const size_t bytes = heed_batch_workspace_size(batch);
    *mem = bytes ? lent_buffer(lent, NULL, bytes) : NULL;
    return (heed_tensor){.data = *mem, .bytes = bytes, .memory = HEED_MEMORY_CL_BUFFER};
}

#endif
