/* SPDX-License-Identifier: MIT
 * decode.cl - the few query rows of one KV head's group against one chunk of keys, on devices of type CPU: one work-item per work item, no barriers.
 *
 * The arithmetic of src/cpu/decode.inc.h, in its order. Rows are taken RT at a time, so that they share each key while it is at hand:
 *
 *     s[r][key] = sum_d q[r][d] k[key][d]        16 lanes over d, then a tree
 *     m = max s   p = e^(s - m)   l = sum p      over the chunk; sum: 16 lanes over the keys, then the tree
 *     acc[r][d] = sum_key p[r][key] v[key][d]    one chain over the keys that the row sees
 *
 * (acc, m, l) go to the workspace for merge.cl, or, where the item is all there is, o and lse are written at once. GPUs take decode_lanes.cl.
 *
 *   KV_CHUNK      keys per work item (512): decides the bits
 *   REGISTERS     vector registers of 16 floats (32, or 8 for 16 registers of half the size): how many rows x keys are summed side by side
 */
#ifndef REGISTERS
#define REGISTERS 32
#endif
#define RT (GROUP < 8 ? GROUP : 8)            /* rows at a time */
#define TREE_KEYS (16 / RT)                   /* keys whose sums make one tree of 16 vectors */
#define SIDE (REGISTERS >= 32 ? TREE_KEYS : RT >= 4 ? 1 : 4 / RT) /* keys side by side; TREE_KEYS is a multiple of it */
#define COLUMNS (REGISTERS >= 32 ? (RT <= 2 ? 8 : RT <= 5 ? 4 : 2) : (RT <= 4 ? 1 : 1)) /* vectors of dimensions at a time */
#define DQ ((HEAD_DIM + 15) / 16 * 16)
#define DV ((V_HEAD_DIM + 15) / 16 * 16)
#define V_VECTORS (DV / 16)

#define AHEAD 32 /* keys between use and fetch */
#define BLOCK 64 /* keys whose values are still in cache when the next columns come to them */
#define PUT(x, p) (*(private float16 *)(p) = (x))
#define GET(p) (*(private const float16 *)(p))

/* 16 elements of a row from d on, or those up to n and zeros. */
#define LOADER(name, type, n)                                                                                                    \
    static inline float16 name(global const uchar *row, int d)                                                                   \
    {                                                                                                                            \
        if (d + 16 <= n) return GLUE(load16_, type)(row, d, 1.0f);                                                               \
        float one[16] ALIGNED;                                                                                                   \
        for (int c = 0; c < 16; c++) one[c] = d + c < n ? GLUE(load1_, type)(row, d + c, 1.0f) : 0;                              \
        return GET(one);                                                                                                         \
    }
LOADER(load_query, Q_TYPE, HEAD_DIM)
LOADER(load_key, K_TYPE, HEAD_DIM)
LOADER(load_value, V_TYPE, V_HEAD_DIM)

/* total16() of 16 vectors at once: lane n of the result is that of x[n]. */
static inline float16 tree16(private const float16 *x)
{
    float16 y[8], z[4], w[2];
#pragma unroll
    for (int n = 0; n < 8; n++) {
        float16 a = x[2 * n], b = x[2 * n + 1];
        y[n] = (float16)(a.s0, a.s1, b.s0, b.s1, a.s4, a.s5, b.s4, b.s5, a.s8, a.s9, b.s8, b.s9, a.sc, a.sd, b.sc, b.sd) +
               (float16)(a.s2, a.s3, b.s2, b.s3, a.s6, a.s7, b.s6, b.s7, a.sa, a.sb, b.sa, b.sb, a.se, a.sf, b.se, b.sf);
    }
#pragma unroll
    for (int n = 0; n < 4; n++) {
        float16 a = y[2 * n], b = y[2 * n + 1];
        z[n] = (float16)(a.s0, a.s2, b.s0, b.s2, a.s4, a.s6, b.s4, b.s6, a.s8, a.sa, b.s8, b.sa, a.sc, a.se, b.sc, b.se) +
               (float16)(a.s1, a.s3, b.s1, b.s3, a.s5, a.s7, b.s5, b.s7, a.s9, a.sb, b.s9, b.sb, a.sd, a.sf, b.sd, b.sf);
    }
#pragma unroll
    for (int n = 0; n < 2; n++) {
        float16 a = z[2 * n], b = z[2 * n + 1];
        w[n] = (float16)(a.s0123, a.s89ab, b.s0123, b.s89ab) + (float16)(a.s4567, a.scdef, b.s4567, b.scdef);
    }
    return (float16)(w[0].s0123, w[0].s89ab, w[1].s0123, w[1].s89ab) + (float16)(w[0].s4567, w[0].scdef, w[1].s4567, w[1].scdef);
}

