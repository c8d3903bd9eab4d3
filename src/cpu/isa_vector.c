/* SPDX-License-Identifier: MIT
 * isa_vector.c - the rows for vector: its words, the templates, the list.
 */
#include "simd_vector.h"
#include "kernel.h"
#include "rows.h"
#include "decode.inc.h"
#include "prefill.inc.h"
#include "scores.inc.h"
#include "append.inc.h"

const struct kernel_row cpu_rows_vector[] = {
    DECODE_ROWS("vector", ISA_VECTOR),
    PREFILL_ROWS("vector", ISA_VECTOR),
    SCORES_ROWS("vector", ISA_VECTOR),
    APPEND_ROWS("vector", ISA_VECTOR),
    {.name = NULL},
};
