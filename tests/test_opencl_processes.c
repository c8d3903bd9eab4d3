/* SPDX-License-Identifier: MIT
 * test_opencl_processes.c - OpenCL and processes: sixteen that build the same at once with nothing kept on disk yet (pocl#1480), and exits while
 * plans, batches, buffers and contexts live (clvk#531, Halide#7885). Parents here never touch OpenCL: a forked child may then.
 */
#include "fault_rig.h"
#include <dirent.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *cause(int status)
{
    static char text[64];
    if (WIFSIGNALED(status))
        snprintf(text, sizeof text, "signal %d", WTERMSIG(status));
    else
        snprintf(text, sizeof text, "exit status %d", WEXITSTATUS(status));
    return text;
}

enum { NO_DEVICE = 77, FINE = 0 }; /* how a child ends; other numbers name the step that failed */

/* ---- sixteen at once -------------------------------------------------------------------- */

enum { PROCESSES = 16 };

static int files_of(const char *path, const char *part)
{
    DIR *entries = opendir(path);
    const struct dirent *entry;
    int count = 0;
    while (entries && (entry = readdir(entries))) count += strstr(entry->d_name, part) != NULL;
    if (entries) closedir(entries);
    return count;
}

/* One process: a row is built, probed and admitted, so it gives right answers, and what is known is kept. No assertions: the parent waits. */
static int build_and_probe(const char *cache, bool own_cache, bool *from_disk)
{
    heed_context *context = NULL;
    struct device *inside;
    struct problem problem;
    char reason[256] = "";
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = 1, .cache_dir = cache};
    const heed_desc desc = {.struct_size = sizeof desc, .q_heads = 4, .kv_heads = 2, .head_dim = 32, .rope_dim = 32};
    const struct kernel_row *row = cl_rows;
    if (heed_context_create(&options, &context) != HEED_OK) return 1;
    const int32_t device = cl_test_device(context);
    if (device < 0) return NO_DEVICE;
    if (device_get(context, device, &inside) != HEED_OK || problem_from_desc(&desc, &problem) != HEED_OK) return 2;
    struct cl_device *d = cl_device_of(inside);
    d->own_cache = own_cache;
    d->own_tuning.limit = 600; /* sixteen share the processors */
    while (strcmp(row->name, "opencl.rotate")) row++; /* of one of the smallest programs */
    if (cl_admit(inside, &problem, row, KIND_ROTATE, reason, sizeof reason) != HEED_OK) return 3;
    *from_disk = d->programs && d->programs->from_disk;
    heed_context_destroy(context);
    return FINE;
}

/* All children wait for the gate, so that all find nothing on disk. */
static void build_at_once(bool own_cache)
{
    char folder[] = "/tmp/heed-at-once-XXXXXX", cache[64], command[128];
    pid_t children[PROCESSES];
    int gate[2], without = 0;
    cr_assert(mkdtemp(folder) != NULL && pipe(gate) == 0);
    snprintf(cache, sizeof cache, "%s/heed", folder);
    setenv("POCL_CACHE_DIR", folder, 1);
    setenv("POCL_KERNEL_CACHE", own_cache ? "1" : "0", 1);
    fflush(NULL);
    for (int n = 0; n < PROCESSES; n++)
        if ((children[n] = fork()) == 0) {
            bool from_disk;
            char byte;
            close(gate[1]);
            const ssize_t none = read(gate[0], &byte, 1);
            _exit(none == 0 ? build_and_probe(cache, own_cache, &from_disk) : 9);
        }
    close(gate[0]), close(gate[1]);
    for (int n = 0; n < PROCESSES; n++) {
        int status = -1;
        cr_assert(children[n] > 0 && waitpid(children[n], &status, 0) == children[n]);
        without += WIFEXITED(status) && WEXITSTATUS(status) == NO_DEVICE;
        cr_expect(WIFEXITED(status) && (WEXITSTATUS(status) == FINE || WEXITSTATUS(status) == NO_DEVICE), "process %d of %d: %s", n, PROCESSES,
                  cause(status));
    }
    const int verdicts = files_of(cache, ".verdict"), programs = files_of(cache, ".program"), left = files_of(cache, ".part-");
    bool from_disk = false;
    const int after = without ? NO_DEVICE : build_and_probe(cache, own_cache, &from_disk);
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    cr_assert_eq(system(command), 0);
    if (without) cr_skip_test("no OpenCL device");
    cr_assert_eq(left, 0, "%d unfinished files are left", left);
    cr_assert_gt(verdicts, 0);
    cr_assert_eq(after, FINE, "one more process: %d", after);
    cr_assert(!own_cache || programs == 0, "%d programs kept", programs);
    cr_assert(own_cache || programs == 0 || from_disk, "the next process builds again"); /* none are kept where a build takes no time */
}

