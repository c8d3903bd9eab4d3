/* SPDX-License-Identifier: MIT
 * tune.c - heed tune: tile sizes of an OpenCL row tried on one device and one problem. Each goes the way of all rows: probed, checked against the definition,
 * then timed. The winner, if it wins again in turns with what was there, goes into a text file that HEED_TUNING may name.
 */
#include "contest.h"
#include "schedule.h"
#include "table.h"
#include "tool.h"
#include "verify.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef HEED_OPENCL
enum { MOST_TILES = 20, TEXT_BYTES = 1 << 16, TURNS = 3 };
static const double check_budget = 1e8, least_gain = 0.02; /* less is noise */

/* What is worth trying, by the beginning of the row's name. "" is what is there. */
static const struct {
    const char *row;
    const char *tiles[MOST_TILES];
} candidates[] = {
    {"opencl.prefill_cpu", {"", "rows=6 vectors=4", "rows=6 vectors=2", "rows=6 vectors=1", "rows=4 vectors=4", "rows=4 vectors=2", "rows=8 vectors=3",
                            "rows=8 vectors=1", "rows=12 vectors=2", "rows=12 vectors=1"}},
    {"opencl.prefill_tile", {"", "wgx=8 wgy=16 lanerows=4 lanevector=4", "wgx=8 wgy=8 lanerows=4 lanevector=4", "wgx=8 wgy=8 lanerows=8 lanevector=4",
                             "wgx=8 wgy=16 lanerows=2 lanevector=4", "wgx=4 wgy=16 lanerows=4 lanevector=8", "wgx=4 wgy=16 lanerows=2 lanevector=8",
                             "wgx=2 wgy=16 lanerows=4 lanevector=16", "wgx=2 wgy=8 lanerows=4 lanevector=16", "wgx=12 wgy=8 lanerows=4 lanevector=8",
                             "wgx=24 wgy=8 lanerows=4 lanevector=4",
                             /* wide reads and slices ahead */
                             "wgx=8 wgy=16 lanerows=4 lanevector=4 reads=1", "wgx=8 wgy=16 lanerows=4 lanevector=4 reads=2",
                             "wgx=16 wgy=8 lanerows=4 lanevector=4 reads=2", "wgx=16 wgy=8 lanerows=8 lanevector=4 reads=1",
                             "wgx=16 wgy=8 lanerows=8 lanevector=4 reads=2", "wgx=16 wgy=8 lanerows=8 lanevector=4 reads=2 qslice=8",
                             "wgx=16 wgy=8 lanerows=8 lanevector=4 reads=2 qslice=8 vslice=8",
                             "wgx=16 wgy=8 lanerows=8 lanevector=4 reads=2 local=96"}},
    {"opencl.decode_lanes", {"", "lanes=16", "lanes=32", "lanes=64", "lanes=128", "lanes=256"}},
    {"opencl.prefill_matrix", {"", "mrows=64 mkeys=64 mwarps=4 mslots=3 mlocal=1", "mrows=64 mkeys=64 mwarps=4 mslots=2 mlocal=1",
                               "mrows=64 mkeys=64 mwarps=4 mslots=2 mlocal=2", "mrows=64 mkeys=32 mwarps=4 mslots=4 mlocal=1",
                               "mrows=64 mkeys=32 mwarps=2 mslots=2 mlocal=2", "mrows=64 mkeys=32 mwarps=2 mslots=3 mlocal=2",
                               "mrows=32 mkeys=64 mwarps=2 mslots=3 mlocal=1", "mrows=64 mkeys=16 mwarps=4 mslots=4 mlocal=1"}},
    {"opencl.prefill_warpgroup", {"", "gkeys=64 gslots=4", "gkeys=64 gslots=6", "gkeys=96 gslots=4", "gkeys=112 gslots=4", "gkeys=128 gslots=4", "gkeys=128 gslots=2",
                                  "gkeys=64 gslots=2"}},
    {"opencl.prefill_columns", {"", "mkeys=32 mslots=2 mlocal=2", "mkeys=32 mslots=3 mlocal=2", "mkeys=64 mslots=2 mlocal=2", "mkeys=64 mslots=2 mlocal=1",
                                "mwarps=2 mkeys=32 mslots=2", "mwarps=4 mkeys=32 mslots=2", "mwarps=8 mkeys=32 mslots=2",
                                "mwarps=4 mrows=128 mkeys=32 mslots=2 mlocal=2"}},
};

