/* SPDX-License-Identifier: MIT
 * tuning.c - family -> tile sizes: one table on one screen. It rules how registers and lanes are used; the keys per block, the chunks and the
 * query tiles that bits depend on are columns of the rows. Which family a device belongs to is device.c's knowledge.
 */
#include "cl.h"
#include <string.h>

/* 0 = derived from the device: vector from its native width, the register tile from its number of registers. The pocl-cpu line is measured; lines of GPUs without a
 * measurement keep to what every device of the family has registers for. What a line does not name is 0. */
static const struct cl_tuning table[FAMILY_COUNT] = {
    /*                                    prefill_cpu, decode      prefill_tile                                        */
    /*                      family        vector  rows  vectors    wg_x  wg_y  rows  columns  vector  reads    lanes guard own cache */
    [FAMILY_POCL_CPU] =    {"pocl-cpu",    0,      0,    0,         2,    16,   4,    1,       16,     0,       1,    true,  true, .limit = 20},
    [FAMILY_INTEL_CPU] =   {"intel-cpu",   0,      0,    0,         2,    16,   4,    1,       16,     0,       1,    false, false, .builtin_fetch = true, .limit = 20},
    [FAMILY_GENERIC_CPU] = {"generic-cpu", 0,      0,    0,         8,    8,    2,    1,       4,      0,       1,    false, false, .limit = 20},
    [FAMILY_GENERIC_GPU] = {"generic-gpu", 4,      4,    1,         8,    16,   4,    1,       4,      1,       64,   false, false, .limit = 20},
    [FAMILY_NVIDIA] =      {"nvidia",      4,      4,    1,         16,   8,    8,    1,       4,      2,       128,  false, true, .limit = 20, .matrix = MATRIX_NV_MMA},
    [FAMILY_AMD] =         {"amd",         4,      4,    1,         8,    16,   4,    1,       4,      1,       64,   false, false, .limit = 20, .matrix = MATRIX_FAMILY},
    [FAMILY_INTEL] =       {"intel",       4,      4,    1,         8,    16,   4,    1,       4,      1,       32,   false, false, .limit = 20, .matrix = MATRIX_FAMILY},
    [FAMILY_ADRENO] =      {"adreno",      4,      4,    1,         8,    16,   4,    1,       4,      1,       64,   false, false, .limit = 20},
    [FAMILY_MALI] =        {"mali",        4,      2,    1,         8,    8,    2,    1,       4,      1,       16,   false, false, .limit = 20},
};

const char *cl_matrix_name(enum cl_matrix matrix)
{
    static const char *const names[] = {[MATRIX_NONE] = "none", [MATRIX_EMULATED] = "emulated", [MATRIX_NV_MMA] = "nv-mma", [MATRIX_NV_WGMMA] = "nv-wgmma",
                                        [MATRIX_AMD_WMMA3] = "amd-wmma3", [MATRIX_AMD_WMMA4] = "amd-wmma4", [MATRIX_AMD_MFMA] = "amd-mfma",
                                        [MATRIX_INTEL_DPAS8] = "intel-dpas", [MATRIX_INTEL_DPAS16] = "intel-dpas"};
    return names[matrix];
}

const struct cl_tuning *cl_tuning_of(enum cl_family family) { return &table[family]; }

const struct cl_tuning *cl_tuning_named(const char *family)
{
    for (int n = 0; n < FAMILY_COUNT; n++)
        if (!strcmp(table[n].family, family)) return &table[n];
    return &table[FAMILY_GENERIC_GPU];
}

int32_t cl_vector_width(const struct cl_device *device)
{
    const int32_t width = device->tuning->vector ? device->tuning->vector : (int32_t)device->native_width;
    return width >= 16 ? 16 : width >= 8 ? 8 : 4;
}

int32_t cl_lanes(const struct cl_device *device)
{
    int32_t lanes = device->tuning->lanes;
    while (lanes > 1 && ((size_t)lanes > device->max_group || (size_t)lanes > device->max_sizes[0])) lanes /= 2;
    return lanes;
}
