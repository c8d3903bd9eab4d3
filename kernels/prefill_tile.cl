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
 *   LOCAL_X LOCAL_Y   the group        VW   floats per vector: 4, 8 or 16; LOCAL_X * VW divides 96
 *   TR                rows per work-item: Q_TILE may be several times LOCAL_Y * TR
 *   Q_SLICE V_SLICE   what goes through local memory at a time: multiples of 4; V_SLICE divides 96
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
#define ROWS (LOCAL_Y * TR)
#define TC (KEYS / (LOCAL_X * VW))
#define TD ((V_HEAD_DIM + LOCAL_X * VW - 1) / (LOCAL_X * VW))
#define TD_AT_ONCE (TD < 4 ? TD : 4) /* vectors per work-item that go through local memory together */
#define V_WIDTH (LOCAL_X * VW * TD_AT_ONCE)
#define P_STEP (KEYS + 1)            /* rows of p begin in different banks */
#define Q_STAYS (Q_SLICE >= HEAD_DIM) /* all of Q has room: it is brought once */
#define Q_FLOATS (Q_SLICE * (ROWS + 1))
#define QK_FLOATS (Q_SLICE * KEYS + (Q_STAYS ? 0 : Q_FLOATS))
#define VEC GLUE(float, VW)
#define LOCAL_VEC(p) (*(local const VEC *)(p)) /* vload promises element alignment only, and becomes scalar loads on some GPUs */
#define BUFFER_FLOATS (QK_FLOATS > V_SLICE * V_WIDTH ? QK_FLOATS : V_SLICE * V_WIDTH)
#define FENCE barrier(CLK_LOCAL_MEM_FENCE)
#define NO_UNROLL _Pragma("unroll 1") /* loops that compilers would unroll whole, to no good but minutes of compiling */

/* What the rows of a group see, in local memory. */
struct seen {
    int begin[ROWS], end[ROWS];
#if ALTERED || MASKED
    long own[ROWS], mask[ROWS], bias[ROWS];
#endif
};

/* Four dimensions of a row from d on, zeros behind the last. */
#define FOUR(name, TYPE, DIM)                                                                                                    \
    static inline float4 name(global const uchar *row, int d, float factor)                                                     \
    {                                                                                                                            \
        if (d + 4 <= DIM) return GLUE(load4_, TYPE)(row, d, factor);                                                             \
        float4 x = 0;                                                                                                            \
        if (d < DIM) x.s0 = GLUE(load1_, TYPE)(row, d, factor);                                                                  \
        if (d + 1 < DIM) x.s1 = GLUE(load1_, TYPE)(row, d + 1, factor);                                                          \
        if (d + 2 < DIM) x.s2 = GLUE(load1_, TYPE)(row, d + 2, factor);                                                          \
        return x;                                                                                                                \
    }
FOUR(four_of_query, Q_TYPE, HEAD_DIM)
FOUR(four_of_key, K_TYPE, HEAD_DIM)
FOUR(four_of_value, V_TYPE, V_HEAD_DIM)

