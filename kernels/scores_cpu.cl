/* SPDX-License-Identifier: MIT
 * scores_cpu.cl - the pass of scores.cl for devices of type CPU: chosen query rows against all keys once more, one work-item per work item, no barriers,
 * vectors of 16 floats over keys. Where few rows want many keys, as a step of decoding does, no lane idles, and rows of mask, bias and scores lie as they are used.
 *
 *     S [row][key]  = Q (a scalar broadcast per row and d) x K^T [d][key]     MR x NV vectors in registers, one chain over d per score
 *     p = e^(s - m) (1 / l)      scores[i][j] = s of some stage, or p         key_sums[j] = sum of p over the queries, in the order of scores.cl
 *
 * A work-item owns KV_CHUNK keys of one KV head's group, or of every head where sums share one row. Its keys are turned once; then all rows go by, PASS
 * at a time: head after head, and within a head query after query, so that the partial sums of one head are all there is to keep. Products and weights
 * are those of src/cpu/scores.inc.h: f32 has the same bits. Key sums of a step of decode take K where it lies, by decode_keys.cl: step_item().
 *
 *   KV_CHUNK keys per work item, a multiple of PANEL       NV   register tile: 6 x 4 where there are 32 vector registers of 16 floats, 6 x 1 else
 */
#ifndef NV
#define NV 4
#endif
#define MR 6
#define PANEL 64                                             /* keys that stay near while rows go by */
#define PASS (8 * MR)
#define Q_STEP (((HEAD_DIM + 15) / 16 | 1) * 16) /* an odd number of cache lines from row to row */
#define UNROLL _Pragma("unroll")
#define NO_UNROLL _Pragma("unroll 1")
#define SHOWS_HIDDEN (SCORES && SCORES_STAGE < 2) /* stages 0 and 1 */

/* ---- products ------------------------------------------------------------------------ */

/* p[R][16 NV of PANEL] = q[R][HEAD_DIM] k[HEAD_DIM][16 NV of PANEL] */
#define SCORE_TILE(R)                                                                                                            \
    static inline void score_tile_##R(private const float *q, private const float *k, private float *p)                          \
    {                                                                                                                            \
        float16 a[R][NV];                                                                                                        \
        UNROLL for (int r = 0; r < R; r++) UNROLL for (int n = 0; n < NV; n++) a[r][n] = 0;                                      \
        NO_UNROLL for (int d = 0; d < HEAD_DIM; d++)                                                                             \
        {                                                                                                                        \
            float16 x[NV];                                                                                                       \
            UNROLL for (int n = 0; n < NV; n++) x[n] = GET(k + d * PANEL + n * 16);                                              \
            UNROLL for (int r = 0; r < R; r++)                                                                                   \
            {                                                                                                                    \
                float16 y = (float16)q[r * Q_STEP + d];                                                                          \
                UNROLL for (int n = 0; n < NV; n++) a[r][n] = fma(y, x[n], a[r][n]);                                             \
            }                                                                                                                    \
        }                                                                                                                        \
        UNROLL for (int r = 0; r < R; r++) UNROLL for (int n = 0; n < NV; n++) PUT(a[r][n], p + r * PANEL + n * 16);             \
    }
SCORE_TILE(2)
SCORE_TILE(4)
SCORE_TILE(6)

/* Up to MR rows; what those behind the last get, zeros, has room in p. */
static inline void score_rows(int rows, private const float *q, private const float *k, private float *p)
{
    for (int n = 0; n < PANEL; n += NV * 16) {
        if (rows <= 2) score_tile_2(q, k + n, p + n);
        else if (rows <= 4) score_tile_4(q, k + n, p + n);
        else score_tile_6(q, k + n, p + n);
    }
}

/* ---- copies -------------------------------------------------------------------------- */

/* x[r] element c becomes x[c] element r: zipping row i with row i + 8, four times, as in prefill_cpu.cl. Written as shuffles of whole vectors: clang
 * makes one instruction of each, and moves halves about where they are put together from halves. */
static inline void turn(private const float16 *x, private float16 *y)
{
    UNROLL for (int i = 0; i < 8; i++)
    {
        y[2 * i] = ZIP_LOW(x[i], x[i + 8]);
        y[2 * i + 1] = ZIP_HIGH(x[i], x[i + 8]);
    }
}

