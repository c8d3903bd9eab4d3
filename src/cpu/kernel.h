/* SPDX-License-Identifier: MIT
 * kernel.h - what a CPU row of the table is made of: functions on one work item, and the bytes of scratch they want.
 *
 * All that a template (*.inc.h) may know, beside the words of its simd_*.h. Every function here is called on some worker with round-to-nearest,
 * without flushing (cpu.c sees to that), many at once for different items, and must not allocate. Scratch is 64-byte aligned, of this
 * worker alone and holds garbage at entry.
 */
#ifndef HEED_CPU_KERNEL_H
#define HEED_CPU_KERNEL_H

#include "../dtype.h"
#include "../internal.h"
#include "../mutant.h"
#include "../view.h"

struct cpu_kernel {
    /* KIND_PREFILL, KIND_DECODE: writes o (lse, kept sums) of the item, or its partial rows where item->part >= 0. */
    void (*item)(const struct call *call, const struct work_item *item, void *scratch);
    /* The same row's partial results put together, in key order. NULL where it cuts no keys. */
    void (*merge_parts)(const struct call *call, const struct merge_item *merge, void *scratch);
    /* KIND_SCORES: writes scores and key sums of the item, from the sums that the rows above kept. */
    void (*scores)(const struct call *call, const struct work_item *item, void *scratch);
    /* Scratch per worker for item, merge_parts and scores; NULL = none. kv_len_max: of the batch. */
    size_t (*scratch)(const struct problem *problem, int32_t kv_len_max);

    /* KIND_APPEND, KIND_ROTATE, KIND_MERGE: one row (b, head, i) of the call. Scratch: CPU_ROW_SCRATCH bytes. */
    void (*append)(const struct call *call, int32_t b, int32_t g, int32_t i, void *scratch);
    void (*rotate)(const struct call *call, int32_t b, int32_t h, int32_t i, void *scratch);
    void (*merge)(const struct call *call, int32_t b, int32_t h, int32_t i, void *scratch);
};

/* On the worker's stack: two f32 rows of the longest head. */
enum { CPU_ROW_SCRATCH = 2 * MAX_HEAD_DIM * (int)sizeof(float) };

/* Partial row r (internal.h): v_head_dim accumulators, and its (m, l). */
static inline float *part_values(const struct call *call, int64_t r)
{
    return (float *)call->workspace.data + r * call->plan->problem.v_head_dim;
}

static inline float *part_sums(const struct call *call, int64_t r)
{
    return (float *)call->workspace.data + call->batch->part_rows * call->plan->problem.v_head_dim + 2 * r;
}

/* Row (b, h, i) has seen all its keys, and the sink: m and l for the pass over the scores. l = 0 where it saw nothing. */
static inline void keep_sums(const struct call *call, const struct sequence *s, int32_t h, int32_t i, float m, float l)
{
    if (!(call->plan->problem.features & FEATURE_SUMS)) return;
    float *kept = kept_sums(call, s, h, i);
    kept[0] = m;
    kept[1] = l;
}

/* Sets of storage types for the columns of a row. */
#define TYPE_BIT(type) (1u << (type))
enum {
    TYPES_FLOAT = 1u << HEED_F32 | 1u << HEED_F16 | 1u << HEED_BF16,
    TYPES_ALL = TYPES_FLOAT | 1u << HEED_I8 | 1u << HEED_Q8_0 | 1u << HEED_Q4_0 | 1u << HEED_F8_E4M3 | 1u << HEED_F8_E5M2
};

#endif
