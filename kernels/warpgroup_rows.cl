/* SPDX-License-Identifier: MIT
 * warpgroup_rows.cl - what kernels for warpgroup products share: products of a tile, the online softmax of its scores, the end of rows. No kernel. The file before
 * it in the program says what is copied between the exponentials: PARCEL_TAKEN, PARCEL_GIVEN (a parameter and its argument) and COPY_BESIDE(x), x the score.
 *
 * A lane has parts of rows l/4 and l/4 + 8 of its warp's sixteen: score[4i + e] is of key 8i + 2(l%4) + e%2, acc[4i + e] of that dimension, row l/4 + 8(e/2).
 */
#define QUERY_BYTES (TILE_ROWS * 16 * K_CHUNKS)
#define K_SLOT (TILE_KEYS * 16 * K_CHUNKS)
#define V_SLOT (TILE_KEYS * 16 * V_CHUNKS)
#define QUERY_PANEL (64 * 128)
#define KEY_PANEL (TILE_KEYS * 128)
#define SCORES_HERE (TILE_KEYS / 2)
#define SUMS_HERE (V_CHUNKS * 4)

#if TILE_ROWS != 16 * WARPS || TILE_ROWS % 64 || TILE_KEYS % 16
#error "tile sizes do not fit together"
#endif

#define MULTIPLY_KEYS(slot)                                                                                                      \
    do {                                                                                                                         \
        const wg_operand own_ = wg_tile(q_tile + warpgroup * (QUERY_PANEL / 8 * K_CHUNKS), 16), keys_ = wg_tile(k_ring + (slot) * K_SLOT, 16); \
        wg_scores_first(score, own_, keys_);                                                                                     \
        MU_UNROLL for (int c_ = 1; c_ < K_STEPS; c_++)                                                                           \
            wg_scores(score, wg_step(own_, c_ / 4 * QUERY_PANEL + c_ % 4 * 32), wg_step(keys_, c_ / 4 * KEY_PANEL + c_ % 4 * 32)); \
    } while (0)

#define MULTIPLY_VALUES(slot)                                                                                                    \
    do {                                                                                                                         \
        const wg_operand values_ = wg_tile(v_ring + (slot) * V_SLOT, KEY_PANEL);                                                 \
        MU_UNROLL for (int c_ = 0; c_ < TILE_KEYS / 16; c_++)                                                                    \
            wg_values(acc, p[4 * c_], p[4 * c_ + 1], p[4 * c_ + 2], p[4 * c_ + 3], wg_step(values_, c_ * 16 * 128));             \
    } while (0)

/* Row of the tile that accumulators e with e / 2 % 2 = side belong to. */
#define OWN_ROW(side) (warp_row + (side) * 8 + (lane >> 2))

/* Scores of keys block ... become weights; m, l and by how much what was summed before fades. A row of scores lies in 4 neighbouring lanes. */
__attribute__((always_inline)) static inline void weigh(private float *score, private float *m, private float *l, private float *fade, private struct row *seen,
                                                        PARCEL_TAKEN int block, bool edge, int pass, int lane, int kv_len, global const uchar *mask,
                                                        global const uchar *bias, struct problem problem MU_SCRATCH_TAKEN)
{
    if (!RAW || edge) {
        MU_UNROLL for (int x = 0; x < SCORES_HERE; x++)
        {
            const struct row row = seen[x >> 1 & 1];
            const int j = block + x / 4 * 8 + (lane & 3) * 2 + (x & 1);
            float capped;
            if (RAW) score[x] = j >= row.begin && j < row.end ? score[x] : -INFINITY;
            else score[x] = j < kv_len ? logit1(score[x] * SCALE, j, row, mask, bias, &capped, problem) : -INFINITY;
        }
    }
    if (pass == PASS_INFINITY || pass == PASS_MINUS_INFINITY) {
        MU_UNROLL for (int x = 0; x < SCORES_HERE; x++) score[x] = score[x] == -INFINITY ? 0 : 1;
        fade[0] = fade[1] = 1;
        return;
    }
    /* Four chains of maxima and four of sums: with one warp to a scheduler nobody else fills the waits of a single one. */
    float top_score[2][2], sum[2][2] = {{0, 0}, {0, 0}}, base[2];
    MU_UNROLL for (int x = 0; x < 4; x++) top_score[x >> 1][x & 1] = fmax(m[x >> 1], score[x]); /* a NaN is dropped here: e^(NaN - m) brings it back */
    MU_UNROLL for (int x = 4; x < SCORES_HERE; x++) top_score[x >> 1 & 1][x & 1] = fmax(top_score[x >> 1 & 1][x & 1], score[x]);
    MU_UNROLL for (int side = 0; side < 2; side++)
    {
        float top = fmax(top_score[side][0], top_score[side][1]);
        MU_UNROLL for (int x = 1; x <= 2; x++)
        {
            const float beside = mu_xor(top, x);
            top = fmax(top, beside);
        }
        /* RAW: base and exponents are scaled; no key yet: a base of 0 */
        base[side] = RAW ? (top == -INFINITY ? 0 : top * EXPONENT) : LARGER(-FLT_MAX, top);
        fade[side] = RAW ? mu_exp(m[side] * EXPONENT - base[side]) : mu_exp((m[side] - base[side]) * MU_EXP_FACTOR);
        m[side] = top;
#ifdef MUTANT_cl_warpgroup_fade
        fade[side] = 1;
#endif
    }
    MU_UNROLL for (int x = 0; x < SCORES_HERE; x++)
    {
        const float by = base[x >> 1 & 1];
        score[x] = RAW ? mu_exp(fma(score[x], EXPONENT, -by)) : mu_exp((score[x] - by) * MU_EXP_FACTOR);
        sum[x >> 1 & 1][x & 1] += score[x];
        COPY_BESIDE(x);
    }
    MU_UNROLL for (int side = 0; side < 2; side++) l[side] = fma(l[side], fade[side], sum[side][0] + sum[side][1]);
}

