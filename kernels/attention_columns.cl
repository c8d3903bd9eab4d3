/* SPDX-License-Identifier: MIT
 * attention_columns.cl - prefill and decode on matrix units whose lanes own columns (AMD's, Intel's; layouts: matrix_columns.cl): q, k and v in f16 or bf16, sums
 * in f32. Everything is transposed, so that a query's scores, weights and sums lie in one lane or in the few that share its column:
 *
 *     s[keys][MU_COLUMNS]  = K Q^T        m' = max(m, s)   fade = e^(m - m')   p = e^(s - m')   l = l fade + sum p
 *     o[DV][MU_COLUMNS]    = o fade + V^T P        P rounded to the type of V
 *     at the end           M = max m_w   L = sum e^(m_w - M) l_w   O = sum e^(m_w - M) o_w    over the warps that share rows, in their order
 *
 * A work-group owns TILE_ROWS rows of an item at a time: queries of a head, or with PACKS_GROUP the heads of a group and their queries, head fastest. Of its
 * WARPS warps KEY_WARPS share the same rows and have keys of their own in every tile (decode; prefill: 1), and DIM_WARPS share rows and keys and have
 * dimensions of V of their own: where one lane's registers are too few, the scores are made more than once instead.
 *
 *   local memory  tiles of keys and values in a ring of SLOTS slots, K0 V0 K1 V1 ..., one barrier per tile; the query rows, where they are not in registers;
 *                 at the end, in the same place, the warps' sums [KEY_WARPS][TILE_ROWS][V_WIDTH] and (m, l)
 *   registers     s, o and, with QUERY_REGISTERS, the query rows, which come through the ring; COLUMN_TILES times MU_COLUMNS rows to a warp
 */
#define KEYS (TILE_KEYS / KEY_WARPS)
#define TILE_ROWS (WARPS / (KEY_WARPS * DIM_WARPS) * MU_COLUMNS * COLUMN_TILES)
#define KEY_TILES (KEYS / MU_ROWS)
#define V_WIDTH (V_CHUNKS * 8)
#define DIM_TILES (V_WIDTH / MU_ROWS / DIM_WARPS)
#define DIM_ACC (DIM_TILES * MU_ACC)
#define QUERY_BYTES (TILE_ROWS * 16 * K_CHUNKS)
#define RING_BYTES (SLOTS * SLOT_BYTES + (QUERY_REGISTERS ? 0 : QUERY_BYTES))
#define MERGE_BYTES (KEY_WARPS * TILE_ROWS * (V_WIDTH + 2) * 4 + TILE_ROWS * 8)
#define MEMORY_BYTES (RING_BYTES > MERGE_BYTES ? RING_BYTES : MERGE_BYTES)

#if WARPS * MU_LANES != LANES || WARPS % (KEY_WARPS * DIM_WARPS) || V_WIDTH / MU_ROWS % DIM_WARPS || KEYS % 16 || (KV_CHUNK && KV_CHUNK % TILE_KEYS) || \
    (QUERY_REGISTERS && QUERY_BYTES > SLOTS * SLOT_BYTES)
#error "tile sizes do not fit together"
#endif

#if PACKS_GROUP
#define PER_QUERY GROUP
#else
#define PER_QUERY 1
#endif
#define HEAD_OF(n) (first_head + (n) % PER_QUERY)
#define QUERY_OF(n) (item.q_begin + (n) / PER_QUERY)

/* Scaled in the exponent alone: where sums of different warps never meet, nor those of decode's chunks, because each has its own rounding of the base. */
#define RAW_SUMS (RAW && KEY_WARPS == 1 && KV_CHUNK == 0)

