/* SPDX-License-Identifier: MIT
 * prefill_tile.cl - prefill for any GPU: a work-group per work item, register tiles, local memory, barriers. One text for every vendor.
 *
 * The arithmetic of src/cpu/panel.inc.h, in its order, so that a GPU gives the CPU's bits. A group of LOCAL_X x LOCAL_Y work-items owns ROWS = LOCAL_Y * TR
 * query rows of one head at a time. Per block of KEYS keys, counted from key 0:
 *
 *     s[ROWS][KEYS]  = Q K^T       a work-item: TR rows x TC vectors of keys in registers; Q_SLICE dimensions of Q and K at a time through local memory
 *     m' = max(m, s)   fade = e^(m - m')   p = e^(s - m')   l = l fade + sum p           (one work-item per row adds, keys in order)
 *     o[ROWS][DV]    = o fade + p V     a work-item: TR rows x TD vectors of dimensions; V_SLICE keys of V at a time through local memory
 *
 * Keys that the group may not see repeat one that it may, with weight -0; dimensions behind the last are zeros. Where V holds NaN or infinity, rows that do
 * not see the key pass it over (0 * NaN would be NaN).
 *
 *   LOCAL_X LOCAL_Y   the group        VW   floats per vector: 4, 8 or 16; LOCAL_X * VW divides 96 or 192
 *   TR                rows per work-item: Q_TILE may be several times LOCAL_Y * TR
 *   Q_SLICE V_SLICE   what goes through local memory at a time: multiples of 4; V_SLICE divides 96
 *   Q_STAYS           all of Q has room in local memory: it is brought once per item, else slice by slice with K
 *   WIDE              read local memory four floats at a time, also rows and weights: for GPUs, where each read takes the place of an fma. CPUs
 *                     read one float into all lanes for nothing
 *   AHEAD             bring the next slice into registers while this one is multiplied: two slices, one barrier each
 *   GUARD             see LOOP_GUARD in common.cl
 */
#ifndef TR
#define TR 4
#endif
#ifndef VW
#define VW 4
#endif
#define KEYS 96                      /* decides the bits */
#ifndef Q_SLICE
#define Q_SLICE 16
#endif
#ifndef V_SLICE
#define V_SLICE 16
#endif
#ifndef Q_STAYS
#define Q_STAYS 0
#endif
#ifndef WIDE
#define WIDE 0
#endif
#ifndef AHEAD
#define AHEAD 0
#endif
#if 96 % (LOCAL_X * VW) == 0
#define KW VW                        /* floats per vector of keys */
#elif VW == 4
#define KW 2
#elif VW == 8
#define KW 4
#else
#define KW 8
#endif
#if KEYS % (LOCAL_X * KW) || KEYS % V_SLICE || V_SLICE % 4 || Q_SLICE % 4
#error "no such tile: LOCAL_X * VW divides 96 or 192, V_SLICE divides 96, slices are multiples of 4"
#endif
#define ROWS (LOCAL_Y * TR)
#define TC (KEYS / (LOCAL_X * KW))
#define TD ((V_HEAD_DIM + LOCAL_X * VW - 1) / (LOCAL_X * VW))
#define TD_AT_ONCE (TD < 4 ? TD : 4) /* vectors per work-item that go through local memory together */
#define V_WIDTH (LOCAL_X * VW * TD_AT_ONCE)
/* Steps between rows in local memory: the columns that work-items write side by side, and the rows of p that they read, lie in different banks. */
#define K_STEP (WIDE ? KEYS + (KW < 4 ? 4 : KW) : KEYS)
#define Q_STEP (WIDE ? ROWS + 4 : ROWS + 1)
#define P_STEP (WIDE ? KEYS + 4 : KEYS + 1)
/* Rows that are read together lie TR apart, in the same banks however wide a step is: each takes its fours of keys in another order. */
#define TURN(r) (WIDE && KW <= 4 && LOCAL_X * KW % 16 == 0 ? (int)((uint)(r) / TR % 4 * 4) : 0)
#define P_AT(r, c) ((r) * P_STEP + ((c) ^ TURN(r)))
#define P_OWN(r, c) ((r) * P_STEP + LOCAL_X * KW * (c)) /* vector c of this work-item's row r, from p_own on; LOCAL_X * KW is a multiple of 16 where rows turn */
#define Q_DIMS ((HEAD_DIM + Q_SLICE - 1) / Q_SLICE * Q_SLICE)
#define K_FLOATS (Q_SLICE * K_STEP)
#define QK_FLOATS (K_FLOATS + (Q_STAYS ? 0 : Q_SLICE * Q_STEP))
#define V_FLOATS (V_SLICE * V_WIDTH)
#define LARGER_OF(a, b) ((a) > (b) ? (a) : (b))
#define SLOT_FLOATS ((LARGER_OF(QK_FLOATS, LOCAL_X * ROWS) + 15) / 16 * 16) /* the second slot begins where the widest vector may */
/* Ahead: slices of Q and K lie where p is to be. */
#define P_FLOATS (AHEAD ? LARGER_OF(ROWS * P_STEP, 2 * SLOT_FLOATS) : ROWS * P_STEP)
#define BUFFER_FLOATS (AHEAD ? 2 * V_FLOATS : LARGER_OF(QK_FLOATS, V_FLOATS))
#define VEC GLUE(float, VW)
#define KEY_VEC GLUE(float, KW)
#define KEY_INDEX GLUE(int, KW)
#define LOCAL_VEC(type, p) (*(local const type *)(p)) /* vload promises element alignment only, and becomes scalar loads on some GPUs */
#define FENCE barrier(CLK_LOCAL_MEM_FENCE)
#define UNROLL _Pragma("unroll")
#define NO_UNROLL _Pragma("unroll 1") /* loops that compilers would unroll whole, to no good but minutes of compiling */
#if WIDE
#define SOME_UNROLL _Pragma("unroll 8")
#else
#define SOME_UNROLL _Pragma("unroll 2")
#endif

