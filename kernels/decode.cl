/* SPDX-License-Identifier: MIT
 * decode.cl - the few query rows of one KV head's group against one chunk of keys, on devices of type CPU: one work-item per work item, no barriers.
 *
 * The arithmetic of src/cpu/decode.inc.h, in its order. Rows are taken RT at a time, so that they share each key while it is at hand, and TILES of such tiles go over
 * the keys together, so that a tile finds near what the one before it took:
 *
 *     s[r][key] = sum_d q[r][d] k[key][d]        16 lanes over d, then a tree
 *     m = max s   p = e^(s - m)   l = sum p      over the chunk; sum: 16 lanes over the keys, then the tree
 *     acc[r][d] = sum_key p[r][key] v[key][d]    one chain over the keys that the row sees
 *
 * Where keys and values are narrower than 16 bits and there are more than two tiles, they become floats once for all of them: what is narrow costs as much as the fmas of two rows.
 *
 * (acc, m, l) go to the workspace for merge.cl, or, where the item is all there is, o and lse are written at once. GPUs take decode_lanes.cl.
 *
 * DOTS: q, k and v are bf16 and multiplied as such (dots.cl), two to a cell. d is summed two at a time, and so are keys: weights go in bf16 beside V, two visible keys
 * of a row and block at a time, an odd last one beside zeros. The arithmetic is that of the same templates on AVX512-BF16.
 *
 * Scores are decode_keys.cl's.
 *
 *   KV_CHUNK      keys per work item (512): decides the bits
 */
#define DV ((V_HEAD_DIM + 15) / 16 * 16)
#define V_VECTORS (DV / 16)
#define COLUMNS (REGISTERS >= 32 ? (RT <= 2 ? 8 : RT <= 5 ? 4 : 2) : (RT <= 4 ? 1 : 1)) /* vectors of dimensions at a time */
#define TILES (32 / RT) /* of RT rows in a pass over the keys */
#define PASS_ROWS (TILES * RT)
#define BLOCK 64 /* keys whose values are still in cache when the next columns come to them */

#if DOTS
/* acc[R][G x 32 columns] += `count` keys, whose weights stand one after the other in w, two to a cell, behind an odd last one 0, and whose rows are at at[]. Even columns
 * are summed in one vector, odd ones in the next: so cells of two keys are made of cells of two columns without a shuffle. next: rows to fetch meanwhile, or 0. */
#define VALUES(name, R, G)                                                                                                       \
    static inline void name(private const ushort *w, global const uchar *v, private const long *at, private const long *next, int count, int d, \
                            private float *acc)                                                                                  \
    {                                                                                                                            \
        float16 a[R][2 * G];                                                                                                     \
        _Pragma("unroll") for (int r = 0; r < R; r++) _Pragma("unroll") for (int c = 0; c < 2 * G; c++)                          \
            a[r][c] = GET(acc + r * DV + d + c * 16);                                                                            \
        _Pragma("unroll 1") for (int n = 0; n < count; n += 2)                                                                   \
        {                                                                                                                        \
            if (next) {                                                                                                          \
                fetch_row(v + next[n] + 2 * d, 64 * G);                                                                          \
                fetch_row(v + next[n + 1] + 2 * d, 64 * G);                                                                      \
            }                                                                                                                    \
            uint16 x[2 * G];                                                                                                     \
            _Pragma("unroll") for (int c = 0; c < G; c++)                                                                        \
            {                                                                                                                    \
                uint16 one = load_cells(v + at[n], d + c * 32, V_HEAD_DIM), two = 0;                                             \
                if (n + 1 < count) two = load_cells(v + at[n + 1], d + c * 32, V_HEAD_DIM);                                      \
                uint16 up = two << 16, down = one >> 16;                                                                         \
                __asm__("" : "+v"(up), "+v"(down)); /* or the compiler makes shuffles of it after all */                         \
                x[2 * c] = (one & 0xffff) | up;                                                                                  \
                x[2 * c + 1] = down | (two & 0xffff0000);                                                                        \
            }                                                                                                                    \
            _Pragma("unroll") for (int r = 0; r < R; r++)                                                                        \
            {                                                                                                                    \
                uint16 y = (uint16)*(private const cell *)(w + r * KV_CHUNK + n);                                                \
                _Pragma("unroll") for (int c = 0; c < 2 * G; c++) a[r][c] = add_products(a[r][c], x[c], y);                      \
            }                                                                                                                    \
        }                                                                                                                        \
        _Pragma("unroll") for (int r = 0; r < R; r++) _Pragma("unroll") for (int c = 0; c < 2 * G; c++)                          \
            PUT(a[r][c], acc + r * DV + d + c * 16);                                                                             \
    }

