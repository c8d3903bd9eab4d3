/* SPDX-License-Identifier: MIT
 * retarget.h - see retarget.c.
 */
#ifndef HEED_OPENCL_RETARGET_H
#define HEED_OPENCL_RETARGET_H
#include <stddef.h>

/* `in`: PTX text of `length` bytes, with or without a 0 at its end. `out`: room for length + 2. Returns the length of the text there, or 0 with the reason. */
size_t retarget(const char *in, size_t length, char *out, const char **why);

#endif
