/* SPDX-License-Identifier: MIT
 * prefill_warpgroup.cl - prefill on Hopper's warpgroup products: q, k and v in f16 or bf16, sums in f32, online softmax in registers. The words wg_* are those of
 * matrix_warpgroup.cl, which has them for the emulated unit, too.
 *
 * A work-group owns TILE_ROWS query rows of one head at a time, each warpgroup 64 of them. Per tile of TILE_KEYS keys, counted from key 0, as in prefill_matrix.cl:
 *
 *     s[64][TILE_KEYS] = Q K^T        m' = max(m, s)   fade = e^(m - m')   p = e^(s - m')   l = l fade + sum p, by lane
 *     o[64][DV]        = o fade + P V        P rounded to the type of V
 *
 * The products run beside the softmax: while the weights of tile n are made, the unit adds those of tile n - 1 to o (the order of FlashAttention-3's
 * pipelining inside a warpgroup, Shah et al. 2024, without warps of their own for the copies):
 *
 *     Q K0; softmax of 0 | n = 0, 1, ...: Q Kn+1, P Vn; copy what comes later; wait for Q Kn+1; softmax of n + 1; wait for P Vn; o *= fade | P V of the last
 *
 *   local memory  the query rows, SLOTS tiles of keys and of values, in panels of 64 dimensions
 *   registers     s, p and o
 */
#define QUERY_BYTES (TILE_ROWS * 16 * K_CHUNKS)
#define K_SLOT (TILE_KEYS * 16 * K_CHUNKS)
#define V_SLOT (TILE_KEYS * 16 * V_CHUNKS)
#define QUERY_PANEL (64 * 128)
#define KEY_PANEL (TILE_KEYS * 128)
#define SCORES_HERE (TILE_KEYS / 2)
#define SUMS_HERE (V_CHUNKS * 4)

/* Parcel n is tile n of keys and tile n - 1 of values. Turn n multiplies tile n + 1 of keys and tile n of values: parcel n + 1.
 *
 * SLOTS >= 4: the warpgroups take turns at the unit, so that it works for one while the other makes weights; a product occupies the warps that ask for it until it
 * is nearly done, so nothing else overlaps. At its turn n a warpgroup knows of the others that their products of turn n - 2 are complete, and that their pieces
 * of parcel n + 1 have landed: each saw to its own of parcel n + 2 before it passed turn n on. Parcel n + SLOTS - 1 may be copied over turn n - 2's.
 *
 * SLOTS < 4, where local memory holds no more: all in step, by a barrier. At turn n parcel n + SLOTS is copied over turn n - 1's. */
#define TURNS (SLOTS >= 4)
#define LEAD (TURNS ? SLOTS - 1 : SLOTS)
#if SLOTS == 2
#define WAIT_FOR_FIRST() mu_copy_wait(1)
#define WAIT_FOR_PARCEL() mu_copy_wait(0)
#elif SLOTS == 3
#define WAIT_FOR_FIRST() mu_copy_wait(2)
#define WAIT_FOR_PARCEL() mu_copy_wait(1)
#elif SLOTS == 4
#define WAIT_FOR_FIRST() mu_copy_wait(2)
#define WAIT_FOR_SECOND() mu_copy_wait(1)
#define WAIT_FOR_PARCEL() mu_copy_wait(0)
#elif SLOTS == 5
#define WAIT_FOR_FIRST() mu_copy_wait(3)
#define WAIT_FOR_SECOND() mu_copy_wait(2)
#define WAIT_FOR_PARCEL() mu_copy_wait(1)
#elif SLOTS == 6
#define WAIT_FOR_FIRST() mu_copy_wait(4)
#define WAIT_FOR_SECOND() mu_copy_wait(3)
#define WAIT_FOR_PARCEL() mu_copy_wait(2)
#else
#error "so many tiles are not counted"
#endif

#if TILE_ROWS != 16 * WARPS || TILE_ROWS % 64 || TILE_KEYS % 16
#error "tile sizes do not fit together"
#endif

/* A parcel to be copied piece by piece between other work: the next piece of each, and how many there are. */
struct parcel {
    mu_address k_to, v_to;
    global const uchar *k_from, *v_from;
    long k_stride, v_stride;
    bool has_k, has_v;
};

/* Do the same lanes copy the same pieces of every so many rows, at one step? */
#define EVEN(chunks) (LANES % (chunks) == 0 && LANES / (chunks) % 8 == 0 && TILE_KEYS % (LANES / (chunks)) == 0)
#define K_PIECES (TILE_KEYS * K_CHUNKS / LANES)
#define V_PIECES (TILE_KEYS * V_CHUNKS / LANES)
#define PIECE_BYTES(dim, chunks) ((dim) == (chunks) * 8 ? 16u : (uint)clamp((dim) - THREAD % (chunks) * 8, 0, 8) * 2)
#define PIECE_AT(dim, chunks) ((dim) == (chunks) * 8 || THREAD % (chunks) * 8 < (dim) ? THREAD % (chunks) * 16 : 0)

