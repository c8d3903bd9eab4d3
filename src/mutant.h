/* SPDX-License-Identifier: MIT
 * mutant.h - planted bugs. In a build with HEED_MUTANTS each MUTANT(name) is true when the variable HEED_MUTANT holds that name;
 * in every other build it is the constant 0 and the compiler removes it. script/mutants proves that the tests see each of them.
 * OpenCL kernels use the same names: the program gets -DMUTANT_name.
 */
#ifndef HEED_MUTANT_H
#define HEED_MUTANT_H
#ifdef HEED_MUTANTS
int mutant_is(const char *name);        /* mutant.c */
const char *mutant_name(void);          /* NULL if none */
#define MUTANT(name) mutant_is(#name)
#else
#define MUTANT(name) 0
#endif
#endif
