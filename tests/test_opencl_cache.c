/* SPDX-License-Identifier: MIT
 * test_opencl_cache.c - what the wing keeps on disk and whom it lets in: every damage to a file is seen, a driver never gets a damaged
 * program, a failed build says why, a kernel with wrong answers is refused.
 */
#include "opencl_rig.h"
#include "context.h"
#include "opencl/cl.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static const uint64_t key[2] = {0x1234, 0x5678};
static const char payload[] = "what a driver compiled";

/* A folder of its own for every test. */
struct folder {
    char path[64];
    struct services services;
};

static void folder_make(struct folder *f)
{
    *f = (struct folder){.path = "/tmp/heed-cache-XXXXXX"};
    cr_assert(mkdtemp(f->path) != NULL);
    f->services.cache_dir = f->path;
}

static int folder_files(const char *path, const char *suffix, char *last, size_t capacity)
{
    DIR *entries = opendir(path);
    const struct dirent *entry;
    int count = 0;
    while (entries && (entry = readdir(entries))) {
        const char *end = strrchr(entry->d_name, '.');
        if (!end || strcmp(end, suffix)) continue;
        count++;
        if (last) snprintf(last, capacity, "%s/%s", path, entry->d_name);
    }
    if (entries) closedir(entries);
    return count;
}

static void folder_free(struct folder *f)
{
    char name[512];
    for (const char *const *suffix = (const char *const[]){".test", ".verdict", ".program", NULL}; *suffix; suffix++)
        while (folder_files(f->path, *suffix, name, sizeof name)) {
            if (unlink(name) && rmdir(name)) break;
        }
    rmdir(f->path);
}

static size_t file_read(const char *path, unsigned char *to, size_t capacity)
{
    FILE *file = fopen(path, "rb");
    cr_assert(file != NULL, "%s", path);
    const size_t bytes = fread(to, 1, capacity, file);
    fclose(file);
    return bytes;
}

static void file_write(const char *path, const unsigned char *from, size_t bytes)
{
    FILE *file = fopen(path, "wb");
    cr_assert(file != NULL);
    cr_assert_eq(fwrite(from, 1, bytes, file), bytes);
    fclose(file);
}

static bool loads(const struct services *services)
{
    size_t length = 0;
    char *got = cl_cache_load(services, key, "test", &length);
    const bool good = got && length == sizeof payload && !memcmp(got, payload, length);
    cr_assert(!got || good, "a damaged payload came out");
    free(got);
    return good;
}

/* ---- files ---------------------------------------------------------------------------- */

Test(opencl_cache, every_damage_to_a_file_is_seen)
{
    struct folder f;
    folder_make(&f);
    char path[512];
    unsigned char bytes[4096];
    cr_assert(!loads(&f.services), "absent");
    cl_cache_store(&f.services, key, "test", payload, sizeof payload);
    cr_assert_eq(folder_files(f.path, ".test", path, sizeof path), 1);
    cr_assert(loads(&f.services));
    const size_t length = file_read(path, bytes, sizeof bytes);
    for (size_t n = 0; n < length; n++)
        for (int bit = 0; bit < 8; bit += 7) {
            bytes[n] ^= (unsigned char)(1 << bit);
            file_write(path, bytes, length);
            cr_assert(!loads(&f.services), "byte %zu flipped", n);
            bytes[n] ^= (unsigned char)(1 << bit);
        }
    for (size_t n = 0; n < length; n++) {
        file_write(path, bytes, n);
        cr_assert(!loads(&f.services), "cut at %zu", n);
    }
    bytes[length] = 0;
    file_write(path, bytes, length + 1);
    cr_assert(!loads(&f.services), "one byte too many");
    cl_cache_store(&f.services, key, "test", payload, sizeof payload);
    cr_assert(loads(&f.services), "made again");
    const uint64_t other[2] = {0x1234, 0x5679};
    size_t unused;
    cr_assert_eq(cl_cache_load(&f.services, other, "test", &unused), NULL);
    folder_free(&f);
}

