/* SPDX-License-Identifier: MIT
 * unit.c - is there a matrix unit, and do its fragments lie where our words say? kernels/matrix_probe.cl multiplies small integers with every word of the
 * interface, and the answer must be exact, twice. No attention kernel of a unit is built before that. Which units a device may have: device.c.
 */
#include "cl.h"
#include "../dtype.h"
#include "../mutant.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- facts about layouts, as kernels/matrix_columns.cl has them ---------------------- */

enum cl_matrix cl_layout(const struct cl_device *device)
{
    if (device->matrix != MATRIX_EMULATED) return device->matrix;
    const int32_t like = device->tuning->matrix_like;
    return like > MATRIX_EMULATED && like < MATRIX_COUNT ? (enum cl_matrix)like : MATRIX_NV_MMA;
}

int32_t cl_warp_lanes(enum cl_matrix layout)
{
    return layout == MATRIX_AMD_MFMA ? 64 : layout == MATRIX_INTEL_DPAS8 ? 8 : layout == MATRIX_INTEL_DPAS16 ? 16 : 32;
}

int32_t cl_warp_columns(enum cl_matrix layout) { return layout == MATRIX_INTEL_DPAS8 ? 8 : 16; }

/* The emulated unit has a barrier in each word: optimised, its programs take a CPU's driver twenty seconds to compile (a simulator, which interprets them, is
 * quicker the other way). Intel's accumulators want the larger half of the register file. */
const char *cl_unit_options(const struct cl_device *device, enum cl_matrix matrix)
{
    if (matrix == MATRIX_EMULATED) return device->provides & CL_NEEDS_GPU ? "" : " -cl-opt-disable";
    return matrix == MATRIX_INTEL_DPAS8 || matrix == MATRIX_INTEL_DPAS16 ? " -cl-intel-256-GRF-per-thread" : "";
}

/* ---- a row per unit -------------------------------------------------------------------- */

static enum cl_matrix layout_of(const struct cl_device *device, enum cl_matrix matrix)
{
    return matrix == MATRIX_EMULATED ? cl_layout(device) : matrix;
}

/* options() and local() do not get the row, so each unit has its own. */
#define UNIT(name, number)                                                                                                       \
    static size_t options_##name(const struct cl_device *device, const struct problem *problem, char *text, size_t capacity)     \
    {                                                                                                                            \
        (void)problem;                                                                                                           \
        return text_append(text, capacity, 0, " -DMATRIX=%d -DLAYOUT=%d -DTILE_KEYS=16 -DWARPS=1 -DSLOTS=2%s", (int)(number),    \
                           (int)layout_of(device, number), cl_unit_options(device, number));                                             \
    }                                                                                                                            \
    static void local_##name(const struct cl_device *device, const struct problem *problem, size_t local[2])                     \
    {                                                                                                                            \
        (void)problem;                                                                                                           \
        local[0] = (size_t)cl_warp_lanes(layout_of(device, number));                                                             \
    }                                                                                                                            \
    static const struct cl_kernel_spec spec_##name = {.parts = {"common.cl", "matrix_columns.cl", "matrix_emulated.cl",          \
        "matrix_nvidia.cl", "matrix_amd.cl", "matrix_intel.cl", "matrix_tile.cl", "matrix_probe.cl"}, .kernel = "matrix_probe",   \
        .options = options_##name, .local = local_##name}
UNIT(emulated, MATRIX_EMULATED);
UNIT(nv_mma, MATRIX_NV_MMA);
UNIT(amd_wmma3, MATRIX_AMD_WMMA3);
UNIT(amd_wmma4, MATRIX_AMD_WMMA4);
UNIT(amd_mfma, MATRIX_AMD_MFMA);
UNIT(intel_dpas8, MATRIX_INTEL_DPAS8);
UNIT(intel_dpas16, MATRIX_INTEL_DPAS16);

/* The words of MATRIX_NV_MMA beside those of its own; the emulated unit has them, too. */
static size_t options_nv_wgmma(const struct cl_device *device, const struct problem *problem, char *text, size_t capacity)
{
    (void)problem;
    return text_append(text, capacity, 0, " -DMATRIX=%d -DLAYOUT=2 -DPANELS=1 -DTILE_KEYS=16 -DWARPS=4 -DSLOTS=2%s", (int)device->matrix,
                       cl_unit_options(device, device->matrix));
}
static void local_nv_wgmma(const struct cl_device *device, const struct problem *problem, size_t local[2])
{
    (void)device, (void)problem;
    local[0] = 128;
}
static const struct cl_kernel_spec spec_nv_wgmma = {
    .parts = {"common.cl", "matrix_emulated.cl", "matrix_nvidia.cl", "matrix_tile.cl", "matrix_warpgroup.cl", "warpgroup_probe.cl"},
    .kernel = "warpgroup_probe", .marked = true, .options = options_nv_wgmma, .local = local_nv_wgmma};

