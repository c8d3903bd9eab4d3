/* SPDX-License-Identifier: MIT
 * isa_scalar.c - the rows for scalar: its words, the templates, the list.
 */
#include "simd_scalar.h"
#include "kernel.h"
#include "rows.h"
#include "decode.inc.h"
#include "prefill.inc.h"
#include "scores.inc.h"
#include "append.inc.h"

const struct kernel_row cpu_rows_scalar[] = {
    DECODE_ROWS("scalar", ISA_SCALAR),
    PREFILL_ROWS("scalar", ISA_SCALAR),
    SCORES_ROWS("scalar", ISA_SCALAR),
    APPEND_ROWS("scalar", ISA_SCALAR),
    {.name = NULL},
};
