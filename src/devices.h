/* SPDX-License-Identifier: MIT
 * devices.h - the list of a context's devices: device 0 is the CPU, the wings append theirs.
 */
#ifndef HEED_DEVICES_H
#define HEED_DEVICES_H

#include "internal.h"

/* A zero-filled device of this context, not yet in its list; NULL when there is no memory. */
struct device *device_new(struct heed_context *context, const struct backend *backend);
/* Behind the others; context->lock is held. On failure the device is still the caller's. */
heed_status device_append(struct heed_context *context, struct device *device);

#endif
