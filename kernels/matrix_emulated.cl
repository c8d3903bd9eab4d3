/* SPDX-License-Identifier: MIT
 * matrix_emulated.cl - a matrix unit in portable OpenCL C: local memory and barriers where hardware has one. Fragment layouts, swizzles, rings and masks of
 * matrix-unit kernels are tested with it on any device that has barriers. It is never chosen by itself: slow, two barriers for each word. It has no
 * asynchrony, so a missing wait is invisible to it.
 *
 * LAYOUT says whose registers it plays: 2 NVIDIA's mma.sync, with all words of matrix_nvidia.cl; 3 and more those of matrix_columns.cl, whose tables say
 * where a number lies, while here stands the inverse: which lane holds what the product needs. Warps are consecutive local ids; NVIDIA's words want local
 * pointers that survive a cast to ulong and back. WARPS is the number of warps.
 */
#if MATRIX == 1 && LAYOUT == 2
#define MU_UNROLL _Pragma("unroll 1") /* unrolled, the barriers alone cost a driver ten seconds of compiling */
#define MU_ID ((int)get_local_id(0))
#define MU_LANE (MU_ID & 31)
#define MU_WARP (MU_ID & ~31)
#define MU_BARRIER barrier(CLK_LOCAL_MEM_FENCE)

/* One mailbox per work-item. */
#define MU_SCRATCH                                                                                                               \
    local uint mu_box[WARPS * 32][6];                                                                                            \
    local ulong mu_place[WARPS * 32];
#define MU_SCRATCH_TAKEN , local uint(*mu_box)[6] /* by a function that uses mu_xor */
#define MU_SCRATCH_GIVEN , mu_box

typedef ulong mu_address;
#define mu_address_of(p) ((mu_address)(local uchar *)(p))

static inline float mu_value(int type, uint bits)
{
    if (type == TYPE_BF16) return as_float(bits << 16);
    ushort one = (ushort)bits;
    return vload_half(0, (private const half *)&one);
}

static inline uint mu_bits(int type, float x)
{
    if (type == TYPE_BF16) return to_bf16_1(as_uint(x));
    ushort one;
    vstore_half_rte(x, 0, (private half *)&one);
    return one;
}

static inline void mu_store16(mu_address to, uint4 x) { *(local uint4 *)to = x; }

static inline void mu_copy16(mu_address to, global const uchar *from, uint bytes)
{
    uint4 x = 0;
    if (bytes == 16) x = *(global const uint4 *)from;
    else {
        uchar one[16] ALIGNED = {0};
        for (uint n = 0; n < bytes; n++) one[n] = from[n];
        x = as_uint4(vload16(0, one));
    }
    mu_store16(to, x);
}
static inline void mu_copy4(mu_address to, global const uchar *from, uint bytes) { *(local uint *)to = bytes ? *(global const uint *)from : 0; }
static inline void mu_copy8(mu_address to, global const uchar *from, uint bytes)
{
    mu_copy4(to, from, bytes);
    mu_copy4(to + 4, from + (bytes ? 4 : 0), bytes);
}
#define mu_copy_commit()
#define mu_copy_wait(n)

/* Row l / 4, columns 2 (l % 4) and the next, of the matrix whose rows the lanes of `matrix` gave. */
static inline uint mu_load_pair(local ulong *place, int matrix)
{
    return *(local uint *)(place[MU_WARP + matrix * 8 + (MU_LANE >> 2)] + (MU_LANE & 3) * 4);
}

static inline uint mu_load_pair_transposed(local ulong *place, int matrix)
{
    const int row = MU_WARP + matrix * 8 + 2 * (MU_LANE & 3);
    const uint low = *(local ushort *)(place[row] + (MU_LANE >> 2) * 2), high = *(local ushort *)(place[row + 1] + (MU_LANE >> 2) * 2);
    return low | high << 16;
}

#define MU_LOAD4(load, r0, r1, r2, r3, address)                                                                                  \
    do {                                                                                                                         \
        MU_BARRIER;                                                                                                              \
        mu_place[MU_ID] = (address);                                                                                             \
        MU_BARRIER;                                                                                                              \
        r0 = load(mu_place, 0);                                                                                                  \
        r1 = load(mu_place, 1);                                                                                                  \
        r2 = load(mu_place, 2);                                                                                                  \
        r3 = load(mu_place, 3);                                                                                                  \
    } while (0)
#define mu_load4(r0, r1, r2, r3, address) MU_LOAD4(mu_load_pair, r0, r1, r2, r3, address)
#define mu_load4_transposed(r0, r1, r2, r3, address) MU_LOAD4(mu_load_pair_transposed, r0, r1, r2, r3, address)

