/* SPDX-License-Identifier: MIT
 * scores.cl - scores of chosen heads and queries, and column sums of the weights: one pass over the chosen queries after attention, which kept the
 * sums m and l of every query row. One work-item per key: any device, every feature, every type, never fast. Behind naive.cl, whose dot product it has.
 *
 *     s = logit of (query i, key j)      p = e^(s - m_i) / l_i      scores[i][j] = s or p
 *     key_sums[j] = sum of p: queries t (from the first chosen one) in sixteen partial sums by t mod 16, each in the order of t, then the tree; heads in order
 */

/* Where the sums of query row (h, i) are kept. */
static inline global const float *kept_of(struct strides st, struct sequence s, int h, int i, global const float *work)
{
    return AT(float, AT(uchar, work) + st.kept.offset + (s.q_index + i) * st.kept.token + h * st.kept.head);
}

/* Row `slot` of the scores, query t: as the queries lie where all are chosen, else by itself. */
static inline global float *score_row_of(struct strides st, struct sequence s, int b, int slot, int t, global uchar *scores)
{
    if (SCORE_ROWS == 0) return (global float *)(scores + query_offset(st.scores, s, b, slot, t));
    return (global float *)(scores + st.scores.offset + b * st.scores.batch + t * st.scores.token + slot * st.scores.head);
}

/* Key j as all chosen queries of head h see it: writes its scores where slot >= 0, returns its sum. */
ONCE float scores_of_key(ATTENTION_ARGUMENTS, struct work_item item, struct sequence s, int h, int slot, int j)
{
    int b = item.sequence, g = h / GROUP;
    global const uchar *k_row = k + key_offset(st.k, s, page_table, b, g, j, problem);
    float factor = HAS_SCALE(K_TYPE) ? AT(float, k_scale + key_offset(st.k_scale, s, page_table, b, g, j, problem))[0] : 1.0f;
    float sum[16];
    for (int n = 0; n < 16; n++) sum[n] = 0;
    for (int i = item.q_begin; i < item.q_end; i++) {
        int t = i - item.q_begin;
        struct row row = row_of(st, s, b, h, i, q_positions, key_range, alibi, problem);
        bool look = j >= row.begin && j < row.end && mask_shows(mask, row, j, problem);
        float raw = 0, capped = 0, logit = -INFINITY, p = 0;
        if (look || (slot >= 0 && SCORES_STAGE < 2)) { /* stages 0 and 1 show hidden keys, too */
            raw = SCALE * naive_dot(q + query_offset(st.q, s, b, h, i), k_row, factor, problem);
            logit = logit1(raw, j, row, mask, bias, &capped, problem);
        }
        if (KEEP_SUMS) {
            global const float *kept = kept_of(st, s, h, i, work);
            float m = kept[0], l = kept[1];
            if (logit != -INFINITY) p = exp_1(logit - (m == -INFINITY ? 0 : m)) / l;
#ifdef MUTANT_cl_scores_no_sum
            if (logit != -INFINITY) p = exp_1(logit - (m == -INFINITY ? 0 : m));
#endif
        }
        if (slot >= 0)
            score_row_of(st, s, b, slot, t, scores)[j] = SCORES_STAGE == 0 ? raw : SCORES_STAGE == 1 ? capped : SCORES_STAGE == 2 ? logit : p;
#ifdef MUTANT_cl_scores_spill
        if (slot >= 0 && j + 1 == s.kv_len) score_row_of(st, s, b, slot, t, scores)[j + 1] = logit;
#endif
        sum[t % 16] += p;
    }
    return total16((float16)(sum[0], sum[1], sum[2], sum[3], sum[4], sum[5], sum[6], sum[7], sum[8], sum[9], sum[10], sum[11], sum[12], sum[13],
                             sum[14], sum[15]));
}

ATTENTION_KERNEL void naive_scores(ATTENTION_ARGUMENTS)
{
    int number = ITEM_NUMBER;
    if (number >= item_count) return;
    struct work_item item = AT(struct work_item, items)[item_first + number];
    struct sequence s = sequences[item.sequence];
    int first = item.head < 0 ? 0 : item.head, end = item.head < 0 ? KV_HEADS * GROUP : first + 1;
    for (int j = item.kv_begin + LANE; j < item.kv_end; j += LANES) {
        float sum = 0;
        for (int h = first; h < end; h++) {
            int slot = SCORES ? score_slots[h] : -1;
            if (slot < 0 && !KEY_SUMS) continue;
            float own = scores_of_key(ATTENTION_PASSED, item, s, h, slot, j);
#ifdef MUTANT_cl_scores_last_head
            sum = 0;
#endif
            sum += own;
        }
        if (KEY_SUMS) ((global float *)(key_sums + st.key_sums.offset + item.sequence * st.key_sums.batch + first * st.key_sums.head))[j] = sum;
    }
}
