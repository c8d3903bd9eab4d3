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

/* prefill_tile.cl: LOCAL_X x LOCAL_Y work-items of TR rows and vectors of VW floats, shrunk until registers and local memory hold them. */
struct tile {
    int32_t x, y, rows, vector;
};

static size_t tile_bytes(const struct tile *tile, const struct problem *problem)
{
    const size_t rows = (size_t)(tile->y * tile->rows), width = (size_t)(tile->x * tile->vector);
    const size_t vectors = ((size_t)problem->v_head_dim + width - 1) / width, at_once = vectors < 4 ? vectors : 4;
    const size_t slices = 16 * (96 + rows + 1), values = 16 * width * at_once;
    return (rows * 97 + (slices > values ? slices : values) + 3 * rows) * 4 + rows * 32 + 256;
}

static struct tile tile_of(const struct cl_device *device, const struct problem *problem)
{
    const struct cl_tuning *t = device->tuning;
    struct tile tile = {t->wg_x, t->wg_y, t->lane_rows, t->lane_vector};
    const int32_t width = tile.x * tile.vector, dims = (problem->v_head_dim + width - 1) / width * tile.vector;
    while (tile.y > 1 && ((size_t)(tile.x * tile.y) > device->max_group || (size_t)tile.y > device->max_sizes[1])) tile.y /= 2;
    while (tile.rows > 1 && tile.rows * dims > 32 * (tile.vector > 4 ? tile.vector : 2)) tile.rows /= 2;
    while (tile.rows > 1 && tile_bytes(&tile, problem) > device->local_bytes) tile.rows /= 2;
    return tile;
}

static size_t prefill_tile_options(const struct cl_device *device, const struct problem *problem, char *text, size_t capacity)
{
    const struct tile tile = tile_of(device, problem);
    return text_append(text, capacity, 0, " -DTR=%d -DVW=%d -DGUARD=%d", tile.rows, tile.vector, device->tuning->loop_guard);
}

static void prefill_tile_local(const struct cl_device *device, const struct problem *problem, size_t local[2])
{
    const struct tile tile = tile_of(device, problem);
    local[0] = (size_t)tile.x;
    local[1] = (size_t)tile.y;
}

static size_t prefill_tile_bytes(const struct cl_device *device, const struct problem *problem)
{
    const struct tile tile = tile_of(device, problem);
    return tile_bytes(&tile, problem);
}

/* decode_lanes.cl: a few lanes also where the device is a CPU: that is what a CPU runs when its driver fails with decode.cl. */
static void decode_lanes_local(const struct cl_device *device, const struct problem *problem, size_t local[2])
{
    (void)problem;
    const size_t lanes = (size_t)cl_lanes(device);
    local[0] = lanes > 8 ? lanes : device->max_group >= 8 && device->max_sizes[0] >= 8 ? 8 : 1;
}

static size_t decode_lanes_options(const struct cl_device *device, const struct problem *problem, char *text, size_t capacity)
{
    (void)problem;
    return text_append(text, capacity, 0, " -DGUARD=%d", device->tuning->loop_guard);
}

static size_t decode_lanes_bytes(const struct cl_device *device, const struct problem *problem)
{
    (void)device;
    const size_t rows = problem->group < 4 ? (size_t)problem->group : 4, dims = ((size_t)problem->head_dim + 15) / 16 * 16;
    return rows * (dims + 512 + 16 + 4) * 4 + 512 * 12 + 256;
}

