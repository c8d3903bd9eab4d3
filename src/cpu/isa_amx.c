/* SPDX-License-Identifier: MIT
 * isa_amx.c - the rows for Intel's AMX: q, k and v in bf16, prefill in tiles of 16 rows. For everything else, steps of decode too, the rows of avx512
 * stand behind.
 */
#ifdef HEED_EMULATE_AVX512 /* which has no such unit */
#include "rows.h"

const struct kernel_row cpu_rows_amx[] = {{.name = NULL}};
#else
#include "simd_amx.h"
#include "kernel.h"
#include "rows.h"
#include "decode.inc.h"
#include "prefill.inc.h"
#include "scores.inc.h"

const struct kernel_row cpu_rows_amx[] = {
    PREFILL_ROWS("amx", ISA_AMX),
    SCORES_ROWS("amx", ISA_AMX),
    {.name = NULL},
};
#endif
