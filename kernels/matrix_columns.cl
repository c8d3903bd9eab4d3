/* SPDX-License-Identifier: MIT
 * matrix_columns.cl - where numbers lie in the registers of AMD's and Intel's matrix units, and how they get there from local memory: the words of
 * attention_columns.cl but for the product itself, which is matrix_amd.cl's, matrix_intel.cl's or, on any device, matrix_emulated.cl's.
 *
 * A warp (AMD: wave, Intel: sub-group) of MU_LANES consecutive work-items makes c[MU_ROWS][MU_COLUMNS] += a[MU_ROWS][16] b[16][MU_COLUMNS]. Lane l, words of
 * two 16-bit values each, the first in the low half; h is l / 16:
 *
 *   LAYOUT                lanes  a (rows x 16)                     b (16 x columns)                   c (rows x columns)
 *   3 AMD RDNA3 WMMA      32     row l%16; k = 0 ... 15, twice     column l%16; k = 0 ... 15, twice   c[e]: row 2e + h, column l%16, e < 8
 *   4 AMD RDNA4 WMMA      32     row l%16; k = 8h ... 8h + 7       column l%16; k = 8h ... 8h + 7     c[e]: row 8h + e, column l%16, e < 8
 *   5 AMD CDNA MFMA       64     row l%16; k = 4h ... 4h + 3       column l%16; k = 4h ... 4h + 3     c[e]: row 4h + e, column l%16, e < 4
 *   6 Intel DPAS, 8 lanes 8      rows 0 ... 7; k = 2l, 2l + 1      column l; k = 0 ... 15             c[e]: row e, column l, e < 8
 *   7 Intel DPAS, 16      16     rows 0 ... 7; k = l               column l; k = 0 ... 15             c[e]: row e, column l, e < 8
 *
 * (twice: lanes l and l + 16 hold the same.) Everywhere a lane's accumulators belong to one column. So the scores are formed transposed, S^T = K Q^T: a lane has
 * one query, softmax sums in a lane and, where lanes share a column, over them; and weights of 16 keys become the b of O^T += V^T P^T: by packing alone, but for
 * layout 3, where half-waves exchange theirs.
 *
 *   mu_row(lane, e)    the row of accumulator e; its column is lane % MU_COLUMNS
 *   mu_load_a          rows first ... of a tile, elements 16 step ... of each            (keys)
 *   mu_load_b          the same for columns: queries first ...
 *   mu_load_values     a = V^T: rows are dimensions first ..., k are keys key ... key + 15. Where MU_PAIRS is 1, values lie in local memory by pairs of keys:
 *                      word d of row p holds elements d of keys 2p and 2p + 1
 *   mu_weights         b out of the accumulators of 16 keys, MU_TILES times MU_ACC of them
 *   mu_mma, mu_xor, mu_exp      the product; x of the lane whose number differs in the bits of mask; see matrix_nvidia.cl
 */
#if LAYOUT >= 3
#if LAYOUT == 3
#define MU_LANES 32
#define MU_ROWS 16
#define MU_COLUMNS 16
#define MU_A_WORDS 8
#define MU_B_WORDS 8
#define MU_GROUP_PAIRS 8 /* pairs of keys that a lane takes */
#ifdef MUTANT_cl_columns_wmma3
#define mu_row(lane, e) (8 * ((lane) / 16) + (e))
#else
#define mu_row(lane, e) (2 * (e) + (lane) / 16)
#endif
#elif LAYOUT == 4
#define MU_LANES 32
#define MU_ROWS 16
#define MU_COLUMNS 16
#define MU_A_WORDS 4
#define MU_B_WORDS 4
#define MU_GROUP_PAIRS 4
#ifdef MUTANT_cl_columns_wmma4
#define mu_row(lane, e) (2 * (e) + (lane) / 16)
#else
#define mu_row(lane, e) (8 * ((lane) / 16) + (e))
#endif
#elif LAYOUT == 5
#define MU_LANES 64
#define MU_ROWS 16
#define MU_COLUMNS 16
#define MU_A_WORDS 2
#define MU_B_WORDS 2
#define MU_GROUP_PAIRS 2
#ifdef MUTANT_cl_columns_mfma
#define mu_row(lane, e) (4 * (e) + (lane) / 16)
#else
#define mu_row(lane, e) (4 * ((lane) / 16) + (e))
#endif
#elif LAYOUT == 6
#define MU_LANES 8
#define MU_ROWS 8
#define MU_COLUMNS 8
#define MU_A_WORDS 8
#define MU_B_WORDS 8
#define MU_GROUP_PAIRS 1
#define mu_row(lane, e) (e)
#else
#define MU_LANES 16
#define MU_ROWS 8
#define MU_COLUMNS 16
#define MU_A_WORDS 4
#define MU_B_WORDS 8
#define mu_row(lane, e) (e)
#endif
#define MU_PAIRS (LAYOUT != 7)
#define MU_ACC (MU_ROWS * MU_COLUMNS / MU_LANES)
#define MU_TILES (16 / MU_ROWS)
#if MATRIX == 1
#define MU_UNROLL _Pragma("unroll 1")
#else
#define MU_UNROLL _Pragma("unroll")
#endif

