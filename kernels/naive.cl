/* SPDX-License-Identifier: MIT
 * naive.cl - the definition's loops in f32, one work-item per query row: every feature, every type, any device. Never fast.
 *
 * No local memory, no barriers, no vectors; private memory is one row of ROW_LIMIT floats. It answers where no other row does, so it is kept simple
 * enough to be believed. Its constants come at run time: one program for all problems, so that it is there without waiting for a compiler.
 *
 *     per block of 16 keys, counted from key 0:  t = logit     m' = max(m, t)     p = e^(t - m')
 *     l = l e^(m - m') + sum p                   acc = acc e^(m - m') + sum p v            (sums in the order of the keys)
 *
 *   ROW_LIMIT   v_head_dim is at most this
 */
#define BLOCK 16

/* Elements d ... d + n - 1 of a row, n <= BLOCK: one look at the type for all of them. */
static inline void load_block(int type, global const uchar *row, int d, int n, float scale, private float *to)
{
#define OF_TYPE(T)                                                                                                               \
    case T:                                                                                                                      \
        for (int c = 0; c < n; c++) to[c] = load1_##T(row, d + c, scale);                                                        \
        break;
    switch (type) {
        OF_TYPE(1) OF_TYPE(2) OF_TYPE(3) OF_TYPE(4) OF_TYPE(5) OF_TYPE(6) OF_TYPE(7) OF_TYPE(8)
    }
}

/* q . k of a row each, in the order of d. */
static inline float naive_dot(global const uchar *q_row, global const uchar *k_row, float factor, struct problem problem)
{
    float dot = 0, x[BLOCK], y[BLOCK];
    for (int d = 0; d < HEAD_DIM; d += BLOCK) {
        int n = min(BLOCK, HEAD_DIM - d);
        load_block(Q_TYPE, q_row, d, n, 1.0f, x);
        load_block(K_TYPE, k_row, d, n, factor, y);
        for (int e = 0; e < n; e++) dot = fma(x[e], y[e], dot);
    }
    return dot;
}

/* One row: query i of query head h. The list is the kernel's own. */
ONCE void naive_row(ATTENTION_ARGUMENTS, int b, int h, int i)
{
    int g = h / GROUP;
#ifdef MUTANT_cl_naive_group_map
    g = max(g - 1, 0);
#endif
    struct sequence s = sequences[b];
    struct row row = row_of(st, s, b, h, i, q_positions, key_range, alibi, problem);
    global const uchar *q_row = q + query_offset(st.q, s, b, h, i);
    float m = -INFINITY, l = 0, acc[ROW_LIMIT], x[BLOCK], y[BLOCK];
    for (int d = 0; d < V_HEAD_DIM; d++) acc[d] = 0;

    for (int j0 = row.begin / BLOCK * BLOCK; j0 < row.end; j0 += BLOCK) {
        float t[BLOCK], top = -INFINITY, v_factor[BLOCK];
        long v_at[BLOCK];
        uint visible = 0;
        for (int c = 0; c < BLOCK; c++) {
            int j = j0 + c;
            t[c] = -INFINITY;
            v_at[c] = 0;
            v_factor[c] = 1.0f;
            if (j >= row.end) continue;
            float logit = -INFINITY, capped = 0;
            if (j >= row.begin && mask_shows(mask, row, j, problem)) {
                global const uchar *k_row = k + key_offset(st.k, s, page_table, b, g, j, problem);
                float factor = HAS_SCALE(K_TYPE) ? AT(float, k_scale + key_offset(st.k_scale, s, page_table, b, g, j, problem))[0] : 1.0f;
                logit = logit1(SCALE * naive_dot(q_row, k_row, factor, problem), j, row, mask, bias, &capped, problem);
            }
            if (logit == -INFINITY) continue;
            t[c] = logit;
            top = LARGER(top, t[c]);
            visible |= 1u << c;
            v_at[c] = key_offset(st.v, s, page_table, b, g, j, problem);
            if (HAS_SCALE(V_TYPE)) v_factor[c] = AT(float, v_scale + key_offset(st.v_scale, s, page_table, b, g, j, problem))[0];
        }
        if (!visible) continue;
        float next = LARGER(m, top), base = next == -INFINITY ? 0 : next, keep = exp_1(m - base);
#ifdef MUTANT_cl_naive_rescale
        keep = 1.0f;
#endif
        m = next;
        l *= keep;
        for (int c = 0; c < BLOCK; c++)
            if (visible >> c & 1) {
                t[c] = exp_1(t[c] - base);
                l += t[c];
            }
        for (int d = 0; d < V_HEAD_DIM; d += BLOCK) {
            int n = min(BLOCK, V_HEAD_DIM - d);
            for (int e = 0; e < n; e++) x[e] = fma(acc[d + e], keep, 0.0f);
            for (int c = 0; c < BLOCK; c++) {
                if (!(visible >> c & 1)) continue;
                load_block(V_TYPE, v + v_at[c], d, n, v_factor[c], y);
                for (int e = 0; e < n; e++) x[e] = fma(t[c], y[e], x[e]);
            }
            for (int e = 0; e < n; e++) {
#ifdef MUTANT_cl_naive_f16_accumulator
                ushort rounded;
                vstore_half(x[e], 0, (private half *)&rounded);
                x[e] = vload_half(0, (private const half *)&rounded);
#endif
                acc[d + e] = x[e];
            }
        }
    }

    float2 end = end_row(m, l, st, s, b, h, i, lse, sinks, true, problem);
    global uchar *o_row = o + query_offset(st.o, s, b, h, i);
    for (int d = 0; d < V_HEAD_DIM; d++) STORE1(O_TYPE, o_row, d, l != 0 ? acc[d] * end.s0 / end.s1 : 0.0f);
}

ATTENTION_KERNEL void naive(ATTENTION_ARGUMENTS)
{
    int number = ITEM_NUMBER;
    if (number >= item_count) return;
    struct work_item item = AT(struct work_item, items)[item_first + number];
    for (int i = item.q_begin + LANE; i < item.q_end; i += LANES)
        naive_row(ATTENTION_PASSED, item.sequence, item.head, i);
}
