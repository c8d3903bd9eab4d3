/* SPDX-License-Identifier: MIT
 * decode.inc.h - template: the few query rows of one KV head's group against one chunk of keys. Memory-bound: K and V are read once, row
 * after row, whatever the group; rows of a pass share each key while it is in L1. Long prompts are prefill.inc.h's.
 *
 *     rows r = (i - q_begin) * group + (h - g * group), up to DECODE_PASS_ROWS at a time; keys of the chunk by their place in it, 0 .. 511
 *     1  visible[r]         bits: position, window, key range, masks
 *     2  p[r][key]          = sum_d q[r][d] k[key][d]              16 lanes over d, a fixed tree: score_tile
 *     3  p[r][key]          = e^(s - m)                            s = scale, softcap, ALiBi, bias of p: terms, softmax
 *     4  acc[r][d]          = sum_key p[r][key] v[key][d]          one chain over the visible keys: value_tile
 *     5  partial rows       acc, m, l -> workspace, or o at once through merge_row (the same steps, the same bits)
 *
 * A score depends on its two rows alone, a chain on the visible keys in order: so no bit depends on the group, on q_len, on other rows,
 * on tile shapes or on the width of a vector. A hidden key's V takes part in nothing; where a key is visible to some rows of a tile only,
 * those rows go one by one (0 * NaN would be NaN).
 */
#ifndef HEED_DECODE_INC_H
#define HEED_DECODE_INC_H

#include "decode_pass.inc.h"
#include "merge.inc.h"

#include <math.h>
#include <string.h>

enum {
    DECODE_AHEAD = 32,                   /* keys between use and fetch; twice as many where a line takes long */
    DECODE_ROWS_MOST = VW == 16 ? 24 : 8, /* a panel of prefill is half idle, and copies keys, for as many rows of 16 lanes */
    DECODE_DIM = 64                       /* of shorter heads fewer: the tree of a dot product costs as much as ever, a panel needs none */
};

/* ---- scores and weighted sums of a pass ------------------------------------ */

/* Keys between use and fetch, a multiple of 16; 0 for one row on keys side by side, which the hardware fetches better. */
static int32_t keys_ahead(const struct call *call, int32_t rows)
{
    const struct problem *p = &call->plan->problem;
    if (rows == 1 && call->k.token == type_row_bytes(p->k_type, p->head_dim)) return 0;
    return call->plan->device->far_cache ? 2 * DECODE_AHEAD : DECODE_AHEAD;
}

/* The 16 rows that come at key n of the chunk, n % 16 = 0: behind the last key the first values. */
static const unsigned char *const *rows_ahead(const struct decode_pass *pass, int32_t n)
{
    const int32_t first = pass->lo & ~15, end = whole_lanes(pass->hi);
    if (n < end) return pass->k_rows + n;
    const int32_t value = first + n - end;
    return pass->v_rows + (value < end ? value : first);
}

/* p[r][key] = dot product, for every group of 16 keys that holds a visible one. */
static void score_rows(struct decode_pass *pass)
{
    const struct problem *p = pass->p;
    const struct decode_tiles *use = &decode_tiles[p->k_type];
    for (int32_t n = pass->lo & ~15; n < pass->hi; n += 16) {
        if (!(pass->any[n / 64] >> (n % 64) & 0xffff)) continue;
        const unsigned char *const *rows = pass->k_rows + n, *const *next = NULL;
        if (pass->ahead) next = rows_ahead(pass, n + pass->ahead);
        for (int32_t r = 0; r < pass->rows;) {
            const int tile = tile_for(pass->rows - r);
            use->score[tile](pass->q + (int64_t)r * pass->dim16, p->head_dim, rows, r == 0 ? next : NULL, pass->k_bytes,
                             pass->p_rows + r * DECODE_CHUNK + n);
            r += 1 << tile;
        }
    }
}

/* One tile of rows against one block of values. While a strip is at work its part of fetch[key], a row of fetch_bytes, is fetched beside each key; with
 * fetch NULL, for one row alone, the rest of the row at its first strip: the hardware then sees whole rows in order. */
