/* SPDX-License-Identifier: MIT
 * test_threads.c - the library as a guest: threads of the caller's own, many callers at once, a forked child, floating-point modes and a locale
 * that it must neither obey nor change.
 */
#include "counting.h"
#include "cpu/cpu.h"
#include "harness_parts.h"
#include <fenv.h>
#include <locale.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

static heed_context *context_with(const heed_threads *threads, int32_t count)
{
    heed_context *context = NULL;
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = count, .threads = threads,
                                          .flags = HEED_NO_OPENCL | HEED_NO_ENVIRONMENT};
    cr_assert(heed_context_create(&options, &context) == HEED_OK, "%s", heed_error_message());
    return context;
}

static struct instance *problem(const char *text)
{
    struct problem_line line;
    char why[256] = "";
    cr_assert(line_parse(text, &line, why, sizeof why), "%s", why);
    struct instance *in = instance_new(&line, INSTANCE_GUARD_AFTER, why, sizeof why);
    cr_assert(in != NULL, "%s", why);
    return in;
}

static uint64_t bits_of(heed_context *context, struct instance *in)
{
    instance_reset(in);
    return heed_forward(context, 0, &in->line.desc, &in->lengths, &in->tensors) == HEED_OK ? instance_bits(in) : 0;
}

static const char *const lines[] = {"b2 hq8 hk2 d64 q70 kv150 causal lse", "hq16 hk4 d64 q1 kv4000 f16 o=f32 causal lse",
                                    "b3 hq8 hk2 d40 q33 kv200 ragged softcap=9 alibi sinks lse"};
enum { LINES = sizeof lines / sizeof *lines };

/* ---- lent threads ---------------------------------------------------------------------- */

struct lent {
    int32_t workers, calls;
};

struct lent_task {
    void (*task)(void *arg, int32_t i, int32_t worker);
    void *arg;
    int32_t worker, workers, count;
};

static void *lent_thread(void *user)
{
    const struct lent_task *t = user;
    for (int32_t i = t->count - 1 - t->worker; i >= 0; i -= t->workers) t->task(t->arg, i, t->worker); /* last first: any order is allowed */
    return NULL;
}

static void lent_for(void *user, int32_t count, void (*task)(void *arg, int32_t i, int32_t worker), void *arg)
{
    struct lent *lent = user;
    struct lent_task tasks[8];
    pthread_t threads[8];
    lent->calls++;
    for (int32_t n = 0; n < lent->workers; n++) {
        tasks[n] = (struct lent_task){task, arg, n, lent->workers, count};
        pthread_create(&threads[n], NULL, lent_thread, &tasks[n]);
    }
    for (int32_t n = 0; n < lent->workers; n++) pthread_join(threads[n], NULL);
}

Test(threads, lent)
{
    struct counts counts = {0};
    heed_context *own = context_with(NULL, 2);
    for (int32_t workers = 1; workers <= 8; workers += 7) {
        struct lent lent = {.workers = workers};
        const heed_threads threads = {.user = &lent, .workers = workers, .parallel_for = lent_for};
        heed_context *context = context_with(&threads, 0);
        for (int n = 0; n < LINES; n++) {
            struct instance *in = problem(lines[n]);
            const uint64_t bits = bits_of(own, in);
            count_check(&counts, bits && bits_of(context, in) == bits, "test_threads.c: lent threads give the same bits");
            instance_free(in);
        }
        count_check(&counts, workers == 1 || lent.calls > 0, "test_threads.c: lent threads were used");
        heed_context_destroy(context);
    }
    heed_context_destroy(own);
    count_end(&counts);
}

/* ---- many callers --------------------------------------------------------------------------- */

struct caller {
    heed_context *context;
    const heed_plan *plan;   /* NULL: heed_forward */
    const heed_batch *batch;
    int32_t line;
    uint64_t expected;
    int32_t wrong;
};

