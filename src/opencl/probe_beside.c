/* SPDX-License-Identifier: MIT
 * probe_beside.c - append, rotate and merge of two on a device, held against the definition: the first two to the bit, the third within the
 * rounding of its few operations.
 */
#include "probe_case.h"
#include "opencl.h"
#include "../dtype.h"
#include "../reference.h"
#include "../view.h"
#include <math.h>
#include <string.h>

enum { TENSORS = 6 };

/* A tensor that exists twice: for the device (host memory, or a cl_mem) and for the definition. */
struct twin {
    heed_tensor device, host;
    cl_mem mem;
};

static heed_status twin_make(struct probe_set *set, heed_tensor tensor, struct twin *twin)
{
    cl_int code = CL_SUCCESS;
    void *copy = tensor.bytes ? probe_block(set, tensor.bytes) : NULL;
    if (!tensor.data || !copy) return fail(HEED_OUT_OF_MEMORY, "no memory for the probe's tensors");
    memcpy(copy, tensor.data, tensor.bytes);
    *twin = (struct twin){.device = tensor, .host = tensor};
    twin->host.data = copy;
    if (set->device->unified) return HEED_OK;
    twin->mem = clCreateBuffer(set->device->context, CL_MEM_READ_WRITE | CL_MEM_COPY_HOST_PTR, tensor.bytes, tensor.data, &code);
    if (!twin->mem) return cl_failed(set->device, "clCreateBuffer", code);
    twin->device.data = twin->mem;
    twin->device.memory = HEED_MEMORY_CL_BUFFER;
    return HEED_OK;
}

/* What the device made of it, in host memory. */
static heed_status twin_read(struct probe_set *set, struct twin *twin, const unsigned char **bytes)
{
    *bytes = twin->device.data;
    if (!twin->mem) return HEED_OK;
    unsigned char *to = probe_block(set, twin->host.bytes);
    if (!to) return fail(HEED_OUT_OF_MEMORY, "no memory for the probe's tensors");
    *bytes = to;
    return opencl_backend.tensor_read(&set->device->shadow, &twin->device, 0, to, twin->host.bytes);
}

static void twins_release(struct twin *twins)
{
    for (int n = 0; n < TENSORS; n++)
        if (twins[n].mem) clReleaseMemObject(twins[n].mem);
}

static heed_status same_bytes(struct probe_set *set, struct twin *twin, const char *name, bool *wrong)
{
    const unsigned char *got;
    heed_status status = twin_read(set, twin, &got);
    if (status != HEED_OK || !memcmp(got, twin->host.data, twin->host.bytes)) return status;
    size_t n = 0;
    while (got[n] == ((const unsigned char *)twin->host.data)[n]) n++;
    *wrong = true;
    return fail(HEED_UNSUPPORTED, "wrong result in its probe: byte %zu of %s is 0x%02x, should be 0x%02x", n, name, got[n],
                ((const unsigned char *)twin->host.data)[n]);
}

static bool has_scale(heed_type type) { return type == HEED_I8 || type == HEED_F8_E4M3 || type == HEED_F8_E5M2; }

/* cos and sin of an angle per position and pair, wherever positions may lie. */
static heed_tensor table(struct probe_set *set, bool sine)
{
    const int32_t half = set->plan.problem.rope_dim / 2, rows = set->kv_max + 1;
    float *x = probe_block(set, (size_t)rows * (size_t)(half ? half : 1) * sizeof *x);
    for (int32_t p = 0; x && p < rows; p++)
        for (int32_t n = 0; n < half; n++) x[p * half + n] = (float)(sine ? sin(0.37 * p / (1 + n)) : cos(0.37 * p / (1 + n)));
    return (heed_tensor){.data = x, .bytes = (uint64_t)rows * (uint64_t)half * sizeof *x, .token_stride = half};
}

/* ---- append ----------------------------------------------------------------------- */

