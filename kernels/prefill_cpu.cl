/* SPDX-License-Identifier: MIT
 * prefill_cpu.cl - prefill for devices of type CPU: one work-item per work item, no barriers, vectors of 16 floats over query rows.
 *
 * The arithmetic of src/cpu/panel.inc.h, in its order, so that both wings give the same bits. A work-item owns up to Q_TILE query rows of one
 * head, in panels of W = 16 * N rows. Per block of KEYS keys, counted from key 0, K and V are copied as f32 rows into private arrays; then per panel
 *
 *     S^T [key][row] = K (a scalar broadcast per key and d) x Q^T [d][row]      MR x N vectors in registers, one chain over d per score
 *     m' = max(m, s)   fade = e^(m - m')   p = e^(s - m')   l = l fade + sum p  element-wise, keys in order
 *     O^T [d][row]   = O^T fade + V (a scalar per key and d) x P^T [key][row]   MR x N vectors, one chain over the keys
 *
 * An item of few query rows may have a chunk of the keys: it leaves o, m and l of its rows, which merge.cl puts together in key order.
 *
 * Not for GPUs: the private arrays are 200 KiB and more. Keys that no row of a panel may see are not read. Where V holds NaN or infinity, rows that do
 * not see the key pass it over (0 * NaN would be NaN).
 *
 *   Q_TILE   rows per work item          MR, NV   register tile: 6 x 4 where there are 32 vector registers of 16 floats, 6 x 1 else
 */
#ifndef MR
#define MR 6
#endif
#ifndef NV
#define NV 4
#endif
#define KEYS 96                          /* decides the bits; a multiple of MR */
#define K_STEP (((HEAD_DIM + 15) / 16 | 1) * 16) /* an odd number of cache lines from row to row: they spread over all sets */
#define V_STEP (((V_HEAD_DIM + 15) / 16 | 1) * 16)
#define D_TAIL (V_HEAD_DIM % MR)
#define AHEAD 12                         /* rows fetched per step: a block's within the four steps of two panels */
#define EDGE (2 * MR)                    /* keys per step where some row sees less than the others */

/* Private arrays are 64-byte aligned and go through typed pointers: vstore16 becomes four stores on PoCL 3.1. */
#define PUT(x, p) (*(private float16 *)(p) = (x))
#define GET(p) (*(private const float16 *)(p))
/* Lanes of a, then of b, by number: one shuffle. From a list of elements Intel's CPU driver makes up to fifteen. */
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#define UNROLL _Pragma("unroll")
#define NO_UNROLL _Pragma("unroll 1")

/* ---- register tiles: MR keys, or R dimensions, of a panel of N vectors --------- */

/* M vectors of a panel of N: all, or near a diagonal those that see something.
 * p[MR][16 M of 16 N] = k[MR][HEAD_DIM] q[HEAD_DIM][16 M of 16 N], and the running maximum */
#define SCORE_TILE(M, N)                                                                                                         \
    static inline void score_tile_##M##_##N(private const float *q, private const float *k, private float *p, private float *top) \
    {                                                                                                                            \
        float16 a[MR][M];                                                                                                        \
        UNROLL for (int r = 0; r < MR; r++) UNROLL for (int n = 0; n < M; n++) a[r][n] = 0;                                      \
        NO_UNROLL for (int d = 0; d < HEAD_DIM; d++)                                                                             \
        {                                                                                                                        \
            float16 x[M];                                                                                                        \
            UNROLL for (int n = 0; n < M; n++) x[n] = GET(q + (d * N + n) * 16);                                                 \
            UNROLL for (int r = 0; r < MR; r++)                                                                                  \
            {                                                                                                                    \
                float16 y = (float16)k[r * K_STEP + d];                                                                          \
                UNROLL for (int n = 0; n < M; n++) a[r][n] = fma(y, x[n], a[r][n]);                                              \
            }                                                                                                                    \
        }                                                                                                                        \
        UNROLL for (int n = 0; n < M; n++)                                                                                       \
        {                                                                                                                        \
            float16 best = GET(top + n * 16);                                                                                    \
            UNROLL for (int r = 0; r < MR; r++)                                                                                  \
            {                                                                                                                    \
                PUT(a[r][n], p + (r * N + n) * 16);                                                                              \
                best = LARGER(best, a[r][n]);                                                                                    \
            }                                                                                                                    \
            PUT(best, top + n * 16);                                                                                             \
        }                                                                                                                        \
    }

