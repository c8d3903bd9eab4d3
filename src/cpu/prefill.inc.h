/* SPDX-License-Identifier: MIT
 * prefill.inc.h - template: many query rows of one KV head against its keys, online softmax, vectors over query rows. Compute-bound; one or
 * few rows against a long cache are decode.inc.h's.
 *
 * An item is a tile of queries with all heads of a KV head's group; its rows go in passes of PASS_ROWS, a pass in panels of a few vectors.
 *     for each block of PANEL_KEYS keys, counted from key 0:
 *         K and V of the block, as f32 (few rows alone read them where they lie)      prefill_block.inc.h, panel_few.inc.h
 *         for each panel that sees any of it:
 *             s = scale * q.k; terms and visibility; p = e^(s - m); o = o fade + p v      panel.inc.h, prefill_terms.inc.h
 *     o / l, lse                                                                      prefill_outputs.inc.h
 * An item of few rows may have a chunk of the keys only: it leaves o, m and l of its rows, which merge.inc.h puts together in key order.
 *
 * The block is cut to the keys that some row of the panel may see; keys cut away would have added exact zeros. So the bits of a row depend on
 * its own visible keys alone, and on whether its sequence is short: not on the panel, its neighbours, threads or the group.
 *
 * A hidden key's weight is 0, and 0 * NaN is NaN: so where o is not finite in the end, nothing is written and the rows are done once more, with
 * hidden keys left out one by one in every block whose V is not finite.
 */
#ifndef HEED_PREFILL_INC_H
#define HEED_PREFILL_INC_H

#include "merge.inc.h"
#include "prefill_outputs.inc.h"
#include "prefill_terms.inc.h"

#include <stdio.h>

/* Floats of a row of Q; where it lies in quads even one element fills two. */
static size_t query_floats(const struct problem *p) { return (size_t)(CELL_QUADS && p->head_dim < 2 ? 2 : CELL_TILES ? (p->head_dim + 31) / 32 * 32 : p->head_dim); }
/* And of O: whole tiles. */
static size_t output_floats(const struct problem *p) { return (size_t)(CELL_TILES ? (p->v_head_dim + 15) / 16 * 16 : p->v_head_dim); }

static size_t prefill_scratch(const struct problem *p, int32_t kv_len_max)
{
    const size_t dims = query_floats(p) + output_floats(p);
    const size_t copies = (size_t)PANEL_KEYS * (size_t)(copy_step(p->head_dim) + copy_step(p->v_head_dim));
    (void)kv_len_max;
    return ((dims + 2) * PASS_ROWS + (P_BUFFERS * PANEL_KEYS + 2) * PANEL_ROWS + copies + (size_t)half_floats(p->head_dim)) * sizeof(float) + 8 * 64;
}

static float *take_floats(float **next, size_t count)
{
    float *here = *next;
    *next += (count + 15) / 16 * 16;
    return here;
}

/* Where everything lies in the scratch; the big rows first, so that they are aligned. */
static void place_pass(struct prefill_pass *pass, void *scratch)
{
    const struct problem *p = pass->p;
    float *next = scratch;
    pass->k.copy_step = copy_step(p->head_dim);
    pass->v.copy_step = copy_step(p->v_head_dim);
    pass->k.copy = take_floats(&next, (size_t)PANEL_KEYS * (size_t)pass->k.copy_step);
    pass->v.copy = take_floats(&next, (size_t)PANEL_KEYS * (size_t)pass->v.copy_step);
    pass->work.ahead = 0;
    pass->work.fresh = false;
    pass->work.few_copy = take_floats(&next, (size_t)half_floats(p->head_dim));
    pass->work.p = take_floats(&next, P_BUFFERS * PANEL_KEYS * PANEL_ROWS);
#if CELL_TILES
    pass->queue.first = pass->queue.end = 0;
    pass->work.queue = &pass->queue;
#endif
    pass->work.top = take_floats(&next, PANEL_ROWS);
    pass->work.fade = take_floats(&next, PANEL_ROWS);
    float *m = take_floats(&next, PASS_ROWS), *l = take_floats(&next, PASS_ROWS);
    float *q = take_floats(&next, PASS_ROWS * query_floats(p)), *o = next;
    for (int n = 0; n < PASS_PANELS; n++) {
        const size_t row = (size_t)n * PANEL_ROWS;
        pass->panel[n].m = m + row;
        pass->panel[n].l = l + row;
        pass->panel[n].q = q + row * query_floats(p);
        pass->panel[n].o = o + row * output_floats(p);
    }
}