static void value_strips(const struct decode_pass *pass, const struct decode_tiles *use, int tile, int32_t r, uint64_t bits,
                         const unsigned char *const *rows, int32_t w, const unsigned char *const *fetch, int32_t fetch_bytes)
{
    const int32_t dim = pass->p->v_head_dim, wide = 16 * value_strip[tile];
    const float *p = pass->p_rows + r * DECODE_CHUNK + w * DECODE_BLOCK;
    float *acc = pass->acc + (int64_t)r * pass->v16;
    struct strip strip = {.fetch = fetch ? fetch : rows};
    for (int32_t d = 0; d < dim; d += strip.n) {
        const int word = d + wide <= dim ? STRIP_WIDE : d + 16 <= dim ? STRIP_ONE : STRIP_TAIL;
        strip.d = d;
        strip.n = word == STRIP_WIDE ? wide : word == STRIP_ONE ? 16 : dim - d;
        strip.fetch_from = fetch ? fetch_bytes * d / dim : pass->v_bytes * wide / dim;
        strip.fetch_to = fetch ? fetch_bytes * (d + strip.n) / dim : d == 0 && tile == 0 && wide < dim ? pass->v_bytes : 0;
        use->value[tile][word](p, bits, rows, &strip, acc + d, pass->v16);
    }
}

/* acc += p v, block by block: each block is in cache when the second tile of rows comes to it. */
static void value_rows(struct decode_pass *pass)
{
    const struct decode_tiles *use = &decode_tiles[pass->p->v_type];
    for (int32_t w = pass->lo / DECODE_BLOCK; w * DECODE_BLOCK < pass->hi; w++) {
        if (!pass->any[w]) continue;
        const unsigned char *const *rows = pass->v_rows + w * DECODE_BLOCK;
        const unsigned char *const *fetch = NULL;
        const bool last = (w + 1) * DECODE_BLOCK >= pass->hi;
        if (last && pass->goes_on) fetch = pass->next_rows;
        if (pass->ahead && (w + 2) * DECODE_BLOCK <= pass->hi) fetch = rows + DECODE_BLOCK;
        const int32_t bytes = last ? pass->k_bytes : pass->v_bytes;
        for (int32_t r = 0; r < pass->rows;) {
            const int tile = tile_for(pass->rows - r);
            uint64_t all = ~UINT64_C(0), any = 0;
            for (int32_t n = r; n < r + (1 << tile); n++) {
                all &= pass->visible[n * DECODE_WORDS + w];
                any |= pass->visible[n * DECODE_WORDS + w];
            }
            if (all == any || MUTANT(cpu_decode_mixed_tile)) {
                if (any) value_strips(pass, use, tile, r, any, rows, w, r == 0 ? fetch : NULL, bytes);
            } else {
                for (int32_t n = r; n < r + (1 << tile); n++)
                    value_strips(pass, use, 0, n, pass->visible[n * DECODE_WORDS + w], rows, w, NULL, 0);
            }
            r += 1 << tile;
        }
    }
}

/* ---- from dot products to weights ----------------------------------------- */

/* terms[key] for keys [lo, hi) in whole groups of 16: the row's bias as f32. */
static void find_bias(const struct decode_pass *pass, int32_t r)
{
    const unsigned char *row = query_row(&pass->call->bias, pass->s, pass->b, row_head(pass, r), row_query(pass, r));
    for (int32_t n = pass->lo & ~15; n < whole_lanes(pass->hi); n += VW)
        vstore(pass->terms + n, vload_row_n(pass->p->bias_type, row, pass->kv_begin + n, lanes_left(pass->hi - n)));
}

static void find_distances(const struct decode_pass *pass, int32_t r)
{
    const int64_t own = query_position(pass->call->batch, pass->s, row_query(pass, r)) - pass->s->first - pass->kv_begin;
    const int32_t begin = pass->lo & ~15, end = whole_lanes(pass->hi);
    if (own > 0xffff00 || own < -0xffff00) { /* not exact in f32: rounded once from integers */
        for (int32_t n = begin; n < end; n++) pass->distances[n] = (float)(own > n ? own - n : n - own);
        return;
    }
    float from_first[VW];
    for (int v = 0; v < VW; v++) from_first[v] = (float)(own - v);
    for (int32_t n = begin; n < end; n += VW) vstore(pass->distances + n, vabs(vsub(vload(from_first), vset1((float)n))));
}

/* Rules 1 to 4: x of a vector of keys from its dot products. */
INLINE vf add_terms(const struct decode_pass *pass, vf x, int32_t n, float slope)
{
    const struct problem *p = pass->p;
    const bool bias = p->flags & HEED_BIAS, first = p->flags & HEED_BIAS_FIRST;
    if (pass->k_scaled) x = vmul(x, vload(pass->k_scales + n));
    x = vmul(x, vset1(MUTANT(cpu_decode_scale_twice) ? p->scale * p->scale : p->scale));
    if (pass->plain) return x;
    if (bias && first) x = vadd(x, vload(pass->terms + n));
    if (p->softcap > 0) x = vsoftcap(x, vset1(p->softcap), vset1(softcap_inverse(p->softcap)));
    if (p->flags & HEED_ALIBI) x = vfma(vset1(MUTANT(cpu_decode_alibi_sign) ? slope : -slope), vload(pass->distances + n), x);
    if (bias && !first) x = vadd(x, vload(pass->terms + n));
    return x;
}