/* o[R][16 M of 16 N] = o fade + v[keys][R] p[keys][16 M of 16 N] */
#define VALUE_TILE(name, M, N, R)                                                                                                \
    static inline void name(private float *o, private const float *v, private const float *p, int keys, private const float *fade) \
    {                                                                                                                            \
        float16 a[R][M];                                                                                                         \
        UNROLL for (int n = 0; n < M; n++)                                                                                       \
        {                                                                                                                        \
            float16 f = GET(fade + n * 16);                                                                                      \
            UNROLL for (int r = 0; r < R; r++) a[r][n] = GET(o + (r * N + n) * 16) * f;                                          \
        }                                                                                                                        \
        NO_UNROLL for (int j = 0; j < keys; j++)                                                                                 \
        {                                                                                                                        \
            float16 x[M];                                                                                                        \
            UNROLL for (int n = 0; n < M; n++) x[n] = GET(p + (j * N + n) * 16);                                                 \
            UNROLL for (int r = 0; r < R; r++)                                                                                   \
            {                                                                                                                    \
                float16 y = (float16)v[j * V_STEP + r];                                                                          \
                UNROLL for (int n = 0; n < M; n++) a[r][n] = fma(y, x[n], a[r][n]);                                              \
            }                                                                                                                    \
        }                                                                                                                        \
        UNROLL for (int r = 0; r < R; r++) UNROLL for (int n = 0; n < M; n++) PUT(a[r][n], o + (r * N + n) * 16);                \
    }

#if D_TAIL
#define VALUES_TAIL(M, N) value_tail_##M##_##N(o + d * N * 16, v + d, p, keys, fade);
#define VALUE_TILES(M, N) VALUE_TILE(value_tile_##M##_##N, M, N, MR) VALUE_TILE(value_tail_##M##_##N, M, N, D_TAIL)
#else
#define VALUES_TAIL(M, N)
#define VALUE_TILES(M, N) VALUE_TILE(value_tile_##M##_##N, M, N, MR)
#endif

#define PANEL(M, N) PANEL_(M, N)
#define PANEL_(M, N)                                                                                                             \
    SCORE_TILE(M, N)                                                                                                             \
    VALUE_TILES(M, N)                                                                                                            \
    static inline void scores_##M##_##N(private const float *q, private const float *k, private float *p, int keys, private float *top) \
    {                                                                                                                            \
        for (int j = 0; j < keys; j += MR) score_tile_##M##_##N(q, k + j * K_STEP, p + j * N * 16, top);                         \
    }                                                                                                                            \
    static inline void values_##M##_##N(private float *o, private const float *v, private const float *p, int keys,              \
                                        private const float *fade)                                                               \
    {                                                                                                                            \
        int d = 0;                                                                                                               \
        for (; d + MR <= V_HEAD_DIM; d += MR) value_tile_##M##_##N(o + d * N * 16, v + d, p, keys, fade);                        \
        VALUES_TAIL(M, N)                                                                                                        \
    }
/* Do rows of an item see different keys by position? Where they all see every key, panels are always whole, and their parts need not be compiled. */
#define DIFFER (CAUSAL || WINDOW_LEFT >= 0 || WINDOW_RIGHT >= 0 || KEY_RANGE)

