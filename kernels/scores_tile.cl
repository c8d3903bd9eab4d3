/* SPDX-License-Identifier: MIT
 * scores_tile.cl - the pass of scores.cl for any GPU: a work-group per work item, register tiles, local memory, barriers. One text for every vendor.
 *
 * A group owns KEYS keys of one KV head's group, or of every head where sums share one row. Its rows go by ROWS = 16 TR at a time:
 *
 *     s[ROWS][KEYS] = Q K^T       a work-item: TR rows, 16 apart, x TC vectors of keys in registers; SLICE dimensions at a time through local memory
 *     p = e^(s - m) (1 / l)       a loop over the tile: scores are written, p stays in local memory
 *     sum[t mod 16][key] += p     many queries: head after head. Fewer than 16: heads side by side in a tile, whose sums are added at once
 *
 * Products, weights and the order of the sums are those of scores_cpu.cl: the same bits.
 *
 *   LOCAL_X LOCAL_Y   the group, LOCAL_Y = 16        VW    floats per vector: 4, 8 or 16; LOCAL_X * VW divides KEYS
 *   TR                rows per work-item              GUARD   see LOOP_GUARD in common.cl
 */
#ifndef TR
#define TR 4
#endif
#ifndef VW
#define VW 4
#endif
#define KEYS KV_CHUNK
#define SLICE 16
#define ROWS (16 * TR)
#define TC (KEYS / (LOCAL_X * VW))
#define P_STEP (KEYS + 1)            /* rows of p begin in different banks */
#define VEC GLUE(float, VW)
#define LOCAL_VEC(p) (*(local const VEC *)(p))
#define FENCE barrier(CLK_LOCAL_MEM_FENCE)
#define NO_UNROLL _Pragma("unroll 1")
#define SHOWS_HIDDEN (SCORES && SCORES_STAGE < 2) /* stages 0 and 1 */

/* The rows of a tile, in local memory. */
struct scored {
    int begin[ROWS], end[ROWS];
    float shift[ROWS], inverse[ROWS]; /* m, 1 / l */
    long q[ROWS], scores[ROWS];       /* where they lie; scores -1: not written */
#if ALTERED || MASKED
    long own[ROWS], mask[ROWS], bias[ROWS];
    float slope[ROWS];
#endif
};

/* Four dimensions of a row from d on, zeros behind the last. */
#define FOUR(name, TYPE)                                                                                                         \
    static inline float4 name(global const uchar *row, int d, float factor)                                                     \
    {                                                                                                                            \
        if (d + 4 <= HEAD_DIM) return GLUE(load4_, TYPE)(row, d, factor);                                                        \
        float4 x = 0;                                                                                                            \
        if (d < HEAD_DIM) x.s0 = GLUE(load1_, TYPE)(row, d, factor);                                                             \
        if (d + 1 < HEAD_DIM) x.s1 = GLUE(load1_, TYPE)(row, d + 1, factor);                                                     \
        if (d + 2 < HEAD_DIM) x.s2 = GLUE(load1_, TYPE)(row, d + 2, factor);                                                     \
        return x;                                                                                                                \
    }
FOUR(four_of_query, Q_TYPE)
FOUR(four_of_key, K_TYPE)

static inline void describe(ATTENTION_ARGUMENTS, struct work_item item, struct sequence s, int h, int t, int r, local struct scored *rows)
{
    int b = item.sequence, i = item.q_begin + t, slot = SCORES ? score_slots[h] : -1;
    struct row row = row_of(st, s, b, h, i, q_positions, key_range, alibi, problem);
    rows->begin[r] = row.begin;
    rows->end[r] = row.end;
    rows->q[r] = query_offset(st.q, s, b, h, i);
#if ALTERED || MASKED
    rows->own[r] = row.own;
    rows->mask[r] = row.mask;
    rows->bias[r] = row.bias;
    rows->slope[r] = row.slope;
#endif
    rows->shift[r] = 0;
    rows->inverse[r] = 1.0f;
    if (KEEP_SUMS) {
        global const float *kept = AT(float, AT(uchar, work) + st.kept.offset + (s.q_index + i) * st.kept.token + h * st.kept.head);
        rows->shift[r] = kept[0] == -INFINITY ? 0 : kept[0];
        rows->inverse[r] = kept[1] == 0 ? 1.0f : 1.0f / kept[1];
    }
    rows->scores[r] = -1;
    if (slot >= 0)
        rows->scores[r] = SCORE_ROWS ? st.scores.offset + b * st.scores.batch + t * st.scores.token + slot * st.scores.head : query_offset(st.scores, s, b, slot, t);
}

