/* SPDX-License-Identifier: MIT
 * matrix_warpgroup.cl - the words of Hopper's warpgroup products (wgmma, compute capability 9.0) as inline PTX, and the same on the emulated unit; beside the words of
 * matrix_nvidia.cl, which this file needs. The layout of its operands is that of CUTLASS's 128-byte swizzle (NVIDIA, PTX ISA 9.7.15, "asynchronous warpgroup
 * level matrix").
 *
 * A warpgroup is 128 consecutive work-items, four warps. A product is 64 rows x N columns x 16:
 *
 *     a   64x16 in local memory, or in registers (each warp its 16 rows: a0 ... a3 of mma.sync)
 *     b   16xN in local memory: N rows of keys with their dimensions side by side (scores), or 16 rows of keys of which the dimensions are the N columns (values)
 *     acc[4i + e]   row 16w + l/4 + 8(e/2), column 8i + 2(l%4) + e%2, of lane l in warp w: the accumulators of mma.sync, N/8 times
 *
 * A tile in local memory begins at a multiple of 1024 bytes and consists of panels: 64 dimensions, 128 bytes of each row, row after row; piece c of 16 bytes
 * of row r stands at c ^ r % 8. Where NVIDIA's compiler does not know an instruction, because it compiles OpenCL for sm_90 and not sm_90a, the instruction stands
 * behind a mark "//@ " as a comment, and the host takes the mark away (src/opencl/retarget.c).
 *
 *   wg_tile(address, leading)     a tile as the products want it; leading: bytes from one panel to the next, where b is values
 *   wg_step(tile, bytes)          ... further on
 *   wg_scores_first, wg_scores    acc = a b, acc += a b; N = TILE_KEYS; both in local memory
 *   wg_values                     acc += a b; N = V_DIMS; a in registers
 *   wg_fence                      before products whose registers were written by others
 *   wg_commit, wg_wait(n)         products since the last commit are one parcel; at most n of this warpgroup's parcels are on their way
 *   wg_arrived(acc, n)            after wg_wait: these registers have changed only now
 *   wg_same(x)                    x, which is the same in the whole warp: told to the compiler, which keeps descriptors in uniform registers then
 *   wg_turn, wg_pass              the warpgroups take turns: wait for the one before to pass; pass to the next. Before the first turn the last one passes.
 *   wg_visible                    what this work-item wrote to local memory may be read by products, after a barrier
 */
#define V_DIMS (V_CHUNKS * 8)
#define WARPGROUPS (WARPS / 4)

#if MATRIX == 2
#define WG_MARK "//@ "
#define wg_fence() MU_ASM volatile(WG_MARK "wgmma.fence.sync.aligned;" ::: "memory")
#define wg_commit() MU_ASM volatile(WG_MARK "wgmma.commit_group.sync.aligned;" ::: "memory")
#define wg_wait(n) MU_ASM volatile(WG_MARK "wgmma.wait_group.sync.aligned " #n ";" ::: "memory")
/* No instruction: without it the compiler may use the registers between product and wait. */
#define wg_arrived(acc, n) MU_UNROLL for (int i_ = 0; i_ < (n); i_++) MU_ASM volatile("" : "+f"((acc)[i_])::"memory")
#define wg_visible() MU_ASM volatile("fence.proxy.async.shared::cta;" ::: "memory")

static inline int wg_same(int x)
{
    int r;
    MU_ASM volatile("shfl.sync.idx.b32 %0, %1, 0, 0x1f, 0xffffffff;" : "=r"(r) : "r"(x));
    return r;
}

/* Named barriers, 1 and more; number 0 is that of barrier(). */
#if WARPGROUPS > 1
#define wg_turn(own) MU_ASM volatile("bar.sync %0, 256;" ::"r"(1 + (own)) : "memory")
#define wg_pass(own) MU_ASM volatile("bar.arrive %0, 256;" ::"r"(1 + ((own) + 1) % WARPGROUPS) : "memory")
#else
#define wg_turn(own) barrier(CLK_LOCAL_MEM_FENCE)
#define wg_pass(own)
#endif

typedef ulong wg_operand; /* bits 0: address / 16; 16: leading / 16; 32: bytes from eight rows to the next / 16; 62: swizzle of 128 bytes */
static inline wg_operand wg_tile(mu_address address, uint leading)
{
    return (ulong)((address & 0x3ffff) >> 4) | (ulong)(leading >> 4) << 16 | (ulong)(1024 >> 4) << 32 | 1ul << 62;
}
#define wg_step(tile, bytes) ((tile) + (ulong)((bytes) >> 4))

