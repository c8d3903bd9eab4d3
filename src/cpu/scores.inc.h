/* SPDX-License-Identifier: MIT
 * scores.inc.h - template: the pass over the scores, after attention: chosen query rows against all keys once more, without V and without a running
 * maximum, because attention kept each row's m and l. Products, terms and visibility are those of prefill.inc.h's panels.
 *
 *     p[j] = e^(s[j] - m) / l          scores[i][j] = s[j] of some stage, or p[j]          key_sums[j] = sum of p[j] over the queries
 *
 * An item is the group of a KV head (or every head, for one row of sums) and SCORES_KEYS keys. Sums are taken in one order, whatever the width of a vector:
 * query t, counted from the first chosen one, goes into partial sum t mod 16, in the order of t; the sixteen are added by the tree of lanes.inc.h; then
 * heads in order. Two ways lead there:
 *     many queries      a head at a time; lanes are queries, and each key has sixteen running lanes
 *     fewer than 16     whole heads side by side in a panel, so that few lanes idle; then lanes are keys
 * Key sums of a step of decode come a third way: its few rows score K where it lies, as decode.inc.h does and with its bits, because a panel would be half idle.
 */
#ifndef HEED_SCORES_INC_H
#define HEED_SCORES_INC_H

#include "decode.inc.h"
#include "prefill.inc.h"

enum { SCORES_BLOCKS = CELL == 1 ? 5 : 3, SCORES_KEYS = SCORES_BLOCKS * PANEL_KEYS, SCORES_FEW = 16 };

struct scores_pass {
    struct prefill_pass pass;
    struct problem keys_only;      /* the problem with a v_head_dim of 0: a panel then has no output */
    const struct work_item *part;  /* the item at work */
    bool sums;
    float shift[PASS_ROWS], inverse[PASS_ROWS]; /* m, and 1 / l; 0 for rows that do not exist */
    int32_t slot[PASS_ROWS];       /* place of the row's head in the scores tensor; -1: not written */
    float *rows;                   /* [PANEL_ROWS][PANEL_KEYS] one block of a panel, row by row */
    float *lanes;                  /* [SCORES_KEYS][16] partial sums of a head */
    float *own, *total;            /* [SCORES_KEYS] sums of a head, and of all heads */
};

static size_t scores_scratch(const struct problem *p, int32_t kv_len_max)
{
    enum { A_STEP_HAS_ROOM = 1 / ((int)SCORES_KEYS <= (int)DECODE_CHUNK) }; /* its keys stand where decode has its own; else this does not compile */
    struct problem keys_only = *p;
    keys_only.v_head_dim = 0;
    const size_t panels = prefill_scratch(&keys_only, kv_len_max) + (PANEL_ROWS * PANEL_KEYS + SCORES_KEYS * 18) * sizeof(float) + 4 * 64;
    const size_t step = decode_scratch(&keys_only, kv_len_max) + SCORES_KEYS * 2 * sizeof(float);
    return panels > step ? panels : step;
}

static void place_scores(struct scores_pass *w, void *scratch)
{
    float *next = scratch;
    w->lanes = take_floats(&next, SCORES_KEYS * 16);
    w->own = take_floats(&next, SCORES_KEYS);
    w->total = take_floats(&next, SCORES_KEYS);
    w->rows = take_floats(&next, PANEL_ROWS * PANEL_KEYS);
    place_pass(&w->pass, next);
}

/* ---- the rows of a pass ------------------------------------------------------- */

/* Row r of the pass: query i of head h. */
static void describe_scored(struct scores_pass *w, int r, int32_t h, int32_t i)
{
    struct prefill_pass *pass = &w->pass;
    const struct call *call = pass->call;
    const struct problem *p = pass->p;
    describe_query(pass, r, h, i);
    w->slot[r] = call->batch->head_slots ? call->batch->head_slots[h] : -1;
    w->shift[r] = 0;
    w->inverse[r] = 1;
    if (!(p->features & FEATURE_SUMS)) return;
    const float *kept = kept_sums(call, pass->s, h, i);
    w->shift[r] = kept[0] == -INFINITY ? 0 : kept[0];
    w->inverse[r] = kept[1] == 0 ? 1 : 1 / kept[1]; /* 0: it sees nothing, and every weight is 0 by selection */
    if (MUTANT(cpu_scores_no_sum)) w->inverse[r] = 1;
}

