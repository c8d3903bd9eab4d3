/* SPDX-License-Identifier: MIT
 * matrix_bytes.cl - keys and values of 8 bits for a 16-bit matrix unit: rows lie in local memory as in the cache, are read by the unit's own loads, and become
 * 16-bit numbers in registers, each exact. No kernel; decode_matrix.cl uses it.
 *
 * A row is K_PIECES pieces of 16 bytes. Rows are an odd number of pieces apart, so that the eight of one load lie in different banks. A load gives lane l bytes
 * 4 (l%4) ... of row l/4, or transposed bytes 2 (l/4), 2 (l/4) + 1 of rows 2 (l%4), 2 (l%4) + 1. Bytes 0 and 2 become one pair, 1 and 3 the other:
 *
 *     keys     lane l%4 = t has dimensions 4t, 4t + 2 | 4t + 1, 4t + 3 of a piece where an operand has 2t, 2t + 1 | 2t + 8, 2t + 9. A sum over dimensions has no
 *              order, so the query rows are laid down the same way (slot_byte)
 *     values   a pair is the same byte of two keys: accumulators 2c and 2c + 1 have the even and the odd bytes of piece c (byte_of)
 *
 * i8 and f8 have a scale to a row: a score is multiplied by it, and a weight before it is rounded to bf16. q8_0 has one to 32 elements, and it stands among them:
 *
 *     34 bytes    scale (f16), 32 elements     block b: pieces FIRST(b) ... LAST(b), three of them, the last of one being the first of the next
 *
 * There a score is the sum over blocks of scale times product; a product of such a piece is made twice, each time with zeros in the place of the other block.
 */
#define ROW_BYTES(type, dim) (IS_BLOCK(type) ? (dim) / 32 * 34 : (dim))
#define BLOCKS(type, dim) (IS_BLOCK(type) ? (dim) / 32 : 1)
#define PIECES(type, dim) ((ROW_BYTES(type, dim) + 15) / 16)
#define PITCH(type, dim) ((PIECES(type, dim) | 1) * 16)
#define SLOT(type, dim) (TILE_KEYS * (PITCH(type, dim) + (HAS_SCALE(type) ? 4 : 0))) /* scales behind the rows */
#define K_PIECES PIECES(K_TYPE, HEAD_DIM)
#define V_PIECES PIECES(V_TYPE, V_HEAD_DIM)
#define K_PITCH PITCH(K_TYPE, HEAD_DIM)
#define V_PITCH PITCH(V_TYPE, V_HEAD_DIM)
#define K_SLOT SLOT(K_TYPE, HEAD_DIM)
#define V_SLOT SLOT(V_TYPE, V_HEAD_DIM)

/* Blocks that a piece has bytes of, and the pieces of a block. */
#define FIRST_BLOCK(type, piece) (IS_BLOCK(type) ? (piece) * 16 / 34 : 0)
#define LAST_BLOCK(type, dim, piece) min(IS_BLOCK(type) ? ((piece) * 16 + 15) / 34 : 0, BLOCKS(type, dim) - 1)
#define FIRST(block) ((block) * 34 / 16)
#define LAST(block) (((block) * 34 + 33) / 16)

/* Products of a query row: one for each piece and block in it; product n is of block n / 3, where there are blocks, and of piece n - block. */
#define K_PRODUCTS (IS_BLOCK(K_TYPE) ? 3 * BLOCKS(K_TYPE, HEAD_DIM) : K_PIECES)
#define QUERY_PITCH ((2 * K_PRODUCTS | 1) * 16)

#if LANES < TILE_KEYS
#error "a work-item per scale"
#endif

/* Dimension of byte y of a row, in this block; -1: none. */
static inline int dimension_of(int type, int dim, int block, int y)
{
    const int within = y - block * 34 - 2, d = IS_BLOCK(type) ? block * 32 + within : y;
    return d < dim && (!IS_BLOCK(type) || (within >= 0 && within < 32)) ? d : -1;
}
/* Byte of dimension d. */
static inline int byte_of(int type, int d) { return IS_BLOCK(type) ? d / 32 * 34 + 2 + d % 32 : d; }
/* Byte of the piece that an operand has at its place n of 16. */
static inline int slot_byte(int n) { return (n & 6) * 2 + (n & 1) * 2 + (n >> 3); }

/* ---- 16 bits from 8 ------------------------------------------------------------- */