/* to[d][16 keys of PANEL] of rows of K at at[16]; 16 dimensions of 16 keys through registers. */
static inline void copy_keys(global const uchar *k, private const long *at, private const float *factor, private float *to)
{
    for (int d = 0; d + 16 <= HEAD_DIM; d += 16) {
        float16 x[16], y[16];
#pragma unroll
        for (int r = 0; r < 16; r++) x[r] = GLUE(load16_, K_TYPE)(k + at[r], d, factor[r]);
        turn(x, y);
        turn(y, x);
        turn(x, y);
        turn(y, x);
        UNROLL for (int n = 0; n < 16; n++) PUT(x[n], to + (d + n) * PANEL);
    }
    for (int d = HEAD_DIM / 16 * 16; d < HEAD_DIM; d++)
        for (int r = 0; r < 16; r++) to[d * PANEL + r] = GLUE(load1_, K_TYPE)(k + at[r], d, factor[r]);
}

/* kt[d][PANEL] of the keys [j0, j0 + PANEL), of which those in [low, high) may be seen: no others are read. */
static inline void copy_panel(ATTENTION_ARGUMENTS, struct sequence s, int b, int g, int j0, int low, int high, private float *kt)
{
    for (int j = max(j0, low / 16 * 16); j < min(j0 + PANEL, high); j += 16) {
        long at[16];
        float factor[16];
        for (int r = 0; r < 16; r++) { /* a key that nobody sees repeats one that somebody sees */
            int key = clamp(j + r, low, high - 1);
            at[r] = key_offset(st.k, s, page_table, b, g, key, problem);
            factor[r] = HAS_SCALE(K_TYPE) ? AT(float, k_scale + key_offset(st.k_scale, s, page_table, b, g, key, problem))[0] : 1.0f;
            if (j + r + PANEL < high) fetch_row(k + key_offset(st.k, s, page_table, b, g, j + r + PANEL, problem), K_BYTES);
        }
        copy_keys(k, at, factor, kt + (j - j0));
    }
}

/* to[HEAD_DIM] = a row of Q, scale folded in. */
static inline void copy_query(global const uchar *row, private float *to)
{
    for (int d = 0; d + 16 <= HEAD_DIM; d += 16) PUT(GLUE(load16_, Q_TYPE)(row, d, 1.0f) * (float16)SCALE, to + d);
    for (int d = HEAD_DIM / 16 * 16; d < HEAD_DIM; d++) to[d] = GLUE(load1_, Q_TYPE)(row, d, 1.0f) * SCALE;
}

/* ---- rows ------------------------------------------------------------------------------ */

struct scored {
    struct row row;
    int h, t;               /* head, and the query counted from the first chosen one */
    float shift, inverse;   /* m, 1 / l */
    global float *scores;   /* its row of the scores, 0: not written */
};

static inline struct scored describe(ATTENTION_ARGUMENTS, struct work_item item, struct sequence s, int h, int t)
{
    struct scored a;
    int b = item.sequence, i = item.q_begin + t, slot = SCORES ? score_slots[h] : -1;
    a.row = row_of(st, s, b, h, i, q_positions, key_range, alibi, problem);
    a.h = h;
    a.t = t;
    a.shift = 0;
    a.inverse = 1.0f;
    if (KEEP_SUMS) {
        global const float *kept = AT(float, AT(uchar, work) + st.kept.offset + (s.q_index + i) * st.kept.token + h * st.kept.head);
        a.shift = kept[0] == -INFINITY ? 0 : kept[0];
        a.inverse = kept[1] == 0 ? 1.0f : 1.0f / kept[1]; /* 0: it sees nothing, and every weight is 0 by selection */
#ifdef MUTANT_cl_weigh_no_sum
        a.inverse = 1.0f;
#endif
    }
    a.scores = 0;
    if (slot >= 0) {
        long at = SCORE_ROWS ? st.scores.offset + b * st.scores.batch + t * st.scores.token + slot * st.scores.head : query_offset(st.scores, s, b, slot, t);
        a.scores = (global float *)(scores + at);
    }
    return a;
}

static inline bool looks(private const struct scored *a, int j0, int j1)
{
    return (SHOWS_HIDDEN && a->scores) || (a->row.begin < j1 && a->row.end > j0);
}

