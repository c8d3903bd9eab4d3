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
 *
 * A row of a tile is CHUNKS pieces of 16 bytes; piece c of row r stands at place c ^ (something of r), so that the eight rows of one mu_load4 lie in different
 * banks. Dimensions behind the last and keys that nobody of the group sees are zeros.
 *
 * A hidden key has weight 0, and 0 times NaN or infinity is NaN. This shows as NaN in o: such a group goes over its keys three times more. Which elements
 * of o get infinity, which get -infinity (NaN: both) is summed from weights of 1 and 0 and values of 1 and 0; then V without what is not finite. So rows that do not
 * see such a key are as if it were any other, to the last bit.
 */
#if K_TYPE == TYPE_BF16
#define ENDLESS 0x7f80u /* exponent of NaN and infinity */
#define ONE 0x3f80u
#else
#define ENDLESS 0x7c00u
#define ONE 0x3c00u
#endif

#define PADDED(n) (((n) + 31) / 32 * 32)
#define K_CHUNKS (PADDED(HEAD_DIM) / 8)
#define V_CHUNKS (PADDED(V_HEAD_DIM) / 8)
#define SLOT_BYTES (TILE_KEYS * 16 * (K_CHUNKS > V_CHUNKS ? K_CHUNKS : V_CHUNKS))
#define QUERY_BYTES (QUERY_REGISTERS ? 0 : TILE_ROWS * 16 * K_CHUNKS)
#define ROW_TILES (TILE_ROWS / (16 * WARPS))
#define KEY_TILES (TILE_KEYS / 8)
#define K_STEPS (K_CHUNKS / 2)
#define V_TILES V_CHUNKS
#define FENCE barrier(CLK_LOCAL_MEM_FENCE)
#define THREAD ((int)get_local_id(0))

#if TILE_ROWS % (16 * WARPS) || TILE_KEYS % 16 || TILE_KEYS > 64 || LANES < K_CHUNKS || LANES < V_CHUNKS || (QUERY_REGISTERS && TILE_ROWS * K_CHUNKS * 16 > SLOTS * SLOT_BYTES)
#error "tile sizes do not fit together"
#endif

/* Scores are kept as q.k, and the scale goes into the exponent, where nothing else is done with them. */
#define RAW (!ALTERED && !MASKED && SCALE_BITS > 0)
#define EXPONENT (SCALE * MU_EXP_FACTOR)

/* ---- tiles in local memory --------------------------------------------------- */

static inline mu_address place(mu_address tile, int row, int chunk, int chunks)
{
#ifdef MUTANT_cl_matrix_swizzle
    return tile + (row * chunks + (chunk ^ (row & 7))) * 16;
#endif
    /* 4 or 12 chunks are no multiple of 8: every second row begins at the same bank, and the place stays within its four */
    const int turned = chunks % 8 == 0 ? chunk ^ (row & 7) : chunk ^ (row >> 1 & 3);
    return tile + (row * chunks + turned) * 16;
}

/* Elements 8 chunk ... of a row into a tile, zeros from element `dims` on. aligned: the row's address is a multiple of 16. */
static inline void copy_chunk(mu_address to, global const uchar *row, int chunk, int dims, bool aligned)
{
    const int left = clamp(dims - chunk * 8, 0, 8);
    if (aligned) {
        mu_copy16(to, row + (left > 0 ? chunk * 16 : 0), (uint)left * 2);
        return;
    }
    uint pair[4];
    MU_UNROLL for (int n = 0; n < 4; n++)
    {
        const uint low = 2 * n < left ? AT(ushort, row)[chunk * 8 + 2 * n] : 0, high = 2 * n + 1 < left ? AT(ushort, row)[chunk * 8 + 2 * n + 1] : 0;
        pair[n] = low | high << 16;
    }
    mu_store16(to, (uint4)(pair[0], pair[1], pair[2], pair[3]));
}

/* Is every row of this tensor at a multiple of 16 bytes? */
static inline bool rows_aligned(global const uchar *data, struct view view)
{
    return (((ulong)data | (ulong)view.offset | (ulong)view.batch | (ulong)view.head | (ulong)view.token) & 15) == 0;
}

/* Keys block ... of K or V into a slot; those outside low ... high are zeros and not read. In the usual case a lane copies the same piece of every
 * so many rows, which makes one address and one step. */
