/* SPDX-License-Identifier: MIT
 * words.h - checks of the vector languages, one function per instruction set of this machine's family (words.c).
 */
#ifndef HEED_WORDS_H
#define HEED_WORDS_H

#include <stdint.h>
#include <stdio.h>

struct words_tally {
    int64_t passed, failed;
};

void words_scalar(struct words_tally *tally);
void words_vector(struct words_tally *tally);
void words_neon(struct words_tally *tally);
void words_sve128(struct words_tally *tally);
void words_sve256(struct words_tally *tally);
void words_sve512(struct words_tally *tally);
void words_rvv128(struct words_tally *tally);
void words_rvv256(struct words_tally *tally);
void words_avx2(struct words_tally *tally);
void words_avx512(struct words_tally *tally);
void words_avx512vbmi(struct words_tally *tally);
void words_avx512bf16(struct words_tally *tally); /* words_cells.c */
void words_amx(struct words_tally *tally);
void words_neonbf16(struct words_tally *tally);

#endif
