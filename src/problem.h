/* SPDX-License-Identifier: MIT
 * problem.h - descriptors, lengths and tensors: checked once, normalised, never trusted. Also the text form of a descriptor.
 */
#ifndef HEED_PROBLEM_H
#define HEED_PROBLEM_H

#include "internal.h"

/* Copy a public struct of the caller's size into one of ours: shorter = the rest is 0, longer = only if the unknown tail is 0.
 * name is for the message ("heed_desc"). smallest: the size that the first version needs (offset after struct_size). */
heed_status struct_take(void *to, size_t known, const void *from, const char *name);

/* Checks every rule of a descriptor (doc/semantics.md, section 8) and fills *problem. */
heed_status problem_from_desc(const heed_desc *desc, struct problem *problem);

/* Checks lengths against the problem and fills the batch's nouns: batch, sequences, q_positions, page_table, totals, flags. Memory comes from
 * services; on failure nothing is left allocated and *batch is unchanged in these fields. The work lists are schedule.c's. */
heed_status lengths_take(const struct services *services, const struct problem *problem, const heed_lengths *lengths,
                         struct heed_batch *batch);
void lengths_release(const struct services *services, struct heed_batch *batch); /* frees what lengths_take made */

/* Checks every tensor of a run against the furthest byte that its strides, the batch's lengths and pages can reach, alignment,
 * overlap, memory kind (heed_backend of the plan's device), workspace size; fills *call (plan, batch and all views). No allocation.
 * host_only: heed_forward takes host memory alone. */
heed_status tensors_take(const struct heed_plan *plan, const struct heed_batch *batch, const heed_tensors *tensors,
                         const heed_tensor *workspace, bool host_only, struct call *call);
/* The same for heed_append, heed_rotate and heed_merge. */
heed_status append_take(const struct heed_plan *plan, const struct heed_batch *batch, heed_type new_type, const heed_tensor *new_k,
                        const heed_tensor *new_v, const heed_tensors *tensors, struct call *call);
heed_status rotate_take(const struct heed_plan *plan, const struct heed_batch *batch, int32_t heads, const heed_tensor *x,
                        const heed_tensors *tensors, struct call *call);
heed_status merge_take(const struct heed_plan *plan, const struct heed_batch *batch, const heed_tensor *o_a, const heed_tensor *lse_a,
                       const heed_tensor *o_b, const heed_tensor *lse_b, const heed_tensor *o, const heed_tensor *lse, struct call *call);

/* First and one-past-last byte, relative to data, that a tensor of this role may touch (checked arithmetic). Used by staging and check.c,
 * which copy exactly this range. [0, 0) when nothing is touched. */
struct byte_range { int64_t begin, end; };

enum role { ROLE_Q, ROLE_K, ROLE_V, ROLE_O, ROLE_LSE, ROLE_MASK, ROLE_BIAS, ROLE_ALIBI, ROLE_SINKS, ROLE_K_SCALE, ROLE_V_SCALE,
            ROLE_SCORES, ROLE_KEY_RANGE, ROLE_ROPE_COS, ROLE_ROPE_SIN, ROLE_NEW_K, ROLE_NEW_V, ROLE_X, ROLE_O_A, ROLE_LSE_A, ROLE_O_B,
            ROLE_LSE_B, ROLE_KEY_SUMS, ROLE_COUNT };
/* By role, of a checked call: the view and the bytes it reaches from element 0 (so begin is negative with negative strides). */
const struct view *call_view(const struct call *call, enum role role);
heed_status call_range(const struct call *call, enum role role, struct byte_range *range);
const char *role_name(enum role role); /* "q", "k_scale", ... as in heed_tensors */

#endif
