/* SPDX-License-Identifier: MIT
 * threads.c - the built-in pool behind heed_threads: a crew of threads, made anew in a forked child.
 *
 * Each worker has a share of the items, the same in every call of the same size, so that what it touched last time is still in its own caches;
 * who is done with his share takes from the others'.
 *
 * The caller works too and waits only for threads that have taken part: one that the system has not yet let run costs nothing, so a pool wider
 * than the free cores is no slower than its caller alone. (A fork-join pool that waits for all its threads was measured 5 to 130 times slower
 * on a busy machine.) A call that finds the crew busy with another thread's call does its
 * work alone: results do not depend on who works.
 */
#include "cpu.h"
#include "../mutant.h"
#include "../status.h"
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

enum { SPINS = 2000 /* looks before sleeping, 20 to 70 microseconds: the next call of a decode loop is often as near as that */,
       NEAR_NS = 20000 /* less than they look for, so that calls as near as this find them awake */ };

/* gate: 32 bits number of the call, 15 bits how many workers it may have, 1 bit open, 16 bits how many threads take part. */
#define GATE_OPEN (UINT64_C(1) << 16)
#define GATE_MEMBERS UINT64_C(0xffff)
#define GATE_LIMIT(gate) ((int32_t)((gate) >> 17 & 0x7fff))
#define GATE_CALL(gate) ((uint32_t)((gate) >> 32))

/* Items [next, end) that are left of a worker's share; a cache line each. */
struct share {
    _Alignas(64) atomic_int next;
    int32_t end;
};

struct job {
    void (*task)(void *arg, int32_t i, int32_t worker);
    void *arg;
    int32_t shares;
    struct share *share;
};

struct crew {
    pthread_mutex_t calling; /* held by the call that has the crew */
    pthread_mutex_t lock;    /* of the two conditions */
    pthread_cond_t work, done;
    atomic_int sleepers;     /* threads that wait for work */
    atomic_bool waiting;     /* the caller waits for the last member */
    atomic_bool quit;
    _Atomic uint64_t gate;
    /* the call; written while the gate is shut and nobody is in */
    struct job job;
    int32_t threads;         /* started */
    struct member {
        struct crew *crew;
        pthread_t thread;
        int32_t worker;      /* 1, 2, ...; the caller is 0 */
    } member[];
};

struct pool {
    _Atomic(struct crew *) crew;
    _Atomic int64_t used;   /* when cpu_threads_used() was called last, in nanoseconds */
    atomic_int pid; /* process that the crew belongs to; negative while the child makes its own */
    int32_t workers;
    const struct services *services;
};

/* Set while this thread runs a task: a call from inside one is done on the spot, since waiting for the crew would be waiting for itself. */
static _Thread_local bool inside;