/* A byte's exponent stands in the lower half of the wider one, so numbers come out too small by a power of two, denormals included; NaN and infinity, which
 * come out as numbers, are put right by hand. Whole numbers: the mantissa of 1152 (f16) or 128 (bf16), which is taken off. */
#define BECOMES_NUMBER(from, to) ((from) == TYPE_F8_E4M3 || ((from) == TYPE_F8_E5M2 && (to) == TYPE_BF16))

/* The upper bits of bytes that are such. */
static inline uint endless_bytes(int type, uint x) { return (x & 0x7f7f7f7fu) + (type == TYPE_F8_E4M3 ? 0x01010101u : 0x04040404u); }

/* y: the bytes in the upper half of each 16 bits. */
static inline uint put_right(int from, int to, uint wide, uint y)
{
    MU_UNROLL for (int n = 0; n < 2; n++)
    {
        const uint code = y >> (16 * n + 8) & 0x7f, endless = to == TYPE_BF16 ? 0x7f80u : 0x7c00u;
        const bool nan = code > (from == TYPE_F8_E4M3 ? 0x7eu : 0x7cu), infinite = from != TYPE_F8_E4M3 && code == 0x7c;
        if (nan) wide |= 0x7fffu << 16 * n;
        else if (infinite) wide = (wide & ~(0x7fffu << 16 * n)) | endless << 16 * n;
    }
    return wide;
}

static inline uint widen_pair(int from, int to, uint y)
{
    if (from == TYPE_I8 || from == TYPE_Q8_0) {
        const uint x = y >> 8;
        if (to == TYPE_F16) return mu_fma_f16x2(((x & 0x00ff00ffu) ^ 0x00800080u) | 0x64006400u, 0x3c003c00u, 0xe480e480u);
        return mu_fma_bf16x2((x & 0x00800080u) | 0x43004300u, 0xbf80bf80u, (x & 0x007f007fu) | 0x43004300u); /* 128 + 7 bits less 128 or 256 */
    }
    const uint sign = y & 0x80008000u;
    if (from == TYPE_F8_E4M3) {
        if (to == TYPE_F16) return mu_fma_f16x2(sign | (y >> 1 & 0x3f803f80u), 0x5c005c00u, 0x80008000u); /* times 2^8 */
        return mu_fma_bf16x2(sign | (y >> 4 & 0x07f007f0u), 0x7b807b80u, 0x80008000u);                    /* 2^120 */
    }
    if (to == TYPE_F16) return y & 0xff00ff00u;
    return mu_fma_bf16x2(sign | (y >> 3 & 0x0fe00fe0u), 0x77807780u, 0x80008000u); /* 2^112 */
}

/* Of each word bytes 0 and 2, and bytes 1 and 3. One question for all of them, so that the answer is a jump over what hardly ever happens. */
static inline void widen(int from, int to, private const uint *words, private uint2 *wide, int count)
{
    uint endless = 0;
    MU_UNROLL for (int n = 0; n < count; n++)
    {
        wide[n] = (uint2)(widen_pair(from, to, words[n] << 8), widen_pair(from, to, words[n]));
        if (BECOMES_NUMBER(from, to)) endless |= endless_bytes(from, words[n]);
    }
#ifdef MUTANT_cl_bytes_endless
    endless = 0;
#endif
    if (endless & 0x80808080u) {
        MU_UNROLL for (int n = 0; n < count; n++)
            wide[n] = (uint2)(put_right(from, to, wide[n].s0, words[n] << 8), put_right(from, to, wide[n].s1, words[n]));
    }
}

/* ---- rows into local memory ------------------------------------------------------- */

/* The largest parcel that rows consist of whole; 0: they are gathered. */
#define PARCEL(type, dim) (ROW_BYTES(type, dim) % 16 == 0 ? 16 : ROW_BYTES(type, dim) % 8 == 0 ? 8 : ROW_BYTES(type, dim) % 4 == 0 ? 4 : 0)

static inline bool rows_at(global const uchar *data, struct view view, int parcel)
{
    return parcel && (((ulong)data | (ulong)view.offset | (ulong)view.batch | (ulong)view.head | (ulong)view.token) & (ulong)(parcel - 1)) == 0;
}