/* tile += the products of a slice, for the first R of the work-item's TR rows */
#define PRODUCTS(R)                                                                                                              \
    _Pragma("unroll 2") for (int d = 0; d < SLICE + LOOP_GUARD; d++) {                                                           \
        VEC y[TC];                                                                                                               \
        _Pragma("unroll") for (int c = 0; c < TC; c++) y[c] = LOCAL_VEC(k_slice + d * KEYS + (tx + LOCAL_X * c) * VW);           \
        _Pragma("unroll") for (int r = 0; r < R; r++) {                                                                          \
            VEC x = (VEC)q_slice[d * (ROWS + 1) + r * 16 + ty];                                                                  \
            _Pragma("unroll") for (int c = 0; c < TC; c++) tile[r][c] = fma(y[c], x, tile[r][c]);                                \
        }                                                                                                                        \
    }

/* The tree of total16() over sixteen sums `step` floats apart, of which the first `count` are there. */
static inline float sum16(local const float *x, int step, int count)
{
    float four[4];
    for (int k = 0; k < 4; k++) {
        float y[4];
        for (int e = 0; e < 4; e++) y[e] = 4 * k + e < count ? x[(4 * k + e) * step] : 0.0f;
        four[k] = (y[0] + y[2]) + (y[1] + y[3]);
    }
    return (four[0] + four[1]) + (four[2] + four[3]);
}