/* What the rows of a group see, in local memory. */
struct seen {
    int begin[ROWS], end[ROWS];
#if ALTERED || MASKED
    long own[ROWS], mask[ROWS], bias[ROWS];
#endif
};

#if KW == 2 /* common.cl has the widths from 4 on */
MATH(float2, int2, 2, !any(z >= (float2)SOFTCAP_FAR))
#endif
#define NUMBERS_2 (int2)(0, 1)
#define NUMBERS_4 (int4)(0, 1, 2, 3)
#define NUMBERS_8 (int8)(0, 1, 2, 3, 4, 5, 6, 7)
#define NUMBERS_16 LANES16

/* Four dimensions of the row at base + at from d on, zeros behind the last; DIM % STEP = 0: there is none behind it. The second form is for rows that begin where
 * vectors of four may: vload4 promises an element's alignment, which to some compilers means four loads. */
#define FOUR(name, TYPE, DIM, STEP)                                                                                              \
    static inline float4 name(global const uchar *base, long at, int d, float factor)                                           \
    {                                                                                                                            \
        global const uchar *row = base + at;                                                                                     \
        if (DIM % (STEP) == 0 || d + 4 <= DIM) return GLUE(load4_, TYPE)(row, d, factor);                                        \
        float4 x = 0;                                                                                                            \
        if (d < DIM) x.s0 = GLUE(load1_, TYPE)(row, d, factor);                                                                  \
        if (d + 1 < DIM) x.s1 = GLUE(load1_, TYPE)(row, d + 1, factor);                                                          \
        if (d + 2 < DIM) x.s2 = GLUE(load1_, TYPE)(row, d + 2, factor);                                                          \
        return x;                                                                                                                \
    }                                                                                                                            \
    static inline float4 aligned_##name(global const uchar *base, long at, int d, float factor)                                 \
    {                                                                                                                            \
        if (!PLAIN(TYPE) || DIM % (STEP) != 0 && d + 4 > DIM) return name(base, at, d, factor);                                  \
        global const uchar *column = base + (TYPE == TYPE_F32 ? 4 : 2) * d; /* the same for all rows of a work-item's tasks */   \
        if (TYPE == TYPE_F32) return AT(float4, column + at)[0];                                                                 \
        const ushort4 bits = AT(ushort4, column + at)[0];                                                                        \
        if (TYPE == TYPE_BF16) return as_float4(convert_uint4(bits) << 16);                                                      \
        return vload_half4(0, (private const half *)&bits);                                                                      \
    }
