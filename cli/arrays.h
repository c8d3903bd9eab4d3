/* SPDX-License-Identifier: MIT
 * arrays.h - a problem from files: .npy arrays and words on the command line become an instance of the harness, so that run, check and
 * show do with it what they do with any other problem.
 */
#ifndef HEED_CLI_ARRAYS_H
#define HEED_CLI_ARRAYS_H

#include "args.h"
#include "harness.h"

struct arrays {
    struct instance *instance;
    bool heads_first; /* the q file is [batch, heads, len, dim] */
    bool one;         /* it has 3 axes: one sequence */
};

/* Reads --q --k --v (--mask --bias), takes shapes and types from them and the rest from the words. `extra`: words of the verb itself,
 * before the user's. False after a line on standard error. */
bool arrays_read(const struct options *options, const char *extra, struct arrays *arrays);
void arrays_free(struct arrays *arrays);

/* The instance's o, lse, scores or key sums as an .npy file: o in the layout of the q file, lse and scores [batch, heads, len (, keys)], key sums
 * [batch, heads, keys]; without the batch where q had none. */
bool arrays_write(const struct arrays *arrays, enum role role, const char *path);

/* Element x of row (b, h, i) of a host tensor of f32: lse and scores. */
float arrays_value(const heed_tensor *tensor, int32_t b, int32_t h, int32_t i, int32_t x);

/* Lines of a text file, each freed with the list; *count of them. NULL after a line on standard error. */
char **labels_read(const char *path, int32_t *count);
void labels_free(char **labels, int32_t count);

#endif