static void rest(void)
{
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* The worker's own share, then what the others have left. */
static void take_items(const struct job *job, int32_t worker)
{
    const bool outer = inside;
    inside = true;
    for (int32_t n = 0; n < job->shares; n++) {
        struct share *share = &job->share[(worker + n) % job->shares];
        for (;;) {
            const int i = atomic_fetch_add_explicit(&share->next, 1, memory_order_relaxed);
            if (i >= share->end) break;
            job->task(job->arg, i, worker);
        }
    }
    inside = outer;
}

/* ---- a member ------------------------------------------------------------------ */

/* Is there a call that this worker has not seen and may join? */
static bool calls(uint64_t gate, uint32_t seen, int32_t worker)
{
    return (gate & GATE_OPEN) && GATE_CALL(gate) != seen && worker < GATE_LIMIT(gate);
}

/* Looks for a while, then sleeps. */
static void wait_for_call(struct crew *crew, uint32_t seen, int32_t worker)
{
    for (int n = 0; n < SPINS; n++) {
        if (calls(atomic_load_explicit(&crew->gate, memory_order_relaxed), seen, worker) || atomic_load(&crew->quit)) return;
        rest();
    }
    pthread_mutex_lock(&crew->lock);
    atomic_fetch_add(&crew->sleepers, 1); /* before the last look: who opens the gate looks for sleepers after it */
    while (!calls(atomic_load(&crew->gate), seen, worker) && !atomic_load(&crew->quit)) pthread_cond_wait(&crew->work, &crew->lock);
    atomic_fetch_sub(&crew->sleepers, 1);
    pthread_mutex_unlock(&crew->lock);
}

static void leave(struct crew *crew)
{
    const uint64_t before = atomic_fetch_sub(&crew->gate, 1);
    if ((before & GATE_MEMBERS) != 1 || (before & GATE_OPEN) || !atomic_load(&crew->waiting)) return;
    pthread_mutex_lock(&crew->lock);
    pthread_cond_signal(&crew->done);
    pthread_mutex_unlock(&crew->lock);
}

static void *member_thread(void *argument)
{
    const struct member *me = argument;
    struct crew *crew = me->crew;
    uint32_t seen = 0;
    while (!atomic_load(&crew->quit)) {
        uint64_t gate = atomic_load(&crew->gate);
        if (!calls(gate, seen, me->worker)) {
            wait_for_call(crew, seen, me->worker);
            continue;
        }
        if (!atomic_compare_exchange_strong(&crew->gate, &gate, gate + 1)) continue;
        seen = GATE_CALL(gate);
        take_items(&crew->job, me->worker);
        leave(crew);
    }
    return NULL;
}

/* ---- the crew -------------------------------------------------------------------- */

static void crew_destroy(const struct services *services, struct crew *crew)
{
    if (!crew) return;
    pthread_mutex_lock(&crew->lock);
    atomic_store(&crew->quit, true);
    pthread_cond_broadcast(&crew->work);
    pthread_mutex_unlock(&crew->lock);
    for (int32_t n = 0; n < crew->threads; n++) pthread_join(crew->member[n].thread, NULL);
    pthread_mutex_destroy(&crew->calling);
    pthread_mutex_destroy(&crew->lock);
    pthread_cond_destroy(&crew->work);
    pthread_cond_destroy(&crew->done);
    memory_delete(services, crew->job.share);
    memory_delete(services, crew);
}

/* workers - 1 threads; NULL where memory or the system's threads do not suffice. Signals are the application's: its own threads get them. */
static struct crew *crew_create(const struct services *services, int32_t workers)
{
    struct crew *crew = memory_new(services, 1, sizeof *crew + (size_t)(workers - 1) * sizeof *crew->member);
    if (!crew) return NULL;
    crew->job.share = memory_new(services, (size_t)workers, sizeof *crew->job.share);
    if (!crew->job.share) {
        memory_delete(services, crew);
        return NULL;
    }
    pthread_mutex_init(&crew->calling, NULL);
    pthread_mutex_init(&crew->lock, NULL);
    pthread_cond_init(&crew->work, NULL);
    pthread_cond_init(&crew->done, NULL);
    sigset_t all, kept;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &kept);
    for (int32_t n = 0; n < workers - 1; n++) {
        struct member *member = &crew->member[n];
        *member = (struct member){.crew = crew, .worker = n + 1};
        if (pthread_create(&member->thread, NULL, member_thread, member)) break;
        crew->threads++;
    }
    pthread_sigmask(SIG_SETMASK, &kept, NULL);
    if (crew->threads == workers - 1) return crew;
    crew_destroy(services, crew);
    return NULL;
}

static void open_gate(struct crew *crew, int32_t limit)
{
    const uint32_t call = GATE_CALL(atomic_load(&crew->gate)) + 1;
    atomic_store(&crew->gate, (uint64_t)call << 32 | (uint64_t)limit << 17 | GATE_OPEN);
    if (atomic_load(&crew->sleepers) == 0) return;
    pthread_mutex_lock(&crew->lock);
    pthread_cond_broadcast(&crew->work);
    pthread_mutex_unlock(&crew->lock);
}

