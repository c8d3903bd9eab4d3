/* SPDX-License-Identifier: MIT
 * matrix_amd.cl - AMD's matrix instructions by clang's built-ins: WMMA of RDNA3 and RDNA4 in waves of 32, MFMA of CDNA in waves of 64. Layouts and the
 * other words: matrix_columns.cl. The host shows this to AMD's devices alone, and the probe kernel decides by numbers; a compiler for another chip stops here.
 *
 * mu_exp is v_exp_f32: 1 ulp, exactly 1 at 0, flushes. CDNA2 (gfx90a) takes denormal f16 and bf16 operands for 0: there the probe refuses f16.
 */
#if MATRIX >= 3 && MATRIX <= 5
#if MATRIX == 3 && !(defined(__gfx1100__) || defined(__gfx1101__) || defined(__gfx1102__) || defined(__gfx1103__) || defined(__gfx1150__) || \
                     defined(__gfx1151__) || defined(__gfx1152__) || defined(__gfx1153__) || defined(__gfx11_generic__))
#error "this compiler's target has no WMMA of RDNA3"
#elif MATRIX == 4 && !(defined(__gfx1200__) || defined(__gfx1201__) || defined(__gfx12_generic__))
#error "this compiler's target has no WMMA of RDNA4"
#elif MATRIX == 5 && !(defined(__gfx90a__) || defined(__gfx940__) || defined(__gfx941__) || defined(__gfx942__) || defined(__gfx950__))
#error "this compiler's target has no MFMA of CDNA2 or later"
#endif
#pragma OPENCL EXTENSION cl_khr_fp16 : enable
#define MU_SCRATCH
#define MU_ATTRIBUTES
typedef float mu_floats __attribute__((ext_vector_type(MU_ACC)));
#if K_TYPE == TYPE_BF16
typedef short mu_values_a __attribute__((ext_vector_type(MU_A_WORDS * 2)));
#else
typedef half mu_values_a __attribute__((ext_vector_type(MU_A_WORDS * 2)));
#endif
typedef uint mu_words __attribute__((ext_vector_type(MU_A_WORDS)));

static inline mu_values_a mu_operand(const uint *w)
{
    union {
        mu_words words;
        mu_values_a values;
    } x;
    MU_UNROLL for (int n = 0; n < MU_A_WORDS; n++) x.words[n] = w[n];
    return x.values;
}

#if MATRIX == 3 && K_TYPE == TYPE_BF16
#define MU_PRODUCT(a, b, c) __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32(a, b, c)
#elif MATRIX == 3
#define MU_PRODUCT(a, b, c) __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(a, b, c)
#elif MATRIX == 4 && K_TYPE == TYPE_BF16
#define MU_PRODUCT(a, b, c) __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32_gfx12(a, b, c)
#elif MATRIX == 4
#define MU_PRODUCT(a, b, c) __builtin_amdgcn_wmma_f32_16x16x16_f16_w32_gfx12(a, b, c)
#elif K_TYPE == TYPE_BF16
#define MU_PRODUCT(a, b, c) __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(a, b, c, 0, 0, 0)
#else
#define MU_PRODUCT(a, b, c) __builtin_amdgcn_mfma_f32_16x16x16f16(a, b, c, 0, 0, 0)
#endif

static inline void mu_mma(float *acc, const uint *a, const uint *b)
{
    mu_floats c;
    MU_UNROLL for (int e = 0; e < MU_ACC; e++) c[e] = acc[e];
    c = MU_PRODUCT(mu_operand(a), mu_operand(b), c);
    MU_UNROLL for (int e = 0; e < MU_ACC; e++) acc[e] = c[e];
}

#define MU_EXP_FACTOR LOG2E
#define MU_EXP_INVERSE LN2
#define MU_EXP_REST LOG2E_REST
static inline float mu_exp(float x) { return __builtin_amdgcn_exp2f(x); }

static inline float mu_xor(float x, int mask)
{
    return as_float(__builtin_amdgcn_ds_bpermute(((int)get_local_id(0) % MU_LANES ^ mask) * 4, as_int(x)));
}
#endif
