/* SPDX-License-Identifier: MIT
 * isa_neonbf16.c - the rows for 64-bit ARM with bf16 dots: q, k and v in bf16, multiplied as such. For everything else the rows of neon stand behind.
 */
#include "simd_neonbf16.h"
#include "kernel.h"
#include "rows.h"
#include "decode.inc.h"
#include "prefill.inc.h"
#include "scores.inc.h"

const struct kernel_row cpu_rows_neonbf16[] = {
    DECODE_ROWS("neonbf16", ISA_NEONBF16),
    PREFILL_ROWS("neonbf16", ISA_NEONBF16),
    SCORES_ROWS("neonbf16", ISA_NEONBF16),
    {.name = NULL},
};
