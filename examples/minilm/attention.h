/* SPDX-License-Identifier: MIT
 * attention.h - all that this program asks of heed: attention of every token of a sentence to every other of the same sentence, for a packed
 * (ragged) batch of sentences, on the device chosen. The projections before and behind it are encoder.c's.
 */
#ifndef MINILM_ATTENTION_H
#define MINILM_ATTENTION_H

#include "message.h"
#include <stdint.h>

struct attention;

struct attention_options {
    const char *device; /* "cpu", "opencl:0", part of a name */
    int32_t threads;    /* 0 = one per physical core */
    int32_t heads, head_dim;
    int32_t most_tokens; /* of a sentence */
    int32_t most_rows;   /* of a batch */
};

bool attention_open(const struct attention_options *options, struct attention **attention, struct message *message);
void attention_close(struct attention *attention);
const char *attention_device(const struct attention *attention);
/* Which kernels heed chose, and why not the others: lines of text. The length as from snprintf(). */
size_t attention_explain(const struct attention *attention, char *text, size_t capacity);
/* Once per batch: sentence b has the rows start[b] .. start[b + 1). */
bool attention_lengths(struct attention *attention, int32_t count, const int32_t *start, struct message *message);
/* Once per layer: qkv [rows, 3, heads, head_dim] -> o [rows, heads, head_dim], both in host memory. */
bool attention_run(struct attention *attention, float *qkv, float *o, struct message *message);

#endif
