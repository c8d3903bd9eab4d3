/* SPDX-License-Identifier: MIT
 * start.c - `heed bench --start`: what a program pays before its first run. Each figure is from a process of its own, with caches of its own:
 *
 *     first    nothing is known: rows are compiled, probed and compiled again, verdicts and programs are kept
 *     cold     the verdicts are known, no program is kept, neither by heed nor by the driver
 *     warm     the programs are kept, too (the median of a few processes)
 *     again    the same plan made once more in the process that has it
 *     found    the plan that heed_forward() keeps, found again; unless a row was insisted on, which heed_forward() does not know
 *     row      cold and warm of the problem's own row alone: admitted and compiled, without what else a plan gets ready (the other kind of step,
 *              append, rotate and merge)
 *
 * The figures are those of the plan (or the row) alone; `context` is heed_context_create() and the list of devices, which loads the drivers.
 */
#include "start.h"
#include "context.h"
#include "plan.h"
#include "problem.h"
#include "registry.h"
#include "schedule.h"
#include "table.h"
#include "tool.h"
#include <dirent.h>
#include <ftw.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WARM_PROCESSES = 3, AGAIN = 9 };

static const struct column columns[] = {
    {"device", "device", -17, 0},   {"kernel", "kernel", -19, 0}, {"context_ms", "context ms", 10, 2}, {"first_ms", "first ms", 9, 1}, {"cold_ms", "cold ms", 9, 2},
    {"warm_ms", "warm ms", 9, 3},   {"again_us", "again us", 9, 1}, {"found_us", "found us", 9, 2}, {"row_cold_ms", "row cold", 9, 2},
    {"row_warm_ms", "row warm", 9, 3}, {"problem", "problem", -10, 0}, {0}};

/* What a child tells its parent. */
struct report {
    heed_status status;
    int code; /* of the command, where status is not HEED_OK */
    char message[512], kernel[64], label[64];
    int32_t devices[MAX_DEVICES];
    int device_count;
    int kind;                           /* of the problem's step; its row is `kernel` */
    double context, plan, again, found; /* seconds; plan: of the row, where only that was asked for */
};

struct start {
    const struct options *options;
    const struct problem_line *line;
    const struct report *whole; /* NULL, or: only its row */
    char folder[256];
};

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* ---- in a child --------------------------------------------------------------- */

/* Our cache and those of drivers that say where they look for one, in the parent's folder. */
static void use_caches(const struct start *start)
{
    static const char *const names[] = {"POCL_CACHE_DIR", "CUDA_CACHE_PATH", "MESA_SHADER_CACHE_DIR", "NEO_CACHE_DIR"};
    char path[300];
    snprintf(path, sizeof path, "%s/driver", start->folder);
    for (size_t n = 0; n < sizeof names / sizeof *names; n++) setenv(names[n], path, 1);
    snprintf(path, sizeof path, "%s/heed", start->folder);
    setenv("HEED_CACHE_DIR", path, 1);
}

static double median_of(double *seconds, int count)
{
    qsort(seconds, (size_t)count, sizeof *seconds, by_size);
    return seconds[count / 2];
}

static heed_status time_again(const struct start *start, heed_context *context, int32_t device, double *median)
{
    double seconds[AGAIN];
    heed_status status = HEED_OK;
    for (int n = 0; status == HEED_OK && n < AGAIN; n++) {
        heed_plan *plan;
        const double begin = seconds_now();
        status = heed_plan_create(context, device, &start->line->desc, start->options->kernel, &plan);
        seconds[n] = seconds_now() - begin;
        if (status == HEED_OK) heed_plan_destroy(plan);
    }
    if (status == HEED_OK) *median = median_of(seconds, AGAIN);
    return status;
}

static heed_status time_found(const struct start *start, heed_context *context, int32_t index, double *median)
{
    double seconds[AGAIN];
    struct device *device;
    heed_status status = device_get(context, index, &device);
    *median = NAN;
    if (start->options->kernel) return status;
    for (int n = -1; status == HEED_OK && n < AGAIN; n++) {
        struct heed_plan *plan;
        const double begin = seconds_now();
        status = plan_cached(context, device, &start->line->desc, &plan);
        if (n >= 0) seconds[n] = seconds_now() - begin;
        if (status == HEED_OK) plan_drop(plan);
    }
    if (status == HEED_OK) *median = median_of(seconds, AGAIN);
    return status;
}

