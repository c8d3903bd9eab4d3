/* SPDX-License-Identifier: MIT
 * wait.c - the end of a command, waited for with a limit. OpenCL has no such wait: clWaitForEvents hangs with its device.
 *
 * Devices of type CPU call back at the end and wake whoever waits: looking now and then would sleep past a run of 20 microseconds (a sleep is
 * 70 at least on Linux), and looking without a rest would take a core from the kernel. GPUs are looked at: a callback costs them a thread's
 * wake-up beside the interrupt's. Their short runs are looked at without a rest, which would cost more than the run (one step of decode on an H200: 40
 * microseconds); later ones with rests of a hundredth of the time spent.
 */
#include "cl.h"
#include <sched.h>
#include <time.h>

double cl_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void cl_rest(double duration)
{
    const struct timespec pause = {(time_t)duration, (long)((duration - (double)(time_t)duration) * 1e9)};
    nanosleep(&pause, NULL);
}

cl_int cl_event_state(cl_event event)
{
    cl_int state = CL_QUEUED;
    const cl_int code = clGetEventInfo(event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof state, &state, NULL);
    return code == CL_SUCCESS ? state : code;
}

/* ---- the bell ---------------------------------------------------------------- */

void cl_bell_init(struct cl_bell *bell)
{
    pthread_condattr_t clock;
    *bell = (struct cl_bell){0};
    pthread_mutex_init(&bell->lock, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&bell->rung, &clock);
    pthread_condattr_destroy(&clock);
}

void cl_bell_destroy(struct cl_bell *bell)
{
    pthread_cond_destroy(&bell->rung);
    pthread_mutex_destroy(&bell->lock);
}

static void CL_CALLBACK ring(cl_event event, cl_int state, void *user)
{
    struct cl_bell *bell = user;
    (void)event;
    (void)state;
    pthread_mutex_lock(&bell->lock);
    bell->pending--;
    bell->count++;
    pthread_cond_broadcast(&bell->rung);
    pthread_mutex_unlock(&bell->lock);
}

static struct timespec in(double duration)
{
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += (time_t)duration;
    end.tv_nsec += (long)((duration - (double)(time_t)duration) * 1e9);
    end.tv_sec += end.tv_nsec / 1000000000;
    end.tv_nsec %= 1000000000;
    return end;
}

/* Waits until the bell rang after `count`, at most `duration`. */
static void listen(struct cl_bell *bell, uint32_t count, double duration)
{
    const struct timespec end = in(duration);
    int error = 0;
    pthread_mutex_lock(&bell->lock);
    while (bell->count == count && error == 0) error = pthread_cond_timedwait(&bell->rung, &bell->lock, &end);
    pthread_mutex_unlock(&bell->lock);
}

bool cl_bell_silent(struct cl_bell *bell, double duration)
{
    const struct timespec end = in(duration);
    int error = 0;
    pthread_mutex_lock(&bell->lock);
    while (bell->pending > 0 && error == 0) error = pthread_cond_timedwait(&bell->rung, &bell->lock, &end);
    const bool silent = bell->pending == 0;
    pthread_mutex_unlock(&bell->lock);
    return silent;
}

static uint32_t bell_count(struct cl_bell *bell, int pending)
{
    pthread_mutex_lock(&bell->lock);
    const uint32_t count = bell->count;
    bell->pending += pending;
    pthread_mutex_unlock(&bell->lock);
    return count;
}

/* ---- the wait ------------------------------------------------------------------- */

cl_int cl_wait_limited(struct cl_device *device, cl_event event, double limit)
{
    struct cl_bell *bell = &device->bell;
    const double begin = cl_seconds();
    bool called_back = device->type & CL_DEVICE_TYPE_CPU;
    uint32_t count = 0;
    if (called_back) {
        bell_count(bell, 1);
        called_back = clSetEventCallback(event, CL_COMPLETE, ring, bell) == CL_SUCCESS;
        if (!called_back) bell_count(bell, -1);
    }
    for (;;) {
        /* The state is asked without the lock: the driver may hold a lock of its own while it calls back. */
        if (called_back) count = bell_count(bell, 0);
        const cl_int state = cl_event_state(event);
        if (state <= CL_COMPLETE) return state;
        const double spent = cl_seconds() - begin;
        if (spent > limit) return CL_WAIT_OVERRUN;
        if (called_back) {
            listen(bell, count, 0.02); /* a driver that forgets to call back costs time, not the answer */
        } else if (spent < 0.5e-3) {
            sched_yield();
        } else {
            cl_rest(spent < 0.1 ? spent / 100 : 1e-3);
        }
    }
}
