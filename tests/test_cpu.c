/* SPDX-License-Identifier: MIT
 * test_cpu.c - the CPU wing beside its kernels: instruction sets and their cap, threads (built in, lent, several callers, a forked child), the
 * caller's floating-point mode, buffers, and that no object file of an instruction set leaks code.
 */
#include "counting.h"
#include "cpu/cpu.h"
#include <fenv.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

static heed_context *context_new(const heed_context_options *more)
{
    heed_context_options options = *more;
    heed_context *context = NULL;
    options.struct_size = sizeof options;
    options.flags |= HEED_NO_OPENCL | HEED_NO_ENVIRONMENT;
    cr_assert(heed_context_create(&options, &context) == HEED_OK, "%s", heed_error_message());
    return context;
}

/* Bits of a problem computed by a context; kernel NULL = the planner's choice. */
static uint64_t bits_of_line(heed_context *context, const char *kernel, const char *text)
{
    struct problem_line line;
    struct prepared prepared;
    char why[256];
    cr_assert(line_parse(text, &line, why, sizeof why), "%s: %s", text, why);
    struct instance *instance = instance_new(&line, INSTANCE_GUARD_AFTER, why, sizeof why);
    cr_assert(instance, "%s: %s", text, why);
    cr_assert(prepared_make(context, 0, kernel, instance, false, &prepared) == HEED_OK, "%s: %s", text, heed_error_message());
    instance_reset(instance);
    cr_assert(prepared_run(&prepared) == HEED_OK, "%s: %s", text, heed_error_message());
    const uint64_t bits = instance_bits(instance);
    prepared_release(&prepared);
    instance_free(instance);
    return bits;
}

static const char *const lines[] = {
    "b2 hq8 hk2 d64 q150 kv200 causal lse", "b5 hq4 hk4 d40 q70 kv300 ragged causal lse", "b3 hq8 hk2 d64 q1 kv1600 lse",
    "b6 hq6 hk2 d32 q90 kv1100 kvlens f16 o=f32 mask=bool page=16 lse",
};
enum { LINES = sizeof lines / sizeof *lines };

/* ---- instruction sets --------------------------------------------------------- */

