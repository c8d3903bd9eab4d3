/* SPDX-License-Identifier: MIT
 * bench.c - `heed bench`. Every figure stands beside the machine's own ceilings of the same minute: on a shared host they move
 * by a factor of two, and a time alone says nothing. A result is checked before it is timed.
 */
#include "harness.h"
#include "peers/peers.h"
#include "plot.h"
#include "roof.h"
#include "schedule.h"
#include "suites.h"
#include "table.h"
#include "tool.h"
#include "verify.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LEAST_RUNS = 10, MOST_RUNS = 20000, SLOW_RUNS = 3 };
static const double least_seconds = 0.3, most_seconds = 10, check_budget = 2e8, noisy_spread = 0.2, peer_apart_most = 1e-3;
static const size_t read_bytes_most = (size_t)256 << 20, read_bytes_least = (size_t)1 << 20;

static const struct column columns[] = {
    {"device", "device", -17, 0},     {"kernel", "kernel", -19, 0},     {"ms_median", "ms", 9, 3},           {"spread", "spread", 6, 2},
    {"gflops", "GFLOP/s", 8, 1},     {"kv_gbps", "KV GB/s", 7, 1},     {"roof_percent", "% roof", 6, 0},
    {"worst_ratio", "err/bound", 9, 3},
    {"problem", "problem", -10, 0},  {0}};
static const struct column columns_peers[] = {
    {"device", "device", -17, 0},     {"kernel", "kernel", -19, 0},     {"ms_median", "ms", 9, 3},           {"spread", "spread", 6, 2},
    {"gflops", "GFLOP/s", 8, 1},     {"kv_gbps", "KV GB/s", 7, 1},     {"roof_percent", "% roof", 6, 0},
    {"worst_ratio", "err/bound", 9, 3},
    {"peer", "peer", -11, 0},        {"peer_ms_median", "peer ms", 9, 3}, {"speedup", "speedup", 7, 2},     {"problem", "problem", -10, 0},
    {0}};
struct bench {
    struct tool tool;
    struct table table;
    struct roof_memory *memory;
    bool failed;
    int noisy; /* rows whose spread says that the machine was not left alone */
};

/* ---- ceilings ---------------------------------------------------------------- */

struct ceiling { double fma_gflops, read_gbps; };

/* bytes: the size of what is read, so that a cache that lies in L2 is held against L2. */
static heed_status measure(struct bench *bench, int32_t device, size_t bytes, struct ceiling *ceiling)
{
    const struct services *services = &bench->tool.context->services;
    if (device == 0) {
        ceiling->fma_gflops = roof_fma_gflops(services, services->threads.workers);
        ceiling->read_gbps = roof_read_gbps(services, bench->memory, bytes, services->threads.workers);
        return HEED_OK;
    }
    struct roof_opencl roof = {0};
    const heed_status status = roof_opencl_measure(bench->tool.context->devices[device], bytes, &roof);
    *ceiling = (struct ceiling){roof.fma_gflops, roof.read_gbps};
    return status;
}

static void keep_larger(struct ceiling *a, const struct ceiling *b)
{
    if (b->fma_gflops > a->fma_gflops) a->fma_gflops = b->fma_gflops;
    if (b->read_gbps > a->read_gbps) a->read_gbps = b->read_gbps;
}

/* ---- times ----------------------------------------------------------------------- */

struct times { double median, least, most, spread; int runs; };

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* spread: half the distance between the quartiles, over the median. */
static struct times times_of(double *seconds, int runs)
{
    qsort(seconds, (size_t)runs, sizeof *seconds, by_size);
    struct times t = {.runs = runs, .least = seconds[0], .most = seconds[runs - 1], .median = seconds[runs / 2]};
    if (runs % 2 == 0) t.median = 0.5 * (t.median + seconds[runs / 2 - 1]);
    t.spread = 0.5 * (seconds[runs * 3 / 4] - seconds[runs / 4]) / t.median;
    return t;
}

static bool enough(int runs, double seconds)
{
    if (runs >= MOST_RUNS) return true;
    if (runs >= LEAST_RUNS && seconds >= least_seconds) return true;
    return runs >= SLOW_RUNS && seconds >= most_seconds;
}