PANEL(1, 1)
#if NV > 1 && !DIFFER
PANEL(NV, NV)
#define EACH_LANES(X) EACH_LANES_(X, NV)
#define EACH_LANES_(X, N) X(N, N)
#elif NV == 2
PANEL(1, 2) PANEL(2, 2)
#define EACH_LANES(X) X(1, 2) X(2, 2)
#elif NV == 3
PANEL(1, 3) PANEL(2, 3) PANEL(3, 3)
#define EACH_LANES(X) X(1, 3) X(2, 3) X(3, 3)
#elif NV == 4
PANEL(2, 4) PANEL(4, 4)
#define EACH_LANES(X) X(2, 4) X(4, 4)
#else
#define EACH_LANES(X)
#endif

/* Vectors [first, end) of a panel. */
struct lanes {
    int first, end;
};

static inline void score_lanes(int vectors, struct lanes lanes, private const float *q, private const float *k, private float *p, int keys,
                          private float *top)
{
    int lane = lanes.first * 16, count = lanes.end - lanes.first;
    if (vectors == 1) {
        if (count == 1) scores_1_1(q, k, p, keys, top);
        return;
    }
#define SCORES(M, N) if (count == M) scores_##M##_##N(q + lane, k, p + lane, keys, top + lane);
    EACH_LANES(SCORES)
}

static inline void value_lanes(int vectors, struct lanes lanes, private float *o, private const float *v, private const float *p, int keys,
                          private const float *fade)
{
    int lane = lanes.first * 16, count = lanes.end - lanes.first;
    if (vectors == 1) {
        if (count == 1) values_1_1(o, v, p, keys, fade);
        return;
    }
#define VALUES(M, N) if (count == M) values_##M##_##N(o + lane, v, p + lane, keys, fade + lane);
    EACH_LANES(VALUES)
}

/* The same where V holds NaN or infinity: a weight of -0 marks a hidden key, which takes no part. Rare, so plain. */
static inline void values_carefully(int vectors, private float *o, private const float *v, private const float *p, int keys,
                                    private const float *fade)
{
    for (int d = 0; d < V_HEAD_DIM; d++)
        for (int n = 0; n < vectors; n++) {
            private float *to = o + (d * vectors + n) * 16;
            float16 a = GET(to) * GET(fade + n * 16);
            for (int j = 0; j < keys; j++) {
                float16 w = GET(p + (j * vectors + n) * 16), b = fma((float16)v[j * V_STEP + d], w, a);
#ifdef MUTANT_cl_prefill_zero_times_nan
                a = b;
#else
                a = as_int16(w) == (int16)(int)0x80000000 ? a : b;
#endif
            }
            PUT(a, to);
        }
}

/* ---- the steps of a panel -------------------------------------------------------- */

/* What a panel knows of its rows: 16 at a time they are vectors. */
struct panel {
    int first, vectors, rows;            /* first row in the item; rows <= 16 * vectors */
    int begin_min, begin_max, end_min, end_max; /* of the ranges; rows that see nothing count in end_min alone */
    int begin[NV], end[NV];              /* by vector: smallest begin, largest end; INT_MAX, 0 where no row sees a key */
};

/* Vectors that may see one of the keys [j0, j1): near the diagonal only the later rows. What the others would get are exact zeros. */
static inline struct lanes lanes_of(private const struct panel *a, int j0, int j1)
{
#if !DIFFER
    return (struct lanes){0, a->vectors};
#endif
    struct lanes lanes = {a->vectors, 0};
    for (int n = 0; n < a->vectors; n++) {
        if (a->begin[n] >= j1 || a->end[n] <= j0) continue;
        lanes.first = min(lanes.first, n);
        lanes.end = n + 1;
    }
#if NV == 4 /* by twos: every number of vectors is two more functions to compile */
    lanes.first &= ~1;
    lanes.end = min((lanes.end + 1) & ~1, a->vectors);
#endif
    return lanes;
}

/* A transposition of 16 x 16 in two steps of four, through whole vectors of memory: in one block of code its 64 shuffles take a CPU's driver 0.15 s to
 * compile. First rows 4 r ... 4 r + 3: within each four lanes, [n][r] of t gets elements n, 4 + n, 8 + n, 12 + n of the four rows. */
