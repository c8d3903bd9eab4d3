/* SPDX-License-Identifier: MIT
 * prefill_terms.inc.h - template: from scale * q.k to logits: bias, softcap, ALiBi, and who sees what. Works on the scores of one panel and
 * one block, [key][row], after the products, in one loop: a score is loaded once, whatever is done to it. A hidden key gets -infinity by selection, so
 * that whatever its score was (NaN) is gone.
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

/* Which of rules 2 to 5 of doc/semantics.md, section 1: up to the softcap; behind it; all of them. */
enum logit_rules { RULES_TO_CAP = 1, RULES_BEHIND_CAP = 2, RULES_ALL = 3 };

/* What a span needs of them, and their numbers by row of the panel. */
struct logit_terms {
    bool bias_first, cap, alibi, bias, bias_adds, mask, partial; /* bias: -infinity hides */
    bool near;                                 /* distances are below 2^24, exact in f32; longer ones are rounded once from integers */
    float own[PANEL_ROWS], slope[PANEL_ROWS];  /* from the span's first key to the row's own; of ALiBi, negated */
    float low[PANEL_ROWS], high[PANEL_ROWS];   /* keys that the row may see by position and key range, from the span's first key on */
};

static void find_distances_of(const struct prefill_pass *pass, const struct prefill_span *span, struct logit_terms *t)
{
    const struct panel *a = span->a;
    for (int r = 0; r < a->width; r++) {
        const int64_t d = r < a->rows ? pass->own[a->first + r] - span->j0 : 0;
        if (d > 0xffff00 || d < -0xffff00) t->near = false;
        t->own[r] = (float)d;
        t->slope[r] = r < a->rows ? -pass->slope[a->first + r] : 0;
    }
}

static void find_visible(const struct prefill_pass *pass, const struct prefill_span *span, struct logit_terms *t)
{
    const struct panel *a = span->a;
    for (int r = 0; r < a->width; r++) {
        const int64_t begin = (int64_t)pass->begin[a->first + r] - span->j0, end = (int64_t)pass->end[a->first + r] - span->j0;
        t->low[r] = begin < 0 ? 0.0f : begin > PANEL_KEYS ? PANEL_KEYS : (float)begin;
        t->high[r] = end < 0 ? 0.0f : end > PANEL_KEYS ? PANEL_KEYS : (float)end;
        if (MUTANT(cpu_prefill_range_end) && t->high[r] > 0 && t->high[r] < PANEL_KEYS) t->high[r] += 1;
    }
}

static void find_terms(const struct prefill_pass *pass, const struct prefill_span *span, enum logit_rules rules, struct logit_terms *t)
{
    const uint64_t flags = pass->p->flags;
    const bool behind = rules & RULES_BEHIND_CAP, to_cap = rules & RULES_TO_CAP;
    t->bias_first = to_cap && (flags & HEED_BIAS) && (flags & HEED_BIAS_FIRST);
    t->cap = to_cap && pass->p->softcap > 0;
    t->alibi = behind && (flags & HEED_ALIBI);
    t->bias = behind && (flags & HEED_BIAS);
    t->bias_adds = t->bias && !(flags & HEED_BIAS_FIRST);
    t->mask = behind && (flags & (HEED_MASK_BOOL | HEED_MASK_BITS)) && !MUTANT(cpu_prefill_no_mask);
    t->partial = behind && is_partial(span);
    t->near = true;
    if (t->alibi) find_distances_of(pass, span, t);
    if (t->partial) find_visible(pass, span, t);
}

/* |p_i - r_j| of key j and the rows from c on, where they are long. */
NOINLINE vf far_distance(const struct prefill_pass *pass, const struct panel *a, int c, int32_t j)
{
    float far[VW];
    for (int r = 0; r < VW; r++) {
        const int64_t d = c + r < a->rows ? pass->own[a->first + c + r] - j : 0;
        far[r] = (float)(d < 0 ? -d : d);
    }
    return vload(far);
}

/* Of rows c ... c + VW - 1 and VW keys: what is added, lane r of bias[n] for key n, and what is seen. */
struct term_columns {
    vf bias[VW];
    struct shown_keys shown;
    bool masked;
};

/* Keys j ... j + count - 1. */
INLINE void load_columns(const struct prefill_pass *pass, const struct prefill_span *span, const struct logit_terms *t, int c, int32_t j, int count,
                         struct term_columns *columns)
{
    const int row = span->a->first + c;
    if (t->bias || t->bias_first) load_across(pass->p->bias_type, pass->bias + row, j, MUTANT(cpu_prefill_bias_padded) ? VW : count, columns->bias);
    columns->masked = t->mask && !vload_shown(pass->mask + row, j, count, pass->p->flags & HEED_MASK_BITS, &columns->shown);
}

