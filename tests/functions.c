/* SPDX-License-Identifier: MIT
 * functions.c - exp2, exp and tanh as the rows of one instruction set compute them, for test_functions.c: WORDS_HEADER is its vector language,
 * WORDS_NAME its name. Nothing is judged here.
 */
#include WORDS_HEADER
#include "functions.h"

#define CAT_(a, b) a##b
#define CAT(a, b) CAT_(a, b)

#define OVER(function)                                                                                    \
    static void over_##function(const float *x, float *to, int count)                                     \
    {                                                                                                     \
        for (int i = 0; i < count; i += VW) vstore(to + i, function(vload(x + i)));                       \
    }
OVER(vexp2)
OVER(vexp)
OVER(vexp_near)
OVER(vtanh)

const struct functions CAT(functions_, WORDS_NAME) = {VEC_NAME, VEC_FUSED, over_vexp2, over_vexp, over_vexp_near, over_vtanh};
