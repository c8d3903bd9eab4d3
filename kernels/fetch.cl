/* SPDX-License-Identifier: MIT
 * fetch.cl - rows of K and V into the cache before their turn, for the kernels of CPU devices. No kernel; no part of what compilers for GPUs see.
 */
/* Rows that lie apart (the heads of a token side by side) are no stream to the hardware: each is fetched before its turn. OpenCL's own
 * prefetch() does nothing in PoCL, so there clang's: hq32 hk8 kv4096 f32 takes 0.8 ms for 2.2. Only where the compiler's target is a processor: NVIDIA's
 * compiler has the builtin and refuses every address, and Mesa's, on its way to SPIR-V, ends the process. Intel's CPU driver goes by SPIR, too, and takes it; there
 * prefetch() is a call for each line, around which every vector register goes to memory and back: BUILTIN_FETCH comes from its tuning row. */
#if BUILTIN_FETCH || defined(__x86_64__) || defined(__i386__) || defined(__aarch64__) || defined(__arm__) || defined(__riscv) || defined(__powerpc64__) || defined(__s390x__)
#ifdef __has_builtin
#if __has_builtin(__builtin_prefetch)
#define FETCH(p) __builtin_prefetch((private const void *)(size_t)(p), 0, 2)
#endif
#endif
#endif
#ifndef FETCH
#define FETCH(p) prefetch(p, 64)
#endif
#define ROW_BYTES(type, n)                                                                                                       \
    (type == TYPE_F32 ? 4 * n : type == TYPE_F16 || type == TYPE_BF16 ? 2 * n : type == TYPE_Q8_0 ? n / 32 * 34 : type == TYPE_Q4_0 ? n / 32 * 18 : n)
#define K_BYTES ROW_BYTES(K_TYPE, HEAD_DIM)
#define V_BYTES ROW_BYTES(V_TYPE, V_HEAD_DIM)

/* A macro, so that the number of lines is known where loops are unrolled: inlined later, a function's loop stays one. */
#define fetch_row(row, bytes)                                                                                                    \
    do {                                                                                                                         \
        global const uchar *fetched_row = (row);                                                                                 \
        _Pragma("unroll") for (int fetched = 0; fetched < (bytes); fetched += 64) FETCH(fetched_row + fetched);                  \
    } while (0)
