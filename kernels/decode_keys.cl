/* SPDX-License-Identifier: MIT
 * decode_keys.cl - dot products of the few query rows of one KV head's group with a chunk of keys where they lie: the first half of decode.cl, and of key sums of a step of
 * decode (scores_cpu.cl). No kernel.
 *
 *     s[r][key] = sum_d q[r][d] k[key][d]        16 lanes over d, then a tree
 *
 * DOTS: q and k are bf16 and multiplied as such (dots.cl), two to a cell; d is summed two at a time.
 *
 *   REGISTERS     vector registers of 16 floats (32, or 8 for 16 registers of half the size): how many rows x keys are summed side by side
 */
#ifndef REGISTERS
#define REGISTERS 32
#endif
#ifndef DOTS
#define DOTS 0
#endif
#define RT (GROUP < 8 ? GROUP : 8)            /* rows at a time */
#define TREE_KEYS (16 / RT)                   /* keys whose sums make one tree of 16 vectors */
#define SIDE (REGISTERS >= 32 ? TREE_KEYS : RT >= 4 ? 1 : 4 / RT) /* keys side by side; TREE_KEYS is a multiple of it */
#define CELL (DOTS ? 2 : 1)                   /* elements of q and k in a word */
#define DQ ((HEAD_DIM + CELL * 16 - 1) / (CELL * 16) * 16) /* words */

#define AHEAD 32 /* keys between use and fetch */
#define PUT(x, p) (*(private float16 *)(p) = (x))
#define GET(p) (*(private const float16 *)(p))

#if DOTS
typedef uint16 words;
#define load_query(row, d) load_cells(row, 2 * (d), HEAD_DIM)
#define load_key(row, d) load_cells(row, 2 * (d), HEAD_DIM)
#define MULTIPLY_ADD(x, y, a) add_products(a, x, y)
#else
typedef float16 words;
#define MULTIPLY_ADD(x, y, a) fma(x, y, a)
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
#endif
#define WORDS(p) (*(private words *)(p))
/* Do rows of K and V become floats once for all tiles of rows, more than two? Not those of 16 bits: what that saves the copy costs. And where functions can be kept apart (ONCE): with
 * Intel's compiler a program that has these loops twice takes 0.6 s longer to build, and a token alone 8 % longer. */
#define WIDEN(type) (GUARD && !DOTS && (type) != TYPE_F32 && (type) != TYPE_F16 && (type) != TYPE_BF16)

#define ZIP_LOW(a, b) (float16)(a.s0, b.s0, a.s1, b.s1, a.s2, b.s2, a.s3, b.s3, a.s4, b.s4, a.s5, b.s5, a.s6, b.s6, a.s7, b.s7)
#define ZIP_HIGH(a, b) (float16)(a.s8, b.s8, a.s9, b.s9, a.sa, b.sa, a.sb, b.sb, a.sc, b.sc, a.sd, b.sd, a.se, b.se, a.sf, b.sf)

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

/* p[RT][KV_CHUNK] of TREE_KEYS keys from place n on: dot products of RT rows. COPIED: the keys are in copies[TREE_KEYS][DQ]; else at k + at[n]. */
#define SCORE_KEYS(name, COPIED)                                                                                                 \
    static inline void name(private const float *q, global const uchar *k, private const long *at, private const float *copies, int n, private float *p) \
    {                                                                                                                            \
        float16 sum[16];                                                                                                         \
        float scores[16] ALIGNED;                                                                                                \
        _Pragma("unroll") for (int x = 0; x < 16; x++) sum[x] = 0;                                                               \
        _Pragma("unroll") for (int first = 0; first < TREE_KEYS; first += SIDE)                                                  \
        {                                                                                                                        \
            float16 a[RT * SIDE];                                                                                                \
            _Pragma("unroll") for (int x = 0; x < RT * SIDE; x++) a[x] = 0;                                                      \
            _Pragma("unroll 4") for (int d = 0; d < DQ; d += 16)                                                                 \
            {                                                                                                                    \
                words key[SIDE];                                                                                                 \
                _Pragma("unroll") for (int x = 0; x < SIDE; x++)                                                                 \
                    key[x] = COPIED ? WORDS(copies + (first + x) * DQ + d) : load_key(k + at[n + first + x], d);                 \
                _Pragma("unroll") for (int r = 0; r < RT; r++)                                                                   \
                {                                                                                                                \
                    words y = WORDS(q + r * DQ + d);                                                                             \
                    _Pragma("unroll") for (int x = 0; x < SIDE; x++) a[r * SIDE + x] = MULTIPLY_ADD(key[x], y, a[r * SIDE + x]); \
                }                                                                                                                \
            }                                                                                                                    \
            _Pragma("unroll") for (int r = 0; r < RT; r++) _Pragma("unroll") for (int x = 0; x < SIDE; x++)                      \
                sum[r * TREE_KEYS + first + x] = a[r * SIDE + x];                                                                \
        }                                                                                                                        \
        PUT(tree16(sum), scores);                                                                                                \
        _Pragma("unroll") for (int r = 0; r < RT; r++) _Pragma("unroll") for (int x = 0; x < TREE_KEYS; x++)                     \
            p[r * KV_CHUNK + n + x] = scores[r * TREE_KEYS + x];                                                                 \
    }