static inline void turn_rows(float16 a, float16 b, float16 c, float16 d, private float *t, int r)
{
    float16 x = SHUFFLE(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
    float16 y = SHUFFLE(c, d, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
    float16 z = SHUFFLE(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
    float16 w = SHUFFLE(c, d, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
#ifdef MUTANT_cl_prefill_turn
    z = x;
#endif
    PUT(SHUFFLE(x, y, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29), t + r * 16);
    PUT(SHUFFLE(x, y, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31), t + 64 + r * 16);
    PUT(SHUFFLE(z, w, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29), t + 128 + r * 16);
    PUT(SHUFFLE(z, w, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31), t + 192 + r * 16);
}

/* Then to[16][step] = all of column 4 l + n, the fours l of [n][0 ... 3]. */
static inline void turn_fours(private const float *t, private float *to, int step)
{
    NO_UNROLL for (int n = 0; n < 4; n++, t += 64, to += step)
    {
        float16 a = GET(t), b = GET(t + 16), c = GET(t + 32), d = GET(t + 48);
        PUT((float16)(a.s0123, b.s0123, c.s0123, d.s0123), to);
        PUT((float16)(a.s4567, b.s4567, c.s4567, d.s4567), to + 4 * step);
        PUT((float16)(a.s89ab, b.s89ab, c.s89ab, d.s89ab), to + 8 * step);
        PUT((float16)(a.scdef, b.scdef, c.scdef, d.scdef), to + 12 * step);
    }
}

/* to[16 keys][16 rows] = elements j ... of 16 rows of mask (1 shows, 0 hides) or bias, each at base + at[row]; rows end at kv_len. */
static inline float16 sixteen_of_mask(global const uchar *row, int j, int kv_len)
{
    if (j >= kv_len) return 0;
#if MASK_BITS
    int bits = row[j / 8];
    if (j + 8 < kv_len) bits |= row[j / 8 + 1] << 8;
    return convert_float16((int16)bits >> LANES16 & 1);
#else
    if (j + 16 <= kv_len) return convert_float16(convert_int16(vload16(0, row + j)) & 255);
    float one[16] ALIGNED;
    for (int c = 0; c < 16; c++) one[c] = j + c < kv_len ? row[j + c] : 0;
    return GET(one);
#endif
}

static inline float16 sixteen_of_bias(global const uchar *row, int j, int kv_len)
{
    if (j + 16 <= kv_len) return GLUE(load16_, BIAS_TYPE)(row, j, 1.0f);
    float one[16] ALIGNED;
    for (int c = 0; c < 16; c++) one[c] = j + c < kv_len ? GLUE(load1_, BIAS_TYPE)(row, j + c, 1.0f) : 0;
    return GET(one);
}

static inline void columns(bool of_bias, global const uchar *base, private const long *at, int j, int kv_len, private float *to)
{
    float x[256] ALIGNED, t[256] ALIGNED;
    NO_UNROLL for (int r = 0; r < 16; r++)
        PUT(of_bias ? sixteen_of_bias(base + at[r], j, kv_len) : sixteen_of_mask(base + at[r], j, kv_len), x + r * 16);
    NO_UNROLL for (int r = 0; r < 4; r++) turn_rows(GET(x + r * 64), GET(x + r * 64 + 16), GET(x + r * 64 + 32), GET(x + r * 64 + 48), t, r);
    turn_fours(t, to, 16);
}

/* Rules 2 to 5 on p[keys][16 * vectors], keys from j0 on (a multiple of 16), and the maximum once more. */
static inline void terms(int vectors, private float *p, int j0, int keys, int kv_len, private const int *begin, private const int *end,
                         private const float *own, float slope, global const uchar *mask, private const long *mask_at,
                         global const uchar *bias, private const long *bias_at, private const float *m, private float *top)
{
    for (int n = 0; n < vectors; n++) {
        float16 best = GET(m + n * 16);
        int16 from = ((private const int16 *)begin)[n], to = ((private const int16 *)end)[n];
        for (int j = 0; j < keys; j += 16) {
#if MASKED
            float shows[256] ALIGNED;
            columns(false, mask, mask_at + n * 16, j0 + j, kv_len, shows);
#endif
#if BIAS
            float added[256] ALIGNED;
            columns(true, bias, bias_at + n * 16, j0 + j, kv_len, added);
#endif
            for (int y = 0; y < 16 && j + y < keys; y++) {
                private float *at = p + ((j + y) * vectors + n) * 16;
                int key = j0 + j + y;
                float16 x = GET(at);
                int16 visible = (from <= key) & (to > key);
#if MASKED
                visible &= GET(shows + y * 16) != (float16)0.0f;
#endif
#if BIAS
                visible &= GET(added + y * 16) != (float16)-INFINITY;
#if BIAS_FIRST
                x += GET(added + y * 16);
#endif
#endif
#if SOFTCAP_BITS
                x = softcap_16(x, SOFTCAP);
#endif
#if ALIBI
                x = fma((float16)-slope, fabs(GET(own + n * 16) - (float16)(float)key), x);
#endif
#if BIAS && !BIAS_FIRST
                x += GET(added + y * 16);
#endif
                x = visible ? x : (float16)-INFINITY;
                PUT(x, at);
                best = LARGER(best, x);
            }
        }
        PUT(best, top + n * 16);
    }
}

/* m' = top, fade = e^(m - m'), p = e^(s - m'), l = l fade + sum p. A row that has seen nothing keeps m = -infinity; -FLT_MAX stands in for it in
 * differences. mark: hidden keys get the weight -0. */
static inline void softmax(int vectors, private float *p, int keys, bool mark, private const float *top, private float *m, private float *l,
                           private float *fade)
{
    for (int n = 0; n < vectors; n++) {
        float16 new = GET(top + n * 16), base = LARGER((float16)-FLT_MAX, new), f = exp_16(GET(m + n * 16) - base);
        float16 sum = GET(l + n * 16) * f;
        if (mark) {
            for (int j = 0; j < keys; j++) {
                private float *at = p + (j * vectors + n) * 16;
                float16 x = GET(at), e = exp_16(x - base);
                sum += e;
                PUT(x == (float16)-INFINITY ? (float16)-0.0f : e, at);
            }
        } else {
            for (int j = 0; j < keys; j++) {
                private float *at = p + (j * vectors + n) * 16;
                float16 e = exp_16(GET(at) - base);
                sum += e;
                PUT(e, at);
            }
        }
#ifdef MUTANT_cl_prefill_rescale
        f = 1.0f;
#endif
        PUT(new, m + n * 16);
        PUT(sum, l + n * 16);
        PUT(f, fade + n * 16);
    }
}

/* ---- copies ------------------------------------------------------------------------ */

/* to[D] = a row of K as f32; what lies behind D in `to` stays as it is. */
static inline void copy_key(global const uchar *row, float factor, private float *to)
{
    for (int d = 0; d + 16 <= HEAD_DIM; d += 16) PUT(GLUE(load16_, K_TYPE)(row, d, factor), to + d);
    for (int d = HEAD_DIM / 16 * 16; d < HEAD_DIM; d++) to[d] = GLUE(load1_, K_TYPE)(row, d, factor);
}

/* The same of V; x * 0 is 0 for every finite x: NaN in the result tells of the others. */
static inline float16 copy_value(global const uchar *row, float factor, private float *to)
{
    float16 odd = 0;
    for (int d = 0; d + 16 <= V_HEAD_DIM; d += 16) {
        float16 x = GLUE(load16_, V_TYPE)(row, d, factor);
        odd = fma(x, (float16)0.0f, odd);
        PUT(x, to + d);
    }
    for (int d = V_HEAD_DIM / 16 * 16; d < V_HEAD_DIM; d++) {
        to[d] = GLUE(load1_, V_TYPE)(row, d, factor);
        odd += (float16)(to[d] * 0.0f);
    }
    return odd;
}

/* q[d][16 rows] of rows at q_at[16], scale folded in */
#define QUERY(r) (GLUE(load16_, Q_TYPE)(q + at[r], d, 1.0f) * (float16)SCALE)
static inline void copy_queries(global const uchar *q, private const long *at, int vectors, private float *to)
{
    float t[256] ALIGNED;
    NO_UNROLL for (int d = 0; d + 16 <= HEAD_DIM; d += 16)
    {
        NO_UNROLL for (int r = 0; r < 4; r++) turn_rows(QUERY(r * 4), QUERY(r * 4 + 1), QUERY(r * 4 + 2), QUERY(r * 4 + 3), t, r);
        turn_fours(t, to + d * vectors * 16, vectors * 16);
    }
    NO_UNROLL for (int d = HEAD_DIM / 16 * 16; d < HEAD_DIM; d++)
        NO_UNROLL for (int r = 0; r < 16; r++) to[d * vectors * 16 + r] = GLUE(load1_, Q_TYPE)(q + at[r], d, 1.0f) * SCALE;
}

/* o[rows] = acc keep / sum, from acc[d][16 rows]; adding +0 turns -0 into +0: hidden keys may decide its sign. part: o is the workspace, whose rows are f32. */
#define OUTPUT(d) (none ? (float16)0.0f : GET(acc + (d) * vectors * 16) * keep / sum + (float16)0.0f)
static inline void write_rows(bool part, global uchar *o, private const long *at, int rows, private const float *acc, int vectors, float16 l,
                              float16 keep, float16 sum)
{
    int16 none = l == (float16)0.0f;
    float t[256] ALIGNED, x[256] ALIGNED;
    NO_UNROLL for (int d = 0; d + 16 <= V_HEAD_DIM; d += 16)
    {
        NO_UNROLL for (int c = 0; c < 4; c++) turn_rows(OUTPUT(d + c * 4), OUTPUT(d + c * 4 + 1), OUTPUT(d + c * 4 + 2), OUTPUT(d + c * 4 + 3), t, c);
        turn_fours(t, x, 16);
        NO_UNROLL for (int r = 0; r < rows; r++)
        {
            if (part) store16_1(o + at[r], d, GET(x + r * 16));
            else GLUE(store16_, O_TYPE)(o + at[r], d, GET(x + r * 16));
        }
    }
    NO_UNROLL for (int d = V_HEAD_DIM / 16 * 16; d < V_HEAD_DIM; d++)
    {
        PUT(OUTPUT(d), x);
        NO_UNROLL for (int r = 0; r < rows; r++)
        {
            if (part) store1_1(o + at[r], d, x[r]);
            else GLUE(store1_, O_TYPE)(o + at[r], d, x[r]);
        }
    }
}

/* ---- the work item ------------------------------------------------------------------- */

/* Rows of the item in panels of up to NV vectors, the last one perhaps not full; every array is [panels][...][16 * vectors], or [rows]. */
#define ROWS ((Q_TILE + NV * 16 - 1) / (NV * 16) * (NV * 16))

ONCE void prefill_item(ATTENTION_ARGUMENTS, int number)
{
    struct work_item item = AT(struct work_item, items)[item_first + number];
    struct sequence s = sequences[item.sequence];
    int b = item.sequence, h = item.head, g = h / GROUP, rows = item.q_end - item.q_begin;
    float q_all[ROWS * HEAD_DIM] ALIGNED, acc[ROWS * V_HEAD_DIM] ALIGNED, k_rows[(KEYS + MR) * K_STEP] ALIGNED, v_rows[KEYS * V_STEP] ALIGNED;
    float p[(KEYS + MR) * NV * 16] ALIGNED, m[ROWS] ALIGNED, l[ROWS] ALIGNED, top[NV * 16] ALIGNED, fade[NV * 16] ALIGNED, own[ROWS] ALIGNED;
    int begin[ROWS] ALIGNED, end[ROWS] ALIGNED;
    long q_at[ROWS], mask_at[MASKED ? ROWS : 1], bias_at[BIAS ? ROWS : 1];
    float slope = 0;

    /* rows behind the last repeat it, but see everything, so that they never make a block partial; nothing of them is stored */
    int whole = (rows + 15) / 16 * 16;
    for (int r = 0; r < whole; r++) {
        int i = item.q_begin + min(r, rows - 1);
        struct row row = row_in(row_of(st, s, b, h, i, q_positions, key_range, alibi, problem), item);
        begin[r] = r < rows ? row.begin : 0;
        end[r] = r < rows ? row.end : INT_MAX;
        own[r] = (float)row.own;
        slope = row.slope;
        q_at[r] = query_offset(st.q, s, b, h, i);
#if MASKED
        mask_at[r] = row.mask;
#endif
#if BIAS
        bias_at[r] = row.bias;
#endif
        m[r] = -INFINITY;
        l[r] = 0;
    }
    struct panel panel[ROWS / 16];
    int panels = 0, low = INT_MAX, high = 0;
    for (int r = 0; r < rows; panels++) {
        struct panel a = {r, rows - r > NV * 8 ? NV : 1, 0, INT_MAX, 0, INT_MAX, 0, {0}, {0}};
        a.rows = min(rows - r, a.vectors * 16);
        for (int n = 0; n < a.vectors; n++) a.begin[n] = INT_MAX;
        for (int n = 0; n < a.vectors; n++) {
            if (r + n * 16 >= whole) { /* a wide panel that is not full */
                for (int y = r + n * 16; y < r + n * 16 + 16; y++) {
                    begin[y] = 0;
                    end[y] = INT_MAX;
                    own[y] = 0;
                    q_at[y] = q_at[rows - 1];
#if MASKED
                    mask_at[y] = mask_at[rows - 1];
#endif
#if BIAS
                    bias_at[y] = bias_at[rows - 1];
#endif
                    m[y] = -INFINITY;
                    l[y] = 0;
                }
            }
            copy_queries(q, q_at + r + n * 16, a.vectors, q_all + r * HEAD_DIM + n * 16);
        }
        for (int x = 0; x < a.vectors * V_HEAD_DIM; x++) PUT((float16)0.0f, acc + r * V_HEAD_DIM + x * 16);
        for (int y = r; y < r + a.rows; y++) {
            a.end_min = min(a.end_min, end[y]);
            if (end[y] == 0) continue;
            a.begin_min = min(a.begin_min, begin[y]);
            a.begin_max = max(a.begin_max, begin[y]);
            a.end_max = max(a.end_max, end[y]);
            int n = (y - r) / 16;
            a.begin[n] = min(a.begin[n], begin[y]);
            a.end[n] = max(a.end[n], end[y]);
        }
        low = min(low, a.begin_min);
        high = max(high, a.end_max);
        panel[panels] = a;
        r += a.rows;
    }

    for (int block = high ? low / KEYS * KEYS : 0; block < high; block += KEYS) {
        /* keys of the block that somebody may see, from a multiple of 16 on: there masks of bits can be loaded */
        int first = max(block, low / 16 * 16), last = min(block + KEYS, high);
        float16 odd = 0;
        for (int j = first; j < last; j++) {
            float k_factor = HAS_SCALE(K_TYPE) ? AT(float, k_scale + key_offset(st.k_scale, s, page_table, b, g, j, problem))[0] : 1.0f;
            float v_factor = HAS_SCALE(V_TYPE) ? AT(float, v_scale + key_offset(st.v_scale, s, page_table, b, g, j, problem))[0] : 1.0f;
            copy_key(k + key_offset(st.k, s, page_table, b, g, j, problem), k_factor, k_rows + (j - block) * K_STEP);
            odd += copy_value(v + key_offset(st.v, s, page_table, b, g, j, problem), v_factor, v_rows + (j - block) * V_STEP);
        }
        bool finite = total16(odd) == 0;
        int ahead = last, soon = min(last + KEYS, high); /* rows of the next block, fetched a few at a time while this one is worked on */

        for (int n = 0; n < panels; n++) {
            struct panel a = panel[n];
            int j0 = max(block, a.begin_min / 16 * 16), j1 = min(block + KEYS, a.end_max), keys = j1 - j0, r = a.first;
            if (a.begin_min >= j1 || j0 >= j1) continue;
            int tiles = (keys + MR - 1) / MR * MR; /* the last tile may compute keys that are not there; nobody looks at them */
            private const float *k_part = k_rows + (j0 - block) * K_STEP, *v_part = v_rows + (j0 - block) * V_STEP;
            bool outside = a.begin_max > j0 || a.end_min < j1;
            for (int x = 0; x < a.vectors; x++) PUT(GET(m + r + x * 16), top + x * 16);
            for (int x = 0, step = outside ? EDGE : 4 * MR; x < tiles; x += step) {
                for (int y = 0; y < AHEAD && ahead < soon; y++, ahead++) {
                    fetch_row(k + key_offset(st.k, s, page_table, b, g, ahead, problem), K_BYTES);
                    fetch_row(v + key_offset(st.v, s, page_table, b, g, ahead, problem), V_BYTES);
                }
                score_lanes(a.vectors, lanes_of(&a, j0 + x, j0 + x + step), q_all + r * HEAD_DIM, k_part + x * K_STEP, p + x * a.vectors * 16,
                       min(step, tiles - x), top);
            }
            if (outside || ALTERED || MASKED || tiles > keys)
                terms(a.vectors, p, j0, keys, s.kv_len, begin + r, end + r, own + r, slope, mask, mask_at + (MASKED ? r : 0), bias,
                      bias_at + (BIAS ? r : 0), m + r, top);
            softmax(a.vectors, p, keys, !finite, top, m + r, l + r, fade);
            if (!finite) {
                values_carefully(a.vectors, acc + r * V_HEAD_DIM, v_part, p, keys, fade);
                continue;
            }
            for (int x = 0, next; x < keys; x = next) { /* runs of steps with the same vectors; the first one that holds a vector rescales it */
                next = outside ? min(x + EDGE, keys) : keys;
                struct lanes lanes = lanes_of(&a, j0 + x, j0 + next);
                while (next < keys) {
                    struct lanes more = lanes_of(&a, j0 + next, j0 + min(next + EDGE, keys));
                    if (more.first != lanes.first || more.end != lanes.end) break;
                    next = min(next + EDGE, keys);
                }
                value_lanes(a.vectors, lanes, acc + r * V_HEAD_DIM, v_part + x * V_STEP, p + x * a.vectors * 16, next - x, fade);
                for (int y = lanes.first; y < lanes.end; y++) PUT((float16)1.0f, fade + y * 16);
            }
        }
    }

    for (int n = 0; n < panels; n++) {
        struct panel a = panel[n];
        for (int x = 0; x < a.rows; x += 16) {
            float keep[16] ALIGNED, sum[16] ALIGNED;
            long o_at[16];
            for (int y = 0; y < 16; y++) {
                int r = a.first + min(x + y, a.rows - 1), i = item.q_begin + r;
                if (item.part >= 0) {
                    global float *sums = part_sums(work, part_rows, (long)item.part + r, problem);
                    sums[0] = m[r];
                    sums[1] = l[r];
                    keep[y] = sum[y] = 1;
                    o_at[y] = ((long)item.part + r) * V_HEAD_DIM * sizeof(float);
                    continue;
                }
                float2 by = end_row(m[r], l[r], st, s, b, h, i, lse, sinks, x + y < a.rows, problem);
                keep[y] = by.s0;
                sum[y] = by.s1;
                o_at[y] = query_offset(st.o, s, b, h, i);
            }
            write_rows(item.part >= 0, item.part >= 0 ? (global uchar *)work : o, o_at, min(16, a.rows - x), acc + a.first * V_HEAD_DIM + x, a.vectors,
                       GET(l + a.first + x), GET(keep), GET(sum));
        }
    }
}

ATTENTION_KERNEL void prefill_cpu(ATTENTION_ARGUMENTS)
{
    int number = ITEM_NUMBER;
    if (number < item_count) prefill_item(ATTENTION_PASSED, number);
}
