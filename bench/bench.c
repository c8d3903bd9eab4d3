/* SPDX-License-Identifier: MIT
 * bench.c - `heed bench`. Every figure stands beside the machine's own ceilings of the same minute: on a shared host they move
 * by a factor of two, and a time alone says nothing. A result is checked before it is timed.
 */
#include "contest.h"
#include "harness.h"
#include "pin.h"
#include "plot.h"
#include "queued.h"
#include "roof.h"
#include "schedule.h"
#include "start.h"
#include "suites.h"
#include "summary.h"
#include "table.h"
#include "tool.h"
#include "verify.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const double check_budget = 2e8, scores_budget = 5e9, noisy_spread = 0.2;
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
    {"peer", "peer", -11, 0},        {"peer_ms_median", "peer ms", 9, 3}, {"speedup", "speedup", 7, 2},     {"note", "note", -7, 0},
    {"problem", "problem", -10, 0},
    {0}};
struct bench {
    struct tool tool;
    struct table table;
    struct roof_memory *memory;
    const struct peer *peers[MOST_PEERS + 1];
    struct summary summary;
    bool failed;
    double load; /* of the machine before we began */
    int noisy; /* rows whose spread says that the machine was not left alone */
};

static bool compares(const struct bench *bench) { return bench->tool.options->peers || bench->tool.options->naive; }

/* ---- ceilings ---------------------------------------------------------------- */

struct ceiling { double fma_gflops, read_gbps; };

/* The peak of the arithmetic that a row of the CPU has: where it multiplies bf16 as such, that of its own instruction set. */
static double peak_gflops(const struct services *services, const struct kernel_row *row)
{
    const double bf16 = row->arithmetic.weight_type == HEED_BF16 ? roof_bf16_gflops(services, row->needs, services->threads.workers) : NAN;
    return isnan(bf16) ? roof_fma_gflops(services, services->threads.workers) : bf16;
}

