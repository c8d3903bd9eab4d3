/* SPDX-License-Identifier: MIT
 * isa_sve512.c - the rows for SVE with vectors of 512 bits: its words, the templates, the list.
 */
#include "simd_sve.h"
#include "kernel.h"
#include "rows.h"
#include "decode.inc.h"
#include "prefill.inc.h"
#include "scores.inc.h"
#include "append.inc.h"

const struct kernel_row cpu_rows_sve512[] = {
    DECODE_ROWS("sve512", ISA_SVE512),
    PREFILL_ROWS("sve512", ISA_SVE512),
    SCORES_ROWS("sve512", ISA_SVE512),
    APPEND_ROWS("sve512", ISA_SVE512),
    {.name = NULL},
};