#define WG_8(z) "%" #z "0,%" #z "1,%" #z "2,%" #z "3,%" #z "4,%" #z "5,%" #z "6,%" #z "7,"
#define WG_10(z) WG_8(z) "%" #z "8,%" #z "9"
#define WG_0_9 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9"
#define WG_T8 "%0,%1,%2,%3,%4,%5,%6,%7"
#define WG_T32 WG_0_9 "," WG_10(1) "," WG_10(2) ",%30,%31"
#define WG_T48 WG_0_9 "," WG_10(1) "," WG_10(2) "," WG_10(3) ",%40,%41,%42,%43,%44,%45,%46,%47"
#define WG_T56 WG_0_9 "," WG_10(1) "," WG_10(2) "," WG_10(3) "," WG_10(4) ",%50,%51,%52,%53,%54,%55"
#define WG_T64 WG_0_9 "," WG_10(1) "," WG_10(2) "," WG_10(3) "," WG_10(4) "," WG_10(5) ",%60,%61,%62,%63"
#define WG_T96 WG_0_9 "," WG_10(1) "," WG_10(2) "," WG_10(3) "," WG_10(4) "," WG_10(5) "," WG_10(6) "," WG_10(7) "," WG_10(8) ",%90,%91,%92,%93,%94,%95"
#define WG_T128                                                                                                                  \
    WG_0_9 "," WG_10(1) "," WG_10(2) "," WG_10(3) "," WG_10(4) "," WG_10(5) "," WG_10(6) "," WG_10(7) "," WG_10(8) "," WG_10(9)  \
    "," WG_10(10) "," WG_10(11) ",%120,%121,%122,%123,%124,%125,%126,%127"
#define WG_C4(s, c, i) s((c)[i]), s((c)[(i) + 1]), s((c)[(i) + 2]), s((c)[(i) + 3])
#define WG_C16(s, c, i) WG_C4(s, c, i), WG_C4(s, c, (i) + 4), WG_C4(s, c, (i) + 8), WG_C4(s, c, (i) + 12)
#define WG_C8(s, c) WG_C4(s, c, 0), WG_C4(s, c, 4)
#define WG_C32(s, c) WG_C16(s, c, 0), WG_C16(s, c, 16)
#define WG_C48(s, c) WG_C32(s, c), WG_C16(s, c, 32)
#define WG_C56(s, c) WG_C48(s, c), WG_C4(s, c, 48), WG_C4(s, c, 52)
#define WG_C64(s, c) WG_C48(s, c), WG_C16(s, c, 48)
#define WG_C96(s, c) WG_C64(s, c), WG_C16(s, c, 64), WG_C16(s, c, 80)
#define WG_C128(s, c) WG_C96(s, c), WG_C16(s, c, 96), WG_C16(s, c, 112)
#define WG_INOUT(x) "+f"(x)
#define WG_OUT(x) "=f"(x)
#define WG_NAME(n) WG_MARK "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." MU_TYPE "." MU_TYPE " "

/* In the text, behind the accumulators: a, b; add to acc; signs of a and b; a and b transposed. */
#define WG_SCORES(n, text, list, how, acc, a, b, x, y, add)                                                                      \
    MU_ASM volatile(WG_NAME(n) "{" text "}, %" #x ", %" #y ", " #add ", 1, 1, 0, 0;" : list(how, acc) : "l"(a), "l"(b))
#define WG_VALUES(n, text, list, acc, a0, a1, a2, a3, b, x0, x1, x2, x3, y)                                                      \
    MU_ASM volatile(WG_NAME(n) "{" text "}, {%" #x0 ",%" #x1 ",%" #x2 ",%" #x3 "}, %" #y ", 1, 1, 1, 1;"                         \
                    : list(WG_INOUT, acc)                                                                                        \
                    : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b))

