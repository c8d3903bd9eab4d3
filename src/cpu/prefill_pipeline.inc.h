/* SPDX-License-Identifier: MIT
 * prefill_pipeline.inc.h - template, part of prefill.inc.h where products go by tiles: the panels of a block one behind the other, so that the unit for
 * tiles and the vector units work at the same time.
 *
 *     tiles:   S0 | S1    | O0 S2 | O1 S3 | ...        S^T = K Q^T, O^T += V^T P^T of each panel
 *     vectors:    | p0 o0 | p1 o1 | p2 o2 | ...        p = e^(scale s - m), o = o fade
 *
 * Products wait in a queue, and the softmax takes one after every few keys; what the processor has not finished of it goes on beside the next keys.
 */
#ifndef HEED_PREFILL_PIPELINE_INC_H
#define HEED_PREFILL_PIPELINE_INC_H

/* Scores of one step after the other into p, as soon as the queue comes to them; those of vectors that see nothing of a step stay garbage till hide_by_position(). */
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

/* Weighted values of runs of steps with the same vectors. */
static void queue_values(const struct prefill_pass *pass, const struct prefill_span *span, struct key_block v, float *p)
{
    const int keys = span->j1 - span->j0;
    struct panel_work work = pass->work;
    work.p = p;
    work.fresh = span->fresh;
    const bool whole = !is_partial(span);
    for (int x = 0, end; x < keys; x = end) {
        struct lanes some;
        end = run_end(span, x, whole, &some);
        if (some.first < some.end) value_dims(span->a, &work, some, values_from(v, x).data, v.step, x, end - x, 0, pass->p->v_head_dim);
    }
}

/* The scores of a panel at once, scaled, and their maximum: for scores.inc.h. */
static void score_span(const struct prefill_pass *pass, const struct prefill_span *span, struct key_block k, const struct prefill_ahead *ahead)
{
    queue_scores(pass, span, k, pass->work.p);
    prefetch_step(pass, ahead, ahead->k, 0, 1);
    tiles_finish(pass->work.queue);
    scale_scores(pass->work.p, span->a->width, span->j1 - span->j0, span->a->vectors, pass->work.scale, pass->work.top);
}

/* ---- the softmax of a panel ------------------------------------------------ */

/* One vector of a panel: its scores, [key] `width` apart, are still to be multiplied by `by`; its weights take their place, pair by pair. */
struct weighing {
    const float *s;
    float *p;
    ptrdiff_t width;
    vf by, m, l;
};

/* The largest score. by > 0 and rounding keep the order, so it is multiplied afterwards. */
NOINLINE vf top_score(const float *s, ptrdiff_t width, int keys)
{
    vf top[4];
    UNROLL for (int n = 0; n < 4; n++) top[n] = vset1(-INFINITY);
    int j = 0;
    for (; j + 4 <= keys; j += 4, s += 4 * width) UNROLL for (int n = 0; n < 4; n++) top[n] = vmax(top[n], vload(s + n * width));
    for (; j < keys; j++, s += width) top[0] = vmax(top[0], vload(s));
    return vmax(vmax(top[0], top[1]), vmax(top[2], top[3]));
}

/* p = e^(s by - m), l += p, of the next `keys` keys, a multiple of 4. */
NOINLINE void weigh_fours(struct weighing *w, int keys, const bool mark)
{
    const float *s = w->s;
    float *p = w->p;
    vf l = w->l;
    for (int j = 0; j < keys; j += 4, s += 4 * w->width, p += 2 * w->width) {
        vf x[4], e[4];
        UNROLL for (int n = 0; n < 4; n++) x[n] = vmul(vload(s + n * w->width), w->by);
        weights_of_4(x, w->m, mark, e);
        UNROLL for (int n = 0; n < 4; n++) l = vadd(l, e[n]);
        vstore(p, vpack(e[0], e[1]));
        vstore(p + w->width, vpack(e[2], e[3]));
    }
    w->s = s;
    w->p = p;
    w->l = l;
}

/* The same of the last ones, fewer than 4, and weights of nothing up to whole steps: hidden keys. */
static void weigh_rest(struct weighing *w, int keys, int whole, const bool mark)
{
    const vf none = vset1(mark ? -0.0f : 0.0f);
    float *p = w->p;
    if (MUTANT(cpu_tiles_rest) && whole > keys + 1) whole = keys + 1;
    for (int j = 0; j < whole; j += 2, p += w->width) {
        const vf e = j < keys ? weight_of(vmul(vload(w->s + j * w->width), w->by), w->m, mark) : none;
        const vf f = j + 1 < keys && !(MUTANT(cpu_pairs_odd_key) && j + 3 > keys) ? weight_of(vmul(vload(w->s + (j + 1) * w->width), w->by), w->m, mark) : none;
        w->l = vadd(vadd(w->l, e), f);
        vstore(p, vpack(e, f));
    }
}

/* m' = max(m, s by), fade = e^(m - m'), p = e^(s by - m'), l' = l fade + sum p of vector c, as softmax_of() does it; with a product of tiles, and what is to be
 * fetched, after every step. top: the maximum if it is known, else NULL. */
