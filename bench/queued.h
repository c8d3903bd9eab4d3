/* SPDX-License-Identifier: MIT
 * queued.h - runs in a row on one queue of an OpenCL device: what an engine pays that enqueues its layers and waits once.
 */
#ifndef HEED_BENCH_QUEUED_H
#define HEED_BENCH_QUEUED_H

#include "harness.h"

/* A queue of our own on the device; *queue stays NULL where the device is the CPU, whose runs have ended when heed_run() returns. */
heed_status queued_open(heed_context *context, int32_t device, void **queue);
/* heed_run_cl() `count` times, then the wait: the time of all of it. */
heed_status queued_runs(struct prepared *prepared, void *queue, int count, double *seconds);
void queued_close(void *queue);

#endif
