/* SPDX-License-Identifier: MIT
 * decode_matrix.cl - the query rows of one KV head's group against one chunk of keys on a 16x8x16 matrix unit: q, k and v in f16 or bf16. Sixteen rows are one
 * operand, so K and V are read once for a whole group. The words mu_* are those of matrix_nvidia.cl, tiles and ring those of matrix_tile.cl. With BYTES keys and
 * values are of 8 bits (matrix_bytes.cl): the scale of a key, in q8_0 of 32 dimensions of it, comes to the score, and that of a value to its weight before it is rounded.
 *
 *     s[16][KEYS] = Q K^T     m' = max(m, s)   fade = e^(m - m')   p = e^(s - m')   l = l fade + sum p      each warp has keys of its own in every tile
 *     o[16][DV]   = o fade + P V                                                                            and its own m, l, o
 *     at the end  M = max m_w   L = sum e^(m_w - M) l_w   O = sum e^(m_w - M) o_w                           over the warps, in their order
 *
 *   WARPS TILE_KEYS SLOTS   as in prefill_matrix.cl        KV_CHUNK   keys per work item (512): decides the bits
 */
#define KEYS (TILE_KEYS / WARPS)
#define KEY_TILES (KEYS / 8)
#if BYTES
#define V_WIDTH ((V_HEAD_DIM + 7) / 8 * 8)
#define V_STRIDE (V_WIDTH + 1) /* four dimensions from lane to lane: an odd number keeps eight rows in different banks */
#else
#define V_WIDTH (V_CHUNKS * 8)
#define V_STRIDE V_WIDTH
#endif
#define MERGE_BYTES (WARPS * 16 * (V_STRIDE + 2) * 4 + 16 * 8)
#define MEMORY_BYTES (SLOTS * SLOT_BYTES > MERGE_BYTES ? SLOTS * SLOT_BYTES : MERGE_BYTES)

#if BYTES
#define QUERY_BYTES (16 * QUERY_PITCH)
#else
#define QUERY_BYTES (16 * 16 * K_CHUNKS)
#endif

#if KEYS % 16 || KV_CHUNK % TILE_KEYS
#error "tile sizes do not fit together"
#endif

/* Row r of the operand is query row first + r of the group: draft token by draft token, head by head; those behind the last are zeros. */
static inline void copy_group(mu_address tile, global const uchar *data, struct view view, struct sequence s, int b, int g, int q_begin, int first, int rows,
                              bool aligned)
{
    for (int n = THREAD; n < 16 * K_CHUNKS; n += LANES) {
        const int row = n / K_CHUNKS, chunk = n % K_CHUNKS, x = first + min(row, rows - 1);
        copy_chunk(place(tile, row, chunk, K_CHUNKS), data + query_offset(view, s, b, g * GROUP + x % GROUP, q_begin + x / GROUP), chunk,
                   row < rows ? HEAD_DIM : 0, aligned);
    }
}

#ifdef MUTANT_cl_bytes_mixed
#define MIXED_WHOLE true
#else
#define MIXED_WHOLE false
#endif

/* Dimension of a column of accumulators; -1: none. */
static inline int accumulated(int tile, int column)
{
#if BYTES
    const int y = tile / 2 * 16 + column * 2 + tile % 2;
    return dimension_of(V_TYPE, V_HEAD_DIM, IS_BLOCK(V_TYPE) ? y / 34 : 0, y);
#else
    return tile * 8 + column;
#endif
}