/* Keys j ... of a row of the scores or sums; count of them may be fewer than 16. */
static inline void write16(float16 x, global float *to, int count)
{
    if (count >= 16) vstore16(x, 0, to);
    else {
        float one[16] ALIGNED;
        PUT(x, one);
        for (int c = 0; c < count; c++) to[c] = one[c];
    }
}

/* Stage 1 of 16 keys: rare, so plain. */
static inline float16 capped16(float16 x, int j, int count, struct row row, global const uchar *mask, global const uchar *bias, struct problem problem)
{
    float one[16] ALIGNED;
    PUT(x, one);
    for (int c = 0; c < min(16, count); c++) {
        float capped = 0;
        logit1(one[c], j + c, row, mask, bias, &capped, problem);
        one[c] = capped;
    }
    return GET(one);
}

/* One row against a panel: its scale q.k at x[PANEL], or 0 where it sees nothing there. sum[16][PANEL]: of its head. */
static inline void finish_row(private const struct scored *a, private const float *x, int j0, int kv_end, global const uchar *mask, global const uchar *bias,
                              private float *sum, struct problem problem)
{
    private float *to = sum + a->t % 16 * PANEL;
#ifdef MUTANT_cl_weigh_lanes
    to = sum + a->t % 8 * PANEL;
#endif
    for (int n = 0; n < PANEL && j0 + n < kv_end; n += 16) {
        int j = j0 + n, count = kv_end - j;
        float16 raw = 0, logit = -INFINITY, p = 0;
        if (x) {
            raw = GET(x + n);
            logit = logits16(raw, j, a->row, mask, bias);
        }
        if (KEEP_SUMS && x) p = logit == (float16)-INFINITY ? (float16)0.0f : exp_16(logit - (float16)a->shift) * (float16)a->inverse;
        if (SCORES && a->scores) {
            float16 shown = SCORES_STAGE == 0 ? raw : SCORES_STAGE == 2 ? logit : p;
            if (SCORES_STAGE == 1) shown = capped16(raw, j, count, a->row, mask, bias, problem);
#ifdef MUTANT_cl_weigh_spill
            if (count < 16) count++;
#endif
            write16(shown, a->scores + j, count);
        }
        if (KEY_SUMS) PUT(a->t < 16 ? p : GET(to + n) + p, to + n);
    }
}

/* own = the sixteen partial sums of a head with `queries` queries, `step` floats from one to the next, by total16()'s tree: those that have no query are 0. */
static inline float16 head_sum(private const float *sum, int queries, int step)
{
    float16 x[16];
    if (queries == 1) return GET(sum);
    UNROLL for (int t = 0; t < 16; t++) x[t] = t < queries ? GET(sum + t * step) : (float16)0.0f;
    UNROLL for (int k = 0; k < 4; k++) x[k] = (x[4 * k] + x[4 * k + 2]) + (x[4 * k + 1] + x[4 * k + 3]);
    return (x[0] + x[1]) + (x[2] + x[3]);
}

/* ---- the work item ----------------------------------------------------------------------- */

/* The rows of a pass against one panel. total[PANEL]: of all heads, where to_total. */
static inline void pass_panel(private const struct scored *rows, int count, private const float *q, private const float *k, int j0, int kv_end, int queries,
                              global const uchar *mask, global const uchar *bias, private float *sum, private float *total, bool to_total,
                              global uchar *key_sums, struct view view, long b, struct problem problem)
{
    float p[MR * PANEL] ALIGNED;
    for (int first = 0; first < count; first += MR) {
        int here = min(MR, count - first);
        bool look = false;
        for (int r = 0; r < here; r++) look = look || looks(rows + first + r, j0, j0 + PANEL);
        if (look) score_rows(here, q + first * Q_STEP, k, p);
        for (int r = 0; r < here; r++) {
            private const struct scored *a = rows + first + r;
            bool sees = look && looks(a, j0, j0 + PANEL);
            if (sees || a->scores || (KEY_SUMS && a->t < 16)) finish_row(a, sees ? p + r * PANEL : 0, j0, kv_end, mask, bias, sum, problem);
            if (!KEY_SUMS || a->t + 1 < queries) continue;
            global float *to = (global float *)(key_sums + view.offset + b * view.batch + a->h * view.head) + j0;
            for (int n = 0; n < PANEL && j0 + n < kv_end; n += 16) {
                float16 own = head_sum(sum + n, queries, PANEL);
#ifdef MUTANT_cl_weigh_last_head
                PUT((float16)0.0f, total + n);
#endif
                if (to_total) PUT(GET(total + n) + own, total + n);
                else write16(own, to + n, kv_end - j0 - n);
            }
        }
    }
}

