/* SPDX-License-Identifier: MIT
 * matrix_nvidia.cl - the words of a 16x8x16 matrix unit as inline PTX, for NVIDIA's compute capability 8.0 and later: mma.sync, ldmatrix, cp.async, ex2 and
 * lane exchange out of plain OpenCL C. The host's vendor gate keeps it from every other compiler (device.c); a run decides, not a build.
 *
 * A warp is 32 consecutive work-items, lane l is one of them. Values are f16 or bf16 (Q_TYPE), two to a register, the first in the low half:
 *
 *     a0 a1 a2 a3   of a 16x16 matrix: rows l/4, l/4 + 8, l/4, l/4 + 8; columns 2(l%4) and the next, plus 8 for a2 a3
 *     b0 b1         of a 16x8 matrix: column l/4; rows 2(l%4) and the next, plus 8 for b1
 *     acc[e]        f32, of a 16x8 matrix: row l/4 + 8(e/2), column 2(l%4) + e%2
 *
 * Two neighbouring accumulators, packed, are therefore the a-operand of the next product.
 *
 *   mu_load4             four 8x8 matrices out of local memory; lane 8i + r gives the address of row r of matrix i
 *   mu_load4_transposed  the same, each transposed
 *   mu_mma               acc += a b
 *   mu_mma_bf16          the same with operands of bf16, whatever Q_TYPE is; mu_pack_bf16 packs them
 *   mu_mma_tf32          the same on the 16x8x8 unit for numbers of 11 bits, 32 bits each: operands as in prefill_tf32.cl
 *   mu_copy16            16 bytes from global to local memory, the first `bytes` of them read and the rest zeros, done in the background ...
 *   mu_copy8  mu_copy4   the same for 8 and 4 bytes
 *   mu_copy_commit       ... everything since the last commit is one parcel ...
 *   mu_copy_wait(n)      ... wait until at most n of this work-item's parcels are on their way; a barrier must follow before others' bytes are read
 *   mu_exp               e^x is mu_exp(x * MU_EXP_FACTOR); 2 ulp, exactly 1 at 0, 0 where the result would be denormal. MU_EXP_INVERSE is 1 / MU_EXP_FACTOR, MU_EXP_REST
 *                        what the factor lacks of log2 e, or 0
 *   mu_fma_f16x2         a b + c in both halves, rounded once; mu_fma_bf16x2
 *   mu_any               is x true in any lane of the warp? (the emulated unit says yes)
 *   mu_xor               x of the lane whose number differs in the bits of mask
 */
#if MATRIX == 2
#ifdef __NV_CL_C_VERSION
#define MU_ASM asm
#else
#define MU_ASM __asm__
#endif
#if Q_TYPE == TYPE_BF16
#define MU_TYPE "bf16"
#else
#define MU_TYPE "f16"
#endif
#define MU_UNROLL _Pragma("unroll")
#define MU_SCRATCH /* local memory that the words need for themselves: none */
#define MU_SCRATCH_TAKEN
#define MU_SCRATCH_GIVEN

typedef uint mu_address; /* shared memory's own addresses have 32 bits */
static inline mu_address mu_address_of(local const void *p) { return (mu_address)(ulong)p; }

static inline void mu_store16(mu_address to, uint4 x)
{
    MU_ASM volatile("st.shared.v4.b32 [%0], {%1,%2,%3,%4};" ::"r"(to), "r"(x.s0), "r"(x.s1), "r"(x.s2), "r"(x.s3) : "memory");
}

static inline void mu_copy16(mu_address to, global const void *from, uint bytes)
{
    MU_ASM volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
static inline void mu_copy8(mu_address to, global const void *from, uint bytes)
{
    MU_ASM volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
static inline void mu_copy4(mu_address to, global const void *from, uint bytes)
{
    MU_ASM volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
#define mu_copy_commit() MU_ASM volatile("cp.async.commit_group;" ::: "memory")
#define mu_copy_wait(n) MU_ASM volatile("cp.async.wait_group " #n ";" ::: "memory")

#define MU_LOAD4(form, r0, r1, r2, r3, address)                                                                                  \
    MU_ASM volatile("ldmatrix.sync.aligned.m8n8.x4" form ".shared.b16 {%0,%1,%2,%3}, [%4];"                                      \
                    : "=r"(r0), "=r"(r1), "=r"(r2), "=r"(r3)                                                                     \
                    : "r"(address)                                                                                               \
                    : "memory")
#define mu_load4(r0, r1, r2, r3, address) MU_LOAD4("", r0, r1, r2, r3, address)
#define mu_load4_transposed(r0, r1, r2, r3, address) MU_LOAD4(".trans", r0, r1, r2, r3, address)

#define MU_MMA(type, acc, a0, a1, a2, a3, b0, b1)                                                                                \
    MU_ASM volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type ".f32 "                                               \
                    "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"                                                         \
                    : "+f"((acc)[0]), "+f"((acc)[1]), "+f"((acc)[2]), "+f"((acc)[3])                                             \
                    : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1))
#define mu_mma(acc, a0, a1, a2, a3, b0, b1) MU_MMA(MU_TYPE, acc, a0, a1, a2, a3, b0, b1)
#define mu_mma_bf16(acc, a0, a1, a2, a3, b0, b1) MU_MMA("bf16", acc, a0, a1, a2, a3, b0, b1)

#define mu_mma_tf32(acc, a0, a1, a2, a3, b0, b1)                                                                                 \
    MU_ASM volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"      \
                    : "+f"((acc)[0]), "+f"((acc)[1]), "+f"((acc)[2]), "+f"((acc)[3])                                             \
                    : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1))

static inline uint mu_pack(float low, float high)
{
    uint r;
    MU_ASM("cvt.rn." MU_TYPE "x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}

static inline uint mu_pack_bf16(float low, float high)
{
    uint r;
    MU_ASM("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}

static inline uint mu_fma_f16x2(uint a, uint b, uint c)
{
    uint r;
    MU_ASM("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
    return r;
}
static inline uint mu_fma_bf16x2(uint a, uint b, uint c)
{
    uint r;
    MU_ASM("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
    return r;
}

#define MU_EXP_FACTOR LOG2E
#define MU_EXP_INVERSE LN2
#define MU_EXP_REST LOG2E_REST
static inline float mu_exp(float x)
{
    float r;
    MU_ASM("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

static inline bool mu_any(bool x)
{
    uint r;
    MU_ASM volatile("{.reg .pred p, q; setp.ne.u32 p, %1, 0; vote.sync.any.pred q, p, 0xffffffff; selp.u32 %0, 1, 0, q;}" : "=r"(r) : "r"((uint)x));
    return r != 0;
}

static inline float mu_xor(float x, int mask)
{
    float r;
    MU_ASM volatile("shfl.sync.bfly.b32 %0, %1, %2, 0x1f, 0xffffffff;" : "=f"(r) : "f"(x), "r"(mask));
    return r;
}
#endif
