/* SPDX-License-Identifier: MIT
 * merge.cl - partial results of chunks of keys -> o and lse; and heed_merge, two finished results -> one.
 *
 *     parts:   M = max m_c     w_c = e^(m_c - M)     l = sum w_c l_c     o = sum w_c acc_c / l        (chunks in the order of the keys)
 *     of two:  m = max(l_a, l_b)   w = e^(l - m)     o = (w_a o_a + w_b o_b) / (w_a + w_b)            lse = m + ln(w_a + w_b)
 *
 * Parts: one group per merge item, whose work-items share the rows' dimensions, 16 at a time. No barriers.
 *
 *   MERGE_TWO   the program holds merge_two (heed_merge) instead of merge_parts
 */

#ifndef MERGE_TWO
ATTENTION_KERNEL void merge_parts(ATTENTION_ARGUMENTS)
{
    int number = ITEM_NUMBER;
    if (number >= item_count) return;
    struct merge_item item = AT(struct merge_item, items)[item_first + number];
    struct sequence s = sequences[item.sequence];
    int heads = item.rows / (item.q_end - item.q_begin); /* the group's heads where the row packs them, else 1 */
    for (int r = 0; r < item.rows; r++) {
        int h = item.head * heads + r % heads, i = item.q_begin + r / heads;
        float m = -INFINITY, l = 0;
        for (int c = 0; c < item.chunks; c++) m = LARGER(m, part_sums(work, part_rows, item.part + (long)c * item.rows + r)[0]);
        float base = m == -INFINITY ? 0 : m;
        for (int c = 0; c < item.chunks; c++) {
            global const float *sums = part_sums(work, part_rows, item.part + (long)c * item.rows + r);
            l = fma(exp_1(sums[0] - base), sums[1], l);
        }
        float2 end = end_row(m, l, st, s, item.sequence, h, i, lse, sinks, LANE == 0);
        global uchar *o_row = o + query_offset(st.o, s, item.sequence, h, i);
        for (int d = LANE * 16; d < V_HEAD_DIM; d += LANES * 16) {
            if (d + 16 <= V_HEAD_DIM) {
                float16 sum = 0;
                for (int c = 0; c < item.chunks; c++) {
                    long part = item.part + (long)c * item.rows + r;
                    float weight = exp_1(part_sums(work, part_rows, part)[0] - base);
                    sum = fma((float16)weight, vload16(0, work + part * V_HEAD_DIM + d), sum);
                }
                GLUE(store16_, O_TYPE)(o_row, d, l != 0 ? sum * end.s0 / (float16)end.s1 : (float16)0.0f);
            } else
                for (int e = d; e < V_HEAD_DIM; e++) {
                    float sum = 0;
                    for (int c = 0; c < item.chunks; c++) {
                        long part = item.part + (long)c * item.rows + r;
                        sum = fma(exp_1(part_sums(work, part_rows, part)[0] - base), work[part * V_HEAD_DIM + e], sum);
                    }
                    GLUE(store1_, O_TYPE)(o_row, e, l != 0 ? sum * end.s0 / end.s1 : 0.0f);
                }
        }
    }
}
#else

/* heed_merge, a work-item per row (t, h), t counted over all sequences. o may be o_a or o_b, lse likewise. */
struct merge_strides {
    struct view o_a, lse_a, o_b, lse_b, o, lse;
};

/* e^(l - m), or 2^(l - m), for l <= m. */
static inline float weight_of(float l, float m)
{
    return exp_1(LSE_BASE2 ? (l - m) * LN2 : l - m);
}

/* A part that weighs nothing is not read, so the other one passes bit for bit. */
static inline void keep_part(global uchar *to, global const uchar *from)
{
#if O_TYPE == TYPE_F32
    for (int d = 0; d < V_HEAD_DIM; d++) ((global uint *)to)[d] = AT(uint, from)[d];
#else
    for (int d = 0; d < V_HEAD_DIM; d++) ((global ushort *)to)[d] = AT(ushort, from)[d];
#endif
}

kernel void merge_two(global const uchar *o_a, global const uchar *lse_a, global const uchar *o_b, global const uchar *lse_b,
                      global uchar *o, global uchar *lse, global const struct sequence *sequences, int sequence_count, int heads,
                      int row_first, int row_count, struct merge_strides st)
{
    int number = ROW_NUMBER;
    if (number >= row_count) return;
    int2 query = query_of(sequences, sequence_count, (row_first + number) / heads);
    int b = query.s0, i = query.s1, h = (row_first + number) % heads;
    struct sequence s = sequences[b];
    float l_a = AT(float, lse_a + query_offset(st.lse_a, s, b, h, i))[0], l_b = AT(float, lse_b + query_offset(st.lse_b, s, b, h, i))[0];
    float m = l_a > l_b || isnan(l_a) ? l_a : l_b, joined = -INFINITY;
    global const uchar *a_row = o_a + query_offset(st.o_a, s, b, h, i), *b_row = o_b + query_offset(st.o_b, s, b, h, i);
    global uchar *o_row = o + query_offset(st.o, s, b, h, i);
    if (m == -INFINITY) {
        for (int d = 0; d < V_HEAD_DIM; d++) GLUE(store1_, O_TYPE)(o_row, d, 0.0f);
    } else {
        float w_a = weight_of(l_a, m), w_b = weight_of(l_b, m), sum = w_a + w_b;
        joined = w_b == 0 ? l_a : w_a == 0 ? l_b : LSE_BASE2 ? fma(log_1(sum), LOG2E, m) : m + log_1(sum);
        if (w_b == 0) {
            if (o_row != a_row) keep_part(o_row, a_row);
        } else if (w_a == 0) {
            if (o_row != b_row) keep_part(o_row, b_row);
        } else {
#ifdef MUTANT_cl_merge_weight
            w_b = 1.0f;
#endif
            for (int d = 0; d < V_HEAD_DIM; d++) {
                float x = GLUE(load1_, O_TYPE)(a_row, d, 1.0f), y = GLUE(load1_, O_TYPE)(b_row, d, 1.0f);
                GLUE(store1_, O_TYPE)(o_row, d, fma(w_b, y, w_a * x) / sum);
            }
        }
    }
    ((global float *)(lse + query_offset(st.lse, s, b, h, i)))[0] = joined;
}
#endif
