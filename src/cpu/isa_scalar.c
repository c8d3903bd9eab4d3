/* SPDX-License-Identifier: MIT
 * isa_scalar.c - the rows for scalar: its words, the templates, the list.
 */
#include "simd_scalar.h"
#include "kernel.h"
#include "rows.h"

const struct kernel_row cpu_rows_scalar[] = {
    {.name = NULL},
};
