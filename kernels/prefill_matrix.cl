/* SPDX-License-Identifier: MIT
 * prefill_matrix.cl - prefill on a 16x8x16 matrix unit: q, k and v in f16 or bf16, sums in f32, online softmax in registers. The words mu_* are those of
 * matrix_nvidia.cl; matrix_emulated.cl has them for every device.
 *
 * A work-group of WARPS warps owns TILE_ROWS query rows of one head at a time, each warp ROW_TILES times 16 whole rows. Per tile of TILE_KEYS keys,
 * counted from key 0:
 *
 *     s[16][TILE_KEYS] = Q K^T        m' = max(m, s)   fade = e^(m - m')   p = e^(s - m')   l = l fade + sum p, by lane
 *     o[16][DV]        = o fade + P V        P rounded to the type of V; accumulators become the operand by packing alone
 *
 *   local memory  tiles of keys and values in a ring of SLOTS slots, K0 V0 K1 V1 ..., copied in the background, one barrier per tile
 *   registers     s, o and, with QUERY_REGISTERS, the query rows, which come through the ring; without, they have local memory of their own
 */
#define QUERY_BYTES (QUERY_REGISTERS ? 0 : TILE_ROWS * 16 * K_CHUNKS)
#define ROW_TILES (TILE_ROWS / (16 * WARPS))
#define KEY_TILES (TILE_KEYS / 8)

#if TILE_ROWS % (16 * WARPS) || TILE_KEYS % 16 || TILE_KEYS > 64 || (QUERY_REGISTERS && TILE_ROWS * K_CHUNKS * 16 > SLOTS * SLOT_BYTES)
#error "tile sizes do not fit together"
#endif

/* Row of the tile that accumulators e and e + 1 of this lane belong to, e = 2 side. */
#define OWN_ROW(t, side) (warp_row + (t) * 16 + (side) * 8 + (lane >> 2))