/* Panels of the rows that have been described. */
static void start_scored(struct scores_pass *w, int rows)
{
    struct prefill_pass *pass = &w->pass;
    pass->rows = rows;
    pass->panels = 0;
    for (int r = rows; r < (rows + VW - 1) / VW * VW; r++) {
        describe_no_row(pass, r);
        w->shift[r] = w->inverse[r] = 0;
    }
    for (int r = 0; r < rows; r += PANEL_ROWS) {
        struct panel *a = &pass->panel[pass->panels++];
        a->first = r;
        a->rows = min_int(PANEL_ROWS, rows - r);
        a->vectors = (a->rows + VW - 1) / VW;
        a->width = a->vectors * VW;
        a->few = a->rows <= SCORE_FEW_MOST;
        start_panel(pass, a);
    }
}

/* ---- one block of keys of one panel ------------------------------------------------ */

/* rows[r][n] = element n of row r, for what stands as [key][row] in the panel. */
static void turn_block(const struct scores_pass *w, const struct panel *a, int keys)
{
    for (int c = 0; c < a->width; c += VW)
        for (int n = 0; n < keys; n += VW) {
            const int count = min_int(VW, keys - n);
            vf t[VW];
            for (int k = 0; k < VW; k++) t[k] = vload(w->pass.work.p + (size_t)(k < count ? n + k : n) * (size_t)a->width + c);
            vtranspose(t);
            for (int r = 0; r < VW && c + r < a->rows; r++) store_floats(w->rows + (c + r) * PANEL_KEYS + n, t[r], count);
        }
}

/* Keys [j0, j1) of the rows that are written, from rows[][]; where < j0 or >= j1 of the block's own keys [block, end): `hidden`. */
static void write_block(const struct scores_pass *w, const struct panel *a, int32_t block, int32_t end, int32_t j0, int32_t j1, float hidden)
{
    for (int r = 0; r < a->rows; r++) {
        const int32_t slot = w->slot[a->first + r];
        if (slot < 0) continue;
        float *to = scored_row(w->pass.call, w->pass.b, slot, w->pass.query[a->first + r]);
        for (int32_t j = block; j < j0; j++) to[j] = hidden;
        memcpy(to + j0, w->rows + r * PANEL_KEYS, sizeof(float) * (size_t)(j1 - j0));
        for (int32_t j = j1; j < end; j++) to[j] = hidden;
        if (MUTANT(cpu_scores_spill) && end == w->pass.s->kv_len) to[end] = hidden;
    }
}

static bool writes_scores(const struct scores_pass *w, const struct panel *a)
{
    for (int r = 0; r < a->rows; r++)
        if (w->slot[a->first + r] >= 0) return true;
    return false;
}

/* p = e^(s - m) / l of VW lanes, 0 where hidden; also in rows whose m or l is NaN. */
INLINE vf probability(vf s, vf shift, vf inverse)
{
    return vselect(veq(s, vset1(-INFINITY)), vset1(0), vmul(vexp(vsub(s, shift)), inverse));
}

/* [key][row] in place, and the lanes of each key where a head goes alone: query t is lane t mod 16. first_t: of the panel's first row. */
NOINLINE void weigh_lanes(const struct scores_pass *w, const struct panel *a, int keys, int32_t first_t, float *lanes)
{
    float number[VW];
    for (int n = 0; n < VW; n++) number[n] = (float)n;
    for (int c = 0; c < a->width; c += VW) {
        const vf shift = vload(w->shift + a->first + c), inverse = vload(w->inverse + a->first + c);
        const vm there = vlt(vload(number), vset1((float)(a->rows - c))); /* lanes behind the last row: NaN of a hidden key may stand there */
        float *p = w->pass.work.p + c, *to = lanes + (first_t + c) % 16;
        for (int n = 0; n < keys; n++, p += a->width, to += 16) {
            const vf x = vselect(there, probability(vload(p), shift, inverse), vset1(0));
            vstore(p, x);
            if (w->sums) vstore(to, vadd(vload(to), x));
        }
    }
}

/* rows[r][key] of a panel of several heads. */
NOINLINE void weigh_rows(const struct scores_pass *w, const struct panel *a, int keys)
{
    for (int r = 0; r < a->rows; r++) {
        const vf shift = vset1(w->shift[a->first + r]), inverse = vset1(w->inverse[a->first + r]);
        float *p = w->rows + r * PANEL_KEYS;
        for (int n = 0; n < keys; n += VW) vstore(p + n, probability(vload(p + n), shift, inverse)); /* what lies behind keys is room in the row */
    }
}

