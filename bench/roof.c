/* SPDX-License-Identifier: MIT
 * roof.c - peak of fma and of products of bf16, and read bandwidth, of the CPU, with the instruction set and the threads that the library uses.
 */
#include "roof.h"
#include "tool.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

volatile uint64_t roof_sink;

enum { PASSES = 8 };

/* Best first, like the table of rows: the first whose instruction set the context may use. */
static const struct roof_loops *const all_loops[] = {
#if defined(__x86_64__)
    &roof_avx512,
    &roof_avx2,
#endif
    &roof_vector,
    &roof_scalar,
};

/* The same for products of bf16. */
static const struct roof_loops *const bf16_loops[] = {
#if defined(__x86_64__)
    &roof_amx,
    &roof_avx512bf16,
#endif
    NULL,
};

static const struct roof_loops *loops_of(uint32_t isa)
{
    int n = 0;
    while (all_loops[n] != &roof_scalar && !(all_loops[n]->isa & isa)) n++;
    return all_loops[n];
}

/* One pass of all workers over their share; `sums` holds what the loops returned, so that nothing is removed. */
struct pass {
    const struct roof_loops *loops;
    int64_t turns;
    const char *memory;
    size_t part;
    uint64_t sums[MAX_WORKERS];
};

static void fma_task(void *arg, int32_t i, int32_t worker)
{
    struct pass *pass = arg;
    (void)worker;
    pass->sums[i] += (uint64_t)pass->loops->fma(pass->turns, 1.0f);
}

static void read_task(void *arg, int32_t i, int32_t worker)
{
    struct pass *pass = arg;
    (void)worker;
    for (int64_t t = 0; t < pass->turns; t++) {
        pass->sums[i] += pass->loops->read(pass->memory + (size_t)i * pass->part, pass->part);
        __asm__ volatile("" ::: "memory"); /* the next turn reads again */
    }
}

static double pass_seconds(const struct services *services, struct pass *pass, int32_t workers,
                           void (*task)(void *arg, int32_t i, int32_t worker))
{
    const double begin = seconds_now();
    if (workers == 1) task(pass, 0, 0);
    else services->threads.parallel_for(services->threads.user, workers, task, pass);
    return seconds_now() - begin;
}

/* Turns so that a pass of one thread lasts about 20 ms. By one thread, and by the shortest of three: on a busy machine a pass may wait for
 * a time slice, and a single turn that waited would look long enough. */
static void calibrate(const struct services *services, struct pass *pass, void (*task)(void *arg, int32_t i, int32_t worker))
{
    for (pass->turns = 1;;) {
        double least = 0;
        for (int n = 0; n < 3; n++) {
            const double t = pass_seconds(services, pass, 1, task);
            if (n == 0 || t < least) least = t;
        }
        if (least >= 0.01) return;
        pass->turns *= least < 0.001 ? 8 : 2;
    }
}

/* The fastest of a few passes: a ceiling is what the machine can do when left alone. */
static double fastest(const struct services *services, struct pass *pass, int32_t workers,
                      void (*task)(void *arg, int32_t i, int32_t worker))
{
    double least = 0;
    calibrate(services, pass, task);
    for (int n = 0; n < PASSES; n++) {
        const double t = pass_seconds(services, pass, workers, task);
        if (n == 0 || t < least) least = t;
    }
    for (int32_t n = 0; n < workers; n++) roof_sink += pass->sums[n];
    return least;
}

static int32_t clip_workers(int32_t workers)
{
    return workers < 1 ? 1 : workers > MAX_WORKERS ? MAX_WORKERS : workers;
}

static double loops_gflops(const struct services *services, const struct roof_loops *loops, int32_t workers)
{
    struct pass pass = {.loops = loops};
    workers = clip_workers(workers);
    const double seconds = fastest(services, &pass, workers, fma_task);
    return 1e-9 * (double)workers * (double)pass.turns * pass.loops->flops / seconds;
}

double roof_fma_gflops(const struct services *services, int32_t workers) { return loops_gflops(services, loops_of(services->isa), workers); }

double roof_bf16_gflops(const struct services *services, uint32_t isas, int32_t workers)
{
    int n = 0;
    while (bf16_loops[n] && !(bf16_loops[n]->isa & isas & services->isa)) n++;
    return bf16_loops[n] ? loops_gflops(services, bf16_loops[n], workers) : NAN;
}

struct roof_memory { void *map; size_t map_bytes; char *data; size_t bytes; };

struct roof_memory *roof_memory_new(size_t bytes)
{
    const size_t huge = (size_t)2 << 20;
    struct roof_memory *memory = calloc(1, sizeof *memory);
    if (!memory) return NULL;
    memory->bytes = (bytes + huge - 1) / huge * huge;
    memory->map_bytes = memory->bytes + huge;
    memory->map = mmap(NULL, memory->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory->map == MAP_FAILED) {
        free(memory);
        return NULL;
    }
    memory->data = (char *)(((uintptr_t)memory->map + huge - 1) & ~(uintptr_t)(huge - 1));
#ifdef MADV_HUGEPAGE
    madvise(memory->data, memory->bytes, MADV_HUGEPAGE);
#endif
    memset(memory->data, 1, memory->bytes);
    return memory;
}

void roof_memory_free(struct roof_memory *memory)
{
    if (!memory) return;
    munmap(memory->map, memory->map_bytes);
    free(memory);
}

double roof_read_gbps(const struct services *services, const struct roof_memory *memory, size_t bytes, int32_t workers)
{
    struct pass pass = {.loops = loops_of(services->isa), .memory = memory->data};
    workers = clip_workers(workers);
    if (bytes > memory->bytes) bytes = memory->bytes;
    pass.part = bytes / (size_t)workers / 512 * 512;
    if (pass.part == 0) pass.part = 512;
    if (pass.part * (size_t)workers > memory->bytes) workers = 1;
    const double seconds = fastest(services, &pass, workers, read_task);
    return 1e-9 * (double)pass.turns * (double)workers * (double)pass.part / seconds;
}
