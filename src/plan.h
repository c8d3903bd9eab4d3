/* SPDX-License-Identifier: MIT
 * plan.h - walk the table, keep the first row that fits, remember why the others did not.
 */
#ifndef HEED_PLAN_H
#define HEED_PLAN_H

#include "internal.h"

heed_status plan_make(struct heed_context *context, struct device *device, const heed_desc *desc, const char *kernel,
                      struct heed_plan **plan);
void plan_hold(struct heed_plan *plan);
void plan_drop(struct heed_plan *plan);

/* heed_forward's plans: at most 64, least recently used first to go. */
heed_status plan_cached(struct heed_context *context, struct device *device, const heed_desc *desc, struct heed_plan **plan); /* held */
void plan_cache_clear(struct heed_context *context);

heed_status batch_make(struct heed_plan *plan, const heed_lengths *lengths, struct heed_batch **batch);
heed_status batch_update(struct heed_batch *batch, const heed_lengths *lengths);
void batch_drop(struct heed_batch *batch);

#endif
