/* SPDX-License-Identifier: MIT
 * heatmap.h - a matrix of weights in [0, 1] as colours: on a terminal of any ability, or as a picture.
 */
#ifndef HEED_CLI_HEATMAP_H
#define HEED_CLI_HEATMAP_H

#include <stdbool.h>
#include <stdint.h>

enum color { COLOR_NEVER, COLOR_16, COLOR_256, COLOR_24BIT };

struct heatmap {
    const float *weights;      /* [rows][columns] */
    int32_t rows, columns;
    char *const *row_labels;   /* or NULL: numbers */
    char *const *column_labels;
};

/* "auto" or NULL: what standard output can do, by NO_COLOR, TERM and COLORTERM. False: no such word. */
bool color_from(const char *word, enum color *color);

/* Rows of the map, each with its label, its cells and the key that it attends to most. Wider than `width` characters: neighbours are
 * averaged into one cell, and a line says so. */
void heatmap_print(const struct heatmap *map, enum color color, int width);

/* At most LABEL_MAX columns of a terminal of a UTF-8 label, right-aligned in `width` of them. */
enum { LABEL_MAX = 14 };
int label_columns(const char *label);
void label_print(const char *label, int width);

/* zoom pixels per element, 0 = so many that the longer side has about 600. False after a line on standard error. */
bool heatmap_png(const struct heatmap *map, int32_t zoom, const char *path);

#endif