/* ---- key sums of a step of decode ---------------------------------------------------------- */

#define STEP_ROWS (RT > 8 ? RT : 8) /* query rows with their weights side by side: one query's heads, or all of few queries */
#define STEP(item) (item.reserved == 1 && (item.q_end - item.q_begin == 1 || (item.q_end - item.q_begin) * GROUP <= 8))

/* p[RT][KV_CHUNK] of rows first ... of KV head g, where row n is query q_begin + n / GROUP of head n % GROUP; 0 where hidden. */
static inline void weigh_rows(ATTENTION_ARGUMENTS, struct work_item item, struct sequence s, int g, int first, private float *p)
{
    int rows = (item.q_end - item.q_begin) * GROUP;
    float query[RT * DQ] ALIGNED, k_factor[KV_CHUNK] ALIGNED;
    long k_at[KV_CHUNK + 16];
    struct row row[RT];
    int2 seen = take_rows(ATTENTION_PASSED, item, s, g, first, RT, row, query);
    for (int n = 0; n < RT * KV_CHUNK; n += 16) PUT((float16)0.0f, p + n);
    if (seen.x >= seen.y) return;
    int begin = seen.x / 16 * 16, end = (seen.y + 15) / 16 * 16;
    find_keys(ATTENTION_PASSED, item, s, g, seen.x, seen.y, begin, end, k_at, k_factor, 0, 0);
    score_chunk(query, k, k_at, begin, end, 0, 0, 1, p);
    for (int r = 0; r < RT; r++) {
        int n = min(first + r, rows - 1), i = item.q_begin + n / GROUP, h = g * GROUP + n % GROUP;
        global const float *kept = AT(float, AT(uchar, work) + st.kept.offset + (s.q_index + i) * st.kept.token + h * st.kept.head);
        float shift = kept[0] == -INFINITY ? 0 : kept[0], inverse = kept[1] == 0 ? 1.0f : 1.0f / kept[1];
#ifdef MUTANT_cl_step_no_sum
        inverse = 1.0f;
#endif
        for (int n = begin; n < end; n += 16) {
            private float *at = p + r * KV_CHUNK + n;
            float16 x = GET(at);
            if (HAS_SCALE(K_TYPE)) x *= GET(k_factor + n);
            x = logits16(x * (float16)SCALE, item.kv_begin + n, row[r], mask, bias);
            PUT(x == (float16)-INFINITY ? (float16)0.0f : exp_16(x - (float16)shift) * (float16)inverse, at);
        }
#if 16 % TREE_KEYS && !defined MUTANT_cl_step_beside
        if (end < KV_CHUNK) PUT((float16)0.0f, p + r * KV_CHUNK + end); /* keys that were scored beside the last ones */
#endif
    }
}

ONCE void step_item(ATTENTION_ARGUMENTS, struct work_item item)
{
    struct sequence s = sequences[item.sequence];
    bool together = item.head < 0;
    int queries = item.q_end - item.q_begin, keys = item.kv_end - item.kv_begin;
    float p[STEP_ROWS * KV_CHUNK] ALIGNED, total[KV_CHUNK] ALIGNED;
    for (int n = 0; n < KV_CHUNK; n += 16) PUT((float16)0.0f, total + n);
    for (int g = together ? 0 : item.head; g < (together ? problem.kv_heads : item.head + 1); g++)
        for (int first = 0; first < GROUP; first += RT) { /* heads of the group */
            for (int t = 0; t < queries; t++) weigh_rows(ATTENTION_PASSED, item, s, g, t * GROUP + first, p + t * RT * KV_CHUNK);
            for (int r = 0; r < RT && first + r < GROUP; r++) {
                global float *to = (global float *)(key_sums + st.key_sums.offset + item.sequence * st.key_sums.batch + (g * GROUP + first + r) * st.key_sums.head) + item.kv_begin;
                for (int n = 0; n < keys; n += 16) {
                    float16 own = head_sum(p + r * KV_CHUNK + n, queries, RT * KV_CHUNK);
#ifdef MUTANT_cl_step_last_head
                    PUT((float16)0.0f, total + n);
#endif
                    if (together) PUT(GET(total + n) + own, total + n);
                    else write16(own, to + n, keys - n);
                }
            }
        }
    global float *to = (global float *)(key_sums + st.key_sums.offset + item.sequence * st.key_sums.batch) + item.kv_begin;
    for (int n = 0; together && n < keys; n += 16) write16(GET(total + n), to + n, keys - n);
}