static const struct column columns[] = {{"tile", "tile", -44, 0},          {"ms_median", "ms", 9, 3},  {"spread", "spread", 6, 2},
                                        {"speedup", "speedup", 7, 2},      {"worst_ratio", "err/bound", 9, 3}, {"note", "note", -4, 0}, {0}};

struct tune {
    struct tool tool;
    struct table table;
    struct instance *instance;
    int32_t device;
    char name[128];        /* of the device, as a line of the file begins */
    char row[64];          /* the row that is tuned */
    char *kept;            /* the file's text without our own line for this device and row; owned */
    char path[256];        /* of the file that each candidate is tried with */
};

/* A candidate in use: a context of its own, since tile sizes are read when devices are listed. */
struct trial {
    heed_context *context;
    struct prepared prepared;
    struct contest contest;
    bool open;
    double worst;
};

/* ---- the file ---------------------------------------------------------------- */

static bool is_own_remark(const struct tune *tune, const char *line)
{
    char begin[256];
    snprintf(begin, sizeof begin, "# heed tune: %s, %s,", tune->name, tune->row);
    return !strncmp(line, begin, strlen(begin));
}

/* What stays of a file: all but our remark about this device and row, and the line behind it. A file that is not there is empty. */
static char *read_kept(const struct tune *tune, const char *path)
{
    char *text = calloc(1, TEXT_BYTES), line[4096];
    FILE *file = path && text ? fopen(path, "re") : NULL;
    size_t length = 0;
    while (file && fgets(line, sizeof line, file)) {
        if (is_own_remark(tune, line)) {
            if (!fgets(line, sizeof line, file)) break;
            continue;
        }
        length += (size_t)snprintf(text + length, TEXT_BYTES - length, "%s", line);
        if (length >= TEXT_BYTES) {
            free(text);
            text = NULL;
            break;
        }
    }
    if (file) fclose(file);
    return text;
}

static bool write_file(const struct tune *tune, const char *path, const char *tile, const char *remark)
{
    FILE *file = fopen(path, "we");
    if (!file) return false;
    bool good = fputs(tune->kept, file) >= 0 && (!*remark || fprintf(file, "# heed tune: %s, %s, %s\n", tune->name, tune->row, remark) > 0) &&
                (!*tile || fprintf(file, "\"%s\" %s\n", tune->name, tile) > 0);
    return !fclose(file) && good;
}

/* ---- one candidate ------------------------------------------------------------- */

static void trial_close(struct trial *trial)
{
    if (trial->open) contest_close(&trial->contest);
    if (trial->prepared.context) prepared_release(&trial->prepared);
    heed_context_destroy(trial->context);
    *trial = (struct trial){0};
}

/* Made, run, checked: ready to be timed. The message is the library's. */
static heed_status trial_open(struct tune *tune, const char *tile, struct trial *trial)
{
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = tune->tool.options->threads};
    int64_t checked, rows;
    *trial = (struct trial){0};
    if (!write_file(tune, tune->path, tile, "") || setenv("HEED_TUNING", tune->path, 1)) return HEED_INTERNAL;
    heed_status status = heed_context_create(&options, &trial->context);
    if (status == HEED_OK) status = prepared_make(trial->context, tune->device, tune->row, tune->instance, false, &trial->prepared);
    if (status == HEED_OK) status = prepared_run(&trial->prepared);
    if (status == HEED_OK) status = prepared_fetch(&trial->prepared);
    if (status == HEED_OK) status = verify_rows(&trial->prepared, tune->instance, check_budget, &trial->worst, &checked, &rows);
    if (status != HEED_OK) return status;
    trial->open = true;
    return contest_open(&trial->contest, &trial->context->services, &trial->prepared, tune->instance, NULL);
}

