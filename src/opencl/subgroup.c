/* SPDX-License-Identifier: MIT
 * subgroup.c - sub-groups: the sizes that are tried, their probes in the form of rows, the shape of prefill_subgroup.cl. Which words a device may have: device.c; whether
 * they do what they say: kernels/subgroup_probe.cl, by whole numbers (unit.c).
 */
#include "cl.h"

/* ---- probes ------------------------------------------------------------------------ */

/* Sub-groups per group. The emulation has one, so that all its work-items take the same way. */
static int32_t teams_of(const struct cl_device *device) { return device->subgroup_words == SUBGROUP_EMULATED ? 1 : 4; }

#define PROBE(lanes)                                                                                                             \
    static size_t options_##lanes(const struct cl_device *device, const struct problem *problem, char *text, size_t capacity)    \
    {                                                                                                                            \
        (void)problem;                                                                                                           \
        return text_append(text, capacity, 0, " -DSG_WORDS=%d -DSG_LANES=%d", (int)device->subgroup_words, lanes);               \
    }                                                                                                                            \
    static void local_##lanes(const struct cl_device *device, const struct problem *problem, size_t local[2])                    \
    {                                                                                                                            \
        (void)problem;                                                                                                           \
        local[0] = (size_t)(lanes * teams_of(device));                                                                           \
    }                                                                                                                            \
    static const struct cl_kernel_spec spec_##lanes = {.parts = {"common.cl", "subgroup.cl", "subgroup_probe.cl"},               \
        .kernel = "subgroup_probe", .options = options_##lanes, .local = local_##lanes}
PROBE(8);
PROBE(16);
PROBE(32);

/* Sizes that divide prefill_subgroup.cl's block of keys. */
enum { SIZES = 3 };
static const int32_t sizes[SIZES] = {8, 16, 32};
static const struct kernel_row probes[SIZES] = {{.name = "opencl.unit.subgroup8", .cl = &spec_8}, {.name = "opencl.unit.subgroup16", .cl = &spec_16},
    {.name = "opencl.unit.subgroup32", .cl = &spec_32}};

/* A CPU's lanes are a vector's; others have most often 32, which is also the largest. */
const struct kernel_row *cl_subgroup_row(const struct cl_device *device, int n)
{
    const int best = !(device->type & CL_DEVICE_TYPE_CPU) ? 2 : device->native_width >= 16 ? 1 : 0;
    if (device->tuning->group_lanes) {
        for (int i = 0; n == 0 && i < SIZES; i++)
            if (sizes[i] == device->tuning->group_lanes) return &probes[i];
        return NULL;
    }
    return n < SIZES ? &probes[(best + SIZES - n) % SIZES] : NULL;
}

int32_t cl_subgroup_lanes_of(const struct kernel_row *row) { return sizes[row - probes]; }

/* ---- prefill_subgroup.cl -------------------------------------------------------------- */

/* Before a probe: the size that is tried first (compilers that run without a device). */
static int32_t lanes_of(const struct cl_device *device)
{
    const struct kernel_row *first = cl_subgroup_row(device, 0);
    return device->subgroup_lanes ? device->subgroup_lanes : first ? cl_subgroup_lanes_of(first) : sizes[SIZES - 1];
}

/* TR rows x KC keys of a lane are under way at a time, later TR rows x VC dimensions. All of a lane's numbers are in registers of a GPU, so that there are fewer rows where
 * dimensions are many. Loops that number them are rolled where they would be a long text: in a CPU's vectors that costs four times the time. */
static size_t prefill_subgroup_options(const struct cl_device *device, const struct problem *problem, char *text, size_t capacity)
{
    const bool cpu = device->type & CL_DEVICE_TYPE_CPU;
    const int32_t lanes = lanes_of(device), dims = (problem->v_head_dim + lanes - 1) / lanes, values = cpu ? 2 : 4;
    int32_t rows = 4;
    while (!cpu && rows > 1 && rows * dims > 64) rows /= 2;
    if (device->tuning->group_rows) rows = device->tuning->group_rows;
    const bool emulated = device->subgroup_words == SUBGROUP_EMULATED, rolled = emulated || (dims + values - 1) / values * (96 / lanes) > 100;
    return text_append(text, capacity, 0, " -DSG_WORDS=%d -DSG_LANES=%d -DSG_TEAMS=%d -DTR=%d -DKC=%d -DVC=%d -DROLLED=%d%s", (int)device->subgroup_words, lanes,
                       teams_of(device), rows, cpu ? 2 : 96 / lanes, values < dims ? values : dims, rolled, emulated ? cl_unit_options(device, MATRIX_EMULATED) : "");
}

static void prefill_subgroup_local(const struct cl_device *device, const struct problem *problem, size_t local[2])
{
    (void)problem;
    local[0] = (size_t)(lanes_of(device) * teams_of(device));
}

static size_t prefill_subgroup_bytes(const struct cl_device *device, const struct problem *problem)
{
    (void)problem;
    return device->subgroup_words == SUBGROUP_EMULATED ? (size_t)lanes_of(device) * 4 : 0;
}

const struct cl_kernel_spec cl_prefill_subgroup = {.parts = {"common.cl", "subgroup.cl", "prefill_subgroup.cl", "merge_lanes.cl"}, .kernel = "prefill_subgroup",
    .merge = "merge_lanes", .options = prefill_subgroup_options, .local = prefill_subgroup_local, .local_bytes = prefill_subgroup_bytes};