ATTENTION_KERNEL void scores_cpu(ATTENTION_ARGUMENTS)
{
    int number = ITEM_NUMBER;
    if (number >= item_count) return;
    struct work_item item = AT(struct work_item, items)[item_first + number];
    struct sequence s = sequences[item.sequence];
    if (KEY_SUMS && STEP(item)) {
        step_item(ATTENTION_PASSED, item);
        return;
    }
    float kt[KV_CHUNK * HEAD_DIM] ALIGNED, q_rows[PASS * Q_STEP] ALIGNED, sum[(KEY_SUMS ? 16 : 1) * KV_CHUNK] ALIGNED, total[KV_CHUNK] ALIGNED;
    struct scored rows[PASS];
    bool together = item.head < 0;
    int queries = item.q_end - item.q_begin, low = INT_MAX, high = 0;
    for (int n = 0; n < KV_CHUNK; n += 16) PUT((float16)0.0f, total + n);

    for (int i = item.q_begin; i < item.q_end; i++) { /* which keys a query sees does not depend on its head */
        struct row row = row_of(st, s, item.sequence, 0, i, q_positions, key_range, alibi, problem);
        if (row.end == 0) continue;
        low = min(low, row.begin);
        high = max(high, row.end);
    }
    if (SHOWS_HIDDEN) {
        low = 0;
        high = s.kv_len;
    }
    low = max(low, item.kv_begin);
    high = min(high, item.kv_end);

    int first = together ? 0 : item.head, last = together ? problem.kv_heads : item.head + 1;
    for (int g = first; g < last && queries > 0; g++) {
        int h = g * GROUP, end = h + GROUP, t = 0;
        bool once = queries * GROUP <= PASS, turned = false; /* once: a panel takes the place of the one before, in the nearest cache */
        while (h < end && !KEY_SUMS && score_slots[h] < 0) h++;
        while (h < end) {
            int count = 0;
            while (count < PASS && h < end) {
                rows[count] = describe(ATTENTION_PASSED, item, s, h, t);
                copy_query(q + query_offset(st.q, s, item.sequence, h, item.q_begin + t), q_rows + count * Q_STEP);
                count++;
                if (++t < queries) continue;
                t = 0;
                do h++;
                while (h < end && !KEY_SUMS && score_slots[h] < 0);
            }
            for (int r = count; r % MR != 0; r++)
                for (int d = 0; d < Q_STEP; d += 16) PUT((float16)0.0f, q_rows + r * Q_STEP + d);
            for (int j = item.kv_begin; j < item.kv_end; j += PANEL) {
                int n = j - item.kv_begin;
                private float *k_part = kt + (once ? 0 : n * HEAD_DIM);
                if (!turned) copy_panel(ATTENTION_PASSED, s, item.sequence, g, j, low, high, k_part);
                pass_panel(rows, count, q_rows, k_part, j, item.kv_end, queries, mask, bias, sum + (KEY_SUMS ? n * 16 : 0), total + n,
                           together, key_sums, st.key_sums, item.sequence, problem);
            }
            turned = true;
        }
    }
    for (int h = together ? 0 : first * GROUP; KEY_SUMS && (together || queries == 0) && h < (together ? 1 : (first + 1) * GROUP); h++) {
        global float *to = (global float *)(key_sums + st.key_sums.offset + item.sequence * st.key_sums.batch + h * st.key_sums.head);
        for (int j = item.kv_begin; j < item.kv_end; j += 16) write16(GET(total + (j - item.kv_begin)), to + j, item.kv_end - j);
    }
}
