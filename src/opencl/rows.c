/* SPDX-License-Identifier: MIT
 * rows.c - the OpenCL rows of the table, best first; opencl.naive, which does everything, last. A row is offered on a device only after a right
 * answer there (probe.c), so nothing here is a promise about any device.
 */
#include "cl.h"

/* Keys per item of prefill of few queries, and how many are few. With the panel's order of arithmetic as an f32 row of the CPU has them (cpu/prefill.inc.h), or the bits would differ. On matrix
 * units a multiple of every TILE_KEYS up to 128, also of 96, or the last tile would be half empty; twelve times what 128 partial rows take, whatever the dimensions, are K and V
 * of such a chunk in 16 bits, and eight heads on 16384 keys make 88 items. */
enum {
    PANEL_CHUNK = 12 * 96,
    PANEL_SHORT = 256,
    UNIT_CHUNK = 1536,
    UNIT_SHORT = 128
};

enum {
    TYPES_FLOAT = 1u << HEED_F32 | 1u << HEED_F16 | 1u << HEED_BF16,
    NAIVE_TILE = 16,
    DECODE_LANES_KEYS = 256,
    TYPES_BYTES = 1u << HEED_I8 | 1u << HEED_Q8_0 | 1u << HEED_F8_E4M3 | 1u << HEED_F8_E5M2,
    TYPES_ALL = TYPES_FLOAT | 1u << HEED_I8 | 1u << HEED_Q8_0 | 1u << HEED_Q4_0 | 1u << HEED_F8_E4M3 | 1u << HEED_F8_E5M2
};

/* exp_1 of common.cl: one rounding of the argument, 1.1 ulp; softcap (1.4 ulp for c = 1, and 1 / c) and log of our own; full-profile division (2.5 ulp and a product). */
#define OWN_MATHS .exp_ulp = 1.1f, .exp_roundings = 1, .tanh_ulp = 5, .log_ulp = 3, .div_roundings = 6

/* prefill_matrix.cl: a unit adds a group of products at once, each cut to the largest one's last place; NVIDIA's ex2 is off by 2^-22, its argument rounded
 * when scale and log2 e are multiplied, and once itself; a reciprocal and two products. */
#define MATRIX_MATHS                                                                                                             \
    .dot_lanes = 1, .sum_extra = 6, .rescale_block = 16, .add_roundings = 2.5f, .exp_ulp = 2, .exp_roundings = 3, .tanh_ulp = 5, .log_ulp = 3,  \
    .div_roundings = 8

/* attention_columns.cl: the same on AMD's and Intel's units, which may flush; AMD's v_exp_f32 is off by 1 ulp, Intel's is exp_1. */
#define COLUMNS_MATHS MATRIX_MATHS, .flushes = true

/* prefill_tf32.cl: the unit as above, three times; of a product's factors 2^-22 is lost each, and the product of their small parts, together 12 roundings: five
 * additions of 2.5. */
#define TF32_MATHS                                                                                                               \
    .dot_lanes = 1, .dot_extra = 5, .sum_extra = 18, .rescale_block = 16, .add_roundings = 2.5f, OWN_MATHS, .flushes = true

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

static size_t decode_dots_options(const struct cl_device *device, const struct problem *problem, char *text, size_t capacity)
{
    return text_append(text, capacity, decode_cpu_options(device, problem, text, capacity), " -DDOTS=1");
}

/* The register tile of scores_cpu.cl, beside decode_keys.cl's. */
static size_t scores_cpu_options(const struct cl_device *device, const struct problem *problem, char *text, size_t capacity)
{
    return text_append(text, capacity, decode_cpu_options(device, problem, text, capacity), " -DNV=%d", device->registers >= 32 ? 4 : 1);
}

static size_t scores_dots_options(const struct cl_device *device, const struct problem *problem, char *text, size_t capacity)
{
    return text_append(text, capacity, scores_cpu_options(device, problem, text, capacity), " -DDOTS=1");
}

/* ---- the matrix unit's tile ----------------------------------------------------- */

/* prefill_matrix.cl. By the wider of the two dimensions, so that registers hold the accumulators and the ring finds room. With 32 rows to a warp keys and values are
 * read from local memory half as often, where it holds two such groups; the emulated unit, which has a barrier in each word, gets the smallest. */
struct matrix_tile {
    int32_t rows, keys, warps, slots;
    bool query_registers;
};

static int32_t padded(int32_t dim) { return (dim + 31) / 32 * 32; }

/* Local memory that a matrix row may have, less what the compiler takes to align its own. */
static int32_t matrix_room(const struct cl_device *device)
{
    const cl_ulong bytes = device->matrix_local_bytes ? device->matrix_local_bytes : device->local_bytes;
    return (int32_t)(bytes < 1 << 30 ? bytes : 1 << 30) - 64;
}

/* As many tiles as wanted or as there is room for, at least two. */
static int32_t ring_of(const struct cl_device *device, int32_t slots, int32_t slot_bytes, int32_t other_bytes)
{
    while (slots > 2 && slots * slot_bytes + other_bytes > matrix_room(device)) slots--;
    return slots;
}

