/* SPDX-License-Identifier: MIT
 * prefill_pipeline.inc.h - template, part of prefill.inc.h where products go by tiles: the panels of a block one behind the other, in steps of TILE_SPAN keys,
 * so that the unit for tiles and the vector units work at the same time.
 *
 *     tiles:   s0 | s1    | s2    | s3    | ... | s5 o      | s6 o      |        s = K Q^T of a step, o += V^T P^T of some columns of the panel before
 *     vectors:    | p0    | p1    | p2    | ... | p4        | p5        |        p = e^(scale s - m)
 *
 * What is written and soon read again, two steps' scores and two panels' weights, stays in the nearest cache, beside the outputs of one panel.
 *
 * m is no maximum but a number that no score exceeds: where one does, m becomes that score and ABOVE more, and what was summed is multiplied, which is rare then.
 * (FlashAttention-4, Zadouri et al., rescales as rarely, with a maximum that scores may exceed; from above weights stay at most 1.) A row goes by its own scores
 * alone, and so do its bits.
 */
#ifndef HEED_PREFILL_PIPELINE_INC_H
#define HEED_PREFILL_PIPELINE_INC_H

#include "panel_weights.inc.h"

/* ---- the scores of a panel at once: for scores.inc.h ------------------------- */

/* Scores of one step after the other into p, as soon as the queue comes to them; those of vectors that see nothing of a step stay garbage till apply_rules(). */
static void queue_scores(const struct prefill_pass *pass, const struct prefill_span *span, struct key_block k, float *p)
{
    const int keys = span->j1 - span->j0, size = is_partial(span) ? EDGE_STEP : KEY_STEP;
    struct panel_work work = pass->work;
    work.p = p;
    for (int x = 0; x < keys; x += size) {
        const int n = min_int(size, keys - x);
        const struct lanes lanes = lanes_of(span->a, span->j0 + x, span->j0 + x + n);
        if (lanes.first < lanes.end) score_keys(span->a, &work, lanes, k.data + x * k.step, k.step, x, n, pass->p->head_dim);
    }
}

/* Scaled, and their maximum. */
static void score_span(const struct prefill_pass *pass, const struct prefill_span *span, struct key_block k, const struct prefill_ahead *ahead)
{
    queue_scores(pass, span, k, pass->work.p);
    prefetch_step(pass, ahead, ahead->k, 0, 1);
    tiles_finish(pass->work.queue);
    scale_scores(pass->work.p, span->a->width, span->j1 - span->j0, span->a->vectors, pass->work.scale, pass->work.top);
}

/* ---- a block ----------------------------------------------------------------- */

enum { STEP_FLOATS = TILE_SPAN * PANEL_ROWS, WEIGHT_FLOATS = PANEL_KEYS / CELL * PANEL_ROWS };
enum { SCRATCH_HAS_ROOM = 1 / (2 * (int)STEP_FLOATS + 2 * (int)WEIGHT_FLOATS <= (int)P_BUFFERS * (int)PANEL_KEYS * (int)PANEL_ROWS) }; /* else this does not compile */

/* A block of keys, from j0 on, and the panels that see some of it. */
struct tile_block {
    struct prefill_span *span[PASS_PANELS];
    int count;
    struct key_block k, v;
    int32_t j0;
    bool finite;        /* V */
    float *scores;      /* [2][TILE_SPAN][width] of this step and the next */
    float *weights;     /* [2][pairs of PANEL_KEYS][width] of this panel and the one before */
    int together;       /* keys whose weights meet V at once: so many that beside each step's scores one product waits, of about the same size */
};

/* Keys from x on, counted from the first of span n, of which the weights of keys [from, x) wait for V. */
struct tile_step { int n, x, from; };

static int span_keys(const struct tile_block *block, int n) { return block->span[n]->j1 - block->span[n]->j0; }

static struct prefill_span step_span(const struct tile_block *block, struct tile_step at)
{
    const struct prefill_span *span = block->span[at.n];
    return (struct prefill_span){.a = span->a, .j0 = span->j0 + at.x, .j1 = min_int(span->j0 + at.x + TILE_SPAN, span->j1)};
}

/* The scores of a step, and the largest of each row: looked for soon, while the processor has a product in hand, unless terms follow that find their own. */
struct step_scores {
    struct tile_product product;
    int keys;
    bool found;
    vf top[PANEL_VECTORS];
};

/* Of keys behind the last one, up to a whole tile, K is read too. */
static void expect_scores(const struct prefill_pass *pass, const struct tile_block *block, struct tile_step at, float *sums, struct step_scores *scores)
{
    const struct prefill_span step = step_span(block, at);
    scores->keys = step.j1 - step.j0;
    scores->found = false;
    scores->product = (struct tile_product){.left = block->k.data + (step.j0 - block->j0) * block->k.step, .step = block->k.step,
                                            .above = step.a->q, .width = step.a->width, .wide = step.a->vectors,
                                            .sums = sums, .cells = whole_cells(pass->p->head_dim), .high = scores->keys > TILE_ROWS ? 2 : 1};
}