ATTENTION_KERNEL MU_ATTRIBUTES void attention_columns(ATTENTION_ARGUMENTS)
{
    local uint4 memory[(MEMORY_BYTES + 15) / 16] ALIGNED;
    MU_SCRATCH
    const mu_address ring = mu_address_of(memory), q_tile = QUERY_REGISTERS ? ring : ring + SLOTS * SLOT_BYTES;
    local int *odd = (local int *)memory; /* between passes the ring is free */
    local float *part_o = (local float *)memory, *part_ml = part_o + KEY_WARPS * TILE_ROWS * V_WIDTH; /* [KEY_WARPS][TILE_ROWS][V_WIDTH] and (m, l) */
    local float *row_by = part_ml + KEY_WARPS * TILE_ROWS * 2;                                        /* [TILE_ROWS] (factor, anything seen) */
    const int number = ITEM_NUMBER, lane = THREAD % MU_LANES, warp = THREAD / MU_LANES;
    const int first_dim = warp % DIM_WARPS * DIM_TILES * MU_ROWS, key_warp = warp / DIM_WARPS % KEY_WARPS;
    const int warp_row = warp / (DIM_WARPS * KEY_WARPS) * MU_COLUMNS * COLUMN_TILES, own = warp_row + lane % MU_COLUMNS;
    /* A group without an item has an item without rows. No early return: Intel's CPU driver 2026.22 reads both lists before it. */
    const bool given = number < item_count;
    struct work_item item = AT(struct work_item, items)[given ? item_first + number : 0];
    if (!given) item.sequence = item.head = item.q_begin = item.q_end = 0;
    const struct sequence s = sequences[item.sequence];
    const int b = item.sequence, g = PACKS_GROUP ? item.head : item.head / GROUP, first_head = PACKS_GROUP ? item.head * GROUP : item.head;
    const int all_rows = (item.q_end - item.q_begin) * PER_QUERY;
    const bool q_aligned = rows_aligned(q, st.q), k_aligned = rows_aligned(k, st.k), v_aligned = rows_aligned(v, st.v);

    for (int first = 0; first < all_rows; first += TILE_ROWS) {
        const int rows = min(TILE_ROWS, all_rows - first);
        /* this lane's rows; those behind the last repeat it and are not stored */
        struct row seen[COLUMN_TILES];
        MU_UNROLL for (int t = 0; t < COLUMN_TILES; t++)
        {
            const int n = first + min(own + t * MU_COLUMNS, rows - 1);
            seen[t] = row_within(row_of(st, s, b, HEAD_OF(n), QUERY_OF(n), q_positions, key_range, alibi, problem), item);
        }
        const struct reach reach = reach_in(reach_of(st, s, b, first_head, QUERY_OF(first), QUERY_OF(first + rows - 1), q_positions, key_range, alibi, problem), item);
        const int low = reach.low, high = reach.high, all_from = reach.all_from, all_to = reach.all_to;
        const int first_block = high ? low / TILE_KEYS * TILE_KEYS : 0, tiles = high ? (high - first_block + TILE_KEYS - 1) / TILE_KEYS * 2 : 0;

        FENCE;
        _Pragma("unroll 1") for (int n = THREAD; n < TILE_ROWS * K_CHUNKS; n += LANES) {
            const int r = n / K_CHUNKS, x = first + min(r, rows - 1);
            copy_chunk(place(q_tile, r, n % K_CHUNKS, K_CHUNKS), q + query_offset(st.q, s, b, HEAD_OF(x), QUERY_OF(x)), n % K_CHUNKS, r < rows ? HEAD_DIM : 0,
                       q_aligned);
        }
#if QUERY_REGISTERS
        uint query[COLUMN_TILES][K_STEPS][MU_B_WORDS];
        FENCE;
        MU_UNROLL for (int t = 0; t < COLUMN_TILES; t++)
        {
            MU_UNROLL for (int c = 0; c < K_STEPS; c++) mu_load_b(query[t][c], q_tile, warp_row + t * MU_COLUMNS, c, K_CHUNKS, lane);
        }
#define QUERY(t, c) query[t][c]
#else
#define QUERY(t, c) query[t]
#endif
        float acc[COLUMN_TILES][DIM_TILES][MU_ACC], m[COLUMN_TILES], l[COLUMN_TILES];
        uint plus[COLUMN_TILES][(DIM_ACC + 31) / 32] = {{0}}, minus[COLUMN_TILES][(DIM_ACC + 31) / 32] = {{0}}; /* bit n: infinity belongs to accumulator n */

        _Pragma("unroll 1") for (int pass = PASS_FIRST; pass < PASSES; pass++) {
            MU_UNROLL for (int t = 0; t < COLUMN_TILES; t++)
            {
                MU_UNROLL for (int n = 0; n < DIM_ACC; n++) acc[t][n / MU_ACC][n % MU_ACC] = 0;
                m[t] = -INFINITY;
                l[t] = 0;
            }
            FENCE; /* the query rows are out of the ring, and everybody knows of the last pass */
            int next = 0, slot = 0;
            MU_UNROLL for (int n = 0; n < SLOTS - 1; n++) PREFETCH(n);

            for (int block = first_block; block < high; block += TILE_KEYS) {
                /* scores */
                float score[COLUMN_TILES][KEY_TILES][MU_ACC];
                MU_UNROLL for (int t = 0; t < COLUMN_TILES; t++)
                {
                    MU_UNROLL for (int n = 0; n < KEY_TILES * MU_ACC; n++) score[t][n / MU_ACC][n % MU_ACC] = 0;
                }
                NEXT_TILE(k_tile);
                MU_UNROLL for (int c = 0; c < K_STEPS; c++)
                {
#if !QUERY_REGISTERS
                    uint query[COLUMN_TILES][MU_B_WORDS];
                    MU_UNROLL for (int t = 0; t < COLUMN_TILES; t++) mu_load_b(query[t], q_tile, warp_row + t * MU_COLUMNS, c, K_CHUNKS, lane);
#endif
                    MU_UNROLL for (int n = 0; n < KEY_TILES; n++)
                    {
                        uint a[MU_A_WORDS];
                        mu_load_a(a, k_tile, key_warp * KEYS + n * MU_ROWS, c, K_CHUNKS, lane);
                        MU_UNROLL for (int t = 0; t < COLUMN_TILES; t++) mu_mma(score[t][n], a, QUERY(t, c));
                    }
                }

                /* who sees what */
#ifdef MUTANT_cl_columns_edge
                const bool edge = all_from > block || all_to + 1 < block + TILE_KEYS;
#else
                const bool edge = all_from > block || all_to < block + TILE_KEYS;
#endif
                MU_UNROLL for (int t = 0; t < COLUMN_TILES && (!RAW_SUMS || edge); t++)
                {
                    MU_UNROLL for (int n = 0; n < KEY_TILES * MU_ACC; n++)
                    {
                        const struct row row = seen[t];
                        const int j = block + key_warp * KEYS + n / MU_ACC * MU_ROWS + mu_row(lane, n % MU_ACC);
                        float x = score[t][n / MU_ACC][n % MU_ACC], capped;
                        if (!RAW_SUMS) x *= SCALE;
                        if (ALTERED || MASKED) x = j < s.kv_len ? logit1(x, j, row, mask, bias, &capped, problem) : -INFINITY;
                        else if (edge) x = j >= row.begin && j < row.end ? x : -INFINITY;
                        score[t][n / MU_ACC][n % MU_ACC] = x;
                    }
                }
                MU_UNROLL for (int t = 0; t < COLUMN_TILES && (pass == PASS_INFINITY || pass == PASS_MINUS_INFINITY); t++)
                {
                    MU_UNROLL for (int n = 0; n < KEY_TILES * MU_ACC; n++)
                        score[t][n / MU_ACC][n % MU_ACC] = score[t][n / MU_ACC][n % MU_ACC] == -INFINITY ? 0 : 1;
                }

                /* softmax: the lanes that share a column differ in the bits from MU_COLUMNS on */
                MU_UNROLL for (int t = 0; t < COLUMN_TILES && (pass == PASS_FIRST || pass == PASS_FINITE); t++)
                {
                    float top_score = m[t], sum = 0;
                    MU_UNROLL for (int n = 0; n < KEY_TILES * MU_ACC; n++)
                        top_score = fmax(top_score, score[t][n / MU_ACC][n % MU_ACC]); /* a NaN is dropped here: e^(NaN - m) brings it back */
                    MU_UNROLL for (int x = MU_COLUMNS; x < MU_LANES; x *= 2)
                    {
#ifndef MUTANT_cl_columns_top
                        const float beside = mu_xor(top_score, x);
                        top_score = fmax(top_score, beside);
#endif
                    }
                    /* RAW_SUMS: base and exponents are scaled; no key yet: a base of 0 */
                    const float base = RAW_SUMS ? (top_score == -INFINITY ? 0 : top_score * EXPONENT) : LARGER(-FLT_MAX, top_score);
                    const float fade = RAW_SUMS ? mu_exp(m[t] * EXPONENT - base) : mu_exp((m[t] - base) * MU_EXP_FACTOR);
                    m[t] = top_score;
                    MU_UNROLL for (int n = 0; n < KEY_TILES * MU_ACC; n++)
                    {
                        const float x = score[t][n / MU_ACC][n % MU_ACC], w = RAW_SUMS ? mu_exp(fma(x, EXPONENT, -base)) : mu_exp((x - base) * MU_EXP_FACTOR);
                        score[t][n / MU_ACC][n % MU_ACC] = w;
                        sum += w;
                    }
                    l[t] = fma(l[t], fade, sum);
                    MU_UNROLL for (int n = 0; n < DIM_ACC; n++) acc[t][n / MU_ACC][n % MU_ACC] *= fade;
                }

                /* weighted values */
                NEXT_TILE(v_tile);
                if (pass != PASS_FIRST) {
                    take_part(memory + (slot == 0 ? SLOTS - 1 : slot - 1) * (SLOT_BYTES / 16), pass);
                    FENCE;
                }
                MU_UNROLL for (int c = 0; c < KEYS / 16; c++)
                {
                    uint p[COLUMN_TILES][MU_B_WORDS];
                    MU_UNROLL for (int t = 0; t < COLUMN_TILES; t++) mu_weights(p[t], score[t][c * MU_TILES], lane);
                    MU_UNROLL for (int n = 0; n < DIM_TILES; n++)
                    {
                        uint a[MU_A_WORDS];
                        mu_load_values(a, v_tile, key_warp * KEYS + c * 16, first_dim + n * MU_ROWS, V_WIDTH, lane);
                        MU_UNROLL for (int t = 0; t < COLUMN_TILES; t++) mu_mma(acc[t][n], a, p[t]);
                    }
                }
            }

            /* Is anything NaN, anywhere in the group? */
            float wrong = 0;
            MU_UNROLL for (int t = 0; t < COLUMN_TILES; t++)
            {
                MU_UNROLL for (int n = 0; n < DIM_ACC; n++)
                {
                    const float x = acc[t][n / MU_ACC][n % MU_ACC];
                    wrong = x == x ? wrong : 1.0f;
                    if (pass == PASS_INFINITY) plus[t][n / 32] |= (uint)(x > 0) << n % 32;
                    if (pass == PASS_MINUS_INFINITY) minus[t][n / 32] |= (uint)(x > 0) << n % 32;
                }
            }
#ifdef MUTANT_cl_columns_zero_times_nan
            wrong = 0;
#endif
            if (pass == PASS_FIRST && !group_says(odd, wrong != 0)) pass = PASSES;
        }

        /* sums meet in local memory */
        FENCE;
        MU_UNROLL for (int t = 0; t < COLUMN_TILES; t++)
        {
            const int at = key_warp * TILE_ROWS + own + t * MU_COLUMNS;
            float sum = l[t], factor = 1;
            MU_UNROLL for (int x = MU_COLUMNS; x < MU_LANES; x *= 2) sum += mu_xor(sum, x);
            if (RAW_SUMS && item.part >= 0) factor = logit_of_raw(m[t]).s1;
            if (lane < MU_COLUMNS && first_dim == 0) {
                part_ml[2 * at] = RAW_SUMS && m[t] > -INFINITY ? m[t] * EXPONENT * MU_EXP_INVERSE : m[t];
                part_ml[2 * at + 1] = sum * factor;
            }
            MU_UNROLL for (int n = 0; n < DIM_ACC; n++)
            {
                float x = acc[t][n / MU_ACC][n % MU_ACC] * factor;
                if (plus[t][n / 32] >> n % 32 & 1) x += INFINITY;
                if (minus[t][n / 32] >> n % 32 & 1) x -= INFINITY;
                part_o[at * V_WIDTH + first_dim + n / MU_ACC * MU_ROWS + mu_row(lane, n % MU_ACC)] = x;
            }
        }
        FENCE;
        for (int r = THREAD; r < rows; r += LANES) {
            const int n = first + r;
            float top = -INFINITY, sum = 0;
            for (int w = 0; w < KEY_WARPS; w++) top = LARGER(top, part_ml[(w * TILE_ROWS + r) * 2]);
            const float base = LARGER(-FLT_MAX, top);
            for (int w = 0; w < KEY_WARPS; w++) {
                const float fade = KEY_WARPS == 1 ? 1.0f : mu_exp((part_ml[(w * TILE_ROWS + r) * 2] - base) * MU_EXP_FACTOR);
                sum = fma(fade, part_ml[(w * TILE_ROWS + r) * 2 + 1], sum);
#ifdef MUTANT_cl_columns_warps
                part_ml[(w * TILE_ROWS + r) * 2] = 1;
#else
                part_ml[(w * TILE_ROWS + r) * 2] = fade;
#endif
            }
            row_by[2 * r] = 1;
            row_by[2 * r + 1] = sum;
            if (item.part >= 0) {
                global float *sums = part_sums(work, part_rows, (long)item.part + n, problem);
                sums[0] = top;
                sums[1] = sum;
            } else {
                const float2 by = end_row(top, sum, st, s, b, HEAD_OF(n), QUERY_OF(n), lse, sinks, true, problem);
                row_by[2 * r] = by.s0 * (1.0f / by.s1);
            }
        }
        FENCE;
        for (int x = THREAD; x < rows * V_WIDTH; x += LANES) {
            const int r = x / V_WIDTH, d = x % V_WIDTH, n = first + r;
            if (d >= V_HEAD_DIM) continue;
            float sum = 0;
            for (int w = 0; w < KEY_WARPS; w++) sum = fma(part_ml[(w * TILE_ROWS + r) * 2], part_o[(w * TILE_ROWS + r) * V_WIDTH + d], sum);
            if (item.part >= 0) work[((long)item.part + n) * V_HEAD_DIM + d] = sum;
            else {
                global uchar *to = o + query_offset(st.o, s, b, HEAD_OF(n), QUERY_OF(n));
                GLUE(store1_, O_TYPE)(to, d, row_by[2 * r + 1] == 0 ? 0.0f : sum * row_by[2 * r] + 0.0f);
            }
        }
    }
}
