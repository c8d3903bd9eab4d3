/* SPDX-License-Identifier: MIT
 * tile.c - the shapes of the kernels with register tiles and local memory for any GPU, prefill_tile.cl and scores_tile.cl: groups, rows and vectors of a
 * work-item, slices. Not the table (rows.c), which says what bits depend on, nor the families' numbers (tuning.c).
 */
#include "cl.h"

/* ---- prefill_tile.cl ------------------------------------------------------------ */

/* LOCAL_X x LOCAL_Y work-items of TR rows and vectors of VW floats, shrunk until registers and local memory hold them. */
struct tile {
    int32_t x, y, rows, vector, q_slice, v_slice;
    bool wide, ahead, stays;
};

/* Floats of V per key that go through local memory together. */
static size_t tile_width(const struct tile *tile, const struct problem *problem)
{
    const size_t width = (size_t)(tile->x * tile->vector), vectors = ((size_t)problem->v_head_dim + width - 1) / width;
    return width * (vectors < 4 ? vectors : 4);
}

static size_t tile_bytes(const struct tile *tile, const struct problem *problem)
{
    const size_t rows = (size_t)(tile->y * tile->rows), pad = tile->wide ? 4 : 1, dims = (size_t)((problem->head_dim + tile->q_slice - 1) / tile->q_slice);
    const size_t keys = (size_t)tile->q_slice * (96 + (tile->wide ? cl_larger(4, (size_t)tile->vector) : 0)), queries = (size_t)tile->q_slice * (rows + pad);
    const size_t slices = cl_larger(keys + (tile->stays ? 0 : queries), (size_t)tile->x * rows), values = (size_t)tile->v_slice * tile_width(tile, problem);
    const size_t p = rows * (96 + pad), floats = tile->ahead ? cl_larger(p, 2 * slices) + 2 * values : p + cl_larger(slices, values);
    return (floats + (tile->stays ? dims * queries : 0) + 3 * rows) * 4 + rows * 40 + 96 * 24 + 512;
}

/* Once all of Q has room it stays. */
static bool tile_fits(struct tile *tile, const struct cl_device *device, const struct problem *problem)
{
    tile->stays = true;
    if (tile_bytes(tile, problem) <= device->local_bytes) return true;
    tile->stays = false;
    return tile_bytes(tile, problem) <= device->local_bytes;
}

static struct tile tile_of(const struct cl_device *device, const struct problem *problem)
{
    const struct cl_tuning *t = device->tuning;
    struct tile tile = {t->wg_x, t->wg_y, t->lane_rows, t->lane_vector, 16, 16, .wide = t->tile_reads > 0, .ahead = t->tile_reads > 1};
    const int32_t width = tile.x * tile.vector, dims = (problem->v_head_dim + width - 1) / width * tile.vector;
    while (tile.y > 1 && ((size_t)(tile.x * tile.y) > device->max_group || (size_t)tile.y > device->max_sizes[1])) tile.y /= 2;
    while (tile.rows > 1 && tile.rows * dims > 32 * (tile.vector > 4 ? tile.vector : 2)) tile.rows /= 2;
    if (tile.ahead) /* four vectors of V wait in registers */
        for (tile.v_slice = 32; tile.v_slice > 4 && (size_t)tile.v_slice * tile_width(&tile, problem) > (size_t)(16 * tile.x * tile.y);) tile.v_slice /= 2;
    if (t->tile_q_slice) tile.q_slice = t->tile_q_slice;
    if (t->tile_v_slice) tile.v_slice = t->tile_v_slice;
    if (device->type & CL_DEVICE_TYPE_CPU && !tile.wide) { /* a barrier there moves every work-item's registers to memory and back */
        struct tile large = tile;
        large.q_slice = problem->head_dim < 256 ? (problem->head_dim + 15) / 16 * 16 : 64;
        large.v_slice = 96;
        large.stays = large.q_slice >= problem->head_dim;
        if (tile_bytes(&large, problem) <= device->local_bytes) return large;
    }
    while (!tile_fits(&tile, device, problem) && (tile.rows > 1 || tile.v_slice > 4)) {
        if (tile.v_slice > 8 || tile.rows == 1) tile.v_slice /= 2;
        else tile.rows /= 2;
    }
    return tile;
}

static size_t prefill_tile_options(const struct cl_device *device, const struct problem *problem, char *text, size_t capacity)
{
    const struct tile tile = tile_of(device, problem);
    return text_append(text, capacity, 0, " -DTR=%d -DVW=%d -DQ_SLICE=%d -DV_SLICE=%d -DQ_STAYS=%d -DWIDE=%d -DAHEAD=%d -DGUARD=%d", tile.rows,
                                 tile.vector, tile.q_slice, tile.v_slice, tile.stays, tile.wide, tile.ahead, device->tuning->loop_guard);
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

/* ---- scores_tile.cl ------------------------------------------------------------- */

/* 16 rows of work-items, and as many query rows for each as local memory has room for. */
static int32_t scores_tile_rows(const struct cl_device *device)
{
    return device->local_bytes >= 36 << 10 ? 4 : 2;
}

static size_t scores_tile_bytes(const struct cl_device *device, const struct problem *problem)
{
    (void)problem;
    const size_t rows = 16 * (size_t)scores_tile_rows(device);
    return (16 * CL_SCORE_KEYS + 16 * (rows + 1) + rows * (CL_SCORE_KEYS + 1) + 17 * CL_SCORE_KEYS) * 4 + rows * 60 + CL_SCORE_KEYS * 12 + 128;
}

static void scores_tile_local(const struct cl_device *device, const struct problem *problem, size_t local[2])
{
    (void)problem;
    local[0] = CL_SCORE_KEYS / (2 * (size_t)device->tuning->lane_vector); /* two vectors of keys each */
    local[1] = 16;
    while (local[0] > 1 && local[0] * 16 > device->max_group) local[0] /= 2;
}

static size_t scores_tile_options(const struct cl_device *device, const struct problem *problem, char *text, size_t capacity)
{
    (void)problem;
    return text_append(text, capacity, 0, " -DTR=%d -DVW=%d", scores_tile_rows(device), device->tuning->lane_vector);
}

/* ---- specs --------------------------------------------------------------------- */

const struct cl_kernel_spec cl_prefill_tile = {.parts = {"common.cl", "prefill_tile.cl", "merge_lanes.cl"}, .kernel = "prefill_tile",
    .merge = "merge_lanes", .options = prefill_tile_options, .local = prefill_tile_local, .local_bytes = prefill_tile_bytes};
const struct cl_kernel_spec cl_scores_tile = {.parts = {"common.cl", "scores_tile.cl"}, .kernel = "scores_tile", .options = scores_tile_options,
    .local = scores_tile_local, .local_bytes = scores_tile_bytes};