static inline void copy_parcel(int parcel, mu_address to, global const uchar *from, uint bytes)
{
    if (parcel == 16) mu_copy16(to, from, bytes);
    else if (parcel == 8) mu_copy8(to, from, bytes);
    else mu_copy4(to, from, bytes);
}

/* Keys block ... and their scales into a slot, as copy_keys of matrix_tile.cl. */
static inline void copy_rows(mu_address slot, global const uchar *data, struct view view, global const uchar *scales, struct view scale_view, int type, int dim,
                             struct sequence s, global const int *page_table, int b, int g, int block, int low, int high, bool aligned, struct problem problem)
{
    const int bytes = ROW_BYTES(type, dim), pieces = PIECES(type, dim), pitch = PITCH(type, dim), parcel = PARCEL(type, dim) ? PARCEL(type, dim) : 16;
    const int parcels = pieces * 16 / parcel, step = LANES / parcels, own = THREAD / parcels, n = THREAD % parcels;
    const int left = n * parcel < bytes ? parcel : 0, at = left ? n * parcel : 0;
    if (HAS_SCALE(type) && THREAD < TILE_KEYS) {
        const int j = block + THREAD;
        mu_copy4(slot + TILE_KEYS * pitch + THREAD * 4, scales + key_offset(scale_view, s, page_table, b, g, clamp(j, low, high - 1), problem),
                 j >= low && j < high ? 4 : 0);
    }
    if (aligned && block >= low && block + TILE_KEYS <= high && (!PAGED || PAGE_SIZE % TILE_KEYS == 0)) {
        global const uchar *from = data + key_offset(view, s, page_table, b, g, block + min(own, TILE_KEYS - 1), problem) + at;
        const mu_address to = slot + own * pitch + n * parcel;
        const long stride = step * view.token;
        MU_UNROLL for (int row = 0; row < TILE_KEYS; row += step)
        {
            if ((LANES % parcels == 0 || own < step) && (TILE_KEYS % step == 0 || row + own < TILE_KEYS)) copy_parcel(parcel, to + row * pitch, from, (uint)left);
            from += stride;
        }
        return;
    }
    if (aligned) {
        _Pragma("unroll 1") for (int row = own; row < TILE_KEYS; row += step) {
            const int j = block + row;
            const long from = key_offset(view, s, page_table, b, g, clamp(j, low, high - 1), problem);
            if (own < step) copy_parcel(parcel, slot + row * pitch + n * parcel, data + from + at, j >= low && j < high ? (uint)left : 0);
        }
        return;
    }
    _Pragma("unroll 1") for (int x = THREAD; x < TILE_KEYS * pieces; x += LANES) {
        const int row = x / pieces, piece = x % pieces, j = block + row, some = j >= low && j < high ? clamp(bytes - piece * 16, 0, 16) : 0;
        global const uchar *from = data + key_offset(view, s, page_table, b, g, clamp(j, low, high - 1), problem) + piece * 16;
        uint word[4];
        MU_UNROLL for (int w = 0; w < 4; w++)
        {
            word[w] = 0;
            MU_UNROLL for (int e = 0; e < 4; e++) word[w] |= (uint)(4 * w + e < some ? from[4 * w + e] : 0) << 8 * e;
        }
        mu_store16(slot + row * pitch + piece * 16, (uint4)(word[0], word[1], word[2], word[3]));
    }
}
#define COPY_K(slot, block) \
    copy_rows(slot, k, st.k, k_scale, st.k_scale, K_TYPE, HEAD_DIM, s, page_table, b, g, block, low, high, k_aligned, problem)
#define COPY_V(slot, block) \
    copy_rows(slot, v, st.v, v_scale, st.v_scale, V_TYPE, V_HEAD_DIM, s, page_table, b, g, block, low, high, v_aligned, problem)

