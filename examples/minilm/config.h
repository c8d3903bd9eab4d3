/* SPDX-License-Identifier: MIT
 * config.h - what the JSON files of a model's folder say of its shape, as far as the encoder needs it; a model of another recipe is refused.
 */
#ifndef MINILM_CONFIG_H
#define MINILM_CONFIG_H

#include "message.h"
#include <stdint.h>

struct config {
    int32_t hidden, heads, layers, inner; /* inner: width between the two products behind attention */
    int32_t positions, segments, vocabulary;
    int32_t most_tokens; /* of a sentence, [CLS] and [SEP] counted in */
    float epsilon;       /* of the layer norm */
};

bool config_read(const char *folder, struct config *config, struct message *message);

#endif
