/* SPDX-License-Identifier: MIT
 * roof.h - the machine's own ceilings, measured in the same run as the figures that are held against them.
 */
#ifndef HEED_BENCH_ROOF_H
#define HEED_BENCH_ROOF_H

#include "internal.h"

/* Loops of one instruction set. Their results are returned and used, or the compiler would remove them. */
struct roof_loops {
    const char *name;
    uint32_t isa;
    double flops; /* per turn of fma() */
    float (*fma)(int64_t turns, float seed);
    uint64_t (*read)(const void *memory, size_t bytes); /* 64-byte aligned, a multiple of 512 bytes */
};

extern const struct roof_loops roof_scalar, roof_vector;
#if defined(__x86_64__)
extern const struct roof_loops roof_avx2, roof_avx512, roof_avx512bf16, roof_amx; /* the last two: no read */
#endif

/* Best of several passes; workers 1 = this thread alone, else all threads of the pool. */
double roof_fma_gflops(const struct services *services, int32_t workers);

/* The same of products of bf16, by the best of the instruction sets `isas` that the context may use; NAN where none of them has such products of its own. */
double roof_bf16_gflops(const struct services *services, uint32_t isas, int32_t workers);

/* Memory for reading, in huge pages where the system gives them. NULL: out of memory. */
struct roof_memory;
struct roof_memory *roof_memory_new(size_t bytes);
void roof_memory_free(struct roof_memory *memory);
/* The first `bytes` of it, each worker its own part, over and over: a small size measures caches, as a small problem does. */
double roof_read_gbps(const struct services *services, const struct roof_memory *memory, size_t bytes, int32_t workers);

/* The same for an OpenCL device of the context: bytes of one read, and the time from enqueue to the return of finish. */
struct roof_opencl { double fma_gflops, read_gbps, launch_us; };
heed_status roof_opencl_measure(struct device *device, size_t bytes, struct roof_opencl *roof);

/* Keeps the compiler from removing what is only measured. */
extern volatile uint64_t roof_sink;

#endif
