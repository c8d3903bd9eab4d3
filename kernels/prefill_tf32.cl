/* SPDX-License-Identifier: MIT
 * prefill_tf32.cl - prefill of f32 on NVIDIA's 16x8x8 TF32 unit, opt-in by name: each f32 is the sum of two numbers of 11 bits, and a product is three products of
 * those, small big + big small + big big. Nearly f32: what is lost is 3 2^-22 of |x y|. The structure is that of prefill_matrix.cl.
 *
 * A work-group of WARPS warps owns TILE_ROWS = 16 WARPS query rows of one head at a time, each warp 16 whole rows. Lane l of a warp has
 *
 *     a[4]     of a 16x8 matrix: rows l/4, l/4 + 8, l/4, l/4 + 8; columns l%4, l%4, l%4 + 4, l%4 + 4
 *     b[2]     of an 8x8 matrix: column l/4; rows l%4 and l%4 + 4
 *     acc[e]   of a 16x8 matrix: row l/4 + 8(e/2), column 2(l%4) + e%2
 *
 * Weights of keys 2(l%4), 2(l%4) + 1 become columns l%4, l%4 + 4 of the next product, and rows of V are read in that order: nothing is exchanged.
 *
 *   local memory  tiles of keys and values, rows of D + 4 floats (no two lanes of a load meet in a bank), in a ring of two: K0 V0 K1 V1 ...
 *   registers     s, o, the query rows
 *
 * A score that is not finite is made again, by fma: infinity times the small part of a number may have another sign than infinity times the number.
 */
#define ROW_FLOATS(dim) (PADDED(dim) + 4)
#define SLOT_FLOATS (TILE_KEYS * (ROW_FLOATS(HEAD_DIM) > ROW_FLOATS(V_HEAD_DIM) ? ROW_FLOATS(HEAD_DIM) : ROW_FLOATS(V_HEAD_DIM)))
#define TILE_ROWS (16 * WARPS)
#define KEY_TILES (TILE_KEYS / 8)
#define D_STEPS (PADDED(HEAD_DIM) / 8)
#define D_TILES (PADDED(V_HEAD_DIM) / 8)

/* The nearest number of 11 bits (ties away from 0), but for the largest, which are cut. */
static inline uint big_of(uint bits)
{
    const uint near = (bits + 0x1000) & 0xffffe000u;
    return (near & 0x7f800000) == 0x7f800000 ? bits & 0xffffe000u : near;
}
static inline uint small_of(uint bits, uint big) { return big_of(as_uint(as_float(bits) - as_float(big))); }

/* Keys block ... into a tile of floats; those outside low ... high are zeros and not read, like dimensions behind the last. */
static inline void copy_floats(local float *tile, mu_address address, global const uchar *data, struct view view, struct sequence s, global const int *page_table,
                               int b, int g, int block, int low, int high, int dim, bool aligned, struct problem problem)
{
    const int chunks = PADDED(dim) / 4;
    _Pragma("unroll 1") for (int n = THREAD; n < TILE_KEYS * chunks; n += LANES) {
        const int j = block + n / chunks, d = n % chunks * 4, at = n / chunks * ROW_FLOATS(dim) + d;
        global const uchar *row = data + key_offset(view, s, page_table, b, g, clamp(j, low, high - 1), problem);
        const int left = j >= low && j < high ? clamp(dim - d, 0, 4) : 0;
        if (aligned) mu_copy16(address + at * 4, row + (left > 0 ? d * 4 : 0), (uint)left * 4);
        else {
            MU_UNROLL for (int x = 0; x < 4; x++) tile[at + x] = x < left ? AT(float, row)[d + x] : 0.0f;
        }
    }
}