ATTENTION_KERNEL void prefill_matrix(ATTENTION_ARGUMENTS)
{
    local uint4 memory[(SLOTS * SLOT_BYTES + QUERY_BYTES) / 16] __attribute__((aligned(128)));
    MU_SCRATCH
    const mu_address ring = mu_address_of(memory), q_tile = QUERY_REGISTERS ? ring : ring + SLOTS * SLOT_BYTES;
    local int *odd = (local int *)memory; /* between passes the ring is free */
    const int number = ITEM_NUMBER, lane = THREAD & 31, warp_row = (THREAD >> 5) * 16 * ROW_TILES;
    /* A group without an item has an item without rows. No early return: Intel's CPU driver 2026.22 reads both lists before it. */
    const bool given = number < item_count;
    struct work_item item = AT(struct work_item, items)[given ? item_first + number : 0];
    if (!given) item.sequence = item.head = item.q_begin = item.q_end = 0;
    const struct sequence s = sequences[item.sequence];
    const int b = item.sequence, h = item.head, g = h / GROUP;
    const bool q_aligned = rows_aligned(q, st.q), k_aligned = rows_aligned(k, st.k), v_aligned = rows_aligned(v, st.v);

    for (int first = item.q_begin; first < item.q_end; first += TILE_ROWS) {
        const int rows = min(TILE_ROWS, item.q_end - first);
        struct row seen[ROW_TILES][2];
        MU_UNROLL for (int t = 0; t < ROW_TILES; t++)
        {
            MU_UNROLL for (int side = 0; side < 2; side++)
                seen[t][side] = row_within(row_of(st, s, b, h, first + min(OWN_ROW(t, side), rows - 1), q_positions, key_range, alibi, problem), item);
        }
        const struct reach reach = reach_in(reach_of(st, s, b, h, first, first + rows - 1, q_positions, key_range, alibi, problem), item);
        const int low = reach.low, high = reach.high, all_from = reach.all_from, all_to = reach.all_to;
        const int first_block = high ? low / TILE_KEYS * TILE_KEYS : 0, tiles = high ? (high - first_block + TILE_KEYS - 1) / TILE_KEYS * 2 : 0;

        FENCE;
        copy_queries(q_tile, q, st.q, s, b, h, first, rows, q_aligned);
        mu_copy_commit();
#if QUERY_REGISTERS
        uint query[ROW_TILES][K_STEPS][4];
        mu_copy_wait(0);
        FENCE;
        MU_UNROLL for (int t = 0; t < ROW_TILES; t++)
        {
            MU_UNROLL for (int c = 0; c < K_STEPS; c++)
                mu_load4(query[t][c][0], query[t][c][1], query[t][c][2], query[t][c][3],
                         place_of(q_tile, warp_row + (lane & 15), t, lane >> 4, c * 2, K_CHUNKS));
        }
#define QUERY(t, c, n) query[t][c][n]
#else
#define QUERY(t, c, n) query[t][n]
#endif
        float acc[ROW_TILES][V_TILES][4], m[ROW_TILES][2], l[ROW_TILES][2];

        uint plus[ROW_TILES][(V_TILES + 7) / 8] = {{0}}, minus[ROW_TILES][(V_TILES + 7) / 8] = {{0}}; /* bit 4c + e: infinity belongs to acc[c][e] */

        _Pragma("unroll 1") for (int pass = PASS_FIRST; pass < PASSES; pass++) {
            MU_UNROLL for (int t = 0; t < ROW_TILES; t++)
            {
                MU_UNROLL for (int c = 0; c < V_TILES; c++)
                {
                    MU_UNROLL for (int e = 0; e < 4; e++) acc[t][c][e] = 0;
                }
                m[t][0] = m[t][1] = -INFINITY;
                l[t][0] = l[t][1] = 0;
            }
            FENCE; /* the query rows are out of the ring, and everybody knows of the last pass */
            int next = 0, slot = 0;
            MU_UNROLL for (int n = 0; n < SLOTS - 1; n++) PREFETCH(n);

            for (int block = first_block; block < high; block += TILE_KEYS) {
                /* scores */
                float score[ROW_TILES][KEY_TILES][4];
                MU_UNROLL for (int t = 0; t < ROW_TILES; t++)
                {
                    MU_UNROLL for (int c = 0; c < KEY_TILES; c++)
                    {
                        MU_UNROLL for (int e = 0; e < 4; e++) score[t][c][e] = 0;
                    }
                }
                NEXT_TILE(k_tile);
                MU_UNROLL for (int c = 0; c < K_STEPS; c++)
                {
#if !QUERY_REGISTERS
                    uint query[ROW_TILES][4];
                    MU_UNROLL for (int t = 0; t < ROW_TILES; t++)
                        mu_load4(query[t][0], query[t][1], query[t][2], query[t][3],
                                 place_of(q_tile, warp_row + (lane & 15), t, lane >> 4, c * 2, K_CHUNKS));
#endif
                    MU_UNROLL for (int n = 0; n < KEY_TILES / 2; n++)
                    {
                        uint b0, b1, b2, b3;
                        mu_load4(b0, b1, b2, b3, place_of(k_tile, (lane & 7) + (lane >> 4) * 8, n, lane >> 3 & 1, c * 2, K_CHUNKS));
                        MU_UNROLL for (int t = 0; t < ROW_TILES; t++)
                        {
                            MU_UNROLL for (int x = 0; x < 2; x++)
                                mu_mma(score[t][2 * n + x], QUERY(t, c, 0), QUERY(t, c, 1), QUERY(t, c, 2), QUERY(t, c, 3), x ? b2 : b0, x ? b3 : b1);
                        }
                    }
                }

                /* who sees what */
#ifdef MUTANT_cl_matrix_edge
                if (!RAW || all_from > block || all_to + 1 < block + TILE_KEYS) {
#else
                if (!RAW || all_from > block || all_to < block + TILE_KEYS) {
#endif
                    MU_UNROLL for (int t = 0; t < ROW_TILES; t++)
                    {
                        MU_UNROLL for (int c = 0; c < KEY_TILES; c++)
                        {
                            MU_UNROLL for (int e = 0; e < 4; e++)
                            {
                                const struct row row = seen[t][e >> 1];
                                const int j = block + c * 8 + (lane & 3) * 2 + (e & 1);
                                float capped;
                                if (RAW) score[t][c][e] = j >= row.begin && j < row.end ? score[t][c][e] : -INFINITY;
                                else score[t][c][e] = j < s.kv_len ? logit1(score[t][c][e] * SCALE, j, row, mask, bias, &capped, problem) : -INFINITY;
                            }
                        }
                    }
                }

                /* softmax: a row of scores lies in 4 neighbouring lanes */
                if (pass == PASS_INFINITY || pass == PASS_MINUS_INFINITY) {
                    MU_UNROLL for (int n = 0; n < ROW_TILES * KEY_TILES * 4; n++)
                        score[n / (KEY_TILES * 4)][n / 4 % KEY_TILES][n % 4] = score[n / (KEY_TILES * 4)][n / 4 % KEY_TILES][n % 4] == -INFINITY ? 0 : 1;
                } else {
                    float fade[ROW_TILES * 2];
                    bool fades = false;
                    MU_UNROLL for (int n = 0; n < ROW_TILES * 2; n++)
                    {
                        const int t = n / 2, side = n % 2;
                        const float old = m[t][side];
                        float top_score = old;
                        MU_UNROLL for (int c = 0; c < KEY_TILES; c++)
                        {
                            top_score = fmax(top_score, score[t][c][2 * side]); /* a NaN is dropped here: e^(NaN - m) brings it back */
                            top_score = fmax(top_score, score[t][c][2 * side + 1]);
                        }
                        MU_UNROLL for (int x = 1; x <= 2; x++)
                        {
                            const float beside = mu_xor(top_score, x);
                            top_score = fmax(top_score, beside);
                        }
                        m[t][side] = top_score;
                        /* RAW: base and exponents are scaled; no key yet: a base of 0 */
                        const float base = RAW ? (top_score == -INFINITY ? 0 : top_score * EXPONENT) : LARGER(-FLT_MAX, top_score);
                        float sum = 0;
                        fade[n] = RAW ? mu_exp(old * EXPONENT - base) : mu_exp((old - base) * MU_EXP_FACTOR);
#ifdef MUTANT_cl_matrix_fade
                        fade[n] = 1;
#endif
                        fades |= fade[n] != 1;
                        MU_UNROLL for (int c = 0; c < KEY_TILES; c++)
                        {
                            MU_UNROLL for (int e = 2 * side; e < 2 * side + 2; e++)
                            {
                                const float x = score[t][c][e];
                                score[t][c][e] = RAW ? mu_exp(fma(x, EXPONENT, -base)) : mu_exp((x - base) * MU_EXP_FACTOR);
                                sum += score[t][c][e];
                            }
                        }
                        l[t][side] = fma(l[t][side], fade[n], sum);
                    }
                    if (mu_any(fades)) {
                        MU_UNROLL for (int n = 0; n < ROW_TILES * V_TILES * 4; n++) acc[n / (V_TILES * 4)][n / 4 % V_TILES][n % 4] *= fade[n / (V_TILES * 4) * 2 + n / 2 % 2];
                    }
                }

                /* weighted values */
                NEXT_TILE(v_tile);
                if (pass != PASS_FIRST) {
                    take_part(memory + (slot == 0 ? SLOTS - 1 : slot - 1) * (SLOT_BYTES / 16), pass);
                    FENCE;
                }
                MU_UNROLL for (int c = 0; c < KEY_TILES / 2; c++)
                {
                    uint p[ROW_TILES][4];
                    MU_UNROLL for (int t = 0; t < ROW_TILES; t++)
                    {
                        MU_UNROLL for (int n = 0; n < 4; n++)
                            p[t][n] = mu_pack(score[t][2 * c + (n >> 1)][2 * (n & 1)], score[t][2 * c + (n >> 1)][2 * (n & 1) + 1]);
                    }
                    MU_UNROLL for (int n = 0; n < V_TILES / 2; n++)
                    {
                        uint b0, b1, b2, b3;
                        mu_load4_transposed(b0, b1, b2, b3, place_of(v_tile, lane & 15, c, lane >> 4, n * 2, V_CHUNKS));
                        MU_UNROLL for (int t = 0; t < ROW_TILES; t++)
                        {
                            MU_UNROLL for (int x = 0; x < 2; x++)
                                mu_mma(acc[t][2 * n + x], p[t][0], p[t][1], p[t][2], p[t][3], x ? b2 : b0, x ? b3 : b1);
                        }
                    }
                }
            }

            /* Is anything NaN, anywhere in the group? */
            float wrong = 0;
            MU_UNROLL for (int t = 0; t < ROW_TILES; t++)
            {
                MU_UNROLL for (int n = 0; n < V_TILES * 4; n++)
                {
                    const float x = acc[t][n / 4][n % 4];
                    wrong = x == x ? wrong : 1.0f;
                    if (pass == PASS_INFINITY) plus[t][n / 32] |= (uint)(x > 0) << n % 32;
                    if (pass == PASS_MINUS_INFINITY) minus[t][n / 32] |= (uint)(x > 0) << n % 32;
                }
            }
#ifdef MUTANT_cl_matrix_zero_times_nan
            wrong = 0;
#endif
            if (pass == PASS_FIRST && !group_says(odd, wrong != 0)) pass = PASSES;
        }

        MU_UNROLL for (int t = 0; t < ROW_TILES; t++)
        {
            MU_UNROLL for (int side = 0; side < 2; side++)
            {
                float sum = l[t][side];
#ifdef MUTANT_cl_matrix_half_sum
                sum += mu_xor(sum, 1);
#else
                MU_UNROLL for (int x = 1; x <= 2; x++) sum += mu_xor(sum, x);
#endif
                const int r = OWN_ROW(t, side);
                const float top_score = RAW && m[t][side] > -INFINITY ? m[t][side] * EXPONENT * MU_EXP_INVERSE : m[t][side];
                if (r < rows) {
                    const long part = (long)item.part + (first - item.q_begin) + r;
                    float factor;
                    if (item.part >= 0) factor = leave_row(work, part_rows, part, m[t][side], sum, RAW, (lane & 3) == 0, problem);
                    else {
                        const float2 by = end_row(top_score, sum, st, s, b, h, first + r, lse, sinks, (lane & 3) == 0, problem);
                        factor = by.s0 * (1.0f / by.s1);
                    }
                    global uchar *to = o + query_offset(st.o, s, b, h, first + r);
                    MU_UNROLL for (int n = 0; n < V_TILES * 2; n++)
                    {
                        const int c = n / 2, e = 2 * side + n % 2, d = c * 8 + (lane & 3) * 2 + n % 2, bit = (4 * c + e) % 32;
                        float x = sum == 0 ? 0.0f : acc[t][c][e] * factor + 0.0f;
                        if (plus[t][c / 8] >> bit & 1) x += INFINITY;
                        if (minus[t][c / 8] >> bit & 1) x -= INFINITY;
                        if (d >= V_HEAD_DIM) continue;
                        if (item.part >= 0) work[part * V_HEAD_DIM + d] = x;
                        else GLUE(store1_, O_TYPE)(to, d, x);
                    }
                }
            }
        }
    }
}
