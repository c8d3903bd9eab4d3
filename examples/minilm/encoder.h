/* SPDX-License-Identifier: MIT
 * encoder.h - BERT's encoder (Devlin et al., 2019) with mean pooling: word pieces of a batch of sentences to one vector of length 1 for each.
 * For inference only; no dropout, one segment.
 */
#ifndef MINILM_ENCODER_H
#define MINILM_ENCODER_H

#include "config.h"
#include "message.h"
#include <stddef.h>
#include <stdint.h>

struct encoder;

struct encoder_options {
    const char *folder; /* config.json, model.safetensors */
    const char *device;
    int32_t threads;
    int32_t most_rows; /* tokens of a batch; at least the longest sentence's are taken */
};

bool encoder_open(const struct encoder_options *options, struct encoder **encoder, struct message *message);
void encoder_close(struct encoder *encoder);
const struct config *encoder_config(const struct encoder *encoder);
const char *encoder_device(const struct encoder *encoder);
size_t encoder_explain(const struct encoder *encoder, char *text, size_t capacity);
int32_t encoder_most_rows(const struct encoder *encoder);

/* ids: sentence b has ids[start[b] .. start[b + 1]), none empty, start[0] = 0, all together at most encoder_most_rows().
 * out: [count, hidden]. */
bool encoder_run(struct encoder *encoder, int32_t count, const int32_t *start, const int32_t *ids, float *out, struct message *message);

#endif
