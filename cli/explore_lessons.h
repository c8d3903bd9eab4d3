/* SPDX-License-Identifier: MIT
 * explore_lessons.h - the steps of `heed explore`: numbers to begin with and a few lines of text each; and captures from files or from the
 * command itself, which carries the one of examples/data.
 */
#ifndef HEED_CLI_EXPLORE_LESSONS_H
#define HEED_CLI_EXPLORE_LESSONS_H

#include "explore_model.h"

struct lesson {
    const char *title, *text;
    const char *keys, *hands; /* what to do: with the terminal's keys, on the page */
};
enum { LESSON_BYTES = 256 };

int explore_lesson_count(void); /* the last one is the capture */
const struct lesson *explore_lesson(int n);
/* Both sentences. In the terminal: at most 240 bytes, three lines of 80. */
const char *explore_lesson_text(int n, bool page, char text[LESSON_BYTES]);
/* The numbers of lesson n (not of the capture). False: out of memory. */
bool explore_load_lesson(struct explore *explore, int n);

/* .npy files of [len, heads, dim], [1, len, heads, dim] or [len, dim] in f32, f16, f64, or bf16's bits as u2; v may be NULL (k is taken), tokens too.
 * q NULL: the carried capture. False: message says why, and the explorer is empty. */
bool explore_load_capture(struct explore *explore, const char *q, const char *k, const char *v, const char *tokens, char *message, size_t capacity);

/* The same of arrays q, k, v that are read already, with names for messages; they stay the caller's. heads_first: three axes are [heads, len, dim]. */
struct npy;
bool explore_load_arrays(struct explore *explore, const char *const names[3], const struct npy *const arrays[3], bool heads_first, char *message, size_t capacity);
/* A line for each key. False: message says why, and tokens go by number. */
bool explore_label_tokens(struct explore *explore, const char *name, const char *lines, size_t length, char *message, size_t capacity);

#endif
