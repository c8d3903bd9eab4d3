/* SPDX-License-Identifier: MIT
 * matrix_tile.cl - what kernels for matrix units share: tiles of keys and values in local memory, their ring, values that are not finite. No kernel.
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

#if PANELS /* of 64 dimensions: matrix_warpgroup.cl */
#define PADDED(n) (((n) + 63) / 64 * 64)
#else
#define PADDED(n) (((n) + 31) / 32 * 32)
#endif
#define K_CHUNKS (PADDED(HEAD_DIM) / 8)
#define V_CHUNKS (PADDED(V_HEAD_DIM) / 8)
#ifndef BYTES /* 1: K and V of one byte an element, matrix_bytes.cl */
#define BYTES 0
#endif
#if BYTES
#define SLOT_BYTES (K_SLOT > V_SLOT ? K_SLOT : V_SLOT)
#define V_TILES (2 * V_PIECES)
#else
#define V_TILES V_CHUNKS
#define SLOT_BYTES (TILE_KEYS * 16 * (K_CHUNKS > V_CHUNKS ? K_CHUNKS : V_CHUNKS))
#endif
#define K_STEPS (K_CHUNKS / 2)
#define FENCE barrier(CLK_LOCAL_MEM_FENCE)
#define THREAD ((int)get_local_id(0))

#if TILE_KEYS % 16 || LANES < K_CHUNKS || LANES < V_CHUNKS
#error "tiles and work-items do not fit together"
#endif

/* Scores are kept as q.k, and the scale goes into the exponent, where nothing else is done with them. */
#define RAW (!ALTERED && !MASKED && SCALE_BITS > 0)
#define EXPONENT (SCALE * MU_EXP_FACTOR)

/* ---- tiles in local memory --------------------------------------------------- */

#if PANELS
#define ROW_STRIDE(chunks) 128
#else
#define ROW_STRIDE(chunks) ((chunks) * 16)
#endif

static inline mu_address place(mu_address tile, int row, int chunk, int chunks)
{
#ifdef MUTANT_cl_matrix_swizzle
    return tile + (row * chunks + (chunk ^ (row & 7))) * 16;
#endif
#if PANELS
    (void)chunks;
    return tile + ((chunk >> 3) * TILE_KEYS + row) * 128 + ((chunk ^ row) & 7) * 16;
#endif
    /* 4 or 12 chunks are no multiple of 8: every second row begins at the same bank, and the place stays within its four */
    const int turned = chunks % 8 == 0 ? chunk ^ (row & 7) : chunk ^ (row >> 1 & 3);
    return tile + (row * chunks + turned) * 16;
}

#if LAYOUT < 3
/* Piece own + chunk of row + 16 n, chunk even and own 0 or 1: one register for all n and chunks, where the tile begins at a multiple of 128. */
static inline mu_address place_of(mu_address tile, int row, int n, int own, int chunk, int chunks)
{
    if (chunks % 8) return place(tile, row + 16 * n, own + chunk, chunks);
    return (place(tile, row, own, chunks) ^ (mu_address)((chunk & 7) * 16)) + (mu_address)((chunk >> 3) * 128 + n * 16 * ROW_STRIDE(chunks));
}
#endif

/* Elements 8 chunk ... of a row at any address, zeros from element `dims` on. */
static inline uint4 gather_chunk(global const uchar *row, int chunk, int dims)
{
    const int left = clamp(dims - chunk * 8, 0, 8);
    uint pair[4];
    MU_UNROLL for (int n = 0; n < 4; n++)
    {
        const uint low = 2 * n < left ? AT(ushort, row)[chunk * 8 + 2 * n] : 0, high = 2 * n + 1 < left ? AT(ushort, row)[chunk * 8 + 2 * n + 1] : 0;
#ifdef MUTANT_cl_matrix_unaligned
        pair[n] = high | low << 16;
#else
        pair[n] = low | high << 16;
#endif
    }
    return (uint4)(pair[0], pair[1], pair[2], pair[3]);
}

/* The same into a tile. aligned: the row's address is a multiple of 16. */
static inline void copy_chunk(mu_address to, global const uchar *row, int chunk, int dims, bool aligned)
{
    const int left = clamp(dims - chunk * 8, 0, 8);
    if (aligned) mu_copy16(to, row + (left > 0 ? chunk * 16 : 0), (uint)left * 2);
    else mu_store16(to, gather_chunk(row, chunk, dims));
}

#if LAYOUT >= 3
static inline uint4 chunk_of(global const uchar *row, int chunk, int dims, bool aligned)
{
    const int left = clamp(dims - chunk * 8, 0, 8);
    return aligned ? read16(row + (left > 0 ? chunk * 16 : 0), (uint)left * 2) : gather_chunk(row, chunk, dims);
}
#endif