/* ---- local memory -------------------------------------------------------------- */

typedef local uchar *mu_address;
#define mu_address_of(p) ((mu_address)(p))
#define mu_copy_commit() /* copies are loads and stores: nothing is on its way */
#define mu_copy_wait(n)

static inline void mu_store16(mu_address to, uint4 x) { *(local uint4 *)to = x; }

/* 16 bytes of which the first `bytes` are read, an even number; from is a multiple of 16. */
static inline uint4 read16(global const uchar *from, uint bytes)
{
    uint4 x = 0;
    global const ushort *one = (global const ushort *)from;
    if (bytes == 16) return *(global const uint4 *)from;
    if (bytes >= 4) x.s0 = one[0] | (uint)one[1] << 16;
    else if (bytes >= 2) x.s0 = one[0];
    if (bytes >= 8) x.s1 = one[2] | (uint)one[3] << 16;
    else if (bytes >= 6) x.s1 = one[2];
    if (bytes >= 12) x.s2 = one[4] | (uint)one[5] << 16;
    else if (bytes >= 10) x.s2 = one[4];
    if (bytes >= 14) x.s3 = one[6];
    return x;
}
static inline void mu_copy16(mu_address to, global const uchar *from, uint bytes) { mu_store16(to, read16(from, bytes)); }

/* Where word d of pair row p lies; lanes of neighbouring groups read other banks. */
static inline mu_address pair_place(mu_address tile, int p, int d, int width)
{
#if LAYOUT == 4 || LAYOUT == 5
    d ^= (p / MU_GROUP_PAIRS & 1) << 4;
#endif
    return tile + (p * width + d) * 4;
}

/* ---- fragments ------------------------------------------------------------------- */

static inline mu_address place(mu_address tile, int row, int chunk, int chunks); /* matrix_tile.cl */

/* Whole pieces of 16 values of a row, as b of layouts 3, 6 and 7 and a of layout 3 have them; or the lane's part of them. */
static inline void load_part(uint *to, mu_address tile, int row, int step, int chunks, int lane)
{
#if LAYOUT == 4
    const uint4 x = *(local const uint4 *)place(tile, row, 2 * step + lane / 16, chunks);
    to[0] = x.s0, to[1] = x.s1, to[2] = x.s2, to[3] = x.s3;
#elif LAYOUT == 5
    const uint2 x = *(local const uint2 *)(place(tile, row, 2 * step + lane / 32, chunks) + (lane / 16 & 1) * 8);
    to[0] = x.s0, to[1] = x.s1;
#else
    const uint4 x = *(local const uint4 *)place(tile, row, 2 * step, chunks), y = *(local const uint4 *)place(tile, row, 2 * step + 1, chunks);
    to[0] = x.s0, to[1] = x.s1, to[2] = x.s2, to[3] = x.s3, to[4] = y.s0, to[5] = y.s1, to[6] = y.s2, to[7] = y.s3;
#endif
}

static inline void mu_load_b(uint *b, mu_address tile, int first, int step, int chunks, int lane)
{
    load_part(b, tile, first + lane % MU_COLUMNS, step, chunks, lane);
}

static inline void mu_load_a(uint *a, mu_address tile, int first, int step, int chunks, int lane)
{
#if LAYOUT == 6
    MU_UNROLL for (int n = 0; n < 8; n++) a[n] = *(local const uint *)(place(tile, first + n, 2 * step + lane / 4, chunks) + lane % 4 * 4);
#elif LAYOUT == 7
    MU_UNROLL for (int n = 0; n < 4; n++)
    {
        const uint low = *(local const ushort *)(place(tile, first + 2 * n, 2 * step + lane / 8, chunks) + lane % 8 * 2);
        const uint high = *(local const ushort *)(place(tile, first + 2 * n + 1, 2 * step + lane / 8, chunks) + lane % 8 * 2);
        a[n] = low | high << 16;
    }
#else
    load_part(a, tile, first + lane % 16, step, chunks, lane);
#endif
}