/* Elements of the 16x16 matrix a and of the 16x8 matrix b, out of the mailboxes. */
static inline float mu_a(int type, local uint (*box)[6], int row, int column)
{
    const uint pair = box[MU_WARP + (row & 7) * 4 + ((column & 7) >> 1)][(row >> 3) + 2 * (column >> 3)];
    return mu_value(type, column & 1 ? pair >> 16 : pair & 0xffff);
}

static inline float mu_b(int type, local uint (*box)[6], int row, int column)
{
    const uint pair = box[MU_WARP + column * 4 + ((row & 7) >> 1)][4 + (row >> 3)];
    return mu_value(type, row & 1 ? pair >> 16 : pair & 0xffff);
}

/* Each lane's words into its box, for the others to read. */
#define MU_SHOW(a0, a1, a2, a3, b0, b1)                                                                                          \
    MU_BARRIER;                                                                                                                  \
    mu_box[MU_ID][0] = a0;                                                                                                       \
    mu_box[MU_ID][1] = a1;                                                                                                       \
    mu_box[MU_ID][2] = a2;                                                                                                       \
    mu_box[MU_ID][3] = a3;                                                                                                       \
    mu_box[MU_ID][4] = b0;                                                                                                       \
    mu_box[MU_ID][5] = b1;                                                                                                       \
    MU_BARRIER

#define MU_MMA(type, acc, a0, a1, a2, a3, b0, b1)                                                                                \
    do {                                                                                                                         \
        MU_SHOW(a0, a1, a2, a3, b0, b1);                                                                                         \
        MU_UNROLL for (int e_ = 0; e_ < 4; e_++)                                                                                 \
            MU_UNROLL for (int k_ = 0; k_ < 16; k_++)                                                                            \
                (acc)[e_] = fma(mu_a(type, mu_box, (MU_LANE >> 2) + 8 * (e_ >> 1), k_),                                          \
                                mu_b(type, mu_box, k_, 2 * (MU_LANE & 3) + (e_ & 1)), (acc)[e_]);                                \
    } while (0)
#define mu_mma(acc, a0, a1, a2, a3, b0, b1) MU_MMA(Q_TYPE, acc, a0, a1, a2, a3, b0, b1)
#define mu_mma_bf16(acc, a0, a1, a2, a3, b0, b1) MU_MMA(TYPE_BF16, acc, a0, a1, a2, a3, b0, b1)

/* The 16x8x8 unit looks at the upper 19 bits of each number, whatever stands below. */
static inline float mu_a_tf32(local uint (*box)[6], int row, int k)
{
    return as_float(box[MU_WARP + (row & 7) * 4 + (k & 3)][(row >> 3) + 2 * (k >> 2)] & 0xffffe000u);
}
static inline float mu_b_tf32(local uint (*box)[6], int k, int column)
{
    return as_float(box[MU_WARP + column * 4 + (k & 3)][4 + (k >> 2)] & 0xffffe000u);
}
#define mu_mma_tf32(acc, a0, a1, a2, a3, b0, b1)                                                                                 \
    do {                                                                                                                         \
        MU_SHOW(a0, a1, a2, a3, b0, b1);                                                                                         \
        MU_UNROLL for (int e_ = 0; e_ < 4; e_++)                                                                                 \
            MU_UNROLL for (int k_ = 0; k_ < 8; k_++)                                                                             \
                (acc)[e_] = fma(mu_a_tf32(mu_box, (MU_LANE >> 2) + 8 * (e_ >> 1), k_),                                           \
                                mu_b_tf32(mu_box, k_, 2 * (MU_LANE & 3) + (e_ & 1)), (acc)[e_]);                                 \
    } while (0)

static inline uint mu_pack(float low, float high) { return mu_bits(Q_TYPE, low) | mu_bits(Q_TYPE, high) << 16; }
static inline uint mu_pack_bf16(float low, float high) { return mu_bits(TYPE_BF16, low) | mu_bits(TYPE_BF16, high) << 16; }

/* Of numbers whose products f32 holds. */
static inline uint mu_fma_pair(int type, uint a, uint b, uint c)
{
    const float low = fma(mu_value(type, a & 0xffff), mu_value(type, b & 0xffff), mu_value(type, c & 0xffff));
    const float high = fma(mu_value(type, a >> 16), mu_value(type, b >> 16), mu_value(type, c >> 16));
    return mu_bits(type, low) | mu_bits(type, high) << 16;
}
#define mu_fma_f16x2(a, b, c) mu_fma_pair(TYPE_F16, a, b, c)
#define mu_fma_bf16x2(a, b, c) mu_fma_pair(TYPE_BF16, a, b, c)