Test(opencl_cache, links_folders_and_open_doors_are_refused)
{
    struct folder f;
    folder_make(&f);
    char path[512], aside[600];
    struct stat about;
    cl_cache_store(&f.services, key, "test", payload, sizeof payload);
    cr_assert_eq(folder_files(f.path, ".test", path, sizeof path), 1);
    cr_assert_eq(stat(path, &about), 0);
    cr_assert_eq(about.st_mode & 0777, 0600);
    snprintf(aside, sizeof aside, "%s.aside", path);
    cr_assert_eq(rename(path, aside), 0);
    cr_assert_eq(symlink(aside, path), 0);
    cr_assert(!loads(&f.services), "a link");
    unlink(path);
    cr_assert_eq(mkdir(path, 0700), 0);
    cr_assert(!loads(&f.services), "a folder");
    rmdir(path);
    cr_assert_eq(mkfifo(path, 0600), 0);
    cr_assert(!loads(&f.services), "a pipe");
    unlink(path);
    cr_assert_eq(rename(aside, path), 0);
    cr_assert(loads(&f.services));
    cr_assert_eq(chmod(f.path, 0777), 0);
    cr_assert(!loads(&f.services), "a folder in which others may write");
    cr_assert_eq(chmod(f.path, 0500), 0);
    cl_cache_store(&f.services, key, "test", "x", 1); /* nowhere to write: no error */
    cr_assert_eq(chmod(f.path, 0700), 0);
    folder_free(&f);
}

Test(opencl_cache, a_missing_folder_is_made_private)
{
    struct folder f;
    folder_make(&f);
    char deep[128];
    struct stat about;
    snprintf(deep, sizeof deep, "%s/a/b", f.path);
    struct services services = {.cache_dir = deep};
    cl_cache_store(&services, key, "test", payload, sizeof payload);
    cr_assert_eq(stat(deep, &about), 0);
    cr_assert_eq(about.st_mode & 0777, 0700);
    cr_assert(loads(&services));
    char name[512];
    while (folder_files(deep, ".test", name, sizeof name)) unlink(name);
    rmdir(deep);
    snprintf(deep, sizeof deep, "%s/a", f.path);
    rmdir(deep);
    services.cache_dir = NULL;
    cl_cache_store(&services, key, "test", payload, sizeof payload);
    cr_assert(!loads(&services), "no folder, no cache, no error");
    folder_free(&f);
}

/* ---- verdicts and programs --------------------------------------------------------------- */

/* Plans with a cache folder, twice; between the two every file is damaged. own_cache false: compiled programs are kept by us, too. */
static void plans_over_damage(bool own_cache)
{
    struct folder f;
    folder_make(&f);
    struct rig *r = rig_new(5, 21, 20);
    int programs = 0;
    for (int round = 0; round < 3; round++) {
        heed_context *context = cl_test_context(f.path);
        const int32_t device = cl_test_device(context);
        if (device < 0) {
            heed_context_destroy(context);
            folder_free(&f);
            cr_skip_test("no OpenCL device");
        }
        struct device *inside;
        cr_assert_eq(device_get(context, device, &inside), HEED_OK);
        cl_device_of(inside)->own_cache = own_cache;
        rig_clear(r);
        cr_assert_eq(heed_forward(context, device, &r->desc, &r->lengths, &r->tensors), HEED_OK, "%s", heed_error_message());
        cr_assert(rig_right(r, r->o, r->lse));
        heed_context_destroy(context);
        cr_assert_gt(folder_files(f.path, ".verdict", NULL, 0), 0);
        programs = folder_files(f.path, ".program", NULL, 0);
        for (const char *const *suffix = (const char *const[]){".verdict", ".program", NULL}; round == 1 && *suffix; suffix++) {
            DIR *entries = opendir(f.path);
            const struct dirent *entry;
            while ((entry = readdir(entries))) {
                static unsigned char bytes[8 << 20];
                char path[512];
                if (!strstr(entry->d_name, *suffix)) continue;
                snprintf(path, sizeof path, "%s/%s", f.path, entry->d_name);
                const size_t length = file_read(path, bytes, sizeof bytes);
                file_write(path, bytes, length / 2); /* a program cut in half crashes one driver */
            }
            closedir(entries);
        }
    }
    if (!own_cache) cr_assert_gt(programs, 0, "no program was kept");
    else cr_assert_eq(programs, 0, "the driver keeps programs itself");
    rig_free(r);
    folder_free(&f);
}