/* Median seconds of this turn alone; the library's message on failure. */
static heed_status time_trial(struct trial *trial, double *seconds)
{
    struct entrant *heed = &trial->contest.entrant[0];
    heed->runs = 0;
    heed->total = 0;
    const heed_status status = contest_run(&trial->contest);
    *seconds = heed->times.median;
    return status;
}

/* Seconds, INFINITY where it was refused or wrong; a row of the table. */
static double try_tile(struct tune *tune, const char *tile, double before)
{
    struct trial trial;
    char note[200] = "";
    progress("tune %s: %s", tune->row, *tile ? tile : "as it is");
    heed_status status = trial_open(tune, tile, &trial);
    const bool right = status == HEED_OK && trial.worst <= 1;
    double seconds = INFINITY;
    if (right) status = time_trial(&trial, &seconds);
    if (status != HEED_OK) snprintf(note, sizeof note, "refused: %.*s", (int)strcspn(heed_error_message(), "\n"), heed_error_message());
    else if (!right) snprintf(note, sizeof note, "WRONG");
    if (status != HEED_OK) seconds = INFINITY;
    progress(NULL);
    table_text(&tune->table, "tile", *tile ? tile : "(as it is)");
    table_number(&tune->table, "ms_median", isfinite(seconds) ? 1e3 * seconds : NAN);
    table_number(&tune->table, "spread", isfinite(seconds) ? trial.contest.entrant[0].times.spread : NAN);
    table_number(&tune->table, "speedup", isfinite(seconds) && before > 0 ? before / seconds : NAN);
    table_number(&tune->table, "worst_ratio", status == HEED_OK ? trial.worst : NAN);
    table_text(&tune->table, "note", note);
    table_row(&tune->table);
    trial_close(&trial);
    return seconds;
}

/* Both in turns, in the same minute: does the winner win every time, by more than noise? Its gain, 0 if not. */
static double confirm(struct tune *tune, const char *tile)
{
    struct trial old, new;
    double gain = INFINITY;
    heed_status status = trial_open(tune, "", &old);
    if (status == HEED_OK) status = trial_open(tune, tile, &new);
    else new = (struct trial){0};
    for (int turn = 0; turn < TURNS && status == HEED_OK; turn++) {
        progress("tune %s: %s again, turn %d of %d", tune->row, tile, turn + 1, TURNS);
        double before = 0, after = INFINITY;
        status = time_trial(&old, &before);
        if (status == HEED_OK) status = time_trial(&new, &after);
        const double one = before / after - 1;
        if (one < gain) gain = one;
    }
    progress(NULL);
    trial_close(&old);
    trial_close(&new);
    return status == HEED_OK && gain >= least_gain ? gain : 0;
}

/* ---- all of them ------------------------------------------------------------------ */

static const char *const *tiles_of(const char *row)
{
    for (size_t n = 0; n < sizeof candidates / sizeof *candidates; n++)
        if (!strncmp(row, candidates[n].row, strlen(candidates[n].row))) return candidates[n].tiles;
    return NULL;
}

/* Which row the planner takes for this problem. */
static heed_status choose_row(struct tune *tune)
{
    struct prepared prepared;
    heed_device_info info = {.struct_size = sizeof info};
    heed_status status = heed_device_get_info(tune->tool.context, tune->device, &info);
    if (status == HEED_OK) status = prepared_make(tune->tool.context, tune->device, tune->tool.options->kernel, tune->instance, false, &prepared);
    if (status != HEED_OK) return status;
    snprintf(tune->name, sizeof tune->name, "%s", strchr(info.name, '"') ? info.family : info.name);
    snprintf(tune->row, sizeof tune->row, "%s", prepared.plan->row[sequence_kind(prepared.plan, tune->instance->line.q_len)]->name);
    prepared_release(&prepared);
    return HEED_OK;
}

