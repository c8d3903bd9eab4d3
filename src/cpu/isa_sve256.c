/* SPDX-License-Identifier: MIT
 * isa_sve256.c - the rows for SVE with vectors of 256 bits: its words, the templates, the list.
 */
#include "simd_sve.h"
#include "kernel.h"
#include "rows.h"
#include "decode.inc.h"
#include "prefill.inc.h"
#include "scores.inc.h"
#include "append.inc.h"

const struct kernel_row cpu_rows_sve256[] = {
    DECODE_ROWS("sve256", ISA_SVE256),
    PREFILL_ROWS("sve256", ISA_SVE256),
    SCORES_ROWS("sve256", ISA_SVE256),
    APPEND_ROWS("sve256", ISA_SVE256),
    {.name = NULL},
};