Test(opencl_cache, damaged_verdicts_are_made_again, .timeout = 300) { plans_over_damage(true); }
/* One driver's own cache is switched off, so that builds take as long as they do where there is none. */
Test(opencl_cache, damaged_programs_are_made_again, .timeout = 300)
{
    setenv("POCL_KERNEL_CACHE", "0", 1);
    plans_over_damage(false);
}

/* ---- builds and admission -------------------------------------------------------------------- */

static size_t broken_options(const struct cl_device *device, const struct problem *problem, char *text, size_t capacity)
{
    (void)device, (void)problem;
    return text_append(text, capacity, 0, " -DLOADERS=1"); /* common.cl defines it with arguments: the lines that use it break */
}

static size_t wrong_options(const struct cl_device *device, const struct problem *problem, char *text, size_t capacity)
{
    (void)device, (void)problem;
    return text_append(text, capacity, 0, " -DROW_LIMIT=1024 -DMUTANT_cl_naive_rescale"); /* a planted bug of naive.cl */
}

static const struct kernel_row *naive_row(void)
{
    const struct kernel_row *row = cl_rows;
    while (strcmp(row->name, "opencl.naive")) row++;
    return row;
}

static void first_device(heed_context **context, struct device **device)
{
    *context = cl_test_context(NULL);
    const int32_t index = cl_test_device(*context);
    if (index < 0) {
        heed_context_destroy(*context);
        cr_skip_test("no OpenCL device");
    }
    cr_assert_eq(device_get(*context, index, device), HEED_OK);
}

static struct problem small_problem(void)
{
    struct problem problem;
    const heed_desc desc = {.struct_size = sizeof desc, .q_heads = 2, .head_dim = 16, .flags = HEED_CAUSAL, .scale = 1.5f};
    cr_assert_eq(problem_from_desc(&desc, &problem), HEED_OK);
    return problem;
}

Test(opencl_cache, a_failed_build_says_why)
{
    heed_context *context;
    struct device *device;
    first_device(&context, &device);
    const struct problem problem = small_problem();
    struct cl_kernel_spec spec = *naive_row()->cl;
    struct kernel_row row = *naive_row();
    struct cl_program *program;
    char reason[256] = "";
    spec.parts[1] = "append.cl"; /* it wants constants that attention does not have */
    spec.options = broken_options;
    spec.kernel = "append";
    row.cl = &spec;
    row.name = "opencl.broken";
    spec.parts[0] = "merge.cl"; /* without common.cl nothing is known */
    cr_assert_eq(cl_program_get(cl_device_of(device), &row, &problem, &program), HEED_BUILD_FAILED);
    cr_assert(strstr(heed_error_message(), "opencl.broken"), "%s", heed_error_message());
    cr_assert(strstr(heed_error_message(), "CL_BUILD_PROGRAM_FAILURE"), "%s", heed_error_message());
    cr_assert(strstr(heed_error_message(), ".cl:"), "the log names our files: %s", heed_error_message());
    cr_assert_eq(cl_admit(device, &problem, &row, KIND_PREFILL, reason, sizeof reason), HEED_BUILD_FAILED);
    cr_assert_eq(cl_admit(device, &problem, &row, KIND_PREFILL, reason, sizeof reason), HEED_BUILD_FAILED, "remembered");
    cr_assert(reason[0] && !strchr(reason, '\n'), "%s", reason);
    heed_context_destroy(context);
}

