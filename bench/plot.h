/* SPDX-License-Identifier: MIT
 * plot.h - the rows of a bench as curves over the number of keys.
 */
#ifndef HEED_BENCH_PLOT_H
#define HEED_BENCH_PLOT_H

#include <jansson.h>
#include <stdbool.h>

/* The picture (.svg, .png, .pdf), and beside it its numbers (.dat) and its gnuplot script (.gp). False after a line on standard error. */
bool plot_rows(const json_t *rows, const char *path);
bool plot_name_good(const char *path); /* asked before minutes of timing */

#endif