static heed_status time_plan(const struct start *start, struct tool *tool, int32_t device, struct report *report)
{
    heed_plan *plan = NULL;
    device_label(tool, device, report->label, sizeof report->label);
    const double begin = seconds_now();
    heed_status status = heed_plan_create(tool->context, device, &start->line->desc, start->options->kernel, &plan);
    report->plan = seconds_now() - begin;
    if (status != HEED_OK) return status;
    report->kind = sequence_kind(plan, start->line->q_len);
    snprintf(report->kernel, sizeof report->kernel, "%s", plan->row[report->kind]->name);
    status = time_again(start, tool->context, device, &report->again);
    if (status == HEED_OK) status = time_found(start, tool->context, device, &report->found);
    heed_plan_destroy(plan);
    return status;
}

static const struct kernel_row *row_named(const struct backend *backend, const char *name)
{
    const struct kernel_row *row;
    for (int32_t n = 0; (row = registry_row(backend, n)) && strcmp(row->name, name);) n++;
    return row;
}

/* What plan_make() does for one row: its verdict, its program. */
static heed_status time_row(const struct start *start, struct tool *tool, int32_t index, struct report *report)
{
    const enum kind kind = (enum kind)start->whole->kind;
    struct device *device;
    struct problem problem;
    char reason[256] = "";
    heed_status status = device_get(tool->context, index, &device);
    if (status == HEED_OK) status = problem_from_desc(&start->line->desc, &problem);
    if (status != HEED_OK) return status;
    const struct backend *backend = device->backend;
    struct heed_plan plan = {.context = tool->context, .device = device, .problem = problem};
    const double begin = seconds_now();
    plan.row[kind] = row_named(backend, start->whole->kernel);
    status = backend->admit(device, &problem, plan.row[kind], kind, reason, sizeof reason);
    if (status == HEED_OK && backend->plan_prepare) status = backend->plan_prepare(&plan);
    report->plan = seconds_now() - begin;
    if (plan.state) backend->plan_release(&plan);
    return status;
}

/* device -1: only which devices there are. */
static void child(const struct start *start, int32_t device, struct report *report)
{
    struct tool tool;
    use_caches(start);
    const double begin = seconds_now();
    report->code = tool_open(&tool, start->options, "all");
    report->status = report->code ? HEED_INTERNAL : HEED_OK;
    if (report->code) return; /* it said why */
    if (device < 0) {
        for (int n = 0; n < tool.device_count; n++) {
            heed_device_info info = {.struct_size = sizeof info};
            if (heed_device_get_info(tool.context, tool.devices[n], &info) == HEED_OK && info.usable) report->devices[report->device_count++] = tool.devices[n];
        }
    } else {
        heed_device_count(tool.context);
        report->context = seconds_now() - begin;
        report->status = start->whole ? time_row(start, &tool, device, report) : time_plan(start, &tool, device, report);
        report->code = report->status == HEED_OK ? 0 : exit_of(report->status);
        if (report->status != HEED_OK) snprintf(report->message, sizeof report->message, "%s", heed_error_message());
    }
    tool_close(&tool);
}

/* ---- in the parent, which never loads a driver ---------------------------------- */

static bool in_child(const struct start *start, int32_t device, struct report *report)
{
    int ends[2];
    size_t got = 0;
    memset(report, 0, sizeof *report);
    if (pipe(ends)) return false;
    fflush(NULL);
    const pid_t pid = fork();
    if (pid == 0) {
        child(start, device, report);
        const bool told = write(ends[1], report, sizeof *report) == (ssize_t)sizeof *report;
        _exit(told ? 0 : 1); /* drivers' own exit handlers are not ours to wait for */
    }
    close(ends[1]);
    for (ssize_t n; pid > 0 && got < sizeof *report && (n = read(ends[0], (char *)report + got, sizeof *report - got)) > 0;) got += (size_t)n;
    close(ends[0]);
    if (pid > 0) waitpid(pid, NULL, 0);
    if (got == sizeof *report) return true;
    fprintf(stderr, "heed bench: a process of --start died\n");
    report->code = EXIT_BROKEN;
    return false;
}

static int remove_one(const char *path, const struct stat *about, int type, struct FTW *where)
{
    (void)about, (void)type, (void)where;
    remove(path);
    return 0;
}

static void remove_tree(const char *path) { nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS); }

