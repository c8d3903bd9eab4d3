/* SPDX-License-Identifier: MIT
 * reference_rows.c - the definition (reference.h) as the table's last CPU row: every kind of step, every feature, never fast.
 */
#include "kernel.h"
#include "rows.h"
#include "../reference.h"

static size_t scratch(const struct problem *problem, int32_t kv_len_max) { return reference_row_bytes(problem, kv_len_max); }

static void item(const struct call *call, const struct work_item *item, void *memory)
{
    reference_item(call, item, reference_row_place(memory, &call->plan->problem, call->batch->kv_len_max));
}

static void scores(const struct call *call, const struct work_item *item, void *memory)
{
    reference_scores_item(call, item, reference_row_place(memory, &call->plan->problem, call->batch->kv_len_max));
}

static void append(const struct call *call, int32_t b, int32_t g, int32_t i, void *memory)
{
    (void)memory;
    reference_append(call, b, g, i);
}

static void rotate(const struct call *call, int32_t b, int32_t h, int32_t i, void *memory)
{
    (void)memory;
    reference_rotate(call, b, h, i);
}

static void merge(const struct call *call, int32_t b, int32_t h, int32_t i, void *memory)
{
    (void)memory;
    reference_merge(call, b, h, i);
}

static const struct cpu_kernel kernel = {.item = item, .scores = scores, .scratch = scratch, .append = append, .rotate = rotate, .merge = merge};

const struct kernel_row cpu_rows_reference[] = {
    {.name = "reference",
     .kinds = KIND_BIT(KIND_PREFILL) | KIND_BIT(KIND_DECODE) | KIND_BIT(KIND_SCORES) | KIND_BIT(KIND_MERGE) | KIND_BIT(KIND_APPEND) |
              KIND_BIT(KIND_ROTATE),
     .order = ORDER_REFERENCE,
     .needs = ISA_SCALAR,
     .features = FEATURES_ALL,
     .q_types = TYPES_ALL,
     .k_types = TYPES_ALL,
     .v_types = TYPES_ALL,
     .o_types = TYPES_FLOAT,
     .q_tile = 16,
     .arithmetic = {.exact_double = true},
     .cpu = &kernel},
    {.name = NULL},
};
