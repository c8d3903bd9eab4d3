/* SPDX-License-Identifier: MIT
 * explore_lessons.h - the steps of `heed explore`: numbers to begin with and a few lines of text each; and captures from files or from the
 * command itself, which carries the one of examples/data.
 */
#ifndef HEED_CLI_EXPLORE_LESSONS_H
#define HEED_CLI_EXPLORE_LESSONS_H

#include "explore_model.h"

struct lesson {
    const char *title, *text; /* text: at most 240 bytes, three lines of 80 */
};

int explore_lesson_count(void); /* the last one is the capture */
const struct lesson *explore_lesson(int n);
/* The numbers of lesson n (not of the capture). False: out of memory. */
bool explore_load_lesson(struct explore *explore, int n);

/* .npy files of [len, heads, dim] or [1, len, heads, dim] in f32, f16, f64, or bf16's bits as u2; v may be NULL (k is taken), tokens too.
 * q NULL: the carried capture. False: message says why, and the explorer is empty. */
bool explore_load_capture(struct explore *explore, const char *q, const char *k, const char *v, const char *tokens, char *message, size_t capacity);

#endif