static void weigh_vector(const struct prefill_pass *pass, const struct prefill_span *span, int c, float scale, const float *top, const bool mark,
                         const struct prefill_ahead *ahead)
{
    const struct panel *a = span->a;
    const struct panel_work *w = &pass->work;
    const int keys = span->j1 - span->j0, fours = keys / 4 * 4, steps = (keys + KEY_STEP - 1) / KEY_STEP;
    const vf by = vset1(scale), old = vload(a->m + c);
    const vf best = top ? vload(top + c) : vmax(old, vmul(top_score(w->p + c, a->width, keys), by)), m = vmax(best, vset1(-FLT_MAX)), fade = vexp(vsub(old, m));
    struct weighing at = {.s = w->p + c, .p = w->p + c, .width = a->width, .by = by, .m = m, .l = vmul(vload(a->l + c), fade)};
    for (int j = 0; j < fours; j += KEY_STEP) {
        const int step = c / VW * steps + j / KEY_STEP, all = a->vectors * steps;
        tiles_next(w->queue);
        prefetch_step(pass, ahead, ahead->k, step, all);
        prefetch_step(pass, ahead, ahead->v, step, all);
        prefetch_queries(pass, ahead, step, all);
        prefetch_outputs(pass, ahead, a, step, all);
        if (mark)
            weigh_fours(&at, min_int(KEY_STEP, fours - j), true);
        else
            weigh_fours(&at, min_int(KEY_STEP, fours - j), false);
    }
    weigh_rest(&at, keys - fours, whole_cells(keys) * CELL - fours, mark);
    vstore(a->m + c, best);
    vstore(a->l + c, at.l);
    vstore(w->fade + c, MUTANT(cpu_prefill_no_rescale) ? vset1(1) : fade);
}

static void weigh_panel(struct prefill_pass *pass, const struct prefill_span *span, bool mark, const struct prefill_ahead *ahead)
{
    const struct panel *a = span->a;
    const struct panel_work *w = &pass->work;
    const bool first = has_terms(pass, span) || !(w->scale > 0); /* all scores are needed as they are, before the first weight */
    if (first) {
        memcpy(w->top, a->m, sizeof(float) * (size_t)a->width);
        scale_scores(w->p, a->width, span->j1 - span->j0, a->vectors, w->scale, w->top);
        apply_terms(pass, span);
    }
    for (int c = 0; c < a->width; c += VW) weigh_vector(pass, span, c, first ? 1 : w->scale, first ? w->top : NULL, mark, ahead);
}

/* ---- a block ----------------------------------------------------------------- */

/* o = o fade. The first block writes O instead; or it adds to zeros, where not all vectors of the panel see all of it. */
static void fade_or_clear(struct prefill_pass *pass, struct prefill_span *span, bool finite)
{
    struct panel *a = &pass->panel[span->a - pass->panel];
    span->fresh = !a->begun && finite && (!is_partial(span) || MUTANT(cpu_tiles_fresh));
    if (a->begun)
        fade_outputs(a, &pass->work, pass->p->v_head_dim);
    else if (!span->fresh)
        clear_outputs(a, pass->p->v_head_dim);
    a->begun = true;
}

/* One block of keys, from j0 on, and all panels that see some of it. */
static void attend_panels(struct prefill_pass *pass, struct prefill_span *spans, struct key_block k, struct key_block v, int32_t j0, bool finite,
                          struct prefill_ahead *ahead)
{
    struct prefill_span *span[PASS_PANELS];
    float *const buffers = pass->work.p;
    int count = 0;
    for (int n = 0; n < pass->panels; n++)
        if (spans[n].j0 < spans[n].j1) span[count++] = &spans[n];
    for (int n = -1; n <= count; n++) {
        float *const own = buffers + (n & 1) * PANEL_KEYS * PANEL_ROWS, *const other = buffers + (~n & 1) * PANEL_KEYS * PANEL_ROWS;
        if (n > 0 && finite) queue_values(pass, span[n - 1], values_from(v, span[n - 1]->j0 - j0), other);
        if (n + 1 < count) queue_scores(pass, span[n + 1], (struct key_block){k.data + (span[n + 1]->j0 - j0) * k.step, k.step}, other);
        if (n >= 0 && n < count) {
            pass->work.p = own;
            weigh_panel(pass, span[n], !finite, ahead);
            fade_or_clear(pass, span[n], finite);
            ahead->turn++;
        }
        tiles_finish(&pass->queue);
        if (n < 0 || n == count) continue;
        if (!finite) value_select(span[n]->a, &pass->work, values_from(v, span[n]->j0 - j0).data, v.step, span[n]->j1 - span[n]->j0, pass->p->v_head_dim);
        if (MUTANT(cpu_prefill_f16_accumulator))
            for (int d = 0; d < pass->p->v_head_dim * span[n]->a->width; d++) span[n]->a->o[d] = f16_to_f32(f32_to_f16(span[n]->a->o[d]));
    }
    pass->work.p = buffers;
}

#endif