static struct matrix_tile matrix_tile_of(const struct cl_device *device, const struct problem *p)
{
    static const struct { int32_t dim; struct matrix_tile tile;
    } by_dim[] = {{64, {64, 64, 4, 4, true}}, {128, {64, 64, 4, 4, true}}, {192, {64, 32, 4, 3, true}}, {256, {64, 32, 4, 4, true}}};
    const struct cl_tuning *t = device->tuning;
    const int32_t dim = p->head_dim > p->v_head_dim ? p->head_dim : p->v_head_dim;
    int n = 0;
    while (n < 3 && dim > by_dim[n].dim) n++;
    struct matrix_tile tile = by_dim[n].tile;
    if (dim > 192 && matrix_room(device) < 64 << 10) tile.keys = 16;
    if (dim <= 128 && matrix_room(device) >= 128 << 10) tile = dim <= 64 ? (struct matrix_tile){128, 64, 4, 3, true} : (struct matrix_tile){128, 64, 4, 2, false};
    if (device->matrix == MATRIX_EMULATED) tile = (struct matrix_tile){16, 16, 1, 3, true};
    if (t->matrix_rows) tile.rows = t->matrix_rows;
    if (t->matrix_keys) tile.keys = t->matrix_keys;
    if (t->matrix_warps) tile.warps = t->matrix_warps;
    if (t->matrix_slots) tile.slots = t->matrix_slots;
    if (t->matrix_local) tile.query_registers = t->matrix_local == 1;
    tile.slots = ring_of(device, tile.slots, tile.keys * 2 * padded(dim), tile.query_registers ? 0 : tile.rows * 2 * padded(p->head_dim));
    return tile;
}

static size_t prefill_matrix_options(const struct cl_device *device, const struct problem *problem, char *text, size_t capacity)
{
    const struct matrix_tile tile = matrix_tile_of(device, problem);
    return text_append(text, capacity, 0, " -DMATRIX=%d -DLAYOUT=2 -DTILE_ROWS=%d -DTILE_KEYS=%d -DWARPS=%d -DSLOTS=%d -DQUERY_REGISTERS=%d%s",
                       (int)device->matrix, tile.rows, tile.keys, tile.warps, tile.slots, tile.query_registers, cl_unit_options(device, device->matrix));
}

static void prefill_matrix_local(const struct cl_device *device, const struct problem *problem, size_t local[2])
{
    local[0] = 32 * (size_t)matrix_tile_of(device, problem).warps;
}

static size_t prefill_matrix_bytes(const struct cl_device *device, const struct problem *problem)
{
    const struct matrix_tile tile = matrix_tile_of(device, problem);
    const int32_t k = padded(problem->head_dim), v = padded(problem->v_head_dim), ring = tile.slots * tile.keys * 2 * (k > v ? k : v);
    const int32_t query = tile.query_registers ? 0 : tile.rows * 2 * k, boxes = device->matrix == MATRIX_EMULATED ? 32 * tile.warps * 32 : 0;
    return (size_t)(ring + query + boxes + 64);
}

/* prefill_warpgroup.cl, prefill_bulk.cl. Two warpgroups, which leaves each work-item 255 registers, or three with 168, enough for 64 dimensions. They take turns where
 * four tiles of keys and values find room, or three that the engine for copies brings; beyond 128 dimensions two do, and all go in step. */
struct warpgroup_tile {
    int32_t keys, warps, slots;
};

static int32_t panelled(int32_t dim) { return (dim + 63) / 64 * 64; }

static struct warpgroup_tile warpgroup_tile(const struct cl_device *device, const struct problem *p, int32_t groups, bool bulk)
{
    const struct cl_tuning *t = device->tuning;
    const int32_t dim = panelled(p->head_dim > p->v_head_dim ? p->head_dim : p->v_head_dim);
    struct warpgroup_tile tile = {dim > 128 ? 64 : bulk ? 128 : 96, 4 * groups, dim > 128 ? 2 : bulk ? 3 : 4};
    if (device->matrix == MATRIX_EMULATED) tile = (struct warpgroup_tile){16, 4 * (groups - 1), bulk ? 3 : 4};
    else if (t->group_keys) tile.keys = t->group_keys;
    if (t->group_slots) tile.slots = t->group_slots;
    return tile;
}

static size_t warpgroup_options(const struct cl_device *device, const struct warpgroup_tile tile, char *text, size_t capacity)
{
    return text_append(text, capacity, 0, " -DMATRIX=%d -DLAYOUT=2 -DPANELS=1 -DTILE_ROWS=%d -DTILE_KEYS=%d -DWARPS=%d -DSLOTS=%d%s", (int)device->matrix,
                       tile.warps * 16, tile.keys, tile.warps, tile.slots, cl_unit_options(device, device->matrix));
}

static size_t warpgroup_bytes(const struct cl_device *device, const struct problem *p, const struct warpgroup_tile tile)
{
    const int32_t k = panelled(p->head_dim), v = panelled(p->v_head_dim), boxes = device->matrix == MATRIX_EMULATED ? 32 * tile.warps * 32 : 0;
    return (size_t)(tile.warps * 16 * 2 * k + tile.slots * tile.keys * 2 * (k + v) + 1024 + boxes);
}

#define WARPGROUPS(name, groups, bulk)                                                                                           \
    static size_t name##_options(const struct cl_device *device, const struct problem *problem, char *text, size_t capacity)     \
    {                                                                                                                            \
        return warpgroup_options(device, warpgroup_tile(device, problem, groups, bulk), text, capacity);                         \
    }                                                                                                                            \
    static void name##_local(const struct cl_device *device, const struct problem *problem, size_t local[2])                     \
    {                                                                                                                            \
        local[0] = 32 * (size_t)warpgroup_tile(device, problem, groups, bulk).warps;                                             \
    }                                                                                                                            \
    static size_t name##_bytes(const struct cl_device *device, const struct problem *problem)                                    \
    {                                                                                                                            \
        return warpgroup_bytes(device, problem, warpgroup_tile(device, problem, groups, bulk));                                  \
    }
WARPGROUPS(prefill_warpgroup2, 2, false)
WARPGROUPS(prefill_warpgroup3, 3, false)
WARPGROUPS(prefill_bulk2, 2, true)
WARPGROUPS(prefill_bulk3, 3, true)

/* prefill_tf32.cl: a ring of two tiles of floats. */
static void prefill_tf32_local(const struct cl_device *device, const struct problem *problem, size_t local[2])
{
    (void)problem;
    local[0] = device->matrix == MATRIX_EMULATED ? 32 : 128;
}