/* ---- the rows of a pass --------------------------------------------------- */

/* Everything that row r of the pass needs to know: it is query i of head h. */
static void describe_query(struct prefill_pass *pass, int r, int32_t h, int32_t i)
{
    const struct call *call = pass->call;
    const struct problem *p = pass->p;
    const int64_t position = query_position(call->batch, pass->s, i);
    int32_t *begin = &pass->begin[r], *end = &pass->end[r];
    pass->query[r] = i;
    pass->head[r] = h;
    pass->own[r] = position - pass->s->first;
    visible_by_position(p, pass->s, position, begin, end);
    if (MUTANT(cpu_prefill_window_own)) *begin += p->window_left >= 0 && *begin > 0;
    if (p->flags & HEED_KEY_RANGE) {
        const int32_t *range = query_row(&call->key_range, pass->s, pass->b, 0, i);
        if (range[0] > *begin) *begin = range[0];
        if (range[1] < *end) *end = range[1];
    }
    if (*begin >= *end) *begin = *end = 0;
    if (p->flags & HEED_ALIBI) pass->slope[r] = ((const float *)call->alibi.data)[h];
    if (p->flags & (HEED_MASK_BOOL | HEED_MASK_BITS)) pass->mask[r] = query_row(&call->mask, pass->s, pass->b, h, i);
    if (p->flags & HEED_BIAS) pass->bias[r] = query_row(&call->bias, pass->s, pass->b, h, i);
}

/* Of an item with some of the keys row r sees those alone. */
static void keep_to_part(struct prefill_pass *pass, const struct work_item *item, int r)
{
    int32_t *begin = &pass->begin[r], *end = &pass->end[r];
    if (item->kv_begin > *begin) *begin = item->kv_begin;
    if (item->kv_end < *end && !MUTANT(cpu_prefill_part_end)) *end = item->kv_end;
    if (*begin >= *end) *begin = *end = 0;
}

/* The same for rows `first` ... of the item. */
static void describe_rows(struct prefill_pass *pass, const struct work_item *item, int32_t first, int rows)
{
    const struct problem *p = pass->p;
    int32_t i = item->q_begin + first / p->group, n = first % p->group;
    for (int r = 0; r < rows; r++) {
        describe_query(pass, r, MUTANT(cpu_prefill_group_map) ? n * p->kv_heads + item->head : item->head * p->group + n, i);
        if (item->part >= 0) keep_to_part(pass, item, r);
        if (++n == p->group) n = 0, i++;
    }
}

/* Lanes behind the last row: they see everything, so that they never make a block partial, and nothing of them is stored. */
static void describe_no_row(struct prefill_pass *pass, int r)
{
    pass->begin[r] = 0;
    pass->end[r] = INT32_MAX;
    pass->mask[r] = pass->mask[0];
    pass->bias[r] = pass->bias[0];
}

static void clear_outputs(const struct panel *a, int dim) { memset(a->o, 0, sizeof(float) * (size_t)dim * (size_t)a->width); }

/* Q^T, o = 0, m = -infinity, l = 0, and the panel's share of the keys. */
static void start_panel(struct prefill_pass *pass, struct panel *a)
{
    const struct problem *p = pass->p;
    for (int c = 0; c < a->width; c += VW) {
        const unsigned char *rows[VW];
        for (int r = 0; r < VW; r++) {
            const int n = a->first + c + r;
            rows[r] = c + r < a->rows ? query_row(&pass->call->q, pass->s, pass->b, pass->head[n], pass->query[n]) : NULL;
        }
        transpose_queries(p->q_type, rows, p->head_dim, MUTANT(cpu_prefill_scale_twice) ? p->scale * p->scale : p->scale, a->q + c, a->width);
        vstore(a->m + c, vset1(-INFINITY));
        vstore(a->l + c, vset1(0));
    }
    a->begun = false;
    if (!CELL_TILES) clear_outputs(a, p->v_head_dim);
    int32_t begin_min = INT32_MAX, begin_max = 0, end_min = INT32_MAX, end_max = 0;
    for (int c = 0; c < a->vectors; c++) {
        const int32_t *begins = pass->begin + a->first + c * VW, *ends = pass->end + a->first + c * VW;
        int32_t first = INT32_MAX, last = 0;
        for (int r = 0; r < VW && c * VW + r < a->rows; r++) {
            const int32_t begin = begins[r], end = ends[r];
            if (end < end_min) end_min = end;
            if (end == 0) continue;
            if (begin < first) first = begin;
            if (begin > begin_max) begin_max = begin;
            if (end > last) last = end;
        }
        a->begin[c] = first;
        a->end[c] = last;
        if (first < begin_min) begin_min = first;
        if (last > end_max) end_max = last;
    }
    a->begin_min = begin_min;
    a->begin_max = begin_max;
    a->end_min = end_min;
    a->end_max = end_max;
}

