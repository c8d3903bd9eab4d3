/* SPDX-License-Identifier: MIT
 * registry.h - the table: all rows of a backend, best first.
 */
#ifndef HEED_REGISTRY_H
#define HEED_REGISTRY_H

#include "internal.h"

extern const struct backend cpu_backend;
#ifdef HEED_OPENCL
extern const struct backend opencl_backend;
#endif

/* The n-th row of a backend's table, NULL behind the last. */
const struct kernel_row *registry_row(const struct backend *backend, int32_t n);
/* Why the row cannot do the problem by its columns: NULL = it can. Text may be used for the reason. */
const char *registry_refusal(const struct kernel_row *row, const struct problem *problem, enum kind kind, char *text, size_t capacity);

#endif
