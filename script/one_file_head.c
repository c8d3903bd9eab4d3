/* SPDX-License-Identifier: MIT
 * heed.c - heed @VERSION@ in one file: attention for inference on the CPU, with every row of the CPU wing (x86-64: scalar, vector, avx2, avx512, avx512vbmi, avx512bf16, amx;
 * 64-bit ARM: scalar, vector, neon; others: scalar, vector), chosen at run time. No OpenCL: that is in the library.
 *
 * Put it and heed.h into your tree and compile it with gcc or clang for Linux, C99 or later, with any -O and any -march:
 *
 *     cc -std=c99 -O2 -c heed.c
 *     cc program.c heed.o -lm -lpthread
 *
 * The bits of the results are the library's. Made by script/one_file.cmake from the sources of the library; change those.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#if defined(__FAST_MATH__)
#error "heed.c: infinity and NaN have a meaning here and sums an order; compile it without -ffast-math"
#endif
/* Every fma in this file is written: the compiler must make none of its own out of a product and a sum. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#pragma clang diagnostic ignored "-Wunused-function"
#elif defined(__GNUC__)
#pragma GCC optimize("-ffp-contract=off")
#if defined(__s390__)
#pragma GCC optimize("-fexcess-precision=fast")
#endif
#pragma GCC diagnostic ignored "-Wunused-function"
#else
#error "heed.c needs gcc or clang"
#endif
#if !defined(__STDC_VERSION__) || __STDC_VERSION__ < 201112L /* what C99 lacks, both compilers have */
#pragma GCC diagnostic ignored "-Wpedantic"
#define _Alignas(n) __attribute__((aligned(n)))
#define _Thread_local __thread
#define _Static_assert(condition, text) extern int heed_0_static_assert[(condition) ? 1 : -1]
#endif

@HEADERS@
#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif
#include "heed.h"

#pragma GCC visibility push(hidden)