static size_t prefill_tf32_options(const struct cl_device *device, const struct problem *problem, char *text, size_t capacity)
{
    size_t local[2];
    prefill_tf32_local(device, problem, local);
    return text_append(text, capacity, 0, " -DMATRIX=%d -DLAYOUT=2 -DTILE_KEYS=%d -DWARPS=%d -DSLOTS=2%s", (int)device->matrix,
                       device->matrix == MATRIX_EMULATED ? 16 : 32, (int)local[0] / 32, cl_unit_options(device, device->matrix));
}

static size_t prefill_tf32_bytes(const struct cl_device *device, const struct problem *problem)
{
    const bool emulated = device->matrix == MATRIX_EMULATED;
    const int32_t dim = padded(problem->head_dim > problem->v_head_dim ? problem->head_dim : problem->v_head_dim);
    return (size_t)(2 * (emulated ? 16 : 32) * (dim + 4) * 4 + 64 + (emulated ? 32 * 32 : 0));
}

/* decode_matrix.cl: sixteen rows, so each warp wants sixteen keys of a tile; at the end the warps' sums meet in the ring's memory. */
static struct matrix_tile decode_matrix_tile(const struct cl_device *device, const struct problem *p)
{
    const int32_t dim = p->head_dim > p->v_head_dim ? p->head_dim : p->v_head_dim;
    struct matrix_tile tile = {16, 32, 2, 3, false};
    if (device->matrix != MATRIX_EMULATED && dim <= 128) tile = (struct matrix_tile){16, 64, 4, dim <= 64 ? 4 : 3, false};
    tile.slots = ring_of(device, tile.slots, tile.keys * 2 * padded(dim), 16 * 2 * padded(p->head_dim));
    return tile;
}

static size_t decode_matrix_options(const struct cl_device *device, const struct problem *problem, char *text, size_t capacity)
{
    const struct matrix_tile tile = decode_matrix_tile(device, problem);
    return text_append(text, capacity, 0, " -DMATRIX=%d -DLAYOUT=2 -DTILE_KEYS=%d -DWARPS=%d -DSLOTS=%d%s", (int)device->matrix, tile.keys,
                       tile.warps, tile.slots, cl_unit_options(device, device->matrix));
}

static void decode_matrix_local(const struct cl_device *device, const struct problem *problem, size_t local[2])
{
    local[0] = 32 * (size_t)decode_matrix_tile(device, problem).warps;
}

static size_t decode_matrix_bytes(const struct cl_device *device, const struct problem *problem)
{
    const struct matrix_tile tile = decode_matrix_tile(device, problem);
    const int32_t k = padded(problem->head_dim), v = padded(problem->v_head_dim), ring = tile.slots * tile.keys * 2 * (k > v ? k : v);
    const int32_t meet = tile.warps * 16 * (v + 2) * 4 + 128, boxes = device->matrix == MATRIX_EMULATED ? 32 * tile.warps * 32 : 0;
    return (size_t)(ring > meet ? ring : meet) + (size_t)(16 * 2 * k + boxes + 64);
}

/* The same with keys and values of 8 bits, which lie in the ring as they come: matrix_bytes.cl. */
static int32_t byte_pieces(heed_type type, int32_t dim) { return ((type == HEED_Q8_0 ? dim / 32 * 34 : dim) + 15) / 16; }
static int32_t byte_slot(heed_type type, int32_t dim) { return (byte_pieces(type, dim) | 1) * 16 + 4; } /* of a key, with its scale */

static int32_t byte_query(const struct problem *p)
{
    return 16 * ((2 * (p->k_type == HEED_Q8_0 ? 3 * p->head_dim / 32 : byte_pieces(p->k_type, p->head_dim))) | 1) * 16;
}

static struct matrix_tile decode_bytes_tile(const struct cl_device *device, const struct problem *p)
{
    const int32_t dim = p->head_dim > p->v_head_dim ? p->head_dim : p->v_head_dim;
    const int32_t k = byte_slot(p->k_type, p->head_dim), v = byte_slot(p->v_type, p->v_head_dim);
    struct matrix_tile tile = {16, 32, 2, 4, false};
    if (device->matrix != MATRIX_EMULATED && dim <= 128) tile = (struct matrix_tile){16, 64, 4, 4, false};
    tile.slots = ring_of(device, tile.slots, tile.keys * (k > v ? k : v), byte_query(p));
    return tile;
}

static size_t decode_bytes_options(const struct cl_device *device, const struct problem *problem, char *text, size_t capacity)
{
    const struct matrix_tile tile = decode_bytes_tile(device, problem);
    return text_append(text, capacity, 0, " -DMATRIX=%d -DLAYOUT=2 -DBYTES=1 -DTILE_KEYS=%d -DWARPS=%d -DSLOTS=%d%s", (int)device->matrix, tile.keys,
                       tile.warps, tile.slots, cl_unit_options(device, device->matrix));
}

static void decode_bytes_local(const struct cl_device *device, const struct problem *problem, size_t local[2])
{
    local[0] = 32 * (size_t)decode_bytes_tile(device, problem).warps;
}

static size_t decode_bytes_bytes(const struct cl_device *device, const struct problem *problem)
{
    const struct matrix_tile tile = decode_bytes_tile(device, problem);
    const int32_t k = byte_slot(problem->k_type, problem->head_dim), v = byte_slot(problem->v_type, problem->v_head_dim);
    const int32_t ring = tile.slots * tile.keys * (k > v ? k : v), meet = tile.warps * 16 * (padded(problem->v_head_dim) + 3) * 4 + 128;
    return (size_t)((ring > meet ? ring : meet) + byte_query(problem) + (device->matrix == MATRIX_EMULATED ? 32 * tile.warps * 32 : 0) + 64);
}

