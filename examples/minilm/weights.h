/* SPDX-License-Identifier: MIT
 * weights.h - the tensors of a .safetensors file, in place. The file: 8 bytes length of a table (little endian), the table in JSON
 * {"name": {"dtype": "F32", "shape": [384, 384], "data_offsets": [begin, end]}, ...}, then the data, without holes.
 * Every number in it is checked before it is believed. float32 alone is handed out.
 */
#ifndef MINILM_WEIGHTS_H
#define MINILM_WEIGHTS_H

#include "message.h"
#include <stdint.h>

struct weights;

bool weights_open(const char *path, struct weights **weights, struct message *message);
void weights_close(struct weights *weights);
/* The tensor of this name and this very shape [rows] (columns 0) or [rows, columns]: in the file, valid till weights_close(). */
const float *weights_take(const struct weights *weights, const char *name, int64_t rows, int64_t columns, struct message *message);

#endif