/* Query rows of the group for each product, see copy_group of decode_matrix.cl. */
static inline void lay_group(local uchar *tile, global const uchar *data, struct view view, struct sequence s, int b, int g, int q_begin, int first, int rows)
{
    enum { WORDS = 16 * K_PRODUCTS * 8, TURNS = (WORDS + LANES - 1) / LANES };
    uint pair[TURNS]; /* all on their way together */
    MU_UNROLL for (int turn = 0; turn < TURNS; turn++)
    {
        const int x = turn * LANES + THREAD, row = x / (K_PRODUCTS * 8), product = x / 8 % K_PRODUCTS, word = x % 8, n = first + min(row, rows - 1);
        const int block = IS_BLOCK(K_TYPE) ? product / 3 : 0, piece = product - block;
        global const ushort *from = AT(ushort, data + query_offset(view, s, b, g * GROUP + n % GROUP, q_begin + n / GROUP));
        pair[turn] = 0;
        MU_UNROLL for (int e = 0; e < 2; e++)
        {
            const int d = dimension_of(K_TYPE, HEAD_DIM, block, piece * 16 + slot_byte(2 * word + e));
            if (row < rows && d >= 0) pair[turn] |= (uint)from[d] << 16 * e;
        }
    }
    MU_UNROLL for (int turn = 0; turn < TURNS; turn++)
    {
        const int x = turn * LANES + THREAD, row = x / (K_PRODUCTS * 8), product = x / 8 % K_PRODUCTS, word = x % 8;
        if (x < WORDS) *(local uint *)(tile + row * QUERY_PITCH + product * 32 + word * 4) = pair[turn];
    }
}

/* ---- scales ------------------------------------------------------------------------ */

/* Of row `row` of a tile, and of its block. */
static inline float scale_of(int type, int dim, local const uchar *tile, int row, int block)
{
#ifdef MUTANT_cl_bytes_scale
    row ^= 1;
#endif
    if (IS_BLOCK(type)) return vload_half(0, (local const half *)(tile + row * PITCH(type, dim) + block * 34));
    return ((local const float *)(tile + TILE_KEYS * PITCH(type, dim)))[row];
}

/* A score that is not finite, element by element: scale times product is not the sum of products with what the scale makes of each element where one of
 * them is infinite, or where the product alone is too large. */
static inline float score_again(global const uchar *q_row, global const uchar *k_row, global const uchar *k_scale)
{
    const float scale = HAS_SCALE(K_TYPE) ? AT(float, k_scale)[0] : 1.0f;
    float sum = 0;
    _Pragma("unroll 1") for (int d = 0; d < HEAD_DIM; d++) sum = fma(GLUE(load1_, Q_TYPE)(q_row, d, 1.0f), GLUE(load1_, K_TYPE)(k_row, d, scale), sum);
    return sum;
}

/* ---- values that are not finite, see matrix_tile.cl ----------------------------------- */

static inline float stored_value(int type, uchar x)
{
    return type == TYPE_F8_E4M3 ? from_e4m3_1(x) : type == TYPE_F8_E5M2 ? from_e5m2_1(x) : (float)(char)x;
}

/* What this pass wants of the values of a tile, and then of their scales: 1 for ones, 0 for those that are not finite. */
static inline void take_bytes(local uchar *tile, int pass)
{
    const uchar one = V_TYPE == TYPE_F8_E4M3 ? 0x38 : V_TYPE == TYPE_F8_E5M2 ? 0x3c : 1;
    _Pragma("unroll 1") for (int n = THREAD; n < TILE_KEYS * V_HEAD_DIM; n += LANES) {
        const int row = n / V_HEAD_DIM, d = n % V_HEAD_DIM;
        local uchar *at = tile + row * V_PITCH + byte_of(V_TYPE, d);
        const float stored = stored_value(V_TYPE, *at), scale = scale_of(V_TYPE, V_HEAD_DIM, tile, row, d / 32), value = stored * scale;
        const bool endless = !(fabs(stored) < INFINITY) || !(fabs(scale) < INFINITY);
        if (pass == PASS_FINITE) *at = endless ? 0 : *at;
        else *at = endless && (value != value || (value > 0) == (pass == PASS_INFINITY)) ? one : 0;
    }
    FENCE;
    _Pragma("unroll 1") for (int n = THREAD; n < TILE_KEYS * BLOCKS(V_TYPE, V_HEAD_DIM); n += LANES) {
        const int row = n / BLOCKS(V_TYPE, V_HEAD_DIM), block = n % BLOCKS(V_TYPE, V_HEAD_DIM);
        const float scale = scale_of(V_TYPE, V_HEAD_DIM, tile, row, block), wanted = pass != PASS_FINITE ? 1 : fabs(scale) < INFINITY ? scale : 0;
        if (IS_BLOCK(V_TYPE)) vstore_half(wanted, 0, (local half *)(tile + row * V_PITCH + block * 34));
        else ((local float *)(tile + TILE_KEYS * V_PITCH))[row] = wanted;
    }
}