struct columns_tile {
    int32_t rows, keys, warps, slots;
    bool query_registers;
    int32_t key_warps, dim_warps; /* warps that have keys, dimensions of their own */
};

/* attention_columns.cl. By the compilers' counts of registers: waves of 64 have room for everything, waves of 32 for 128 dimensions, Intel's lanes for 64.
 * The warps of decode that are not needed for dimensions have keys of their own. */
static int32_t widest(const struct problem *p) { return padded(p->head_dim > p->v_head_dim ? p->head_dim : p->v_head_dim); }

static struct columns_tile columns_tile(const struct cl_device *device, const struct problem *p, bool decode)
{
    const struct cl_tuning *t = device->tuning;
    const int32_t lanes = cl_warp_lanes(cl_layout(device)), columns = cl_warp_columns(cl_layout(device)), dim = widest(p), v = padded(p->v_head_dim);
    const int32_t limit = lanes == 64 ? 256 : lanes == 32 ? 128 : 64;
    int32_t parts = 1;
    while (v > parts * limit) parts *= 2;
    struct columns_tile tile = {.keys = lanes == 64 && dim <= 128 ? 64 : 32, .warps = lanes == 64 ? 2 : lanes == 32 ? 4 : 8, .slots = 2,
                               .query_registers = dim <= limit / 2, .key_warps = 1, .dim_warps = parts};
    if (decode) tile.keys = dim > 128 ? 32 : 64, tile.key_warps = tile.warps / parts;
    if (device->matrix == MATRIX_EMULATED)
        tile = (struct columns_tile){.keys = decode ? 32 : 16, .warps = decode ? 2 * parts : parts, .slots = 3, .query_registers = true,
                                    .key_warps = decode ? 2 : 1, .dim_warps = parts};
    while (tile.keys / tile.key_warps < 16) tile.key_warps /= 2, tile.warps /= 2;
    if (!decode) {
        if (t->matrix_keys) tile.keys = t->matrix_keys;
        if (t->matrix_warps) tile.warps = t->matrix_warps;
        if (t->matrix_slots) tile.slots = t->matrix_slots;
        if (t->matrix_local) tile.query_registers = t->matrix_local == 1;
    }
    const int32_t least = tile.warps / (tile.key_warps * tile.dim_warps) * columns;
    tile.rows = !decode && t->matrix_rows > least && least > 0 ? t->matrix_rows / least * least : least;
    if (tile.rows * 2 * padded(p->head_dim) > tile.slots * tile.keys * 2 * dim) tile.query_registers = false; /* they come through the ring */
    return tile;
}

static size_t columns_bytes(const struct cl_device *device, const struct problem *p, bool decode)
{
    const struct columns_tile tile = columns_tile(device, p, decode);
    const int32_t k = padded(p->head_dim), v = padded(p->v_head_dim);
    const int32_t ring = tile.slots * tile.keys * 2 * widest(p) + (tile.query_registers ? 0 : tile.rows * 2 * k);
    const int32_t meet = tile.key_warps * tile.rows * (v + 2) * 4 + tile.rows * 8;
    const int32_t boxes = device->matrix == MATRIX_EMULATED ? cl_warp_lanes(cl_layout(device)) * tile.warps * 64 : 0;
    return (size_t)(ring > meet ? ring : meet) + (size_t)boxes;
}

static size_t columns_options(const struct cl_device *device, const struct problem *p, bool decode, char *text, size_t capacity)
{
    const struct columns_tile tile = columns_tile(device, p, decode);
    const int32_t least = tile.warps / (tile.key_warps * tile.dim_warps) * cl_warp_columns(cl_layout(device));
    return text_append(text, capacity, 0,
                       " -DMATRIX=%d -DLAYOUT=%d -DTILE_KEYS=%d -DWARPS=%d -DKEY_WARPS=%d -DDIM_WARPS=%d -DCOLUMN_TILES=%d -DSLOTS=%d -DQUERY_REGISTERS=%d%s",
                       (int)device->matrix, (int)cl_layout(device), tile.keys, tile.warps, tile.key_warps, tile.dim_warps, least > 0 ? tile.rows / least : 1,
                       tile.slots, tile.query_registers, cl_unit_options(device, device->matrix));
}

static void columns_local(const struct cl_device *device, const struct problem *p, bool decode, size_t local[2])
{
    local[0] = (size_t)(cl_warp_lanes(cl_layout(device)) * columns_tile(device, p, decode).warps);
}

#define COLUMNS(kind, decode)                                                                                                    \
    static size_t kind##_columns_bytes(const struct cl_device *device, const struct problem *problem)                            \
    {                                                                                                                            \
        return columns_bytes(device, problem, decode);                                                                           \
    }                                                                                                                            \
    static size_t kind##_columns_options(const struct cl_device *device, const struct problem *problem, char *text, size_t capacity)  \
    {                                                                                                                            \
        return columns_options(device, problem, decode, text, capacity);                                                         \
    }                                                                                                                            \
    static void kind##_columns_local(const struct cl_device *device, const struct problem *problem, size_t local[2])             \
    {                                                                                                                            \
        columns_local(device, problem, decode, local);                                                                           \
    }
COLUMNS(prefill, false)
COLUMNS(decode, true)

