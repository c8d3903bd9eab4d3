/* SPDX-License-Identifier: MIT
 * harness_parts.h - how an instance is put together, for the files of the harness and the reader of stored cases alone.
 */
#ifndef HEED_HARNESS_PARTS_H
#define HEED_HARNESS_PARTS_H

#include "harness.h"

/* Order: instance_begin(), lengths_*, instance_lay_out(), data into the rows, instance_hide(), instance_seal(). */
struct instance *instance_begin(const struct problem_line *line, enum instance_variant variant, char *message, size_t capacity);
/* Lengths, positions and pages from the line's words and its seed; q_lens and kv_lens (allocated) are filled. */
bool instance_lengths(struct instance *instance, char *message, size_t capacity);
/* Strides and memory of every tensor that the problem has; all bytes 0xFF: NaN in every float type, "visible" in every mask. */
bool instance_lay_out(struct instance *instance, char *message, size_t capacity);
void instance_fill(struct instance *instance);  /* data of the line's seed into every input */

enum hidden { HIDDEN_POISON, HIDDEN_ZERO };
/* Overwrite K, V, scales and bias wherever no query of any head that could reach them sees the key, beyond kv_len included. */
bool instance_hide(struct instance *instance, enum hidden with);
bool instance_seal(struct instance *instance);  /* copies of inputs, owners and pattern of outputs, pairs and kv_bytes */

/* Rows. Query-like: token i of sequence b; key-like: key j of sequence b, through the page table. */
unsigned char *instance_query_row(const struct instance *instance, enum role role, int32_t b, int32_t h, int32_t i);
unsigned char *instance_key_row(const struct instance *instance, enum role role, int32_t b, int32_t g, int32_t j);
int64_t instance_position(const struct instance *instance, int32_t b, int32_t i);
int32_t instance_first(const struct instance *instance, int32_t b);
/* Keys that causality, window and key range leave to query i: [*begin, *end). */
void instance_range(const struct instance *instance, int32_t b, int32_t i, int32_t *begin, int32_t *end);
bool instance_masked(const struct instance *instance, int32_t b, int32_t h, int32_t i, int32_t j); /* by the mask alone */

bool role_is_output(enum role role);
/* Rows of an output in sequence b: heads x rows, row (h, t) at instance_query_row(.., b, h, t); t counts the chosen queries where scores have a
 * choice of them. Returns the bytes of one. */
int64_t instance_output_rows(const struct instance *instance, enum role role, int32_t b, int32_t *heads, int32_t *rows);
heed_tensor *role_tensor(heed_tensors *tensors, enum role role); /* NULL for roles that heed_tensors has not */

/* One row of input data by the line's kind of data; depends on seed, role, b, head and token alone. */
void data_row(const struct problem_line *line, enum role role, heed_type type, int32_t b, int32_t h, int32_t token, int32_t tokens, float *to,
              int32_t n);
uint64_t hash_of(uint64_t seed, uint64_t a, uint64_t b, uint64_t c, uint64_t d);
void message_set(char *message, size_t capacity, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
