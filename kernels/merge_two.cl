/* SPDX-License-Identifier: MIT
 * merge_two.cl - heed_merge: two finished results over disjoint keys -> one.
 *
 *     m = max(l_a, l_b)     w = e^(l - m)     o = (w_a o_a + w_b o_b) / (w_a + w_b)     lse = m + ln(w_a + w_b)
 *
 * A work-item per row, constants at run time. Not merge.cl, which joins the partial results of one run.
 */

/* A work-item per row (t, h), t counted over all sequences. o may be o_a or o_b, lse likewise. */
struct merge_strides {
    struct view o_a, lse_a, o_b, lse_b, o, lse;
};

/* e^(l - m), or 2^(l - m), for l <= m. */
static inline float weight_of(float l, float m, struct problem problem)
{
    return exp_1(LSE_BASE2 ? (l - m) * LN2 : l - m);
}

/* A part that weighs nothing is not read, so the other one passes bit for bit. */
static inline void keep_part(global uchar *to, global const uchar *from, struct problem problem)
{
    if (O_TYPE == TYPE_F32)
        for (int d = 0; d < V_HEAD_DIM; d++) ((global uint *)to)[d] = AT(uint, from)[d];
    else
        for (int d = 0; d < V_HEAD_DIM; d++) ((global ushort *)to)[d] = AT(ushort, from)[d];
}

/* A row of o; returns its lse. */
ONCE float merge_rows(global uchar *o_row, global const uchar *a_row, global const uchar *b_row, float l_a, float l_b, struct problem problem)
{
    float m = l_a > l_b || isnan(l_a) ? l_a : l_b;
    if (m == -INFINITY) {
        for (int d = 0; d < V_HEAD_DIM; d++) STORE1(O_TYPE, o_row, d, 0.0f);
        return -INFINITY;
    }
    float w_a = weight_of(l_a, m, problem), w_b = weight_of(l_b, m, problem), sum = w_a + w_b;
    if (w_b == 0) {
        if (o_row != a_row) keep_part(o_row, a_row, problem);
        return l_a;
    }
    if (w_a == 0) {
        if (o_row != b_row) keep_part(o_row, b_row, problem);
        return l_b;
    }
#ifdef MUTANT_cl_merge_weight
    w_b = 1.0f;
#endif
    for (int d = 0; d < V_HEAD_DIM; d++) {
        float x = LOAD1(O_TYPE, a_row, d, 1.0f), y = LOAD1(O_TYPE, b_row, d, 1.0f);
        STORE1(O_TYPE, o_row, d, fma(w_b, y, w_a * x) / sum);
    }
    return LSE_BASE2 ? fma(log_1(sum), LOG2E, m) : m + log_1(sum);
}

kernel void merge_two(global const uchar *o_a, global const uchar *lse_a, global const uchar *o_b, global const uchar *lse_b,
                      global uchar *o, global uchar *lse, global const struct sequence *sequences, int sequence_count, int heads,
                      int row_first, int row_count, struct merge_strides st, struct problem problem)
{
    int number = ROW_NUMBER;
    if (number >= row_count) return;
    int2 query = query_of(sequences, sequence_count, (row_first + number) / heads);
    int b = query.s0, i = query.s1, h = (row_first + number) % heads;
    struct sequence s = sequences[b];
    float l_a = AT(float, lse_a + query_offset(st.lse_a, s, b, h, i))[0], l_b = AT(float, lse_b + query_offset(st.lse_b, s, b, h, i))[0];
    global const uchar *a_row = o_a + query_offset(st.o_a, s, b, h, i), *b_row = o_b + query_offset(st.o_b, s, b, h, i);
    float joined = merge_rows(o + query_offset(st.o, s, b, h, i), a_row, b_row, l_a, l_b, problem);
    ((global float *)(lse + query_offset(st.lse, s, b, h, i)))[0] = joined;
}
