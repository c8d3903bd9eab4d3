/* SPDX-License-Identifier: MIT
 * decode_lanes.cl - the few query rows of one KV head's group against one chunk of keys, on any GPU: a work-group per work item. decode.cl is the form for
 * CPUs; the arithmetic and its order are the same, so are the bits.
 *
 *     s[r][key] = sum_d q[r][d] k[key][d]        a work-item is a key: 16 sums over d for each of RT rows, then a tree
 *     m = max s   p = e^(s - m)   l = sum p      over the chunk, in local memory; sum: 16 lanes over the keys, then the tree
 *     acc[r][d] = sum_key p[r][key] v[key][d]    a work-item is a dimension: one chain over the keys that the row sees
 *
 *   LOCAL_X    work-items per group        KV_CHUNK   keys per work item (512): decides the bits
 */
#define RT (GROUP < 4 ? GROUP : 4)     /* rows at a time: each key is read once for them */
#define DQ ((HEAD_DIM + 15) / 16 * 16)
#define TD ((V_HEAD_DIM + LANES - 1) / LANES)
#define FENCE barrier(CLK_LOCAL_MEM_FENCE)
#define HIDDEN 0x80000000 /* the weight -0 */

/* 16 elements of a row from d on, or those up to HEAD_DIM and zeros. */
#define SIXTEEN(name, TYPE)                                                                                                      \
    static inline float16 name(global const uchar *row, int d)                                                                   \
    {                                                                                                                            \
        if (d + 16 <= HEAD_DIM) return GLUE(load16_, TYPE)(row, d, 1.0f);                                                        \
        float one[16];                                                                                                           \
        for (int c = 0; c < 16; c++) one[c] = d + c < HEAD_DIM ? GLUE(load1_, TYPE)(row, d + c, 1.0f) : 0;                       \
        return vload16(0, one);                                                                                                  \
    }
SIXTEEN(load_key, K_TYPE)