/* Panels as wide as the rows that are left, so that few rows are not padded to many. */
static void start_pass(struct prefill_pass *pass, const struct work_item *item, int32_t first, int rows)
{
    pass->rows = rows;
    pass->panels = 0;
    describe_rows(pass, item, first, rows);
    for (int r = rows; r < (rows + VW - 1) / VW * VW; r++) describe_no_row(pass, r);
    for (int r = 0; r < rows; r += PANEL_ROWS) {
        struct panel *a = &pass->panel[pass->panels++];
        a->first = r;
        a->rows = min_int(PANEL_ROWS, rows - r);
        a->vectors = (a->rows + VW - 1) / VW;
        a->width = a->vectors * VW;
        a->few = a->rows <= FEW_MOST && pass->p->v_head_dim >= VW ? few_step(pass->p->v_head_dim) : 0; /* then o has room for whole vectors */
        start_panel(pass, a);
    }
}

/* ---- the keys -------------------------------------------------------------- */

/* Keys per item where the query rows are few: whole blocks. Keys, keys at an edge, dimensions per step: whole tiles. Panels of two vectors are narrow enough
 * without. CACHED_BYTES: half of a core's own cache. */
enum {
    PREFILL_CHUNK = 12 * PANEL_KEYS,
    SPAN_STEP = CELL_TILES ? 32 : 16,
    KEY_STEP = CELL_TILES ? 32 : 24,
    EDGE_STEP = CELL_TILES ? 32 : PANEL_VECTORS == 4 ? 12 : PANEL_KEYS,
    DIM_STEP = 48,
    FEW_STEP = PANEL_KEYS,
    FEW_DIMS = 8 * VW,
    RESCALE_KEYS = CELL_TILES ? 32 : PANEL_KEYS, /* how often the maximum may rise */
    CACHED_BYTES = 512 << 10
};

/* How far above the largest score what stands for the maximum may be: with tiles ln 2^8, in the words of vexp_near(), whose e^-ABOVE is 2^-8 exactly. */
#define ABOVE (CELL_TILES ? 8 * 0.693147182f : 0.0f)

/* Part of [block, block + PANEL_KEYS) that a panel may see; it begins at a multiple of 16, where masks of bits can be loaded, or of a tile's step. */
static struct prefill_span span_of(const struct panel *a, int32_t block)
{
    struct prefill_span span = {.a = a, .j0 = a->begin_min > block ? a->begin_min / SPAN_STEP * SPAN_STEP : block, .j1 = block + PANEL_KEYS};
    if (a->end_max < block + PANEL_KEYS) span.j1 = a->end_max - (MUTANT(cpu_prefill_last_key) ? 1 : 0);
    return span;
}

/* What is to be brought near while a block is worked on, a step's share at a time: keys [j0, j1) of the next block, or behind the last one the
 * first block and the query rows of the next item, which another head's data would otherwise wait for (short sequences, many heads). */
struct prefill_ahead {
    const struct key_source *k, *v; /* NULL: not wanted */
    const struct work_item *queries;
    int32_t b, g, j0, j1;
    int turn, turns; /* of the panels that work on the block */
    bool outputs;    /* it is their last one, and their outputs are far */
};

static void prefetch_step(const struct prefill_pass *pass, const struct prefill_ahead *ahead, const struct key_source *from, int step, int steps)
{
    if (!from) return;
    const int32_t rows = ahead->j1 - ahead->j0, all = steps * ahead->turns, n = ahead->turn * steps + step;
    prefetch_block(pass->call, from, ahead->b, ahead->g, ahead->j0 + rows * n / all, ahead->j0 + rows * (n + 1) / all);
}