/* Programs go, verdicts stay. */
static void forget_programs(const struct start *start)
{
    char path[600];
    snprintf(path, sizeof path, "%s/driver", start->folder);
    remove_tree(path);
    snprintf(path, sizeof path, "%s/heed", start->folder);
    DIR *directory = opendir(path);
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        const char *kind = strrchr(entry->d_name, '.');
        if (entry->d_name[0] == '.' || !kind || !strcmp(kind, ".verdict")) continue;
        snprintf(path, sizeof path, "%s/heed/%s", start->folder, entry->d_name);
        remove(path);
    }
    if (directory) closedir(directory);
}

/* Cold, then warm; NaN where a process failed, which has said so. */
static bool start_row(const struct start *all, int32_t device, const struct report *whole, double *cold, double *warm)
{
    struct start start = *all;
    struct report report;
    double rows[WARM_PROCESSES];
    start.whole = whole;
    forget_programs(&start);
    bool good = in_child(&start, device, &report) && report.status == HEED_OK;
    *cold = report.plan;
    for (int n = 0; good && n < WARM_PROCESSES; n++) {
        good = in_child(&start, device, &report) && report.status == HEED_OK;
        rows[n] = report.plan;
    }
    if (good) *warm = median_of(rows, WARM_PROCESSES);
    return good;
}

static int start_device(const struct start *start, int32_t device, struct table *table)
{
    struct report first, cold, warm;
    double row_cold, row_warm, plans[WARM_PROCESSES], contexts[WARM_PROCESSES], agains[WARM_PROCESSES], founds[WARM_PROCESSES];
    bool good = in_child(start, device, &first) && first.status == HEED_OK;
    if (!good && *first.message) fprintf(stderr, "heed bench: %s: %s\n", first.label, first.message);
    if (!good) return first.code ? first.code : EXIT_BROKEN;
    forget_programs(start);
    good = in_child(start, device, &cold) && cold.status == HEED_OK;
    for (int n = 0; good && n < WARM_PROCESSES; n++) {
        good = in_child(start, device, &warm) && warm.status == HEED_OK;
        plans[n] = warm.plan, contexts[n] = warm.context, agains[n] = warm.again, founds[n] = warm.found;
    }
    if (!good || !start_row(start, device, &first, &row_cold, &row_warm)) return EXIT_BROKEN;
    table_text(table, "problem", start->line->text);
    table_text(table, "device", warm.label);
    table_text(table, "kernel", warm.kernel);
    table_number(table, "context_ms", 1e3 * median_of(contexts, WARM_PROCESSES));
    table_number(table, "first_ms", 1e3 * first.plan);
    table_number(table, "cold_ms", 1e3 * cold.plan);
    table_number(table, "warm_ms", 1e3 * median_of(plans, WARM_PROCESSES));
    table_number(table, "again_us", 1e6 * median_of(agains, WARM_PROCESSES));
    table_number(table, "found_us", 1e6 * median_of(founds, WARM_PROCESSES));
    table_number(table, "row_cold_ms", 1e3 * row_cold);
    table_number(table, "row_warm_ms", 1e3 * row_warm);
    table_row(table);
    return EXIT_OK;
}

static int start_all(const struct start *start)
{
    struct table table = {0};
    struct report list;
    if (!in_child(start, -1, &list) || list.code) return list.code ? list.code : EXIT_BROKEN;
    if (!table_begin(&table, columns, start->options->json)) return out_of_room();
    int code = EXIT_OK;
    for (int n = 0; n < list.device_count && code == EXIT_OK; n++) code = start_device(start, list.devices[n], &table);
    return !table_end(&table) && code == EXIT_OK ? out_of_room() : code;
}

int run_start(const struct options *options)
{
    struct problem_line line;
    struct start start = {.options = options, .line = &line};
    if (options->peers || options->naive || options->suite || options->plot || options->save || options->queued || options->problem_count > 1) {
        fputs("heed bench: --start takes one problem, and no suite, peers, plot, save or queue\n", stderr);
        return EXIT_USAGE;
    }
    if (options->kernel && !kernel_known(options->kernel)) return EXIT_USAGE;
    if (!problem_read(options->problem_count ? options->problems[0] : "hq32 d128 q1024 f32", &line)) return EXIT_USAGE;
    snprintf(start.folder, sizeof start.folder, "%.200s/heed-start-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    if (!mkdtemp(start.folder)) {
        perror(start.folder);
        return EXIT_BROKEN;
    }
    const int code = start_all(&start);
    remove_tree(start.folder);
    return code;
}