static inline void copy_k_piece(private struct parcel *parcel, int n)
{
    if (!parcel->has_k) return;
    mu_copy16(parcel->k_to + n * (LANES / K_CHUNKS * 128), parcel->k_from, PIECE_BYTES(HEAD_DIM, K_CHUNKS));
    parcel->k_from += parcel->k_stride;
}
static inline void copy_v_piece(private struct parcel *parcel, int n)
{
    if (!parcel->has_v) return;
    mu_copy16(parcel->v_to + n * (LANES / V_CHUNKS * 128), parcel->v_from, PIECE_BYTES(V_HEAD_DIM, V_CHUNKS));
    parcel->v_from += parcel->v_stride;
}

/* Number k_next: pieces to come where that is possible, else copied here. */
#define WHOLE(block_) ((block_) >= low && (block_) + TILE_KEYS <= high && (!PAGED || PAGE_SIZE % TILE_KEYS == 0))
#define FROM(data, home, view, block_, chunks, dim)                                                                              \
    (PAGED ? (data) + key_offset(view, s, page_table, b, g, (block_) + THREAD / (chunks), problem) + PIECE_AT(dim, chunks) : (home) + (long)(block_) * (view).token)
#define OPEN_PARCEL(k_next, k_slot, v_slot)                                                                                      \
    do {                                                                                                                         \
        const int k_block_ = first_block + (k_next) * TILE_KEYS, v_block_ = k_block_ - TILE_KEYS;                                \
        parcel.has_k = k_even && pass == PASS_FIRST && (k_next) < blocks && WHOLE(k_block_);                                     \
        parcel.has_v = v_even && pass == PASS_FIRST && (k_next) <= blocks && WHOLE(v_block_);                                    \
        if (parcel.has_k) {                                                                                                      \
            parcel.k_to = k_place + (k_slot) * K_SLOT;                                                                           \
            parcel.k_from = FROM(k, k_home, st.k, k_block_, K_CHUNKS, HEAD_DIM);                                                 \
        } else if ((k_next) < blocks)                                                                                            \
            copy_keys(k_ring + (k_slot) * K_SLOT, k, st.k, s, page_table, b, g, k_block_, low, high, HEAD_DIM, k_aligned, problem); \
        if (parcel.has_v) {                                                                                                      \
            parcel.v_to = v_place + (v_slot) * V_SLOT;                                                                           \
            parcel.v_from = FROM(v, v_home, st.v, v_block_, V_CHUNKS, V_HEAD_DIM);                                               \
        } else if ((k_next) <= blocks)                                                                                           \
            copy_keys(v_ring + (v_slot) * V_SLOT, v, st.v, s, page_table, b, g, v_block_, low, high, V_HEAD_DIM, v_aligned, problem); \
    } while (0)

/* Keys of tile number k_next and values of the tile before it into the slots named, as far as there are such tiles: one parcel. */
#define COPY_TILES(k_next, k_slot, v_slot)                                                                                       \
    do {                                                                                                                         \
        if ((k_next) < blocks)                                                                                                   \
            copy_keys(k_ring + (k_slot) * K_SLOT, k, st.k, s, page_table, b, g, first_block + (k_next) * TILE_KEYS, low, high, HEAD_DIM, k_aligned, problem); \
        if ((k_next) > 0 && (k_next) <= blocks)                                                                                  \
            copy_keys(v_ring + (v_slot) * V_SLOT, v, st.v, s, page_table, b, g, first_block + ((k_next) - 1) * TILE_KEYS, low, high, V_HEAD_DIM, v_aligned, problem); \
        mu_copy_commit();                                                                                                        \
    } while (0)

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
                                                        private struct parcel *parcel, int block, bool edge, int pass, int lane, int kv_len, global const uchar *mask,
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
        if (x * K_PIECES % SCORES_HERE < K_PIECES) copy_k_piece(parcel, x * K_PIECES / SCORES_HERE);
        if (x * V_PIECES % SCORES_HERE < V_PIECES) copy_v_piece(parcel, x * V_PIECES / SCORES_HERE);
    }
    MU_UNROLL for (int side = 0; side < 2; side++) l[side] = fma(l[side], fade[side], sum[side][0] + sum[side][1]);
}

#ifdef MUTANT_cl_warpgroup_edge
#define EDGE(block) (all_from > (block) || all_to + 1 < (block) + TILE_KEYS)
#else
#define EDGE(block) (all_from > (block) || all_to < (block) + TILE_KEYS)
#endif
#define WEIGH(block) weigh(score, m, l, fade, seen, &parcel, block, EDGE(block), pass, lane, s.kv_len, mask, bias, problem MU_SCRATCH_GIVEN)
#define PACK_WEIGHTS() MU_UNROLL for (int x = 0; x < TILE_KEYS / 4; x++) p[x] = mu_pack(score[2 * x], score[2 * x + 1])