Test(cpu, caps)
{
    const uint32_t all = ISA_SCALAR | ISA_VECTOR | ISA_AVX2 | ISA_AVX512 | ISA_AVX512VBMI | ISA_AVX512BF16;
    uint32_t isa = 0;
    cr_assert(cpu_isa_cap("scalar", all, &isa) && isa == ISA_SCALAR);
    cr_assert(cpu_isa_cap("vector", all, &isa) && isa == (ISA_SCALAR | ISA_VECTOR));
    cr_assert(cpu_isa_cap("avx2", all, &isa) && isa == (ISA_SCALAR | ISA_VECTOR | ISA_AVX2));
    cr_assert(cpu_isa_cap("avx512", all, &isa) && isa == (ISA_SCALAR | ISA_VECTOR | ISA_AVX2 | ISA_AVX512));
    cr_assert(cpu_isa_cap("avx512vbmi", all, &isa) && isa == (all & ~(uint32_t)ISA_AVX512BF16));
    cr_assert(cpu_isa_cap("avx512bf16", all, &isa) && isa == all);
    const uint32_t tiles = all | ISA_SLOW_DOTS | ISA_AMX;
    cr_assert(cpu_isa_cap("amx", tiles, &isa) && isa == tiles && cpu_isa_cap("amx", all, &isa) && isa == all);
    cr_assert(cpu_isa_cap("avx512bf16", tiles, &isa) && isa == all, "who asks for dots by name gets them, slow or not");
    cr_assert_str_eq(cpu_isa_name(tiles), "amx");
    cr_assert(cpu_isa_cap("avx512", ISA_SCALAR | ISA_AVX2, &isa) && isa == (ISA_SCALAR | ISA_AVX2), "a cap adds nothing");
    const uint32_t arm = ISA_SCALAR | ISA_VECTOR | ISA_NEON, wide = arm | ISA_SVE256, narrow = arm | ISA_SVE128;
    cr_assert(cpu_isa_cap("neon", wide, &isa) && isa == arm && cpu_isa_cap("neon", narrow, &isa) && isa == arm);
    cr_assert(cpu_isa_cap("sve256", wide, &isa) && isa == wide && cpu_isa_cap("sve512", wide, &isa) && isa == wide);
    cr_assert(cpu_isa_cap("sve", wide, &isa) && isa == (ISA_SCALAR | ISA_VECTOR | ISA_SVE256), "its rows even where neon's are as good");
    cr_assert(cpu_isa_cap("sve", narrow, &isa) && isa == (ISA_SCALAR | ISA_VECTOR | ISA_SVE128));
    cr_assert(cpu_isa_cap("sve128", wide, &isa) && isa == (ISA_SCALAR | ISA_VECTOR), "a machine has one length");
    const uint32_t dots = wide | ISA_NEONBF16;
    cr_assert(cpu_isa_cap("neonbf16", dots, &isa) && isa == (arm | ISA_NEONBF16) && cpu_isa_cap("sve256", dots, &isa) && isa == dots);
    cr_assert(cpu_isa_cap("neon", dots, &isa) && isa == arm && cpu_isa_cap("sve", dots, &isa) && isa == (ISA_SCALAR | ISA_VECTOR | ISA_SVE256));
    cr_assert_str_eq(cpu_isa_name(arm | ISA_NEONBF16), "neonbf16");
    cr_assert(cpu_isa_cap("rvv", ISA_SCALAR | ISA_RVV256, &isa) && isa == (ISA_SCALAR | ISA_RVV256));
    cr_assert(cpu_isa_cap("rvv128", ISA_SCALAR | ISA_RVV256, &isa) && isa == ISA_SCALAR);
    cr_assert(cpu_isa_cap("neon", all, &isa) && isa == (ISA_SCALAR | ISA_VECTOR), "another family's name leaves the rows of every machine");
    cr_assert(!cpu_isa_cap("avx", all, &isa) && !cpu_isa_cap("", all, &isa) && !cpu_isa_cap("AVX2", all, &isa));
    cr_assert_str_eq(cpu_isa_name(all), "avx512bf16");
    cr_assert_str_eq(cpu_isa_name(ISA_SCALAR | ISA_AVX2), "avx2");
    cr_assert_str_eq(cpu_isa_name(ISA_SCALAR), "scalar");
    cr_assert_str_eq(cpu_isa_name(wide), "sve256");
    cr_assert_str_eq(cpu_isa_name(narrow), "neon");
    cr_assert_str_eq(cpu_isa_name(ISA_SVE128), "sve128");
    cr_assert_str_eq(cpu_isa_name(ISA_VECTOR | ISA_RVV128), "rvv128");
    cr_assert((cpu_isa_present() & ISA_SCALAR) && (cpu_isa_present() & ISA_VECTOR));
}

/* A cap keeps the better rows from every kind of step, and the plan says so. */
Test(cpu, a_cap_is_kept)
{
    static const char *const names[] = {"scalar", "vector", "avx2", "avx512"};
    for (int n = 0; n < 4; n++) {
        heed_context *context = context_new(&(heed_context_options){.cpu_features = names[n], .num_threads = 1});
        const heed_desc desc = {.struct_size = sizeof desc, .q_heads = 2, .head_dim = 16};
        heed_plan *plan = NULL;
        cr_assert(heed_plan_create(context, 0, &desc, NULL, &plan) == HEED_OK, "%s", heed_error_message());
        for (int kind = KIND_PREFILL; kind <= KIND_DECODE; kind++) {
            uint32_t isa;
            cr_assert(cpu_isa_cap(names[n], cpu_isa_present(), &isa));
            cr_assert(!(plan->row[kind]->needs & ~isa), "%s under the cap %s", plan->row[kind]->name, names[n]);
            cr_assert(strstr(plan->row[kind]->name, cpu_isa_name(isa)), "%s, best allowed %s", plan->row[kind]->name, cpu_isa_name(isa));
        }
        if (n == 0 && (cpu_isa_present() & ISA_AVX2)) {
            char text[EXPLAIN_BYTES];
            heed_plan_explain(plan, text, sizeof text);
            cr_assert(strstr(text, "needs avx2, may use scalar"), "%s", text);
            heed_plan *refused = NULL;
            cr_assert(heed_plan_create(context, 0, &desc, "cpu.avx2.prefill", &refused) == HEED_UNSUPPORTED);
        }
        heed_plan_destroy(plan);
        heed_context_destroy(context);
    }
    heed_context *context = NULL;
    const heed_context_options bad = {.struct_size = sizeof bad, .flags = HEED_NO_OPENCL, .cpu_features = "pentium"};
    cr_assert(heed_context_create(&bad, &context) == HEED_INVALID_ARGUMENT);
}

