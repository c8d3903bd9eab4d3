/* SPDX-License-Identifier: MIT
 * npy.h - arrays in NumPy's .npy files: read (versions 1.0, 2.0, C order, little endian) and write (1.0). Every size in a file is checked
 * before it is believed. No other order, no objects, no pickles.
 */
#ifndef HEED_NPY_H
#define HEED_NPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum npy_type { NPY_F4, NPY_F8, NPY_F2, NPY_U2, NPY_I4, NPY_I8, NPY_B1, NPY_U1, NPY_I1, NPY_I2, NPY_U4, NPY_U8, NPY_TYPES };
enum { NPY_MAX_RANK = 8 };

struct npy {
    enum npy_type type;
    int32_t rank;
    int64_t shape[NPY_MAX_RANK];
    int64_t count;     /* product of shape; 1 for rank 0 */
    size_t bytes;      /* count * size of the type */
    void *data;        /* 64-byte aligned; npy_free() */
};

size_t npy_type_size(enum npy_type type);
const char *npy_type_text(enum npy_type type); /* "<f4", "|b1", ... */

/* false: message says what is wrong with the file. */
bool npy_read(const char *path, struct npy *array, char *message, size_t capacity);
/* The same from memory: what a fuzzer calls. */
bool npy_parse(const void *file, size_t bytes, struct npy *array, char *message, size_t capacity);
bool npy_write(const char *path, enum npy_type type, int32_t rank, const int64_t *shape, const void *data, char *message, size_t capacity);
void npy_free(struct npy *array); /* twice is fine */

#endif
