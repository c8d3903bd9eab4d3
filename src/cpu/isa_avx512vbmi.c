/* SPDX-License-Identifier: MIT
 * isa_avx512vbmi.c - the row for AVX-512's VBMI: decode with keys and values in f8_e4m3. For everything else the rows of avx512 stand behind.
 */
#ifdef HEED_EMULATE_AVX512 /* which has no such instructions */
#include "rows.h"

const struct kernel_row cpu_rows_avx512vbmi[] = {{.name = NULL}};
#else
#include "simd_avx512vbmi.h"
#include "kernel.h"
#include "rows.h"
#include "decode.inc.h"

const struct kernel_row cpu_rows_avx512vbmi[] = {
    DECODE_ROWS("avx512vbmi", ISA_AVX512VBMI),
    {.name = NULL},
};
#endif
