/* SPDX-License-Identifier: MIT
 * pin.c - affinities by Linux calls; elsewhere nothing happens.
 */
#include "pin.h"
#include "internal.h"
#include "tool.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#if defined(__linux__)

static struct {
    cpu_set_t all;
    bool usable;
    pthread_t caller;
    atomic_int arrived;
    int workers;
    double deadline;
} pins;

/* The n-th CPU that this process may use. */
static cpu_set_t nth(int n)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &pins.all) && n-- == 0) CPU_SET(cpu, &one);
    return one;
}

/* Waits for the others, so that no thread does two of these; not for ever, since a pool may have fewer threads than it says. */
static void settle(void *arg, int32_t i, int32_t worker)
{
    (void)arg;
    (void)i;
    atomic_fetch_add(&pins.arrived, 1);
    while (atomic_load(&pins.arrived) < pins.workers && seconds_now() < pins.deadline) sched_yield();
    const cpu_set_t own = nth(worker);
    if (worker > 0 && !pthread_equal(pthread_self(), pins.caller)) pthread_setaffinity_np(pthread_self(), sizeof own, &own);
}

void pin_pool(const struct services *services)
{
    const heed_threads *threads = &services->threads;
    pins.workers = threads->workers;
    pins.caller = pthread_self();
    pins.usable = sched_getaffinity(0, sizeof pins.all, &pins.all) == 0 && pins.workers > 1 && CPU_COUNT(&pins.all) >= pins.workers;
    if (!pins.usable) return;
    pins.deadline = seconds_now() + 0.2;
    threads->parallel_for(threads->user, pins.workers, settle, NULL);
}

void pin_caller(bool pinned)
{
    const cpu_set_t set = pinned ? nth(0) : pins.all;
    if (pins.usable) pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

#else

void pin_pool(const struct services *services) { (void)services; }
void pin_caller(bool pinned) { (void)pinned; }

#endif