/* bytes: the size of what is read, so that a cache that lies in L2 is held against L2. */
static heed_status measure(struct bench *bench, int32_t device, const struct kernel_row *row, size_t bytes, struct ceiling *ceiling)
{
    const struct services *services = &bench->tool.context->services;
    if (device == 0) {
        pin_caller(true);
        ceiling->fma_gflops = peak_gflops(services, row);
        ceiling->read_gbps = roof_read_gbps(services, bench->memory, bytes, services->threads.workers);
        pin_caller(false);
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

/* ---- one line ------------------------------------------------------------------------ */

struct result {
    struct times ours;
    double worst;
    int64_t checked, rows;
    struct ceiling ceiling;
    const struct kernel_row *row;
    bool decode;
    bool unit; /* the products are a matrix unit's, whose ceiling is not measured */
};

/* A prefill is held against the FMA peak; a decode against whichever ceiling it came nearer to. With a matrix unit the FMA peak is none. */
static double roof_percent(const struct result *result, double gflops, double gbps)
{
    if (result->unit) return result->decode ? 100 * gbps / result->ceiling.read_gbps : NAN;
    const double fma = 100 * gflops / result->ceiling.fma_gflops, read = 100 * gbps / result->ceiling.read_gbps;
    return result->decode && read > fma ? read : fma;
}

static const char *note_of(const struct entrant *peer, const struct result *r)
{
    if (!peer) return NULL;
    if (peer->wrong) return "WRONG";
    if (!peer->timed) return "FAILED";
    return peer->times.median < r->ours.median ? "SLOWER" : NULL;
}

/* What the row says of a peer; NULL: heed was alone. */
static void report_peer(struct bench *bench, const struct instance *instance, const struct entrant *peer, const struct result *r)
{
    struct table *table = &bench->table;
    const double median = peer && peer->timed ? peer->times.median : NAN;
    table_text(table, "peer", peer ? peer->peer->name : NULL);
    table_text(table, "version", peer ? peer->peer->version(peer->peer) : NULL);
    table_text(table, "peer_setting", peer ? peer->setting : NULL);
    table_number(table, "peer_difference", peer ? peer->apart : NAN);
    table_number(table, "peer_ms_median", 1e3 * median);
    table_number(table, "peer_spread", peer && peer->timed ? peer->times.spread : NAN);
    table_number(table, "speedup", median / r->ours.median);
    table_text(table, "note", note_of(peer, r));
    table_text(table, "peer_message", peer && peer->why[0] ? peer->why : NULL);
    if (peer && !peer->timed)
        fprintf(stderr, "heed bench: %s: %s is not timed: %s\n", instance->line.text, peer->peer->name, peer->why);
}

static double work_of(const struct instance *instance)
{
    return 2.0 * (instance->problem.head_dim + instance->problem.v_head_dim) * instance->pairs;
}

/* What a comparison of two benches needs (script/compare). */
static json_t *samples_of(const struct times *times)
{
    json_t *samples = json_array();
    for (int n = 0; samples && n < times->pieces; n++) json_array_append_new(samples, json_real(1e3 * times->piece[n]));
    return samples;
}

static void report(struct bench *bench, int32_t device, const struct instance *instance, const struct entrant *peer, const struct result *r)
{
    struct table *table = &bench->table;
    const double gflops = 1e-9 * work_of(instance) / r->ours.median, gbps = 1e-9 * (double)instance->kv_bytes / r->ours.median;
    char label[64];
    device_label(&bench->tool, device, label, sizeof label);
    table_text(table, "problem", instance->line.text);
    table_text(table, "device", label);
    table_text(table, "backend", device == 0 ? "cpu" : "opencl");
    table_text(table, "kernel", r->row->name);
    if (device == 0) table_count(table, "threads", bench->tool.context->services.threads.workers);
    else table_text(table, "threads", NULL);
    table_number(table, "ms_median", 1e3 * r->ours.median);
    table_number(table, "ms_mean", 1e3 * r->ours.mean);
    table_json(table, "samples_ms", samples_of(&r->ours));
    table_number(table, "ms_min", 1e3 * r->ours.least);
    table_number(table, "ms_max", 1e3 * r->ours.most);
    table_number(table, "spread", r->ours.spread);
    table_count(table, "runs", r->ours.runs);
    table_count(table, "queued", device ? bench->tool.options->queued : 0);
    table_number(table, "gflops", gflops);
    table_number(table, "kv_gbps", gbps);
    table_number(table, "roof_percent", roof_percent(r, gflops, gbps));
    table_number(table, "roof_fma_gflops", r->ceiling.fma_gflops);
    table_number(table, "roof_read_gbps", r->ceiling.read_gbps);
    table_number(table, "worst_ratio", r->worst);
    table_count(table, "checked_rows", (long long)r->checked);
    table_count(table, "rows", (long long)r->rows);
    table_number(table, "load", bench->load);
    if (compares(bench)) report_peer(bench, instance, peer, r);
    table_row(table);
}

static void judge(struct bench *bench, const struct instance *instance, const struct result *r)
{
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

/* Check, ceilings, times, ceilings again. */
static heed_status bench_contest(struct bench *bench, int32_t device, struct contest *contest, struct result *result)
{
    const struct instance *instance = contest->instance;
    struct ceiling after = {0};
    heed_status status = measure(bench, device, result->row, clip_bytes(instance->kv_bytes), &result->ceiling);
    if (status == HEED_OK) status = contest_run(contest);
    if (status == HEED_OK) status = measure(bench, device, result->row, clip_bytes(instance->kv_bytes), &after);
    if (status != HEED_OK) return status;
    keep_larger(&result->ceiling, &after);
    result->ours = contest->entrant[0].times;
    for (int n = contest->count > 1; n < contest->count; n++) report(bench, device, instance, n ? &contest->entrant[n] : NULL, result);
    judge(bench, instance, result);
    return summary_add(&bench->summary, contest, device, work_of(instance)) ? HEED_OK : HEED_OUT_OF_MEMORY;
}

/* One problem on one device, with every peer that can do it (or alone). */
static heed_status bench_device(struct bench *bench, int32_t device, struct instance *instance)
{
    struct prepared prepared;
    struct contest contest = {0};
    struct result result = {0};
    const struct peer *const *peers = compares(bench) ? bench->peers : NULL;
    heed_status status = prepared_make(bench->tool.context, device, bench->tool.options->kernel, instance, false, &prepared);
    if (status != HEED_OK) return status;
    const enum kind kind = sequence_kind(prepared.plan, instance->line.q_len);
    result.decode = kind == KIND_DECODE;
    result.row = prepared.plan->row[kind];
    result.unit = device > 0 && result.row->arithmetic.weight_type > HEED_F32;
    peers_place = (struct peers_place){bench->tool.context, device, result.row->name};
    status = prepared_run(&prepared);
    if (status == HEED_OK) status = prepared_fetch(&prepared);
    if (status == HEED_OK) status = verify_rows(&prepared, instance, check_budget, &result.worst, &result.checked, &result.rows);
    if (status == HEED_OK) status = verify_scores(&prepared, instance, scores_budget, &result.worst, &result.checked);
    if (status == HEED_OK) status = contest_open(&contest, &bench->tool.context->services, &prepared, instance, peers);
    if (status == HEED_OK && bench->tool.options->queued > 0) {
        contest.queued = bench->tool.options->queued;
        status = queued_open(bench->tool.context, device, &contest.queue);
    }
    if (status == HEED_OK) status = bench_contest(bench, device, &contest, &result);
    contest_close(&contest);
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
            fprintf(stderr, "heed bench: no suite %.*s; there are prefill, decode, small, models, goals, scores, all\n", (int)length, word);
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

/* Others that run now; the least of a few looks, so that a short visitor does not count. -1: it cannot be asked. */
static int others_running(void)
{
    int least = -1;
    for (int look = 0; look < 5; look++) {
        int running = 0;
        FILE *file = fopen("/proc/loadavg", "r");
        const bool read = file && fscanf(file, "%*s %*s %*s %d/", &running) == 1;
        if (file) fclose(file);
        if (!read) return -1;
        if (least < 0 || running - 1 < least) least = running - 1; /* we are one of them */
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
    return least;
}

/* Where others work, times are theirs as much as ours. */
static void look_at_load(struct bench *bench)
{
    const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    const int others = others_running();
    if (getloadavg(&bench->load, 1) != 1) bench->load = NAN;
    if (!(bench->load > 0.5 * (double)cpus) && others < (cpus + 1) / 2) return;
    fprintf(stderr, "heed bench: the machine is busy: load %.1f, %d other%s running now on %ld CPUs: times will be noise\n", bench->load,
            others, others == 1 ? "" : "s", cpus);
}

/* Said once, not for every problem: what is asked for but cannot be timed. */
static void name_unusable(struct bench *bench)
{
    bool queues = false;
    for (int n = 0; n < bench->tool.device_count; n++) {
        heed_device_info info = {.struct_size = sizeof info};
        if (heed_device_get_info(bench->tool.context, bench->tool.devices[n], &info) != HEED_OK) continue;
        if (!info.usable) fprintf(stderr, "heed bench: %s is unusable: %s\n", info.name, info.reason);
        queues = queues || (info.usable && info.backend == HEED_BACKEND_OPENCL);
    }
    if (bench->tool.options->queued && !queues)
        fputs("heed bench: --queued: no OpenCL device is timed, and the CPU has no queue: these are times of single runs\n", stderr);
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

/* Which peers are there, with versions, and why others are not. */
static void name_peers(const struct bench *bench, FILE *file)
{
    for (int n = 0; bench->peers[n]; n++) {
        const struct peer *peer = bench->peers[n];
        const char *absent = peer->absent(peer);
        fprintf(file, "peer %-12s %s%s\n", peer->name, absent ? "is not there: " : "", absent ? absent : peer->version(peer));
    }
}

static void add_naive(const struct peer **list)
{
    while (*list) list++;
    *list = &peer_naive_row;
}

int run_bench(const struct options *options)
{
    struct bench bench = {0};
    if (options->start) return run_start(options);
    if (options->kernel && !kernel_known(options->kernel)) return EXIT_USAGE;
    if (options->queued && (options->peers || options->naive)) {
        fprintf(stderr, "heed bench: --queued times heed's runs in a row; --peers and --naive time single runs\n");
        return EXIT_USAGE;
    }
    if (options->plot && !plot_name_good(options->plot)) return EXIT_USAGE;
    look_at_load(&bench);
    int code = tool_open(&bench.tool, options, "all");
    if (code) return code;
    FILE *words = options->json ? stderr : stdout; /* --json: standard output is the array alone */
    if (options->peers) peers_open(bench.peers, bench.tool.context->services.threads.workers);
    if (options->naive) add_naive(bench.peers);
    if (compares(&bench)) name_peers(&bench, words);
    pin_pool(&bench.tool.context->services);
    bench.memory = roof_memory_new(read_bytes_most);
    if (!table_begin(&bench.table, compares(&bench) ? columns_peers : columns, options->json) || !bench.memory) code = out_of_room();
    else code = bench_all(&bench);
    if (code == EXIT_OK && options->save && json_dump_file(bench.table.rows, options->save, JSON_INDENT(1) | JSON_REAL_PRECISION(6))) {
        fprintf(stderr, "heed bench: %s cannot be written\n", options->save);
        code = EXIT_USAGE;
    }
    if (code == EXIT_OK && options->plot && !plot_rows(bench.table.rows, options->plot)) code = EXIT_USAGE;
    if (code == EXIT_OK && bench.summary.count > 1) summary_print(&bench.summary, words);
    if (!table_end(&bench.table) && code == EXIT_OK) code = out_of_room();
    if (bench.noisy)
        fprintf(stderr, "heed bench: %d row%s with a spread above %.1f: the machine was busy, such times are not to be compared\n",
                bench.noisy, bench.noisy == 1 ? "" : "s", noisy_spread);
    summary_free(&bench.summary);
    if (options->peers) peers_close();
    roof_memory_free(bench.memory);
    tool_close(&bench.tool);
    return code ? code : bench.failed ? EXIT_CHECK_FAILED : EXIT_OK;
}