/* What this pass wants of the values in a slot. */
#define TAKE_PART(slot)                                                                                                          \
    if (pass != PASS_FIRST) {                                                                                                    \
        mu_copy_wait(0);                                                                                                         \
        FENCE;                                                                                                                   \
        take_part(memory + (QUERY_BYTES + SLOTS * K_SLOT + (slot) * V_SLOT) / 16, pass);                                         \
        wg_visible();                                                                                                            \
        FENCE;                                                                                                                   \
    }

#if TURNS
#define BEGIN_TURN(slot)                                                                                                         \
    do {                                                                                                                         \
        TAKE_PART(slot)                                                                                                          \
        wg_turn(warpgroup);                                                                                                      \
        wg_fence();                                                                                                              \
    } while (0)
#define END_TURN()                                                                                                               \
    do {                                                                                                                         \
        WAIT_FOR_PARCEL();                                                                                                       \
        wg_visible();                                                                                                            \
        wg_pass(warpgroup);                                                                                                      \
    } while (0)
#else
#define BEGIN_TURN(slot)                                                                                                         \
    do {                                                                                                                         \
        WAIT_FOR_PARCEL();                                                                                                       \
        wg_visible();                                                                                                            \
        FENCE;                                                                                                                   \
        TAKE_PART(slot)                                                                                                          \
        wg_fence();                                                                                                              \
    } while (0)
#define END_TURN()
#endif

/* Number of the slot so many tiles further on. */
#define SLOT_AFTER(tiles) (int)((uint)(slot + (tiles)) % SLOTS)