/* Where lines from the next cache take long, V is copied if its rows are 4 KiB apart or more. */
Test(cpu, copied_values_have_the_same_bits)
{
    static const char *const wide[] = {"hq32 d32 q70 kv200 causal lse", "b2 hq32 hk16 d64 q150 kv300 kvlens page=16 lse", "hq64 d17 q40 kv100 wl=30 lse"};
    heed_context *context = context_new(&(heed_context_options){.num_threads = 1});
    cr_assert(!cpu_far_cache("AuthenticAMD") && !cpu_far_cache("") && cpu_far_cache("GenuineIntel"));
    for (int n = 0; n < 3; n++) {
        uint64_t bits[2];
        for (int far = 0; far < 2; far++) {
            context->devices[0]->far_cache = far;
            bits[far] = bits_of_line(context, NULL, wide[n]);
        }
        cr_assert(bits[0] == bits[1], "%s", wide[n]);
    }
    heed_context_destroy(context);
}

/* Codes of e4m3 by table, 64 of them at once, or widened one by one: whole strips, tails, groups, hidden keys, NaN among the codes. */
Test(cpu, e4m3_by_table_has_the_same_bits)
{
    static const char *const cached[] = {"hq8 hk2 d128 q1 kv700 kv=f8_e4m3 lse", "hq3 hk3 d80 dv200 q1 kv600 kv=f8_e4m3 lse", "hq6 hk3 d17 dv33 q2 kv90 kv=f8_e4m3 wl=40 lse",
                                         "b3 hq16 hk2 d64 dv96 q2 kv1100 kvlens q=bf16 o=f32 kv=f8_e4m3 causal page=16 lse", "hq7 hk1 d256 q1 kv300 q=f16 o=f32 kv=f8_e4m3 mask=bool lse"};
    struct counts counts = {0};
    if (!(cpu_isa_present() & ISA_AVX512VBMI)) counts.skipped++;
    heed_context *context = context_new(&(heed_context_options){.num_threads = 1});
    for (size_t n = 0; n < sizeof cached / sizeof *cached && !counts.skipped; n++)
        count_check(&counts, bits_of_line(context, "cpu.avx512vbmi.decode", cached[n]) == bits_of_line(context, "cpu.avx512.decode", cached[n]), cached[n]);
    heed_context_destroy(context);
    count_end(&counts);
}

Test(cpu, cores_that_this_process_may_use)
{
    cpu_set_t before, one;
    cr_assert(sched_getaffinity(0, sizeof before, &before) == 0);
    const int32_t cores = cpu_physical_cores();
    cr_assert(cores >= 1 && cores <= CPU_COUNT(&before));
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; cpu++)
        if (CPU_ISSET(cpu, &before)) CPU_SET(cpu, &one);
    cr_assert(sched_setaffinity(0, sizeof one, &one) == 0);
    cr_assert(cpu_physical_cores() == 1);
    heed_context *context = context_new(&(heed_context_options){0});
    cr_assert(context->services.threads.workers == 1, "%d workers on one processor", context->services.threads.workers);
    heed_context_destroy(context);
    cr_assert(sched_setaffinity(0, sizeof before, &before) == 0);
}

Test(cpu, device_info)
{
    heed_context *context = context_new(&(heed_context_options){.num_threads = 1});
    heed_device_info info = {.struct_size = sizeof info};
    cr_assert(heed_device_get_info(context, 0, &info) == HEED_OK);
    cr_assert(info.backend == HEED_BACKEND_CPU && info.usable && info.compute_units >= 1 && info.memory_bytes > 0);
    cr_assert(info.name[0] && info.types == 0x1fe);
    cr_assert_str_eq(info.family, cpu_isa_name(cpu_isa_present()));
    heed_context_destroy(context);
}