SCORE_KEYS(score_keys, 0)
#if WIDEN(K_TYPE)
SCORE_KEYS(score_copies, 1)
#endif

/* Rows [first, first + count) of an item of KV head g, where row n is query q_begin + n / GROUP of head n % GROUP: what they see, and their queries. Rows behind the last
 * repeat it; nothing of them is stored. Places [x, y) of the chunk hold every key that one of them may see; x >= y: none. */
static inline int2 take_rows(ATTENTION_ARGUMENTS, struct work_item item, struct sequence s, int g, int first, int count, private struct row *row, private float *query)
{
    int rows = (item.q_end - item.q_begin) * GROUP, b = item.sequence, lo = KV_CHUNK, hi = 0;
    for (int r = 0; r < count; r++) {
        int n = min(first + r, rows - 1), i = item.q_begin + n / GROUP, h = g * GROUP + n % GROUP;
        row[r] = row_of(st, s, b, h, i, q_positions, key_range, alibi, problem);
        int from = clamp(row[r].begin - item.kv_begin, 0, KV_CHUNK), to = clamp(row[r].end - item.kv_begin, 0, item.kv_end - item.kv_begin);
        if (from < to) {
            lo = min(lo, from);
            hi = max(hi, to);
        }
        global const uchar *q_row = q + query_offset(st.q, s, b, h, i);
        for (int d = 0; d < DQ; d += 16) WORDS(query + r * DQ + d) = load_query(q_row, d);
    }
    return (int2)(lo, hi);
}

/* Where the keys of places [begin, end) lie, multiples of 16, and their values, if v_at is not 0, and the scales of both. What lies beside [lo, hi) repeats a neighbour
 * and is hidden; so do 16 places of keys further on, since TREE_KEYS need not divide 16. */
static inline void find_keys(ATTENTION_ARGUMENTS, struct work_item item, struct sequence s, int g, int lo, int hi, int begin, int end, private long *k_at,
                             private float *k_factor, private long *v_at, private float *v_factor)
{
    int b = item.sequence;
    for (int n = begin; n < end; n++) {
        int j = item.kv_begin + clamp(n, lo, hi - 1);
        k_at[n] = key_offset(st.k, s, page_table, b, g, j, problem);
        if (HAS_SCALE(K_TYPE)) k_factor[n] = AT(float, k_scale + key_offset(st.k_scale, s, page_table, b, g, j, problem))[0];
        if (!v_at) continue;
        v_at[n] = key_offset(st.v, s, page_table, b, g, j, problem);
        if (HAS_SCALE(V_TYPE)) v_factor[n] = AT(float, v_scale + key_offset(st.v_scale, s, page_table, b, g, j, problem))[0];
    }
    for (int n = end; n < end + 16; n++) k_at[n] = k_at[end - 1];
}

/* p[tiles][RT][KV_CHUNK] of places [begin, end), multiples of 16; k_at is filled 16 places further. All tiles of rows take a key while it is near. Keys are fetched before
 * their turn, and then the first rows of v, if not 0, which is what comes next. */
static inline void score_chunk(private const float *q, global const uchar *k, private const long *k_at, int begin, int end, global const uchar *v, private const long *v_at,
                               int tiles, private float *p)
{
    for (int n = begin; n + TREE_KEYS <= KV_CHUNK && n < end; n += TREE_KEYS) {
        for (int x = n + AHEAD; x < n + AHEAD + TREE_KEYS; x++)
            if (x < end) fetch_row(k + k_at[x], K_BYTES);
            else if (v) fetch_row(v + v_at[min(begin + x - end, end - 1)], V_BYTES);
#if WIDEN(K_TYPE)
        if (tiles > 2) {
            float copies[TREE_KEYS * DQ] ALIGNED;
            _Pragma("unroll 1") for (int x = 0; x < TREE_KEYS; x++)
#ifdef MUTANT_cl_decode_copied_keys
                _Pragma("unroll 1") for (int d = 0; d < DQ; d += 16) WORDS(copies + x * DQ + d) = load_key(k + k_at[n], d);
#else
                _Pragma("unroll 1") for (int d = 0; d < DQ; d += 16) WORDS(copies + x * DQ + d) = load_key(k + k_at[n + x], d);
#endif
            for (int t = 0; t < tiles; t++) score_copies(q + t * RT * DQ, k, k_at, copies, n, p + t * RT * KV_CHUNK);
            continue;
        }
#endif
        for (int t = 0; t < tiles; t++) score_keys(q + t * RT * DQ, k, k_at, 0, n, p + t * RT * KV_CHUNK);
    }
#if 16 % TREE_KEYS
    /* TREE_KEYS does not divide the chunk: its last keys once more, together with their neighbours */
    for (int t = 0; end + TREE_KEYS > KV_CHUNK && t < tiles; t++) score_keys(q + t * RT * DQ, k, k_at, 0, KV_CHUNK - TREE_KEYS, p + t * RT * KV_CHUNK);
#endif
}
