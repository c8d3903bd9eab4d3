/* SPDX-License-Identifier: MIT
 * contest.c - turns. A turn is a burst of runs of one contender, long enough that what the one before it left in the caches and in spinning
 * threads is a small part of it. Medians over all runs. A peer that is slow gets fewer turns than heed, never more.
 */
#include "contest.h"
#include "dtype.h"
#include "pin.h"
#include "queued.h"
#include "tool.h"
#include "view.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LEAST_RUNS = 10, MOST_RUNS = 20000, SLOW_RUNS = 3, LEAST_TURNS = 5, PEER_TURNS = 3, MOST_BURST = 500 };
static const double least_seconds = 0.3, most_seconds = 10, turn_seconds = 0.01, peer_seconds = 1;
static const double apart_most_f32 = 1e-3, apart_most_16 = 3e-2; /* of heed's largest element */

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void pieces_of(const double *seconds, struct times *t)
{
    t->pieces = t->runs < TIME_PIECES ? t->runs : TIME_PIECES;
    for (int n = 0; n < t->pieces; n++) {
        const int begin = (int)((int64_t)n * t->runs / t->pieces), end = (int)((int64_t)(n + 1) * t->runs / t->pieces);
        for (int r = begin; r < end; r++) t->piece[n] += seconds[r] / (end - begin);
        t->mean += t->piece[n] * (end - begin) / t->runs;
    }
}

/* spread: half the distance between the quartiles, over the median. */
static struct times times_of(double *seconds, int runs)
{
    struct times t = {.runs = runs};
    pieces_of(seconds, &t);
    qsort(seconds, (size_t)runs, sizeof *seconds, by_size);
    t.least = seconds[0], t.most = seconds[runs - 1], t.median = seconds[runs / 2];
    if (runs % 2 == 0) t.median = 0.5 * (t.median + seconds[runs / 2 - 1]);
    t.spread = 0.5 * (seconds[runs * 3 / 4] - seconds[runs / 4]) / t.median;
    return t;
}

/* ---- the check ------------------------------------------------------------------ */

/* Planted: the named peer's result is spoiled, so that a test can see that a wrong peer is found. */
static void spoil(const struct entrant *e, const struct instance *in, float *o)
{
    const char *name = getenv("HEED_PEERS_SPOIL");
    if (name && !strcmp(name, e->peer->name)) o[in->tensors.o.offset] += 1;
}

/* Largest difference from heed's o, over heed's largest element; NaN and infinity of the peer count as infinite. */
static double apart(const struct contest *c)
{
    const struct instance *in = c->instance;
    const struct problem *p = &in->problem;
    const heed_tensor *o = &in->tensors.o;
    const size_t element = p->o_type == HEED_F32 ? 4 : 2;
    float *row = malloc(sizeof *row * (size_t)p->v_head_dim);
    double most = 0, size = 0;
    for (int32_t b = 0; row && b < in->line.batch; b++)
        for (int32_t h = 0; h < p->q_heads; h++)
            for (int32_t i = 0; i < in->line.q_len; i++) {
                const int64_t at = o->offset + b * o->batch_stride + h * o->head_stride + i * o->token_stride;
                row_to_f32(p->o_type, (const unsigned char *)o->data + at * (int64_t)element, 1, row, p->v_head_dim);
                for (int32_t d = 0; d < p->v_head_dim; d++) {
                    const double one = fabs((double)c->o[at + d] - (double)row[d]);
                    if (!(one <= most)) most = isfinite(one) ? one : INFINITY;
                    if (fabs((double)row[d]) > size) size = fabs((double)row[d]);
                }
            }
    free(row);
    return row ? most == 0 ? 0 : most / size : INFINITY;
}

/* false: it cannot do this problem. */
static bool check(struct contest *c, struct entrant *e)
{
    const double limit = c->instance->problem.q_type == HEED_F32 ? apart_most_f32 : apart_most_16;
    double seconds = 0;
    const char *why = e->peer->begin(e->peer, c->services, c->instance);
    if (why == peer_cannot) return false;
    if (!why) snprintf(e->setting, sizeof e->setting, "%s", e->peer->setting(e->peer));
    for (int n = 0; !why && n < 2; n++) why = e->peer->run(e->peer, c->o, 1, &seconds); /* the second is warm */
    if (!why && e->peer->fetch) why = e->peer->fetch(e->peer, c->o);
    if (why) {
        snprintf(e->why, sizeof e->why, "failed: %s", why);
        return true;
    }
    spoil(e, c->instance, c->o);
    e->apart = apart(c);
    e->wrong = !(e->apart <= limit);
    if (e->wrong) snprintf(e->why, sizeof e->why, "wrong by %.2g of the largest element", e->apart);
    e->burst = (int)(turn_seconds / (seconds + 1e-9));
    e->timed = !e->wrong;
    return true;
}

