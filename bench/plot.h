/* SPDX-License-Identifier: MIT
 * plot.h - the rows of a bench as a bar chart.
 */
#ifndef HEED_BENCH_PLOT_H
#define HEED_BENCH_PLOT_H

#include <jansson.h>
#include <stdbool.h>

/* Percent of the roof, a bar a row. False after a line on standard error. */
bool plot_svg(const json_t *rows, const char *path);

#endif