#define ROW(number, text, to) [number] = {.name = "opencl.unit." text, .cl = &spec_##to}
static const struct kernel_row units[MATRIX_COUNT + 1] = {
    [MATRIX_NONE] = {.name = "opencl.unit.none"},
    ROW(MATRIX_EMULATED, "emulated", emulated),
    ROW(MATRIX_NV_MMA, "nv-mma", nv_mma),
    ROW(MATRIX_AMD_WMMA3, "amd-wmma3", amd_wmma3),
    ROW(MATRIX_AMD_WMMA4, "amd-wmma4", amd_wmma4),
    ROW(MATRIX_AMD_MFMA, "amd-mfma", amd_mfma),
    ROW(MATRIX_INTEL_DPAS8, "intel-dpas8", intel_dpas8),
    ROW(MATRIX_INTEL_DPAS16, "intel-dpas16", intel_dpas16),
    ROW(MATRIX_NV_WGMMA, "nv-wgmma", nv_wgmma),
    [MATRIX_COUNT] = {.name = "opencl.unit"},
};

const struct kernel_row *cl_unit_row(enum cl_matrix matrix) { return &units[matrix]; }

/* What Hopper, Ampere and the smaller chips have, less what the driver takes for itself. */
enum { LOCAL_LANES = 128 };
static void local_lanes(const struct cl_device *device, const struct problem *problem, size_t local[2])
{
    (void)device, (void)problem;
    local[0] = LOCAL_LANES;
}
#define LOCAL(kib)                                                                                                               \
    static size_t options_local_##kib(const struct cl_device *device, const struct problem *problem, char *text, size_t capacity) \
    {                                                                                                                            \
        (void)device, (void)problem;                                                                                             \
        return text_append(text, capacity, 0, " -DLOCAL_BYTES=%d", kib * 1024);                                                  \
    }                                                                                                                            \
    static const struct cl_kernel_spec spec_local_##kib = {                                                                      \
        .parts = {"common.cl", "local_probe.cl"}, .kernel = "local_probe", .options = options_local_##kib, .local = local_lanes}
LOCAL(226);
LOCAL(160);
LOCAL(96);

const struct kernel_row *cl_local_row(int n, cl_ulong *bytes)
{
    static const struct kernel_row rows[] = {{.name = "opencl.unit.local-226k", .cl = &spec_local_226}, {.name = "opencl.unit.local-160k", .cl = &spec_local_160},
        {.name = "opencl.unit.local-96k", .cl = &spec_local_96}};
    static const cl_ulong sizes[] = {226 * 1024, 160 * 1024, 96 * 1024};
    if (n >= (int)(sizeof rows / sizeof *rows)) return NULL;
    *bytes = sizes[n];
    return &rows[n];
}

heed_status cl_unit_problem(heed_type type, struct problem *problem)
{
    char text[32];
    heed_desc desc;
    snprintf(text, sizeof text, "hq1 d32 %s", type_name(type));
    const heed_status status = heed_desc_parse(text, &desc);
    return status == HEED_OK ? problem_from_desc(&desc, problem) : status;
}

/* ---- what goes in and what must come out ------------------------------------------------- */

enum { N = 16, D = 32, K_DIMS = 20, MATRICES = 4, OUT_S = 0, OUT_O = 256, OUT_T = 768, OUT_SUM = 1024, OUT_TOP = 1040, OUT_EXP = 1056 };
enum { ROWS = 64, DIMS = 64, GROUP_S = 0, GROUP_T = ROWS * N, GROUP_O = 2 * ROWS * N, OUT_COUNT = 2 * ROWS * N + ROWS * DIMS }; /* warpgroup_probe.cl */

struct numbers {
    float k[N][D], q[N][D], v[N][D], tiny[N][D];
};

