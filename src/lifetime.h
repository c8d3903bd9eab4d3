/* SPDX-License-Identifier: MIT
 * lifetime.h - who keeps a context alive: its owner, its plans and its buffers. The last one to let go frees it.
 */
#ifndef HEED_LIFETIME_H
#define HEED_LIFETIME_H

#include "internal.h"

void context_hold(struct heed_context *context);
void context_drop(struct heed_context *context);

#endif
