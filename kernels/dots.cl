/* SPDX-License-Identifier: MIT
 * dots.cl - words of AVX512-BF16 for kernels of CPU devices: cells of two bf16, multiplied as such. No kernel; only where device.c saw that the compiler's
 * target is this very processor, and features.c that it has the instructions.
 *
 * OpenCL C has no name for them and PoCL 3.1's compiler does not know that it may use them, but its assembler does: inline assembly. vdpbf16ps multiplies exactly and
 * adds in f32, first the products of the upper halves, then those of the lower ones; it rounds to nearest and takes denormals for 0, whatever the mode.
 */
#if !defined(__x86_64__) || !defined(__AVX512F__)
#error "a compiler with registers of 512 bits is needed" /* an error here, because one in the assembler may end the process */
#endif

typedef uint16 __attribute__((aligned(2), may_alias)) loose_cells;
typedef ushort16 __attribute__((aligned(2), may_alias)) loose_halves;
typedef uint __attribute__((may_alias)) cell;

/* acc + the products of the upper and of the lower halves. */
static inline float16 add_products(float16 acc, uint16 x, uint16 y)
{
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(acc) : "v"(x), "v"(y));
    return acc;
}

/* bf16, nearest even. */
static inline ushort16 to_halves(float16 x)
{
    ushort16 y;
    __asm__("vcvtneps2bf16 %1, %0" : "=v"(y) : "v"(x));
    return y;
}

/* Elements [d, d + 32) of a row as cells, or those up to n and zeros. */
static inline uint16 load_cells(global const uchar *row, int d, int n)
{
    if (d + 32 <= n) return *(global const loose_cells *)(row + 2 * d);
    ushort one[32] ALIGNED;
    for (int c = 0; c < 32; c++) one[c] = d + c < n ? AT(ushort, row)[d + c] : 0;
    return *(private const loose_cells *)one;
}

/* Elements [d, d + 16), or those up to n and zeros, each as the lower half of a cell. */
static inline uint16 load_lower(global const uchar *row, int d, int n)
{
    if (d + 16 <= n) return convert_uint16(*(global const loose_halves *)(row + 2 * d));
    ushort one[16] ALIGNED;
    for (int c = 0; c < 16; c++) one[c] = d + c < n ? AT(ushort, row)[d + c] : 0;
    return convert_uint16(*(private const loose_halves *)one);
}
