/* SPDX-License-Identifier: MIT
 * functions.h - exp2, exp and softcap of one instruction set's vector language over arrays (functions.c, compiled once for each with its own flags).
 */
#ifndef HEED_FUNCTIONS_H
#define HEED_FUNCTIONS_H

/* to[i] = f(x[i]); count is a multiple of 16. */
struct functions {
    const char *name;
    int fused; /* vfma rounds once */
    void (*exp2)(const float *x, float *to, int count);
    void (*exp)(const float *x, float *to, int count);
    void (*exp_near)(const float *x, float *to, int count);
    void (*tanh)(const float *x, float *to, int count);       /* a softcap of 1 */
    void (*softcap_50)(const float *x, float *to, int count);
};

extern const struct functions functions_scalar, functions_vector, functions_avx2, functions_avx512, functions_neon, functions_sve128, functions_sve256, functions_sve512,
    functions_rvv128, functions_rvv256;

#endif
