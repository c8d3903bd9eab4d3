/* SPDX-License-Identifier: MIT
 * prefill_terms.inc.h - template: from scale * q.k to logits: bias, softcap, ALiBi, and who sees what. Works on the scores of one panel and
 * one block, [key][row], after the products; each step is a loop of its own over them. A hidden key gets -infinity by selection, so that
 * whatever its score was (NaN) is gone.
 */
#ifndef HEED_PREFILL_TERMS_INC_H
#define HEED_PREFILL_TERMS_INC_H

#include "prefill_block.inc.h"

/* What a pass prepares of K and V, and fetches, is shared by its rows. With tiles, which are done with a block sooner, by more of them. */
enum { PASS_ROWS = CELL_TILES ? 512 : 256, PASS_PANELS = PASS_ROWS / PANEL_ROWS };

/* At most PASS_ROWS query rows of one KV head's group. Row r is query q_begin + r / group, head g * group + r % group. */
struct prefill_pass {
    const struct call *call;
    const struct problem *p;
    const struct sequence *s;
    int32_t b, g;
    int rows, panels;
    struct panel panel[PASS_PANELS];
    struct panel_work work;
    struct key_source k, v;
#if CELL_TILES
    struct tile_queue queue;
#endif
    const unsigned char *k_rows[2 * PANEL_KEYS], *v_rows[2 * PANEL_KEYS]; /* of the block's keys and the next, for panels of few rows */
    bool direct;         /* these lie in the caller's memory */
    bool far;            /* the first of those that read these keys, or the keys are many: they come from outside of a core's own cache */
    bool many;           /* other items follow, and all keys together are more than a core's own cache holds: so are the outputs */
    bool careful;        /* blocks are looked through for values that are NaN or infinite: weights of hidden keys are marked there */
    int32_t query[PASS_ROWS], head[PASS_ROWS];
    int32_t begin[PASS_ROWS], end[PASS_ROWS];   /* keys visible by position and key range; rows that do not exist: 0, INT32_MAX */
    int64_t own[PASS_ROWS];                     /* index of the key at the row's own position */
    float slope[PASS_ROWS];
    const unsigned char *mask[PASS_ROWS], *bias[PASS_ROWS];
};

/* Keys [j0, j1) of a panel; scores stand at work.p + (j - j0) * width. */
struct prefill_span {
    const struct panel *a;
    int32_t j0, j1;
};

/* Is some key of the span outside what some row may see by position and key range? */
static bool is_partial(const struct prefill_span *span)
{
    return span->a->begin_max > span->j0 || span->a->end_min < span->j1;
}

/* t[n] lane r = element j + n of row r's mask or bias, n < count <= VW, as f32. */
INLINE void load_columns(const struct prefill_pass *pass, const unsigned char *const *rows, bool bias, int32_t j, int count, vf t[VW])
{
    const uint64_t flags = pass->p->flags;
    for (int r = 0; r < VW; r++) {
        if (bias)
            t[r] = load_float(pass->p->bias_type, rows[r], j, count);
        else if (flags & HEED_MASK_BITS)
            t[r] = vload_bits_n(rows[r], j, count);
        else
            t[r] = vload_u8_n(rows[r] + j, count);
    }
    vtranspose(t);
}

/* s += bias; a bias of -infinity is kept for the end by hide_columns(). */
static void add_bias(const struct prefill_pass *pass, const struct prefill_span *span)
{
    const struct panel *a = span->a;
    for (int c = 0; c < a->width; c += VW)
        for (int32_t j = span->j0; j < span->j1; j += VW) {
            const int count = min_int(VW, span->j1 - j);
            float *p = pass->work.p + (size_t)(j - span->j0) * (size_t)a->width + c;
            vf t[VW];
            load_columns(pass, pass->bias + a->first + c, true, j, MUTANT(cpu_prefill_bias_padded) ? VW : count, t);
            for (int n = 0; n < count; n++, p += a->width) vstore(p, vadd(vload(p), t[n]));
        }
}

/* Hide where the mask is 0, or (bias) where it is -infinity. */
static void hide_columns(const struct prefill_pass *pass, const struct prefill_span *span, bool bias)
{
    const struct panel *a = span->a;
    const unsigned char *const *rows = bias ? pass->bias : pass->mask;
    const vf hides = vset1(bias ? -INFINITY : 0.0f);
    for (int c = 0; c < a->width; c += VW)
        for (int32_t j = span->j0; j < span->j1; j += VW) {
            const int count = min_int(VW, span->j1 - j);
            float *p = pass->work.p + (size_t)(j - span->j0) * (size_t)a->width + c;
            vf t[VW];
            load_columns(pass, rows + a->first + c, bias, j, count, t);
            for (int n = 0; n < count; n++, p += a->width) vstore(p, vselect(veq(t[n], hides), vset1(-INFINITY), vload(p)));
        }
}

