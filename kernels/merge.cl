/* SPDX-License-Identifier: MIT
 * merge.cl - partial results of chunks of keys -> o and lse.
 *
 *     M = max m_c     w_c = e^(m_c - M)     l = sum w_c l_c     o = sum w_c acc_c / l        (chunks in the order of the keys)
 *
 * One group per merge item, whose work-items share rows and dimensions, 16 dimensions of a row at a time. No barriers.
 */

ONCE void merge_item(ATTENTION_ARGUMENTS, int number, int lane)
{
    struct merge_item item = AT(struct merge_item, items)[item_first + number];
    struct sequence s = sequences[item.sequence];
    int heads = item.rows / (item.q_end - item.q_begin); /* the group's heads where the row packs them, else 1 */
#ifdef MUTANT_cl_parts_head
    heads = GROUP;
#endif
    int sixteens = (V_HEAD_DIM + 15) / 16, known = -1; /* known: the row that m, l and what follows from them belong to */
    float m = -INFINITY, l = 0, base = 0;
    float2 end = 0;
    for (int x = lane; x < item.rows * sixteens; x += LANES) {
        int r = x / sixteens, d = x % sixteens * 16, h = item.head * heads + r % heads, i = item.q_begin + r / heads;
        if (r != known) {
            known = r;
            m = -INFINITY;
            l = 0;
            for (int c = 0; c < item.chunks; c++) m = LARGER(m, part_sums(work, part_rows, item.part + (long)c * item.rows + r, problem)[0]);
            base = m == -INFINITY ? 0 : m;
            for (int c = 0; c < item.chunks; c++) {
                global const float *sums = part_sums(work, part_rows, item.part + (long)c * item.rows + r, problem);
                l = fma(exp_1(sums[0] - base), sums[1], l);
            }
            end = end_row(m, l, st, s, item.sequence, h, i, lse, sinks, d == 0, problem);
        }
        global uchar *o_row = o + query_offset(st.o, s, item.sequence, h, i);
        if (d + 16 <= V_HEAD_DIM) {
            float16 sum = 0;
            for (int c = 0; c < item.chunks; c++) {
                long part = item.part + (long)c * item.rows + r;
                float weight = exp_1(part_sums(work, part_rows, part, problem)[0] - base);
#ifdef MUTANT_cl_parts_weight
                weight = 1;
#endif
                sum = fma((float16)weight, vload16(0, work + part * V_HEAD_DIM + d), sum);
            }
            GLUE(store16_, O_TYPE)(o_row, d, l != 0 ? sum * end.s0 / (float16)end.s1 : (float16)0.0f);
        } else
            for (int e = d; e < V_HEAD_DIM; e++) {
                float sum = 0;
                for (int c = 0; c < item.chunks; c++) {
                    long part = item.part + (long)c * item.rows + r;
                    sum = fma(exp_1(part_sums(work, part_rows, part, problem)[0] - base), work[part * V_HEAD_DIM + e], sum);
                }
                GLUE(store1_, O_TYPE)(o_row, e, l != 0 ? sum * end.s0 / end.s1 : 0.0f);
            }
    }
}

ATTENTION_KERNEL void merge_parts(ATTENTION_ARGUMENTS)
{
    int number = ITEM_NUMBER;
    if (number < item_count) merge_item(ATTENTION_PASSED, number, LANE);
}