ATTENTION_KERNEL void decode_matrix(ATTENTION_ARGUMENTS)
{
    local uint4 memory[(MEMORY_BYTES + QUERY_BYTES) / 16] ALIGNED;
    MU_SCRATCH
    const mu_address ring = mu_address_of(memory), q_tile = ring + MEMORY_BYTES;
    local int *odd = (local int *)memory;                                               /* between passes the ring is free; */
    local float *part_o = (local float *)memory, *part_ml = part_o + WARPS * 16 * V_STRIDE; /* at the end [WARPS][16][V_STRIDE], [WARPS][16] (m, l), */
    local float *row_by = part_ml + WARPS * 32;                                         /* [16] (m or factor, anything seen) */
    const int number = ITEM_NUMBER, lane = THREAD & 31, warp = THREAD >> 5;
    const bool given = number < item_count;
    struct work_item item = AT(struct work_item, items)[given ? item_first + number : 0];
    if (!given) item.sequence = item.head = item.q_begin = item.q_end = 0;
    const struct sequence s = sequences[item.sequence];
    const int b = item.sequence, g = item.head, all_rows = (item.q_end - item.q_begin) * GROUP;
#if BYTES
    const bool k_aligned = rows_at(k, st.k, PARCEL(K_TYPE, HEAD_DIM)), v_aligned = rows_at(v, st.v, PARCEL(V_TYPE, V_HEAD_DIM));
#else
    const bool q_aligned = rows_aligned(q, st.q), k_aligned = rows_aligned(k, st.k), v_aligned = rows_aligned(v, st.v);
#endif

    for (int first = 0; first < all_rows; first += 16) {
        const int rows = min(16, all_rows - first);
        /* this lane's rows of the operand; those behind the last repeat it and are not stored */
        struct row seen[2];
        MU_UNROLL for (int side = 0; side < 2; side++)
        {
            const int n = first + min((lane >> 2) + 8 * side, rows - 1);
            seen[side] = row_of(st, s, b, g * GROUP + n % GROUP, item.q_begin + n / GROUP, q_positions, key_range, alibi, problem);
        }
        const struct reach reach = reach_of(st, s, b, g * GROUP, item.q_begin + first / GROUP, item.q_begin + (first + rows - 1) / GROUP, q_positions, key_range,
                                            alibi, problem);
        const int low = max(reach.low, item.kv_begin), high = max(min(reach.high, item.kv_end), 0), all_from = reach.all_from, all_to = reach.all_to;
        const int first_block = low < high ? low / TILE_KEYS * TILE_KEYS : 0, last = low < high ? high : 0;
        const int tiles = (last - first_block + TILE_KEYS - 1) / TILE_KEYS * 2;

        /* the query rows travel with the first tile; later passes begin the tiles again */
        int next = 0, slot = 0;
        FENCE; /* the memory is free */
#if BYTES
        MU_UNROLL for (int n = 0; n < SLOTS - 1; n++) PREFETCH(n);
        lay_group((local uchar *)memory + MEMORY_BYTES, q, st.q, s, b, g, item.q_begin, first, rows);
#else
        copy_group(q_tile, q, st.q, s, b, g, item.q_begin, first, rows, q_aligned);
        MU_UNROLL for (int n = 0; n < SLOTS - 1; n++) PREFETCH(n);
#endif

        float acc[V_TILES][4], m[2], l[2];
        uint plus[(V_TILES + 7) / 8] = {0}, minus[(V_TILES + 7) / 8] = {0}; /* bit 4c + e: infinity belongs to acc[c][e] */

        _Pragma("unroll 1") for (int pass = PASS_FIRST; pass < PASSES; pass++) {
            MU_UNROLL for (int n = 0; n < V_TILES * 4; n++) acc[n / 4][n % 4] = 0;
            m[0] = m[1] = -INFINITY;
            l[0] = l[1] = 0;
            if (pass != PASS_FIRST) {
                FENCE; /* everybody knows of the last pass */
                next = slot = 0;
                MU_UNROLL for (int n = 0; n < SLOTS - 1; n++) PREFETCH(n);
            }

            for (int block = first_block; block < last; block += TILE_KEYS) {
                float score[KEY_TILES][4];
                MU_UNROLL for (int n = 0; n < KEY_TILES * 4; n++) score[n / 4][n % 4] = 0;
                NEXT_TILE(k_tile);
#if BYTES
                const int own_key = warp * KEYS + (lane & 3) * 2; /* of a tile: this lane's scores are of own_key, the next, and both of every eight on */
                local const uchar *const keys = (local const uchar *)memory + (slot == 0 ? SLOTS - 1 : slot - 1) * SLOT_BYTES;
                float part[KEY_TILES][4]; /* q8_0: of one block */
                MU_UNROLL for (int n = 0; n < KEY_TILES * 4; n++) part[n / 4][n % 4] = 0;
                MU_UNROLL for (int two = 0; two < K_PIECES; two += 2)
                {
                    uint words[2 * KEY_TILES]; /* of two pieces */
                    uint2 pairs[2 * KEY_TILES];
                    MU_UNROLL for (int n = 0; n < KEY_TILES; n += 2)
                        mu_load4(words[n], words[n + 1], words[KEY_TILES + n], words[KEY_TILES + n + 1],
                                 k_tile + (warp * KEYS + n * 8 + (lane & 15)) * K_PITCH + min(two + (lane >> 4), K_PIECES - 1) * 16);
                    widen(K_TYPE, Q_TYPE, words, pairs, 2 * KEY_TILES);
                    MU_UNROLL for (int x = 0; x < 2; x++)
                    {
                        const int piece = two + x, blocks = LAST_BLOCK(K_TYPE, HEAD_DIM, piece) + 1 - FIRST_BLOCK(K_TYPE, piece);
                        MU_UNROLL for (int y = 0; y < 2; y++)
                        {
                            const int which = FIRST_BLOCK(K_TYPE, piece) + y;
                            if (piece < K_PIECES && y < blocks) {
                                uint query[4];
                                mu_load4(query[0], query[1], query[2], query[3],
                                         q_tile + (lane & 15) * QUERY_PITCH + ((piece + which) * 2 + (lane >> 4)) * 16);
                                MU_UNROLL for (int n = 0; n < KEY_TILES; n++)
                                    mu_mma(IS_BLOCK(K_TYPE) ? part[n] : score[n], query[0], query[1], query[2], query[3],
                                           pairs[x * KEY_TILES + n].s0, pairs[x * KEY_TILES + n].s1);
                                if (IS_BLOCK(K_TYPE) && piece == LAST(which)) {
                                    MU_UNROLL for (int n = 0; n < KEY_TILES * 4; n++)
                                    {
                                        const float by = scale_of(K_TYPE, HEAD_DIM, keys, own_key + n / 4 * 8 + n % 2, which);
                                        score[n / 4][n % 4] = fma(by, part[n / 4][n % 4], score[n / 4][n % 4]);
#ifndef MUTANT_cl_bytes_block
                                        part[n / 4][n % 4] = 0;
#endif
                                    }
                                }
                            }
                        }
                    }
                }
                bool again = false; /* is one of them not finite? */
                MU_UNROLL for (int n = 0; n < KEY_TILES * 4; n++)
                {
                    if (HAS_SCALE(K_TYPE)) score[n / 4][n % 4] *= scale_of(K_TYPE, HEAD_DIM, keys, own_key + n / 4 * 8 + n % 2, 0);
                    again |= !(fabs(score[n / 4][n % 4]) < INFINITY);
                }
#ifdef MUTANT_cl_bytes_again
                again = false;
#endif
                if (again) {
                    MU_UNROLL for (int side = 0; side < 2; side++)
                    {
                        const int r = first + min((lane >> 2) + 8 * side, rows - 1);
                        _Pragma("unroll 1") for (int n = 0; n < KEY_TILES * 2; n++) {
                            const int j = block + own_key + n / 2 * 8 + n % 2;
                            if (j < seen[side].begin || j >= seen[side].end) continue;
                            const float x = score_again(q + query_offset(st.q, s, b, g * GROUP + r % GROUP, item.q_begin + r / GROUP),
                                                        k + key_offset(st.k, s, page_table, b, g, j, problem),
                                                        k_scale + (HAS_SCALE(K_TYPE) ? key_offset(st.k_scale, s, page_table, b, g, j, problem) : 0));
                            MU_UNROLL for (int e = 0; e < KEY_TILES * 2; e++)
                                score[e / 2][2 * side + e % 2] = e == n ? x : score[e / 2][2 * side + e % 2];
                        }
                    }
                }
#else
                MU_UNROLL for (int c = 0; c < K_STEPS; c++)
                {
                    uint query[4];
                    mu_load4(query[0], query[1], query[2], query[3], place(q_tile, lane & 15, c * 2 + (lane >> 4), K_CHUNKS));
                    MU_UNROLL for (int n = 0; n < KEY_TILES / 2; n++)
                    {
                        uint b0, b1, b2, b3;
                        mu_load4(b0, b1, b2, b3, place(k_tile, warp * KEYS + n * 16 + (lane & 7) + (lane >> 4) * 8, c * 2 + (lane >> 3 & 1), K_CHUNKS));
                        MU_UNROLL for (int x = 0; x < 2; x++)
                            mu_mma(score[2 * n + x], query[0], query[1], query[2], query[3], x ? b2 : b0, x ? b3 : b1);
                    }
                }
#endif

                /* logits, and who sees what; a chunk's edge is a tile's edge */
                const bool edge = all_from > block || all_to < block + TILE_KEYS;
                MU_UNROLL for (int n = 0; n < KEY_TILES * 4; n++)
                {
                    const struct row row = seen[n % 4 / 2];
                    const int j = block + warp * KEYS + n / 4 * 8 + (lane & 3) * 2 + n % 2;
                    float x = score[n / 4][n % 4] * SCALE, capped;
                    if (ALTERED || MASKED) x = j < s.kv_len ? logit1(x, j, row, mask, bias, &capped, problem) : -INFINITY;
                    else if (edge) x = j >= row.begin && j < row.end ? x : -INFINITY;
                    score[n / 4][n % 4] = x;
                }
                if (pass == PASS_INFINITY || pass == PASS_MINUS_INFINITY) {
                    MU_UNROLL for (int n = 0; n < KEY_TILES * 4; n++) score[n / 4][n % 4] = score[n / 4][n % 4] == -INFINITY ? 0 : 1;
                } else {
                    MU_UNROLL for (int side = 0; side < 2; side++)
                    {
                        float top_score = m[side], sum = 0;
                        MU_UNROLL for (int n = 0; n < KEY_TILES * 2; n++) top_score = fmax(top_score, score[n / 2][2 * side + n % 2]); /* drops a NaN, see there */
                        MU_UNROLL for (int x = 1; x <= 2; x++)
                        {
                            const float beside = mu_xor(top_score, x);
                            top_score = fmax(top_score, beside);
                        }
                        const float base = LARGER(-FLT_MAX, top_score), fade = mu_exp((m[side] - base) * MU_EXP_FACTOR);
                        m[side] = top_score;
                        MU_UNROLL for (int n = 0; n < KEY_TILES * 2; n++)
                        {
                            const float w = mu_exp((score[n / 2][2 * side + n % 2] - base) * MU_EXP_FACTOR);
                            score[n / 2][2 * side + n % 2] = w;
                            sum += w;
                        }
                        l[side] = fma(l[side], fade, sum);
#if BYTES /* twice the keys in the time: no products with 1 */
                        if (mu_any(fade != 1))
#endif
                        {
                            MU_UNROLL for (int n = 0; n < V_TILES * 2; n++) acc[n / 2][2 * side + n % 2] *= fade;
                        }
                    }
                }

                NEXT_TILE(v_tile);
#if BYTES
                local uchar *const values = (local uchar *)memory + (slot == 0 ? SLOTS - 1 : slot - 1) * SLOT_BYTES;
                if (pass != PASS_FIRST) {
                    take_bytes(values, pass);
                    FENCE;
                }
                MU_UNROLL for (int c = 0; c < KEY_TILES; c += 2)
                {
                    uint p[2][4]; /* of two blocks */
                    MU_UNROLL for (int two = 0; two < V_PIECES; two += 2)
                    {
                        uint words[4];
                        uint2 pairs[4];
                        mu_load4_transposed(words[0], words[1], words[2], words[3],
                                            v_tile + (warp * KEYS + c * 8 + (lane & 15)) * V_PITCH + min(two + (lane >> 4), V_PIECES - 1) * 16);
                        widen(V_TYPE, TYPE_BF16, words, pairs, 4);
                        MU_UNROLL for (int x = 0; x < 2; x++)
                        {
                            const int piece = two + x, blocks = LAST_BLOCK(V_TYPE, V_HEAD_DIM, piece) + 1 - FIRST_BLOCK(V_TYPE, piece);
                            MU_UNROLL for (int y = 0; y < 2; y++)
                            {
                                const int which = FIRST_BLOCK(V_TYPE, piece) + y;
                                if (piece < V_PIECES && y < blocks) {
                                    if (piece == (IS_BLOCK(V_TYPE) ? FIRST(which) : 0)) {
                                        float by[4];
                                        MU_UNROLL for (int n = 0; n < 4; n++)
                                            by[n] = scale_of(V_TYPE, V_HEAD_DIM, values, own_key + (c + n / 2) * 8 + n % 2, which);
                                        MU_UNROLL for (int n = 0; n < 4; n++)
                                            p[which % 2][n] = mu_pack_bf16(score[c + (n >> 1)][2 * (n & 1)] * by[n / 2 * 2],
                                                                           score[c + (n >> 1)][2 * (n & 1) + 1] * by[n / 2 * 2 + 1]);
                                    }
                                    const bool mine = blocks == 1 || MIXED_WHOLE || (piece * 16 + (lane >> 2) * 2) / 34 == which;
                                    const uint2 low = mine ? pairs[2 * x] : (uint2)(0u), high = mine ? pairs[2 * x + 1] : (uint2)(0u);
                                    mu_mma_bf16(acc[2 * piece], p[which % 2][0], p[which % 2][1], p[which % 2][2], p[which % 2][3], low.s0, high.s0);
                                    mu_mma_bf16(acc[2 * piece + 1], p[which % 2][0], p[which % 2][1], p[which % 2][2], p[which % 2][3], low.s1, high.s1);
                                }
                            }
                        }
                    }
                }
#else
                if (pass != PASS_FIRST) {
                    take_part(memory + (slot == 0 ? SLOTS - 1 : slot - 1) * (SLOT_BYTES / 16), pass);
                    FENCE;
                }
                MU_UNROLL for (int c = 0; c < KEY_TILES / 2; c++)
                {
                    uint p[4];
                    MU_UNROLL for (int n = 0; n < 4; n++) p[n] = mu_pack(score[2 * c + (n >> 1)][2 * (n & 1)], score[2 * c + (n >> 1)][2 * (n & 1) + 1]);
                    MU_UNROLL for (int n = 0; n < V_TILES / 2; n++)
                    {
                        uint b0, b1, b2, b3;
                        mu_load4_transposed(b0, b1, b2, b3, place(v_tile, warp * KEYS + c * 16 + (lane & 15), n * 2 + (lane >> 4), V_CHUNKS));
                        MU_UNROLL for (int x = 0; x < 2; x++) mu_mma(acc[2 * n + x], p[0], p[1], p[2], p[3], x ? b2 : b0, x ? b3 : b1);
                    }
                }
#endif
            }

            /* Is anything NaN, anywhere in the group? */
            float wrong = 0;
            MU_UNROLL for (int n = 0; n < V_TILES * 4; n++)
            {
                const float x = acc[n / 4][n % 4];
                wrong = x == x ? wrong : 1.0f;
                if (pass == PASS_INFINITY) plus[n / 32] |= (uint)(x > 0) << n % 32;
                if (pass == PASS_MINUS_INFINITY) minus[n / 32] |= (uint)(x > 0) << n % 32;
            }
            if (pass == PASS_FIRST && !group_says(odd, wrong != 0)) pass = PASSES;
        }

        /* the warps meet */
        FENCE;
        MU_UNROLL for (int side = 0; side < 2; side++)
        {
            const int r = (lane >> 2) + 8 * side;
            float sum = l[side];
            MU_UNROLL for (int x = 1; x <= 2; x++) sum += mu_xor(sum, x);
            if ((lane & 3) == 0) {
                part_ml[(warp * 16 + r) * 2] = m[side];
                part_ml[(warp * 16 + r) * 2 + 1] = sum;
            }
            MU_UNROLL for (int n = 0; n < V_TILES * 2; n++)
            {
                const int bit = n / 2 * 4 + 2 * side + n % 2;
                float x = acc[n / 2][2 * side + n % 2];
                if (plus[bit / 32] >> bit % 32 & 1) x += INFINITY;
                if (minus[bit / 32] >> bit % 32 & 1) x -= INFINITY;
                const int d = accumulated(n / 2, (lane & 3) * 2 + n % 2);
                if (!BYTES || (d >= 0 && r < rows)) part_o[(warp * 16 + r) * V_STRIDE + d] = x;
            }
        }
        FENCE;
        for (int r = THREAD; r < rows; r += LANES) {
            const int n = first + r;
            float top = -INFINITY, sum = 0;
            for (int w = 0; w < WARPS; w++) top = LARGER(top, part_ml[(w * 16 + r) * 2]);
            const float base = LARGER(-FLT_MAX, top);
            for (int w = 0; w < WARPS; w++) {
                const float fade = mu_exp((part_ml[(w * 16 + r) * 2] - base) * MU_EXP_FACTOR);
                sum = fma(fade, part_ml[(w * 16 + r) * 2 + 1], sum);
#ifndef MUTANT_cl_matrix_warps
                part_ml[(w * 16 + r) * 2] = fade;
#endif
            }
            row_by[2 * r] = 1;
            row_by[2 * r + 1] = sum;
            if (item.part >= 0) {
                global float *sums = part_sums(work, part_rows, (long)item.part + n, problem);
                sums[0] = top;
                sums[1] = sum;
            } else {
                const float2 by = end_row(top, sum, st, s, b, g * GROUP + n % GROUP, item.q_begin + n / GROUP, lse, sinks, true, problem);
                row_by[2 * r] = by.s0 * (1.0f / by.s1);
            }
        }
        FENCE;
        for (int x = THREAD; x < rows * V_WIDTH; x += LANES) {
            const int r = x / V_WIDTH, d = x % V_WIDTH, n = first + r;
            if (d >= V_HEAD_DIM) continue;
            float sum = 0;
            for (int w = 0; w < WARPS; w++) sum = fma(part_ml[(w * 16 + r) * 2], part_o[(w * 16 + r) * V_STRIDE + d], sum);
            if (item.part >= 0) work[((long)item.part + n) * V_HEAD_DIM + d] = sum;
            else {
                global uchar *to = o + query_offset(st.o, s, b, g * GROUP + n % GROUP, item.q_begin + n / GROUP);
                GLUE(store1_, O_TYPE)(to, d, row_by[2 * r + 1] == 0 ? 0.0f : sum * row_by[2 * r] + 0.0f);
            }
        }
    }
}