ATTENTION_KERNEL void scores_tile(ATTENTION_ARGUMENTS)
{
    local float k_slice[SLICE * KEYS] ALIGNED, q_slice[SLICE * (ROWS + 1)] ALIGNED, p[ROWS * P_STEP] ALIGNED, sum[16 * KEYS], total[KEYS];
    local struct scored rows;
    local long k_at[KEYS];
    local float k_factor[HAS_SCALE(K_TYPE) ? KEYS : 1];
    const int number = ITEM_NUMBER, lane = LANE, tx = (int)get_local_id(0), ty = (int)get_local_id(1);
    const bool given = number < item_count; /* a group without an item has one without keys or queries: no early return, as in prefill_tile.cl */
    struct work_item item = AT(struct work_item, items)[given ? item_first + number : 0];
    if (!given) item.sequence = item.head = item.q_begin = item.q_end = item.kv_begin = item.kv_end = 0;
    const struct sequence s = sequences[item.sequence];
    const int b = item.sequence, queries = item.q_end - item.q_begin, j0 = item.kv_begin, keys = item.kv_end - item.kv_begin;
    const bool together = item.head < 0, side_by_side = queries < 16;
    const int h_begin = (together ? 0 : item.head) * GROUP, h_end = together ? problem.kv_heads * GROUP : h_begin + GROUP;
    global uchar *sums = key_sums + st.key_sums.offset + b * st.key_sums.batch;
    NO_UNROLL for (int c = lane; c < KEYS; c += LANES) total[c] = 0;

    /* A step is a tile of rows; all about it follows from its number. No `continue` and no barrier in a branch that branches again: PoCL 3.1 gets such loops wrong. */
    const int at_once = side_by_side ? min(GROUP, ROWS / max(queries, 1)) : 1, tiles = side_by_side ? 1 : (queries + ROWS - 1) / ROWS;
    const int chunks = (GROUP + at_once - 1) / at_once, steps = queries > 0 ? (h_end - h_begin) / GROUP * chunks * tiles : 0;
    for (int step = 0; step < steps; step++) {
        const int chunk = step / tiles % chunks, g = h_begin / GROUP + step / tiles / chunks, h = g * GROUP + chunk * at_once;
        const int heads = min(at_once, GROUP - chunk * at_once), first = step % tiles * ROWS;
        const int count = side_by_side ? heads * queries : min(ROWS, queries - first);
        bool counts = KEY_SUMS;
        if (SCORES) NO_UNROLL for (int n = 0; n < heads; n++) counts = counts || score_slots[h + n] >= 0;
        FENCE;
        NO_UNROLL for (int r = lane; r < ROWS; r += LANES) { /* rows behind the last repeat it */
            const int n = min(r, count - 1);
            describe(ATTENTION_PASSED, item, s, side_by_side ? h + n / queries : h, side_by_side ? n % queries : first + n, r, &rows);
        }
        FENCE;
        int low = INT_MAX, high = 0;
        NO_UNROLL for (int r = 0; r < count; r++) {
            const bool all_keys = SHOWS_HIDDEN && rows.scores[r] >= 0;
            if (!all_keys && rows.end[r] == 0) continue;
            low = min(low, all_keys ? 0 : rows.begin[r]);
            high = max(high, all_keys ? s.kv_len : rows.end[r]);
        }
        const bool look = counts && low < j0 + keys && high > j0;

        VEC tile[TR][TC];
#pragma unroll
        for (int r = 0; r < TR; r++)
#pragma unroll
            for (int c = 0; c < TC; c++) tile[r][c] = 0;
        if (look) {
            NO_UNROLL for (int c = lane; c < KEYS; c += LANES) { /* keys that nobody sees repeat one that somebody sees */
                const int j = clamp(j0 + c, low, high - 1);
                k_at[c] = key_offset(st.k, s, page_table, b, g, j, problem);
                if (HAS_SCALE(K_TYPE)) k_factor[c] = AT(float, k_scale + key_offset(st.k_scale, s, page_table, b, g, j, problem))[0];
            }
            NO_UNROLL for (int d0 = 0; d0 < HEAD_DIM; d0 += SLICE) {
                FENCE;
                NO_UNROLL for (int x = lane; x < KEYS * (SLICE / 4); x += LANES) {
                    const int c = x / (SLICE / 4), d = x % (SLICE / 4) * 4;
                    const float4 y = four_of_key(k + k_at[c], d0 + d, HAS_SCALE(K_TYPE) ? k_factor[c] : 1.0f);
                    k_slice[(d + 0) * KEYS + c] = y.s0;
                    k_slice[(d + 1) * KEYS + c] = y.s1;
                    k_slice[(d + 2) * KEYS + c] = y.s2;
                    k_slice[(d + 3) * KEYS + c] = y.s3;
                }
                NO_UNROLL for (int x = lane; x < (count > 16 ? ROWS : 16) * (SLICE / 4); x += LANES) {
                    const int r = x / (SLICE / 4), d = x % (SLICE / 4) * 4;
                    const float4 y = four_of_query(q + rows.q[r], d0 + d, 1.0f) * SCALE;
                    q_slice[(d + 0) * (ROWS + 1) + r] = y.s0;
                    q_slice[(d + 1) * (ROWS + 1) + r] = y.s1;
                    q_slice[(d + 2) * (ROWS + 1) + r] = y.s2;
                    q_slice[(d + 3) * (ROWS + 1) + r] = y.s3;
                }
                FENCE;
                if (count > 16) {
                    PRODUCTS(TR)
                } else {
                    PRODUCTS(1)
                }
            }
#pragma unroll
            for (int r = 0; r < TR; r++)
#pragma unroll
                for (int c = 0; c < TC; c++) GLUE(vstore, VW)(tile[r][c], tx + LOCAL_X * c, p + (r * 16 + ty) * P_STEP);
        }
        FENCE;

        NO_UNROLL for (int x = lane; x < count * KEYS; x += LANES) {
            const int r = x / KEYS, c = x % KEYS, j = j0 + c;
            const float raw = look ? p[r * P_STEP + c] : 0;
            float capped = 0, logit = -INFINITY, weight = 0;
            if (c < keys) {
                if (look) {
#if ALTERED || MASKED
                    struct row row = {rows.begin[r], rows.end[r], s.kv_len, rows.own[r], rows.mask[r], rows.bias[r], rows.slope[r]};
                    logit = logit1(raw, j, row, mask, bias, &capped, problem);
#else
                    capped = raw;
                    if (j >= rows.begin[r] && j < rows.end[r]) logit = raw;
#endif
                }
                if (KEEP_SUMS && logit != -INFINITY) weight = exp_1(logit - rows.shift[r]) * rows.inverse[r];
                if (SCORES && rows.scores[r] >= 0)
                    ((global float *)(scores + rows.scores[r]))[j] = SCORES_STAGE == 0 ? raw : SCORES_STAGE == 1 ? capped : SCORES_STAGE == 2 ? logit : weight;
            }
            p[r * P_STEP + c] = weight;
        }
        FENCE;

        if (KEY_SUMS && !side_by_side)
            NO_UNROLL for (int x = lane; x < 16 * KEYS; x += LANES) {
                const int c = x % KEYS;
                float add = first == 0 ? 0.0f : sum[x];
#ifdef MUTANT_cl_gather_rows
                for (int r = x / KEYS; r + 1 < count; r += 16) add += p[r * P_STEP + c];
#else
                for (int r = x / KEYS; r < count; r += 16) add += p[r * P_STEP + c];
#endif
                sum[x] = add;
            }
        FENCE;
        if (KEY_SUMS && (side_by_side || first + ROWS >= queries))
            NO_UNROLL for (int c = lane; c < keys; c += LANES) {
                NO_UNROLL for (int n = 0; n < heads; n++) {
                    const float own = side_by_side ? sum16(p + n * queries * P_STEP + c, P_STEP, queries) : sum16(sum + c, KEYS, 16);
#ifdef MUTANT_cl_gather_last_head
                    total[c] = 0;
#endif
                    if (together) total[c] += own;
                    else ((global float *)(sums + (h + n) * st.key_sums.head))[j0 + c] = own;
                }
            }
    }

    /* one row for all heads; or zeros, where there is no query */
    FENCE;
    if (KEY_SUMS && (together || queries == 0))
        NO_UNROLL for (int n = together ? 0 : h_begin; n < (together ? 1 : h_end); n++)
            NO_UNROLL for (int c = lane; c < keys; c += LANES)((global float *)(sums + n * st.key_sums.head))[j0 + c] = total[c];
}
