/* SPDX-License-Identifier: MIT
 * probe_case.h - small problems for a row on a device, run twice and judged. Knows no threads and keeps nothing.
 *
 * probe_problems.c says which; probe_data.c makes lengths, tensors and their poison; probe_case.c runs attention and holds it against the reference; probe_beside.c does
 * append, rotate and merge.
 */
#ifndef HEED_PROBE_CASE_H
#define HEED_PROBE_CASE_H

#include "cl.h"

/* The problem, and those of probe_problems.c that the same program serves. HEED_OK: every element inside its bound, both runs with the same bits.
 * *wrong: the answers were wrong, as opposed to a failed call. *work_seconds: per (query, key) pair and dimension of K and V. */
heed_status probe_case(struct cl_device *device, const struct problem *problem, const struct kernel_row *row, enum kind kind,
                       float *work_seconds, bool *wrong);

/* ---- between the files --------------------------------------------------- */

enum { PROBE_BATCH = 4, PROBE_BLOCKS = 32 };
enum { PROBE_SENTINEL = 0xa5 };

struct probe_set {
    struct cl_device *device;
    enum kind kind;
    struct heed_plan plan;          /* on the device's shadow; the probed row for every kind */
    struct kernel_row cut;          /* that row with small chunks, where the probe wants them */
    struct heed_batch batch;
    struct cl_plan state;
    int32_t q_lens[PROBE_BATCH], kv_lens[PROBE_BATCH], q_position[PROBE_BATCH];
    int32_t q_start[PROBE_BATCH + 1];
    int32_t score_heads[2];
    int32_t kv_max, slots;          /* slots: tokens of one page, or of one sequence where not paged */
    int32_t page_rows;              /* entries of the page table per sequence */
    int32_t page_table[PROBE_BATCH * 256];
    uint64_t random;
    void *blocks[PROBE_BLOCKS];     /* everything below is in one of these */
    size_t block_bytes[PROBE_BLOCKS];
    int block_count;
    heed_tensors tensors;
};

heed_status probe_lengths(struct probe_set *set, enum kind kind); /* lengths that try tails, an empty sequence, chunks; then batch */
heed_status probe_fill(struct probe_set *set);                    /* tensors of attention; hidden keys NaN */
void *probe_block(struct probe_set *set, size_t bytes);           /* zero-filled; NULL when there is no memory */
float probe_normal(struct probe_set *set);
int32_t probe_token_row(const struct probe_set *set, int32_t b, int32_t j); /* where key j of sequence b lies, in tokens of the pool */
int32_t probe_pool_tokens(const struct probe_set *set);
bool probe_visible(const struct probe_set *set, int32_t b, int32_t i, int32_t j); /* the same for every head */
/* A packed tensor [tokens, heads, dim] of a type, filled with normal values (NaN as block when block is NULL). */
heed_tensor probe_rows(struct probe_set *set, heed_type type, int64_t tokens, int32_t heads, int32_t dim, float *scales);
void probe_release(struct probe_set *set);

/* The n-th problem; *text NULL behind the last. *served: the program of this hash is the one that the row would take for it. */
heed_status probe_problem(const struct cl_device *device, const struct kernel_row *row, const uint64_t hash[2], int n,
                          struct problem *problem, const char **text, bool *served);
heed_status probe_beside(struct probe_set *set, enum kind kind, bool *wrong);

#endif