/* Is every row of this tensor at a multiple of 16 bytes? */
static inline bool rows_aligned(global const uchar *data, struct view view)
{
    return (((ulong)data | (ulong)view.offset | (ulong)view.batch | (ulong)view.head | (ulong)view.token) & 15) == 0;
}

#ifdef TILE_ROWS
/* Piece of a query row in its tile; with panels each 64 rows, a warpgroup's, are a tile of their own. */
static inline mu_address query_place(mu_address tile, int row, int chunk)
{
#if PANELS
    return tile + (row / 64 * K_CHUNKS + chunk / 8 * 8) * 1024 + row % 64 * 128 + ((chunk ^ row) & 7) * 16;
#else
    return place(tile, row, chunk, K_CHUNKS);
#endif
}

/* Query rows first ... first + rows into a tile, the others zeros. */
static inline void copy_queries(mu_address tile, global const uchar *data, struct view view, struct sequence s, int b, int h, int first, int rows,
                                bool aligned)
{
    _Pragma("unroll 1") for (int n = THREAD; n < TILE_ROWS * K_CHUNKS; n += LANES) {
        const int row = n / K_CHUNKS, chunk = n % K_CHUNKS;
        copy_chunk(query_place(tile, row, chunk), data + query_offset(view, s, b, h, first + min(row, rows - 1)), chunk, row < rows ? HEAD_DIM : 0, aligned);
    }
}
#endif

/* Keys block ... of K or V into a slot; those outside low ... high are zeros and not read. In the usual case a lane copies the same piece of every
 * so many rows, which makes one address and one step. */
static inline void copy_keys(mu_address slot, global const uchar *data, struct view view, struct sequence s, global const int *page_table, int b, int g,
                             int block, int low, int high, int dim, bool aligned, struct problem problem)
{
    const int chunks = PADDED(dim) / 8, step = LANES / chunks, own = THREAD / chunks, chunk = THREAD % chunks;
    if (aligned && block >= low && block + TILE_KEYS <= high && (!PAGED || PAGE_SIZE % TILE_KEYS == 0)) {
        const int left = clamp(dim - chunk * 8, 0, 8);
        global const uchar *from = data + key_offset(view, s, page_table, b, g, block + min(own, TILE_KEYS - 1), problem) + (left > 0 ? chunk * 16 : 0);
        const mu_address to = place(slot, own, chunk, chunks);
        const long stride = step * view.token;
        MU_UNROLL for (int row = 0; row < TILE_KEYS; row += step)
        {
            if ((LANES % chunks == 0 || own < step) && (TILE_KEYS % step == 0 || row + own < TILE_KEYS)) /* eight rows on, a piece stands at the same place again */
                mu_copy16(step % 8 == 0 ? to + row * ROW_STRIDE(chunks) : place(slot, row + own, chunk, chunks), from, (uint)left * 2);
            from += stride;
        }
        return;
    }
    _Pragma("unroll 1") for (int n = THREAD; n < TILE_KEYS * chunks; n += LANES) {
        const int j = block + n / chunks;
        const long at = key_offset(view, s, page_table, b, g, clamp(j, low, high - 1), problem);
        copy_chunk(place(slot, n / chunks, n % chunks, chunks), data + at, n % chunks, j >= low && j < high ? dim : 0, aligned);
    }
}

#if LAYOUT >= 3 && MU_PAIRS
/* Values by pairs of keys, see matrix_columns.cl. */
static inline void copy_pairs(mu_address slot, global const uchar *data, struct view view, struct sequence s, global const int *page_table, int b, int g,
                              int block, int low, int high, int dim, bool aligned, struct problem problem)
{
    _Pragma("unroll 1") for (int n = THREAD; n < TILE_KEYS / 2 * V_CHUNKS; n += LANES) {
        const int p = n / V_CHUNKS, chunk = n % V_CHUNKS, j = block + 2 * p;
        const long at = key_offset(view, s, page_table, b, g, clamp(j, low, high - 1), problem);
        const long behind = key_offset(view, s, page_table, b, g, clamp(j + 1, low, high - 1), problem);
        const uint4 x = chunk_of(data + at, chunk, j >= low && j < high ? dim : 0, aligned);
        const uint4 y = chunk_of(data + behind, chunk, j + 1 >= low && j + 1 < high ? dim : 0, aligned);
        store_pairs(slot, p, chunk, V_CHUNKS * 8, x, y);
    }
}
#define COPY_VALUES copy_pairs
#else
#define COPY_VALUES copy_keys
#endif

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

/* Two neighbours, from an even element on, in a row at a multiple of 8 bytes. */
static inline void store2_1(global uchar *row, int d, float x, float y) { *(global float2 *)(row + 4 * d) = (float2)(x, y); }
static inline void store2_2(global uchar *row, int d, float x, float y)
{
    ushort pair[2];
    vstore_half_rte(x, 0, (private half *)pair);
    vstore_half_rte(y, 1, (private half *)pair);
    *(global uint *)(row + 2 * d) = pair[0] | (uint)pair[1] << 16;
}
static inline void store2_3(global uchar *row, int d, float x, float y)
{
    *(global uint *)(row + 2 * d) = to_bf16_1(as_uint(x)) | (uint)to_bf16_1(as_uint(y)) << 16;
}