/* Scores of row r where all keys of [begin, end) are visible and nothing is added: the common case. Their maximum by lanes. */
static vf plain_scores(const struct decode_pass *pass, float *row, uint64_t *visible, int32_t begin, int32_t end)
{
    const vf scale = vset1(pass->p->scale), nothing = vset1(-INFINITY);
    vf top = nothing, low = vset1(INFINITY);
    for (int32_t n = begin; n < end; n += VW) {
        const vf x = vmul(pass->k_scaled ? vmul(vload(row + n), vload(pass->k_scales + n)) : vload(row + n), scale);
        vstore(row + n, x);
        top = vmax(x, top); /* a NaN is passed over: it shows in the sum */
        low = vmin(x, low);
    }
    if (!vany(veq(low, nothing))) return top;
    for (int32_t n = begin; n < end; n += VW) visible[n / 64] &= ~((uint64_t)bits_of_vm(veq(vload(row + n), nothing)) << (n % 64));
    return top;
}

/* The same with every term, and -infinity for hidden keys. */
static vf full_scores(const struct decode_pass *pass, float *row, uint64_t *visible, int32_t r, int32_t begin, int32_t end)
{
    const uint64_t flags = pass->p->flags;
    const bool biased = (flags & HEED_BIAS) && !MUTANT(cpu_decode_bias_hides);
    const vf nothing = vset1(-INFINITY);
    vf top = nothing;
    float slope = 0;
    if (flags & HEED_BIAS) find_bias(pass, r);
    if (flags & HEED_ALIBI) {
        slope = ((const float *)pass->call->alibi.data)[MUTANT(cpu_decode_slopes_of_8) ? row_head(pass, r) & 7 : row_head(pass, r)];
        find_distances(pass, r);
    }
    for (int32_t n = begin; n < end; n += VW) {
        uint64_t bits = visible[n / 64] >> (n % 64);
        if (biased) bits &= ~(uint64_t)bits_of_vm(veq(vload(pass->terms + n), nothing)); /* hidden, also where K is NaN */
        const vf x = vselect(vm_of_bits((uint32_t)bits), add_terms(pass, vload(row + n), n, slope), nothing);
        const uint64_t gone = (uint64_t)bits_of_vm(veq(x, nothing)) << (n % 64);
        visible[n / 64] &= ~gone;
        vstore(row + n, x);
        top = vmax(x, top);
    }
    return top;
}

/* Keys [begin, end), multiples of 16: all visible? */
static bool sees_all(const uint64_t *visible, int32_t begin, int32_t end)
{
    for (int32_t n = begin; n < end; n += 16)
        if ((visible[n / 64] >> (n % 64) & 0xffff) != 0xffff) return false;
    return true;
}

/* Row r: scores, then m = max s, p = e^(s - m), l = sum p: lane n sums keys n, n + 16, ..., then the tree of the scores. visible loses the
 * keys whose score is -infinity. */
static void softmax_row(struct decode_pass *pass, int32_t r)
{
    uint64_t *visible = pass->visible + r * DECODE_WORDS;
    float *row = pass->p_rows + r * DECODE_CHUNK, lanes[16] __attribute__((aligned(64))), m = -INFINITY;
    const int32_t begin = pass->lo & ~15, end = whole_lanes(pass->hi);
    const bool plain = pass->plain && sees_all(visible, begin, end);
    vstore(lanes, plain ? plain_scores(pass, row, visible, begin, end) : full_scores(pass, row, visible, r, begin, end));
    for (int n = 0; n < VW; n++)
        if (lanes[n] > m) m = lanes[n];

    const vf shift = vset1(m == -INFINITY ? 0 : m);
    vf sum[LANE_VECTORS];
    UNROLL for (int v = 0; v < LANE_VECTORS; v++) sum[v] = vset1(0);
    for (int32_t n = begin; n < end; n += 16)
        UNROLL for (int v = 0; v < LANE_VECTORS; v++) {
            const vf e = vexp(vsub(vload(row + n + v * VW), shift));
            sum[v] = vadd(sum[v], e);
            vstore(row + n + v * VW, vround(e));
        }
    UNROLL for (int v = 0; v < LANE_VECTORS; v++) vstore(lanes + v * VW, sum[v]);
    pass->sums[2 * r] = m;
    pass->sums[2 * r + 1] = tree_of_16(lanes);
    if (pass->v_scaled && !MUTANT(cpu_decode_value_scale))
        for (int32_t n = begin; n < end; n += VW) vstore(row + n, vmul(vload(row + n), vload(pass->v_scales + n)));
}