/* Lines of row (h, i) of q or o. */
static void prefetch_row(const struct view *view, const struct sequence *s, int32_t b, int32_t h, int32_t i, int64_t bytes)
{
    const unsigned char *row = query_row(view, s, b, h, i);
    for (int64_t n = 0; n < bytes; n += 64) vprefetch(row + n);
}

static void prefetch_queries(const struct prefill_pass *pass, const struct prefill_ahead *ahead, int step, int steps)
{
    const struct work_item *item = ahead->queries;
    if (!item) return;
    const struct problem *p = pass->p;
    const struct sequence *s = &pass->call->batch->sequences[item->sequence];
    const int32_t rows = min_int((item->q_end - item->q_begin) * p->group, PASS_ROWS);
    const int64_t bytes = type_row_bytes(p->q_type, p->head_dim);
    const int32_t all = steps * ahead->turns, n = ahead->turn * steps + step, end = rows * (n + 1) / all;
    for (int32_t r = rows * n / all; r < end; r++)
        prefetch_row(&pass->call->q, s, item->sequence, item->head * p->group + r % p->group, item->q_begin + r / p->group, bytes);
}

/* The rows that a panel will write: at the end stores would wait for them, line by line. */
static void prefetch_outputs(const struct prefill_pass *pass, const struct prefill_ahead *ahead, const struct panel *a, int step, int steps)
{
    if (!ahead->outputs) return;
    const int64_t bytes = type_row_bytes(pass->p->o_type, pass->p->v_head_dim);
    const int32_t end = a->first + a->rows * (step + 1) / steps;
    for (int r = a->first + a->rows * step / steps; r < end; r++) prefetch_row(&pass->call->o, pass->s, pass->b, pass->head[r], pass->query[r], bytes);
}

/* What is added to the scores of a span, or hides them: rows on memory pages of their own, of which each line is read once. */
static void prefetch_terms(const struct prefill_pass *pass, const struct prefill_span *span, int step, int steps)
{
    const struct problem *p = pass->p;
    const struct panel *a = span->a;
    const bool bias = p->flags & HEED_BIAS, bits = p->flags & HEED_MASK_BITS, mask = bits || p->flags & HEED_MASK_BOOL;
    if (!bias && !mask) return;
    const int64_t from = bias ? type_row_bytes(p->bias_type, span->j0) : 0, to = bias ? type_row_bytes(p->bias_type, span->j1) : 0;
    const int end = a->first + a->rows * (step + 1) / steps;
    for (int r = a->first + a->rows * step / steps; r < end; r++) {
        for (int64_t n = from; n < to; n += 64) vprefetch(pass->bias[r] + n);
        if (mask)
            for (int32_t j = span->j0; j < span->j1; j += bits ? 512 : 64) vprefetch(pass->mask[r] + (bits ? j / 8 : j));
    }
}

/* Vectors that may see one of the keys [j0, j1): near the diagonal only the later rows. What the others would get are exact zeros. */
static struct lanes lanes_of(const struct panel *a, int32_t j0, int32_t j1)
{
    struct lanes lanes = {a->vectors, 0};
    for (int c = 0; c < a->vectors; c++) {
        if (a->begin[c] >= j1 || a->end[c] <= j0) continue;
        if (c < lanes.first) lanes.first = c;
        lanes.end = c + 1;
    }
    return lanes;
}

#if CELL_TILES
#include "prefill_pipeline.inc.h"
#else
/* Scores of one step after the other; those of vectors that see nothing of a step stay garbage till apply_rules(). */
static void score_span(const struct prefill_pass *pass, const struct prefill_span *span, struct key_block k, const struct prefill_ahead *ahead)
{
    const int keys = span->j1 - span->j0, size = span->a->few ? FEW_STEP : is_partial(span) ? EDGE_STEP : KEY_STEP;
    for (int x = 0; x < keys; x += size) {
        const int n = min_int(size, keys - x);
        const struct lanes lanes = lanes_of(span->a, span->j0 + x, span->j0 + x + n);
        prefetch_step(pass, ahead, ahead->k, x / size, (keys + size - 1) / size);
        prefetch_outputs(pass, ahead, span->a, x / size, (keys + size - 1) / size);
        prefetch_terms(pass, span, x / size, (keys + size - 1) / size);
        score_keys(span->a, &pass->work, lanes, k.data + x * k.step, k.step, x, n, pass->p->head_dim);
    }
}

