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
            seen[side] = row_within(row_of(st, s, b, h, first + min(OWN_ROW(side), rows - 1), q_positions, key_range, alibi, problem), item);
        const struct reach reach = reach_in(reach_of(st, s, b, h, first, first + rows - 1, q_positions, key_range, alibi, problem), item);
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

        store_rows(acc, m, l, plus, minus, st, s, b, h, item, first, rows, warp_row, lane, o_even, work, part_rows, o, lse, sinks, problem MU_SCRATCH_GIVEN);
    }
}