/* width: dimensions of the tile; key and first are multiples of 16 and MU_ROWS. */
static inline void mu_load_values(uint *a, mu_address tile, int key, int first, int width, int lane)
{
#if LAYOUT == 7
#ifdef MUTANT_cl_columns_dpas16
    const uint4 x = *(local const uint4 *)place(tile, key + (lane ^ 1), first / 8, width / 8);
#else
    const uint4 x = *(local const uint4 *)place(tile, key + lane, first / 8, width / 8);
#endif
    a[0] = x.s0, a[1] = x.s1, a[2] = x.s2, a[3] = x.s3;
#elif LAYOUT == 6
    local const uint4 *x = (local const uint4 *)pair_place(tile, key / 2 + lane, first, width);
    a[0] = x[0].s0, a[1] = x[0].s1, a[2] = x[0].s2, a[3] = x[0].s3, a[4] = x[1].s0, a[5] = x[1].s1, a[6] = x[1].s2, a[7] = x[1].s3;
#else
    const int p = key / 2 + (MU_A_WORDS < 8 ? lane / 16 * MU_GROUP_PAIRS : 0);
    MU_UNROLL for (int n = 0; n < MU_A_WORDS; n++) a[n] = *(local const uint *)pair_place(tile, p + n, first + lane % 16, width);
#endif
}

/* Two pieces of eight elements, of keys 2p and 2p + 1, into a tile by pairs. */
static inline void store_pairs(mu_address tile, int p, int chunk, int width, uint4 x, uint4 y)
{
#ifdef MUTANT_cl_columns_dpas8
    const uint4 low = (x >> 16) | (y & 0xffff0000u), high = (x & 0xffff) | y << 16;
#else
    const uint4 low = (x & 0xffff) | y << 16, high = (x >> 16) | (y & 0xffff0000u);
#endif
    mu_store16(pair_place(tile, p, chunk * 8, width), (uint4)(low.s0, high.s0, low.s1, high.s1));
    mu_store16(pair_place(tile, p, chunk * 8 + 4, width), (uint4)(low.s2, high.s2, low.s3, high.s3));
}

/* ---- rounding and packing ---------------------------------------------------------- */

static inline uint mu_bits(float x)
{
    if (K_TYPE == TYPE_BF16) return to_bf16_1(as_uint(x));
    ushort one;
    vstore_half_rte(x, 0, (private half *)&one);
    return one;
}
static inline uint mu_pack(float low, float high) { return mu_bits(low) | mu_bits(high) << 16; }

#if LAYOUT == 3
/* Words 2n and 2n + 1 of b, out of accumulators 2n and 2n + 1 of this lane and of its partner in the other half-wave. */
static inline void half_wave_pairs(uint *b, int n, uint own, uint other, int lane)
{
#ifdef MUTANT_cl_columns_halves
    const uint even = own, odd = other;
#else
    const uint even = lane < 16 ? own : other, odd = lane < 16 ? other : own;
#endif
    b[2 * n] = (even & 0xffff) | odd << 16;
    b[2 * n + 1] = even >> 16 | (odd & 0xffff0000u);
}
#define mu_weights(b, acc, lane)                                                                                                 \
    do {                                                                                                                         \
        MU_UNROLL for (int n_ = 0; n_ < 4; n_++)                                                                                 \
        {                                                                                                                        \
            const uint own_ = mu_pack((acc)[2 * n_], (acc)[2 * n_ + 1]), other_ = as_uint(mu_xor(as_float(own_), 16));             \
            half_wave_pairs(b, n_, own_, other_, lane);                                                                          \
        }                                                                                                                        \
    } while (0)
#else
#define mu_weights(b, acc, lane)                                                                                                 \
    do {                                                                                                                         \
        MU_UNROLL for (int n_ = 0; n_ < MU_B_WORDS; n_++) (b)[n_] = mu_pack((acc)[2 * n_], (acc)[2 * n_ + 1]);                   \
    } while (0)
#endif
#endif