/* decode_lanes.cl: the layout of its local memory, which rules how many work-items a group has. */
static size_t decode_lanes_room(const struct problem *problem, size_t lanes)
{
    const size_t rows = problem->group < 8 ? (size_t)problem->group : 8, pieces = ((size_t)problem->head_dim + 7) / 8;
    size_t team = 1;
    while (team < pieces && team < lanes) team *= 2;
    const size_t slabs = (pieces + team - 1) / team, teams = lanes / team;
    size_t depth = rows * slabs <= 2 ? 8 : slabs <= 2 ? 4 : 1;
    if (depth > DECODE_LANES_KEYS / teams) depth = DECODE_LANES_KEYS / teams;
    const size_t sums = teams * depth * rows * (team < 2 ? 1 : team + 2) * 4, results = lanes * 32;
    const size_t addresses = problem->page_size > 0 ? 16 * DECODE_LANES_KEYS : 0;
    return cl_larger(sums, results) + DECODE_LANES_KEYS * 4 * rows + addresses + lanes * 4 + rows * (4 * 4 + 56) + 256;
}

/* A few lanes also where the device is a CPU: that is what a CPU runs when its driver fails with decode.cl. */
static void decode_lanes_local(const struct cl_device *device, const struct problem *problem, size_t local[2])
{
    size_t lanes = (size_t)cl_lanes(device);
    while (lanes < 8 && 2 * lanes <= device->max_group && 2 * lanes <= device->max_sizes[0]) lanes *= 2;
    while (lanes > 8 && (lanes & (lanes - 1) || lanes > DECODE_LANES_KEYS || decode_lanes_room(problem, lanes) > device->local_bytes)) lanes--;
    local[0] = lanes;
}

static size_t decode_lanes_options(const struct cl_device *device, const struct problem *problem, char *text, size_t capacity)
{
    (void)problem;
    return text_append(text, capacity, 0, " -DGUARD=%d", device->tuning->loop_guard);
}

static size_t decode_lanes_bytes(const struct cl_device *device, const struct problem *problem)
{
    size_t local[2] = {1, 1};
    decode_lanes_local(device, problem, local);
    return decode_lanes_room(problem, local[0]);
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
    while (local[0] > device->max_group || local[0] > device->max_sizes[0] || local[0] > atomic_load(&device->kernel_group)) local[0] /= 2;
}

/* A work-item per key of scores.cl's item. */
static void naive_scores_local(const struct cl_device *device, const struct problem *problem, size_t local[2])
{
    (void)problem;
    local[0] = CL_SCORE_KEYS;
    while (local[0] > device->max_group || local[0] > device->max_sizes[0] || local[0] > atomic_load(&device->kernel_group)) local[0] /= 2;
}

/* ---- specs --------------------------------------------------------------------- */

static const struct cl_kernel_spec decode_cpu = {
    .parts = {"common.cl", "fetch.cl", "decode_keys.cl", "decode.cl", "merge.cl"}, .kernel = "decode_cpu", .merge = "merge_parts", .options = decode_cpu_options};
static const struct cl_kernel_spec decode_dots = {.parts = {"common.cl", "fetch.cl", "dots.cl", "decode_keys.cl", "decode.cl", "merge.cl"}, .kernel = "decode_cpu",
    .merge = "merge_parts", .options = decode_dots_options};
static const struct cl_kernel_spec prefill_cpu = {
    .parts = {"common.cl", "fetch.cl", "prefill_cpu.cl", "merge.cl"}, .kernel = "prefill_cpu", .merge = "merge_parts", .options = prefill_cpu_options};
static const struct cl_kernel_spec decode_lanes = {.parts = {"common.cl", "decode_lanes.cl", "merge_lanes.cl"}, .kernel = "decode_lanes",
    .merge = "merge_lanes", .options = decode_lanes_options, .local = decode_lanes_local, .local_bytes = decode_lanes_bytes};
#define COLUMNS_PARTS "common.cl", "matrix_columns.cl", "matrix_emulated.cl", "matrix_amd.cl", "matrix_intel.cl", "matrix_tile.cl", "attention_columns.cl"
static const struct cl_kernel_spec decode_columns = {.parts = {COLUMNS_PARTS, "merge_lanes.cl"}, .kernel = "attention_columns", .merge = "merge_lanes",
    .options = decode_columns_options, .local = decode_columns_local, .local_bytes = decode_columns_bytes};
static const struct cl_kernel_spec prefill_columns = {.parts = {COLUMNS_PARTS, "merge_lanes.cl"}, .kernel = "attention_columns", .merge = "merge_lanes",
    .options = prefill_columns_options, .local = prefill_columns_local, .local_bytes = prefill_columns_bytes};
#define MATRIX_PARTS "matrix_emulated.cl", "matrix_nvidia.cl", "matrix_tile.cl"
static const struct cl_kernel_spec decode_matrix = {.parts = {"common.cl", MATRIX_PARTS, "decode_matrix.cl", "merge_lanes.cl"}, .kernel = "decode_matrix",
    .merge = "merge_lanes", .options = decode_matrix_options, .local = decode_matrix_local, .local_bytes = decode_matrix_bytes};
static const struct cl_kernel_spec decode_bytes = {.parts = {"common.cl", MATRIX_PARTS, "matrix_bytes.cl", "decode_matrix.cl", "merge_lanes.cl"},
    .kernel = "decode_matrix", .merge = "merge_lanes", .options = decode_bytes_options, .local = decode_bytes_local, .local_bytes = decode_bytes_bytes};
static const struct cl_kernel_spec prefill_matrix = {.parts = {"common.cl", MATRIX_PARTS, "prefill_matrix.cl", "merge_lanes.cl"},
    .kernel = "prefill_matrix", .merge = "merge_lanes", .options = prefill_matrix_options, .local = prefill_matrix_local, .local_bytes = prefill_matrix_bytes};