Test(opencl_processes, sixteen_build_at_once, .timeout = 1000) { build_at_once(false); }
Test(opencl_processes, sixteen_build_at_once_with_the_drivers_cache, .timeout = 1000)
{
    if (!getenv("HEED_TEST_ALL")) cr_skip_test("half a minute for another project's cache; HEED_TEST_ALL=1 takes it");
    build_at_once(true);
}

/* ---- exits -------------------------------------------------------------------------------- */

/* What is alive at the end. */
static struct {
    heed_context *context;
    heed_plan *plan;
    heed_batch *batch;
    heed_buffer *buffer;
    struct rig *rig;
    int32_t device;
} live;

/* A right answer, and everything stays. */
static void come_alive(void)
{
    live.context = plain_context(HEED_NO_FALLBACK);
    live.device = cl_test_device(live.context);
    if (live.device < 0) _exit(NO_DEVICE);
    live.rig = rig_new(5, 21, 51);
    if (heed_plan_create(live.context, live.device, &live.rig->desc, NULL, &live.plan) != HEED_OK) _exit(11);
    if (heed_batch_create(live.plan, &live.rig->lengths, &live.batch) != HEED_OK) _exit(12);
    if (heed_buffer_create(live.context, live.device, 1000, &live.buffer) != HEED_OK) _exit(13);
    if (heed_forward(live.context, live.device, &live.rig->desc, &live.rig->lengths, &live.rig->tensors) != HEED_OK) _exit(14);
    if (!rig_right(live.rig, live.rig->o, live.rig->lse)) _exit(15);
}

static void destroy_all(void)
{
    heed_buffer_destroy(live.buffer);
    heed_batch_destroy(live.batch);
    heed_plan_destroy(live.plan);
    heed_context_destroy(live.context);
}

static void exit_from_main(void)
{
    come_alive();
    exit(FINE);
}

static void *exits(void *nothing)
{
    (void)nothing;
    exit(FINE);
}

static void exit_from_a_thread(void)
{
    pthread_t thread;
    come_alive();
    if (pthread_create(&thread, NULL, exits, NULL)) _exit(16);
    pause();
}

static void *runs(void *nothing)
{
    (void)nothing;
    for (;;) heed_forward(live.context, live.device, &live.rig->desc, &live.rig->lengths, &live.rig->tensors);
    return NULL;
}

/* The main thread leaves in the midst of another one's runs. */
static void exit_during_runs(void)
{
    pthread_t thread;
    come_alive();
    if (pthread_create(&thread, NULL, runs, NULL)) _exit(16);
    usleep(20000);
    exit(FINE);
}

/* An exit handler of the application that cleans up: registered before the driver was loaded, so it runs after the driver's own; and after. */
static void handler_before(void)
{
    atexit(destroy_all);
    come_alive();
    exit(FINE);
}

static void handler_after(void)
{
    come_alive();
    atexit(destroy_all);
    exit(FINE);
}

static void *comes_alive(void *nothing)
{
    (void)nothing;
    come_alive();
    return NULL;
}

/* Made by a thread that has ended, destroyed by the exit handler of main. */
static void handler_of_anothers(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, comes_alive, NULL) || pthread_join(thread, NULL)) _exit(16);
    atexit(destroy_all);
    exit(FINE);
}

static void exits_well(void (*way)(void), const char *what)
{
    int status = -1;
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        alarm(100);
        way();
        _exit(17);
    }
    cr_assert(child > 0 && waitpid(child, &status, 0) == child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == NO_DEVICE) cr_skip_test("no OpenCL device");
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == FINE, "%s: %s", what, cause(status));
}

Test(opencl_processes, exit_from_main, .timeout = 200) { exits_well(exit_from_main, "exit() from main"); }
Test(opencl_processes, exit_from_a_thread, .timeout = 200) { exits_well(exit_from_a_thread, "exit() from another thread"); }
Test(opencl_processes, exit_during_runs, .timeout = 200) { exits_well(exit_during_runs, "exit() while another thread runs"); }
Test(opencl_processes, handler_before, .timeout = 200) { exits_well(handler_before, "a handler registered before OpenCL was loaded"); }
Test(opencl_processes, handler_after, .timeout = 200) { exits_well(handler_after, "a handler registered after"); }
Test(opencl_processes, handler_of_anothers, .timeout = 200) { exits_well(handler_of_anothers, "objects of a thread that has ended"); }