/* End of the run of steps from key x on which the same vectors see something of; `whole`: all do. */
static int run_end(const struct prefill_span *span, int x, bool whole, struct lanes *same)
{
    const int keys = span->j1 - span->j0;
    int end = whole ? keys : min_int(x + EDGE_STEP, keys);
    *same = lanes_of(span->a, span->j0 + x, span->j0 + end);
    while (end < keys) {
        const int next = min_int(end + EDGE_STEP, keys);
        const struct lanes more = lanes_of(span->a, span->j0 + end, span->j0 + next);
        if (more.first != same->first || more.end != same->end) break;
        end = next;
    }
    return end;
}

/* Weighted values of runs of steps with the same vectors. A vector is rescaled by the first run that holds it. */
static void value_span(const struct prefill_pass *pass, const struct prefill_span *span, struct key_block v, const struct prefill_ahead *ahead)
{
    const struct panel *a = span->a;
    const int keys = span->j1 - span->j0, dim = pass->p->v_head_dim, size = a->few ? FEW_DIMS : DIM_STEP;
    const bool whole = !is_partial(span) || a->few;
    for (int x = 0, end; x < keys; x = end) {
        struct lanes some;
        end = run_end(span, x, whole, &some);
        for (int d = 0; d < dim; d += size) {
            if (x == 0) {
                prefetch_step(pass, ahead, ahead->v, d / size, (dim + size - 1) / size);
                prefetch_queries(pass, ahead, d / size, (dim + size - 1) / size);
            }
            value_dims(a, &pass->work, some, values_from(v, x).data, v.step, x, end - x, d, min_int(size, dim - d));
        }
        for (int c = some.first; c < some.end; c++) vstore(pass->work.fade + c * VW, vset1(1));
    }
}

static void attend_block(struct prefill_pass *pass, const struct prefill_span *span, struct key_block k, struct key_block v, bool finite,
                         const struct prefill_ahead *ahead)
{
    const struct panel *a = span->a;
    const struct panel_work *w = &pass->work;
    const int keys = span->j1 - span->j0;
    memcpy(w->top, a->m, sizeof(float) * (size_t)a->width);
    score_span(pass, span, k, ahead);
    apply_terms(pass, span);
    if (finite) {
        if (a->few)
            softmax_half(a, w, keys);
        else
            softmax_block(a, w, keys);
        value_span(pass, span, v, ahead);
    } else {
        softmax_block_mark(a, w, keys);
        value_select(a, w, v.data, v.step, keys, pass->p->v_head_dim);
    }
    if (MUTANT(cpu_prefill_f16_accumulator))
        for (int d = 0; d < pass->p->v_head_dim * a->width; d++) a->o[d] = f16_to_f32(f32_to_f16(a->o[d]));
}

#endif

/* Is the next block worth fetching? To be copied, or rows on memory pages of their own that come from far away or from another head; narrow panels, with
 * less work per line, do not wait for the next cache either. */
static bool fetches(const struct prefill_pass *pass, const struct prefill_ahead *ahead, const struct key_source *from, const float *data)
{
    return data == from->copy || (from->rows->token > 1024 && (pass->far || ahead->queries || VW < 16));
}

/* The next block of the same keys; behind the last one what the next item begins with. */
static struct prefill_ahead look_ahead(const struct prefill_pass *pass, int32_t j1, int32_t end, const struct work_item *next)
{
    struct prefill_ahead ahead = {.b = pass->b, .g = pass->g, .j0 = j1, .j1 = min_int(j1 + PANEL_KEYS, end), .turns = 1};
    if (ahead.j0 < ahead.j1 || !next) return ahead;
    ahead.queries = next;
    if (next->sequence == pass->b && next->head == pass->g) return ahead;
    ahead.b = next->sequence;
    ahead.g = next->head;
    ahead.j0 = next->kv_begin / PANEL_KEYS * PANEL_KEYS;
    ahead.j1 = min_int(ahead.j0 + PANEL_KEYS, next->kv_end);
    return ahead;
}

