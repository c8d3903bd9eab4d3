/* SPDX-License-Identifier: MIT
 * pin.h - one thread, one CPU, while heed's own threads are timed: on a machine that does other things too, the scheduler leaves two threads
 * that sleep and wake together on one CPU, and half of the machine is measured.
 */
#ifndef HEED_BENCH_PIN_H
#define HEED_BENCH_PIN_H

#include <stdbool.h>

struct services;

/* Gives each thread of the pool but the caller a CPU of its own, if there are enough of those that this process may use. */
void pin_pool(const struct services *services);
/* The caller onto its own CPU; false: anywhere again, so that threads which other libraries start do not inherit it. */
void pin_caller(bool pinned);

#endif