/* What this pass wants of the values of a tile: see matrix_tile.cl. */
static inline void take_float_part(local float *tile, int pass)
{
    _Pragma("unroll 1") for (int n = THREAD; n < TILE_KEYS * ROW_FLOATS(V_HEAD_DIM); n += LANES) {
        const uint bits = as_uint(tile[n]), size = bits & 0x7fffffff;
        const bool endless = size >= 0x7f800000, minus = bits >> 31;
        if (pass == PASS_FINITE) tile[n] = endless ? 0.0f : tile[n];
        else tile[n] = endless && (size > 0x7f800000 || minus == (pass == PASS_MINUS_INFINITY)) ? 1.0f : 0.0f;
    }
}

#define TF32_PRODUCT(acc, a, a_small, b0, b1)                                                                                    \
    do {                                                                                                                         \
        const uint big0_ = big_of(b0), big1_ = big_of(b1), small0_ = small_of(b0, big0_), small1_ = small_of(b1, big1_);         \
        mu_mma_tf32(acc, (a_small)[0], (a_small)[1], (a_small)[2], (a_small)[3], big0_, big1_);                                  \
        TF32_BIG_SMALL(acc, a, small0_, small1_);                                                                                \
        mu_mma_tf32(acc, (a)[0], (a)[1], (a)[2], (a)[3], big0_, big1_);                                                          \
    } while (0)
#ifdef MUTANT_cl_tf32_small
#define TF32_BIG_SMALL(acc, a, small0, small1)
#else
#define TF32_BIG_SMALL(acc, a, small0, small1) mu_mma_tf32(acc, (a)[0], (a)[1], (a)[2], (a)[3], small0, small1)
#endif

#define PREFETCH_FLOATS(number)                                                                                                  \
    do {                                                                                                                         \
        const int block_ = first_block + (next >> 1) * TILE_KEYS;                                                                \
        if (next < tiles && (next & 1))                                                                                          \
            copy_floats(ring + (number) * SLOT_FLOATS, address + (number) * SLOT_FLOATS * 4, v, st.v, s, page_table, b, g, block_, low, high,  \
                        V_HEAD_DIM, v_aligned, problem);                                                                         \
        else if (next < tiles)                                                                                                   \
            copy_floats(ring + (number) * SLOT_FLOATS, address + (number) * SLOT_FLOATS * 4, k, st.k, s, page_table, b, g, block_, low, high,  \
                        HEAD_DIM, k_aligned, problem);                                                                           \
        mu_copy_commit();                                                                                                        \
        next++;                                                                                                                  \
    } while (0)

