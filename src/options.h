/* SPDX-License-Identifier: MIT
 * options.h - what a context is told: the options of heed_context_create() and the environment. API values beat the environment, and this is
 * the only room that reads it.
 */
#ifndef HEED_OPTIONS_H
#define HEED_OPTIONS_H

#include "internal.h"

/* Fills context->services (allocator, log, threads, isa, folders), validate_every and report_dir. On failure everything taken is given
 * back but for the allocator. */
heed_status options_take(const heed_context_options *options, struct heed_context *context);

/* The allocator alone, needed before there is a context to fill. */
heed_status options_allocator(const heed_context_options *options, heed_allocator *allocator);

/* HEED_DEVICE, or NULL; never with HEED_NO_ENVIRONMENT. */
const char *options_device(const struct services *services);

#endif