ATTENTION_KERNEL void prefill_tile(ATTENTION_ARGUMENTS)
{
    local float buffer[BUFFER_FLOATS] ALIGNED, p[ROWS * P_STEP] ALIGNED, row_fade[ROWS], row_m[ROWS], row_l[ROWS];
    local struct seen seen;
    local int odd; /* V of this block holds NaN or infinity */
    local long q_at[ROWS], k_at[KEYS], v_at[KEYS]; /* where rows lie: found once, read for every slice */
    local float k_factor[HAS_SCALE(K_TYPE) ? KEYS : 1], v_factor[HAS_SCALE(V_TYPE) ? KEYS : 1];
    local float q_rows[Q_STAYS ? Q_FLOATS : 1] ALIGNED;
    local float *k_slice = buffer, *q_slice = Q_STAYS ? q_rows : buffer + Q_SLICE * KEYS;
    const int number = ITEM_NUMBER, lane = LANE, tx = (int)get_local_id(0), ty = (int)get_local_id(1);
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
            struct row row = row_of(st, s, b, h, first + min(r, rows - 1), q_positions, key_range, alibi, problem);
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
        VEC o_tile[TR][TD];
#pragma unroll
        for (int r = 0; r < TR; r++)
#pragma unroll
            for (int c = 0; c < TD; c++) o_tile[r][c] = 0;

        const int first_block = high ? low / KEYS * KEYS : 0;
        for (int block = first_block; block < high; block += KEYS) {
            VEC tile[TR][TC];
#pragma unroll
            for (int r = 0; r < TR; r++)
#pragma unroll
                for (int c = 0; c < TC; c++) tile[r][c] = 0;

            NO_UNROLL for (int c = lane; c < KEYS; c += LANES) { /* keys that the group may not see repeat one that it may */
                int j = clamp(block + c, low, high - 1);
                k_at[c] = key_offset(st.k, s, page_table, b, g, j, problem);
                v_at[c] = key_offset(st.v, s, page_table, b, g, j, problem);
                if (HAS_SCALE(K_TYPE)) k_factor[c] = AT(float, k_scale + key_offset(st.k_scale, s, page_table, b, g, j, problem))[0];
                if (HAS_SCALE(V_TYPE)) v_factor[c] = AT(float, v_scale + key_offset(st.v_scale, s, page_table, b, g, j, problem))[0];
            }

            /* scores */
            NO_UNROLL for (int d0 = 0; d0 < HEAD_DIM; d0 += Q_SLICE) {
                FENCE;
                NO_UNROLL for (int x = lane; x < KEYS * (Q_SLICE / 4); x += LANES) {
                    int c = x / (Q_SLICE / 4), d = x % (Q_SLICE / 4) * 4;
                    float4 y = four_of_key(k + k_at[c], d0 + d, HAS_SCALE(K_TYPE) ? k_factor[c] : 1.0f);
                    k_slice[(d + 0) * KEYS + c] = y.s0;
                    k_slice[(d + 1) * KEYS + c] = y.s1;
                    k_slice[(d + 2) * KEYS + c] = y.s2;
                    k_slice[(d + 3) * KEYS + c] = y.s3;
                }
                if (!Q_STAYS || block == first_block) NO_UNROLL for (int x = lane; x < ROWS * (Q_SLICE / 4); x += LANES) {
                    int r = x / (Q_SLICE / 4), d = x % (Q_SLICE / 4) * 4;
                    float4 y = four_of_query(q + q_at[r], d0 + d, 1.0f) * SCALE;
                    q_slice[(d + 0) * (ROWS + 1) + r] = y.s0;
                    q_slice[(d + 1) * (ROWS + 1) + r] = y.s1;
                    q_slice[(d + 2) * (ROWS + 1) + r] = y.s2;
                    q_slice[(d + 3) * (ROWS + 1) + r] = y.s3;
                }
                if (lane == 0) odd = 0;
                FENCE;
                _Pragma("unroll 2") for (int d = 0; d < Q_SLICE + LOOP_GUARD; d++) {
                    VEC y[TC];
#pragma unroll
                    for (int c = 0; c < TC; c++) y[c] = LOCAL_VEC(k_slice + d * KEYS + (tx + LOCAL_X * c) * VW);
#pragma unroll
                    for (int r = 0; r < TR; r++) {
                        VEC x = (VEC)q_slice[d * (ROWS + 1) + ty * TR + r];
#pragma unroll
                        for (int c = 0; c < TC; c++) tile[r][c] = fma(y[c], x, tile[r][c]);
                    }
                }
            }

#pragma unroll
            for (int r = 0; r < TR; r++)
#pragma unroll
                for (int c = 0; c < TC; c++) GLUE(vstore, VW)(tile[r][c], tx + LOCAL_X * c, p + (ty * TR + r) * P_STEP);
            FENCE;

            /* who sees what; from here on small code counts: a loop over the scores, whoever computed them */
            if (all_from > block || all_to < block + KEYS || ALTERED || MASKED) {
                NO_UNROLL for (int x = lane; x < ROWS * KEYS; x += LANES) {
                    const int r = x / KEYS, j = block + x % KEYS;
                    local float *at = p + r * P_STEP + x % KEYS;
#if ALTERED || MASKED
                    float capped;
                    struct row row = {seen.begin[r], seen.end[r], s.kv_len, seen.own[r], seen.mask[r], seen.bias[r], slope};
                    *at = j < s.kv_len ? logit1(*at, j, row, mask, bias, &capped, problem) : -INFINITY;
#else
                    if (j < seen.begin[r] || j >= seen.end[r]) *at = -INFINITY;
#endif
                }
                FENCE;
            }
            NO_UNROLL for (int r = lane; r < ROWS; r += LANES) {
                float top = row_m[r];
                VEC best = (VEC)top;
                NO_UNROLL for (int c = 0; c < KEYS / VW + LOOP_GUARD; c++) best = LARGER(best, GLUE(vload, VW)(c, p + r * P_STEP));
                float one[VW] ALIGNED;
                GLUE(vstore, VW)(best, 0, one);
                for (int c = 0; c < VW; c++) top = LARGER(top, one[c]);
                row_fade[r] = exp_1(row_m[r] - LARGER(-FLT_MAX, top));
#ifdef MUTANT_cl_tile_rescale
                row_fade[r] = 1.0f;
#endif
                row_m[r] = top;
            }
            FENCE;
            NO_UNROLL for (int x = lane; x < ROWS * (KEYS / VW); x += LANES) {
                const int r = x / (KEYS / VW);
                local float *at = p + r * P_STEP + x % (KEYS / VW) * VW;
                const VEC score = GLUE(vload, VW)(0, at), e = GLUE(exp_, VW)(score - (VEC)LARGER(-FLT_MAX, row_m[r]));
                GLUE(vstore, VW)(score == (VEC)-INFINITY ? (VEC)-0.0f : e, 0, at);
            }
#pragma unroll
            for (int r = 0; r < TR; r++) {
                const VEC fade = (VEC)row_fade[ty * TR + r];
#pragma unroll
                for (int c = 0; c < TD; c++) o_tile[r][c] *= fade;
            }
#ifndef MUTANT_cl_tile_barrier
            FENCE;
#endif
            NO_UNROLL for (int r = lane; r < ROWS; r += LANES) {
                float sum = row_l[r] * row_fade[r];
                NO_UNROLL for (int c = 0; c < KEYS + LOOP_GUARD; c++) sum += p[r * P_STEP + c];
                row_l[r] = sum;
            }

            /* weighted values */
#pragma unroll
            for (int t = 0; t < TD; t += TD_AT_ONCE)
                NO_UNROLL for (int c0 = 0; c0 < KEYS && block + c0 < high; c0 += V_SLICE) {
                    FENCE;
                    NO_UNROLL for (int x = lane; x < V_SLICE * (V_WIDTH / 4); x += LANES) {
                        int c = x / (V_WIDTH / 4), d = x % (V_WIDTH / 4) * 4 + t * LOCAL_X * VW;
                        float4 y = four_of_value(v + v_at[c0 + c], d, HAS_SCALE(V_TYPE) ? v_factor[c0 + c] : 1.0f);
                        *(local float4 *)(buffer + 4 * x) = y;
                        if (!all(fabs(y) < (float4)INFINITY)) atomic_or(&odd, 1);
                    }
                    FENCE;
                    if (odd) {
                        NO_UNROLL for (int c = 0; c < V_SLICE; c++)
#pragma unroll /* o_tile[r] with r known, or the whole tile moves from registers to memory */
                            for (int r = 0; r < TR; r++) {
                                const float w = p[(ty * TR + r) * P_STEP + c0 + c];
#ifndef MUTANT_cl_tile_zero_times_nan
                                if (as_uint(w) == 0x80000000) continue;
#endif
#pragma unroll
                                for (int d = 0; d < TD_AT_ONCE; d++)
                                    if (t + d < TD)
                                        o_tile[r][t + d] = fma(LOCAL_VEC(buffer + c * V_WIDTH + (tx + LOCAL_X * d) * VW), (VEC)w, o_tile[r][t + d]);
                            }
                    } else {
                        _Pragma("unroll 2") for (int c = 0; c < V_SLICE + LOOP_GUARD; c++) {
                            VEC y[TD_AT_ONCE];
#pragma unroll
                            for (int d = 0; d < TD_AT_ONCE; d++) y[d] = LOCAL_VEC(buffer + c * V_WIDTH + (tx + LOCAL_X * d) * VW);
#pragma unroll
                            for (int r = 0; r < TR; r++) {
                                const VEC w = (VEC)p[(ty * TR + r) * P_STEP + c0 + c];
#pragma unroll
                                for (int d = 0; d < TD_AT_ONCE; d++)
                                    if (t + d < TD) o_tile[r][t + d] = fma(y[d], w, o_tile[r][t + d]);
                            }
                        }
                    }
                }
        }

        FENCE;
        /* p is free: the factors of each row's end */
        NO_UNROLL for (int r = lane; r < rows; r += LANES) {
            float2 by = end_row(row_m[r], row_l[r], st, s, b, h, first + r, lse, sinks, true, problem);
            p[r] = by.s0;
            p[ROWS + r] = by.s1;
        }
        FENCE;
#pragma unroll
        for (int r = 0; r < TR; r++) {
            const int n = ty * TR + r;
            if (n >= rows) continue;
            global uchar *to = o + query_offset(st.o, s, b, h, first + n);
#pragma unroll
            for (int c = 0; c < TD; c++) {
                float one[VW] ALIGNED;
                GLUE(vstore, VW)(row_l[n] == 0 ? (VEC)0.0f : o_tile[r][c] * p[n] / (VEC)p[ROWS + n] + (VEC)0.0f, 0, one);
                for (int e = 0; e < VW; e++) {
                    const int d = (tx + LOCAL_X * c) * VW + e;
                    if (d < V_HEAD_DIM) GLUE(store1_, O_TYPE)(to, d, one[e]);
                }
            }
        }
    }
}
