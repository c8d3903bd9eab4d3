/* SPDX-License-Identifier: MIT
 * merge_lanes.cl - merge.cl for GPUs, the same sums in the same order: a team of work-items per row, four dimensions each, several rows at a time. What a
 * team needs of the chunks' m and l goes through local memory, so that its loads of partial results wait for nothing and for each other.
 *
 *     M = max m_c     w_c = e^(m_c - M)     l = sum w_c l_c     o = sum w_c acc_c / l        (chunks in the order of the keys)
 */
#define FOURS ((V_HEAD_DIM + 3) / 4)
#define M_POWER (FOURS <= 4 ? 4 : FOURS <= 8 ? 8 : FOURS <= 16 ? 16 : FOURS <= 32 ? 32 : FOURS <= 64 ? 64 : FOURS <= 128 ? 128 : 256)
#define M_TEAM (M_POWER < LANES ? M_POWER : LANES)
#define M_SLABS ((FOURS + M_TEAM - 1) / M_TEAM)
#define M_TEAMS (LANES / M_TEAM)
#define AT_ONCE (M_SLABS == 1 ? 16 : M_SLABS == 2 ? 8 : 1) /* chunks whose sums travel together */

static inline float4 part_four(global const float *part, int d)
{
    if (d >= V_HEAD_DIM) return 0;
    if (V_HEAD_DIM % 4 == 0) return AT(float4, part + d)[0]; /* the workspace begins at 64 bytes */
    float4 x = (float4)(part[d], 0, 0, 0);
    if (d + 1 < V_HEAD_DIM) x.s1 = part[d + 1];
    if (d + 2 < V_HEAD_DIM) x.s2 = part[d + 2];
    if (d + 3 < V_HEAD_DIM) x.s3 = part[d + 3];
    return x;
}

ATTENTION_KERNEL void merge_lanes(ATTENTION_ARGUMENTS)
{
    local float share[LANES], weight[LANES], sum_of[LANES];
    const int number = ITEM_NUMBER, lane = LANE, team = min(lane / M_TEAM, M_TEAMS - 1), t = lane % M_TEAM; /* those of no whole team do what the last one's do */
    if (number >= item_count) return; /* the whole group */
    const struct merge_item item = AT(struct merge_item, items)[item_first + number];
    const struct sequence s = sequences[item.sequence];
    const int heads = item.rows / (item.q_end - item.q_begin); /* the group's heads where the row packs them, else 1 */

    for (int first = 0; first < item.rows; first += M_TEAMS) {
        const int r = min(first + team, item.rows - 1);
        const long part = (long)item.part + r;
        float m = -INFINITY, l = 0;
        for (int c = t; c < item.chunks; c += M_TEAM) m = LARGER(m, part_sums(work, part_rows, part + (long)c * item.rows, problem)[0]);
        share[lane] = m;
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int x = 0; x < min(M_TEAM, item.chunks); x++) m = LARGER(m, share[team * M_TEAM + x]);
        const float base = m == -INFINITY ? 0 : m;

        float4 acc[M_SLABS];
#pragma unroll
        for (int slab = 0; slab < M_SLABS; slab++) acc[slab] = 0;
        for (int block = 0; block < item.chunks; block += M_TEAM) {
            const int chunks = min(M_TEAM, item.chunks - block);
            if (t < chunks) {
                global const float *sums = part_sums(work, part_rows, part + (long)(block + t) * item.rows, problem);
                weight[lane] = exp_1(sums[0] - base);
                sum_of[lane] = sums[1];
            }
            barrier(CLK_LOCAL_MEM_FENCE);
            global const float *from = work + (part + (long)block * item.rows) * V_HEAD_DIM;
            for (int first_chunk = 0; first_chunk < chunks; first_chunk += AT_ONCE) {
                float4 sums[AT_ONCE][M_SLABS];
#pragma unroll
                for (int n = 0; n < AT_ONCE * M_SLABS; n++) {
                    const int c = min(first_chunk + n / M_SLABS, chunks - 1), d = (n % M_SLABS * M_TEAM + t) * 4;
                    sums[n / M_SLABS][n % M_SLABS] = part_four(from + (long)c * item.rows * V_HEAD_DIM, d);
                }
#pragma unroll
                for (int n = 0; n < AT_ONCE; n++) {
                    const int c = first_chunk + n;
                    if (c >= chunks) continue;
#ifdef MUTANT_cl_lanes_last_chunk
                    if (c > 0 && c == chunks - 1) continue;
#endif
                    const float w = weight[team * M_TEAM + c];
                    l = fma(w, sum_of[team * M_TEAM + c], l);
#pragma unroll
                    for (int slab = 0; slab < M_SLABS; slab++) acc[slab] = fma((float4)w, sums[n][slab], acc[slab]);
                }
            }
            barrier(CLK_LOCAL_MEM_FENCE);
        }

        const int h = item.head * heads + r % heads, i = item.q_begin + r / heads;
        const bool mine = first + team < item.rows && lane < M_TEAMS * M_TEAM;
        const float2 end = end_row(m, l, st, s, item.sequence, h, i, lse, sinks, mine && t == 0, problem);
        global uchar *o_row = o + query_offset(st.o, s, item.sequence, h, i);
#pragma unroll
        for (int slab = 0; slab < M_SLABS; slab++) {
            const float4 x = l != 0 ? acc[slab] * end.s0 / (float4)end.s1 : (float4)0.0f;
            const float one[4] = {x.s0, x.s1, x.s2, x.s3};
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int d = (slab * M_TEAM + t) * 4 + e;
                if (mine && d < V_HEAD_DIM) GLUE(store1_, O_TYPE)(o_row, d, one[e]);
            }
        }
    }
}
