/* SPDX-License-Identifier: MIT
 * threads.c - the built-in pool behind heed_threads: pthreadpool, with worker numbers, made anew in a forked child.
 *
 * A call hands pthreadpool one strand per worker; each strand takes the next item from a counter until none is left. So the strand's number
 * is the worker's number, costly items come first, and a slow core simply takes fewer. pthreadpool lets calls of several threads take turns.
 */
#include "cpu.h"
#include "../mutant.h"
#include "../status.h"
#include <pthreadpool.h>
#include <unistd.h>

struct pool {
    _Atomic(pthreadpool_t) threads;
    atomic_int pid;      /* process that `threads` belongs to; negative while the child makes its own */
    int32_t workers;
};

struct strands {
    atomic_int next;
    int32_t count;
    void (*task)(void *arg, int32_t i, int32_t worker);
    void *arg;
};

/* Set while this thread runs a task: a call from inside one is done on the spot, since waiting for the pool would be waiting for itself. */
static _Thread_local bool inside;

static void run_strand(void *arg, size_t worker)
{
    struct strands *strands = arg;
    const bool outer = inside;
    inside = true;
    for (;;) {
        const int i = atomic_fetch_add_explicit(&strands->next, 1, memory_order_relaxed);
        if (i >= strands->count) break;
        strands->task(strands->arg, i, (int32_t)worker);
    }
    inside = outer;
}

/* The pool of this process. Threads do not survive fork(): the first call in a child makes new ones (the old object is lost, its memory
 * with it); NULL if that fails. */
static pthreadpool_t pool_here(struct pool *pool)
{
    const int me = MUTANT(cpu_fork_keeps_pool) ? atomic_load(&pool->pid) : (int)getpid();
    for (;;) {
        int pid = atomic_load_explicit(&pool->pid, memory_order_acquire);
        if (pid == me) return atomic_load_explicit(&pool->threads, memory_order_relaxed);
        if (pid == -me) continue; /* another thread of this process is making it */
        if (!atomic_compare_exchange_strong(&pool->pid, &pid, -me)) continue;
        atomic_store(&pool->threads, pthreadpool_create((size_t)pool->workers));
        atomic_store_explicit(&pool->pid, me, memory_order_release);
    }
}

static void pool_parallel_for(void *user, int32_t count, void (*task)(void *arg, int32_t i, int32_t worker), void *arg)
{
    struct pool *pool = user;
    struct strands strands = {.count = count, .task = task, .arg = arg};
    if (MUTANT(cpu_threads_last_item) && count > 1) strands.count--;
    pthreadpool_t threads = pool->workers > 1 && count > 1 && !inside ? pool_here(pool) : NULL;
    if (!threads) {
        run_strand(&strands, 0);
        return;
    }
    const int32_t strand_count = count < pool->workers ? count : pool->workers;
    pthreadpool_parallelize_1d(threads, run_strand, &strands, (size_t)strand_count, 0);
}

heed_status cpu_threads_create(struct services *services, int32_t num_threads)
{
    const int32_t workers = num_threads > 0 ? num_threads : cpu_physical_cores();
    struct pool *pool = memory_new(services, 1, sizeof *pool);
    if (!pool) return out_of_memory(sizeof *pool);
    pool->workers = workers < MAX_WORKERS ? workers : MAX_WORKERS;
    atomic_init(&pool->pid, (int)getpid());
    atomic_init(&pool->threads, NULL);
    if (pool->workers > 1) {
        pthreadpool_t threads = pthreadpool_create((size_t)pool->workers);
        if (!threads) {
            memory_delete(services, pool);
            return fail(HEED_OUT_OF_MEMORY, "pthreadpool_create(%d) failed: no memory or no more threads", workers);
        }
        atomic_store(&pool->threads, threads);
    }
    services->pool = pool;
    services->threads = (heed_threads){.user = pool, .workers = pool->workers, .parallel_for = pool_parallel_for};
    return HEED_OK;
}

void cpu_threads_destroy(struct services *services)
{
    struct pool *pool = services->pool;
    if (!pool) return;
    /* Joining threads that fork() left behind would wait for ever. */
    if (atomic_load(&pool->pid) == (int)getpid()) pthreadpool_destroy(atomic_load(&pool->threads));
    memory_delete(services, pool);
    services->pool = NULL;
}
