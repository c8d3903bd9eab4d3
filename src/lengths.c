/* SPDX-License-Identifier: MIT
 * lengths.c - the lengths of one step: checked, copied, and turned into one struct sequence each.
 * No work list (schedule.c) and no tensors (tensors.c): only where every sequence begins, how long it is and where it stands.
 */
#include "mutant.h"
#include "problem.h"
#include "status.h"
#include <string.h>

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

static heed_status check_counts(const heed_lengths *l)
{
    if (l->batch < 0) return fail(HEED_INVALID_ARGUMENT, "batch is %d: it must be at least 0", l->batch);
    if (!l->q_start && l->q_len < 0) return fail(HEED_INVALID_ARGUMENT, "q_len is %d: it must be at least 0", l->q_len);
    if (!l->kv_lens && !l->kv_start && l->kv_len < 0) return fail(HEED_OUT_OF_BOUNDS, "kv_len is %d: it must be at least 0", l->kv_len);
    return HEED_OK;
}

/* Running sums [batch + 1]: begin with 0, never fall. */
static heed_status check_starts(const char *field, const int32_t *start, int32_t batch)
{
    if (!start) return HEED_OK;
    if (start[0] != 0) return fail(HEED_INVALID_ARGUMENT, "%s[0] is %d: it must be 0", field, start[0]);
    for (int32_t b = 0; b < batch; b++)
        if (start[b + 1] < start[b] && !MUTANT(lengths_falling_start))
            return fail(HEED_INVALID_ARGUMENT, "%s[%d] is %d, below %s[%d] = %d: it must never fall", field, b + 1, start[b + 1], field, b,
                        start[b]);
    return HEED_OK;
}

static heed_status check_kv_lens(const heed_lengths *l)
{
    if (!l->kv_lens) return HEED_OK;
    for (int32_t b = 0; b < l->batch; b++) {
        if (l->kv_lens[b] < 0) return fail(HEED_OUT_OF_BOUNDS, "kv_lens[%d] is %d: it must be at least 0", b, l->kv_lens[b]);
        if (l->kv_start && l->kv_lens[b] > l->kv_start[b + 1] - l->kv_start[b])
            return fail(HEED_OUT_OF_BOUNDS, "kv_lens[%d] is %d: kv_start leaves room for %d keys", b, l->kv_lens[b],
                        l->kv_start[b + 1] - l->kv_start[b]);
    }
    return HEED_OK;
}

/* ---- sequences ------------------------------------------------------------------ */

/* p_i = position + i, r_j = first + j (doc/semantics.md, section 2). */
static void take_positions(const struct problem *problem, const heed_lengths *l, int32_t b, struct sequence *s)
{
    s->first = l->kv_first ? l->kv_first[b] : 0;
    if (l->q_position)
        s->position = l->q_position[b];
    else if (problem->flags & HEED_TOP_LEFT)
        s->position = s->first;
    else
        s->position = s->first + s->kv_len - s->q_len;
    if (MUTANT(lengths_position_ignores_first) && !l->q_position) s->position -= s->first;
}

static void take_sequence(const struct problem *problem, const heed_lengths *l, int32_t b, struct sequence *s)
{
    const bool kv_packed = l->kv_start && problem->page_size == 0;
    s->q_len = l->q_start ? l->q_start[b + 1] - l->q_start[b] : l->q_len;
    s->kv_len = l->kv_lens ? l->kv_lens[b] : l->kv_start ? l->kv_start[b + 1] - l->kv_start[b] : l->kv_len;
    s->first_page = problem->page_size > 0 ? b * l->page_table_stride : 0;
    s->reserved = l->q_positions ? 1 : 0; /* kernels: p_i stands in q_positions[] */
    s->q_token = l->q_start ? l->q_start[b] : 0;
    s->kv_token = kv_packed ? l->kv_start[b] : 0;
    s->q_index = l->q_start ? l->q_start[b] : (int64_t)b * l->q_len;
    take_positions(problem, l, b, s);
}

static heed_status take_sequences(const struct services *services, const struct problem *problem, const heed_lengths *l,
                                  struct heed_batch *out)
{
    out->sequences = memory_new(services, (size_t)l->batch, sizeof *out->sequences);
    if (!out->sequences) return out_of_memory((size_t)l->batch * sizeof *out->sequences);
    for (int32_t b = 0; b < l->batch; b++) {
        struct sequence *s = &out->sequences[b];
        take_sequence(problem, l, b, s);
        out->q_len_max = MAX(out->q_len_max, s->q_len);
        out->kv_len_max = MAX(out->kv_len_max, s->kv_len);
        out->q_total += s->q_len;
    }
    out->q_packed = l->q_start != NULL;
    out->kv_packed = l->kv_start && problem->page_size == 0;
    out->kv_total = out->kv_packed ? l->kv_start[l->batch] : 0;
    return HEED_OK;
}