/* By vector, as they are. */
static void find_tops(struct step_scores *scores)
{
    const struct tile_product *w = &scores->product;
    scores->found = true;
    for (int n = 0; n < w->wide; n++) scores->top[n] = top_score(w->sums + n * VW, w->width, scores->keys);
}

/* O^T += V^T P^T of the keys that wait, up to at.x; the first ones write O. */
static void queue_values(struct prefill_pass *pass, const struct tile_block *block, struct tile_step *at)
{
    const struct prefill_span *span = block->span[at->n];
    struct panel *a = &pass->panel[span->a - pass->panel];
    const int keys = at->x - at->from, dim = pass->p->v_head_dim;
    struct panel_work work = pass->work;
    struct key_block v = values_from(block->v, span->j0 - block->j0 + at->from);
    work.p = block->weights + (at->n & 1) * WEIGHT_FLOATS + at->from / CELL * a->width;
    work.fresh = !a->begun && block->finite;
    at->from = at->x;
    if (keys <= 0) return;
    if (MUTANT(cpu_tiles_fresh)) work.fresh = true;
    if (block->finite)
        value_dims(a, &work, (struct lanes){0, a->vectors}, v.data, v.step, 0, keys, 0, dim);
    else {
        if (!a->begun) clear_outputs(a, dim);
        value_select(a, &work, v.data, v.step, keys, dim);
    }
    a->begun = true;
}

/* m = top + ABOVE of rows that have seen nothing so far: what was summed, and waits, is zeros, so nobody has to wait for it. Rows of a panel may begin anywhere. */
static void begin_maximum(float *m, vf top)
{
    const vf old = vload(m), nothing = vset1(-INFINITY);
    vstore(m, vselect(vand(veq(old, nothing), vlt(old, top)), vadd(top, vset1(ABOVE)), old));
}

/* m' = top + ABOVE where top exceeds m, fade = e^(m - m'), l' = l fade, o' = o fade, which needs all that was weighed by m. */
static void raise_maximum(struct prefill_pass *pass, const struct tile_block *block, struct tile_step *at, const vf top[PANEL_VECTORS])
{
    struct panel *a = &pass->panel[block->span[at->n]->a - pass->panel];
    if (!MUTANT(cpu_tiles_flush)) queue_values(pass, block, at);
    tiles_finish(&pass->queue);
    for (int n = 0; n < a->vectors; n++) {
        const vf old = vload(a->m + n * VW), m = vselect(vlt(old, top[n]), vadd(top[n], vset1(ABOVE)), old);
        const vf fade = vexp(vsub(old, vmax(m, vset1(-FLT_MAX))));
        vstore(a->m + n * VW, m);
        vstore(a->l + n * VW, vmul(vload(a->l + n * VW), fade));
        vstore(pass->work.fade + n * VW, MUTANT(cpu_prefill_no_rescale) ? vset1(1) : fade);
    }
    if (a->begun) fade_outputs(a, &pass->work, pass->p->v_head_dim);
}

/* The end of the keys whose weights meet V together. */
static int values_end(const struct tile_block *block, struct tile_step at) { return min_int(at.from + block->together, span_keys(block, at.n)); }

/* What is to be fetched, a step's share. */
static void fetch_ahead(const struct prefill_pass *pass, const struct tile_block *block, struct tile_step at, const struct prefill_ahead *ahead)
{
    const int step = at.x / TILE_SPAN, steps = (span_keys(block, at.n) + TILE_SPAN - 1) / TILE_SPAN;
    prefetch_step(pass, ahead, ahead->k, step, steps);
    prefetch_step(pass, ahead, ahead->v, step, steps);
    prefetch_queries(pass, ahead, step, steps);
    prefetch_outputs(pass, ahead, block->span[at.n]->a, step, steps);
}

/* Products and weights side by side: the scores of the next step (NULL: none, or they are there), and so many of those that wait that none is left when others come. */
static void weigh_step(struct prefill_pass *pass, struct weighing *w, int vectors, int keys, bool mark, struct step_scores *next, int steps_left)
{
    struct tile_queue *queue = &pass->queue;
    const struct tile_product *beside[TILES_WAITING + 1];
    const int waiting = (int)(queue->end - queue->first), share = (waiting + steps_left - 1) / steps_left;
    int count = 0, cells = 0, fours = TILE_SPAN * vectors / 4;
    if (next) beside[count++] = &next->product;
    for (int n = 0; n < share; n++) beside[count++] = &queue->waiting[queue->first++ % TILES_WAITING];
    for (int n = 0; n < count; n++) cells += beside[n]->cells;
    if (keys < TILE_SPAN || mark) {
        for (int n = 0; n < count; n++) multiply_tiles(beside[n]);
        if (next) find_tops(next);
        weigh_keys(w, vectors, keys, mark);
        return;
    }
    for (int n = 0; n < count; n++) {
        const int part = fours * beside[n]->cells / cells;
        weigh_beside(w, vectors, part, beside[n]);
        if (n == 0 && next) find_tops(next);
        fours -= part;
        cells -= beside[n]->cells;
    }
    if (fours > 0) (vectors == 1 ? weigh_alone_1 : weigh_alone_2)(w, fours);
}