/* Does anybody of the group say so? word: local memory that nobody uses at that moment. */
static inline bool group_says(local int *word, bool mine)
{
    FENCE;
    if (THREAD == 0) *word = 0;
    FENCE;
    if (mine) atomic_or(word, 1);
    FENCE;
    return *word != 0;
}

/* ---- who sees what ------------------------------------------------------------- */

/* Keys that some query of first ... last sees by position, and those that all of them see. */
struct reach {
    int low, high, all_from, all_to; /* high = 0: none */
};

/* Without positions or ranges of their own, queries see later and later keys. */
static inline struct reach reach_of(struct strides st, struct sequence s, int b, int h, int first, int last, global const int *q_positions,
                                    global const uchar *key_range, global const uchar *alibi, struct problem problem)
{
    const struct row top = row_of(st, s, b, h, first, q_positions, key_range, alibi, problem);
    const struct row bottom = row_of(st, s, b, h, last, q_positions, key_range, alibi, problem);
    struct reach reach = {top.begin, bottom.end, bottom.begin, top.end};
    if (KEY_RANGE || (s.flags & 1) || top.end == 0 || bottom.end == 0) {
        reach.low = INT_MAX, reach.high = 0, reach.all_from = 0, reach.all_to = INT_MAX;
        _Pragma("unroll 1") for (int i = first; i <= last; i++) {
            const struct row row = row_of(st, s, b, h, i, q_positions, key_range, alibi, problem);
            reach.all_from = max(reach.all_from, row.begin);
            reach.all_to = min(reach.all_to, row.end);
            if (row.end == 0) continue;
            reach.low = min(reach.low, row.begin);
            reach.high = max(reach.high, row.end);
        }
    }
    return reach;
}

/* The same, but of the item's keys alone. */
static inline struct reach reach_in(struct reach reach, struct work_item item)
{
    reach.low = max(reach.low, item.kv_begin);
    reach.high = min(reach.high, item.kv_end);
    reach.all_from = max(reach.all_from, item.kv_begin);
    reach.all_to = min(reach.all_to, item.kv_end);
    if (reach.low >= reach.high) reach.high = 0;
    return reach;
}

/* row_in() for registers that are few: where a row sees nothing begin >= end will do, since no tile has a key of it. */
static inline struct row row_within(struct row row, struct work_item item)
{
    row.begin = max(row.begin, item.kv_begin);
    row.end = min(row.end, item.kv_end);
    return row;
}

/* ---- sums of some of the keys ---------------------------------------------------- */

/* Raw sums are those of a base that was rounded when it was scaled. m as a logit, and what makes them sums of e^m: the merge compares m with others. */
static inline float2 logit_of_raw(float m)
{
    const float base = m * EXPONENT, logit = base * MU_EXP_INVERSE;
#ifdef MUTANT_cl_part_scaled
    return (float2)(m, 1);
#endif
    return m > -INFINITY ? (float2)(logit, mu_exp(fma(-logit, MU_EXP_FACTOR, base) - logit * MU_EXP_REST)) : (float2)(m, 1);
}

/* m and l into a partial row; what its accumulators are to be multiplied with. */
static inline float leave_row(global float *work, long part_rows, long part, float m, float l, bool raw, bool writes, struct problem problem)
{
    const float2 top = raw ? logit_of_raw(m) : (float2)(m, 1);
    if (writes) {
        global float *sums = part_sums(work, part_rows, part, problem);
        sums[0] = top.s0;
        sums[1] = l * top.s1;
    }
    return top.s1;
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

#if !BYTES
#define COPY_K(slot, block) copy_keys(slot, k, st.k, s, page_table, b, g, block, low, high, HEAD_DIM, k_aligned, problem)
#define COPY_V(slot, block) COPY_VALUES(slot, v, st.v, s, page_table, b, g, block, low, high, V_HEAD_DIM, v_aligned, problem)
#endif

/* Tile number `next` of K0 V0 K1 V1 ... into a slot; behind the last an empty parcel keeps the count right. */
#define PREFETCH(number)                                                                                                         \
    do {                                                                                                                         \
        const int block_ = first_block + (next >> 1) * TILE_KEYS;                                                                \
        const mu_address slot_ = ring + (number) * SLOT_BYTES;                                                                   \
        if (next < tiles && (next & 1))                                                                                          \
            COPY_V(slot_, block_);                                                                                               \
        else if (next < tiles)                                                                                                   \
            COPY_K(slot_, block_);                                                                                               \
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