/* Code for one instruction set must not be picked by the linker for a machine that lacks it: its object exports its list and nothing else. */
Test(cpu, an_instruction_set_exports_one_symbol)
{
    static const char *const names[] = {"scalar", "vector", "avx2", "avx512", "avx512vbmi", "avx512bf16", "amx"};
    struct counts counts = {0};
    for (int n = 0; n < 7; n++) {
        char command[512], text[256], want[64];
        snprintf(command, sizeof command, "nm -g --defined-only '%s/CMakeFiles/heed_objects.dir/src/cpu/isa_%s.c.o' 2>/dev/null",
                 HEED_BINARY_DIR, names[n]);
        snprintf(want, sizeof want, "cpu_rows_%s", names[n]);
        FILE *pipe = popen(command, "r");
        int symbols = 0, known = 0;
        while (pipe && fgets(text, sizeof text, pipe)) {
            if (strstr(text, "__odr_asan")) continue; /* of a sanitizer */
            symbols++;
            known += strstr(text, want) != NULL;
        }
        if (pipe) pclose(pipe);
        if (symbols == 0) {
            fprintf(stderr, "skipped: no nm, or no object file of isa_%s.c\n", names[n]);
            counts.skipped++;
        } else {
            count_check(&counts, symbols == 1 && known == 1, want);
        }
    }
    count_end(&counts);
}

/* ---- threads -------------------------------------------------------------------- */

enum { ITEMS = 1000 };
struct visit {
    atomic_int seen[ITEMS], busy[MAX_WORKERS], bad;
    int32_t workers;
};

static void visit_task(void *arg, int32_t i, int32_t worker)
{
    struct visit *visit = arg;
    if (worker < 0 || worker >= visit->workers || i < 0 || i >= ITEMS) {
        atomic_fetch_add(&visit->bad, 1);
        return;
    }
    if (atomic_fetch_add(&visit->busy[worker], 1)) atomic_fetch_add(&visit->bad, 1); /* two tasks at once with one worker's scratch */
    atomic_fetch_add(&visit->seen[i], 1);
    if (i % 97 == 0) sched_yield();
    atomic_fetch_sub(&visit->busy[worker], 1);
}

Test(cpu, every_item_once)
{
    static const int32_t counts[] = {0, 1, 2, 3, 64, ITEMS};
    for (int32_t workers = 1; workers <= 7; workers++) {
        heed_context *context = context_new(&(heed_context_options){.num_threads = workers});
        const heed_threads *threads = &context->services.threads;
        cr_assert(threads->workers == workers);
        for (int n = 0; n < 6; n++) {
            static struct visit visit;
            memset(&visit, 0, sizeof visit);
            visit.workers = workers;
            threads->parallel_for(threads->user, counts[n], visit_task, &visit);
            cr_assert(visit.bad == 0, "%d items, %d workers", counts[n], workers);
            for (int32_t i = 0; i < ITEMS; i++) cr_assert(visit.seen[i] == (i < counts[n]), "item %d of %d, %d workers", i, counts[n], workers);
        }
        heed_context_destroy(context);
    }
}

Test(cpu, bits_do_not_depend_on_workers)
{
    struct counts counts = {0};
    uint64_t bits[LINES];
    for (int32_t workers = 1; workers <= 7; workers++) {
        heed_context *context = context_new(&(heed_context_options){.num_threads = workers});
        for (int n = 0; n < LINES; n++) {
            const uint64_t here = bits_of_line(context, NULL, lines[n]);
            if (workers == 1) bits[n] = here;
            count_check(&counts, here == bits[n], lines[n]);
        }
        heed_context_destroy(context);
    }
    count_end(&counts);
}

/* A lender that hands the items out backwards, each to another worker. */
static void backwards(void *user, int32_t count, void (*task)(void *arg, int32_t i, int32_t worker), void *arg)
{
    atomic_fetch_add((atomic_int *)user, 1);
    for (int32_t i = count - 1; i >= 0; i--) task(arg, i, i % 3);
}

