/* SPDX-License-Identifier: MIT
 * isa_avx2.c - the rows for avx2: its words, the templates, the list.
 */
#include "simd_avx2.h"
#include "kernel.h"
#include "rows.h"
#include "decode.inc.h"
#include "prefill.inc.h"
#include "scores.inc.h"
#include "append.inc.h"

const struct kernel_row cpu_rows_avx2[] = {
    DECODE_ROWS("avx2", ISA_AVX2),
    PREFILL_ROWS("avx2", ISA_AVX2),
    SCORES_ROWS("avx2", ISA_AVX2),
    APPEND_ROWS("avx2", ISA_AVX2),
    {.name = NULL},
};