static void *caller_thread(void *user)
{
    struct caller *c = user;
    struct instance *in = problem(lines[c->line]);
    const size_t bytes = c->batch ? heed_batch_workspace_size(c->batch) : 0;
    void *memory = bytes ? aligned_alloc(64, (bytes + 63) / 64 * 64) : NULL;
    const heed_tensor workspace = {.data = memory, .bytes = bytes};
    for (int n = 0; n < 25; n++) {
        uint64_t bits = 0;
        if (c->plan) {
            instance_reset(in);
            if (heed_run(c->plan, c->batch, &in->tensors, &workspace) == HEED_OK) bits = instance_bits(in);
        } else
            bits = bits_of(c->context, in);
        c->wrong += bits != c->expected;
    }
    free(memory);
    instance_free(in);
    return NULL;
}

/* One plan and one batch, lent pool or built-in; then heed_forward with different problems on one context. */
Test(threads, callers)
{
    struct counts counts = {0};
    enum { CALLERS = 6 };
    heed_context *context = context_with(NULL, 3);
    for (int forward = 0; forward < 2; forward++) {
        pthread_t threads[CALLERS];
        struct caller callers[CALLERS];
        struct prepared prepared[LINES];
        struct instance *in[LINES];
        uint64_t bits[LINES];
        for (int n = 0; n < LINES; n++) {
            in[n] = problem(lines[n]);
            cr_assert(prepared_make(context, 0, NULL, in[n], false, &prepared[n]) == HEED_OK, "%s", heed_error_message());
            bits[n] = bits_of(context, in[n]);
        }
        for (int n = 0; n < CALLERS; n++) {
            const int line = n % LINES;
            callers[n] = (struct caller){context, forward ? NULL : prepared[line].plan, forward ? NULL : prepared[line].batch, line, bits[line], 0};
            pthread_create(&threads[n], NULL, caller_thread, &callers[n]);
        }
        for (int n = 0; n < CALLERS; n++) {
            pthread_join(threads[n], NULL);
            count_check(&counts, callers[n].wrong == 0, forward ? "test_threads.c: heed_forward from many threads" : "test_threads.c: one plan and batch, many threads");
        }
        for (int n = 0; n < LINES; n++) {
            prepared_release(&prepared[n]);
            instance_free(in[n]);
        }
    }
    heed_context_destroy(context);
    count_end(&counts);
}

static void *storm_thread(void *user)
{
    int32_t *wrong = user;
    struct instance *in = problem("hq4 hk2 d32 q17 kv60 causal lse");
    uint64_t bits = 0;
    for (int n = 0; n < 12; n++) {
        heed_context *context = context_with(NULL, 1 + n % 3);
        const uint64_t now = bits_of(context, in);
        heed_context_destroy(context);
        if (n == 0) bits = now;
        *wrong += now == 0 || now != bits;
    }
    instance_free(in);
    return NULL;
}

Test(threads, storm_of_contexts)
{
    struct counts counts = {0};
    pthread_t threads[4];
    int32_t wrong[4] = {0};
    for (int n = 0; n < 4; n++) pthread_create(&threads[n], NULL, storm_thread, &wrong[n]);
    for (int n = 0; n < 4; n++) {
        pthread_join(threads[n], NULL);
        count_check(&counts, wrong[n] == 0, "test_threads.c: contexts made and destroyed by four threads at once");
    }
    count_end(&counts);
}

/* ---- fork -------------------------------------------------------------------------------------- */

/* A context made before fork() works in the child, whose pool starts anew, and can be destroyed there, used or not. */
/* Work of 2 to 20 microseconds is shared only with threads that are awake, or where calls follow each other closely; the bits are the same. */
Test(threads, little_work, .timeout = 60)
{
    struct counts counts = {0};
    heed_context *alone = context_with(NULL, 1), *pool = context_with(NULL, 2);
    struct instance *in = problem("hq8 hk2 d64 q1 kv200 causal lse"); /* 0.2 million multiplications */
    const uint64_t expected = bits_of(alone, in);
    bool near = true;
    for (int n = 0; n < 5000 && near; n++) {
        usleep(1000);
        near = cpu_threads_near(&pool->services);
    }
    count_check(&counts, !near, "test_threads.c: threads that nobody needs fall asleep");
    count_check(&counts, bits_of(pool, in) == expected, "test_threads.c: little work beside sleeping threads");
    for (int n = 0; n < 1000 && !near; n++) { /* asked within 20 microseconds, unless this thread was interrupted meanwhile */
        cpu_threads_used(&pool->services);
        near = cpu_threads_near(&pool->services);
    }
    count_check(&counts, near, "test_threads.c: a call just now is near");
    int32_t wrong = 0;
    for (int n = 0; n < 200; n++) wrong += bits_of(pool, in) != expected;
    count_check(&counts, wrong == 0, "test_threads.c: little work, call after call");
    instance_free(in);
    heed_context_destroy(alone);
    heed_context_destroy(pool);
    count_end(&counts);
}