/* p[RT][KV_CHUNK] of TREE_KEYS keys from place n on: dot products of RT rows. */
static inline void score_keys(private const float *q, global const uchar *k, private const long *at, int n, private float *p)
{
    float16 sum[16];
    float scores[16] ALIGNED;
#pragma unroll
    for (int x = 0; x < 16; x++) sum[x] = 0;
#pragma unroll
    for (int first = 0; first < TREE_KEYS; first += SIDE) {
        float16 a[RT * SIDE];
#pragma unroll
        for (int x = 0; x < RT * SIDE; x++) a[x] = 0;
#pragma unroll 1
        for (int d = 0; d < DQ; d += 16) {
            float16 key[SIDE];
#pragma unroll
            for (int x = 0; x < SIDE; x++) key[x] = load_key(k + at[n + first + x], d);
#pragma unroll
            for (int r = 0; r < RT; r++) {
                float16 y = GET(q + r * DQ + d);
#pragma unroll
                for (int x = 0; x < SIDE; x++) a[r * SIDE + x] = fma(key[x], y, a[r * SIDE + x]);
            }
        }
#pragma unroll
        for (int r = 0; r < RT; r++)
#pragma unroll
            for (int x = 0; x < SIDE; x++) sum[r * TREE_KEYS + first + x] = a[r * SIDE + x];
    }
    PUT(tree16(sum), scores);
#pragma unroll
    for (int r = 0; r < RT; r++)
#pragma unroll
        for (int x = 0; x < TREE_KEYS; x++) p[r * KV_CHUNK + n + x] = scores[r * TREE_KEYS + x];
}

/* acc[RT][C vectors] += places [lo, hi): seen[n] has a bit for each row that sees the key. The same columns of the next block are
 * fetched meanwhile, so that memory is never idle; `last` is the end of all keys. */
#define VALUES(name, C)                                                                                                          \
    static inline void name(private const float *p, private const uchar *seen, global const uchar *v, private const long *at, int lo, \
                            int hi, int last, int d, private float *acc)                                                         \
    {                                                                                                                            \
        float16 a[RT][C];                                                                                                        \
        _Pragma("unroll") for (int r = 0; r < RT; r++) _Pragma("unroll") for (int c = 0; c < C; c++)                             \
            a[r][c] = GET(acc + r * DV + d + c * 16);                                                                            \
        for (int n = lo; n < hi; n++) {                                                                                          \
            uint rows = seen[n];                                                                                                 \
            if (!rows) continue;                                                                                                 \
            if (n + BLOCK < last) fetch_row(v + at[n + BLOCK] + ROW_BYTES(V_TYPE, d), ROW_BYTES(V_TYPE, (C * 16 + 31) / 32 * 32)); \
            float16 x[C];                                                                                                        \
            _Pragma("unroll") for (int c = 0; c < C; c++) x[c] = load_value(v + at[n], d + c * 16);                              \
            if (rows == (1u << RT) - 1) {                                                                                        \
                _Pragma("unroll") for (int r = 0; r < RT; r++) _Pragma("unroll") for (int c = 0; c < C; c++)                     \
                    a[r][c] = fma((float16)p[r * KV_CHUNK + n], x[c], a[r][c]);                                                  \
            } else {                                                                                                             \
                _Pragma("unroll") for (int r = 0; r < RT; r++) if (rows >> r & 1)                                                \
                    _Pragma("unroll") for (int c = 0; c < C; c++) a[r][c] = fma((float16)p[r * KV_CHUNK + n], x[c], a[r][c]);    \
            }                                                                                                                    \
        }                                                                                                                        \
        _Pragma("unroll") for (int r = 0; r < RT; r++) _Pragma("unroll") for (int c = 0; c < C; c++)                             \
            PUT(a[r][c], acc + r * DV + d + c * 16);                                                                             \
    }