#define PLAIN(type) ((type) == TYPE_F32 || (type) == TYPE_F16 || (type) == TYPE_BF16)
FOUR(four_of_query, Q_TYPE, HEAD_DIM, Q_SLICE)
FOUR(four_of_key, K_TYPE, HEAD_DIM, Q_SLICE)
FOUR(four_of_value, V_TYPE, V_HEAD_DIM, V_WIDTH)

/* Do all rows begin there? */
static inline bool rows_aligned(global const uchar *base, struct view view, int type)
{
    const ulong bits = (ulong)(size_t)base | (ulong)(view.offset | view.batch | view.head | view.token);
    return (bits & (type == TYPE_F32 ? 15 : type == TYPE_F16 || type == TYPE_BF16 ? 7 : 0)) == 0;
}

/* A slice of n rows is brought in n * Q_SLICE / 4 tasks of four dimensions. Wide: 32 work-items take 16 rows x 2 fours: whole sectors of 32 bytes are read,
 * and 32 banks written; the tasks of a work-item are rows of the same dimensions. */
#define SPREAD(n) (WIDE && (n) % 16 == 0 && Q_SLICE % 8 == 0)
#define STRAIGHT(n) (SPREAD(n) && LANES % (4 * Q_SLICE) == 0)
#define ROW_OF(x, n) (int)(SPREAD(n) ? (uint)(x) / (4 * Q_SLICE) * 16 + (uint)(x) / 2 % 16 : (uint)(x) / (Q_SLICE / 4))
#define DIM_OF(x, n) (int)(SPREAD(n) ? (uint)(x) / 32 % LARGER_OF(Q_SLICE / 8, 1) * 8 + (uint)(x) % 2 * 4 : (uint)(x) % (Q_SLICE / 4) * 4)
/* of task x + i * LANES */
#define TASK_ROW(x, i, n) (STRAIGHT(n) ? ROW_OF(x, n) + (i) * (LANES / (4 * Q_SLICE) * 16) : ROW_OF((x) + (i) * LANES, n))
#define TASK_DIM(x, i, n) (STRAIGHT(n) ? DIM_OF(x, n) : DIM_OF((x) + (i) * LANES, n))
#define K_TASKS (KEYS * (Q_SLICE / 4))
#define Q_TASKS (Q_STAYS ? 0 : ROWS * (Q_SLICE / 4))
#define V_TASKS (V_FLOATS / 4)
#define ROUNDS(tasks) (((tasks) + LANES - 1) / LANES)
#define EACH_ROUND(i, tasks) UNROLL for (int i = 0; i < ROUNDS(tasks); i++) if ((tasks) % LANES == 0 || lane + i * LANES < (tasks))

static inline void put_column(local float *to, int step, float4 y)
{
    to[0] = y.s0;
    to[step] = y.s1;
    to[2 * step] = y.s2;
    to[3 * step] = y.s3;
}

#define V_FOURS (V_WIDTH / 4)
#define V_KEY(x, i) (LANES % V_FOURS == 0 ? (int)((uint)(x) / V_FOURS) + (i) * (LANES / V_FOURS) : (int)((uint)((x) + (i) * LANES) / V_FOURS))
#define V_DIM(x, i) (int)((uint)((x) + (LANES % V_FOURS == 0 ? 0 : (i) * LANES)) % V_FOURS * 4)
#define FACTOR(type, factor, c) (HAS_SCALE(type) ? factor[c] : 1.0f)
#define KEY_FOUR(x, i, d0, kind)                                                                                                 \
    kind##four_of_key(k, k_at[TASK_ROW(x, i, KEYS)], (d0) + TASK_DIM(x, i, KEYS), FACTOR(K_TYPE, k_factor, TASK_ROW(x, i, KEYS)))