static void fill(struct numbers *x, heed_type type, void *bits)
{
    uint32_t state = 1;
    float *const all = &x->k[0][0];
    for (int n = 0; n < MATRICES * N * D; n++) {
        state = state * 1664525u + 1013904223u;
        all[n] = (float)((int)(state >> 16) % 5 - 2);
        if (n >= 3 * N * D) all[n] *= 0x1p-24f; /* denormal in f16: a unit that takes it for 0 is not what the bound allows */
    }
    row_from_f32(type, all, bits, NULL, MATRICES * N * D);
}

/* The formula of kernels/matrix_probe.cl; every number is exact in f32, and s in f16 and bf16. */
static void expect(const struct numbers *x, float out[OUT_COUNT])
{
    for (int i = 0; i < N; i++) {
        float sum = 0, top = -INFINITY;
        for (int j = 0; j < N; j++) {
            float s = 0, t = 0;
            for (int d = 0; d < K_DIMS; d++) s += x->k[j][d] * x->q[i][d];
            for (int d = 0; d < D; d++) t += x->tiny[j][d] * x->q[i][d];
            out[OUT_S + j * N + i] = s;
            out[OUT_T + j * N + i] = t;
            sum += s;
            top = s > top ? s : top;
        }
        out[OUT_SUM + i] = sum;
        out[OUT_TOP + i] = top;
        for (int d = 0; d < D; d++) {
            float o = 0;
            for (int j = 0; j < N; j++) o += out[OUT_S + j * N + i] * x->v[j][d];
            out[OUT_O + d * N + i] = o;
        }
    }
    out[OUT_EXP] = 1;
    out[OUT_EXP + 1] = out[OUT_EXP + 2] = 0;
}

/* The formula of kernels/warpgroup_probe.cl: 64 query rows made of the same numbers. */
static void expect_group(const struct numbers *x, float out[OUT_COUNT])
{
    const float *const all = &x->k[0][0], *const v = all + N * DIMS, *const tiny = &x->tiny[0][0];
    for (int i = 0; i < ROWS; i++) {
        for (int j = 0; j < N; j++) {
            float s = 0, t = 0;
            for (int d = 0; d < DIMS; d++) {
                const float q = all[(i * 97 + d * 31) % (3 * N * D)];
                s += all[j * DIMS + d] * q;
                t += tiny[j % 8 * DIMS + d] * q;
            }
            out[GROUP_S + i * N + j] = s;
            out[GROUP_T + i * N + j] = t;
        }
        for (int d = 0; d < DIMS; d++) {
            float o = 0;
            for (int j = 0; j < N; j++) o += out[GROUP_S + i * N + j] * (j < 8 ? v[j * DIMS + d] : -v[(j - 8) * DIMS + d]);
            out[GROUP_O + i * DIMS + d] = o;
        }
    }
}

/* local_probe.cl: 1 from each work-item. */
static void expect_local(float out[OUT_COUNT])
{
    for (int n = 0; n < OUT_COUNT; n++) out[n] = n < LOCAL_LANES ? 1 : 0;
}

/* subgroup_probe.cl, whose numbers are x = in[n] + 8 n. */
static void expect_lanes(const struct numbers *x, int lanes, int group, float out[OUT_COUNT])
{
    const float *const in = &x->k[0][0];
    for (int n = 0; n < group; n++) {
        const int l = n % lanes, first = n - l;
        float *const to = out + 4 * n;
        to[2] = to[3] = -INFINITY;
        for (int e = 0; e < lanes; e++) {
            const int each = first + (5 * l + e) % lanes;
            const float value = in[first + e] + (float)(8 * (first + e));
            to[0] += (float)(e + 1) * value;
            to[1] += (float)(e + 1) * (in[each] + (float)(8 * each));
            to[2] = fmaxf(to[2], value);
            if (e % 3 == 1) to[3] = fmaxf(to[3], value);
        }
    }
}

static bool is_local(const struct kernel_row *row) { return !strcmp(row->cl->kernel, "local_probe"); }
static bool is_lanes(const struct kernel_row *row) { return !strcmp(row->cl->kernel, "subgroup_probe"); }
static bool is_group(const struct kernel_row *row) { return !strcmp(row->cl->kernel, "warpgroup_probe"); }

static const char *meaning(const struct kernel_row *row, int n)
{
    if (is_local(row)) return "a lane's sum";
    if (is_lanes(row)) return n % 4 < 2 ? "a sum of what lanes gave" : "a maximum over lanes";
    if (is_group(row)) return n < GROUP_T ? "a product" : n < GROUP_O ? "a product of denormals" : "a product of weights";
    return n < OUT_O ? "a product" : n < OUT_T ? "a product of weights" : n < OUT_SUM ? "a product of denormals" : n < OUT_TOP ? "a sum over lanes"
           : n < OUT_EXP ? "a maximum over lanes" : "an exponential";
}