/* e^x is mu_exp(x * MU_EXP_FACTOR). */
#define MU_EXP_FACTOR 1.0f
#define MU_EXP_INVERSE 1.0f
#define MU_EXP_REST 0.0f
static inline float mu_exp(float x) { return exp_1(x); }

static inline float mu_xor_through(local uint (*box)[6], float x, int mask)
{
    MU_BARRIER;
    box[MU_ID][0] = as_uint(x);
    MU_BARRIER;
    return as_float(box[MU_ID ^ mask][0]);
}
#define mu_xor(x, mask) mu_xor_through(mu_box, x, mask)
#define mu_any(x) true
#endif

#if MATRIX == 1 && LAYOUT >= 3
#define MU_ATTRIBUTES
#define MU_ID ((int)get_local_id(0))
#define MU_BARRIER barrier(CLK_LOCAL_MEM_FENCE)
#define MU_SCRATCH local uint mu_box[WARPS * MU_LANES][16]; /* one mailbox per work-item: a in words 0 ... 7, b in 8 ... 15 */

static inline float mu_value(uint word, int half_word)
{
    ushort one = (ushort)(half_word & 1 ? word >> 16 : word & 0xffff);
    if (K_TYPE == TYPE_BF16) return as_float((uint)one << 16);
    return vload_half(0, (private const half *)&one);
}

/* a[row][k] and b[k][column]. Where two lanes hold the same, a is taken from the caller's half-wave and b from the other one. */
static inline float mu_emulated_a(local uint (*box)[16], int row, int k)
{
    const int first = MU_ID / MU_LANES * MU_LANES;
#if LAYOUT == 3
    const int lane = row + MU_ID % 32 / 16 * 16, at = k;
#elif LAYOUT == 4
    const int lane = row + k / 8 * 16, at = k % 8;
#elif LAYOUT == 5
    const int lane = row + k / 4 * 16, at = k % 4;
#elif LAYOUT == 6
    const int lane = k / 2, at = 2 * row + k % 2;
#else
    const int lane = k, at = row;
#endif
    return mu_value(box[first + lane][at / 2], at);
}

static inline float mu_emulated_b(local uint (*box)[16], int k, int column)
{
    const int first = MU_ID / MU_LANES * MU_LANES;
#if LAYOUT == 3
    const int lane = column + (1 - MU_ID % 32 / 16) * 16, at = k;
#elif LAYOUT == 4
    const int lane = column + k / 8 * 16, at = k % 8;
#elif LAYOUT == 5
    const int lane = column + k / 4 * 16, at = k % 4;
#else
    const int lane = column, at = k;
#endif
    return mu_value(box[first + lane][8 + at / 2], at);
}

/* The row of accumulator e, as the vendors say it: not mu_row, which is what is tested. */
static inline int mu_emulated_row(int lane, int e)
{
#if LAYOUT == 3
    return 2 * e + (lane >> 4);
#elif LAYOUT == 4
    return e + (lane >> 4) * 8;
#elif LAYOUT == 5
    return e + (lane >> 4) * 4;
#else
    return e;
#endif
}

#define mu_mma(acc, a, b)                                                                                                        \
    do {                                                                                                                         \
        MU_BARRIER;                                                                                                              \
        MU_UNROLL for (int w_ = 0; w_ < MU_A_WORDS; w_++) mu_box[MU_ID][w_] = (a)[w_];                                           \
        MU_UNROLL for (int w_ = 0; w_ < MU_B_WORDS; w_++) mu_box[MU_ID][8 + w_] = (b)[w_];                                       \
        MU_BARRIER;                                                                                                              \
        MU_UNROLL for (int e_ = 0; e_ < MU_ACC; e_++)                                                                            \
            MU_UNROLL for (int k_ = 0; k_ < 16; k_++)                                                                            \
                (acc)[e_] = fma(mu_emulated_a(mu_box, mu_emulated_row(MU_ID % MU_LANES, e_), k_),                                \
                                mu_emulated_b(mu_box, k_, MU_ID % MU_COLUMNS), (acc)[e_]);                                       \
    } while (0)

#define MU_EXP_FACTOR 1.0f
#define MU_EXP_INVERSE 1.0f
#define MU_EXP_REST 0.0f
static inline float mu_exp(float x) { return exp_1(x); }

static inline float mu_xor_through(local uint (*box)[16], float x, int mask)
{
    MU_BARRIER;
    box[MU_ID][0] = as_uint(x);
    MU_BARRIER;
    return as_float(box[MU_ID ^ mask][0]);
}
#define mu_xor(x, mask) mu_xor_through(mu_box, x, mask)
#endif
