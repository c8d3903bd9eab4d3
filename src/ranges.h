/* SPDX-License-Identifier: MIT
 * ranges.h - the rows that a tensor of each role has, the bytes they reach, and whether the rows of two tensors meet.
 * Private to the room `problem`: tensors.c, ranges.c, overlap.c.
 */
#ifndef HEED_RANGES_H
#define HEED_RANGES_H

#include "problem.h"

enum rows {
    ROWS_QUERY, /* (b, h, i), fixed length */
    ROWS_PAIR,  /* (b, h, i), kv_len_b elements */
    ROWS_SCORE, /* the same of chosen heads and queries; not packed where queries are chosen */
    ROWS_SUM,   /* (b, h), kv_len_b elements */
    ROWS_KEY,   /* (b, g, j), or pages */
    ROWS_ONE,   /* a single row, strides unused */
    ROWS_TABLE  /* row p of a table of positions */
};

/* A box of rows: batch x token x head rows of row_bytes. Where lengths differ by sequence it holds the longest, so it may be larger than
 * what is reached; range_exact() is not. */
struct shape {
    enum rows rows;
    heed_type type; /* of the elements; bits and bytes of a mask: HEED_I8 */
    bool bits;
    int32_t unit, alignment;    /* bytes per unit of strides and offset; alignment of a row */
    int64_t batch, token, head; /* extents; batch: pages where paged, 1 where packed */
    int64_t first_token;        /* ROWS_TABLE: the smallest position; else 0 */
    int64_t row_bytes;
};

/* Reaches beyond this are refused, so that sums of a few of them fit 64 bits. No memory is that large. */
#define REACH_LIMIT (INT64_C(1) << 60)

void role_shape(const struct call *call, enum role role, struct shape *shape);
bool shape_empty(const struct shape *shape);
struct view *role_view(struct call *call, enum role role);

/* Bytes reached from element 0: of the whole box, and of the sequences as they are. false: beyond REACH_LIMIT. */
bool range_of_box(const struct shape *shape, const struct view *view, struct byte_range *range);
bool range_exact(const struct call *call, enum role role, const struct shape *shape, const struct view *view, struct byte_range *range);

/* A box of rows in memory. */
struct placed {
    struct shape shape;
    struct view view;
    struct byte_range box;
};

enum overlap { APART, MEETING, UNDECIDED };          /* UNDECIDED: strides too strange to be told apart in a bounded number of steps */
enum overlap overlap_within(const struct placed *a); /* two rows of one tensor */
enum overlap overlap_between(const struct placed *a, const struct placed *b); /* a row of a and a row of b */
bool same_rows(const struct placed *a, const struct placed *b);               /* in place: every row is the same bytes */

#endif