Test(opencl_cache, a_kernel_with_wrong_answers_is_refused)
{
    heed_context *context;
    struct device *device;
    first_device(&context, &device);
    const struct problem problem = small_problem();
    struct cl_kernel_spec spec = *naive_row()->cl;
    struct kernel_row row = *naive_row();
    char reason[256] = "";
    cr_assert_eq(cl_admit(device, &problem, &row, KIND_PREFILL, reason, sizeof reason), HEED_OK, "%s", reason);
    spec.options = wrong_options;
    row.cl = &spec;
    row.name = "opencl.wrong";
    cr_assert_eq(cl_admit(device, &problem, &row, KIND_PREFILL, reason, sizeof reason), HEED_UNSUPPORTED);
    cr_assert(strstr(reason, "wrong result in its probe: o["), "%s", reason);
    cr_assert(strstr(device->info.reason, "opencl.wrong"), "heed info shows it: %s", device->info.reason);
    spec.kernel = "no_such_kernel";
    cr_assert_neq(cl_admit(device, &problem, &row, KIND_DECODE, reason, sizeof reason), HEED_OK);
    heed_context_destroy(context);
}

/* Right answers for all keys at once are not enough where a row leaves sums of some keys to be merged. */
static size_t wrong_cpu_parts(const struct cl_device *device, const struct problem *problem, char *text, size_t capacity)
{
    (void)device, (void)problem;
    return text_append(text, capacity, 0, " -DMUTANT_cl_part_end"); /* planted: items see the keys behind theirs, too */
}

static size_t wrong_tile_parts(const struct cl_device *device, const struct problem *problem, char *text, size_t capacity)
{
    return text_append(text, capacity, cl_prefill_tile.options(device, problem, text, capacity), " -DMUTANT_cl_part_end");
}

static void refused_for_parts(struct device *device, const char *name, size_t (*options)(const struct cl_device *, const struct problem *, char *, size_t))
{
    const struct problem problem = small_problem();
    char reason[256] = "";
    struct kernel_row row = *cl_rows;
    for (int n = 0; strcmp(row.name, name); n++) row = cl_rows[n];
    struct cl_kernel_spec spec = *row.cl;
    if (cl_admit(device, &problem, &row, KIND_PREFILL, reason, sizeof reason) != HEED_OK) {
        fprintf(stderr, "skipped: %s: %s\n", name, reason);
        return;
    }
    spec.options = options;
    row.cl = &spec;
    cr_assert_eq(cl_admit(device, &problem, &row, KIND_PREFILL, reason, sizeof reason), HEED_UNSUPPORTED, "%s", name);
    cr_assert(strstr(reason, "wrong result in its probe: o["), "%s", reason);
}

Test(opencl_cache, a_kernel_with_wrong_parts_is_refused, .timeout = 120)
{
    heed_context *context;
    struct device *device;
    first_device(&context, &device);
    refused_for_parts(device, "opencl.prefill_cpu", wrong_cpu_parts);
    refused_for_parts(device, "opencl.prefill_tile", wrong_tile_parts);
    heed_context_destroy(context);
}

/* ---- tuning ------------------------------------------------------------------------------------- */

Test(opencl_cache, a_tuning_file_overrides_the_built_in_line)
{
    struct folder f;
    char path[128];
    static const char text[] = "# comment\n\"pocl-cpu\" rows=3 lanes=4 guard=0\n\"pocl-cpu\" rows=9 nonsense=1\n\"pocl-cpu\" rows=-1\n"
                               "\"a device\" wgx=0 wgy=5\n\"another\" lanes=7\nno quotes lanes=8\n";
    folder_make(&f);
    snprintf(path, sizeof path, "%s/tuning.test", f.path);
    file_write(path, (const unsigned char *)text, sizeof text - 1);
    f.services.tuning_file = path;
    struct cl_tuning tuning = *cl_tuning_named("pocl-cpu");
    const struct cl_tuning before = tuning;
    cl_tuning_read(&f.services, "a device", &tuning);
    cr_assert_eq(tuning.tile_rows, 3, "a line with a mistake is not used");
    cr_assert_eq(tuning.lanes, 4);
    cr_assert(!tuning.loop_guard);
    cr_assert_eq(tuning.wg_x, before.wg_x, "no groups of nothing");
    cr_assert_eq(tuning.wg_y, 5);
    cr_assert_eq(tuning.lane_rows, before.lane_rows);
    f.services.tuning_file = "/nowhere/at/all";
    cl_tuning_read(&f.services, "a device", &tuning);
    folder_free(&f);
}