#define QUERY_FOUR(x, i, d0, kind) kind##four_of_query(q, q_at[TASK_ROW(x, i, ROWS)], (d0) + TASK_DIM(x, i, ROWS), 1.0f)
#define VALUE_FOUR(x, i, c0, d0, kind) kind##four_of_value(v, v_at[(c0) + V_KEY(x, i)], (d0) + V_DIM(x, i), FACTOR(V_TYPE, v_factor, (c0) + V_KEY(x, i)))
#define PUT_KEY(x, i, y) put_column(k_slice + TASK_DIM(x, i, KEYS) * K_STEP + TASK_ROW(x, i, KEYS), K_STEP, y)
#define PUT_QUERY(x, i, y) put_column(q_slice + TASK_DIM(x, i, ROWS) * Q_STEP + TASK_ROW(x, i, ROWS), Q_STEP, (y) * SCALE)
/* The same, ahead: all of a work-item's tasks into next[]. */
#define BRING_KEYS_AS(d0, kind)                                                                                                 \
    {                                                                                                                           \
        EACH_ROUND(i, K_TASKS) next[i] = KEY_FOUR(lane, i, d0, kind);                                                           \
        EACH_ROUND(i, Q_TASKS) next[ROUNDS(K_TASKS) + i] = QUERY_FOUR(lane, i, d0, kind);                                       \
    }
#define BRING_VALUES_AS(c0, d0, kind)                                                                                           \
    {                                                                                                                           \
        EACH_ROUND(i, V_TASKS) next[i] = VALUE_FOUR(lane, i, c0, d0, kind);                                                     \
    }
#define BRING_KEYS(d0)                                                                                                          \
    if (aligned) BRING_KEYS_AS(d0, aligned_) else BRING_KEYS_AS(d0, )
#define BRING_VALUES(c0, d0)                                                                                                    \
    if (aligned) BRING_VALUES_AS(c0, d0, aligned_) else BRING_VALUES_AS(c0, d0, )
#define NOT_FINITE(y) (((y).s0 * 0.0f + (y).s1 * 0.0f) + ((y).s2 * 0.0f + (y).s3 * 0.0f) != 0.0f)

/* TR floats of local memory that lie side by side. */
#define LOAD_ROWS(x, from)                                                                                                       \
    UNROLL for (int r = 0; r < TR; r += RW) LOAD_SOME(x, r, from)
#if WIDE && TR % 4 == 0
#define RW 4
#define LOAD_SOME(x, r, from)                                                                                                    \
    {                                                                                                                            \
        const float4 some = LOCAL_VEC(float4, (from) + (r));                                                                     \
        x[r] = some.s0, x[r + 1] = some.s1, x[r + 2] = some.s2, x[r + 3] = some.s3;                                              \
    }
#else
#define RW 1
#define LOAD_SOME(x, r, from) x[r] = (from)[r];
#endif

/* Which work-item of the tile this one is. Wide: 32 of them are 8 x 4, and neighbours (x, y), (x, y + 1) and next neighbours (x, y), (x + 1, y) share what they
 * read, which is when NVIDIA's local memory answers 32 reads of 16 bytes in two steps instead of four. */
#if WIDE && LOCAL_X % 8 == 0 && LOCAL_Y % 4 == 0
#define TILE_X (int)((uint)lane / 32 % (LOCAL_X / 8) * 8 + (uint)lane % 16 / 2)
#define TILE_Y (int)((uint)lane / 32 / (LOCAL_X / 8) * 4 + (uint)lane % 32 / 16 * 2 + (uint)lane % 2)
#else
#define TILE_X ((int)get_local_id(0))
#define TILE_Y ((int)get_local_id(1))
#endif