static int keep(struct tune *tune, const char *tile, double gain, const char *path)
{
    char remark[512], temporary[4096];
    snprintf(remark, sizeof remark, "%.200s: %.0f %% faster than before", tune->instance->line.text, 100 * gain);
    fprintf(stderr, "heed tune: \"%s\" %s: %s\n", tune->name, tile, remark);
    if (!path) {
        fprintf(stderr, "heed tune: not kept: name a file by -o FILE or HEED_TUNING\n");
        return EXIT_OK;
    }
    if (snprintf(temporary, sizeof temporary, "%s.new", path) >= (int)sizeof temporary || !write_file(tune, temporary, tile, remark) ||
        rename(temporary, path)) {
        perror(path);
        return EXIT_BROKEN;
    }
    fprintf(stderr, "heed tune: kept in %s: HEED_TUNING=%s uses it\n", path, path);
    return EXIT_OK;
}

static int tune_tiles(struct tune *tune, const char *path)
{
    const char *const *tiles = tiles_of(tune->row);
    const char *best = "";
    double before = 0, least = INFINITY, gain = 0;
    if (!tiles) {
        fprintf(stderr, "heed tune: %s has no tile sizes to choose\n", tune->row);
        return EXIT_OK;
    }
    for (int n = 0; n < MOST_TILES && tiles[n]; n++) {
        const double seconds = try_tile(tune, tiles[n], before);
        if (n == 0) before = seconds;
        if (seconds < least) least = seconds, best = tiles[n];
    }
    if (!isfinite(least)) return EXIT_CHECK_FAILED;
    if (*best) gain = confirm(tune, best);
    if (gain > 0) return keep(tune, best, gain, path);
    fprintf(stderr, "heed tune: what is there stays: nothing was faster by %.0f %% in every turn\n", 100 * least_gain);
    return EXIT_OK;
}

static int tune_line(struct tune *tune, const struct problem_line *line)
{
    char message[512];
    const char *path = tune->tool.options->output ? tune->tool.options->output : getenv("HEED_TUNING");
    char *copy = path && *path ? strdup(path) : NULL; /* setenv takes getenv's text away */
    int code = EXIT_USAGE;
    tune->instance = instance_new(line, INSTANCE_PLAIN, message, sizeof message);
    if (!tune->instance) fprintf(stderr, "heed tune: \"%s\": %s\n", line->text, message);
    else {
        const heed_status status = choose_row(tune);
        if (status != HEED_OK) code = tool_fail(status, line->text);
        else if (!(tune->kept = read_kept(tune, copy))) code = out_of_room();
        else code = tune_tiles(tune, copy);
    }
    instance_free(tune->instance);
    free(tune->kept);
    free(copy);
    return code;
}
#endif

int run_tune(const struct options *options)
{
#ifndef HEED_OPENCL
    (void)options;
    fprintf(stderr, "heed tune: this build has no OpenCL\n");
    return EXIT_NO_DEVICE;
#else
    struct tune tune = {0};
    struct problem_line line;
    if (options->kernel && !kernel_known(options->kernel)) return EXIT_USAGE;
    if (options->problem_count > 1) {
        fprintf(stderr, "heed tune: one problem at a time\n");
        return EXIT_USAGE;
    }
    if (!problem_read(options->problem_count ? options->problems[0] : "hq8 d128 q512 f16 causal", &line)) return EXIT_USAGE;
    int code = tool_open(&tune.tool, options, "opencl");
    if (code) return code;
    tune.device = tune.tool.devices[0];
    if (tune.device == 0) {
        fprintf(stderr, "heed tune: rows of the CPU have no tile sizes to choose: name a device by --device opencl\n");
        code = EXIT_USAGE;
    }
    snprintf(tune.path, sizeof tune.path, "%.200s/heed-tune-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    const int file = code ? -1 : mkstemp(tune.path);
    if (!code && file < 0) {
        perror(tune.path);
        code = EXIT_BROKEN;
    }
    if (!code && table_begin(&tune.table, columns, options->json)) {
        code = tune_line(&tune, &line);
        if (!table_end(&tune.table) && !code) code = out_of_room();
    }
    if (file >= 0) {
        close(file);
        unlink(tune.path);
    }
    tool_close(&tune.tool);
    return code;
#endif
}