/* The columns behind the last 32, in order. */
#define VALUES_TAIL(name, R)                                                                                                     \
    static inline void name(private const ushort *w, global const uchar *v, private const long *at, int count, int d, private float *acc) \
    {                                                                                                                            \
        float16 a[R];                                                                                                            \
        _Pragma("unroll") for (int r = 0; r < R; r++) a[r] = GET(acc + r * DV + d);                                              \
        for (int n = 0; n < count; n += 2) {                                                                                     \
            uint16 x = load_lower(v + at[n], d, V_HEAD_DIM);                                                                     \
            if (n + 1 < count) x |= load_lower(v + at[n + 1], d, V_HEAD_DIM) << 16;                                              \
            _Pragma("unroll") for (int r = 0; r < R; r++) a[r] = add_products(a[r], x, (uint16)*(private const cell *)(w + r * KV_CHUNK + n)); \
        }                                                                                                                        \
        _Pragma("unroll") for (int r = 0; r < R; r++) PUT(a[r], acc + r * DV + d);                                               \
    }

#define PAIRS (COLUMNS / 2)                       /* groups of 32 columns at a time */
#define V_PAIRS (V_HEAD_DIM / 32)
VALUES(values_of, RT, PAIRS)
VALUES_TAIL(values_of_tail, RT)
#if V_PAIRS % PAIRS
VALUES(values_of_last, RT, (V_PAIRS % PAIRS))
#endif
VALUES(values_of_one, 1, 1)
VALUES_TAIL(values_of_one_tail, 1)

/* All columns of RT rows. */
static inline void add_values(private const ushort *w, global const uchar *v, private const long *at, private const long *next, int count, private float *acc)
{
    int d = 0;
    for (; d + PAIRS * 32 <= V_HEAD_DIM; d += PAIRS * 32) values_of(w, v, at, next, count, d, acc);
#if V_PAIRS % PAIRS
    values_of_last(w, v, at, next, count, d, acc);
    d = V_PAIRS * 32;
#endif
    for (; d < V_HEAD_DIM; d += 16) values_of_tail(w, v, at, count, d, acc);
}

/* The same of one row. */
static inline void add_values_of_one(private const ushort *w, global const uchar *v, private const long *at, int count, private float *acc)
{
    int d = 0;
    for (; d + 32 <= V_HEAD_DIM; d += 32) values_of_one(w, v, at, 0, count, d, acc);
    for (; d < V_HEAD_DIM; d += 16) values_of_one_tail(w, v, at, count, d, acc);
}

/* The keys of places [from, to) that the rows of `mask` see, closed up: their weights in R rows of w from place `from` on, where their rows are into list. */
static inline int close_up(private const uchar *seen, uint mask, int rows, private const long *at, int from, int to, private ushort *w, private long *list)
{
    int count = 0;
    for (int n = from; n < to; n++) {
#ifdef MUTANT_cl_dots_hidden_keys
        if (!seen[n]) continue;
#else
        if (!(seen[n] & mask)) continue;
#endif
        list[count] = at[n];
        for (int r = 0; r < rows; r++) w[r * KV_CHUNK + from + count] = w[r * KV_CHUNK + n];
        count++;
    }
    if (count % 2)
        for (int r = 0; r < rows; r++) w[r * KV_CHUNK + from + count] = 0;
    return count;
}

/* Does one of 16 bytes of truth hold? */
static inline bool any_of(char16 x)
{
    long2 y = as_long2(x);
    return (y.s0 | y.s1) != 0;
}

/* Places [from, to) of one block of 64, multiples of 16. A key that some rows do not see takes no part in theirs, and decides nothing about their pairs: such rows
 * go one by one. ahead: there is a whole block behind it, whose rows are fetched meanwhile. */
static inline void add_block(private ushort *w, private const uchar *seen, global const uchar *v, private const long *at, int from, int to, bool ahead, private float *acc)
{
    const uchar all = (1 << RT) - 1;
    char16 hidden = 0, mixed = 0;
    for (int n = from; n < to; n += 16) {
        uchar16 rows = *(private const uchar16 *)(seen + n);
        hidden |= rows != all;
        mixed |= rows != all & rows != (uchar)0;
    }
    long list[BLOCK];
    if (!any_of(hidden)) {
        add_values(w + from, v, at + from, ahead ? at + from + BLOCK : 0, to - from, acc);
    } else if (!any_of(mixed)) {
        int count = close_up(seen, all, RT, at, from, to, w, list);
        add_values(w + from, v, list, 0, count, acc);
    } else {
        for (int r = 0; r < RT; r++) {
            int count = close_up(seen, 1u << r, 1, at, from, to, w + r * KV_CHUNK, list);
            add_values_of_one(w + r * KV_CHUNK + from, v, list, count, acc + r * DV);
        }
    }
}
#else
LOADER(load_value, V_TYPE, V_HEAD_DIM)

