/* SPDX-License-Identifier: MIT
 * rows.h - the row lists of the CPU wing, one per instruction set: the one symbol that each isa_*.o exports.
 *
 * An instruction set is a file isa_X.c that includes simd_X.h, then the templates, and lists their rows, best first. Each template gives a
 * macro with the rows it makes: DECODE_ROWS("avx2", ISA_AVX2), PREFILL_ROWS, MERGE_ROWS, APPEND_ROWS(isa, needs).
 */
#ifndef HEED_CPU_ROWS_H
#define HEED_CPU_ROWS_H

#include "../internal.h"

extern const struct kernel_row cpu_rows_scalar[];
extern const struct kernel_row cpu_rows_vector[];
#if defined(__x86_64__)
extern const struct kernel_row cpu_rows_avx2[];
extern const struct kernel_row cpu_rows_avx512[];
extern const struct kernel_row cpu_rows_avx512vbmi[];
extern const struct kernel_row cpu_rows_avx512bf16[];
extern const struct kernel_row cpu_rows_amx[];
#elif defined(__aarch64__)
extern const struct kernel_row cpu_rows_neon[];
#endif
#if defined(HEED_ARM_BF16) /* the compiler knows bf16 dots of 64-bit ARM */
extern const struct kernel_row cpu_rows_neonbf16[];
#endif
#if defined(HEED_SVE) /* the compiler knows vectors of a fixed length of SVE */
extern const struct kernel_row cpu_rows_sve128[];
extern const struct kernel_row cpu_rows_sve256[];
extern const struct kernel_row cpu_rows_sve512[];
#endif
#if defined(HEED_RVV) /* or of RISC-V's V */
extern const struct kernel_row cpu_rows_rvv128[];
extern const struct kernel_row cpu_rows_rvv256[];
#endif
extern const struct kernel_row cpu_rows_reference[];

#endif
