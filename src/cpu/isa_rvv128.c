/* SPDX-License-Identifier: MIT
 * isa_rvv128.c - the rows for RISC-V's V with vectors of 128 bits: its words, the templates, the list.
 */
#include "simd_rvv.h"
#include "kernel.h"
#include "rows.h"
#include "decode.inc.h"
#include "prefill.inc.h"
#include "scores.inc.h"
#include "append.inc.h"

const struct kernel_row cpu_rows_rvv128[] = {
    DECODE_ROWS("rvv128", ISA_RVV128),
    PREFILL_ROWS("rvv128", ISA_RVV128),
    SCORES_ROWS("rvv128", ISA_RVV128),
    APPEND_ROWS("rvv128", ISA_RVV128),
    {.name = NULL},
};