#ifdef MUTANT_cl_warpgroup_edge
#define EDGE(block) (all_from > (block) || all_to + 1 < (block) + TILE_KEYS)
#else
#define EDGE(block) (all_from > (block) || all_to < (block) + TILE_KEYS)
#endif
#define WEIGH(block) weigh(score, m, l, fade, seen, PARCEL_GIVEN block, EDGE(block), pass, lane, s.kv_len, mask, bias, problem MU_SCRATCH_GIVEN)
#define PACK_WEIGHTS() MU_UNROLL for (int x = 0; x < TILE_KEYS / 4; x++) p[x] = mu_pack(score[2 * x], score[2 * x + 1])

/* o and lse of this lane's parts of two rows; where the item has some of the keys only, sums for merge_lanes.cl. */
__attribute__((always_inline)) static inline void store_rows(private const float *acc, private const float *m, private const float *l, private const uint *plus,
                                                             private const uint *minus, struct strides st, struct sequence s, int b, int h, struct work_item item,
                                                             int first, int rows, int warp_row, int lane, bool o_even, global float *work, long part_rows,
                                                             global uchar *o, global uchar *lse, global const uchar *sinks, struct problem problem MU_SCRATCH_TAKEN)
{
    MU_UNROLL for (int side = 0; side < 2; side++)
    {
        float sum = l[side];
        MU_UNROLL for (int x = 1; x <= 2; x++) sum += mu_xor(sum, x);
        const int r = OWN_ROW(side);
        const float top_score = RAW && m[side] > -INFINITY ? m[side] * EXPONENT * MU_EXP_INVERSE : m[side];
        if (r < rows) {
            const long part = (long)item.part + (first - item.q_begin) + r;
            global float *sums = work + part * V_HEAD_DIM;
            float factor;
            if (item.part >= 0) factor = leave_row(work, part_rows, part, m[side], sum, RAW, (lane & 3) == 0, problem);
            else {
                const float2 by = end_row(top_score, sum, st, s, b, h, first + r, lse, sinks, (lane & 3) == 0, problem);
                factor = by.s0 * (1.0f / by.s1);
            }
            global uchar *to = o + query_offset(st.o, s, b, h, first + r);
            MU_UNROLL for (int c = 0; c < V_CHUNKS; c++)
            {
                const int d = c * 8 + (lane & 3) * 2;
                float x[2];
                MU_UNROLL for (int n = 0; n < 2; n++)
                {
                    const int e = c * 4 + 2 * side + n;
                    x[n] = sum == 0 ? 0.0f : acc[e] * factor + 0.0f;
                    if (plus[e / 32] >> e % 32 & 1) x[n] += INFINITY;
                    if (minus[e / 32] >> e % 32 & 1) x[n] -= INFINITY;
                }
                if (item.part >= 0) {
                    if (V_HEAD_DIM % 2 == 0 && d < V_HEAD_DIM) store2_1((global uchar *)sums, d, x[0], x[1]);
                    else {
                        if (d < V_HEAD_DIM) sums[d] = x[0];
                        if (d + 1 < V_HEAD_DIM) sums[d + 1] = x[1];
                    }
                } else if (o_even && d + 1 < V_HEAD_DIM) GLUE(store2_, O_TYPE)(to, d, x[0], x[1]);
                else {
                    if (d < V_HEAD_DIM) GLUE(store1_, O_TYPE)(to, d, x[0]);
                    if (d + 1 < V_HEAD_DIM) GLUE(store1_, O_TYPE)(to, d + 1, x[1]);
                }
            }
        }
    }
}