static heed_status probe_append(struct probe_set *set, struct twin *twins, bool *wrong)
{
    enum { K, V, K_SCALE, V_SCALE, NEW_K, NEW_V };
    static const char *const names[] = {"k", "v", "k_scale", "v_scale"};
    const struct problem *p = &set->plan.problem;
    const int32_t tokens = set->q_start[PROBE_BATCH], pool = probe_pool_tokens(set);
    heed_tensors device = {.struct_size = sizeof device}, host;
    struct call call;
    heed_status status = HEED_OK;
    for (int n = K; n <= V && status == HEED_OK; n++) {
        const heed_type type = n == K ? p->k_type : p->v_type;
        const int32_t dim = n == K ? p->head_dim : p->v_head_dim;
        float *scales = has_scale(type) ? probe_block(set, (size_t)pool * (size_t)p->kv_heads * sizeof(float)) : NULL;
        heed_tensor cache = probe_rows(set, type, pool, p->kv_heads, dim, scales), scale = {.data = scales};
        cache.batch_stride = set->slots * cache.token_stride;
        scale.bytes = (uint64_t)pool * (uint64_t)p->kv_heads * sizeof(float);
        scale.token_stride = p->kv_heads;
        scale.batch_stride = (int64_t)set->slots * p->kv_heads;
        scale.head_stride = 1;
        status = twin_make(set, cache, &twins[n]);
        if (status == HEED_OK && has_scale(type)) status = twin_make(set, scale, &twins[K_SCALE + n]);
        if (status == HEED_OK) status = twin_make(set, probe_rows(set, HEED_F32, tokens, p->kv_heads, dim, NULL), &twins[NEW_K + n]);
    }
    struct twin tables[TENSORS] = {{{0}, {0}, NULL}};
    for (int n = 0; n < 2 && p->rope_dim && status == HEED_OK; n++) status = twin_make(set, table(set, n), &tables[n]);
    host = device;
    device.k = twins[K].device, device.v = twins[V].device, device.k_scale = twins[K_SCALE].device, device.v_scale = twins[V_SCALE].device;
    device.rope_cos = tables[0].device, device.rope_sin = tables[1].device;
    host.k = twins[K].host, host.v = twins[V].host, host.k_scale = twins[K_SCALE].host, host.v_scale = twins[V_SCALE].host;
    host.rope_cos = tables[0].host, host.rope_sin = tables[1].host;
    if (status == HEED_OK)
        status = append_take(&set->plan, &set->batch, HEED_F32, &twins[NEW_K].device, &twins[NEW_V].device, &device, &call);
    for (int run = 0; run < 2 && status == HEED_OK; run++) status = cl_append(&call, NULL);
    if (status == HEED_OK) status = append_take(&set->plan, &set->batch, HEED_F32, &twins[NEW_K].host, &twins[NEW_V].host, &host, &call);
    for (int32_t b = 0; b < PROBE_BATCH && status == HEED_OK; b++)
        for (int32_t i = 0; i < set->q_lens[b]; i++)
            for (int32_t g = 0; g < p->kv_heads; g++) reference_append(&call, b, g, i);
    for (int n = K; n <= V_SCALE && status == HEED_OK; n++)
        if (twins[n].host.data) status = same_bytes(set, &twins[n], names[n], wrong);
    twins_release(tables);
    return status;
}

/* ---- rotate ------------------------------------------------------------------------- */

static heed_status probe_rotate(struct probe_set *set, struct twin *twins, bool *wrong)
{
    const struct problem *p = &set->plan.problem;
    heed_tensors device = {.struct_size = sizeof device}, host = device;
    struct call call;
    heed_status status = twin_make(set, probe_rows(set, p->q_type, set->q_start[PROBE_BATCH], p->q_heads, p->head_dim, NULL), &twins[0]);
    for (int n = 0; n < 2 && p->rope_dim && status == HEED_OK; n++) status = twin_make(set, table(set, n), &twins[1 + n]);
    device.rope_cos = twins[1].device, device.rope_sin = twins[2].device;
    host.rope_cos = twins[1].host, host.rope_sin = twins[2].host;
    if (status == HEED_OK) status = rotate_take(&set->plan, &set->batch, p->q_heads, &twins[0].device, &device, &call);
    if (status == HEED_OK) status = cl_rotate(&call, NULL);
    if (status == HEED_OK) status = rotate_take(&set->plan, &set->batch, p->q_heads, &twins[0].host, &host, &call);
    for (int32_t b = 0; b < PROBE_BATCH && status == HEED_OK; b++)
        for (int32_t i = 0; i < set->q_lens[b]; i++)
            for (int32_t h = 0; h < p->q_heads; h++) reference_rotate(&call, b, h, i);
    return status == HEED_OK ? same_bytes(set, &twins[0], "x", wrong) : status;
}

/* ---- merge of two ------------------------------------------------------------------------ */