/* s = c tanh(s / c) */
static void cap_scores(const struct prefill_pass *pass, const struct prefill_span *span)
{
    const vf cap = vset1(pass->p->softcap);
    float *p = pass->work.p, *end = p + (size_t)(span->j1 - span->j0) * (size_t)span->a->width;
    for (; p < end; p += VW) vstore(p, vmul(cap, vtanh(vdiv(vload(p), cap))));
}

/* s -= slope |p_i - r_j|. Distances below 2^24 are exact in f32; longer ones are rounded once from integers. */
static void add_alibi(const struct prefill_pass *pass, const struct prefill_span *span)
{
    const struct panel *a = span->a;
    float base[PANEL_ROWS] = {0}, slope[PANEL_ROWS] = {0}, far[VW];
    bool near = true;
    for (int r = 0; r < a->rows; r++) {
        const int64_t d = pass->own[a->first + r] - span->j0;
        if (d > 0xffff00 || d < -0xffff00) near = false;
        base[r] = (float)d;
        slope[r] = -pass->slope[a->first + r];
    }
    for (int c = 0; c < a->width; c += VW) {
        const vf own = vload(base + c), by = vload(slope + c);
        float *p = pass->work.p + c;
        for (int32_t j = span->j0; j < span->j1; j++, p += a->width) {
            vf distance = vabs(vsub(own, vset1((float)(j - span->j0))));
            if (!near) {
                for (int r = 0; r < VW; r++) {
                    const int64_t d = c + r < a->rows ? pass->own[a->first + c + r] - j : 0;
                    far[r] = (float)(d < 0 ? -d : d);
                }
                distance = vload(far);
            }
            vstore(p, vfma(distance, by, vload(p)));
        }
    }
}

/* Hide what lies outside [begin, end) of the row. */
static void hide_by_position(const struct prefill_pass *pass, const struct prefill_span *span)
{
    const struct panel *a = span->a;
    float low[PANEL_ROWS], high[PANEL_ROWS];
    for (int r = 0; r < a->width; r++) {
        const int64_t begin = (int64_t)pass->begin[a->first + r] - span->j0, end = (int64_t)pass->end[a->first + r] - span->j0;
        low[r] = begin < 0 ? 0.0f : begin > PANEL_KEYS ? PANEL_KEYS : (float)begin;
        high[r] = end < 0 ? 0.0f : end > PANEL_KEYS ? PANEL_KEYS : (float)end;
        if (MUTANT(cpu_prefill_range_end) && high[r] > 0 && high[r] < PANEL_KEYS) high[r] += 1;
    }
    for (int c = 0; c < a->width; c += VW) {
        const vf from = vload(low + c), to = vload(high + c);
        float *p = pass->work.p + c;
        for (int32_t j = span->j0; j < span->j1; j++, p += a->width) {
            const vf x = vset1((float)(j - span->j0));
            vstore(p, vselect(vand(vge(x, from), vlt(x, to)), vload(p), vset1(-INFINITY)));
        }
    }
}

/* Is something added to the scores of a span, or hidden? */
static bool has_terms(const struct prefill_pass *pass, const struct prefill_span *span)
{
    const uint64_t any = HEED_MASK_BOOL | HEED_MASK_BITS | HEED_BIAS | HEED_ALIBI;
    return is_partial(span) || pass->p->flags & any || pass->p->softcap > 0;
}

/* Rules 2 to 5 of doc/semantics.md, section 1, and the maximum. Does nothing where all rows see all keys and nothing is added. */
static void apply_terms(const struct prefill_pass *pass, const struct prefill_span *span)
{
    const struct panel *a = span->a;
    const uint64_t flags = pass->p->flags;
    const bool mask = flags & (HEED_MASK_BOOL | HEED_MASK_BITS), bias = flags & HEED_BIAS, first = flags & HEED_BIAS_FIRST;
    if (!has_terms(pass, span)) return;
    if (bias && first) add_bias(pass, span);
    if (pass->p->softcap > 0) cap_scores(pass, span);
    if (flags & HEED_ALIBI) add_alibi(pass, span);
    if (bias && !first) add_bias(pass, span);
    if (bias && !MUTANT(cpu_prefill_bias_shows)) hide_columns(pass, span, true);
    if (mask && !MUTANT(cpu_prefill_no_mask)) hide_columns(pass, span, false);
    if (is_partial(span)) hide_by_position(pass, span);
    if (MUTANT(cpu_prefill_softcap_after_mask) && pass->p->softcap > 0) cap_scores(pass, span);
    panel_top(a, &pass->work, span->j1 - span->j0);
}

#endif