static heed_status take_q_positions(const struct services *services, const heed_lengths *l, struct heed_batch *out)
{
    if (!l->q_positions) return HEED_OK;
    out->q_positions = memory_new(services, (size_t)out->q_total, sizeof *out->q_positions);
    if (!out->q_positions) return out_of_memory((size_t)out->q_total * sizeof *out->q_positions);
    memcpy(out->q_positions, l->q_positions, (size_t)out->q_total * sizeof *out->q_positions);
    return HEED_OK;
}

/* ---- pages ---------------------------------------------------------------------- */

static int32_t pages_of(const struct problem *problem, int32_t kv_len)
{
    return (int32_t)(((int64_t)kv_len + problem->page_size - 1) / problem->page_size);
}

/* Copies the entries in use, remembers the largest and how much of it is in use. Entries past the length are never read. */
static heed_status take_page_row(const struct problem *problem, const heed_lengths *l, int32_t b, struct heed_batch *out)
{
    const struct sequence *s = &out->sequences[b];
    const int32_t pages = pages_of(problem, s->kv_len);
    const size_t row = (size_t)b * (size_t)l->page_table_stride;
    if (pages > l->page_table_stride)
        return fail(HEED_OUT_OF_BOUNDS, "page_table_stride is %d: sequence %d with kv_len %d has %d pages of %d tokens",
                    l->page_table_stride, b, s->kv_len, pages, problem->page_size);
    for (int32_t n = 0; n < pages; n++) {
        const int32_t page = l->page_table[row + (size_t)n];
        const int32_t tokens = MIN(problem->page_size, s->kv_len - n * problem->page_size);
        if (page < 0 && !MUTANT(lengths_negative_page))
            return fail(HEED_OUT_OF_BOUNDS, "page_table[%d][%d] is %d: a page inside the length must be at least 0", b, n, page);
        if (page > out->page_max) out->page_max = page, out->page_max_tokens = 0;
        if (page == out->page_max) out->page_max_tokens = MAX(out->page_max_tokens, tokens);
        out->page_table[row + (size_t)n] = page;
    }
    return HEED_OK;
}

static heed_status check_page_table(const struct problem *problem, const heed_lengths *l)
{
    if (problem->page_size == 0) return HEED_OK;
    if (l->page_table_stride < 0)
        return fail(HEED_INVALID_ARGUMENT, "page_table_stride is %d: it must be at least 0", l->page_table_stride);
    if ((int64_t)l->batch * l->page_table_stride > INT32_MAX)
        return fail(HEED_OUT_OF_BOUNDS, "batch %d * page_table_stride %d is beyond 2^31 - 1", l->batch, l->page_table_stride);
    return HEED_OK;
}

static heed_status take_pages(const struct services *services, const struct problem *problem, const heed_lengths *l, struct heed_batch *out)
{
    out->page_max = -1;
    if (problem->page_size == 0) return HEED_OK;
    if (!l->page_table && out->kv_len_max > 0)
        return fail(HEED_INVALID_ARGUMENT, "page_table is NULL: it is needed with page_size %d", problem->page_size);
    const size_t entries = (size_t)l->batch * (size_t)l->page_table_stride;
    out->page_table = memory_new(services, entries, sizeof *out->page_table);
    if (!out->page_table) return out_of_memory(entries * sizeof *out->page_table);
    out->page_table_stride = l->page_table_stride;
    for (int32_t b = 0; b < l->batch; b++) {
        heed_status status = take_page_row(problem, l, b, out);
        if (status) return status;
    }
    return HEED_OK;
}

/* ---- what scores and key sums tell of ------------------------------------------------ */

static heed_status check_score_rows(const struct problem *problem, const heed_lengths *l)
{
    if (!(problem->flags & (HEED_WRITE_SCORES | HEED_WRITE_KEY_SUMS)) || l->score_rows >= 0) return HEED_OK;
    return fail(HEED_INVALID_ARGUMENT, "score_rows is %d: it must be at least 0 (0 = all)", l->score_rows);
}

