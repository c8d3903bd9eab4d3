/* SPDX-License-Identifier: MIT
 * start.h - `heed bench --start`: how long until a plan is ready.
 */
#ifndef HEED_BENCH_START_H
#define HEED_BENCH_START_H

#include "args.h"

int run_start(const struct options *options);

#endif
