/* SPDX-License-Identifier: MIT
 * shadow.h - a checked call seen from the host: copies of what lies on a device or is about to be overwritten, and the same problem run
 * once more by another plan. For checking only; never on the way of an ordinary run.
 */
#ifndef HEED_SHADOW_H
#define HEED_SHADOW_H

#include "internal.h"
#include "problem.h"

struct shadow {
    struct call call; /* every view in host memory: the caller's own where that is safe, else a copy */
    void *copy[ROLE_COUNT];
};

/* Before the run: the inputs. After it: the outputs as the run left them, or (scratch) new memory for a second run's. What was
 * allocated before a failure is freed by shadow_release() (shadow_inputs does that itself). */
heed_status shadow_inputs(const struct call *call, struct shadow *shadow);
heed_status shadow_outputs(const struct call *call, struct shadow *shadow);
heed_status shadow_scratch(struct shadow *shadow);
void shadow_release(struct shadow *shadow);

/* The same lengths under another plan, its work list, and a run of it. */
struct twin {
    struct heed_batch batch;
    struct shadow results;
};
/* Runs `plan` on the inputs of *inputs (all in host memory); results.call holds its outputs. */
heed_status twin_run(struct heed_plan *plan, const struct shadow *inputs, struct twin *twin);
void twin_release(struct twin *twin);

#endif