/* The sixteen partial sums of a head with `count` < 16 rows at p: one row each, the others 0. */
static void sum_rows(const float *p, int count, int keys, float *to)
{
    for (int n = 0; n < keys; n += VW) {
        vf x[16], four[4];
        for (int t = 0; t < 16; t++) x[t] = t < count ? vload(p + t * PANEL_KEYS + n) : vset1(0);
        for (int k = 0; k < 4; k++) four[k] = vadd(vadd(x[4 * k], x[4 * k + 2]), vadd(x[4 * k + 1], x[4 * k + 3]));
        store_floats(to + n, vadd(vadd(four[0], four[1]), vadd(four[2], four[3])), min_int(VW, keys - n));
    }
}

/* Rules 2 to 5 with stages 0 to 2 written on the way. */
static void staged_terms(const struct scores_pass *w, const struct prefill_span *span, int32_t block, int32_t end)
{
    const struct prefill_pass *pass = &w->pass;
    const int stage = pass->p->scores_stage, keys = span->j1 - span->j0;
    if (stage == 0) turn_block(w, span->a, keys), write_block(w, span->a, block, end, span->j0, span->j1, 0);
    if (stage == 1) {
        apply_rules(pass, span, RULES_TO_CAP, 1);
        turn_block(w, span->a, keys), write_block(w, span->a, block, end, span->j0, span->j1, 0);
        apply_rules(pass, span, RULES_BEHIND_CAP, 1);
    } else {
        apply_terms(pass, span);
    }
    if (stage == 2) turn_block(w, span->a, keys), write_block(w, span->a, block, end, span->j0, span->j1, -INFINITY);
}

/* Keys of a block that the panel has to look at: what it may see; all of them where hidden ones are shown. */
static struct prefill_span scored_span(const struct scores_pass *w, const struct panel *a, int32_t block, int32_t end, bool writes)
{
    struct prefill_span span = span_of(a, block);
    if (writes && w->pass.p->scores_stage < 2) span.j0 = block, span.j1 = end;
    if (span.j1 > end) span.j1 = end;
    if (span.j0 >= span.j1) span.j0 = span.j1 = block; /* sees nothing here */
    return span;
}

/* Scores of the span by every vector, where vectors that see nothing of a step are written all the same. */
static void score_all(const struct prefill_pass *pass, const struct prefill_span *span, struct key_block k)
{
    const int keys = span->j1 - span->j0, size = span->a->few ? FEW_STEP : KEY_STEP;
    const struct lanes lanes = {0, span->a->vectors};
    for (int x = 0; x < keys; x += size) score_keys(span->a, &pass->work, lanes, k.data + x * k.step, k.step, x, min_int(size, keys - x), pass->p->head_dim);
}

/* One panel against one block: what it writes of the scores, and p of the span, as [key][row] or (flat) in rows[][]. */
static void score_panel(const struct scores_pass *w, const struct prefill_span *span, int32_t block, int32_t end, struct key_block k, bool writes,
                        bool flat, const struct prefill_ahead *ahead, int32_t first_t)
{
    const struct prefill_pass *pass = &w->pass;
    const struct panel *a = span->a;
    const int keys = span->j1 - span->j0, stage = pass->p->scores_stage;
    if (keys > 0) {
        memcpy(pass->work.top, a->m, sizeof(float) * (size_t)a->width);
        if (writes && stage < 2)
            score_all(pass, span, k);
        else
            score_span(pass, span, k, ahead);
    }
    if (writes && stage < 3)
        staged_terms(w, span, block, end);
    else if (keys > 0)
        apply_terms(pass, span);
    if (!w->sums && !(writes && stage == 3)) return;
    if (flat) {
        turn_block(w, a, keys);
        weigh_rows(w, a, keys);
    } else {
        weigh_lanes(w, a, keys, first_t, w->lanes + (size_t)(span->j0 - w->part->kv_begin) * 16);
        if (writes && stage == 3) turn_block(w, a, keys);
    }
    if (writes && stage == 3) write_block(w, a, block, end, span->j0, span->j1, 0);
}

/* ---- all keys of an item ------------------------------------------------------------ */

