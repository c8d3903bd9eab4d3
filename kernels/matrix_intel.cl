/* SPDX-License-Identifier: MIT
 * matrix_intel.cl - Intel's systolic unit (DPAS) by cl_intel_subgroup_matrix_multiply_accumulate, in sub-groups of 8 (Xe-HPG) or 16 lanes (Xe-HPC, Xe2).
 * Layouts and the other words: matrix_columns.cl. A compiler may take the wrong size and build without the instruction: the probe kernel decides by numbers.
 */
#if MATRIX == 6 || MATRIX == 7
#define MU_SCRATCH
#define MU_ATTRIBUTES __attribute__((intel_reqd_sub_group_size(MU_LANES)))
#if MATRIX == 6
typedef int8 mu_rows;
#else
typedef short8 mu_rows;
#endif
#ifndef cl_intel_subgroup_matrix_multiply_accumulate /* a compiler that has the instruction, and headers that lack it */
__attribute__((overloadable)) float8 intel_sub_group_f16_f16_matrix_mad_k16(mu_rows, int8, float8);
__attribute__((overloadable)) float8 intel_sub_group_bf16_bf16_matrix_mad_k16(mu_rows, int8, float8);
#endif

static inline void mu_mma(float *acc, const uint *a, const uint *b)
{
#if MATRIX == 6
    const mu_rows rows = as_int8((uint8)(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]));
#else
    const mu_rows rows = as_short8((uint4)(a[0], a[1], a[2], a[3]));
#endif
    const int8 columns = as_int8((uint8)(b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]));
    const float8 c = (float8)(acc[0], acc[1], acc[2], acc[3], acc[4], acc[5], acc[6], acc[7]);
#if K_TYPE == TYPE_BF16
    const float8 d = intel_sub_group_bf16_bf16_matrix_mad_k16(rows, columns, c);
#else
    const float8 d = intel_sub_group_f16_f16_matrix_mad_k16(rows, columns, c);
#endif
    acc[0] = d.s0, acc[1] = d.s1, acc[2] = d.s2, acc[3] = d.s3, acc[4] = d.s4, acc[5] = d.s5, acc[6] = d.s6, acc[7] = d.s7;
}

/* No two lanes have the same column, so nothing is ever exchanged. */
#define MU_EXP_FACTOR 1.0f
#define MU_EXP_INVERSE 1.0f
#define MU_EXP_REST 0.0f
static inline float mu_exp(float x) { return exp_1(x); }
static inline float mu_xor(float x, int mask) { return x; }
#endif