struct timing {
    struct prepared *prepared;
    struct instance *instance;
    const struct peer *peer; /* NULL: alone */
    float *peer_o;
    double *ours, *theirs;   /* [MOST_RUNS] seconds */
};

/* heed and its peer take turns, so that both see the same minute of the machine. */
static heed_status time_runs(struct timing *timing, const struct services *services, int *runs)
{
    double total = 0;
    heed_status status = prepared_run(timing->prepared); /* warm-up: pages, caches, the pool's threads */
    if (timing->peer) timing->peer->run(services, timing->instance, timing->peer_o);
    for (*runs = 0; status == HEED_OK && !enough(*runs, total); ++*runs) {
        const double begin = seconds_now();
        status = prepared_run(timing->prepared);
        const double middle = seconds_now();
        if (timing->peer) timing->peer->run(services, timing->instance, timing->peer_o);
        timing->ours[*runs] = middle - begin;
        timing->theirs[*runs] = seconds_now() - middle;
        total += middle - begin;
    }
    return status;
}

/* ---- one line ------------------------------------------------------------------------ */

struct result {
    struct times ours, theirs;
    double apart; /* largest difference of the peer's o from ours */
    double worst;
    int64_t checked, rows;
    struct ceiling ceiling;
    const char *kernel;
    bool decode;
};

/* A prefill is held against the FMA peak; a decode against whichever ceiling it came nearer to. */
static double roof_percent(const struct result *result, double gflops, double gbps)
{
    const double fma = 100 * gflops / result->ceiling.fma_gflops, read = 100 * gbps / result->ceiling.read_gbps;
    return result->decode && read > fma ? read : fma;
}

static void report(struct bench *bench, int32_t device, const struct instance *instance, const struct peer *peer, const struct result *r)
{
    struct table *table = &bench->table;
    const double flops = 2.0 * (instance->problem.head_dim + instance->problem.v_head_dim) * instance->pairs;
    const double gflops = 1e-9 * flops / r->ours.median, gbps = 1e-9 * (double)instance->kv_bytes / r->ours.median;
    char label[64];
    device_label(&bench->tool, device, label, sizeof label);
    table_text(table, "problem", instance->line.text);
    table_text(table, "device", label);
    table_text(table, "backend", device == 0 ? "cpu" : "opencl");
    table_text(table, "kernel", r->kernel);
    if (device == 0) table_count(table, "threads", bench->tool.context->services.threads.workers);
    else table_text(table, "threads", NULL);
    table_number(table, "ms_median", 1e3 * r->ours.median);
    table_number(table, "ms_min", 1e3 * r->ours.least);
    table_number(table, "ms_max", 1e3 * r->ours.most);
    table_number(table, "spread", r->ours.spread);
    table_count(table, "runs", r->ours.runs);
    table_number(table, "gflops", gflops);
    table_number(table, "kv_gbps", gbps);
    table_number(table, "roof_percent", roof_percent(r, gflops, gbps));
    table_number(table, "roof_fma_gflops", r->ceiling.fma_gflops);
    table_number(table, "roof_read_gbps", r->ceiling.read_gbps);
    table_number(table, "worst_ratio", r->worst);
    table_count(table, "checked_rows", (long long)r->checked);
    table_count(table, "rows", (long long)r->rows);
    if (bench->tool.options->peers) {
        table_text(table, "peer", peer ? peer->name : NULL);
        table_text(table, "version", peer ? peer->version() : NULL);
        table_number(table, "peer_difference", peer ? r->apart : NAN);
        table_number(table, "peer_ms_median", peer ? 1e3 * r->theirs.median : NAN);
        table_number(table, "speedup", peer ? r->theirs.median / r->ours.median : NAN);
    }
    table_row(table);
    if (peer && !(r->apart <= peer_apart_most))
        fprintf(stderr, "heed bench: %s: the result of %s is off by %.3g: it computes something else\n", instance->line.text, peer->name, r->apart);
    bench->noisy += r->ours.spread > noisy_spread;
    if (!(r->worst <= 1)) {
        bench->failed = true;
        fprintf(stderr, "heed bench: %s: a result lies outside its bound (%.3g times); the time is worth nothing\n", instance->line.text,
                r->worst);
    }
}

