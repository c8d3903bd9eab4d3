/* SPDX-License-Identifier: MIT
 * isa_avx512.c - the rows for avx512: its words, the templates, the list.
 */
#include "simd_avx512.h"
#include "kernel.h"
#include "rows.h"

const struct kernel_row cpu_rows_avx512[] = {
    {.name = NULL},
};
