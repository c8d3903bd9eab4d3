/* SPDX-License-Identifier: MIT
 * schedule.h - lengths -> work items, the same for both wings.
 */
#ifndef HEED_SCHEDULE_H
#define HEED_SCHEDULE_H

#include "internal.h"

/* Fills batch->work, part_rows and workspace_bytes from its sequences and its plan's rows. Items are cut by the row's fixed sizes alone,
 * never by thread counts, so that bits do not depend on them. */
heed_status schedule_batch(const struct services *services, struct heed_batch *batch);
void schedule_release(const struct services *services, struct heed_batch *batch);

/* Which kind of step a sequence is: by its q_len alone. */
enum kind sequence_kind(const struct heed_plan *plan, int32_t q_len);

/* Pairs (query, key) visible by position, over all query heads of a batch: the useful work of a run. */
double schedule_pairs(const struct heed_batch *batch);

#endif