/* The panels of a pass against every block of the item; per_head > 0: flat, heads of so many rows each, whose sums go to to_sums(head). */
static void walk_scored(struct scores_pass *w, int32_t first_t, int per_head, int32_t first_head)
{
    struct prefill_pass *pass = &w->pass;
    const struct work_item *item = w->part;
    /* few rows, and nobody else, read K where it lies */
    const bool direct = CELL == 1 && pass->panels == 1 && pass->panel[0].few && pass->p->k_type <= HEED_BF16;
    pass->work.k_type = direct ? pass->p->k_type : HEED_F32;
    for (int32_t block = item->kv_begin; block < item->kv_end; block += PANEL_KEYS) {
        const int32_t end = min_int(block + PANEL_KEYS, item->kv_end), next = min_int(end + PANEL_KEYS, item->kv_end);
        struct prefill_ahead ahead = {.b = pass->b, .g = pass->g, .j0 = end, .j1 = next, .turns = 1};
        struct prefill_span span[PASS_PANELS];
        bool writes[PASS_PANELS];
        int32_t j0 = INT32_MAX, j1 = 0;
        for (int n = 0; n < pass->panels; n++) {
            writes[n] = writes_scores(w, &pass->panel[n]);
            span[n] = scored_span(w, &pass->panel[n], block, end, writes[n]);
            if (span[n].j0 == span[n].j1) continue;
            if (span[n].j0 < j0) j0 = span[n].j0;
            if (span[n].j1 > j1) j1 = span[n].j1;
        }
        struct key_block k = {pass->k.copy, pass->k.copy_step};
        if (j0 < j1 && direct) find_block(pass->call, &pass->k, pass->b, pass->g, j0, j1, pass->k_rows);
        if (j0 < j1 && !direct) k = load_keys(pass->call, &pass->k, pass->b, pass->g, j0, j1);
        if (pass->panel[pass->panels - 1].few && !direct) point_into(pass->k_rows, k, j0 < j1 ? j1 - j0 : 0);
        if (next > end && (k.data == pass->k.copy || pass->k.rows->token > 1024)) ahead.k = &pass->k;
        for (int n = 0; n < pass->panels; n++) {
            const bool none = span[n].j0 == span[n].j1;
            pass->work.k_rows = pass->k_rows + (none ? 0 : span[n].j0 - j0);
            const struct key_block own = {none ? NULL : k.data + (span[n].j0 - j0) * k.step, k.step};
            score_panel(w, &span[n], block, end, own, writes[n], per_head > 0, &ahead, first_t + pass->panel[n].first);
            if (!none) ahead.k = NULL;
            if (!w->sums || per_head == 0 || none) continue;
            const struct panel *a = &pass->panel[n];
            for (int r = 0; r < a->rows; r += per_head) {
                float *to = w->part->head < 0 ? w->total : key_sums_row(pass->call, pass->b, first_head + (a->first + r) / per_head) + item->kv_begin;
                sum_rows(w->rows + r * PANEL_KEYS, per_head, span[n].j1 - span[n].j0, w->own);
                to += span[n].j0 - item->kv_begin;
                for (int c = 0; c < span[n].j1 - span[n].j0; c++) to[c] += w->own[c];
            }
        }
    }
}

static void clear(float *to, int32_t count) { memset(to, 0, sizeof *to * (size_t)count); }

/* A head with many queries. */
static void score_long_head(struct scores_pass *w, int32_t h)
{
    const struct work_item *item = w->part;
    const int32_t keys = item->kv_end - item->kv_begin, rows = item->q_end - item->q_begin;
    if (w->sums) clear(w->lanes, keys * 16);
    for (int32_t first = 0; first < rows; first += PASS_ROWS) {
        const int count = min_int(PASS_ROWS, rows - first);
        for (int r = 0; r < count; r++) describe_scored(w, r, h, item->q_begin + first + r);
        start_scored(w, count);
        walk_scored(w, first, 0, h);
    }
    if (!w->sums) return;
    for (int32_t n = 0; n < keys; n += 16) { /* whole sixteens: what lies behind keys has room, and is garbage that nobody reads */
        vf x[16][LANE_VECTORS];
        float sixteen[16];
        for (int k = 0; k < 16; k++)
            for (int v = 0; v < LANE_VECTORS; v++) x[k][v] = vload(w->lanes + (n + k) * 16 + v * VW);
        vtree16(x, sixteen);
        memcpy(w->own + n, sixteen, sizeof sixteen);
    }
    float *to = item->head < 0 ? w->total : key_sums_row(w->pass.call, w->pass.b, h) + item->kv_begin;
    for (int32_t j = 0; j < keys; j++) to[j] += w->own[j];
}