/* lse of a part: every third row is empty. */
static heed_tensor part_lse(struct probe_set *set, int32_t side)
{
    const size_t rows = (size_t)set->q_start[PROBE_BATCH] * (size_t)set->plan.problem.q_heads;
    float *x = probe_block(set, rows * sizeof *x);
    for (size_t r = 0; x && r < rows; r++) x[r] = (r / 2 + (size_t)side) % 3 == 0 ? -INFINITY : 3 * probe_normal(set);
    return (heed_tensor){.data = x, .bytes = rows * sizeof *x, .token_stride = set->plan.problem.q_heads, .head_stride = 1};
}

static bool near(double got, double want, double size, double unit)
{
    if (got == want) return true;
    return fabs(got - want) <= 16 * 0x1p-24 * size + unit * fabs(want) + 0x1p-126;
}

static heed_status judge_merge(struct probe_set *set, struct twin *twins, const unsigned char *o, const unsigned char *lse, bool *wrong)
{
    const struct problem *p = &set->plan.problem;
    const size_t rows = (size_t)set->q_start[PROBE_BATCH] * (size_t)p->q_heads, bytes = (size_t)type_row_bytes(p->o_type, p->v_head_dim);
    const double unit = p->o_type == HEED_F32 ? 0x1p-23 : p->o_type == HEED_F16 ? 0x1p-10 : 0x1p-7;
    float a[MAX_HEAD_DIM], b[MAX_HEAD_DIM], got[MAX_HEAD_DIM], want[MAX_HEAD_DIM];
    for (size_t r = 0; r < rows; r++) {
        const void *const at[] = {twins[0].host.data, twins[2].host.data, o, twins[4].host.data};
        float *const to[] = {a, b, got, want};
        for (int n = 0; n < 4; n++) row_to_f32(p->o_type, (const char *)at[n] + r * bytes, 1.0f, to[n], p->v_head_dim);
        const float l = ((const float *)lse)[r], l_want = ((const float *)twins[5].host.data)[r];
        bool good = near((double)l, (double)l_want, 4 + fabs((double)l_want), 0);
        for (int32_t d = 0; d < p->v_head_dim; d++)
            good = good && near((double)got[d], (double)want[d], fabs((double)a[d]) + fabs((double)b[d]), unit);
        if (good) continue;
        *wrong = true;
        return fail(HEED_UNSUPPORTED, "wrong result in its probe: merged row %zu", r);
    }
    return HEED_OK;
}

static heed_status probe_merge(struct probe_set *set, struct twin *twins, bool *wrong)
{
    enum { O_A, LSE_A, O_B, LSE_B, O, LSE };
    const struct problem *p = &set->plan.problem;
    const unsigned char *o = NULL, *lse = NULL;
    struct call call;
    heed_status status = HEED_OK;
    for (int n = 0; n < TENSORS && status == HEED_OK; n++) {
        const heed_tensor rows =
            n % 2 ? part_lse(set, n / 2) : probe_rows(set, p->o_type, set->q_start[PROBE_BATCH], p->q_heads, p->v_head_dim, NULL);
        status = twin_make(set, rows, &twins[n]);
    }
    struct twin *t = twins;
    if (status == HEED_OK)
        status = merge_take(&set->plan, &set->batch, &t[O_A].device, &t[LSE_A].device, &t[O_B].device, &t[LSE_B].device, &t[O].device,
                            &t[LSE].device, &call);
    if (status == HEED_OK) status = cl_merge(&call, NULL);
    if (status == HEED_OK)
        status = merge_take(&set->plan, &set->batch, &t[O_A].host, &t[LSE_A].host, &t[O_B].host, &t[LSE_B].host, &t[O].host, &t[LSE].host,
                            &call);
    for (int32_t b = 0; b < PROBE_BATCH && status == HEED_OK; b++)
        for (int32_t i = 0; i < set->q_lens[b]; i++)
            for (int32_t h = 0; h < p->q_heads; h++) reference_merge(&call, b, h, i);
    if (status == HEED_OK) status = twin_read(set, &twins[O], &o);
    if (status == HEED_OK) status = twin_read(set, &twins[LSE], &lse);
    return status == HEED_OK ? judge_merge(set, twins, o, lse, wrong) : status;
}

heed_status probe_beside(struct probe_set *set, enum kind kind, bool *wrong)
{
    struct twin twins[TENSORS] = {{{0}, {0}, NULL}};
    heed_status status = kind == KIND_APPEND   ? probe_append(set, twins, wrong)
                         : kind == KIND_ROTATE ? probe_rotate(set, twins, wrong)
                                               : probe_merge(set, twins, wrong);
    twins_release(twins);
    return status;
}
