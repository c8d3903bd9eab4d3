/* SPDX-License-Identifier: MIT
 * table.h - rows for people or for programs: the same cells as a text table, printed row by row, or as one JSON array at the end.
 */
#ifndef HEED_CLI_TABLE_H
#define HEED_CLI_TABLE_H

#include <jansson.h>
#include <stdbool.h>

/* A column of the text table. Cells without a column appear in JSON alone. */
struct column {
    const char *key, *title;
    int width;      /* at least; negative: left-justified */
    int digits;     /* behind the point, for numbers */
};

struct table {
    const struct column *columns; /* ended by one without a key */
    bool json, begun;
    json_t *rows;                 /* all of them: --json prints the array, the bench draws it */
    json_t *row;                  /* being filled */
    int width[32];
};

bool table_begin(struct table *table, const struct column *columns, bool json);
/* Cells of the current row; NaN, infinity and NULL become null ("-" in text). */
void table_text(struct table *table, const char *key, const char *value);
void table_number(struct table *table, const char *key, double value);
void table_count(struct table *table, const char *key, long long value);
void table_json(struct table *table, const char *key, json_t *value); /* takes the reference */
void table_row(struct table *table);                                  /* text: printed now */
/* Prints the JSON array; frees. False: memory or output failed. */
bool table_end(struct table *table);

/* A line that is overwritten by the next, on standard error, on a terminal only; NULL wipes it. */
void progress(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