/* Heads [begin, end) of few queries each, as many side by side as fit; no head is cut in two by a panel. */
static void score_short_heads(struct scores_pass *w, int32_t begin, int32_t end)
{
    const struct work_item *item = w->part;
    const int each = item->q_end - item->q_begin, at_once = PANEL_ROWS >= each ? PANEL_ROWS / each : 1;
    for (int32_t first = begin, next; first < end; first = next) {
        next = min_int(first + at_once, end);
        for (int32_t h = first, r = 0; h < next; h++)
            for (int32_t i = item->q_begin; i < item->q_end; i++, r++) describe_scored(w, r, h, i);
        start_scored(w, (next - first) * each);
        walk_scored(w, 0, each, first);
    }
}

static bool head_is_scored(const struct scores_pass *w, int32_t h)
{
    const int32_t *slots = w->pass.call->batch->head_slots;
    return w->sums || (slots && slots[h] >= 0);
}

/* The query heads of KV head g that are looked at, in order. */
static void score_group(struct scores_pass *w, int32_t g)
{
    const int32_t group = w->pass.p->group, queries = w->part->q_end - w->part->q_begin;
    w->pass.g = g;
    for (int32_t h = g * group; h < (g + 1) * group; h++) {
        if (!head_is_scored(w, h)) continue;
        if (queries >= SCORES_FEW || queries > PANEL_ROWS) {
            score_long_head(w, h);
            continue;
        }
        int32_t end = h + 1;
        while (end < (g + 1) * group && head_is_scored(w, end)) end++;
        if (queries > 0) score_short_heads(w, h, end);
        h = end - 1;
    }
}

/* ---- key sums of a step of decode --------------------------------------------------------- */

/* p of the item's keys in place of the dot products of row r; 0 where hidden. */
static void weigh_step_row(const struct decode_pass *pass, int32_t r)
{
    const float *kept = kept_sums(pass->call, pass->s, row_head(pass, r), row_query(pass, r));
    const vf shift = vset1(kept[0] == -INFINITY ? 0 : kept[0]), inverse = vset1(kept[1] == 0 || MUTANT(cpu_scores_step_no_sum) ? 1 : 1 / kept[1]);
    float *row = pass->p_rows + r * DECODE_CHUNK;
    uint64_t *visible = pass->visible + r * DECODE_WORDS;
    const int32_t begin = pass->lo & ~15, end = whole_lanes(pass->hi);
    if (pass->plain && sees_all(visible, begin, end)) plain_scores(pass, row, visible, begin, end);
    else full_scores(pass, row, visible, r, begin, end);
    for (int32_t n = begin; n < end; n += VW) vstore(row + n, probability(vload(row + n), shift, inverse));
}

/* to[key] += the sums of head n of the group over `queries` queries, rows n, n + group, ... of the pass: query t in partial sum t mod 16, then the tree of sum_rows. */
static void add_step_head(const struct decode_pass *pass, int32_t n, int32_t queries, float *to)
{
    const int32_t group = queries > 1 && !MUTANT(cpu_scores_step_heads) ? pass->p->group : 1;
    float sixteen[16];
    for (int32_t c = pass->lo; c < pass->hi; c++) {
        const float *p = pass->p_rows + n * DECODE_CHUNK + c;
        if (queries == 1) {
            to[c] += p[0];
            continue;
        }
        for (int32_t t = 0; t < 16; t++) sixteen[t] = t < queries ? p[t * group * DECODE_CHUNK] : 0;
        for (int32_t t = 16; t < queries; t++) sixteen[t % 16] += p[t * group * DECODE_CHUNK];
        to[c] += tree_of_16(sixteen);
    }
}

/* All heads of KV head g: 32 heads with one query, or all with few, at a time. */
static void sum_step_group(struct decode_pass *pass, const struct work_item *item, float *total)
{
    const struct problem *p = pass->p;
    const int32_t queries = item->q_end - item->q_begin, rows = queries * p->group;
    for (pass->first = 0; pass->first < rows; pass->first += DECODE_PASS_ROWS) {
        pass->rows = min_int(DECODE_PASS_ROWS, rows - pass->first);
        see(pass);
        if (pass->hi == 0) continue;
        find_rows(pass, &pass->call->k, pass->k_rows);
        pass->v_rows = pass->k_rows; /* nothing follows: the rows that are fetched at the end are at hand */
        if (pass->k_scaled) find_scales(pass, &pass->call->k_scale, pass->k_scales);
        load_queries(pass);
        score_rows(pass);
        for (int32_t r = 0; r < pass->rows; r++) weigh_step_row(pass, r);
        for (int32_t n = 0; n < (queries > 1 ? p->group : pass->rows); n++)
            add_step_head(pass, n, queries, total ? total : key_sums_row(pass->call, pass->b, row_head(pass, n)) + item->kv_begin);
    }
}