/* No thread joins any more; those that have are waited for. */
static void shut_gate(struct crew *crew)
{
    if (!(atomic_fetch_and(&crew->gate, ~GATE_OPEN) & GATE_MEMBERS)) return;
    for (int n = 0; n < SPINS; n++) {
        if (!(atomic_load(&crew->gate) & GATE_MEMBERS)) return;
        rest();
    }
    pthread_mutex_lock(&crew->lock);
    atomic_store(&crew->waiting, true);
    while (atomic_load(&crew->gate) & GATE_MEMBERS) pthread_cond_wait(&crew->done, &crew->lock);
    atomic_store(&crew->waiting, false);
    pthread_mutex_unlock(&crew->lock);
}

/* ---- the pool --------------------------------------------------------------------- */

/* The crew of this process. Threads do not survive fork(): the first call in a child makes new ones (the old object is lost, its memory
 * with it); NULL if that fails. */
static struct crew *crew_here(struct pool *pool)
{
    const int me = (int)getpid();
    for (;;) {
        int pid = atomic_load_explicit(&pool->pid, memory_order_acquire);
        if (pid == me) return atomic_load_explicit(&pool->crew, memory_order_relaxed);
        if (pid == -me) continue; /* another thread of this process is making it */
        if (!atomic_compare_exchange_strong(&pool->pid, &pid, -me)) continue;
        atomic_store(&pool->crew, crew_create(pool->services, pool->workers));
        atomic_store_explicit(&pool->pid, me, memory_order_release);
    }
}

static void pool_parallel_for(void *user, int32_t count, void (*task)(void *arg, int32_t i, int32_t worker), void *arg)
{
    struct pool *pool = user;
    if (MUTANT(cpu_threads_last_item) && count > 1) count--;
    struct crew *crew = pool->workers > 1 && count > 1 && !inside ? crew_here(pool) : NULL;
    if (!crew || pthread_mutex_trylock(&crew->calling)) {
        struct share all = {.end = count};
        take_items(&(struct job){task, arg, 1, &all}, 0);
        return;
    }
    struct job *job = &crew->job;
    job->task = task;
    job->arg = arg;
    job->shares = count < pool->workers ? count : pool->workers;
    for (int32_t n = 0; n < job->shares; n++) {
        atomic_store_explicit(&job->share[n].next, (int32_t)((int64_t)count * n / job->shares), memory_order_relaxed);
        job->share[n].end = (int32_t)((int64_t)count * (n + 1) / job->shares);
    }
    open_gate(crew, job->shares);
    take_items(job, 0);
    if (!MUTANT(cpu_threads_no_wait)) shut_gate(crew);
    pthread_mutex_unlock(&crew->calling);
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

bool cpu_threads_near(const struct services *services)
{
    struct pool *pool = services->pool;
    if (pool->workers < 2) return false;
    struct crew *crew = atomic_load(&pool->crew); /* in a forked child its parent's: a wrong guess costs time alone */
    if (crew && atomic_load(&crew->sleepers) == 0) return true;
    return now_ns() - atomic_load_explicit(&pool->used, memory_order_relaxed) < NEAR_NS;
}

void cpu_threads_used(const struct services *services)
{
    struct pool *pool = services->pool;
    if (pool->workers > 1) atomic_store_explicit(&pool->used, now_ns(), memory_order_relaxed);
}

heed_status cpu_threads_create(struct services *services, int32_t num_threads)
{
    const int32_t workers = num_threads > 0 ? num_threads : cpu_workers("");
    struct pool *pool = memory_new(services, 1, sizeof *pool);
    if (!pool) return out_of_memory(sizeof *pool);
    pool->workers = workers < MAX_WORKERS ? workers : MAX_WORKERS;
    pool->services = services;
    atomic_init(&pool->pid, (int)getpid());
    if (pool->workers > 1) {
        struct crew *crew = crew_create(services, pool->workers);
        if (!crew) {
            memory_delete(services, pool);
            return fail(HEED_OUT_OF_MEMORY, "no memory for %d threads, or the system gives no more of them", workers);
        }
        atomic_store(&pool->crew, crew);
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
    if (atomic_load(&pool->pid) == (int)getpid() || MUTANT(cpu_fork_joins_lost)) crew_destroy(services, atomic_load(&pool->crew));
    memory_delete(services, pool);
    services->pool = NULL;
}