/* The weights of a step, whose scores are there. */
static void attend_step(struct prefill_pass *pass, const struct tile_block *block, struct tile_step *at, struct step_scores *scores, struct step_scores *next)
{
    const struct prefill_span step = step_span(block, *at);
    const struct panel *a = step.a;
    const int keys = scores->keys;
    float *const s = scores->product.sums;
    const bool first = has_terms(pass, &step) || !(pass->work.scale > 0); /* all scores are needed as they are, before the first weight */
    struct weighing w = {.s = s, .p = block->weights + (at->n & 1) * WEIGHT_FLOATS + at->x / CELL * a->width, .by = vset1(first ? 1 : pass->work.scale)};
    if (first) {
        pass->work.p = s;
        memcpy(pass->work.top, a->m, sizeof(float) * (size_t)a->width);
        if (next) multiply_tiles(&next->product); /* they go on while the rules begin */
        apply_rules(pass, &step, RULES_ALL, pass->work.scale);
    } else if (!scores->found) {
        find_tops(scores);
    }
    vf top[PANEL_VECTORS];
    bool rises = false;
    for (int n = 0; n < a->vectors; n++) {
        top[n] = first ? vload(pass->work.top + n * VW) : vmul(scores->top[n], w.by);
        begin_maximum(a->m + n * VW, top[n]);
        rises |= vany(vlt(vload(a->m + n * VW), top[n])) && !(MUTANT(cpu_tiles_never) && a->begun);
    }
    if (rises) raise_maximum(pass, block, at, top);
    for (int n = 0; n < a->vectors; n++) {
        w.m[n] = vmax(vload(a->m + n * VW), vset1(-FLT_MAX)); /* a row that has seen nothing keeps m = -infinity */
        w.l[n] = vload(a->l + n * VW);
    }
    weigh_step(pass, &w, a->vectors, keys, !block->finite, first ? NULL : next, (values_end(block, *at) - at->x + TILE_SPAN - 1) / TILE_SPAN);
    for (int n = 0; n < a->vectors; n++) vstore(a->l + n * VW, w.l[n]);
}

/* One block of keys, from j0 on, and all panels that see some of it. */
static void attend_panels(struct prefill_pass *pass, struct prefill_span *spans, struct key_block k, struct key_block v, int32_t j0, bool finite,
                          struct prefill_ahead *ahead)
{
    float *const scratch = pass->work.p;
    struct tile_block block = {.k = k, .v = v, .j0 = j0, .finite = finite, .scores = scratch, .weights = scratch + 2 * STEP_FLOATS,
                               .together = min_int(whole_cells(pass->p->v_head_dim) * CELL, PANEL_KEYS)};
    for (int n = 0; n < pass->panels; n++)
        if (spans[n].j0 < spans[n].j1) block.span[block.count++] = &spans[n];
    struct tile_step at = {0};
    struct step_scores scores[2];
    expect_scores(pass, &block, at, block.scores, &scores[0]);
    multiply_tiles(&scores[0].product);
    for (int turn = 0; at.n < block.count; turn++) {
        struct tile_step next = {at.n, at.x + TILE_SPAN, 0};
        const bool last = next.x >= span_keys(&block, at.n);
        if (last) next = (struct tile_step){at.n + 1, 0, 0};
        const bool more = next.n < block.count;
        if (more) expect_scores(pass, &block, next, block.scores + (~turn & 1) * STEP_FLOATS, &scores[~turn & 1]);
        fetch_ahead(pass, &block, at, ahead);
        if (more) {
            const struct prefill_span step = step_span(&block, next);
            prefetch_terms(pass, &step, 0, 1);
        }
        attend_step(pass, &block, &at, &scores[turn & 1], more ? &scores[~turn & 1] : NULL);
        if (at.x + TILE_SPAN >= values_end(&block, at)) {
            at.x = values_end(&block, at);
            queue_values(pass, &block, &at);
        }
        if (last)
            ahead->turn++;
        else
            next.from = at.from;
        at = next;
    }
    tiles_finish(&pass->queue);
    pass->work.p = scratch;
    if (MUTANT(cpu_prefill_f16_accumulator))
        for (int n = 0; n < block.count; n++) {
            const struct panel *a = block.span[n]->a;
            for (int d = 0; d < pass->p->v_head_dim * a->width; d++) a->o[d] = f16_to_f32(f32_to_f16(a->o[d]));
        }
}

#endif