Test(cpu, lent_threads)
{
    struct counts counts = {0};
    atomic_int calls = 0;
    const heed_threads lent = {.user = &calls, .workers = 3, .parallel_for = backwards};
    heed_context *ours = context_new(&(heed_context_options){.num_threads = 2}), *theirs = context_new(&(heed_context_options){.threads = &lent});
    cr_assert(theirs->services.pool == NULL);
    for (int n = 0; n < LINES; n++) count_check(&counts, bits_of_line(ours, NULL, lines[n]) == bits_of_line(theirs, NULL, lines[n]), lines[n]);
    count_check(&counts, calls >= LINES, "the lent threads were not asked");
    heed_context_destroy(ours);
    heed_context_destroy(theirs);
    count_end(&counts);
}

struct caller {
    heed_context *context;
    uint64_t want;
    int wrong;
};

static void *call_often(void *arg)
{
    struct caller *caller = arg;
    for (int n = 0; n < 6; n++) caller->wrong += bits_of_line(caller->context, NULL, lines[0]) != caller->want;
    return NULL;
}

Test(cpu, several_callers_take_turns, .timeout = 600)
{
    heed_context *context = context_new(&(heed_context_options){.num_threads = 3});
    const uint64_t want = bits_of_line(context, NULL, lines[0]);
    struct caller callers[4];
    pthread_t threads[4];
    for (int n = 0; n < 4; n++) {
        callers[n] = (struct caller){context, want, 0};
        cr_assert(pthread_create(&threads[n], NULL, call_often, &callers[n]) == 0);
    }
    for (int n = 0; n < 4; n++) {
        pthread_join(threads[n], NULL);
        cr_assert(callers[n].wrong == 0, "caller %d", n);
    }
    heed_context_destroy(context);
}

/* A task that uses the pool it runs on. */
static void nested_task(void *arg, int32_t i, int32_t worker)
{
    struct caller *caller = arg;
    (void)worker;
    if (i % 4 == 0 && bits_of_line(caller->context, NULL, lines[0]) != caller->want) caller->wrong++;
}

Test(cpu, a_call_from_inside_a_task, .timeout = 600)
{
    heed_context *context = context_new(&(heed_context_options){.num_threads = 3});
    struct caller caller = {context, bits_of_line(context, NULL, lines[0]), 0};
    context->services.threads.parallel_for(context->services.threads.user, 8, nested_task, &caller);
    cr_assert(caller.wrong == 0);
    heed_context_destroy(context);
}

/* Threads do not survive fork(): the child's pool starts anew, also for a grandchild. */
Test(cpu, a_forked_child_computes, .timeout = 600)
{
    heed_context *context = context_new(&(heed_context_options){.num_threads = 3});
    const uint64_t want = bits_of_line(context, NULL, lines[0]);
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        alarm(200);
        int wrong = bits_of_line(context, NULL, lines[0]) != want;
        const pid_t grandchild = fork();
        if (grandchild == 0) {
            alarm(200);
            wrong = bits_of_line(context, NULL, lines[0]) != want;
            heed_context_destroy(context);
            _exit(wrong);
        }
        int status = 1;
        waitpid(grandchild, &status, 0);
        heed_context_destroy(context);
        _exit(wrong || !WIFEXITED(status) || WEXITSTATUS(status));
    }
    int status = 1;
    cr_assert(waitpid(child, &status, 0) == child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with %d (a signal means that it hung)", status);
    cr_assert(bits_of_line(context, NULL, lines[0]) == want, "the parent after the fork");
    heed_context_destroy(context);
}

/* Destroyed in a child that never used it: nothing is joined that is not there. */
Test(cpu, a_forked_child_destroys, .timeout = 600)
{
    heed_context *context = context_new(&(heed_context_options){.num_threads = 3});
    bits_of_line(context, NULL, lines[0]);
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        alarm(200);
        heed_context_destroy(context);
        _exit(0);
    }
    int status = 1;
    cr_assert(waitpid(child, &status, 0) == child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%d", status);
    heed_context_destroy(context);
}

/* ---- floating-point mode ----------------------------------------------------------- */

#if defined(__x86_64__)
static const unsigned modes[] = {0x1f80 | 0x8040, 0x1f80 | 0x2000, 0x1f80 | 0x4000, 0x1f80 | 0x6000 | 0x8040};
enum { MODES = sizeof modes / sizeof *modes };