/* Few enough rows for one pass, or one query each? */
static bool is_step(const struct problem *p, const struct work_item *item)
{
    const int32_t queries = item->q_end - item->q_begin;
    return item->reserved == SCORED_STEP && (queries == 1 || queries * p->group <= DECODE_PASS_ROWS);
}

static void sum_step(const struct call *call, const struct work_item *item, void *scratch)
{
    const struct problem *p = &call->plan->problem;
    const bool together = item->head < 0;
    const int32_t keys = item->kv_end - item->kv_begin;
    float *total = scratch;
    struct decode_pass pass = {.call = call, .p = p, .s = &call->batch->sequences[item->sequence], .b = item->sequence, .q_begin = item->q_begin,
                               .kv_begin = item->kv_begin, .keys = keys, .dim16 = whole_lanes(cells_of(p->head_dim)),
                               .k_bytes = (int32_t)type_row_bytes(p->k_type, p->head_dim), .k_scaled = call->k_scale.given,
                               .ahead = keys_ahead(call, (item->q_end - item->q_begin) * p->group),
                               .plain = !(p->flags & (HEED_BIAS | HEED_ALIBI)) && p->softcap == 0};
    decode_place(&pass, total + SCORES_KEYS);
    clear(total, keys);
    for (int32_t h = item->head * p->group; !together && h < (item->head + 1) * p->group; h++) clear(key_sums_row(call, pass.b, h) + item->kv_begin, keys);
    for (pass.g = together ? 0 : item->head; pass.g < (together ? p->kv_heads : item->head + 1); pass.g++) sum_step_group(&pass, item, together ? total : NULL);
    if (together) memcpy(key_sums_row(call, pass.b, 0) + item->kv_begin, total, sizeof(float) * (size_t)keys);
}

/* ---- the item --------------------------------------------------------------------------------- */

static void scores_item(const struct call *call, const struct work_item *item, void *scratch)
{
    const struct problem *p = &call->plan->problem;
    const bool together = item->head < 0;
    const int32_t keys = item->kv_end - item->kv_begin;
    struct scores_pass w = {.keys_only = *p, .part = item, .sums = p->flags & HEED_WRITE_KEY_SUMS};
    if (is_step(p, item)) {
        sum_step(call, item, scratch);
        return;
    }
    w.keys_only.v_head_dim = 0;
    w.pass.call = call;
    w.pass.p = &w.keys_only;
    w.pass.s = &call->batch->sequences[item->sequence];
    w.pass.b = item->sequence;
    w.pass.k = (struct key_source){.rows = &call->k, .scales = &call->k_scale, .type = p->k_type, .dim = p->head_dim, .whole_rows = true};
    place_scores(&w, scratch);
    w.pass.work.scale = p->scale;
    clear(w.total, keys);
    for (int32_t h = item->head * p->group; w.sums && !together && h < (item->head + 1) * p->group; h++)
        clear(key_sums_row(call, w.pass.b, h) + item->kv_begin, keys);
    vtiles_begin();
    for (int32_t g = together ? 0 : item->head; g < (together ? p->kv_heads : item->head + 1); g++) score_group(&w, g);
    vtiles_end();
    if (w.sums && together) memcpy(key_sums_row(call, w.pass.b, 0) + item->kv_begin, w.total, sizeof(float) * (size_t)keys);
}

static const struct cpu_kernel scores_kernel = {.scores = scores_item, .scratch = scores_scratch};

/* One division and a product; the additions of key sums are in bound_key_sum(). */
#define SCORES_ROW(isa, need, ...)                                                                                                  \
    {.name = "cpu." isa ".scores", .kinds = KIND_BIT(KIND_SCORES), .needs = need, .features = FEATURES_ALL, .o_types = TYPES_FLOAT,    \
     .dim_limit = MAX_HEAD_DIM, .kv_chunk = SCORES_KEYS, .packs_group = true, .cpu = &scores_kernel, __VA_ARGS__}
#define SCORES_ROWS(isa, need) SCORES_ROW(isa, need, PREFILL_COLUMNS)

#endif