/* naive.cl keeps a row in private memory: in GPUs with little of it the longest rows would cost the short ones their place. */
static size_t naive_options(const struct cl_device *device, const struct problem *problem, char *text, size_t capacity)
{
    (void)device;
    return text_append(text, capacity, 0, " -DROW_LIMIT=%d", problem->v_head_dim <= 128 ? 128 : MAX_HEAD_DIM);
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
static const struct cl_kernel_spec decode_lanes = {.parts = {"common.cl", "decode_lanes.cl", "merge.cl"}, .kernel = "decode_lanes",
    .merge = "merge_parts", .options = decode_lanes_options, .local = decode_lanes_local, .local_bytes = decode_lanes_bytes};
static const struct cl_kernel_spec prefill_tile = {.parts = {"common.cl", "prefill_tile.cl"}, .kernel = "prefill_tile",
    .options = prefill_tile_options, .local = prefill_tile_local, .local_bytes = prefill_tile_bytes};
static const struct cl_kernel_spec naive = {
    .parts = {"common.cl", "naive.cl"}, .kernel = "naive", .run_time = true, .options = naive_options, .local = naive_local};
/* One program for the three: what differs is the kernel. */
#define BESIDE .parts = {"common.cl", "append.cl", "merge_two.cl"}, .run_time = true
static const struct cl_kernel_spec append = {BESIDE, .kernel = "append"};
static const struct cl_kernel_spec rotate = {BESIDE, .kernel = "rotate_rows"};
static const struct cl_kernel_spec merge_two = {BESIDE, .kernel = "merge_two"};

/* ---- rows ----------------------------------------------------------------------- */

/* h_d of decode: head_dim / 16 fmas and 4 levels of the tree; h_n: one chain over a chunk, a merge per chunk, a value's scale and the sink. */
const struct kernel_row cl_rows[] = {
    {.name = "opencl.decode_cpu", .kinds = KIND_BIT(KIND_DECODE), .order = ORDER_OWN, .needs = CL_NEEDS_CPU,
     .features = FEATURES_ALL & ~HEED_WRITE_SCORES, .q_types = TYPES_FLOAT, .k_types = TYPES_ALL, .v_types = TYPES_ALL, .o_types = TYPES_FLOAT,
     .q_tile = 8, .kv_chunk = 512, .packs_group = true,
     .arithmetic = {.dot_lanes = 16, .dot_extra = 4, .key_block = 512, .sum_extra = 2, .rescale_block = 512, OWN_MATHS}, .cl = &decode_cpu},
    {.name = "opencl.decode_lanes", .kinds = KIND_BIT(KIND_DECODE), .order = ORDER_OWN,
     .features = FEATURES_ALL & ~HEED_WRITE_SCORES, .q_types = TYPES_FLOAT, .k_types = TYPES_ALL, .v_types = TYPES_ALL, .o_types = TYPES_FLOAT,
     .q_tile = 8, .kv_chunk = 512, .packs_group = true,
     .arithmetic = {.dot_lanes = 16, .dot_extra = 4, .key_block = 512, .sum_extra = 2, .rescale_block = 512, OWN_MATHS}, .cl = &decode_lanes},
    {.name = "opencl.prefill_cpu", .kinds = KIND_BIT(KIND_PREFILL) | KIND_BIT(KIND_DECODE), .order = ORDER_PANEL, .needs = CL_NEEDS_CPU,
     .features = FEATURES_ALL & ~HEED_WRITE_SCORES, .q_types = TYPES_FLOAT, .k_types = TYPES_ALL, .v_types = TYPES_ALL, .o_types = TYPES_FLOAT,
     .q_tile = 128,
     .arithmetic = {.dot_lanes = 1, .rescale_block = 96, OWN_MATHS}, .cl = &prefill_cpu},
    {.name = "opencl.prefill_tile", .kinds = KIND_BIT(KIND_PREFILL) | KIND_BIT(KIND_DECODE), .order = ORDER_PANEL,
     .features = FEATURES_ALL & ~HEED_WRITE_SCORES, .q_types = TYPES_FLOAT, .k_types = TYPES_ALL, .v_types = TYPES_ALL, .o_types = TYPES_FLOAT,
     .dim_limit = 512, .q_tile = 64,
     .arithmetic = {.dot_lanes = 1, .rescale_block = 96, OWN_MATHS}, .cl = &prefill_tile},
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