/* Logits of `count` keys from key n of the columns on, key x of the span, and of rows c ... c + VW - 1, from scores at p, times `by` with tiles:
 *     s += bias;   s = cap tanh(s / cap);   s -= slope distance;   s += bias;   -infinity where hidden
 * A bias of -infinity hides, whatever was added. Returns the largest, or top. */
INLINE vf logits_of(const struct prefill_pass *pass, const struct prefill_span *span, const struct logit_terms *t, const struct term_columns *columns, int c, int x,
                    int n, const int count, float by, float *p, vf top)
{
    const ptrdiff_t width = span->a->width;
    const vf nothing = vset1(-INFINITY), cap = vset1(pass->p->softcap), inverse = vset1(softcap_inverse(pass->p->softcap)), first = vset1((float)x);
    vf key[4], s[4];
    UNROLL for (int i = 0; i < count; i++) key[i] = vadd(first, vset1((float)i));
    UNROLL for (int i = 0; i < count; i++) s[i] = CELL_TILES ? vmul(vload(p + i * width), vset1(by)) : vload(p + i * width);
    if (t->bias_first) UNROLL for (int i = 0; i < count; i++) s[i] = vadd(s[i], columns->bias[n + i]);
    if (t->cap) {
        if (count == 4)
            vsoftcap_4(s, cap, inverse);
        else
            s[0] = vsoftcap(s[0], cap, inverse);
    }
    if (t->alibi)
        UNROLL for (int i = 0; i < count; i++) {
            const vf distance = t->near ? vabs(vsub(vload(t->own + c), key[i])) : far_distance(pass, span->a, c, span->j0 + x + i);
            s[i] = vfma(distance, vload(t->slope + c), s[i]);
        }
    if (t->bias)
        UNROLL for (int i = 0; i < count; i++) {
            const vf bias = columns->bias[n + i];
            if (t->bias_adds) s[i] = vadd(s[i], bias);
            if (!MUTANT(cpu_prefill_bias_shows)) s[i] = vselect(veq(bias, nothing), nothing, s[i]);
        }
    if (columns->masked) UNROLL for (int i = 0; i < count; i++) s[i] = vselect(vkey_shown(&columns->shown, n + i), s[i], nothing);
    if (t->partial)
        UNROLL for (int i = 0; i < count; i++)
            s[i] = vselect(vand(vge(key[i], vload(t->low + c)), vlt(key[i], vload(t->high + c))), s[i], nothing);
    if (MUTANT(cpu_prefill_softcap_after_mask) && t->cap) UNROLL for (int i = 0; i < count; i++) s[i] = vsoftcap(s[i], cap, inverse);
    UNROLL for (int i = 0; i < count; i++) vstore(p + i * width, s[i]);
    return count == 4 ? vmax(vmax(vmax(top, s[0]), s[1]), vmax(s[2], s[3])) : vmax(top, s[0]);
}

/* Scores of a span, times `by` with tiles, become logits; work.top becomes their maximum where that is larger. */
static void apply_rules(const struct prefill_pass *pass, const struct prefill_span *span, enum logit_rules rules, float by)
{
    const struct panel *a = span->a;
    struct logit_terms t;
    struct term_columns columns;
    find_terms(pass, span, rules, &t);
    columns.bias[0] = vset1(0); /* where VW is 1 compilers doubt that it is set */
    for (int c = 0; c < a->width; c += VW) {
        vf top = vload(pass->work.top + c);
        float *p = pass->work.p + c;
        for (int32_t j = span->j0; j < span->j1; j += VW) {
            const int count = min_int(VW, span->j1 - j), x = j - span->j0;
            int n = 0;
            load_columns(pass, span, &t, c, j, count, &columns);
            for (; n + 4 <= count; n += 4, p += 4 * a->width) top = logits_of(pass, span, &t, &columns, c, x + n, n, 4, by, p, top);
            for (; n < count; n++, p += a->width) top = logits_of(pass, span, &t, &columns, c, x + n, n, 1, by, p, top);
        }
        vstore(pass->work.top + c, top);
    }
}

/* Is something added to the scores of a span, or hidden? */
static bool has_terms(const struct prefill_pass *pass, const struct prefill_span *span)
{
    const uint64_t any = HEED_MASK_BOOL | HEED_MASK_BITS | HEED_BIAS | HEED_ALIBI;
    return is_partial(span) || pass->p->flags & any || pass->p->softcap > 0;
}

/* Does nothing where all rows see all keys and nothing is added; else the maximum, too, is taken anew. */
static void apply_terms(const struct prefill_pass *pass, const struct prefill_span *span)
{
    if (!has_terms(pass, span)) return;
    memcpy(pass->work.top, span->a->m, sizeof(float) * (size_t)span->a->width);
    apply_rules(pass, span, RULES_ALL, 1);
}

#endif
