/* SPDX-License-Identifier: MIT
 * roof_verb.c - `heed roof`: the machine's own ceilings, per device, as a table.
 */
#include "roof.h"
#include "table.h"
#include "tool.h"
#include <math.h>
#include <stdlib.h>

static const size_t read_bytes = (size_t)256 << 20; /* beyond every cache */

static const struct column roof_columns[] = {{"device", "device", -17, 0},      {"threads", "threads", 7, 0},
                                             {"fma_gflops", "FMA GFLOP/s", 11, 1}, {"bf16_gflops", "bf16 GFLOP/s", 12, 1}, {"read_gbps", "read GB/s", 9, 1},
                                             {"launch_us", "launch us", 9, 1}, {0}};

struct roofer {
    struct tool tool;
    struct table table;
    struct roof_memory *memory;
};

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *seconds, int count)
{
    qsort(seconds, (size_t)count, sizeof *seconds, by_size);
    return seconds[count / 2];
}

static void roof_row(struct roofer *roofer, int32_t device, int32_t threads, double fma, double bf16, double read, double launch)
{
    char label[64];
    device_label(&roofer->tool, device, label, sizeof label);
    table_text(&roofer->table, "device", label);
    table_text(&roofer->table, "backend", device == 0 ? "cpu" : "opencl");
    if (threads) table_count(&roofer->table, "threads", threads);
    else table_text(&roofer->table, "threads", NULL);
    table_number(&roofer->table, "fma_gflops", fma);
    table_number(&roofer->table, "bf16_gflops", bf16);
    table_number(&roofer->table, "read_gbps", read);
    table_number(&roofer->table, "launch_us", launch);
    table_row(&roofer->table);
}

static void nothing(void *arg, int32_t i, int32_t worker)
{
    (void)arg, (void)i, (void)worker;
}

/* Of the pool: hand an empty task to every worker and wait. */
static double pool_launch_us(const struct services *services)
{
    enum { COUNT = 400 };
    double seconds[COUNT];
    for (int n = 0; n < COUNT; n++) {
        const double begin = seconds_now();
        services->threads.parallel_for(services->threads.user, services->threads.workers, nothing, NULL);
        seconds[n] = seconds_now() - begin;
    }
    return 1e6 * median(seconds, COUNT);
}

static void roof_cpu(struct roofer *roofer)
{
    const struct services *services = &roofer->tool.context->services;
    const int32_t all = services->threads.workers;
    for (int32_t threads = 1;; threads = all) {
        progress("roof of the CPU, %d threads", (int)threads);
        roof_row(roofer, 0, threads, roof_fma_gflops(services, threads), roof_bf16_gflops(services, UINT32_MAX, threads),
                 roof_read_gbps(services, roofer->memory, read_bytes, threads),
                 threads == 1 && all > 1 ? NAN : pool_launch_us(services));
        if (threads == all) return;
    }
}

int run_roof(const struct options *options)
{
    struct roofer roofer = {0};
    int code = tool_open(&roofer.tool, options, "all");
    if (code) return code;
    roofer.memory = roof_memory_new(read_bytes);
    if (!table_begin(&roofer.table, roof_columns, options->json) || !roofer.memory) code = out_of_room();
    for (int n = 0; code == EXIT_OK && n < roofer.tool.device_count; n++) {
        const int32_t device = roofer.tool.devices[n];
        struct roof_opencl roof = {0};
        if (device == 0) {
            roof_cpu(&roofer);
            continue;
        }
        progress("roof of device %d", (int)device);
        /* An unusable device still has ceilings, if it runs anything at all; one that fails is said and passed by. */
        const heed_status status = roof_opencl_measure(roofer.tool.context->devices[device], read_bytes, &roof);
        progress(NULL);
        if (status == HEED_OK) roof_row(&roofer, device, 0, roof.fma_gflops, NAN, roof.read_gbps, roof.launch_us);
        else if (roofer.tool.device_count == 1) code = tool_fail(status, "roof");
        else tool_fail(status, "roof");
    }
    if (!table_end(&roofer.table) && code == EXIT_OK) code = out_of_room();
    roof_memory_free(roofer.memory);
    tool_close(&roofer.tool);
    return code;
}