static inline void copy_keys(mu_address slot, global const uchar *data, struct view view, struct sequence s, global const int *page_table, int b, int g,
                             int block, int low, int high, int dim, bool aligned, struct problem problem)
{
    const int chunks = PADDED(dim) / 8, step = LANES / chunks, own = THREAD / chunks, chunk = THREAD % chunks;
    if (aligned && block >= low && block + TILE_KEYS <= high && (!PAGED || PAGE_SIZE % TILE_KEYS == 0)) {
        const int left = clamp(dim - chunk * 8, 0, 8);
        global const uchar *from = data + key_offset(view, s, page_table, b, g, block + min(own, TILE_KEYS - 1), problem) + (left > 0 ? chunk * 16 : 0);
        MU_UNROLL for (int row = 0; row < TILE_KEYS; row += step)
        {
            if ((LANES % chunks == 0 || own < step) && (TILE_KEYS % step == 0 || row + own < TILE_KEYS))
                mu_copy16(place(slot, row + own, chunk, chunks), from, (uint)left * 2);
            from += step * view.token;
        }
        return;
    }
    _Pragma("unroll 1") for (int n = THREAD; n < TILE_KEYS * chunks; n += LANES) {
        const int j = block + n / chunks;
        const long at = key_offset(view, s, page_table, b, g, clamp(j, low, high - 1), problem);
        copy_chunk(place(slot, n / chunks, n % chunks, chunks), data + at, n % chunks, j >= low && j < high ? dim : 0, aligned);
    }
}

/* Query rows first ... first + rows into a tile, the others zeros. */
static inline void copy_queries(mu_address tile, global const uchar *data, struct view view, struct sequence s, int b, int h, int first, int rows,
                                bool aligned)
{
    _Pragma("unroll 1") for (int n = THREAD; n < TILE_ROWS * K_CHUNKS; n += LANES) {
        const int row = n / K_CHUNKS, chunk = n % K_CHUNKS;
        copy_chunk(place(tile, row, chunk, K_CHUNKS), data + query_offset(view, s, b, h, first + min(row, rows - 1)), chunk, row < rows ? HEAD_DIM : 0,
                   aligned);
    }
}

/* ---- values that are not finite ------------------------------------------------ */

enum { PASS_FIRST, PASS_INFINITY, PASS_MINUS_INFINITY, PASS_FINITE, PASSES };

static inline uint part_of_value(uint value, int pass)
{
    const bool endless = (value & ENDLESS) == ENDLESS, nan = endless && (value & 0x7fff & ~ENDLESS) != 0, minus = (value & 0x8000) != 0;
    if (pass == PASS_FINITE) return endless ? 0 : value;
    return endless && (nan || minus == (pass == PASS_MINUS_INFINITY)) ? ONE : 0;
}
static inline uint part_of(uint pair, int pass) { return part_of_value(pair & 0xffff, pass) | part_of_value(pair >> 16, pass) << 16; }

/* What this pass wants of the values of a tile. */
static inline void take_part(local uint4 *tile, int pass)
{
    for (int n = THREAD; n < TILE_KEYS * V_CHUNKS; n += LANES) {
        const uint4 x = tile[n];
        tile[n] = (uint4)(part_of(x.s0, pass), part_of(x.s1, pass), part_of(x.s2, pass), part_of(x.s3, pass));
    }
}

/* ---- the ring -------------------------------------------------------------------- */

/* SLOTS - 1 tiles are on their way at any time; the oldest must have landed. */
#if SLOTS == 2
#define WAIT_FOR_TILE() mu_copy_wait(0)
#elif SLOTS == 3
#define WAIT_FOR_TILE() mu_copy_wait(1)
#else
#define WAIT_FOR_TILE() mu_copy_wait(2)
#endif

/* Tile number `next` of K0 V0 K1 V1 ... into a slot; behind the last an empty parcel keeps the count right. */
#define PREFETCH(number)                                                                                                         \
    do {                                                                                                                         \
        const int block_ = first_block + (next >> 1) * TILE_KEYS;                                                                \
        const mu_address slot_ = ring + (number) * SLOT_BYTES;                                                                   \
        if (next < tiles && (next & 1))                                                                                          \
            copy_keys(slot_, v, st.v, s, page_table, b, g, block_, low, high, V_HEAD_DIM, v_aligned, problem);                   \
        else if (next < tiles)                                                                                                   \
            copy_keys(slot_, k, st.k, s, page_table, b, g, block_, low, high, HEAD_DIM, k_aligned, problem);                     \
        mu_copy_commit();                                                                                                        \
        next++;                                                                                                                  \
    } while (0)

/* The next slot: its tile has landed for everybody, and the slot that was freed last is filled again. */
#define NEXT_TILE(tile)                                                                                                          \
    mu_address tile;                                                                                                             \
    do {                                                                                                                         \
        WAIT_FOR_TILE();                                                                                                         \
        FENCE;                                                                                                                   \
        PREFETCH((slot + RING_STEP) % SLOTS);                                                                                    \
        tile = ring + slot * SLOT_BYTES;                                                                                         \
        slot = slot == SLOTS - 1 ? 0 : slot + 1;                                                                                 \
    } while (0)
#ifdef MUTANT_cl_matrix_ring
#define RING_STEP SLOTS /* the slot in use */
#else
#define RING_STEP (SLOTS - 1)
#endif

/* Row of the tile that accumulators e and e + 1 of this lane belong to, e = 2 side. */
#define OWN_ROW(t, side) (warp_row + (t) * 16 + (side) * 8 + (lane >> 2))