ATTENTION_KERNEL void prefill_warpgroup(ATTENTION_ARGUMENTS)
{
    local uint4 memory[(QUERY_BYTES + SLOTS * (K_SLOT + V_SLOT)) / 16] __attribute__((aligned(1024)));
    MU_SCRATCH
    const mu_address q_tile = mu_address_of(memory), k_ring = q_tile + QUERY_BYTES, v_ring = k_ring + SLOTS * K_SLOT;
    local int *odd = (local int *)(memory + QUERY_BYTES / 16); /* between passes the tiles of keys are free */
    const int number = ITEM_NUMBER, lane = THREAD & 31, warp_row = (THREAD >> 5) * 16, warpgroup = wg_same(THREAD >> 7);
    const bool given = number < item_count;
    struct work_item item = AT(struct work_item, items)[given ? item_first + number : 0];
    if (!given) item.sequence = item.head = item.q_begin = item.q_end = 0;
    const struct sequence s = sequences[item.sequence];
    const int b = item.sequence, h = item.head, g = h / GROUP;
    const bool o_even = rows_aligned(o, st.o), q_aligned = rows_aligned(q, st.q), k_aligned = rows_aligned(k, st.k), v_aligned = rows_aligned(v, st.v);

    /* where this lane's pieces of tiles are read and written, of block 0 and in slot 0 */
    const bool k_even = EVEN(K_CHUNKS) && k_aligned, v_even = EVEN(V_CHUNKS) && v_aligned;
    const mu_address k_place = place(k_ring, THREAD / K_CHUNKS, THREAD % K_CHUNKS, K_CHUNKS), v_place = place(v_ring, THREAD / V_CHUNKS, THREAD % V_CHUNKS, V_CHUNKS);
    global const uchar *const k_home = PAGED ? k : k + key_offset(st.k, s, page_table, b, g, THREAD / K_CHUNKS, problem) + PIECE_AT(HEAD_DIM, K_CHUNKS);
    global const uchar *const v_home = PAGED ? v : v + key_offset(st.v, s, page_table, b, g, THREAD / V_CHUNKS, problem) + PIECE_AT(V_HEAD_DIM, V_CHUNKS);

    if (TURNS && warpgroup == WARPGROUPS - 1) wg_pass(warpgroup);
    for (int first = item.q_begin; first < item.q_end; first += TILE_ROWS) {
        const int rows = min(TILE_ROWS, item.q_end - first);
        struct row seen[2];
        MU_UNROLL for (int side = 0; side < 2; side++)
            seen[side] = row_of(st, s, b, h, first + min(OWN_ROW(side), rows - 1), q_positions, key_range, alibi, problem);
        const struct reach reach = reach_of(st, s, b, h, first, first + rows - 1, q_positions, key_range, alibi, problem);
        const int low = reach.low, high = reach.high, all_from = reach.all_from, all_to = reach.all_to;
        const int first_block = high ? low / TILE_KEYS * TILE_KEYS : 0, blocks = high ? (high - first_block + TILE_KEYS - 1) / TILE_KEYS : 0;
        float acc[SUMS_HERE], m[2], l[2];
        uint plus[(SUMS_HERE + 31) / 32] = {0}, minus[(SUMS_HERE + 31) / 32] = {0}; /* bit n: infinity belongs to acc[n] */

        FENCE;
        copy_queries(q_tile, q, st.q, s, b, h, first, rows, q_aligned); /* in one parcel with the first keys */

        _Pragma("unroll 1") for (int pass = PASS_FIRST; pass < PASSES; pass++) {
            float score[SCORES_HERE], fade[2];
            struct parcel parcel = {.k_stride = LANES / K_CHUNKS * st.k.token, .v_stride = LANES / V_CHUNKS * st.v.token};
            uint p[TILE_KEYS / 4];
            MU_UNROLL for (int n = 0; n < SUMS_HERE; n++) acc[n] = 0;
            m[0] = m[1] = -INFINITY;
            l[0] = l[1] = 0;
            FENCE; /* everybody knows of the last pass */
            MU_UNROLL for (int n = 0; n < LEAD; n++) COPY_TILES(n, n, n - 1);
            WAIT_FOR_FIRST();
            wg_visible();
            FENCE;
            int slot = 0; /* of tile number n */
            if (blocks > 0) {
                wg_fence();
                MULTIPLY_KEYS(0);
                wg_commit();
                wg_wait(0);
                wg_arrived(score, SCORES_HERE);
                WEIGH(first_block);
                PACK_WEIGHTS();
#if TURNS
                WAIT_FOR_SECOND(); /* for turn 0, which nobody passed on */
                wg_visible();
                FENCE;
#endif
                /* No register of a product under way may be touched, not even moved, so none is under way from one turn to the next. */
                _Pragma("unroll 1") for (int n = 0; n < blocks - 1; n++) {
                    slot = wg_same(slot);
                    BEGIN_TURN(slot);
                    MULTIPLY_KEYS(SLOT_AFTER(1));
                    wg_commit();
                    MULTIPLY_VALUES(slot);
                    wg_commit();
                    END_TURN();
                    OPEN_PARCEL(n + LEAD, SLOT_AFTER(LEAD), SLOT_AFTER(LEAD - 1));
                    slot = SLOT_AFTER(1);
                    wg_wait(1);
                    wg_arrived(score, SCORES_HERE);
                    WEIGH(first_block + (n + 1) * TILE_KEYS);
                    mu_copy_commit();
                    wg_wait(0);
                    wg_arrived(acc, SUMS_HERE);
                    if (mu_any(fade[0] != 1 || fade[1] != 1)) {
                        MU_UNROLL for (int x = 0; x < SUMS_HERE; x++) acc[x] *= fade[x >> 1 & 1];
                    }
                    PACK_WEIGHTS();
                }
                BEGIN_TURN(slot);
                MULTIPLY_VALUES(slot);
                wg_commit();
                END_TURN();
                wg_wait(0);
                wg_arrived(acc, SUMS_HERE);
            }

            /* Is anything NaN, anywhere in the group? */
            float wrong = 0;
            MU_UNROLL for (int n = 0; n < SUMS_HERE; n++)
            {
                const float x = acc[n];
                wrong = x == x ? wrong : 1.0f;
                if (pass == PASS_INFINITY) plus[n / 32] |= (uint)(x > 0) << n % 32;
                if (pass == PASS_MINUS_INFINITY) minus[n / 32] |= (uint)(x > 0) << n % 32;
            }
#ifdef MUTANT_cl_warpgroup_zero_times_nan
            wrong = 0;
#endif
            if (pass == PASS_FIRST && !group_says(odd, wrong != 0)) pass = PASSES;
        }

        MU_UNROLL for (int side = 0; side < 2; side++)
        {
            float sum = l[side];
            MU_UNROLL for (int x = 1; x <= 2; x++) sum += mu_xor(sum, x);
            const int r = OWN_ROW(side);
            const float top_score = RAW && m[side] > -INFINITY ? m[side] * EXPONENT * MU_EXP_INVERSE : m[side];
            if (r < rows) {
                const float2 by = end_row(top_score, sum, st, s, b, h, first + r, lse, sinks, (lane & 3) == 0, problem);
                const float factor = by.s0 * (1.0f / by.s1);
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
                    if (o_even && d + 1 < V_HEAD_DIM) GLUE(store2_, O_TYPE)(to, d, x[0], x[1]);
                    else {
                        if (d < V_HEAD_DIM) GLUE(store1_, O_TYPE)(to, d, x[0]);
                        if (d + 1 < V_HEAD_DIM) GLUE(store1_, O_TYPE)(to, d + 1, x[1]);
                    }
                }
            }
        }
    }
}