static size_t clip_bytes(uint64_t bytes)
{
    return bytes < read_bytes_least ? read_bytes_least : bytes > read_bytes_most ? read_bytes_most : (size_t)bytes;
}

/* A peer that computes something else would be no peer: o against ours, row by row. Both are laid out alike. */
static double peer_apart(const struct services *services, const struct timing *timing)
{
    const struct instance *in = timing->instance;
    const heed_tensor *o = &in->tensors.o;
    double most = 0;
    if (!timing->peer->run(services, in, timing->peer_o)) return INFINITY;
    for (int32_t b = 0; b < in->line.batch; b++)
        for (int32_t h = 0; h < in->problem.q_heads; h++)
            for (int32_t i = 0; i < in->line.q_len; i++) {
                const int64_t at = o->offset + b * o->batch_stride + h * o->head_stride + i * o->token_stride;
                for (int32_t d = 0; d < in->problem.v_head_dim; d++) {
                    const double apart = fabs((double)timing->peer_o[at + d] - ((const float *)o->data)[at + d]);
                    if (!(apart <= most)) most = apart;
                }
            }
    return most;
}

static heed_status time_peer(struct bench *bench, struct timing *timing, struct result *result)
{
    int runs;
    const heed_status status = time_runs(timing, &bench->tool.context->services, &runs);
    if (status != HEED_OK) return status;
    result->ours = times_of(timing->ours, runs);
    result->theirs = times_of(timing->theirs, runs);
    return HEED_OK;
}

/* Check, ceilings, times, ceilings again. */
static heed_status bench_prepared(struct bench *bench, int32_t device, struct timing *timing)
{
    struct prepared *prepared = timing->prepared;
    struct instance *instance = timing->instance;
    struct result result = {0};
    struct ceiling after = {0};
    const enum kind kind = sequence_kind(prepared->plan, instance->line.q_len);
    result.decode = kind == KIND_DECODE;
    result.kernel = prepared->plan->row[kind]->name;
    heed_status status = prepared_run(prepared);
    if (status == HEED_OK) status = prepared_fetch(prepared);
    if (status == HEED_OK) status = verify_rows(prepared, instance, check_budget, &result.worst, &result.checked, &result.rows);
    if (status == HEED_OK && timing->peer) result.apart = peer_apart(&bench->tool.context->services, timing);
    if (status == HEED_OK) status = measure(bench, device, clip_bytes(instance->kv_bytes), &result.ceiling);
    if (status == HEED_OK) status = time_peer(bench, timing, &result);
    if (status == HEED_OK) status = measure(bench, device, clip_bytes(instance->kv_bytes), &after);
    if (status != HEED_OK) return status;
    keep_larger(&result.ceiling, &after);
    report(bench, device, instance, timing->peer, &result);
    return HEED_OK;
}

static bool timing_memory(struct timing *timing)
{
    const struct block *o = &timing->instance->block[ROLE_O];
    timing->ours = calloc(MOST_RUNS + 1, sizeof *timing->ours);
    timing->theirs = calloc(MOST_RUNS + 1, sizeof *timing->theirs);
    timing->peer_o = aligned_alloc(64, (o->bytes + 127) / 64 * 64);
    return timing->ours && timing->theirs && timing->peer_o;
}

/* One problem on one device, with each peer that can do it (or alone). */
static heed_status bench_device(struct bench *bench, int32_t device, struct instance *instance)
{
    struct prepared prepared;
    struct timing timing = {.prepared = &prepared, .instance = instance};
    heed_status status = prepared_make(bench->tool.context, device, bench->tool.options->kernel, instance, false, &prepared);
    if (status != HEED_OK) return status;
    if (!timing_memory(&timing)) status = HEED_OUT_OF_MEMORY;
    bool alone = true;
    for (int n = 0; status == HEED_OK && bench->tool.options->peers && peers[n]; n++) {
        if (peers[n]->refuses(instance)) continue;
        timing.peer = peers[n];
        alone = false;
        status = bench_prepared(bench, device, &timing);
    }
    timing.peer = NULL;
    if (status == HEED_OK && alone) status = bench_prepared(bench, device, &timing);
    free(timing.ours);
    free(timing.theirs);
    free(timing.peer_o);
    prepared_release(&prepared);
    return status;
}