/* rows[n] = row n of a block in f32. */
static void point_into(const unsigned char **rows, struct key_block block, int count)
{
    for (int n = 0; n < count; n++) rows[n] = (const unsigned char *)(block.data + n * block.step);
}

/* Addresses of rows `ahead` behind those of a block, which has `count`; where they are fewer the last one again. */
static void find_ahead(struct prefill_pass *pass, const struct key_source *from, const struct prefill_ahead *ahead, const unsigned char **rows, int count)
{
    find_block(pass->call, from, ahead->b, ahead->g, ahead->j0, ahead->j1, rows + count);
    for (int n = count + (ahead->j1 - ahead->j0); n < 2 * PANEL_KEYS; n++) rows[n] = rows[n - 1];
}

/* Where panels of few rows find keys [j0, j1): in the copies that others read too, or where they lie; there they also fetch what is `ahead`. */
static void find_rows_of(struct prefill_pass *pass, struct key_block k, struct key_block v, int32_t j0, int32_t j1, const struct prefill_ahead *ahead)
{
    pass->work.k_type = pass->direct ? pass->p->k_type : HEED_F32;
    pass->work.v_type = pass->direct ? pass->p->v_type : HEED_F32;
    pass->work.ahead = pass->direct && ahead->j0 < ahead->j1 ? j1 - j0 : 0;
    if (!pass->direct) {
        point_into(pass->k_rows, k, j1 - j0);
        point_into(pass->v_rows, v, j1 - j0);
        return;
    }
    find_block(pass->call, &pass->k, pass->b, pass->g, j0, j1, pass->k_rows);
    find_block(pass->call, &pass->v, pass->b, pass->g, j0, j1, pass->v_rows);
    if (!pass->work.ahead) return;
    find_ahead(pass, &pass->k, ahead, pass->k_rows, j1 - j0);
    find_ahead(pass, &pass->v, ahead, pass->v_rows, j1 - j0);
}

/* One block of keys for all panels that see some of it. */
static void walk_block(struct prefill_pass *pass, int32_t block, int32_t end, const struct work_item *next)
{
    struct prefill_span span[PASS_PANELS];
    int32_t j0 = INT32_MAX, j1 = 0;
    int turns = 0;
    for (int n = 0; n < pass->panels; n++) {
        span[n] = span_of(&pass->panel[n], block);
        if (span[n].j0 >= span[n].j1) continue;
        if (span[n].j0 < j0) j0 = span[n].j0;
        if (span[n].j1 > j1) j1 = span[n].j1;
        turns++;
    }
    if (j0 >= j1) return;
    struct key_block k = {pass->k.copy, pass->k.copy_step}, v = {pass->v.copy, pass->v.copy_step};
    if (!pass->direct) {
        k = load_keys(pass->call, &pass->k, pass->b, pass->g, j0, j1);
        v = load_values(pass->call, &pass->v, pass->b, pass->g, j0, j1);
    }
    const bool finite = !pass->careful || block_is_finite(v, j1 - j0, pass->p->v_head_dim);
    struct prefill_ahead ahead = look_ahead(pass, j1, end, next);
    ahead.turns = turns;
    ahead.outputs = j1 == end && pass->many;
    if (pass->panel[pass->panels - 1].few) find_rows_of(pass, k, v, j0, j1, &ahead);
    if (ahead.j0 < ahead.j1 && !pass->direct) {
        if (fetches(pass, &ahead, &pass->k, k.data)) ahead.k = &pass->k;
        if (fetches(pass, &ahead, &pass->v, v.data)) ahead.v = &pass->v;
    }
#if CELL_TILES
    attend_panels(pass, span, k, v, j0, finite, &ahead);
#else
    for (int n = 0; n < pass->panels; n++) {
        if (span[n].j0 >= span[n].j1) continue;
        const ptrdiff_t skip = span[n].j0 - j0;
        pass->work.k_rows = pass->k_rows + skip;
        pass->work.v_rows = pass->v_rows + skip;
        attend_block(pass, &span[n], (struct key_block){k.data + skip * k.step, k.step}, values_from(v, skip), finite, &ahead);
        ahead.turn++;
    }
#endif
}

/* ---- the item ------------------------------------------------------------- */

