/* SPDX-License-Identifier: MIT
 * view.h - where a row of a tensor lies: the address formulas of internal.h, and what a query sees by position.
 */
#ifndef HEED_VIEW_H
#define HEED_VIEW_H

#include "internal.h"

/* Offset in bytes of query-like row (b, h, i), relative to element 0. */
static inline int64_t query_offset(const struct view *v, const struct sequence *s, int32_t b, int32_t h, int32_t i)
{
    return (int64_t)b * v->batch + (s->q_token + i) * v->token + (int64_t)h * v->head;
}

static inline void *query_row(const struct view *v, const struct sequence *s, int32_t b, int32_t h, int32_t i)
{
    return v->data + query_offset(v, s, b, h, i);
}

/* Offset in bytes of key-like row (b, g, j). page_size 0: not paged. */
static inline int64_t key_offset(const struct view *v, const struct sequence *s, const int32_t *page_table, int32_t page_size,
                                 int32_t b, int32_t g, int32_t j)
{
    if (page_size > 0)
        return (int64_t)page_table[s->first_page + j / page_size] * v->batch + (int64_t)(j % page_size) * v->token +
               (int64_t)g * v->head;
    return (int64_t)b * v->batch + (s->kv_token + j) * v->token + (int64_t)g * v->head;
}

static inline void *key_row(const struct view *v, const struct sequence *s, const int32_t *page_table, int32_t page_size, int32_t b,
                            int32_t g, int32_t j)
{
    return v->data + key_offset(v, s, page_table, page_size, b, g, j);
}

/* The memory that a view lies in, from its first byte, for the backend's tensor_read(). */
static inline heed_tensor view_memory(const struct view *v)
{
    return (heed_tensor){.data = v->mem ? v->mem : (void *)(v->data - v->offset), .bytes = v->bytes, .memory = v->memory};
}

/* The first of the queries that scores and key sums tell of. */
static inline int32_t first_scored(const struct heed_batch *batch, const struct sequence *s)
{
    return batch->score_rows > 0 && batch->score_rows < s->q_len ? s->q_len - batch->score_rows : 0;
}

/* Scores of query i, in the place `slot` among the chosen heads. */
static inline void *scored_row(const struct call *call, int32_t b, int32_t slot, int32_t i)
{
    const struct view *v = &call->scores;
    const struct sequence *s = &call->batch->sequences[b];
    if (call->batch->score_rows == 0) return query_row(v, s, b, slot, i);
    return v->data + (int64_t)b * v->batch + (int64_t)(i - first_scored(call->batch, s)) * v->token + (int64_t)slot * v->head;
}

/* Sums of query head h, or of all (h = 0). */
static inline float *key_sums_row(const struct call *call, int32_t b, int32_t h)
{
    return (float *)(void *)(call->key_sums.data + (int64_t)b * call->key_sums.batch + (int64_t)h * call->key_sums.head);
}

/* m and l of query row (h, i) in the workspace of the host. */
static inline float *kept_sums(const struct call *call, const struct sequence *s, int32_t h, int32_t i)
{
    return (float *)(void *)(call->workspace.data + call->batch->kept_offset) + 2 * ((s->q_index + i) * call->plan->problem.q_heads + h);
}

/* p_i of doc/semantics.md, section 2. */
static inline int64_t query_position(const struct heed_batch *batch, const struct sequence *s, int32_t i)
{
    return batch->q_positions ? (int64_t)batch->q_positions[s->q_index + i] : s->position + i;
}

/* Keys that query position p can see by causality, window and length: [*begin, *end), empty as begin = end. Key range, mask and bias
 * come on top. Clipped to the sequence, so it never overflows. */
static inline void visible_by_position(const struct problem *p, const struct sequence *s, int64_t position, int32_t *begin, int32_t *end)
{
    int64_t from = 0, to = s->kv_len, own = position - s->first; /* own: the index of the key at the query's own position */
    if ((p->flags & HEED_CAUSAL) && own + 1 < to) to = own + 1;
    if (p->window_right >= 0 && own + p->window_right + 1 < to) to = own + p->window_right + 1;
    if (p->window_left >= 0 && own - p->window_left > from) from = own - p->window_left;
    if (from >= to) from = to = 0;
    *begin = (int32_t)from;
    *end = (int32_t)to;
}

#endif
