/* SPDX-License-Identifier: MIT
 * reference.h - the definition of attention, in double. Also a row of the table (the CPU's last), so every problem can run on it.
 */
#ifndef HEED_REFERENCE_H
#define HEED_REFERENCE_H

#include "internal.h"

/* Everything the definition knows of one output row (sequence b, query head h, query i): the result, and what bound.c needs.
 * Arrays have room for kv_len (raw, weight, ...), v_head_dim (o) and head_dim elements; reference_row_new() makes them. Entries of a
 * key that cannot be seen hold logit -infinity and weight 0; its raw, capped, magnitude, key_size and added are set only where scores
 * of stage 0 or 1 are asked for. */
struct reference_row {
    int32_t kv_len, visible;       /* keys of the sequence; how many are visible */
    int32_t begin, end;            /* first visible key, and one past the last; begin = end where there is none */
    bool order_matters;            /* an f32 sum of a visible key may overflow in one order and not in another: nothing is promised */
    double *raw;                   /* [kv_len] scale * q.k           (stage 0) */
    double *capped;                /* [kv_len] after the softcap     (stage 1) */
    double *logit;                 /* [kv_len] with ALiBi and bias, hidden = -infinity (stage 2) */
    double *weight;                /* [kv_len] probabilities, hidden 0 (stage 3) */
    double *magnitude;             /* [kv_len] |scale| * sum_d |q_d k_jd| */
    double *key_size;              /* [kv_len] sum_d |k_jd| */
    double *added;                 /* [kv_len] |ALiBi term| + |bias| */
    double *error;                 /* [kv_len] bound.c's scratch: e_j, then d_j */
    double *sums;                  /* [kv_len] reference_scores_item()'s */
    int32_t terms;                 /* how many terms are added (ALiBi, bias): 0 to 2 */
    double *k_row, *v_row, *q_row; /* scratch: one row each, in double */
    double *o;                     /* [v_head_dim] */
    double *scratch;               /* [5 * v_head_dim] bound.c's */
    double query_size;             /* sum_d |q_d| */
    double maximum, lse;           /* of all logits, the sink's included; lse natural, without the LSE flags applied */
    double lse_out;                /* as written: HEED_LSE_WITHOUT_SINK and HEED_LSE_BASE2 applied */
    double sink, sink_weight;      /* -infinity and 0 without a sink */
};

struct reference_row *reference_row_new(const struct services *services, const struct problem *problem, int32_t kv_len_max);
void reference_row_delete(const struct services *services, struct reference_row *row);
/* The same in memory of the caller (8-byte aligned), where nothing may be allocated. */
size_t reference_row_bytes(const struct problem *problem, int32_t kv_len_max);
struct reference_row *reference_row_place(void *memory, const struct problem *problem, int32_t kv_len_max);

/* Host memory only (the views' data). Never reads a hidden key's V; reads hidden K only where scores of stage 0 or 1 are asked for. */
void reference_compute(const struct call *call, int32_t b, int32_t h, int32_t i, struct reference_row *row);

/* Row j of v (b, g) in double, for bound.c. */
void reference_value_row(const struct call *call, int32_t b, int32_t g, int32_t j, double *to);

/* Can the f32 score of a key whose sum of |products| is `magnitude` overflow on the way? */
bool reference_may_overflow(const struct problem *problem, double magnitude);

/* The score that is written for key j, by the problem's stage. */
double reference_score(const struct problem *problem, const struct reference_row *row, int32_t j);

/* The table's last CPU row and its functions: run, append, rotate, merge in plain loops. */
void reference_item(const struct call *call, const struct work_item *item, struct reference_row *row);        /* writes o and lse */
void reference_scores_item(const struct call *call, const struct work_item *item, struct reference_row *row); /* writes scores and key sums */
void reference_append(const struct call *call, int32_t b, int32_t g, int32_t i);
void reference_rotate(const struct call *call, int32_t b, int32_t h, int32_t i);
void reference_merge(const struct call *call, int32_t b, int32_t h, int32_t i);

/* The same rotation of one row in f32, for every caller: x' = x cos - y sin, y' = y cos + x sin, pairs by the flags, p = position. */
void reference_rotate_row(const struct call *call, int64_t position, float *x);

#endif
