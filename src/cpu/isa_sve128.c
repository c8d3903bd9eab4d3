/* SPDX-License-Identifier: MIT
 * isa_sve128.c - the rows for SVE with vectors of 128 bits: its words, the templates, the list.
 */
#include "simd_sve.h"
#include "kernel.h"
#include "rows.h"
#include "decode.inc.h"
#include "prefill.inc.h"
#include "scores.inc.h"
#include "append.inc.h"

const struct kernel_row cpu_rows_sve128[] = {
    DECODE_ROWS("sve128", ISA_SVE128),
    PREFILL_ROWS("sve128", ISA_SVE128),
    SCORES_ROWS("sve128", ISA_SVE128),
    APPEND_ROWS("sve128", ISA_SVE128),
    {.name = NULL},
};
