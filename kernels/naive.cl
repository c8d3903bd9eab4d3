/* SPDX-License-Identifier: MIT
 * naive.cl - the definition's loops in f32, one work-item per query row: every feature, every type, any device. Never fast.
 *
 * No local memory, no barriers, no vectors; private memory is one row of v_head_dim floats. It answers where no other row does, so it
 * is kept simple enough to be believed.
 *
 *     per block of 16 keys, counted from key 0:  t = logit     m' = max(m, t)     p = e^(t - m')
 *     l = l e^(m - m') + sum p                   acc = acc e^(m - m') + sum p v            (sums in the order of the keys)
 */
#define BLOCK 16

/* One row: query i of query head h. The list is the kernel's own. */
static inline void naive_row(ATTENTION_ARGUMENTS, int b, int h, int i)
{
    int g = h / GROUP;
    struct sequence s = sequences[b];
    struct row row = row_of(st, s, b, h, i, q_positions, key_range, alibi);
    global const uchar *q_row = q + query_offset(st.q, s, b, h, i);
    global float *score_row = (global float *)(scores + query_offset(st.scores, s, b, h, i));
    float m = -INFINITY, l = 0, acc[V_HEAD_DIM];
    for (int d = 0; d < V_HEAD_DIM; d++) acc[d] = 0;

    /* scores are written for every key of the sequence, hidden or not */
    int first = SCORES ? 0 : row.begin / BLOCK * BLOCK, last = SCORES ? s.kv_len : row.end;
    for (int j0 = first; j0 < last; j0 += BLOCK) {
        float t[BLOCK], top = -INFINITY, v_factor[BLOCK];
        long v_at[BLOCK];
        uint visible = 0;
        for (int c = 0; c < BLOCK; c++) {
            int j = j0 + c;
            t[c] = -INFINITY;
            v_at[c] = 0;
            v_factor[c] = 1.0f;
            if (j >= last) continue;
            bool look = j >= row.begin && j < row.end && mask_shows(mask, row, j);
            float x = -INFINITY, raw = 0, capped = 0;
            if (look || (SCORES && SCORES_STAGE < 2)) {
                global const uchar *k_row = k + key_offset(st.k, s, page_table, b, g, j);
                float factor = HAS_SCALE(K_TYPE) ? AT(float, k_scale + key_offset(st.k_scale, s, page_table, b, g, j))[0] : 1.0f;
                float dot = 0;
                for (int d = 0; d < HEAD_DIM; d++)
                    dot = fma(GLUE(load1_, Q_TYPE)(q_row, d, 1.0f), GLUE(load1_, K_TYPE)(k_row, d, factor), dot);
                raw = SCALE * dot;
                x = logit1(raw, j, row, mask, bias, &capped);
            }
#if SCORES
            score_row[j] = SCORES_STAGE == 0 ? raw : SCORES_STAGE == 1 ? capped : x;
#endif
            if (x == -INFINITY) continue;
            t[c] = x;
            top = LARGER(top, t[c]);
            visible |= 1u << c;
            v_at[c] = key_offset(st.v, s, page_table, b, g, j);
            if (HAS_SCALE(V_TYPE)) v_factor[c] = AT(float, v_scale + key_offset(st.v_scale, s, page_table, b, g, j))[0];
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
        for (int d = 0; d < V_HEAD_DIM; d++) {
            float sum = fma(acc[d], keep, 0.0f);
            for (int c = 0; c < BLOCK; c++)
                if (visible >> c & 1) sum = fma(t[c], GLUE(load1_, V_TYPE)(v + v_at[c], d, v_factor[c]), sum);
            acc[d] = sum;
        }
    }

    float2 end = end_row(m, l, st, s, b, h, i, lse, sinks, true);
    global uchar *o_row = o + query_offset(st.o, s, b, h, i);
    for (int d = 0; d < V_HEAD_DIM; d++) GLUE(store1_, O_TYPE)(o_row, d, l != 0 ? acc[d] * end.s0 / end.s1 : 0.0f);

#if SCORES && SCORES_STAGE == 3
    /* e^(t - m) / l from the logits written above; with a sink m and l are those without it, rescaled by end.s0 */
    float base = m == -INFINITY ? 0 : m;
    for (int j = 0; j < s.kv_len; j++) {
        float x = score_row[j];
        score_row[j] = x == -INFINITY ? 0.0f : exp_1(x - base) * end.s0 / end.s1;
    }
#endif
}

ATTENTION_KERNEL void naive(ATTENTION_ARGUMENTS)
{
    int number = ITEM_NUMBER;
    if (number >= item_count) return;
    struct work_item item = AT(struct work_item, items)[item_first + number];
    for (int i = item.q_begin + LANE; i < item.q_end; i += LANES)
        naive_row(ATTENTION_PASSED, item.sequence, item.head, i);
}
