/* SPDX-License-Identifier: MIT
 * isa_rvv256.c - the rows for RISC-V's V with vectors of 256 bits: its words, the templates, the list.
 */
#include "simd_rvv.h"
#include "kernel.h"
#include "rows.h"
#include "decode.inc.h"
#include "prefill.inc.h"
#include "scores.inc.h"
#include "append.inc.h"

const struct kernel_row cpu_rows_rvv256[] = {
    DECODE_ROWS("rvv256", ISA_RVV256),
    PREFILL_ROWS("rvv256", ISA_RVV256),
    SCORES_ROWS("rvv256", ISA_RVV256),
    APPEND_ROWS("rvv256", ISA_RVV256),
    {.name = NULL},
};