/* head_slots[h]: which of the chosen heads h is. */
static heed_status choose_heads(const struct problem *problem, const heed_lengths *l, struct heed_batch *out)
{
    if (l->score_head_count < 0) return fail(HEED_INVALID_ARGUMENT, "score_head_count is %d: it must be at least 0", l->score_head_count);
    if (l->score_head_count > 0 && !l->score_heads)
        return fail(HEED_INVALID_ARGUMENT, "score_heads is NULL: score_head_count is %d", l->score_head_count);
    const bool all = l->score_head_count == 0;
    for (int32_t h = 0; h < problem->q_heads; h++) out->head_slots[h] = all ? h : -1;
    for (int32_t n = 0; n < l->score_head_count; n++) {
        const int32_t h = l->score_heads[n];
        if (h < 0 || h >= problem->q_heads)
            return fail(HEED_INVALID_ARGUMENT, "score_heads[%d] is %d: there are query heads 0 to %d", n, h, problem->q_heads - 1);
        if (out->head_slots[h] >= 0 && !MUTANT(lengths_head_twice))
            return fail(HEED_INVALID_ARGUMENT, "score_heads[%d] is %d: so is score_heads[%d], and each head is written once", n, h, out->head_slots[h]);
        out->head_slots[h] = n;
    }
    out->score_head_count = all ? problem->q_heads : l->score_head_count;
    return HEED_OK;
}

static heed_status take_scored(const struct services *services, const struct problem *problem, const heed_lengths *l, struct heed_batch *out)
{
    if (!(problem->flags & (HEED_WRITE_SCORES | HEED_WRITE_KEY_SUMS))) return HEED_OK;
    out->score_rows = l->score_rows;
    out->score_rows_max = l->score_rows > 0 ? MIN(l->score_rows, out->q_len_max) : out->q_len_max;
    if (!(problem->flags & HEED_WRITE_SCORES)) return HEED_OK;
    out->head_slots = memory_new(services, (size_t)problem->q_heads, sizeof *out->head_slots);
    if (!out->head_slots) return out_of_memory((size_t)problem->q_heads * sizeof *out->head_slots);
    return choose_heads(problem, l, out);
}

/* ---- all of it -------------------------------------------------------------------- */

void lengths_release(const struct services *services, struct heed_batch *batch)
{
    memory_delete(services, batch->sequences);
    memory_delete(services, batch->q_positions);
    memory_delete(services, batch->page_table);
    memory_delete(services, batch->head_slots);
    batch->head_slots = NULL;
    batch->sequences = NULL;
    batch->q_positions = NULL;
    batch->page_table = NULL;
}

static void hand_over(const struct heed_batch *from, struct heed_batch *to)
{
    to->batch = from->batch;
    to->page_table_stride = from->page_table_stride;
    to->q_total = from->q_total;
    to->kv_total = from->kv_total;
    to->q_len_max = from->q_len_max;
    to->kv_len_max = from->kv_len_max;
    to->q_packed = from->q_packed;
    to->kv_packed = from->kv_packed;
    to->page_max = from->page_max;
    to->page_max_tokens = from->page_max_tokens;
    to->sequences = from->sequences;
    to->q_positions = from->q_positions;
    to->page_table = from->page_table;
    to->score_rows = from->score_rows;
    to->score_rows_max = from->score_rows_max;
    to->score_head_count = from->score_head_count;
    to->head_slots = from->head_slots;
}

heed_status lengths_take(const struct services *services, const struct problem *problem, const heed_lengths *lengths,
                         struct heed_batch *batch)
{
    heed_lengths l;
    struct heed_batch taken = {0};
    heed_status status = struct_take(&l, sizeof l, lengths, "heed_lengths");
    if (status == HEED_OK) status = check_counts(&l);
    if (status == HEED_OK) status = check_starts("q_start", l.q_start, l.batch);
    if (status == HEED_OK) status = check_starts("kv_start", l.kv_start, l.batch);
    if (status == HEED_OK) status = check_kv_lens(&l);
    if (status == HEED_OK) status = check_page_table(problem, &l);
    if (status == HEED_OK) status = check_score_rows(problem, &l);
    if (status) return status;

    taken.batch = l.batch;
    status = take_sequences(services, problem, &l, &taken);
    if (status == HEED_OK) status = take_q_positions(services, &l, &taken);
    if (status == HEED_OK) status = take_pages(services, problem, &l, &taken);
    if (status == HEED_OK) status = take_scored(services, problem, &l, &taken);
    if (status) {
        lengths_release(services, &taken);
        return status;
    }
    hand_over(&taken, batch);
    return HEED_OK;
}
