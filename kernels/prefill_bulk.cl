/* SPDX-License-Identifier: MIT
 * prefill_bulk.cl - prefill on Hopper's warpgroup products with tiles that its engine for copies brings: q, k and v in f16 or bf16, sums in f32, online softmax in
 * registers. Words: matrix_warpgroup.cl, warpgroup_boxes.cl; formulas and the order of work: warpgroup_rows.cl and prefill_warpgroup.cl, which has pages.
 *
 *     Q K0; softmax of 0 | n = 0, 1, ...: Q Kn+1, P Vn; ask for what comes later; wait for Q Kn+1; softmax of n + 1; wait for P Vn; o *= fade | P V of the last
 *
 *   local memory  the query rows, SLOTS tiles of keys and of values, in panels of 64 dimensions; a word per slot that counts what has landed
 *   registers     s, p and o
 *   workspace     two maps of 128 bytes per item
 */
/* Parcel n is tile n of keys and tile n - 1 of values; turn n multiplies parcel n + 1.
 *
 * SLOTS >= 3: the warpgroups take turns at the unit, so that it works for one while the other makes weights; a product occupies the warps that ask for it until it
 * is nearly done, so nothing else overlaps. At its turn n the first warpgroup knows of the others that their products of turn n - 2 are complete, and asks for parcel
 * n + SLOTS - 1, which takes the place of what those multiplied. SLOTS = 2: all in step, by a barrier. At turn n parcel n + 2 takes the place of turn n - 1's. */
#define TURNS (SLOTS >= 3)
#define LEAD (TURNS ? SLOTS - 1 : SLOTS)
#define NUMBER_OF(n) (sent + (uint)(n))
#define SLOT_OF(n) (int)(NUMBER_OF(n) % SLOTS)
#define WAIT_FOR_PARCEL(n) landed_wait(landed + 8 * SLOT_OF(n), NUMBER_OF(n) / SLOTS & 1)

#if TURNS
#define BEGIN_TURN() wg_turn(warpgroup)
#define END_TURN() wg_pass(warpgroup)
#else
#define BEGIN_TURN() FENCE
#define END_TURN()
#endif

/* Asks for parcel n of `blocks` tiles; row: of the first tile in the maps. Parcels before it in this group: sent. */
static inline void ask(int n, uint sent, int blocks, int row, mu_address k_ring, mu_address v_ring, mu_address landed, global const ulong *maps)
{
    const mu_address word = landed + 8 * SLOT_OF(n);
#ifdef MUTANT_cl_bulk_place
    row -= TILE_KEYS;
#endif
    if (n > blocks) return;
    landed_expect(word, (n < blocks ? K_SLOT : 0) + (n > 0 ? V_SLOT : 0));
    if (n < blocks) {
        MU_UNROLL for (int c = 0; c < K_CHUNKS / 8; c++) box_copy(k_ring + SLOT_OF(n) * K_SLOT + c * KEY_PANEL, maps, c * 64, row + n * TILE_KEYS, word);
    }
    if (n > 0) {
        MU_UNROLL for (int c = 0; c < V_CHUNKS / 8; c++)
            box_copy(v_ring + SLOT_OF(n - 1) * V_SLOT + c * KEY_PANEL, maps + MAP_WORDS, c * 64, row + (n - 1) * TILE_KEYS, word);
    }
}

/* Rows whose strides and addresses a map can hold. */
static inline bool has_map(global const uchar *data, struct view view) { return rows_aligned(data, view) && view.token > 0 && view.token < 1l << 40; }

