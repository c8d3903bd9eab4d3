/* SPDX-License-Identifier: MIT
 * matrix_emulated.cl - the words of a 16x8x16 matrix unit in portable OpenCL C: local memory and barriers where hardware has a unit. Fragment layouts,
 * swizzles, rings and masks of matrix-unit kernels are tested with it on any device that has barriers. It is never chosen by itself: slow, two
 * barriers for each word. It has no asynchrony, so a missing wait is invisible to it.
 *
 * Needs 32-lane warps as consecutive local ids, and local pointers that survive a cast to ulong and back. WARPS is the number of warps.
 * What each word means: matrix_nvidia.cl.
 */
#if MATRIX == 1
#define MU_UNROLL _Pragma("unroll 1") /* unrolled, the barriers alone cost a driver ten seconds of compiling */
#define MU_ID ((int)get_local_id(0))
#define MU_LANE (MU_ID & 31)
#define MU_WARP (MU_ID & ~31)
#define MU_BARRIER barrier(CLK_LOCAL_MEM_FENCE)

/* One mailbox per work-item. */
#define MU_SCRATCH                                                                                                               \
    local uint mu_box[WARPS * 32][6];                                                                                            \
    local ulong mu_place[WARPS * 32];

typedef ulong mu_address;
#define mu_address_of(p) ((mu_address)(local uchar *)(p))

static inline float mu_value(uint bits)
{
    if (K_TYPE == TYPE_BF16) return as_float(bits << 16);
    ushort one = (ushort)bits;
    return vload_half(0, (private const half *)&one);
}

static inline uint mu_bits(float x)
{
    if (K_TYPE == TYPE_BF16) return to_bf16_1(as_uint(x));
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
static inline float mu_a(local uint (*box)[6], int row, int column)
{
    const uint pair = box[MU_WARP + (row & 7) * 4 + ((column & 7) >> 1)][(row >> 3) + 2 * (column >> 3)];
    return mu_value(column & 1 ? pair >> 16 : pair & 0xffff);
}

static inline float mu_b(local uint (*box)[6], int row, int column)
{
    const uint pair = box[MU_WARP + column * 4 + ((row & 7) >> 1)][4 + (row >> 3)];
    return mu_value(row & 1 ? pair >> 16 : pair & 0xffff);
}

#define mu_mma(acc, a0, a1, a2, a3, b0, b1)                                                                                      \
    do {                                                                                                                         \
        MU_BARRIER;                                                                                                              \
        mu_box[MU_ID][0] = a0;                                                                                                   \
        mu_box[MU_ID][1] = a1;                                                                                                   \
        mu_box[MU_ID][2] = a2;                                                                                                   \
        mu_box[MU_ID][3] = a3;                                                                                                   \
        mu_box[MU_ID][4] = b0;                                                                                                   \
        mu_box[MU_ID][5] = b1;                                                                                                   \
        MU_BARRIER;                                                                                                              \
        MU_UNROLL for (int e_ = 0; e_ < 4; e_++)                                                                                           \
            MU_UNROLL for (int k_ = 0; k_ < 16; k_++)                                                                                      \
                (acc)[e_] = fma(mu_a(mu_box, (MU_LANE >> 2) + 8 * (e_ >> 1), k_),                                                \
                                mu_b(mu_box, k_, 2 * (MU_LANE & 3) + (e_ & 1)), (acc)[e_]);                                      \
    } while (0)

static inline uint mu_pack(float low, float high) { return mu_bits(low) | mu_bits(high) << 16; }

/* e^x is mu_exp(x * MU_EXP_FACTOR). */
#define MU_EXP_FACTOR 1.0f
#define MU_EXP_INVERSE 1.0f
static inline float mu_exp(float x) { return exp_1(x); }

static inline float mu_xor_through(local uint (*box)[6], float x, int mask)
{
    MU_BARRIER;
    box[MU_ID][0] = as_uint(x);
    MU_BARRIER;
    return as_float(box[MU_ID ^ mask][0]);
}
#define mu_xor(x, mask) mu_xor_through(mu_box, x, mask)
#endif
