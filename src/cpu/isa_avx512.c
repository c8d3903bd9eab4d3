/* SPDX-License-Identifier: MIT
 * isa_avx512.c - the rows for avx512: its words, the templates, the list.
 */
#include "simd_avx512.h"
#include "kernel.h"
#include "rows.h"
#include "decode.inc.h"
#include "prefill.inc.h"
#include "scores.inc.h"
#include "append.inc.h"

const struct kernel_row cpu_rows_avx512[] = {
    DECODE_ROWS("avx512", ISA_AVX512),
    PREFILL_ROWS("avx512", ISA_AVX512),
    SCORES_ROWS("avx512", ISA_AVX512),
    APPEND_ROWS("avx512", ISA_AVX512),
    {.name = NULL},
};
