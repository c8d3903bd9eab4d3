/* SPDX-License-Identifier: MIT
 * rows.c - the OpenCL rows of the table, best first; opencl.naive, which does everything, last. A row is offered on a device only after a right
 * answer there (probe.c), so nothing here is a promise about any device.
 */
#include "cl.h"

enum {
    TYPES_FLOAT = 1u << HEED_F32 | 1u << HEED_F16 | 1u << HEED_BF16,
    NAIVE_TILE = 16,
    TYPES_ALL = TYPES_FLOAT | 1u << HEED_I8 | 1u << HEED_Q8_0 | 1u << HEED_Q4_0 | 1u << HEED_F8_E4M3 | 1u << HEED_F8_E5M2
};

/* exp_1 of common.cl: one rounding of the argument, 1.1 ulp; tanh and log of our own; full-profile division (2.5 ulp and a product). */
#define OWN_MATHS .exp_ulp = 1.1f, .exp_roundings = 1, .tanh_ulp = 5, .log_ulp = 3, .div_roundings = 6

/* ---- options and groups ------------------------------------------------------- */

/* The register tile of prefill_cpu.cl: 6 keys x 4 vectors where there are 32 vector registers, else 6 x 1. */
static size_t prefill_cpu_options(const struct cl_device *device, const struct problem *problem, char *text, size_t capacity)
{
    (void)problem;
    const int32_t rows = device->tuning->tile_rows ? device->tuning->tile_rows : 6;
    const int32_t vectors = device->tuning->tile_vectors ? device->tuning->tile_vectors : device->registers >= 32 ? 4 : 1;
    return text_append(text, capacity, 0, " -DMR=%d -DNV=%d", rows, vectors);
}

/* decode.cl sums as many rows x keys side by side as there are registers for. */
static size_t decode_cpu_options(const struct cl_device *device, const struct problem *problem, char *text, size_t capacity)
{
    (void)problem;
    return text_append(text, capacity, 0, " -DREGISTERS=%d", device->registers >= 32 ? 32 : 8);
}

static size_t rotate_options(const struct cl_device *device, const struct problem *problem, char *text, size_t capacity)
{
    (void)device, (void)problem;
    return text_append(text, capacity, 0, " -DROTATE=1");
}

static size_t merge_options(const struct cl_device *device, const struct problem *problem, char *text, size_t capacity)
{
    (void)device, (void)problem;
    return text_append(text, capacity, 0, " -DMERGE_TWO=1");
}

/* A work-item per row of naive.cl's tile. Nothing is shared, so it costs nothing on CPUs, and one driver there gets loops over rows wrong. */
static void naive_local(const struct cl_device *device, const struct problem *problem, size_t local[2])
{
    (void)problem;
    local[0] = NAIVE_TILE;
    while (local[0] > device->max_group || local[0] > device->max_sizes[0]) local[0] /= 2;
}

/* ---- specs --------------------------------------------------------------------- */

static const struct cl_kernel_spec decode_cpu = {
    .parts = {"common.cl", "decode.cl", "merge.cl"}, .kernel = "decode_cpu", .merge = "merge_parts", .options = decode_cpu_options};
static const struct cl_kernel_spec prefill_cpu = {
    .parts = {"common.cl", "prefill_cpu.cl"}, .kernel = "prefill_cpu", .options = prefill_cpu_options};
static const struct cl_kernel_spec naive = {.parts = {"common.cl", "naive.cl"}, .kernel = "naive", .local = naive_local};
static const struct cl_kernel_spec append = {.parts = {"common.cl", "append.cl"}, .kernel = "append"};
static const struct cl_kernel_spec rotate = {.parts = {"common.cl", "append.cl"}, .kernel = "rotate_rows", .options = rotate_options};
static const struct cl_kernel_spec merge_two = {.parts = {"common.cl", "merge.cl"}, .kernel = "merge_two", .options = merge_options};

/* ---- rows ----------------------------------------------------------------------- */

/* h_d of decode: head_dim / 16 fmas and 4 levels of the tree; h_n: one chain over a chunk, a merge per chunk, a value's scale and the sink. */
const struct kernel_row cl_rows[] = {
    {.name = "opencl.decode_cpu", .kinds = KIND_BIT(KIND_DECODE), .order = ORDER_OWN, .needs = CL_NEEDS_CPU,
     .features = FEATURES_ALL & ~HEED_WRITE_SCORES, .q_types = TYPES_FLOAT, .k_types = TYPES_ALL, .v_types = TYPES_ALL, .o_types = TYPES_FLOAT,
     .q_tile = 8, .kv_chunk = 512, .packs_group = true,
     .arithmetic = {.dot_lanes = 16, .dot_extra = 4, .key_block = 512, .sum_extra = 2, .rescale_block = 512, OWN_MATHS}, .cl = &decode_cpu},
    {.name = "opencl.prefill_cpu", .kinds = KIND_BIT(KIND_PREFILL) | KIND_BIT(KIND_DECODE), .order = ORDER_PANEL, .needs = CL_NEEDS_CPU,
     .features = FEATURES_ALL & ~HEED_WRITE_SCORES, .q_types = TYPES_FLOAT, .k_types = TYPES_ALL, .v_types = TYPES_ALL, .o_types = TYPES_FLOAT,
     .dim_limit = 576, .q_tile = 128,
     .arithmetic = {.dot_lanes = 1, .rescale_block = 96, OWN_MATHS}, .cl = &prefill_cpu},
    {.name = "opencl.append", .kinds = KIND_BIT(KIND_APPEND), .features = FEATURES_ALL, .q_types = TYPES_ALL, .k_types = TYPES_ALL,
     .v_types = TYPES_ALL, .o_types = TYPES_ALL, .cl = &append},
    {.name = "opencl.rotate", .kinds = KIND_BIT(KIND_ROTATE), .features = FEATURES_ALL, .q_types = TYPES_FLOAT, .k_types = TYPES_ALL,
     .v_types = TYPES_ALL, .o_types = TYPES_ALL, .cl = &rotate},
    {.name = "opencl.merge", .kinds = KIND_BIT(KIND_MERGE), .features = FEATURES_ALL, .q_types = TYPES_ALL, .k_types = TYPES_ALL,
     .v_types = TYPES_ALL, .o_types = TYPES_FLOAT, .arithmetic = {OWN_MATHS}, .cl = &merge_two},
    {.name = "opencl.naive", .kinds = KIND_BIT(KIND_PREFILL) | KIND_BIT(KIND_DECODE), .order = ORDER_NAIVE, .features = FEATURES_ALL,
     .q_types = TYPES_ALL, .k_types = TYPES_ALL, .v_types = TYPES_ALL, .o_types = TYPES_FLOAT, .q_tile = NAIVE_TILE,
     .arithmetic = {.dot_lanes = 1, .rescale_block = 16, OWN_MATHS}, .cl = &naive},
    {0},
};