ATTENTION_KERNEL void decode_lanes(ATTENTION_ARGUMENTS)
{
    local float query[RT * DQ] ALIGNED, p[RT * KV_CHUNK] ALIGNED, share[RT * 16], row_m[RT], row_l[RT], row_by[2 * RT];
    local long v_at[KV_CHUNK];
#if HAS_SCALE(V_TYPE)
    local float v_factor[KV_CHUNK];
#endif
    const int number = ITEM_NUMBER, lane = LANE;
    if (number >= item_count) return; /* the whole group */
    const struct work_item item = AT(struct work_item, items)[item_first + number];
    const struct sequence s = sequences[item.sequence];
    const int b = item.sequence, g = item.head, rows = (item.q_end - item.q_begin) * GROUP, chunk = item.kv_begin;

    for (int first = 0; first < rows; first += RT) {
        /* rows behind the last repeat it; nothing of them is stored */
        struct row row[RT];
        int lo = KV_CHUNK, hi = 0;
#pragma unroll
        for (int r = 0; r < RT; r++) {
            const int n = min(first + r, rows - 1);
            row[r] = row_of(st, s, b, g * GROUP + n % GROUP, item.q_begin + n / GROUP, q_positions, key_range, alibi, problem);
            const int from = clamp(row[r].begin - chunk, 0, KV_CHUNK), to = clamp(row[r].end - chunk, 0, item.kv_end - chunk);
            lo = from < to ? min(lo, from) : lo;
            hi = from < to ? max(hi, to) : hi;
        }
        FENCE;
        for (int x = lane; x < RT * DQ; x += LANES) {
            const int n = min(first + x / DQ, rows - 1), d = x % DQ;
            global const uchar *q_row = q + query_offset(st.q, s, b, g * GROUP + n % GROUP, item.q_begin + n / GROUP);
            query[x] = d < HEAD_DIM ? GLUE(load1_, Q_TYPE)(q_row, d, 1.0f) : 0;
        }
        FENCE;

        /* scores of every key of whole sixteens around [lo, hi) */
        const int begin = lo / 16 * 16, end = lo < hi ? (hi + 15) / 16 * 16 : begin;
        for (int n = begin + lane; n < end; n += LANES) {
            const int j = chunk + clamp(n, lo, hi - 1);
            global const uchar *k_row = k + key_offset(st.k, s, page_table, b, g, j, problem);
            v_at[n] = key_offset(st.v, s, page_table, b, g, j, problem);
#if HAS_SCALE(V_TYPE)
            v_factor[n] = AT(float, v_scale + key_offset(st.v_scale, s, page_table, b, g, j, problem))[0];
#endif
            float16 sum[RT];
#pragma unroll
            for (int r = 0; r < RT; r++) sum[r] = 0;
            for (int d = 0; d < DQ + LOOP_GUARD; d += 16) {
                const float16 x = load_key(k_row, d);
#pragma unroll
                for (int r = 0; r < RT; r++) sum[r] = fma(x, *(local const float16 *)(query + r * DQ + d), sum[r]);
            }
            const float factor = HAS_SCALE(K_TYPE) ? AT(float, k_scale + key_offset(st.k_scale, s, page_table, b, g, j, problem))[0] : 1.0f;
#pragma unroll
            for (int r = 0; r < RT; r++) {
                float x = total16(sum[r]), capped;
                if (HAS_SCALE(K_TYPE)) x *= factor;
                x *= SCALE;
                x = chunk + n < s.kv_len ? logit1(x, chunk + n, row[r], mask, bias, &capped, problem) : -INFINITY;
                p[r * KV_CHUNK + n] = x;
            }
        }
        FENCE;

        /* m: 16 work-items per row, then one */
        for (int x = lane; x < RT * 16; x += LANES) {
            float top = -INFINITY;
            for (int n = begin + x % 16; n < end; n += 16) top = LARGER(top, p[x / 16 * KV_CHUNK + n]);
            share[x] = top;
        }
        FENCE;
        for (int r = lane; r < RT; r += LANES) {
            float top = -INFINITY;
            for (int c = 0; c < 16; c++) top = LARGER(top, share[r * 16 + c]);
            row_m[r] = top;
        }
        FENCE;
        for (int n = begin + lane; n < end; n += LANES)
            for (int r = 0; r < RT; r++) {
                const float x = p[r * KV_CHUNK + n], e = exp_1(x - (row_m[r] == -INFINITY ? 0 : row_m[r]));
                p[r * KV_CHUNK + n] = x == -INFINITY ? as_float(HIDDEN) : e;
            }
        FENCE;
        for (int x = lane; x < RT * 16; x += LANES) {
            float sum = 0;
            for (int n = begin + x % 16; n < end; n += 16) sum += p[x / 16 * KV_CHUNK + n];
            share[x] = sum;
        }
        FENCE;
        for (int r = lane; r < RT; r += LANES) row_l[r] = total16(vload16(r, share));
        FENCE;

        float acc[RT][TD];
#pragma unroll
        for (int r = 0; r < RT; r++)
#pragma unroll
            for (int c = 0; c < TD; c++) acc[r][c] = 0;
        for (int n = lo; n < hi + LOOP_GUARD; n++) {
            float x[TD];
#pragma unroll
            for (int c = 0; c < TD; c++) x[c] = lane + LANES * c < V_HEAD_DIM ? GLUE(load1_, V_TYPE)(v + v_at[n], lane + LANES * c, 1.0f) : 0;
#pragma unroll
            for (int r = 0; r < RT; r++) {
                float w = p[r * KV_CHUNK + n];
#ifndef MUTANT_cl_lanes_hidden_values
                if (as_uint(w) == HIDDEN) continue;
#endif
#if HAS_SCALE(V_TYPE)
                w *= v_factor[n];
#endif
#pragma unroll
                for (int c = 0; c < TD; c++) acc[r][c] = fma(w, x[c], acc[r][c]);
            }
        }

        for (int r = lane; r < RT && first + r < rows; r += LANES) {
            const int n = first + r;
            if (item.part >= 0) {
                global float *sums = part_sums(work, part_rows, (long)item.part + n, problem);
                sums[0] = row_m[r];
                sums[1] = row_l[r];
            } else {
                float2 by = end_row(row_m[r], row_l[r], st, s, b, g * GROUP + n % GROUP, item.q_begin + n / GROUP, lse, sinks, true, problem);
                row_by[2 * r] = by.s0;
                row_by[2 * r + 1] = by.s1;
            }
        }
        FENCE;
#pragma unroll
        for (int r = 0; r < RT; r++) {
            const int n = first + r;
            if (n >= rows) continue;
            global uchar *to = o + query_offset(st.o, s, b, g * GROUP + n % GROUP, item.q_begin + n / GROUP);
            global float *part = work + ((long)item.part + n) * V_HEAD_DIM;
#pragma unroll
            for (int c = 0; c < TD; c++) {
                const int d = lane + LANES * c;
                if (d >= V_HEAD_DIM) continue;
                if (item.part >= 0) part[d] = acc[r][c];
                else GLUE(store1_, O_TYPE)(to, d, row_l[r] == 0 ? 0.0f : acc[r][c] * row_by[2 * r] / row_by[2 * r + 1]);
            }
        }
    }
}
