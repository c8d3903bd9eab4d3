/* SPDX-License-Identifier: MIT
 * report_arrays.h - the arrays of a stored case as .npy files. Written only; the readers are the command's and the tests'.
 */
#ifndef HEED_REPORT_ARRAYS_H
#define HEED_REPORT_ARRAYS_H

#include "internal.h"

#include <stdio.h>

/* A case being written: json stands in the list of inputs or outputs. */
struct store {
    const struct call *call; /* every view in host memory */
    const char *folder;
    FILE *json;
    int listed; /* entries of the current list */
};

heed_status store_inputs(struct store *to);
heed_status store_outputs(struct store *to); /* Y, lse and their bounds by the reference; got and got_lse as they are */

#endif