/* ---- the item --------------------------------------------------------------- */

/* A planted bug: q in the steps of int8 that q8_0 keys would like. */
INLINE void coarsen(float *q, int32_t count)
{
    float most = 0;
    for (int32_t d = 0; d < count; d++) most = q[d] > most ? q[d] : -q[d] > most ? -q[d] : most;
    for (int32_t d = 0; d < count; d++) q[d] = most > 0 ? (float)(int32_t)(q[d] * 127 / most) * most / 127 : 0;
}

/* q of each tile of R rows as [d / 16][R][16], in cells. */
static void load_queries(struct decode_pass *pass)
{
    const struct problem *p = pass->p;
    for (int32_t first = 0, rows; first < pass->rows; first += rows) {
        rows = 1 << tile_for(pass->rows - first);
        for (int32_t r = 0; r < rows; r++) {
            const unsigned char *row = query_row(&pass->call->q, pass->s, pass->b, row_head(pass, first + r), row_query(pass, first + r));
            float *to = pass->q + (int64_t)first * pass->dim16 + r * 16;
            for (int32_t d = 0; d < pass->dim16; d += 16, to += rows * 16)
                for (int v = 0; v < 16; v += VW) vstore(to + v, load_key_n(p->q_type, row, d + v, p->head_dim));
            if (MUTANT(cpu_decode_q_int8))
                for (int32_t d = 0; d < pass->dim16; d += 16) coarsen(pass->q + (int64_t)first * pass->dim16 + r * 16 + d * rows, 16);
        }
    }
}

/* Sums and accumulators of the pass's rows; a row that saw nothing has l = 0. */
static void run_pass(struct decode_pass *pass)
{
    const struct call *call = pass->call;
    see(pass);
    if (MUTANT(cpu_decode_last_key) && pass->hi > 0) pass->hi--;
    for (int32_t r = 0; r < pass->rows; r++) pass->sums[2 * r] = -INFINITY, pass->sums[2 * r + 1] = 0;
    if (pass->hi == 0) return;
    memset(pass->acc, 0, (size_t)pass->rows * (size_t)pass->v16 * sizeof(float));
    find_rows(pass, &call->k, pass->k_rows);
    find_rows(pass, &call->v, pass->v_rows);
    if (pass->k_scaled) find_scales(pass, &call->k_scale, pass->k_scales);
    if (pass->v_scaled) find_scales(pass, &call->v_scale, pass->v_scales);
    load_queries(pass);
    score_rows(pass);
    for (int32_t r = 0; r < pass->rows; r++) softmax_row(pass, r);
    for (int32_t w = 0; w < DECODE_WORDS; w++) {
        pass->any[w] = 0; /* again: a score of -infinity hides its key */
        for (int32_t r = 0; r < pass->rows; r++) pass->any[w] |= pass->visible[r * DECODE_WORDS + w];
    }
    value_rows(pass);
    if (MUTANT(cpu_decode_f16_accumulator))
        for (int32_t d = 0; d < pass->rows * pass->v16; d++) pass->acc[d] = f16_to_f32(f32_to_f16(pass->acc[d]));
}

/* Partial row of the workspace, or o and lse by the same merge with one chunk. */
static void leave_row(const struct decode_pass *pass, const struct work_item *item, int32_t r)
{
    const struct call *call = pass->call;
    const float *acc = pass->acc + (int64_t)r * pass->v16, *sums = pass->sums + 2 * r;
    if (item->part >= 0) {
        const int64_t part = (int64_t)item->part + pass->first + r;
        if (sums[1] != 0) memcpy(part_values(call, part), acc, (size_t)pass->p->v_head_dim * sizeof *acc);
        memcpy(part_sums(call, part), sums, 2 * sizeof *sums);
        return;
    }
    const struct parts parts = {.values = acc, .sums = sums, .chunks = 1};
    merge_row(call, pass->b, row_head(pass, r), row_query(pass, r), &parts, pass->o);
}