VALUES(values_of, COLUMNS)
#if V_VECTORS % COLUMNS
VALUES(values_of_tail, (V_VECTORS % COLUMNS))
#endif

ONCE void decode_item(ATTENTION_ARGUMENTS, int number)
{
    struct work_item item = AT(struct work_item, items)[item_first + number];
    struct sequence s = sequences[item.sequence];
    int b = item.sequence, g = item.head, rows = (item.q_end - item.q_begin) * GROUP, chunk = item.kv_begin;
    float query[RT * DQ] ALIGNED, p[RT * KV_CHUNK] ALIGNED, acc[RT * DV] ALIGNED, k_factor[KV_CHUNK] ALIGNED, v_factor[KV_CHUNK] ALIGNED;
    long k_at[KV_CHUNK + 16], v_at[KV_CHUNK];
    uchar seen[KV_CHUNK] ALIGNED;

    for (int first = 0; first < rows; first += RT) {
        /* rows behind the last repeat it; nothing of them is stored */
        struct row row[RT];
        int lo = KV_CHUNK, hi = 0;
        for (int r = 0; r < RT; r++) {
            int n = min(first + r, rows - 1), i = item.q_begin + n / GROUP, h = g * GROUP + n % GROUP;
            row[r] = row_of(st, s, b, h, i, q_positions, key_range, alibi, problem);
            int from = clamp(row[r].begin - chunk, 0, KV_CHUNK), to = clamp(row[r].end - chunk, 0, item.kv_end - chunk);
            if (from < to) {
                lo = min(lo, from);
                hi = max(hi, to);
            }
            global const uchar *q_row = q + query_offset(st.q, s, b, h, i);
            for (int d = 0; d < DQ; d += 16) PUT(load_query(q_row, d), query + r * DQ + d);
        }
        float m[RT], l[RT];
        for (int r = 0; r < RT; r++) {
            m[r] = -INFINITY;
            l[r] = 0;
        }
        for (int x = 0; x < RT * DV; x += 16) PUT((float16)0.0f, acc + x);

        if (lo < hi) {
            /* whole vectors of 16 keys; what lies beside [lo, hi) repeats a neighbour and is hidden */
            int begin = lo / 16 * 16, end = (hi + 15) / 16 * 16;
            for (int n = begin; n < end; n++) {
                int j = chunk + clamp(n, lo, hi - 1);
                k_at[n] = key_offset(st.k, s, page_table, b, g, j, problem);
                v_at[n] = key_offset(st.v, s, page_table, b, g, j, problem);
                if (HAS_SCALE(K_TYPE)) k_factor[n] = AT(float, k_scale + key_offset(st.k_scale, s, page_table, b, g, j, problem))[0];
                if (HAS_SCALE(V_TYPE)) v_factor[n] = AT(float, v_scale + key_offset(st.v_scale, s, page_table, b, g, j, problem))[0];
                seen[n] = 0;
            }
            for (int n = end; n < end + 16; n++) k_at[n] = k_at[end - 1]; /* TREE_KEYS need not divide 16 */
            for (int n = begin; n + TREE_KEYS <= KV_CHUNK && n < end; n += TREE_KEYS) {
                for (int x = n + AHEAD; x < n + AHEAD + TREE_KEYS; x++)
                    if (x < end) fetch_row(k + k_at[x], K_BYTES);
                    else fetch_row(v + v_at[min(begin + x - end, end - 1)], V_BYTES);
                score_keys(query, k, k_at, n, p);
            }
#if 16 % TREE_KEYS
            /* TREE_KEYS does not divide the chunk: its last keys once more, together with their neighbours */
            if (end + TREE_KEYS > KV_CHUNK) score_keys(query, k, k_at, KV_CHUNK - TREE_KEYS, p);
#endif
            for (int r = 0; r < RT; r++) {
                float16 top = -INFINITY, sum = 0;
                for (int n = begin; n < end; n += 16) {
                    private float *at = p + r * KV_CHUNK + n;
                    float16 x = GET(at);
                    if (HAS_SCALE(K_TYPE)) x *= GET(k_factor + n);
                    x *= (float16)SCALE;
#if ALTERED || MASKED
                    x = logits16(x, chunk + n, row[r], mask, bias);
#else
                    int16 key = chunk + n + LANES16;
                    x = (key >= row[r].begin) & (key < row[r].end) ? x : (float16)-INFINITY;
#endif
                    PUT(x, at);
                    top = LARGER(top, x);
                }
                m[r] = largest16(top);
                float base = m[r] == -INFINITY ? 0 : m[r];
                for (int n = begin; n < end; n += 16) {
                    private float *at = p + r * KV_CHUNK + n;
                    float16 x = GET(at), e = exp_16(x - (float16)base);
                    int16 hidden = x == (float16)-INFINITY;
                    sum += e;
                    if (HAS_SCALE(V_TYPE)) e *= GET(v_factor + n);
                    PUT(e, at);
#ifdef MUTANT_cl_decode_hidden_values
                    hidden = 0;
#endif
                    *(private uchar16 *)(seen + n) |= convert_uchar16((hidden + 1) << r);
                }
                l[r] = total16(sum);
            }
            for (int n = lo; n < hi; n += BLOCK) {
                int d = 0, next = min(n + BLOCK, hi);
#ifdef MUTANT_cl_decode_block
                if (n > lo)
                    for (int x = 0; x < RT * DV; x += 16) PUT((float16)0.0f, acc + x);
#endif
                for (; d + COLUMNS * 16 <= DV; d += COLUMNS * 16) values_of(p, seen, v, v_at, n, next, hi, d, acc);
#if V_VECTORS % COLUMNS
                values_of_tail(p, seen, v, v_at, n, next, hi, d, acc);
#endif
            }
        }

        for (int r = 0; r < RT && first + r < rows; r++) {
            int n = first + r, i = item.q_begin + n / GROUP, h = g * GROUP + n % GROUP;
            if (item.part >= 0) {
                global float *to = work + ((long)item.part + n) * V_HEAD_DIM, *sums = part_sums(work, part_rows, (long)item.part + n, problem);
                for (int d = 0; d + 16 <= V_HEAD_DIM; d += 16) vstore16(GET(acc + r * DV + d), 0, to + d);
                for (int d = V_HEAD_DIM / 16 * 16; d < V_HEAD_DIM; d++) to[d] = acc[r * DV + d];
                sums[0] = m[r];
                sums[1] = l[r];
            } else {
                float2 by = end_row(m[r], l[r], st, s, b, h, i, lse, sinks, true, problem);
                global uchar *to = o + query_offset(st.o, s, b, h, i);
                for (int d = 0; d < DV; d += 16)
                    PUT(l[r] == 0 ? (float16)0.0f : GET(acc + r * DV + d) * by.s0 / (float16)by.s1, acc + r * DV + d);
                for (int d = 0; d + 16 <= V_HEAD_DIM; d += 16) GLUE(store16_, O_TYPE)(to, d, GET(acc + r * DV + d));
                for (int d = V_HEAD_DIM / 16 * 16; d < V_HEAD_DIM; d++) GLUE(store1_, O_TYPE)(to, d, acc[r * DV + d]);
            }
        }
    }
}

ATTENTION_KERNEL void decode_cpu(ATTENTION_ARGUMENTS)
{
    int number = ITEM_NUMBER;
    if (number < item_count) decode_item(ATTENTION_PASSED, number);
}