/* What this worker most often does next; NULL at the end of the list, and where keys and values are so few that they lie in a core's cache anyway. */
static const struct work_item *item_behind(const struct heed_batch *batch, const struct work_item *item)
{
    const struct problem *p = &batch->plan->problem;
    const double row_bytes = (double)(type_row_bytes(p->k_type, p->head_dim) + type_row_bytes(p->v_type, p->v_head_dim));
    if (row_bytes * batch->kv_len_max * p->kv_heads * batch->batch < CACHED_BYTES) return NULL;
    for (int kind = 0; kind < 2; kind++) {
        const struct work_list *list = &batch->work[kind];
        if (item >= list->items && item + 1 < list->items + list->count) return item + 1;
    }
    return NULL;
}

/* Is every number of o finite? Then so was every value that a hidden key may have brought into it. */
static bool outputs_are_finite(const struct prefill_pass *pass)
{
    const vf zero = vset1(0);
    vf sum[4] = {zero, zero, zero, zero};
    for (int n = 0; n < pass->panels; n++) {
        const struct panel *a = &pass->panel[n];
        const ptrdiff_t count = a->few ? a->rows * a->few : (ptrdiff_t)pass->p->v_head_dim * a->width;
        ptrdiff_t i = 0;
        for (; i + 4 * VW <= count; i += 4 * VW) UNROLL for (int u = 0; u < 4; u++) sum[u] = vfma(vload(a->o + i + u * VW), zero, sum[u]);
        for (; i < count; i += VW) sum[0] = vfma(vload(a->o + i), zero, sum[0]);
    }
    const vf all = vadd(vadd(sum[0], sum[1]), vadd(sum[2], sum[3]));
    return !vany(vne(all, all));
}

/* Rows first ... of the item against all keys; nothing is written yet. */
static void walk_pass(struct prefill_pass *pass, const struct work_item *item, int32_t first, int rows, const struct work_item *next)
{
    start_pass(pass, item, first, rows);
    int32_t begin = INT32_MAX, end = 0;
    for (int n = 0; n < pass->panels; n++) {
        if (pass->panel[n].begin_min < begin) begin = pass->panel[n].begin_min;
        if (pass->panel[n].end_max > end) end = pass->panel[n].end_max;
    }
    if (MUTANT(cpu_prefill_first_block) && begin > 0 && end > 0) begin += PANEL_KEYS;
    for (int32_t block = begin / PANEL_KEYS * PANEL_KEYS; block < end; block += PANEL_KEYS) walk_block(pass, block, end, next);
    for (int n = 0; CELL_TILES && n < pass->panels; n++)
        if (!pass->panel[n].begun) clear_outputs(&pass->panel[n], pass->p->v_head_dim); /* it sees nothing */
}

static void prefill_item(const struct call *call, const struct work_item *item, void *scratch)
{
    const struct problem *p = &call->plan->problem;
    struct prefill_pass pass; /* sixteen kilobytes, with tiles twice as many, filled as far as there are rows: to clear them all is felt by small problems */
    pass.call = call;
    pass.p = p;
    pass.s = &call->batch->sequences[item->sequence];
    pass.b = item->sequence;
    pass.g = item->head;
    pass.mask[0] = pass.bias[0] = NULL;
    pass.k = (struct key_source){.rows = &call->k, .scales = &call->k_scale, .type = p->k_type, .dim = p->head_dim, .whole_rows = true};
    pass.v = (struct key_source){.rows = &call->v, .scales = &call->v_scale, .type = p->v_type, .dim = p->v_head_dim};
    place_pass(&pass, scratch);
    pass.work.scale = p->scale;
    vtiles_begin();
    const int32_t rows = (item->q_end - item->q_begin) * p->group;
    const double row_bytes = (double)(type_row_bytes(p->k_type, p->head_dim) + type_row_bytes(p->v_type, p->v_head_dim));
    const bool floats = p->k_type <= HEED_BF16 && p->v_type <= HEED_BF16;
    for (int32_t first = 0; first < rows; first += PASS_ROWS) {
        pass.far = (first == 0 && item->q_end == pass.s->q_len) || row_bytes * (item->kv_end - item->kv_begin) > 2 * CACHED_BYTES;
        const int count = min_int(PASS_ROWS, rows - first);
        const struct work_item *behind = item_behind(call->batch, item), *next = first + PASS_ROWS < rows ? NULL : behind;
        pass.many = behind != NULL;
        pass.direct = floats && count <= FEW_MOST && p->v_head_dim >= VW;
        pass.careful = false;
        walk_pass(&pass, item, first, count, next);
        if (!outputs_are_finite(&pass) && !MUTANT(cpu_prefill_hidden_values)) { /* rare: once more, with an eye on each block */
            pass.direct = false;
            pass.careful = true;
            walk_pass(&pass, item, first, count, next);
        }
        for (int n = 0; n < pass.panels; n++)
            for (int c = 0; c < pass.panel[n].width; c += VW)
                if (item->part >= 0)
                    leave_vector(&pass, &pass.panel[n], (int64_t)item->part + first, c);
                else
                    finish_vector(&pass, &pass.panel[n], c);
    }
    vtiles_end();
}