#if TILE_KEYS == 16
#define wg_scores_first(acc, a, b) WG_SCORES(16, WG_T8, WG_C8, WG_OUT, acc, a, b, 8, 9, 0)
#define wg_scores(acc, a, b) WG_SCORES(16, WG_T8, WG_C8, WG_INOUT, acc, a, b, 8, 9, 1)
#elif TILE_KEYS == 64
#define wg_scores_first(acc, a, b) WG_SCORES(64, WG_T32, WG_C32, WG_OUT, acc, a, b, 32, 33, 0)
#define wg_scores(acc, a, b) WG_SCORES(64, WG_T32, WG_C32, WG_INOUT, acc, a, b, 32, 33, 1)
#elif TILE_KEYS == 96
#define wg_scores_first(acc, a, b) WG_SCORES(96, WG_T48, WG_C48, WG_OUT, acc, a, b, 48, 49, 0)
#define wg_scores(acc, a, b) WG_SCORES(96, WG_T48, WG_C48, WG_INOUT, acc, a, b, 48, 49, 1)
#elif TILE_KEYS == 112
#define wg_scores_first(acc, a, b) WG_SCORES(112, WG_T56, WG_C56, WG_OUT, acc, a, b, 56, 57, 0)
#define wg_scores(acc, a, b) WG_SCORES(112, WG_T56, WG_C56, WG_INOUT, acc, a, b, 56, 57, 1)
#elif TILE_KEYS == 128
#define wg_scores_first(acc, a, b) WG_SCORES(128, WG_T64, WG_C64, WG_OUT, acc, a, b, 64, 65, 0)
#define wg_scores(acc, a, b) WG_SCORES(128, WG_T64, WG_C64, WG_INOUT, acc, a, b, 64, 65, 1)
#else
#error "no product for so many keys"
#endif
#if V_CHUNKS == 8
#define wg_values(acc, a0, a1, a2, a3, b) WG_VALUES(64, WG_T32, WG_C32, acc, a0, a1, a2, a3, b, 32, 33, 34, 35, 36)
#elif V_CHUNKS == 16
#define wg_values(acc, a0, a1, a2, a3, b) WG_VALUES(128, WG_T64, WG_C64, acc, a0, a1, a2, a3, b, 64, 65, 66, 67, 68)
#elif V_CHUNKS == 24
#define wg_values(acc, a0, a1, a2, a3, b) WG_VALUES(192, WG_T96, WG_C96, acc, a0, a1, a2, a3, b, 96, 97, 98, 99, 100)
#else
#define wg_values(acc, a0, a1, a2, a3, b) WG_VALUES(256, WG_T128, WG_C128, acc, a0, a1, a2, a3, b, 128, 129, 130, 131, 132)
#endif
#endif

#if MATRIX == 1
#define wg_fence()
#define wg_commit()
#define wg_wait(n)
#define wg_arrived(acc, n)
#define wg_visible()
#define wg_same(x) (x)
#define wg_turn(own) MU_BARRIER
#define wg_pass(own)

/* The address of a number, and that of its tile, from which the swizzle counts. */
typedef struct {
    mu_address tile, at;
    uint leading;
} wg_operand;
static inline wg_operand wg_tile(mu_address address, uint leading)
{
    const wg_operand operand = {address, address, leading};
    return operand;
}
static inline wg_operand wg_step(wg_operand operand, uint bytes)
{
    operand.at += bytes;
    return operand;
}
static inline float wg_number(wg_operand operand, uint bytes)
{
    const uint plain = (uint)(operand.at - operand.tile) + bytes, turned = plain ^ (plain >> 3 & 0x70);
    return mu_value(Q_TYPE, *(local ushort *)(operand.tile + turned));
}

#define WG_LOCAL_ROW(e) ((MU_WARP >> 5 & 3) * 16 + (MU_LANE >> 2) + 8 * ((e) >> 1 & 1))
#define WG_COLUMN(e) (8 * ((e) >> 2) + 2 * (MU_LANE & 3) + ((e) & 1))
#define wg_scores(acc, a, b)                                                                                                     \
    do {                                                                                                                         \
        MU_UNROLL for (int e_ = 0; e_ < TILE_KEYS / 2; e_++)                                                                     \
            MU_UNROLL for (int k_ = 0; k_ < 16; k_++)                                                                            \
                (acc)[e_] = fma(wg_number(a, WG_LOCAL_ROW(e_) * 128 + 2 * k_), wg_number(b, WG_COLUMN(e_) * 128 + 2 * k_), (acc)[e_]); \
    } while (0)
#define wg_scores_first(acc, a, b)                                                                                               \
    do {                                                                                                                         \
        MU_UNROLL for (int z_ = 0; z_ < TILE_KEYS / 2; z_++) (acc)[z_] = 0;                                                      \
        wg_scores(acc, a, b);                                                                                                    \
    } while (0)
#define wg_values(acc, a0, a1, a2, a3, b)                                                                                        \
    do {                                                                                                                         \
        MU_SHOW(a0, a1, a2, a3, 0, 0);                                                                                           \
        MU_UNROLL for (int e_ = 0; e_ < V_DIMS / 2; e_++)                                                                        \
            MU_UNROLL for (int k_ = 0; k_ < 16; k_++)                                                                            \
                (acc)[e_] = fma(mu_a(Q_TYPE, mu_box, (MU_LANE >> 2) + 8 * (e_ >> 1 & 1), k_),                                    \
                                wg_number(b, WG_COLUMN(e_) / 64 * (b).leading + k_ * 128 + WG_COLUMN(e_) % 64 * 2), (acc)[e_]);  \
    } while (0)
#endif