/* acc[RT][C vectors] += places [lo, hi): seen[n] has a bit for each row that sees the key. COPIED: their values are in copies[hi - lo][DV]; else the same columns of the
 * next block are fetched meanwhile, so that memory is never idle; `last` is the end of all keys, 0: they are near. */
#define VALUES(name, C, COPIED)                                                                                                  \
    static inline void name(private const float *p, private const uchar *seen, global const uchar *v, private const long *at, private const float *copies, int lo, \
                            int hi, int last, int d, private float *acc)                                                         \
    {                                                                                                                            \
        float16 a[RT][C];                                                                                                        \
        _Pragma("unroll") for (int r = 0; r < RT; r++) _Pragma("unroll") for (int c = 0; c < C; c++)                             \
            a[r][c] = GET(acc + r * DV + d + c * 16);                                                                            \
        for (int n = lo; n < hi; n++) {                                                                                          \
            uint rows = seen[n];                                                                                                 \
            if (!rows) continue;                                                                                                 \
            if (!COPIED && n + BLOCK < last) fetch_row(v + at[n + BLOCK] + ROW_BYTES(V_TYPE, d), ROW_BYTES(V_TYPE, (C * 16 + 31) / 32 * 32)); \
            float16 x[C];                                                                                                        \
            _Pragma("unroll") for (int c = 0; c < C; c++)                                                                        \
                x[c] = COPIED ? GET(copies + (n - lo) * DV + d + c * 16) : load_value(v + at[n], d + c * 16);                    \
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

/* All columns of RT rows. */
#define ADD_VALUES(name, values, tail, COPIED)                                                                                   \
    VALUES(values, COLUMNS, COPIED)                                                                                              \
    VALUES_TAIL(tail, COPIED)                                                                                                    \
    static inline void name(private const float *p, private const uchar *seen, global const uchar *v, private const long *at, private const float *copies, int lo, \
                            int hi, int last, private float *acc)                                                                \
    {                                                                                                                            \
        int d = 0;                                                                                                               \
        for (; d + COLUMNS * 16 <= DV; d += COLUMNS * 16) values(p, seen, v, at, copies, lo, hi, last, d, acc);                  \
        CALL_TAIL(tail(p, seen, v, at, copies, lo, hi, last, d, acc);)                                                           \
    }
#if V_VECTORS % COLUMNS
#define VALUES_TAIL(name, COPIED) VALUES(name, (V_VECTORS % COLUMNS), COPIED)
#define CALL_TAIL(call) call
#else
#define VALUES_TAIL(name, COPIED)
#define CALL_TAIL(call)
#endif
ADD_VALUES(add_values, values_of, values_of_tail, 0)
#if WIDEN(V_TYPE)
ADD_VALUES(add_copies, copies_of, copies_of_tail, 1)
#endif
#endif

static inline void decode_rows(ATTENTION_ARGUMENTS, struct work_item item, const bool one_tile)
{
    struct sequence s = sequences[item.sequence];
    int b = item.sequence, g = item.head, rows = (item.q_end - item.q_begin) * GROUP, chunk = item.kv_begin;
    float query[PASS_ROWS * DQ] ALIGNED, p[PASS_ROWS * KV_CHUNK] ALIGNED, acc[PASS_ROWS * DV] ALIGNED, k_factor[KV_CHUNK] ALIGNED, v_factor[KV_CHUNK] ALIGNED;
    long k_at[KV_CHUNK + 16], v_at[KV_CHUNK];
    uchar seen[TILES * KV_CHUNK] ALIGNED;
    struct row row[PASS_ROWS];
#if DOTS
    ushort w[PASS_ROWS * KV_CHUNK] ALIGNED;
#endif

    for (int first = 0; first < rows; first += PASS_ROWS) {
        int tiles = one_tile ? 1 : (min(rows - first, PASS_ROWS) + RT - 1) / RT;
        int2 places = take_rows(ATTENTION_PASSED, item, s, g, first, tiles * RT, row, query);
        int lo = places.x, hi = places.y;
        float m[PASS_ROWS], l[PASS_ROWS];
        for (int r = 0; r < tiles * RT; r++) {
            m[r] = -INFINITY;
            l[r] = 0;
        }
        for (int x = 0; x < tiles * RT * DV; x += 16) PUT((float16)0.0f, acc + x);

        if (lo < hi) {
            int begin = lo / 16 * 16, end = (hi + 15) / 16 * 16; /* whole vectors of 16 keys */
            find_keys(ATTENTION_PASSED, item, s, g, lo, hi, begin, end, k_at, k_factor, v_at, v_factor);
            for (int t = 0; t < tiles; t++)
                for (int n = begin; n < end; n += 16) *(private uchar16 *)(seen + t * KV_CHUNK + n) = 0;
            score_chunk(query, k, k_at, begin, end, v, v_at, tiles, p);
            for (int r = 0; r < tiles * RT; r++) {
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
#if DOTS
                    *(private ushort16 *)(w + r * KV_CHUNK + n) = to_halves(e);
#else
                    PUT(e, at);
#endif
#ifdef MUTANT_cl_decode_hidden_values
                    hidden = 0;
#endif
                    *(private uchar16 *)(seen + r / RT * KV_CHUNK + n) |= convert_uchar16((hidden + 1) << r % RT);
                }
                l[r] = total16(sum);
            }
#if DOTS
#ifdef MUTANT_cl_dots_blocks
            for (int n = begin; n < end; n += BLOCK)
#else
            for (int n = begin / BLOCK * BLOCK; n < end; n += BLOCK)
#endif
                for (int t = 0; t < tiles; t++) {
                    private const uchar *seen_tile = seen + t * KV_CHUNK;
#ifdef MUTANT_cl_dots_tiles
                    seen_tile = seen;
#endif
                    add_block(w + t * RT * KV_CHUNK, seen_tile, v, v_at, max(n, begin), min(n + BLOCK, end), t == 0 && n + 2 * BLOCK <= end, acc + t * RT * DV);
                }
            /* columns in their order again */
            for (int x = 0; x < tiles * RT * DV; x += DV)
                for (int d = 0; d < V_HEAD_DIM / 32 * 32; d += 32) {
                    float16 even = GET(acc + x + d), odd = GET(acc + x + d + 16);
                    PUT(ZIP_LOW(even, odd), acc + x + d);
                    PUT(ZIP_HIGH(even, odd), acc + x + d + 16);
                }
#else
            for (int n = lo; n < hi; n += BLOCK) {
                int next = min(n + BLOCK, hi);
#ifdef MUTANT_cl_decode_block
                if (n > lo)
                    for (int x = 0; x < tiles * RT * DV; x += 16) PUT((float16)0.0f, acc + x);
#endif
#if WIDEN(V_TYPE)
                float copies[BLOCK * DV] ALIGNED;
                if (tiles > 2)
                    _Pragma("unroll 1") for (int x = n; x < next; x++) {
                        if (x + BLOCK < hi) fetch_row(v + v_at[x + BLOCK], V_BYTES);
#ifdef MUTANT_cl_decode_copied_values
                        for (int d = 0; d < DV; d += 16) PUT(load_value(v + v_at[n], d), copies + (x - n) * DV + d);
#else
                        _Pragma("unroll 1") for (int d = 0; d < DV; d += 16) PUT(load_value(v + v_at[x], d), copies + (x - n) * DV + d);
#endif
                    }
#endif
                for (int t = 0; t < tiles; t++) {
                    private const float *p_tile = p + t * RT * KV_CHUNK;
                    private const uchar *seen_tile = seen + t * KV_CHUNK;
#if WIDEN(V_TYPE)
                    if (tiles > 2) {
                        add_copies(p_tile, seen_tile, v, v_at, copies, n, next, 0, acc + t * RT * DV);
                        continue;
                    }
#endif
                    add_values(p_tile, seen_tile, v, v_at, 0, n, next, t == 0 ? hi : 0, acc + t * RT * DV); /* the first one fetches */
                }
            }
#endif
        }

        for (int r = 0; r < PASS_ROWS && first + r < rows; r++) {
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

/* A token alone is most steps, and 5 % quicker where the compiler knows that there is one tile. */
ONCE void decode_one_tile(ATTENTION_ARGUMENTS, struct work_item item) { decode_rows(ATTENTION_PASSED, item, true); }
ONCE void decode_tiles(ATTENTION_ARGUMENTS, struct work_item item) { decode_rows(ATTENTION_PASSED, item, false); }

ATTENTION_KERNEL void decode_cpu(ATTENTION_ARGUMENTS)
{
    int number = ITEM_NUMBER;
    if (number >= item_count) return;
    struct work_item item = AT(struct work_item, items)[item_first + number];
    if ((item.q_end - item.q_begin) * GROUP <= RT) decode_one_tile(ATTENTION_PASSED, item);
    else decode_tiles(ATTENTION_PASSED, item);
}