ATTENTION_KERNEL void prefill_tf32(ATTENTION_ARGUMENTS)
{
    local float ring[2 * SLOT_FLOATS] ALIGNED;
    local int odd;
    MU_SCRATCH
    const mu_address address = mu_address_of(ring);
    const int number = ITEM_NUMBER, lane = THREAD & 31, warp_row = (THREAD >> 5) * 16;
    /* A group without an item has an item without rows. No early return: Intel's CPU driver 2026.22 reads both lists before it. */
    const bool given = number < item_count;
    struct work_item item = AT(struct work_item, items)[given ? item_first + number : 0];
    if (!given) item.sequence = item.head = item.q_begin = item.q_end = 0;
    const struct sequence s = sequences[item.sequence];
    const int b = item.sequence, h = item.head, g = h / GROUP;
    const bool k_aligned = rows_aligned(k, st.k), v_aligned = rows_aligned(v, st.v);

    for (int first = item.q_begin; first < item.q_end; first += TILE_ROWS) {
        const int rows = min(TILE_ROWS, item.q_end - first), own = warp_row + (lane >> 2);
        struct row seen[2];
        MU_UNROLL for (int side = 0; side < 2; side++)
            seen[side] = row_within(row_of(st, s, b, h, first + min(own + 8 * side, rows - 1), q_positions, key_range, alibi, problem), item);
        const struct reach reach = reach_in(reach_of(st, s, b, h, first, first + rows - 1, q_positions, key_range, alibi, problem), item);
        const int low = reach.low, high = reach.high, all_from = reach.all_from, all_to = reach.all_to;
        const int first_block = high ? low / TILE_KEYS * TILE_KEYS : 0, tiles = high ? (high - first_block + TILE_KEYS - 1) / TILE_KEYS * 2 : 0;

        float query[D_STEPS][4];
        MU_UNROLL for (int n = 0; n < D_STEPS * 4; n++)
        {
            const int r = own + 8 * (n & 1), d = n / 4 * 8 + (lane & 3) + 4 * (n >> 1 & 1);
            query[n / 4][n % 4] = r < rows && d < HEAD_DIM ? AT(float, q + query_offset(st.q, s, b, h, first + min(r, rows - 1)))[d] : 0.0f;
        }
        float acc[D_TILES][4], m[2], l[2];
        uint plus[(D_TILES + 7) / 8] = {0}, minus[(D_TILES + 7) / 8] = {0}; /* bit 4c + e: infinity belongs to acc[c][e] */

        _Pragma("unroll 1") for (int pass = PASS_FIRST; pass < PASSES; pass++) {
            MU_UNROLL for (int n = 0; n < D_TILES * 4; n++) acc[n / 4][n % 4] = 0;
            m[0] = m[1] = -INFINITY;
            l[0] = l[1] = 0;
            FENCE; /* everybody is done with the ring, and knows of the last pass */
            int next = 0;
            PREFETCH_FLOATS(0);

            for (int block = first_block; block < high; block += TILE_KEYS) {
                /* scores */
                float score[KEY_TILES][4];
                MU_UNROLL for (int n = 0; n < KEY_TILES * 4; n++) score[n / 4][n % 4] = 0;
                mu_copy_wait(0);
                FENCE;
                PREFETCH_FLOATS(1);
                MU_UNROLL for (int c = 0; c < D_STEPS; c++)
                {
                    uint a[4], a_small[4];
                    MU_UNROLL for (int n = 0; n < 4; n++)
                    {
                        a[n] = big_of(as_uint(query[c][n]));
                        a_small[n] = small_of(as_uint(query[c][n]), a[n]);
                    }
                    MU_UNROLL for (int n = 0; n < KEY_TILES; n++)
                    {
                        local const uint *key = (local const uint *)ring + (n * 8 + (lane >> 2)) * ROW_FLOATS(HEAD_DIM) + c * 8 + (lane & 3);
                        const uint b0 = key[0], b1 = key[4];
                        TF32_PRODUCT(score[n], a, a_small, b0, b1);
                    }
                }

                /* logits, and who sees what */
                const bool edge = all_from > block || all_to < block + TILE_KEYS;
                MU_UNROLL for (int n = 0; n < KEY_TILES * 4; n++)
                {
                    const struct row row = seen[n % 4 / 2];
                    const int in_tile = n / 4 * 8 + (lane & 3) * 2 + n % 2, j = block + in_tile;
                    float x = score[n / 4][n % 4], capped;
#ifndef MUTANT_cl_tf32_infinity
                    if (!(fabs(x) < INFINITY)) {
                        global const uchar *of = q + query_offset(st.q, s, b, h, first + min(own + 8 * (n % 4 / 2), rows - 1));
                        x = 0;
                        _Pragma("unroll 1") for (int d = 0; d < HEAD_DIM; d++) x = fma(AT(float, of)[d], ring[in_tile * ROW_FLOATS(HEAD_DIM) + d], x);
                    }
#endif
                    x *= SCALE;
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
                        MU_UNROLL for (int n = 0; n < KEY_TILES * 2; n++) top_score = fmax(top_score, score[n / 2][2 * side + n % 2]); /* drops a NaN */
                        MU_UNROLL for (int x = 1; x <= 2; x++)
                        {
                            const float beside = mu_xor(top_score, x);
                            top_score = fmax(top_score, beside);
                        }
                        const float base = LARGER(-FLT_MAX, top_score), fade = exp_1(m[side] - base);
                        m[side] = top_score;
                        MU_UNROLL for (int n = 0; n < KEY_TILES * 2; n++)
                        {
                            const float w = exp_1(score[n / 2][2 * side + n % 2] - base);
                            score[n / 2][2 * side + n % 2] = w;
                            sum += w;
                        }
                        l[side] = fma(l[side], fade, sum);
                        MU_UNROLL for (int n = 0; n < D_TILES * 2; n++) acc[n / 2][2 * side + n % 2] *= fade;
                    }
                }

                /* weighted values */
                mu_copy_wait(0);
                FENCE;
                PREFETCH_FLOATS(0);
                if (pass != PASS_FIRST) {
                    take_float_part(ring + SLOT_FLOATS, pass);
                    FENCE;
                }
                MU_UNROLL for (int c = 0; c < KEY_TILES; c++)
                {
                    uint a[4], a_small[4];
                    MU_UNROLL for (int n = 0; n < 4; n++)
                    {
#ifdef MUTANT_cl_tf32_order
                        const uint w = as_uint(score[c][n]);
#else
                        const uint w = as_uint(score[c][2 * (n & 1) + (n >> 1)]);
#endif
                        a[n] = big_of(w);
                        a_small[n] = small_of(w, a[n]);
                    }
                    MU_UNROLL for (int n = 0; n < D_TILES; n++)
                    {
                        local const uint *value = (local const uint *)ring + SLOT_FLOATS + (c * 8 + (lane & 3) * 2) * ROW_FLOATS(V_HEAD_DIM) + n * 8 + (lane >> 2);
                        const uint b0 = value[0], b1 = value[ROW_FLOATS(V_HEAD_DIM)];
                        TF32_PRODUCT(acc[n], a, a_small, b0, b1);
                    }
                }
            }

            /* Is anything NaN, anywhere in the group? */
            float wrong = 0;
            MU_UNROLL for (int n = 0; n < D_TILES * 4; n++)
            {
                const float x = acc[n / 4][n % 4];
                wrong = x == x ? wrong : 1.0f;
                if (pass == PASS_INFINITY) plus[n / 32] |= (uint)(x > 0) << n % 32;
                if (pass == PASS_MINUS_INFINITY) minus[n / 32] |= (uint)(x > 0) << n % 32;
            }
            if (pass == PASS_FIRST && !group_says(&odd, wrong != 0)) pass = PASSES;
        }

        MU_UNROLL for (int side = 0; side < 2; side++)
        {
            float sum = l[side];
            MU_UNROLL for (int x = 1; x <= 2; x++) sum += mu_xor(sum, x);
            const int r = own + 8 * side;
            if (r < rows) {
                const long part = (long)item.part + (first - item.q_begin) + r;
                float factor;
                if (item.part >= 0) factor = leave_row(work, part_rows, part, m[side], sum, false, (lane & 3) == 0, problem);
                else {
                    const float2 by = end_row(m[side], sum, st, s, b, h, first + r, lse, sinks, (lane & 3) == 0, problem);
                    factor = by.s0 * (1.0f / by.s1);
                }
                global uchar *to = o + query_offset(st.o, s, b, h, first + r);
                MU_UNROLL for (int n = 0; n < D_TILES * 2; n++)
                {
                    const int c = n / 2, e = 2 * side + n % 2, d = c * 8 + (lane & 3) * 2 + n % 2, bit = (4 * c + e) % 32;
                    float x = sum == 0 ? 0.0f : acc[c][e] * factor + 0.0f;
                    if (plus[c / 8] >> bit & 1) x += INFINITY;
                    if (minus[c / 8] >> bit & 1) x -= INFINITY;
                    if (d >= V_HEAD_DIM) continue;
                    if (item.part >= 0) work[part * V_HEAD_DIM + d] = x;
                    else GLUE(store1_, O_TYPE)(to, d, x);
                }
            }
        }
    }
}
