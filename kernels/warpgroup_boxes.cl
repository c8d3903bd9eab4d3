/* SPDX-License-Identifier: MIT
 * warpgroup_boxes.cl - Hopper's engine for copies (TMA, "cp.async.bulk.tensor") as inline PTX: one work-item asks for a box of keys, 64 dimensions wide, and the engine
 * puts it into local memory in the layout of matrix_warpgroup.cl, zeros where there is no such key or dimension. The same on the emulated unit. No kernel.
 *
 * What the engine must know of a matrix is a map of 128 bytes in global memory. CUDA's driver makes one with cuTensorMapEncodeTiled, which wants a CUDA context; this is its
 * result for 16-bit rows in two dimensions with swizzled rows of 128 bytes, as driver 580 gives it (words of 64 bits; the others are 0):
 *
 *     0   address of the first row, a multiple of 16                       6   (64 - 1) << 56: dimensions of a box
 *     1   bit 4: two dimensions; 7: 6 = f16, 10 = bf16; 13: 3 = swizzle    7   rows of a box - 1
 *         of 128 bytes; 32: bytes from row to row / 16, low 32 bits        8   bytes of a box
 *     3   bit 32: the same, high 4 bits                                    9   1024: boxes begin at multiples of it
 *     4   dimensions - 1 | (rows - 1) << 32
 *
 * A box whose map is wrong gives wrong numbers or none, and the row's probe refuses it.
 *
 *   box_map(map, at, stride, dims, rows)   makes one; map: a multiple of 64
 *   box_maps(maps)                         two of them, one after the other, are made: their maker may ask for boxes. One fence for both: it takes a microsecond
 *   box_copy(to, map, dim, row, landed)    box from (dim, row) on; row may be below 0 or beyond the last
 *   landed_make(landed)                    a word of 8 bytes in local memory that counts bytes; then a barrier
 *   landed_expect(landed, bytes)           so many bytes are asked for next
 *   landed_wait(landed, odd)               until all those have landed; odd: whether it is the word's second, fourth ... time
 */
#define PARCEL_TAKEN
#define PARCEL_GIVEN
#define COPY_BESIDE(x)
#define BOX_BYTES (TILE_KEYS * 128)
#define MAP_WORDS 16
#define MAP_BYTES (2 * 8 * MAP_WORDS) /* of an item: of its keys, of its values */

static inline void box_map(global ulong *map, global const uchar *at, long stride, int dims, int rows)
{
    for (int n = 0; n < MAP_WORDS; n++) map[n] = 0;
    map[0] = (ulong)at;
    map[1] = 1u << 4 | (K_TYPE == TYPE_BF16 ? 10u : 6u) << 7 | 3u << 13 | (ulong)(stride >> 4) << 32;
    map[3] = (ulong)(stride >> 36 & 15) << 32;
    map[4] = (ulong)(dims - 1) | (ulong)(rows - 1) << 32;
    map[6] = 63ul << 56;
    map[7] = TILE_KEYS - 1;
    map[8] = BOX_BYTES;
    map[9] = 1024;
#ifdef MUTANT_cl_box_stride
    map[1] += 1ul << 32;
#endif
}

#if MATRIX == 2
static inline void box_maps(global const ulong *maps)
{
    MU_ASM volatile(WG_MARK "fence.proxy.tensormap::generic.release.gpu;" ::: "memory");
    MU_ASM volatile(WG_MARK "fence.proxy.tensormap::generic.acquire.gpu [%0], 128;" ::"l"(maps) : "memory");
    MU_ASM volatile(WG_MARK "fence.proxy.tensormap::generic.acquire.gpu [%0], 128;" ::"l"(maps + MAP_WORDS) : "memory");
}
static inline void box_copy(mu_address to, global const ulong *map, int dim, int row, mu_address landed)
{
    MU_ASM volatile(WG_MARK "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(to), "l"(map),
                    "r"(dim), "r"(row), "r"(landed)
                    : "memory");
}
static inline void landed_make(mu_address landed)
{
    MU_ASM volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(landed) : "memory");
    MU_ASM volatile(WG_MARK "fence.mbarrier_init.release.cluster;" ::: "memory");
}
static inline void landed_expect(mu_address landed, uint bytes)
{
    MU_ASM volatile(WG_MARK "mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(landed), "r"(bytes) : "memory");
}
static inline void landed_wait(mu_address landed, uint odd)
{
    uint there;
    do {
        MU_ASM volatile("{.reg .pred p; mov.u32 %0, 0;\n" WG_MARK "mbarrier.try_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;\n}"
                        : "=r"(there)
                        : "r"(landed), "r"(odd)
                        : "memory");
    } while (!there);
}
#endif

#if MATRIX == 1
#define box_maps(maps)
static inline void box_copy(mu_address to, global const ulong *map, int dim, int row, mu_address landed)
{
    const long stride = (long)((map[1] >> 32 | (map[3] >> 32 & 15) << 32) << 4);
    const int dims = (int)(map[4] & 0xffffffff) + 1, rows = (int)(map[4] >> 32) + 1;
    (void)landed;
    for (int r = 0; r <= (int)(map[7] & 255); r++)
        for (int c = 0; c < 8; c++) {
            const bool there = row + r >= 0 && row + r < rows;
            mu_store16(to + r * 128 + ((c ^ r) & 7) * 16,
                       gather_chunk((global const uchar *)map[0] + (there ? (row + r) * stride : 0), dim / 8 + c, there ? dims : 0));
        }
}
#define landed_make(landed)
#define landed_expect(landed, bytes)
#define landed_wait(landed, odd) MU_BARRIER
#endif