static heed_status compare(const struct kernel_row *row, const float *got, const float *want, bool *wrong)
{
    for (int n = 0; n < OUT_COUNT; n++) {
        if (got[n] == want[n] || MUTANT(cl_unit_blind)) continue;
        *wrong = true;
        char texts[2][32];
        text_of_float(got[n], texts[0], sizeof texts[0]);
        text_of_float(want[n], texts[1], sizeof texts[1]);
        return fail(HEED_UNSUPPORTED, "wrong result in its probe: %s (number %d) is %s, should be %s", meaning(row, n), n, texts[0], texts[1]);
    }
    return HEED_OK;
}

/* ---- running ------------------------------------------------------------------------------- */

static heed_status run(struct cl_device *device, cl_kernel kernel, cl_mem out, const size_t size[2], float got[OUT_COUNT])
{
    const struct cl_memory memory = {.device = device}; /* no host memory: the wait has a limit */
    struct cl_stream stream;
    heed_status status = cl_stream_begin(device, NULL, &stream);
    if (status == HEED_OK) status = cl_stream_kernel(&stream, kernel, size, size);
    status = cl_stream_end(&stream, status, &memory);
    if (status == HEED_OK)
        status = CL(device, clEnqueueReadBuffer(device->queue, out, CL_TRUE, 0, OUT_COUNT * sizeof *got, got, 0, NULL, NULL));
    return status;
}

heed_status cl_unit_case(struct cl_device *device, const struct problem *problem, const struct kernel_row *row, bool *wrong)
{
    static const float nothing[OUT_COUNT] = {0};
    struct numbers x;
    float bits[MATRICES * N * D]; /* room for the widest type */
    float want[OUT_COUNT], got[OUT_COUNT];
    struct cl_program *program = NULL;
    cl_kernel kernel = NULL;
    cl_mem in = NULL, out = NULL;
    cl_int code = CL_SUCCESS;
    size_t local[2], limit = 0;
    fill(&x, problem->k_type, bits);
    memset(want, 0, sizeof want);
    cl_local(device, row, problem, local);
    if (is_local(row)) expect_local(want);
    else if (is_lanes(row)) expect_lanes(&x, cl_subgroup_lanes_of(row), (int)local[0], want);
    else if (is_group(row)) expect_group(&x, want);
    else expect(&x, want);
    heed_status status = cl_program_get(device, row, problem, &program);
    if (status == HEED_OK && !(kernel = clCreateKernel(program->program, row->cl->kernel, &code))) status = cl_failed(device, "clCreateKernel", code);
    if (status == HEED_OK) status = CL(device, clGetKernelWorkGroupInfo(kernel, device->id, CL_KERNEL_WORK_GROUP_SIZE, sizeof limit, &limit, NULL));
    if (status == HEED_OK && local[0] > limit) status = fail(HEED_UNSUPPORTED, "its probe takes groups of %zu work-items, %zu are needed", limit, local[0]);
    if (status == HEED_OK && !(in = clCreateBuffer(device->context, CL_MEM_READ_ONLY | CL_MEM_COPY_HOST_PTR, sizeof bits, bits, &code)))
        status = cl_failed(device, "clCreateBuffer", code);
    if (status == HEED_OK && !(out = clCreateBuffer(device->context, CL_MEM_READ_WRITE, sizeof got, NULL, &code)))
        status = cl_failed(device, "clCreateBuffer", code);
    if (status == HEED_OK) status = CL(device, clSetKernelArg(kernel, 0, sizeof in, &in));
    if (status == HEED_OK) status = CL(device, clSetKernelArg(kernel, 1, sizeof out, &out));
    for (int times = 0; times < 2 && status == HEED_OK; times++) {
        status = CL(device, clEnqueueWriteBuffer(device->queue, out, CL_TRUE, 0, sizeof nothing, nothing, 0, NULL, NULL));
        if (status == HEED_OK) status = run(device, kernel, out, local, got);
        if (status == HEED_OK) status = compare(row, got, want, wrong);
    }
    if (in) clReleaseMemObject(in);
    if (out) clReleaseMemObject(out);
    if (kernel) clReleaseKernel(kernel);
    cl_program_drop(device, program);
    return status;
}