#define WARPGROUP_PARTS "common.cl", MATRIX_PARTS, "matrix_warpgroup.cl"
#define WARPGROUP_SPEC(name)                                                                                                     \
    static const struct cl_kernel_spec name = {.parts = {WARPGROUP_PARTS, "warpgroup_parcels.cl", "warpgroup_rows.cl", "prefill_warpgroup.cl", "merge_lanes.cl"}, \
        .kernel = "prefill_warpgroup", .merge = "merge_lanes", .marked = true, .options = name##_options, .local = name##_local, .local_bytes = name##_bytes}
#define BULK_SPEC(name)                                                                                                          \
    static const struct cl_kernel_spec name = {.parts = {WARPGROUP_PARTS, "warpgroup_boxes.cl", "warpgroup_rows.cl", "prefill_bulk.cl", "merge_lanes.cl"}, \
        .kernel = "prefill_bulk", .merge = "merge_lanes", .marked = true, .options = name##_options, .local = name##_local, .local_bytes = name##_bytes, .item_bytes = 256}
WARPGROUP_SPEC(prefill_warpgroup2);
WARPGROUP_SPEC(prefill_warpgroup3);
BULK_SPEC(prefill_bulk2);
BULK_SPEC(prefill_bulk3);
static const struct cl_kernel_spec prefill_tf32 = {.parts = {"common.cl", MATRIX_PARTS, "prefill_tf32.cl", "merge_lanes.cl"}, .kernel = "prefill_tf32",
    .merge = "merge_lanes", .options = prefill_tf32_options, .local = prefill_tf32_local, .local_bytes = prefill_tf32_bytes};
static const struct cl_kernel_spec naive = {
    .parts = {"common.cl", "naive.cl"}, .kernel = "naive", .shrinks = true, .run_time = true, .options = naive_options, .local = naive_local};
static const struct cl_kernel_spec scores_cpu = {
    .parts = {"common.cl", "fetch.cl", "decode_keys.cl", "scores_cpu.cl"}, .kernel = "scores_cpu", .options = scores_cpu_options};
static const struct cl_kernel_spec scores_dots = {
    .parts = {"common.cl", "fetch.cl", "dots.cl", "decode_keys.cl", "scores_cpu.cl"}, .kernel = "scores_cpu", .options = scores_dots_options};
static const struct cl_kernel_spec naive_scores = {.parts = {"common.cl", "naive.cl", "scores.cl"}, .kernel = "naive_scores", .shrinks = true, .run_time = true,
    .options = naive_options, .local = naive_scores_local};
/* One program for the three: what differs is the kernel. */
#define BESIDE .parts = {"common.cl", "append.cl", "merge_two.cl"}, .run_time = true
static const struct cl_kernel_spec append = {BESIDE, .kernel = "append"};
static const struct cl_kernel_spec rotate = {BESIDE, .kernel = "rotate_rows"};
static const struct cl_kernel_spec merge_two = {BESIDE, .kernel = "merge_two"};

/* ---- rows ----------------------------------------------------------------------- */

/* h_d of decode_lanes: head_dim / 64 ... / 8 fmas, at least 8, then half a team's sums and one more: with a team of at most twice the pieces of eight, never more than
 * head_dim / 8 + 14. h_d of decode: head_dim / 16 fmas and 4 levels of the tree; h_n: one chain over a chunk, a merge per chunk, a value's scale and the sink. With dots
 * (decode_dots) as many additions: a product of two passes through two. */
#define DECODE_MATHS .dot_lanes = 16, .dot_extra = 4, .key_block = 512, .sum_extra = 2, .rescale_block = 512, OWN_MATHS
/* Rows of matrix units: q, k and v in one type of 16 bits, which the weights are rounded to. */
#define UNIT_TYPES(type, has) \
    .features = has, .q_types = 1u << (type), .k_types = 1u << (type), .v_types = 1u << (type), .o_types = TYPES_FLOAT
#define UNIT_DECODE(text, type, need, maths, spec)                                                                               \
    {.name = text, .kinds = KIND_BIT(KIND_DECODE), .order = ORDER_OWN, .needs = need, UNIT_TYPES(type, FEATURES_ALL), .dim_limit = 256, .q_tile = 16, \
     .kv_chunk = 512, .decode_rows = 16, .packs_group = true, .arithmetic = {maths, .key_block = 512, .weight_type = type}, .cl = &spec}
/* Keys and values of 8 bits, which are exact in the unit's 16; a weight is multiplied by its value's scale in f32 and rounded to bf16, whose range is f32's. A product
 * of q8_0 passes 32 additions and one for each block, at most head_dim + 1. An item has as many bytes of them as one of decode_matrix.cl has. */
#define BYTES_DECODE(text, type, spec)                                                                                           \
    {.name = text, .kinds = KIND_BIT(KIND_DECODE), .order = ORDER_OWN, .needs = CL_NEEDS_MATRIX, .features = FEATURES_ALL,        \
     .q_types = 1u << (type), .k_types = TYPES_BYTES, .v_types = TYPES_BYTES, .o_types = TYPES_FLOAT, .dim_limit = 256, .q_tile = 16, \
     .kv_chunk = 1024, .decode_rows = 16, .packs_group = true,                                                                   \
     .arithmetic = {MATRIX_MATHS, .dot_extra = 1, .key_block = 1024, .weight_type = HEED_BF16, .flushes = true}, .cl = &spec}
#define UNIT_ROWS(text, type, has, need, dims, rows) \
    .name = text, .kinds = KIND_BIT(KIND_PREFILL), .order = ORDER_OWN, .needs = need, UNIT_TYPES(type, has), .dim_limit = dims, .q_tile = rows, .short_chunk = UNIT_CHUNK, .short_rows = UNIT_SHORT
#define UNIT_PREFILL(text, type, need, maths, dims, rows, spec)                                                                  \
    {UNIT_ROWS(text, type, FEATURES_ALL, need, dims, rows), .arithmetic = {maths, .weight_type = type}, .cl = &spec}
/* Tiles that come whole out of one matrix: no pages, and rows at multiples of 16 bytes. Dimensions that are none of 8 lie elsewhere in most layouts, and prefill_warpgroup gathers
 * them beside its products; a view of other addresses is right here, but slower (prefill_bulk.cl, tile by tile). */
#define BULK_PREFILL(text, type, dims, rows, spec)                                                                               \
    {UNIT_ROWS(text, type, FEATURES_ALL & ~FEATURE_PAGED, CL_NEEDS_WARPGROUP, dims, rows), .dim_step = 8, .arithmetic = {MATRIX_MATHS, .weight_type = type}, .cl = &spec}
const struct kernel_row cl_rows[] = {
    UNIT_DECODE("opencl.decode_matrix_bf16", HEED_BF16, CL_NEEDS_MATRIX, MATRIX_MATHS, decode_matrix),
    UNIT_DECODE("opencl.decode_matrix_f16", HEED_F16, CL_NEEDS_MATRIX, MATRIX_MATHS, decode_matrix),
    BYTES_DECODE("opencl.decode_bytes_bf16", HEED_BF16, decode_bytes),
    BYTES_DECODE("opencl.decode_bytes_f16", HEED_F16, decode_bytes),
    UNIT_DECODE("opencl.decode_columns_bf16", HEED_BF16, CL_NEEDS_COLUMNS, COLUMNS_MATHS, decode_columns),
    UNIT_DECODE("opencl.decode_columns_f16", HEED_F16, CL_NEEDS_COLUMNS, COLUMNS_MATHS, decode_columns),
    {.name = "opencl.decode_dots", .kinds = KIND_BIT(KIND_DECODE), .order = ORDER_OWN, .needs = CL_NEEDS_CPU | CL_NEEDS_DOTS,
     .features = FEATURES_ALL, .q_types = 1u << HEED_BF16, .k_types = 1u << HEED_BF16, .v_types = 1u << HEED_BF16, .o_types = TYPES_FLOAT,
     .q_tile = 32, .kv_chunk = 512, .decode_rows = 24, .decode_queries = 24, .packs_group = true,
     .arithmetic = {DECODE_MATHS, .weight_type = HEED_BF16, .flushes = true}, .cl = &decode_dots},
    {.name = "opencl.decode_cpu", .kinds = KIND_BIT(KIND_DECODE), .order = ORDER_OWN, .needs = CL_NEEDS_CPU,
     .features = FEATURES_ALL, .q_types = TYPES_FLOAT, .k_types = TYPES_ALL, .v_types = TYPES_ALL, .o_types = TYPES_FLOAT,
     .q_tile = 16, .kv_chunk = 512, .decode_queries = 12, .packs_group = true,
     .arithmetic = {DECODE_MATHS}, .cl = &decode_cpu},
    {.name = "opencl.decode_lanes", .kinds = KIND_BIT(KIND_DECODE), .order = ORDER_OWN,
     .features = FEATURES_ALL, .q_types = TYPES_FLOAT, .k_types = TYPES_ALL, .v_types = TYPES_ALL, .o_types = TYPES_FLOAT,
     .q_tile = 8, .kv_chunk = DECODE_LANES_KEYS, .packs_group = true,
     .arithmetic = {.dot_lanes = 8, .dot_extra = 14, .key_block = DECODE_LANES_KEYS, .sum_extra = 2, .rescale_block = DECODE_LANES_KEYS, OWN_MATHS},
     .cl = &decode_lanes},
    BULK_PREFILL("opencl.prefill_bulk3_bf16", HEED_BF16, 64, 192, prefill_bulk3),
    BULK_PREFILL("opencl.prefill_bulk3_f16", HEED_F16, 64, 192, prefill_bulk3),
    BULK_PREFILL("opencl.prefill_bulk2_bf16", HEED_BF16, 256, 128, prefill_bulk2),
    BULK_PREFILL("opencl.prefill_bulk2_f16", HEED_F16, 256, 128, prefill_bulk2),
    UNIT_PREFILL("opencl.prefill_warpgroup3_bf16", HEED_BF16, CL_NEEDS_WARPGROUP, MATRIX_MATHS, 64, 192, prefill_warpgroup3),
    UNIT_PREFILL("opencl.prefill_warpgroup3_f16", HEED_F16, CL_NEEDS_WARPGROUP, MATRIX_MATHS, 64, 192, prefill_warpgroup3),
    UNIT_PREFILL("opencl.prefill_warpgroup2_bf16", HEED_BF16, CL_NEEDS_WARPGROUP, MATRIX_MATHS, 256, 128, prefill_warpgroup2),
    UNIT_PREFILL("opencl.prefill_warpgroup2_f16", HEED_F16, CL_NEEDS_WARPGROUP, MATRIX_MATHS, 256, 128, prefill_warpgroup2),
    UNIT_PREFILL("opencl.prefill_matrix_bf16", HEED_BF16, CL_NEEDS_MATRIX, MATRIX_MATHS, 256, 128, prefill_matrix),
    UNIT_PREFILL("opencl.prefill_matrix_f16", HEED_F16, CL_NEEDS_MATRIX, MATRIX_MATHS, 256, 128, prefill_matrix),
    {.name = "opencl.prefill_tf32x3", .kinds = KIND_BIT(KIND_PREFILL), .order = ORDER_OWN, .needs = CL_NEEDS_MATRIX, .on_request = true,
     .features = FEATURES_ALL, .q_types = 1u << HEED_F32, .k_types = 1u << HEED_F32, .v_types = 1u << HEED_F32, .o_types = TYPES_FLOAT,
     .dim_limit = 128, .q_tile = 64, .short_chunk = UNIT_CHUNK, .short_rows = UNIT_SHORT, .arithmetic = {TF32_MATHS}, .cl = &prefill_tf32},
    UNIT_PREFILL("opencl.prefill_columns_bf16", HEED_BF16, CL_NEEDS_COLUMNS, COLUMNS_MATHS, 256, 64, prefill_columns),
    UNIT_PREFILL("opencl.prefill_columns_f16", HEED_F16, CL_NEEDS_COLUMNS, COLUMNS_MATHS, 256, 64, prefill_columns),
    {.name = "opencl.prefill_cpu", .kinds = KIND_BIT(KIND_PREFILL) | KIND_BIT(KIND_DECODE), .order = ORDER_PANEL, .needs = CL_NEEDS_CPU,
     .features = FEATURES_ALL, .q_types = TYPES_FLOAT, .k_types = TYPES_ALL, .v_types = TYPES_ALL, .o_types = TYPES_FLOAT,
     .q_tile = 128, .short_chunk = PANEL_CHUNK, .short_rows = PANEL_SHORT,
     .arithmetic = {.dot_lanes = 1, .rescale_block = 96, OWN_MATHS}, .cl = &prefill_cpu},
    {.name = "opencl.prefill_tile", .kinds = KIND_BIT(KIND_PREFILL) | KIND_BIT(KIND_DECODE), .order = ORDER_PANEL,
     .features = FEATURES_ALL, .q_types = TYPES_FLOAT, .k_types = TYPES_ALL, .v_types = TYPES_ALL, .o_types = TYPES_FLOAT,
     .dim_limit = 512, .q_tile = 64, .short_chunk = PANEL_CHUNK, .short_rows = PANEL_SHORT,
     .arithmetic = {.dot_lanes = 1, .rescale_block = 96, OWN_MATHS}, .cl = &cl_prefill_tile},
    {.name = "opencl.tile.sg", .kinds = KIND_BIT(KIND_PREFILL) | KIND_BIT(KIND_DECODE), .order = ORDER_PANEL, .needs = CL_NEEDS_SUBGROUPS,
     .features = FEATURES_ALL, .q_types = TYPES_FLOAT, .k_types = TYPES_ALL, .v_types = TYPES_ALL, .o_types = TYPES_FLOAT,
     .q_tile = 64, .short_chunk = PANEL_CHUNK, .short_rows = PANEL_SHORT,
     .arithmetic = {.dot_lanes = 1, .rescale_block = 96, OWN_MATHS}, .cl = &cl_prefill_subgroup},
    {.name = "opencl.append", .kinds = KIND_BIT(KIND_APPEND), .features = FEATURES_ALL, .q_types = TYPES_ALL, .k_types = TYPES_ALL,
     .v_types = TYPES_ALL, .o_types = TYPES_ALL, .cl = &append},
    {.name = "opencl.rotate", .kinds = KIND_BIT(KIND_ROTATE), .features = FEATURES_ALL, .q_types = TYPES_FLOAT, .k_types = TYPES_ALL,
     .v_types = TYPES_ALL, .o_types = TYPES_ALL, .cl = &rotate},
    {.name = "opencl.merge", .kinds = KIND_BIT(KIND_MERGE), .features = FEATURES_ALL, .q_types = TYPES_ALL, .k_types = TYPES_ALL,
     .v_types = TYPES_ALL, .o_types = TYPES_FLOAT, .arithmetic = {OWN_MATHS}, .cl = &merge_two},
    {.name = "opencl.scores_dots", .kinds = KIND_BIT(KIND_SCORES), .order = ORDER_PANEL, .needs = CL_NEEDS_CPU | CL_NEEDS_DOTS, .features = FEATURES_ALL,
     .q_types = 1u << HEED_BF16, .k_types = 1u << HEED_BF16, .v_types = 1u << HEED_BF16, .o_types = TYPES_ALL, .kv_chunk = 256, .packs_group = true,
     .arithmetic = {.dot_lanes = 1, .rescale_block = 96, OWN_MATHS, .flushes = true}, .cl = &scores_dots},
    {.name = "opencl.scores_cpu", .kinds = KIND_BIT(KIND_SCORES), .order = ORDER_PANEL, .needs = CL_NEEDS_CPU, .features = FEATURES_ALL,
     .q_types = TYPES_FLOAT, .k_types = TYPES_ALL, .v_types = TYPES_ALL, .o_types = TYPES_ALL, .kv_chunk = 256, .packs_group = true,
     .arithmetic = {.dot_lanes = 1, .rescale_block = 96, OWN_MATHS}, .cl = &scores_cpu},
    {.name = "opencl.scores_tile", .kinds = KIND_BIT(KIND_SCORES), .order = ORDER_PANEL, .features = FEATURES_ALL, .q_types = TYPES_FLOAT,
     .k_types = TYPES_ALL, .v_types = TYPES_ALL, .o_types = TYPES_ALL, .kv_chunk = CL_SCORE_KEYS, .packs_group = true,
     .arithmetic = {.dot_lanes = 1, .rescale_block = 96, OWN_MATHS}, .cl = &cl_scores_tile},
    {.name = "opencl.naive_scores", .kinds = KIND_BIT(KIND_SCORES), .order = ORDER_NAIVE, .features = FEATURES_ALL, .q_types = TYPES_ALL,
     .k_types = TYPES_ALL, .v_types = TYPES_ALL, .o_types = TYPES_ALL, .kv_chunk = CL_SCORE_KEYS,
     .arithmetic = {.dot_lanes = 1, .rescale_block = 16, OWN_MATHS}, .cl = &naive_scores},
    {.name = "opencl.naive", .kinds = KIND_BIT(KIND_PREFILL) | KIND_BIT(KIND_DECODE), .order = ORDER_NAIVE, .features = FEATURES_ALL,
     .q_types = TYPES_ALL, .k_types = TYPES_ALL, .v_types = TYPES_ALL, .o_types = TYPES_FLOAT, .q_tile = NAIVE_TILE,
     .arithmetic = {.dot_lanes = 1, .rescale_block = 16, OWN_MATHS}, .cl = &naive},
    {0},
};