static const struct cpu_kernel prefill_kernel = {.item = prefill_item, .merge_parts = merge_parts_rows, .scratch = prefill_scratch};

static const char *prefill_group_fits(const struct problem *p, char *text, size_t capacity)
{
    if (p->group >= 4) return NULL;
    snprintf(text, capacity, "%d query heads per KV head, wants 4 or more", p->group);
    return text;
}

/* Also a row for decode steps, behind the decode rows: HEED_INVARIANT wants one order of arithmetic for both, and this one has it. */
#define PREFILL_ROW(isa, need, name_end, tile, fits_, ...)                                                                           \
    {                                                                                                                               \
        .name = "cpu." isa ".prefill" name_end, .kinds = KIND_BIT(KIND_PREFILL) | KIND_BIT(KIND_DECODE), .needs = need,                \
        .features = FEATURES_ALL, .o_types = TYPES_FLOAT, .dim_limit = MAX_HEAD_DIM, .fits = fits_,               \
        .q_tile = tile, .q_tile_few = (tile) / 2, .short_chunk = PREFILL_CHUNK, .short_rows = CELL_TILES ? 128 : 256,                \
        .full_rows = VW == 16 ? VW : 0,                                                                                             \
        .step_rows = CELL_TILES ? 8 : 0, .steps_in_order = CELL_TILES, .packs_group = true, .cpu = &prefill_kernel, __VA_ARGS__        \
    }
#define PREFILL_ARITHMETIC                                                                                                          \
    .dot_lanes = 1, .add_roundings = CELL_ROUNDINGS, .together = CELL_TOGETHER, .rescale_block = RESCALE_KEYS, .above = ABOVE, .exp_roundings = 1,           \
    .tanh_ulp = TANH_ULP, .log_ulp = 1, .div_roundings = CELL_TILES ? 2 : 1
#define PREFILL_FLOATS                                                                                                              \
    .order = VEC_FUSED ? ORDER_PANEL : ORDER_PANEL_UNFUSED, .q_types = TYPES_FLOAT, .k_types = TYPES_ALL, .v_types = TYPES_ALL, .arithmetic = {PREFILL_ARITHMETIC, .exp_ulp = EXP_ULP}
/* vdpbf16ps, TDPBF16PS and BFDOT take bf16 and f32 that are denormal for 0; weights meet V as bf16. */
#define PREFILL_PAIRS                                                                                                               \
    .order = CELL_TILES ? ORDER_PANEL_TILES : ORDER_PANEL_BF16, .q_types = TYPE_BIT(HEED_BF16), .k_types = TYPE_BIT(HEED_BF16), .v_types = TYPE_BIT(HEED_BF16),         \
    .arithmetic = {PREFILL_ARITHMETIC, .exp_ulp = EXP_NEAR_ULP, .weight_type = HEED_BF16, .flushes = true}
#if CELL == 1
#define PREFILL_COLUMNS PREFILL_FLOATS
#else
#define PREFILL_COLUMNS PREFILL_PAIRS
#endif
/* Queries per item: PASS_ROWS rows or a few times that. The second row serves every group; with large groups its items would be few and long. */
#define PREFILL_ROWS(isa, need)                                                                                                     \
    PREFILL_ROW(isa, need, ".grouped", PASS_ROWS / 4, prefill_group_fits, PREFILL_COLUMNS), PREFILL_ROW(isa, need, "", PASS_ROWS, NULL, PREFILL_COLUMNS)

#endif