Test(threads, fork, .timeout = 60)
{
    struct counts counts = {0};
    heed_context *context = context_with(NULL, 3);
    struct instance *in = problem(lines[0]);
    const uint64_t bits = bits_of(context, in);
    for (int used = 0; used < 2; used++) {
        const pid_t child = fork();
        if (child == 0) {
            alarm(20);
            const bool same = !used || (bits_of(context, in) == bits && bits_of(context, in) == bits);
            heed_context_destroy(context);
            _exit(same ? 0 : 1);
        }
        int status = -1;
        waitpid(child, &status, 0);
        count_check(&counts, WIFEXITED(status) && WEXITSTATUS(status) == 0, used ? "test_threads.c: the CPU works in a forked child" : "test_threads.c: an unused context ends in a forked child");
    }
    count_check(&counts, bits_of(context, in) == bits, "test_threads.c: and in its parent");
    instance_free(in);
    heed_context_destroy(context);
    count_end(&counts);
}

/* ---- modes of the calling thread ----------------------------------------------------------------- */

Test(threads, floating_point_modes)
{
    struct counts counts = {0};
    static const char *const some[] = {"hq2 d64 q9 kv70 data=denormal lse", "hq4 hk2 d64 q1 kv90 f16 data=denormal o=f32 lse", "b2 hq8 hk2 d64 q70 kv150 causal lse"};
    for (int32_t count = 1; count <= 2; count++) {
        heed_context *context = context_with(NULL, count);
        for (int n = 0; n < 3; n++) {
            struct instance *in = problem(some[n]);
            const uint64_t bits = bits_of(context, in);
            fesetround(FE_UPWARD);
            const uint64_t upward = bits_of(context, in);
            count_check(&counts, fegetround() == FE_UPWARD, "test_threads.c: the rounding mode is given back");
            fesetround(FE_TONEAREST);
            count_check(&counts, bits && upward == bits, "test_threads.c: the caller's rounding mode changes no bit");
#if defined(__x86_64__)
            const unsigned mode = _mm_getcsr();
            _mm_setcsr(mode | 0x8040u); /* flush denormal results, take denormal operands as 0 */
            const uint64_t flushed = bits_of(context, in);
            count_check(&counts, (_mm_getcsr() & 0x8040u) == 0x8040u, "test_threads.c: MXCSR is given back");
            _mm_setcsr(mode);
            count_check(&counts, flushed == bits, "test_threads.c: the caller's flushing of denormals changes no bit");
#endif
            instance_free(in);
        }
        heed_context_destroy(context);
    }
    count_end(&counts);
}

/* A locale with a decimal comma, where one is installed. */
Test(threads, locale)
{
    struct counts counts = {0};
    static const char *const names[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "de_DE"};
    const char *found = NULL;
    heed_desc before, after;
    char text[2][200];
    cr_assert(heed_desc_parse("d64 scale=0.1 softcap=30.5", &before) == HEED_OK, "%s", heed_error_message());
    heed_desc_format(&before, text[0], sizeof text[0]);
    for (int n = 0; n < 4 && !found; n++) found = setlocale(LC_ALL, names[n]);
    if (!found) {
        counts.skipped++;
        fprintf(stderr, "skipped: locale: none with a decimal comma is installed\n");
    } else {
        heed_status status = heed_desc_parse("d64 scale=0.1 softcap=30.5", &after);
        count_check(&counts, status == HEED_OK && before.scale == after.scale && before.softcap == after.softcap, "test_threads.c: numbers are read without the locale");
        heed_desc_format(&after, text[1], sizeof text[1]);
        count_check(&counts, !strcmp(text[0], text[1]), "test_threads.c: and written without it");
        setlocale(LC_ALL, "C");
    }
    count_end(&counts);
}
