/* SPDX-License-Identifier: MIT
 * isa_avx512bf16.c - the rows for AVX512-BF16: q, k and v in bf16, multiplied as such. For everything else the rows of avx512 stand behind.
 */
#ifdef HEED_EMULATE_AVX512 /* which has no such unit */
#include "rows.h"

const struct kernel_row cpu_rows_avx512bf16[] = {{.name = NULL}};
#else
#include "simd_avx512bf16.h"
#include "kernel.h"
#include "rows.h"
#include "decode.inc.h"
#include "prefill.inc.h"
#include "scores.inc.h"

const struct kernel_row cpu_rows_avx512bf16[] = {
    DECODE_ROWS("avx512bf16", ISA_AVX512BF16),
    PREFILL_ROWS("avx512bf16", ISA_AVX512BF16),
    SCORES_ROWS("avx512bf16", ISA_AVX512BF16),
    {.name = NULL},
};
#endif
