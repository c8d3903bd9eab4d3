/* SPDX-License-Identifier: MIT
 * prefill_subgroup.cl - prefill where sub-groups can hand each other numbers: no local memory, no barriers. A work-group per work item, its sub-groups take turns at the
 * rows of one head. prefill_tile.cl is the form for devices without sub-groups.
 *
 * The arithmetic of src/cpu/panel.inc.h, in its order, so that the bits are the CPU's and prefill_tile's. A sub-group owns TR query rows at a time. Per block of KEYS
 * keys, counted from key 0:
 *
 *     s[TR][KEYS]  = Q K^T       a lane: TR rows x the keys lane, lane + SG_LANES, ...; each lane brings one dimension of Q, which goes from lane to lane
 *     m' = max(m, s)   fade = e^(m - m')   p = e^(s - m')      the lanes' maxima meet by shuffles
 *     l = l fade + sum p   o[TR][DV] = o fade + p V            keys in order, each p from the lane that has it; a lane: TR rows x the dimensions lane, lane + SG_LANES, ...
 *
 * Keys that the rows may not see repeat one that they may, with weight -0; dimensions behind the last are zeros. Where a row may not see a key it passes it over
 * (0 * NaN would be NaN).
 *
 *   SG_LANES SG_TEAMS   the sub-group, a divisor of 96, and how many of them are a group        TR   rows per sub-group at a time
 *   KC                  keys per lane whose scores are under way at a time                      VC   the same of dimensions of V
 *   ROLLED              loops that number a lane's keys and dimensions stay loops, and the numbers memory: slow, for the longest rows
 */
#define KEYS 96 /* decides the bits */
#if KEYS % SG_LANES || SG_LANES % 4
#error "no such sub-group: its lanes divide 96, and fours of dimensions divide it"
#endif
#define TC (KEYS / SG_LANES)
#define TD ((V_HEAD_DIM + SG_LANES - 1) / SG_LANES)
#define UNROLL _Pragma("unroll")
#define NO_UNROLL _Pragma("unroll 1")
#if ROLLED
#define SLICES NO_UNROLL
#else
#define SLICES UNROLL /* what a running loop numbers does not stay in registers */
#endif
#define HIDDEN 0x80000000u /* the weight -0 */

/* Four dimensions of the key at row from d on, zeros behind the last. */
static inline float4 four_of_key(global const uchar *row, int d, float factor)
{
    if (HEAD_DIM % SG_LANES == 0 || d + 4 <= HEAD_DIM) return GLUE(load4_, K_TYPE)(row, d, factor);
    float4 x = 0;
    if (d < HEAD_DIM) x.s0 = GLUE(load1_, K_TYPE)(row, d, factor);
    if (d + 1 < HEAD_DIM) x.s1 = GLUE(load1_, K_TYPE)(row, d + 1, factor);
    if (d + 2 < HEAD_DIM) x.s2 = GLUE(load1_, K_TYPE)(row, d + 2, factor);
    return x;
}

