/* SPDX-License-Identifier: MIT
 * cases_parts.h - between the files that read stored cases: a folder's case.json with its arrays, nothing computed.
 */
#ifndef HEED_CASES_PARTS_H
#define HEED_CASES_PARTS_H

#include "harness_parts.h"
#include "npy.h"
#include <jansson.h>

enum { CASE_ARRAYS = 24 };

struct case_array {
    char role[24], dtype[16]; /* as case.json says */
    struct npy npy;
};

struct case_files {
    json_t *root;
    int32_t count;
    struct case_array array[CASE_ARRAYS];
};

/* Every array's stored shape is compared with the one in case.json. */
bool files_read(const char *folder, struct case_files *files, char *message, size_t capacity);
void files_free(struct case_files *files);
const struct case_array *files_array(const struct case_files *files, const char *role); /* NULL = absent */
double array_value(const struct case_array *array, int64_t n);                          /* any type that a number has */

/* Keys of case.json with their defaults; *good becomes false where a key has another type or is out of range. */
int32_t key_int(const json_t *root, const char *key, int32_t otherwise, bool *good);
double key_number(const json_t *root, const char *key, double otherwise, bool *good); /* null = otherwise */
bool key_bool(const json_t *root, const char *key, bool otherwise, bool *good);
const char *key_text(const json_t *root, const char *key, const char *otherwise);
bool key_ints(const json_t *root, const char *key, int32_t *to, int32_t count); /* absent: false, nothing written */

/* Fill stored->instance and what is expected; a case that heed cannot express stays without instance, with a message. */
bool case_read_heed(struct stored_case *stored, const struct case_files *files, enum instance_variant variant, char *message, size_t capacity);
bool case_read_onnx(struct stored_case *stored, struct case_files *files, enum instance_variant variant, char *message, size_t capacity);

/* Value of a mask or bias at (b, h, i, j): axes aligned at the right, extent 1 repeats; j behind a short last axis: false. */
bool broadcast_value(const struct case_array *array, const int64_t place[4], int32_t places, int64_t keys, double *value);

/* Number of output rows before sequence b. */
int64_t rows_before(const struct instance *instance, int32_t b);

/* ONNX: operators beside attention keep their files, and are computed by their own functions. */
void onnx_rotate_check(heed_context *context, int32_t device, const struct stored_case *stored, struct outcome *outcome);
void onnx_scatter_check(heed_context *context, int32_t device, const struct stored_case *stored, struct outcome *outcome);

#endif