/* Every thread of the lender has a mode of its own; each must find it again after its task. */
static void strange_modes(void *user, int32_t count, void (*task)(void *arg, int32_t i, int32_t worker), void *arg)
{
    const unsigned before = _mm_getcsr();
    for (int32_t i = 0; i < count; i++) {
        const unsigned mode = modes[i % MODES];
        _mm_setcsr(mode);
        task(arg, i, 0);
        if (_mm_getcsr() != mode) atomic_fetch_add((atomic_int *)user, 1);
    }
    _mm_setcsr(before);
}

Test(cpu, the_callers_mode_changes_nothing_and_is_kept)
{
    static const char *const more[] = {"hq4 hk2 d64 q40 kv90 data=denormal lse", "hq4 hk2 d64 q1 kv600 data=denormal f16 o=f32 lse",
                                       "hq2 d32 q20 kv70 causal softcap=3 lse", "hq2 d32 q1 kv70 lse"};
    struct counts counts = {0};
    atomic_int changed = 0;
    const heed_threads lent = {.user = &changed, .workers = 2, .parallel_for = strange_modes};
    heed_context *context = context_new(&(heed_context_options){.num_threads = 2}), *theirs = context_new(&(heed_context_options){.threads = &lent});
    static const char *const kernels[] = {NULL, "cpu.scalar.prefill", "reference"};
    for (int k = 0; k < 3; k++)
        for (int n = 0; n < LINES + 4; n++) {
            const char *line = n < LINES ? lines[n] : more[n - LINES];
            if (k == 2 && n < LINES) continue; /* the reference would take long */
            const unsigned before = _mm_getcsr();
            const uint64_t want = bits_of_line(context, kernels[k], line);
            count_check(&counts, bits_of_line(theirs, kernels[k], line) == want, line);
            for (int m = 0; m < MODES; m++) {
                struct problem_line parsed;
                struct prepared prepared;
                char why[256];
                cr_assert(line_parse(line, &parsed, why, sizeof why));
                struct instance *instance = instance_new(&parsed, INSTANCE_PLAIN, why, sizeof why);
                cr_assert(instance && prepared_make(context, 0, kernels[k], instance, false, &prepared) == HEED_OK);
                cr_assert(prepared_run(&prepared) == HEED_OK);
                const uint64_t plain = instance_bits(instance);
                instance_reset(instance);
                _mm_setcsr(modes[m]);
                const heed_status status = prepared_run(&prepared);
                const unsigned after = _mm_getcsr();
                _mm_setcsr(before);
                count_check(&counts, status == HEED_OK && instance_bits(instance) == plain, line);
                count_check(&counts, after == modes[m], "the caller's MXCSR was changed");
                prepared_release(&prepared);
                instance_free(instance);
            }
        }
    count_check(&counts, changed == 0, "a lending thread's MXCSR was changed");
    heed_context_destroy(context);
    heed_context_destroy(theirs);
    count_end(&counts);
}
#endif

/* ---- memory -------------------------------------------------------------------------- */

Test(cpu, buffers)
{
    heed_context *context = context_new(&(heed_context_options){.num_threads = 1});
    static const size_t sizes[] = {1, 63, 4096, (size_t)5 << 20};
    for (int n = 0; n < 4; n++) {
        heed_buffer *buffer = NULL;
        unsigned char in[3] = {1, 2, 3}, out[3] = {0};
        const size_t some = sizes[n] < 3 ? sizes[n] : 3;
        cr_assert(heed_buffer_create(context, 0, sizes[n], &buffer) == HEED_OK);
        cr_assert((uintptr_t)buffer->data % 64 == 0);
        cr_assert(sizes[n] < (size_t)4 << 20 || (uintptr_t)buffer->data % ((size_t)2 << 20) == 0, "large buffers lie on huge pages");
        cr_assert(heed_buffer_write(buffer, sizes[n] - some, in, some) == HEED_OK);
        cr_assert(heed_buffer_read(buffer, sizes[n] - some, out, some) == HEED_OK && !memcmp(in, out, some));
        cr_assert(heed_buffer_write(buffer, sizes[n], in, 1) == HEED_OUT_OF_BOUNDS);
        heed_buffer_destroy(buffer);
    }
    heed_context_destroy(context);
}