ATTENTION_KERNEL SG_ATTRIBUTES void prefill_subgroup(ATTENTION_ARGUMENTS)
{
    SG_SCRATCH
    const int number = ITEM_NUMBER, lane = SG_LANE, team = (int)((uint)get_local_id(0) / SG_LANES);
    /* A group without an item has an item without rows. No early return: Intel's CPU driver 2026.22 reads both lists before it. */
    const bool given = number < item_count;
    struct work_item item = AT(struct work_item, items)[given ? item_first + number : 0];
    if (!given) item.sequence = item.head = item.q_begin = item.q_end = 0;
    const struct sequence s = sequences[item.sequence];
    const int b = item.sequence, h = item.head, g = h / GROUP;

    for (int first = item.q_begin + team * TR; first < item.q_end; first += SG_TEAMS * TR) {
        const int rows = min(TR, item.q_end - first); /* those behind the last repeat it; nothing of them is stored */
        struct row row[TR];
        int low = INT_MAX, high = 0, all_from = 0, all_to = INT_MAX;
        UNROLL for (int r = 0; r < TR; r++) {
            row[r] = row_in(row_of(st, s, b, h, first + min(r, rows - 1), q_positions, key_range, alibi, problem), item);
            all_from = max(all_from, row[r].begin);
            all_to = min(all_to, row[r].end);
            low = row[r].end == 0 ? low : min(low, row[r].begin);
            high = max(high, row[r].end);
        }
        float row_m[TR], row_l[TR], o_tile[TR][TD];
        UNROLL for (int r = 0; r < TR; r++) {
            row_m[r] = -INFINITY;
            row_l[r] = 0;
            UNROLL for (int t = 0; t < TD; t++) o_tile[r][t] = 0;
        }

        for (int block = high ? low / KEYS * KEYS : 0; block < high; block += KEYS) {
            float tile[TR][TC];
            UNROLL for (int r = 0; r < TR; r++)
                UNROLL for (int c = 0; c < TC; c++) tile[r][c] = 0;

            /* scores */
            SLICES for (int c0 = 0; c0 < TC; c0 += KC) {
                global const uchar *key[KC];
                float factor[KC];
                UNROLL for (int c = 0; c < KC; c++) {
                    const int j = clamp(block + lane + SG_LANES * (c0 + c), low, high - 1);
                    key[c] = k + key_offset(st.k, s, page_table, b, g, j, problem);
                    factor[c] = HAS_SCALE(K_TYPE) ? AT(float, k_scale + key_offset(st.k_scale, s, page_table, b, g, j, problem))[0] : 1.0f;
                }
                NO_UNROLL for (int d0 = 0; d0 < HEAD_DIM; d0 += SG_LANES) {
                    float own[TR]; /* dimension d0 + lane */
                    UNROLL for (int r = 0; r < TR; r++) {
                        own[r] = 0;
                        if (HEAD_DIM % SG_LANES == 0 || d0 + lane < HEAD_DIM)
                            own[r] = GLUE(load1_, Q_TYPE)(q + query_offset(st.q, s, b, h, first + min(r, rows - 1)), d0 + lane, 1.0f) * SCALE;
                    }
                    NO_UNROLL for (int e = 0; e < SG_LANES; e += 4) {
                        float4 y[KC];
                        UNROLL for (int c = 0; c < KC; c++) y[c] = four_of_key(key[c], d0 + e, factor[c]);
                        SG_UNROLL for (int r = 0; r < TR; r++) {
                            const float4 x = (float4)(sg_from(own[r], e), sg_from(own[r], e + 1), sg_from(own[r], e + 2), sg_from(own[r], e + 3));
                            UNROLL for (int c = 0; c < KC; c++)
                                if (c0 + c < TC)
                                    tile[r][c0 + c] = fma(y[c].s3, x.s3, fma(y[c].s2, x.s2, fma(y[c].s1, x.s1, fma(y[c].s0, x.s0, tile[r][c0 + c]))));
                        }
                    }
                }
            }

            /* who sees what */
#if ALTERED || MASKED
            UNROLL for (int r = 0; r < TR; r++)
                UNROLL for (int c = 0; c < TC; c++) {
                    const int j = block + lane + SG_LANES * c;
                    float capped;
                    tile[r][c] = j < s.kv_len ? logit1(tile[r][c], j, row[r], mask, bias, &capped, problem) : -INFINITY;
                }
#else
            if (all_from > block || all_to < block + KEYS)
                UNROLL for (int r = 0; r < TR; r++)
                    UNROLL for (int c = 0; c < TC; c++) {
                        const int j = block + lane + SG_LANES * c;
                        tile[r][c] = j >= row[r].begin && j < row[r].end ? tile[r][c] : -INFINITY;
                    }
#endif

            /* weights */
            SG_UNROLL for (int r = 0; r < TR; r++) {
                float top = row_m[r];
                UNROLL for (int c = 0; c < TC; c++) top = LARGER(top, tile[r][c]);
                SG_LARGEST(top)
                const float base = LARGER(-FLT_MAX, top), fade = exp_1(row_m[r] - base);
                row_m[r] = top;
                UNROLL for (int c = 0; c < TC; c++) tile[r][c] = tile[r][c] == -INFINITY ? as_float(HIDDEN) : exp_1(tile[r][c] - base);
#ifndef MUTANT_cl_sg_fade
                row_l[r] *= fade;
#endif
                UNROLL for (int t = 0; t < TD; t++) o_tile[r][t] *= fade;
            }

            /* weighted values */
#ifdef MUTANT_cl_sg_zero_times_nan
            const bool may_hide = false;
#else
            const bool may_hide = MASKED || BIAS || all_from > block || all_to < block + KEYS;
#endif
            SLICES for (int t0 = 0; t0 < TD; t0 += VC)
                SLICES for (int c = 0; c < TC; c++)
                    NO_UNROLL for (int e = 0; e < SG_LANES && block + SG_LANES * c + e < high; e++) {
                        const int j = max(block + SG_LANES * c + e, low);
                        global const uchar *value = v + key_offset(st.v, s, page_table, b, g, j, problem);
                        const float factor = HAS_SCALE(V_TYPE) ? AT(float, v_scale + key_offset(st.v_scale, s, page_table, b, g, j, problem))[0] : 1.0f;
                        float y[VC];
                        UNROLL for (int t = 0; t < VC; t++) {
                            const int d = lane + SG_LANES * (t0 + t);
                            y[t] = 0;
                            if (t0 + t < TD && (V_HEAD_DIM % SG_LANES == 0 || d < V_HEAD_DIM)) y[t] = GLUE(load1_, V_TYPE)(value, d, factor);
                        }
                        SG_UNROLL for (int r = 0; r < TR; r++) {
                            const float w = sg_from(tile[r][c], e);
                            if (t0 == 0) row_l[r] += w;
                            UNROLL for (int t = 0; t < VC; t++)
                                if (t0 + t < TD && (!may_hide || as_uint(w) != HIDDEN)) o_tile[r][t0 + t] = fma(y[t], w, o_tile[r][t0 + t]);
                        }
                    }
        }

        UNROLL for (int r = 0; r < TR; r++) {
            if (r >= rows) continue;
            const long part = (long)item.part + (first - item.q_begin) + r;
            global uchar *to = o + query_offset(st.o, s, b, h, first + r);
            float2 by = 1;
            if (item.part < 0) by = end_row(row_m[r], row_l[r], st, s, b, h, first + r, lse, sinks, lane == 0, problem);
            else if (lane == 0) { /* some of the keys: for merge_lanes.cl */
                global float *sums = part_sums(work, part_rows, part, problem);
                sums[0] = row_m[r];
                sums[1] = row_l[r];
            }
            UNROLL for (int t = 0; t < TD; t++) {
                const int d = lane + SG_LANES * t;
                if (d >= V_HEAD_DIM) continue;
                if (item.part >= 0) work[part * V_HEAD_DIM + d] = o_tile[r][t];
                else GLUE(store1_, O_TYPE)(to, d, row_l[r] == 0 ? 0.0f : o_tile[r][t] * by.s0 / by.s1 + 0.0f);
            }
        }
    }
}