ATTENTION_KERNEL void prefill_bulk(ATTENTION_ARGUMENTS)
{
    local uint4 memory[(QUERY_BYTES + SLOTS * (K_SLOT + V_SLOT)) / 16] __attribute__((aligned(1024)));
    local ulong landed_words[SLOTS];
    MU_SCRATCH
    const mu_address q_tile = mu_address_of(memory), k_ring = q_tile + QUERY_BYTES, v_ring = k_ring + SLOTS * K_SLOT, landed = mu_address_of(landed_words);
    local int *odd = (local int *)(memory + QUERY_BYTES / 16); /* between passes the tiles of keys are free */
    const int number = ITEM_NUMBER, lane = THREAD & 31, warp_row = (THREAD >> 5) * 16, warpgroup = wg_same(THREAD >> 7);
    const bool given = number < item_count;
    struct work_item item = AT(struct work_item, items)[given ? item_first + number : 0];
    if (!given) item.sequence = item.head = item.q_begin = item.q_end = 0;
    const struct sequence s = sequences[item.sequence];
    const int b = item.sequence, h = item.head, g = h / GROUP;
    const bool o_even = rows_aligned(o, st.o), q_aligned = rows_aligned(q, st.q), k_aligned = rows_aligned(k, st.k), v_aligned = rows_aligned(v, st.v);
    const bool mapped = has_map(k, st.k) && has_map(v, st.v);
    global ulong *const maps = (global ulong *)((((ulong)work + (ulong)st.own.offset + 127) & ~127ul) + (ulong)(item_first + number) * MAP_BYTES);
    uint sent = 0;

    if (THREAD == 0) {
        for (int n = 0; n < SLOTS; n++) landed_make(landed + 8 * n);
    }
    if (TURNS && warpgroup == WARPGROUPS - 1) wg_pass(warpgroup);
    for (int first = item.q_begin; first < item.q_end; first += TILE_ROWS) {
        const int rows = min(TILE_ROWS, item.q_end - first);
        const struct reach reach = reach_in(reach_of(st, s, b, h, first, first + rows - 1, q_positions, key_range, alibi, problem), item);
        const int low = reach.low, high = reach.high, all_from = reach.all_from, all_to = reach.all_to;
        const int first_block = high ? low / TILE_KEYS * TILE_KEYS : 0, blocks = high ? (high - first_block + TILE_KEYS - 1) / TILE_KEYS : 0;
        float acc[SUMS_HERE], m[2], l[2];
        uint plus[(SUMS_HERE + 31) / 32] = {0}, minus[(SUMS_HERE + 31) / 32] = {0}; /* bit n: infinity belongs to acc[n] */

        FENCE;
        if (THREAD == 0 && mapped && blocks > 0) {
            box_map(maps, k + key_offset(st.k, s, page_table, b, g, low, problem), st.k.token, HEAD_DIM, high - low);
            box_map(maps + MAP_WORDS, v + key_offset(st.v, s, page_table, b, g, low, problem), st.v.token, V_HEAD_DIM, high - low);
            box_maps(maps);
            for (int n = 0; n < LEAD; n++) ask(n, sent, blocks, first_block - low, k_ring, v_ring, landed, maps);
        }
        copy_queries(q_tile, q, st.q, s, b, h, first, rows, q_aligned);
        mu_copy_commit();
        struct row seen[2];
        MU_UNROLL for (int side = 0; side < 2; side++)
            seen[side] = row_in(row_of(st, s, b, h, first + min(OWN_ROW(side), rows - 1), q_positions, key_range, alibi, problem), item);
        mu_copy_wait(0);
        wg_visible();
        FENCE;

        _Pragma("unroll 1") for (int pass = PASS_FIRST; pass < PASSES; pass++) {
            float score[SCORES_HERE], fade[2];
            uint p[TILE_KEYS / 4];
            MU_UNROLL for (int n = 0; n < SUMS_HERE; n++) acc[n] = 0;
            m[0] = m[1] = -INFINITY;
            l[0] = l[1] = 0;
            if (mapped && blocks > 0 && pass == PASS_FIRST) {
                WAIT_FOR_PARCEL(0);
                wg_fence();
                MULTIPLY_KEYS(SLOT_OF(0));
                wg_commit();
                wg_wait(0);
                wg_arrived(score, SCORES_HERE);
                WEIGH(first_block);
                PACK_WEIGHTS();
                /* No register of a product under way may be touched, not even moved, so none is under way from one turn to the next. */
                _Pragma("unroll 1") for (int n = 0; n < blocks - 1; n++) {
                    const int slot = wg_same(SLOT_OF(n)), next = slot == SLOTS - 1 ? 0 : slot + 1;
                    WAIT_FOR_PARCEL(n + 1);
                    BEGIN_TURN();
                    wg_fence();
                    MULTIPLY_KEYS(next);
                    wg_commit();
                    MULTIPLY_VALUES(slot);
                    wg_commit();
                    END_TURN();
                    if (THREAD == 0) ask(n + LEAD, sent, blocks, first_block - low, k_ring, v_ring, landed, maps);
                    wg_wait(1);
                    wg_arrived(score, SCORES_HERE);
                    WEIGH(first_block + (n + 1) * TILE_KEYS);
                    wg_wait(0);
                    wg_arrived(acc, SUMS_HERE);
                    if (mu_any(fade[0] != 1 || fade[1] != 1)) {
                        MU_UNROLL for (int x = 0; x < SUMS_HERE; x++) acc[x] *= fade[x >> 1 & 1];
                    }
                    PACK_WEIGHTS();
                }
                WAIT_FOR_PARCEL(blocks);
                BEGIN_TURN();
                wg_fence();
                MULTIPLY_VALUES(wg_same(SLOT_OF(blocks - 1)));
                wg_commit();
                END_TURN();
                wg_wait(0);
                wg_arrived(acc, SUMS_HERE);
                sent += (uint)blocks + 1;
            } else {
                /* rows that no map can hold, and values that are not finite: tile by tile */
                _Pragma("unroll 1") for (int n = 0; n < blocks; n++) {
                    const int block = first_block + n * TILE_KEYS;
                    FENCE;
                    copy_keys(k_ring, k, st.k, s, page_table, b, g, block, low, high, HEAD_DIM, k_aligned, problem);
                    copy_keys(v_ring, v, st.v, s, page_table, b, g, block, low, high, V_HEAD_DIM, v_aligned, problem);
                    mu_copy_commit();
                    mu_copy_wait(0);
                    FENCE;
                    if (pass != PASS_FIRST) take_part(memory + (QUERY_BYTES + SLOTS * K_SLOT) / 16, pass);
                    wg_visible();
                    FENCE;
                    wg_fence();
                    MULTIPLY_KEYS(0);
                    wg_commit();
                    wg_wait(0);
                    wg_arrived(score, SCORES_HERE);
                    WEIGH(block);
                    MU_UNROLL for (int x = 0; x < SUMS_HERE; x++) acc[x] *= fade[x >> 1 & 1];
                    PACK_WEIGHTS();
                    wg_fence();
                    MULTIPLY_VALUES(0);
                    wg_commit();
                    wg_wait(0);
                    wg_arrived(acc, SUMS_HERE);
                }
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
#ifdef MUTANT_cl_bulk_zero_times_nan
            wrong = 0;
#endif
            if (pass == PASS_FIRST && !group_says(odd, wrong != 0)) pass = PASSES;
        }
        store_rows(acc, m, l, plus, minus, st, s, b, h, item, first, rows, warp_row, lane, o_even, work, part_rows, o, lse, sinks, problem MU_SCRATCH_GIVEN);
    }
}