static int bench_line(struct bench *bench, const struct problem_line *line)
{
    char message[512];
    int code = EXIT_OK;
    struct instance *instance = instance_new(line, INSTANCE_PLAIN, message, sizeof message);
    if (!instance) {
        fprintf(stderr, "heed bench: \"%s\": %s\n", line->text, message);
        return EXIT_USAGE;
    }
    for (int n = 0; n < bench->tool.device_count && code == EXIT_OK; n++) {
        const int32_t device = bench->tool.devices[n];
        heed_device_info info = {.struct_size = sizeof info};
        if (heed_device_get_info(bench->tool.context, device, &info) != HEED_OK || !info.usable) continue;
        progress("bench %s on %s", line->text, info.name);
        const heed_status status = bench_device(bench, device, instance);
        if (status == HEED_OK) continue;
        progress(NULL);
        /* A row that refuses a problem is no failure of a whole suite, unless it was the only thing asked for. */
        const int failed = tool_fail(status, line->text);
        if (status != HEED_UNSUPPORTED || bench->tool.options->problem_count == 1) code = failed;
    }
    instance_free(instance);
    return code;
}

static int bench_suites(struct bench *bench, const char *list)
{
    for (const char *word = list; *word;) {
        const size_t length = strcspn(word, ",");
        const struct suite *suite = suites;
        while (suite->name && (strlen(suite->name) != length || strncmp(suite->name, word, length))) suite++;
        if (!suite->name) {
            fprintf(stderr, "heed bench: no suite %.*s; there are prefill, decode, small, models\n", (int)length, word);
            return EXIT_USAGE;
        }
        for (int n = 0; suite->problems[n]; n++) {
            struct problem_line line;
            if (!problem_read(suite->problems[n], &line)) return EXIT_BROKEN;
            const int code = bench_line(bench, &line);
            if (code) return code;
        }
        word += length;
        word += *word == ',';
    }
    return EXIT_OK;
}

/* Said once, not for every problem: what is asked for but cannot be timed. */
static void name_unusable(struct bench *bench)
{
    for (int n = 0; n < bench->tool.device_count; n++) {
        heed_device_info info = {.struct_size = sizeof info};
        if (heed_device_get_info(bench->tool.context, bench->tool.devices[n], &info) == HEED_OK && !info.usable)
            fprintf(stderr, "heed bench: %s is unusable: %s\n", info.name, info.reason);
    }
}

static int bench_all(struct bench *bench)
{
    const struct options *options = bench->tool.options;
    static struct problem_line lines[MAX_PROBLEMS];
    for (int n = 0; n < options->problem_count; n++)
        if (!problem_read(options->problems[n], &lines[n])) return EXIT_USAGE;
    int code = EXIT_OK;
    name_unusable(bench);
    for (int n = 0; n < options->problem_count && code == EXIT_OK; n++) code = bench_line(bench, &lines[n]);
    if (code == EXIT_OK && (options->suite || !options->problem_count))
        code = bench_suites(bench, options->suite ? options->suite : "small");
    return code;
}

int run_bench(const struct options *options)
{
    struct bench bench = {0};
    if (options->kernel && !kernel_known(options->kernel)) return EXIT_USAGE;
    int code = tool_open(&bench.tool, options, "all");
    if (code) return code;
    bench.memory = roof_memory_new(read_bytes_most);
    if (!table_begin(&bench.table, options->peers ? columns_peers : columns, options->json) || !bench.memory) code = out_of_room();
    else code = bench_all(&bench);
    if (code == EXIT_OK && options->plot && !plot_svg(bench.table.rows, options->plot)) code = EXIT_USAGE;
    if (!table_end(&bench.table) && code == EXIT_OK) code = out_of_room();
    if (bench.noisy)
        fprintf(stderr, "heed bench: %d row%s with a spread above %.1f: the machine was busy, such times are not to be compared\n",
                bench.noisy, bench.noisy == 1 ? "" : "s", noisy_spread);
    roof_memory_free(bench.memory);
    tool_close(&bench.tool);
    return code ? code : bench.failed ? EXIT_CHECK_FAILED : EXIT_OK;
}