heed_status contest_open(struct contest *c, const struct services *services, struct prepared *prepared, struct instance *instance,
                         const struct peer *const *list)
{
    const struct block *block = &instance->block[ROLE_O];
    const size_t element = instance->problem.o_type == HEED_F32 ? 4 : 2; /* an o of 2-byte elements takes twice the room in f32 */
    memset(c, 0, sizeof *c);
    c->services = services;
    c->prepared = prepared;
    c->instance = instance;
    c->count = 1;
    c->o = aligned_alloc(64, (block->bytes / element * sizeof *c->o + 127) / 64 * 64);
    c->entrant[0].seconds = calloc(MOST_RUNS, sizeof(double));
    if (!c->o || !c->entrant[0].seconds) return HEED_OUT_OF_MEMORY;
    for (; list && *list; list++) {
        if ((*list)->absent(*list) || (*list)->refuses(*list, instance)) continue;
        struct entrant *e = &c->entrant[c->count];
        memset(c->o, 0xFF, block->bytes / element * sizeof *c->o); /* NaN: what a peer does not write is not right by chance */
        *e = (struct entrant){.peer = *list};
        const bool can = check(c, e);
        if (!e->timed) e->peer->end(e->peer);
        if (!can) continue;
        c->count++;
        e->seconds = calloc(MOST_RUNS, sizeof(double));
        if (!e->seconds) return HEED_OUT_OF_MEMORY;
    }
    return HEED_OK;
}

/* ---- turns --------------------------------------------------------------------------- */

/* heed's runs behind one time. */
static int at_once(const struct contest *c) { return c->queue ? c->queued : 1; }

static heed_status heed_runs(struct contest *c, int count, double *seconds)
{
    heed_status status = HEED_OK;
    for (int n = 0; status == HEED_OK && n < count; n++) {
        const double begin = seconds_now();
        if (c->queue) {
            status = queued_runs(c->prepared, c->queue, c->queued, &seconds[n]);
            seconds[n] /= c->queued;
            continue;
        }
        status = prepared_run(c->prepared);
        seconds[n] = seconds_now() - begin;
    }
    return status;
}

static heed_status turn(struct contest *c, struct entrant *e, bool alone)
{
    int count = e->burst < 1 ? 1 : e->burst > MOST_BURST ? MOST_BURST : e->burst;
    if (count > MOST_RUNS - e->runs) count = MOST_RUNS - e->runs;
    double *seconds = e->seconds + e->runs;
    heed_status status = HEED_OK;
    const char *why = NULL;
    pin_caller(!e->peer || e->peer->on_heed_threads(e->peer));
    if (!alone) { /* untimed: threads awake, cores at speed, its own data in the caches and not the last contender's */
        double ignored;
        if (e->peer) why = e->peer->run(e->peer, c->o, 1, &ignored);
        else status = heed_runs(c, 1, &ignored);
    }
    if (e->peer && !why) why = e->peer->run(e->peer, c->o, count, seconds);
    else if (!e->peer && status == HEED_OK) status = heed_runs(c, count, seconds);
    pin_caller(false);
    if (why) {
        snprintf(e->why, sizeof e->why, "failed: %s", why);
        e->peer->end(e->peer);
        e->timed = false;
    }
    for (int n = 0; !why && n < count; n++) e->total += seconds[n] * (e->peer ? 1 : at_once(c));
    e->runs += count;
    return status;
}

static bool enough(const struct entrant *heed, int turns, bool alone)
{
    if (heed->runs >= MOST_RUNS) return true;
    if (turns < (alone ? 1 : LEAST_TURNS)) return false;
    if (heed->runs >= LEAST_RUNS && heed->total >= least_seconds) return true;
    return heed->runs >= SLOW_RUNS && heed->total >= most_seconds;
}

/* Threads of other libraries spin behind their last run (OpenBLAS's for 2^26 cycles, about 25 ms) on the cores of the next: nobody begins
 * before all of them sleep, as the CPU time of the processes shows, or before they were given long enough. Not longer: cores that slept for 150 ms
 * were seen to take 6 ms to come back. */
static void pause_for_spinners(void)
{
    const double nap = 3e-3, long_enough = 0.05, asleep = 0.1;
    for (double slept = 0; slept < long_enough; slept += nap) {
        const double before = peers_cpu_seconds();
        nanosleep(&(struct timespec){.tv_nsec = (long)(nap * 1e9)}, NULL);
        if (peers_cpu_seconds() - before < asleep * nap) break;
    }
}

heed_status contest_run(struct contest *c)
{
    struct entrant *heed = &c->entrant[0];
    const bool alone = c->count == 1;
    double seconds;
    pin_caller(true);
    heed_status status = heed_runs(c, 1, &seconds); /* warm-up: pages, caches, the pool's threads */
    if (status == HEED_OK) status = heed_runs(c, 1, &seconds);
    pin_caller(false);
    heed->burst = (int)(turn_seconds / (seconds * at_once(c) + 1e-9));
    for (int turns = 0; status == HEED_OK && !enough(heed, turns, alone); turns++)
        for (int n = 0; status == HEED_OK && n < c->count; n++) {
            struct entrant *e = &c->entrant[n];
            if (n && (!e->timed || e->runs >= MOST_RUNS || (turns >= PEER_TURNS && e->total >= peer_seconds))) continue;
            if (!alone) pause_for_spinners();
            status = turn(c, e, alone);
        }
    for (int n = 0; status == HEED_OK && n < c->count; n++)
        if (n == 0 || c->entrant[n].timed) c->entrant[n].times = times_of(c->entrant[n].seconds, c->entrant[n].runs);
    return status;
}

void contest_close(struct contest *c)
{
    for (int n = 0; n < c->count; n++) {
        if (c->entrant[n].peer && c->entrant[n].timed) c->entrant[n].peer->end(c->entrant[n].peer);
        free(c->entrant[n].seconds);
    }
    queued_close(c->queue);
    free(c->o);
}