ATTENTION_KERNEL void prefill_matrix(ATTENTION_ARGUMENTS)
{
    local uint4 memory[(SLOTS * SLOT_BYTES + QUERY_BYTES) / 16] ALIGNED;
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
                seen[t][side] = row_of(st, s, b, h, first + min(OWN_ROW(t, side), rows - 1), q_positions, key_range, alibi, problem);
        }
        /* Keys that some row sees, and those that every row sees by position. Without positions or ranges of their own, rows see later and later keys. */
        struct row top = row_of(st, s, b, h, first, q_positions, key_range, alibi, problem);
        struct row bottom = row_of(st, s, b, h, first + rows - 1, q_positions, key_range, alibi, problem);
        int low = top.begin, high = bottom.end, all_from = bottom.begin, all_to = top.end;
        if (KEY_RANGE || (s.flags & 1) || top.end == 0 || bottom.end == 0) {
            low = INT_MAX, high = 0, all_from = 0, all_to = INT_MAX;
            _Pragma("unroll 1") for (int r = 0; r < rows; r++) {
                const struct row row = row_of(st, s, b, h, first + r, q_positions, key_range, alibi, problem);
                all_from = max(all_from, row.begin);
                all_to = min(all_to, row.end);
                if (row.end == 0) continue;
                low = min(low, row.begin);
                high = max(high, row.end);
            }
        }
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
                         place(q_tile, warp_row + t * 16 + (lane & 15), c * 2 + (lane >> 4), K_CHUNKS));
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
                                 place(q_tile, warp_row + t * 16 + (lane & 15), c * 2 + (lane >> 4), K_CHUNKS));
#endif
                    MU_UNROLL for (int n = 0; n < KEY_TILES / 2; n++)
                    {
                        uint b0, b1, b2, b3;
                        mu_load4(b0, b1, b2, b3, place(k_tile, n * 16 + (lane & 7) + (lane >> 4) * 8, c * 2 + (lane >> 3 & 1), K_CHUNKS));
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

                MU_UNROLL for (int t = 0; t < ROW_TILES && (pass == PASS_INFINITY || pass == PASS_MINUS_INFINITY); t++)
                {
                    MU_UNROLL for (int n = 0; n < KEY_TILES * 4; n++) score[t][n / 4][n % 4] = score[t][n / 4][n % 4] == -INFINITY ? 0 : 1;
                }

                /* softmax: a row of scores lies in 4 neighbouring lanes */
                MU_UNROLL for (int t = 0; t < ROW_TILES && (pass == PASS_FIRST || pass == PASS_FINITE); t++)
                {
                    MU_UNROLL for (int side = 0; side < 2; side++)
                    {
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
                        float fade = RAW ? mu_exp(old * EXPONENT - base) : mu_exp((old - base) * MU_EXP_FACTOR);
                        float sum = 0;
#ifdef MUTANT_cl_matrix_fade
                        fade = 1;
#endif
                        MU_UNROLL for (int c = 0; c < KEY_TILES; c++)
                        {
                            MU_UNROLL for (int e = 2 * side; e < 2 * side + 2; e++)
                            {
                                const float x = score[t][c][e];
                                score[t][c][e] = RAW ? mu_exp(fma(x, EXPONENT, -base)) : mu_exp((x - base) * MU_EXP_FACTOR);
                                sum += score[t][c][e];
                            }
                        }
                        l[t][side] = fma(l[t][side], fade, sum);
                        MU_UNROLL for (int c = 0; c < V_TILES; c++)
                        {
                            acc[t][c][2 * side] *= fade;
                            acc[t][c][2 * side + 1] *= fade;
                        }
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
                        mu_load4_transposed(b0, b1, b2, b3, place(v_tile, c * 16 + (lane & 15), n * 2 + (lane >> 4), V_CHUNKS));
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
            if (pass != PASS_FIRST) continue;
            FENCE;
            if (THREAD == 0) *odd = 0;
            FENCE;
#ifndef MUTANT_cl_matrix_zero_times_nan
            if (wrong != 0) atomic_or(odd, 1);
#endif
            FENCE;
            if (*odd == 0) pass = PASSES;
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
                    const float2 by = end_row(top_score, sum, st, s, b, h, first + r, lse, sinks, (lane & 3) == 0, problem);
                    const float factor = by.s0 * (1.0f / by.s1);
                    global uchar *to = o + query_offset(st.o, s, b, h, first + r);
                    MU_UNROLL for (int n = 0; n < V_TILES * 2; n++)
                    {
                        const int c = n / 2, e = 2 * side + n % 2, d = c * 8 + (lane & 3) * 2 + n % 2, bit = (4 * c + e) % 32;
                        float x = sum == 0 ? 0.0f : acc[t][c][e] * factor + 0.0f;
                        if (plus[t][c / 8] >> bit & 1) x += INFINITY;
                        if (minus[t][c / 8] >> bit & 1) x -= INFINITY;
                        if (d < V_HEAD_DIM) GLUE(store1_, O_TYPE)(to, d, x);
                    }
                }
            }
        }
    }
}