static size_t decode_scratch(const struct problem *p, int32_t kv_len_max)
{
    struct decode_pass pass = {.dim16 = whole_lanes(cells_of(p->head_dim)), .v16 = whole_lanes(p->v_head_dim)};
    (void)kv_len_max;
    return decode_place(&pass, NULL);
}

static void decode_item(const struct call *call, const struct work_item *item, void *scratch)
{
    const struct problem *p = &call->plan->problem;
    const int32_t rows = (item->q_end - item->q_begin) * p->group;
    struct decode_pass pass = {.call = call,
                               .p = p,
                               .s = &call->batch->sequences[item->sequence],
                               .b = item->sequence,
                               .g = item->head,
                               .q_begin = item->q_begin,
                               .kv_begin = item->kv_begin,
                               .keys = item->kv_end - item->kv_begin,
                               .dim16 = whole_lanes(cells_of(p->head_dim)),
                               .v16 = whole_lanes(p->v_head_dim),
                               .k_bytes = (int32_t)type_row_bytes(p->k_type, p->head_dim),
                               .v_bytes = (int32_t)type_row_bytes(p->v_type, p->v_head_dim),
                               .ahead = keys_ahead(call, rows),
                               .k_scaled = call->k_scale.given,
                               .v_scaled = call->v_scale.given,
                               .plain = !(p->flags & (HEED_BIAS | HEED_ALIBI)) && p->softcap == 0};
    decode_place(&pass, scratch);
    for (pass.first = 0; pass.first < rows; pass.first += DECODE_PASS_ROWS) {
        if (MUTANT(cpu_decode_rows_16) && pass.first > 0xffff) break;
        pass.rows = rows - pass.first < DECODE_PASS_ROWS ? rows - pass.first : DECODE_PASS_ROWS;
        pass.goes_on = pass.ahead && pass.first + pass.rows == rows && find_next_rows(&pass, item);
        run_pass(&pass);
        for (int32_t r = 0; r < pass.rows; r++) leave_row(&pass, item, r);
    }
}

/* Unused where a set takes the pass over the scores alone. */
static const struct cpu_kernel decode_kernel __attribute__((unused)) = {.item = decode_item, .merge_parts = merge_parts_rows, .scratch = decode_scratch};

/* h_d: head_dim / 16 fmas and 4 levels of the tree. h_n: one chain of 512 keys, a merge per chunk, a value's scale and the sink. */
#define DECODE_ROW(isa, need, ...)                                                                                        \
    {.name = "cpu." isa ".decode", .kinds = KIND_BIT(KIND_DECODE), .order = ORDER_OWN, .needs = (need),                        \
     .features = FEATURES_ALL, .o_types = TYPES_FLOAT, .q_tile = 0, .kv_chunk = DECODE_CHUNK,                 \
     .decode_rows = DECODE_ROWS_MOST, .decode_dim = DECODE_DIM, .packs_group = true, .cpu = &decode_kernel, __VA_ARGS__}
#define DECODE_ARITHMETIC                                                                                                  \
    .dot_lanes = 16, .dot_extra = 4 / CELL_ROUNDINGS, .key_block = DECODE_CHUNK, .sum_extra = 2 / CELL_ROUNDINGS, .add_roundings = CELL_ROUNDINGS, \
    .together = CELL_TOGETHER, .rescale_block = DECODE_CHUNK, .exp_ulp = EXP_ULP, \
    .exp_roundings = 1, .tanh_ulp = TANH_ULP + 1, .log_ulp = 1, .div_roundings = 2
#ifdef VEC_E4M3_ALONE
#define DECODE_ROWS(isa, need)                                                                                            \
    DECODE_ROW(isa, need, .q_types = TYPES_FLOAT, .k_types = TYPE_BIT(HEED_F8_E4M3), .v_types = TYPE_BIT(HEED_F8_E4M3), .arithmetic = {DECODE_ARITHMETIC})
#elif CELL == 1
#define DECODE_ROWS(isa, need)                                                                                            \
    DECODE_ROW(isa, need, .q_types = TYPES_FLOAT, .k_types = TYPES_ALL, .v_types = TYPES_ALL, .arithmetic = {DECODE_ARITHMETIC})
#else /* denormal bf16 and f32 count as 0; weights meet V as bf16 */
#define DECODE_ROWS(isa, need)                                                                                            \
    DECODE_ROW(isa, need, .q_types = TYPE_BIT(HEED_BF16), .k_types = TYPE_BIT(HEED_BF16), .v_types = TYPE_BIT(HEED_BF16),      \
               .arithmetic = {DECODE_ARITHMETIC, .weight_type = HEED_BF16, .flushes = true})
#endif
#endif
