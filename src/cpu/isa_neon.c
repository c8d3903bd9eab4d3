/* SPDX-License-Identifier: MIT
 * isa_neon.c - the rows for neon: its words, the templates, the list.
 */
#include "simd_neon.h"
#include "kernel.h"
#include "rows.h"
#include "decode.inc.h"
#include "prefill.inc.h"
#include "scores.inc.h"
#include "append.inc.h"

const struct kernel_row cpu_rows_neon[] = {
    DECODE_ROWS("neon", ISA_NEON),
    PREFILL_ROWS("neon", ISA_NEON),
    SCORES_ROWS("neon", ISA_NEON),
    APPEND_ROWS("neon", ISA_NEON),
    {.name = NULL},
};
