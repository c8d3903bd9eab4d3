/* SPDX-License-Identifier: MIT
 * context.h - a context's devices, for the public entry points beside context.c.
 */
#ifndef HEED_CONTEXT_H
#define HEED_CONTEXT_H

#include "internal.h"

heed_status device_get(struct heed_context *context, int32_t index, struct device **device); /* lists OpenCL for an index above 0 */
int32_t device_count(struct heed_context *context);
heed_status device_find(struct heed_context *context, const char *text, int32_t *index);
/* HEED_DEVICE_AUTO: what HEED_DEVICE says; else an accelerator where the work is worth the trip; else the CPU. */
heed_status device_choose(struct heed_context *context, double multiply_adds, struct device **device);

#endif