ATTENTION_KERNEL void prefill_tile(ATTENTION_ARGUMENTS)
{
    local float buffer[BUFFER_FLOATS] ALIGNED, p[P_FLOATS] ALIGNED, row_fade[ROWS] ALIGNED, row_m[ROWS] ALIGNED, row_l[ROWS];
    local struct seen seen;
    local int odd[2]; /* V of this block holds NaN or infinity, in slices with even and odd numbers */
    local long q_at[ROWS], k_at[KEYS], v_at[KEYS]; /* where rows lie: found once, read for every slice */
    local float k_factor[HAS_SCALE(K_TYPE) ? KEYS : 1], v_factor[HAS_SCALE(V_TYPE) ? KEYS : 1];
    local float q_rows[Q_STAYS ? Q_DIMS * Q_STEP : 1] ALIGNED;
    const int number = ITEM_NUMBER, lane = LANE, tx = TILE_X, ty = TILE_Y;
    local float *p_own = p + P_AT(ty * TR, tx * KW);
#if AHEAD
    float4 next[LARGER_OF(ROUNDS(K_TASKS) + ROUNDS(Q_TASKS), ROUNDS(V_TASKS))];
    const bool aligned = rows_aligned(q, st.q, Q_TYPE) && rows_aligned(k, st.k, K_TYPE) && rows_aligned(v, st.v, V_TYPE);
#endif
    /* A group without an item has an item without rows. No early return: Intel's CPU driver 2026.22 reads both lists before it. */
    const bool given = number < item_count;
    struct work_item item = AT(struct work_item, items)[given ? item_first + number : 0];
    if (!given) item.sequence = item.head = item.q_begin = item.q_end = 0;
    const struct sequence s = sequences[item.sequence];
    const int b = item.sequence, h = item.head, g = h / GROUP;

    for (int first = item.q_begin; first < item.q_end; first += ROWS) {
        const int rows = min(ROWS, item.q_end - first);
        FENCE;
        float slope = 0;
        NO_UNROLL for (int r = lane; r < ROWS; r += LANES) {
            struct row row = row_in(row_of(st, s, b, h, first + min(r, rows - 1), q_positions, key_range, alibi, problem), item);
            seen.begin[r] = row.begin;
            seen.end[r] = row.end;
            q_at[r] = query_offset(st.q, s, b, h, first + min(r, rows - 1));
#if ALTERED || MASKED
            seen.own[r] = row.own;
            seen.mask[r] = row.mask;
            seen.bias[r] = row.bias;
#endif
            row_m[r] = -INFINITY;
            row_l[r] = 0;
        }
#if ALIBI
        slope = AT(float, alibi + st.alibi.offset)[h];
#endif
        FENCE;
        int low = INT_MAX, high = 0, all_from = 0, all_to = INT_MAX;
        NO_UNROLL for (int r = 0; r < ROWS; r++) {
            all_from = max(all_from, seen.begin[r]);
            all_to = min(all_to, seen.end[r]);
            if (seen.end[r] == 0) continue;
            low = min(low, seen.begin[r]);
            high = max(high, seen.end[r]);
        }
#if Q_STAYS
        NO_UNROLL for (int x = lane; x < ROWS * (Q_DIMS / 4); x += LANES) {
            const int r = x % ROWS, d = x / ROWS * 4;
            put_column(q_rows + d * Q_STEP + r, Q_STEP, four_of_query(q, q_at[r], d, 1.0f) * SCALE);
        }
#endif
        VEC o_tile[TR][TD];
        UNROLL for (int r = 0; r < TR; r++)
            UNROLL for (int c = 0; c < TD; c++) o_tile[r][c] = 0;

        for (int block = high ? low / KEYS * KEYS : 0; block < high; block += KEYS) {
            KEY_VEC tile[TR][TC];
            UNROLL for (int r = 0; r < TR; r++)
                UNROLL for (int c = 0; c < TC; c++) tile[r][c] = 0;

            NO_UNROLL for (int c = lane; c < KEYS; c += LANES) { /* keys that the group may not see repeat one that it may */
                int j = clamp(block + c, low, high - 1);
                k_at[c] = key_offset(st.k, s, page_table, b, g, j, problem);
                v_at[c] = key_offset(st.v, s, page_table, b, g, j, problem);
                if (HAS_SCALE(K_TYPE)) k_factor[c] = AT(float, k_scale + key_offset(st.k_scale, s, page_table, b, g, j, problem))[0];
                if (HAS_SCALE(V_TYPE)) v_factor[c] = AT(float, v_scale + key_offset(st.v_scale, s, page_table, b, g, j, problem))[0];
            }

            /* scores */
#if AHEAD
            FENCE;
            BRING_KEYS(0)
#endif
            NO_UNROLL for (int d0 = 0; d0 < HEAD_DIM; d0 += Q_SLICE) {
                local float *k_slice = AHEAD ? p + d0 / Q_SLICE % 2 * SLOT_FLOATS : buffer;
                local float *q_slice = Q_STAYS ? q_rows + d0 * Q_STEP : k_slice + K_FLOATS;
#if AHEAD
                EACH_ROUND(i, K_TASKS) PUT_KEY(lane, i, next[i]);
                EACH_ROUND(i, Q_TASKS) PUT_QUERY(lane, i, next[ROUNDS(K_TASKS) + i]);
#else
                FENCE;
                NO_UNROLL for (int x = lane; x < K_TASKS; x += LANES) PUT_KEY(x, 0, KEY_FOUR(x, 0, d0, ));
                NO_UNROLL for (int x = lane; x < Q_TASKS; x += LANES) PUT_QUERY(x, 0, QUERY_FOUR(x, 0, d0, ));
#endif
                if (lane == 0) odd[0] = odd[1] = 0; /* here, between fences, nobody asks for it */
                FENCE;
#if AHEAD
                if (d0 + Q_SLICE < HEAD_DIM) { BRING_KEYS(d0 + Q_SLICE) }
#endif
                SOME_UNROLL for (int d = 0; d < Q_SLICE + LOOP_GUARD; d++) {
                    KEY_VEC y[TC];
                    float x[TR];
                    UNROLL for (int c = 0; c < TC; c++) y[c] = LOCAL_VEC(KEY_VEC, k_slice + d * K_STEP + (tx + LOCAL_X * c) * KW);
                    LOAD_ROWS(x, q_slice + d * Q_STEP + ty * TR)
                    UNROLL for (int r = 0; r < TR; r++)
                        UNROLL for (int c = 0; c < TC; c++) tile[r][c] = fma(y[c], (KEY_VEC)x[r], tile[r][c]);
                }
            }
#if AHEAD
            BRING_VALUES(0, 0)
#endif

            /* who sees what */
#if ALTERED || MASKED
            /* small code counts: a loop over the scores, whoever computed them */
            if (AHEAD) FENCE; /* p holds slices that others may still read */
            UNROLL for (int r = 0; r < TR; r++)
                UNROLL for (int c = 0; c < TC; c++)
                    GLUE(vstore, KW)(tile[r][c], 0, p_own + P_OWN(r, c));
            FENCE;
            NO_UNROLL for (int x = lane; x < ROWS * KEYS; x += LANES) {
                const int r = x / KEYS, j = block + x % KEYS;
                local float *at = p + P_AT(r, x % KEYS);
                float capped;
                struct row row = {seen.begin[r], seen.end[r], s.kv_len, seen.own[r], seen.mask[r], seen.bias[r], slope};
                *at = j < s.kv_len ? logit1(*at, j, row, mask, bias, &capped, problem) : -INFINITY;
            }
            FENCE;
            UNROLL for (int r = 0; r < TR; r++)
                UNROLL for (int c = 0; c < TC; c++)
                    tile[r][c] = GLUE(vload, KW)(0, p_own + P_OWN(r, c));
            FENCE;
#else
            if (all_from > block || all_to < block + KEYS)
                UNROLL for (int r = 0; r < TR; r++) {
                    const int from = seen.begin[ty * TR + r] - block - tx * KW, to = seen.end[ty * TR + r] - block - tx * KW;
                    UNROLL for (int c = 0; c < TC; c++) {
                        const KEY_INDEX j = LOCAL_X * KW * c + GLUE(NUMBERS_, KW);
                        tile[r][c] = (j >= from) & (j < to) ? tile[r][c] : (KEY_VEC)-INFINITY;
                    }
                }
#endif
            /* the largest scores meet where no slice is read any more: [LOCAL_X][ROWS] */
            local float *tops = AHEAD ? p + Q_DIMS / Q_SLICE % 2 * SLOT_FLOATS : p;
            UNROLL for (int r = 0; r < TR; r++) {
                KEY_VEC best = tile[r][0];
                UNROLL for (int c = 1; c < TC; c++) best = LARGER(best, tile[r][c]);
                float one[KW] ALIGNED, top = -INFINITY;
                GLUE(vstore, KW)(best, 0, one);
                UNROLL for (int c = 0; c < KW; c++) top = LARGER(top, one[c]);
                tops[tx * ROWS + ty * TR + r] = top;
            }
            FENCE;
            NO_UNROLL for (int r = lane; r < ROWS; r += LANES) {
                float top = row_m[r];
                UNROLL for (int c = 0; c < LOCAL_X; c++) top = LARGER(top, tops[c * ROWS + r]);
                row_fade[r] = exp_1(row_m[r] - LARGER(-FLT_MAX, top));
#ifdef MUTANT_cl_tile_rescale
                row_fade[r] = 1.0f;
#endif
                row_m[r] = top;
            }
#ifndef MUTANT_cl_tile_barrier
            FENCE;
#endif
            {
                float m[TR], fade[TR];
                LOAD_ROWS(m, row_m + ty * TR)
                LOAD_ROWS(fade, row_fade + ty * TR)
                UNROLL for (int r = 0; r < TR; r++) {
                    const KEY_VEC base = (KEY_VEC)LARGER(-FLT_MAX, m[r]);
                    UNROLL for (int c = 0; c < TC; c++) {
                        const KEY_VEC score = tile[r][c], e = GLUE(exp_, KW)(score - base);
                        GLUE(vstore, KW)(score == (KEY_VEC)-INFINITY ? (KEY_VEC)-0.0f : e, 0, p_own + P_OWN(r, c));
                    }
                    UNROLL for (int c = 0; c < TD; c++) o_tile[r][c] *= (VEC)fade[r];
                }
            }

            /* weighted values */
            int slot = 0;
            UNROLL for (int t = 0; t < TD; t += TD_AT_ONCE)
                NO_UNROLL for (int c0 = 0; c0 < KEYS && block + c0 < high; c0 += V_SLICE) {
                    local float *v_slice = AHEAD ? buffer + slot * V_FLOATS : buffer;
#if AHEAD
                    bool finite = true;
                    EACH_ROUND(i, V_TASKS) {
                        *(local float4 *)(v_slice + 4 * (lane + i * LANES)) = next[i];
                        finite = finite & !NOT_FINITE(next[i]);
                    }
#ifdef MUTANT_cl_tile_wide_odd
                    if (!finite) atomic_or(&odd[0], 1);
#else
                    if (!finite) atomic_or(&odd[slot], 1);
#endif
#else
                    FENCE;
                    NO_UNROLL for (int x = lane; x < V_TASKS; x += LANES) {
                        const float4 y = VALUE_FOUR(x, 0, c0, t * LOCAL_X * VW, );
                        *(local float4 *)(v_slice + 4 * x) = y;
                        if (NOT_FINITE(y)) atomic_or(&odd[slot], 1);
                    }
#endif
                    FENCE;
#if AHEAD
                    if (c0 + V_SLICE < KEYS && block + c0 + V_SLICE < high) {
                        BRING_VALUES(c0 + V_SLICE, t * LOCAL_X * VW)
                    } else if (t + TD_AT_ONCE < TD) {
                        BRING_VALUES(0, (t + TD_AT_ONCE) * LOCAL_X * VW)
                    }
#endif
                    if (odd[slot]) {
                        NO_UNROLL for (int c = 0; c < V_SLICE; c++)
                            UNROLL for (int r = 0; r < TR; r++) { /* o_tile[r] with r known, or the whole tile moves from registers to memory */
                                const float w = p[P_AT(ty * TR + r, c0 + c)];
#ifndef MUTANT_cl_tile_zero_times_nan
                                if (as_uint(w) == 0x80000000) continue;
#endif
                                UNROLL for (int d = 0; d < TD_AT_ONCE; d++)
                                    if (t + d < TD)
                                        o_tile[r][t + d] = fma(LOCAL_VEC(VEC, v_slice + c * V_WIDTH + (tx + LOCAL_X * d) * VW), (VEC)w, o_tile[r][t + d]);
                            }
                    } else {
#define ADD_KEY(c, weight)                                                                                                       \
    {                                                                                                                            \
        VEC y[TD_AT_ONCE];                                                                                                       \
        UNROLL for (int d = 0; d < TD_AT_ONCE; d++) y[d] = LOCAL_VEC(VEC, v_slice + (c) * V_WIDTH + (tx + LOCAL_X * d) * VW);    \
        UNROLL for (int r = 0; r < TR; r++) {                                                                                    \
            const VEC w = (VEC)(weight);                                                                                         \
            UNROLL for (int d = 0; d < TD_AT_ONCE; d++)                                                                          \
                if (t + d < TD) o_tile[r][t + d] = fma(y[d], w, o_tile[r][t + d]);                                               \
        }                                                                                                                        \
    }
#if WIDE
                        _Pragma("unroll 2") for (int c = 0; c < V_SLICE; c += 4) {
                            float4 four[TR];
                            local const float *weights = p + P_AT(ty * TR, c0 + c); /* all rows of a work-item turn alike */
#ifdef MUTANT_cl_tile_wide_turn
                            weights = p + ty * TR * P_STEP + c0 + c;
#endif
                            UNROLL for (int r = 0; r < TR; r++) four[r] = LOCAL_VEC(float4, weights + r * P_STEP);
                            ADD_KEY(c, four[r].s0)
                            ADD_KEY(c + 1, four[r].s1)
                            ADD_KEY(c + 2, four[r].s2)
                            ADD_KEY(c + 3, four[r].s3)
                        }
#else
                        SOME_UNROLL for (int c = 0; c < V_SLICE + LOOP_GUARD; c++) ADD_KEY(c, p[(ty * TR + r) * P_STEP + c0 + c])
#endif
                    }
                    if (AHEAD) slot = 1 - slot;
                }

            NO_UNROLL for (int r = lane; r < ROWS; r += LANES) {
                float sum = row_l[r] * row_fade[r];
#if WIDE
                _Pragma("unroll 4") for (int c = 0; c < KEYS; c += 4) {
                    const float4 y = LOCAL_VEC(float4, p + P_AT(r, c));
                    sum = sum + y.s0 + y.s1 + y.s2 + y.s3;
                }
#else
#ifdef MUTANT_cl_tile_sum_order
                for (int c = KEYS - 1; c >= 0; c--) sum += p[r * P_STEP + c];
#else
                IN_ORDER for (int c = 0; c < KEYS + LOOP_GUARD; c++) sum += p[r * P_STEP + c];
#endif
#endif
                row_l[r] = sum;
            }
        }

        FENCE;
        /* p is free: the factors of each row's end; of some of the keys the sums stay as they are, for merge_lanes.cl */
        const long part = (long)item.part + (first - item.q_begin);
        NO_UNROLL for (int r = lane; r < rows; r += LANES) {
            float2 by = 1;
            if (item.part >= 0) {
                global float *sums = part_sums(work, part_rows, part + r, problem);
                sums[0] = row_m[r];
                sums[1] = row_l[r];
            } else by = end_row(row_m[r], row_l[r], st, s, b, h, first + r, lse, sinks, true, problem);
            p[r] = by.s0;
            p[ROWS + r] = by.s1;
        }
        FENCE;
        UNROLL for (int r = 0; r < TR; r++) {
            const int n = ty * TR + r;
            if (n >= rows) continue;
            global uchar *to = o + query_offset(st.o, s, b, h, first + n);
            UNROLL for (int c = 0; c < TD; c++) {
                float one[VW] ALIGNED;
                GLUE(vstore, VW)(row_l[n] == 0 ? (VEC)0.0f : o_tile[r][c] * p[n] / (VEC)p[ROWS + n] + (VEC)0.0f, 0, one);
                for (int e = 0; e < VW; e++) {
                    const int d = (tx + LOCAL_X * c) * VW + e;
                    if (d >= V_HEAD_DIM) continue;
                    if (item.part >= 0) work[(part + n) * V_HEAD_DIM + d] = one[e];
                    else GLUE(store1_, O_TYPE)(to, d, one[e]);
                }
            }
        }
    }
}
