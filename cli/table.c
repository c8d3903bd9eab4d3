/* SPDX-License-Identifier: MIT
 * table.c - one way to say a row: filled as a JSON object, printed as a line of text unless JSON was asked for.
 */
#include "table.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

bool table_begin(struct table *table, const struct column *columns, bool json)
{
    memset(table, 0, sizeof *table);
    table->columns = columns;
    table->json = json;
    table->rows = json_array();
    table->row = json_object();
    for (int c = 0; columns[c].key; c++) {
        const int wide = (int)strlen(columns[c].title), least = abs(columns[c].width);
        table->width[c] = wide > least ? wide : least;
    }
    return table->rows && table->row;
}

void table_json(struct table *table, const char *key, json_t *value)
{
    json_object_set_new(table->row, key, value ? value : json_null());
}

void table_text(struct table *table, const char *key, const char *value)
{
    table_json(table, key, value ? json_string(value) : NULL);
}

void table_number(struct table *table, const char *key, double value)
{
    table_json(table, key, isfinite(value) ? json_real(value) : NULL);
}

void table_count(struct table *table, const char *key, long long value)
{
    table_json(table, key, json_integer(value));
}

/* One cell as text. A number that would print as 0.00 is given its size instead. */
static const char *cell_text(const json_t *cell, int digits, char *text, size_t capacity)
{
    if (json_is_string(cell)) return json_string_value(cell);
    if (json_is_integer(cell)) snprintf(text, capacity, "%lld", (long long)json_integer_value(cell));
    else if (json_is_real(cell)) {
        const double x = json_real_value(cell);
        const bool tiny = x != 0 && fabs(x) < 0.5 * pow(10, -digits), huge = fabs(x) >= 1e9;
        if (x == 0) snprintf(text, capacity, "0"); /* exactly */
        else if (tiny || huge) snprintf(text, capacity, "%.1e", x);
        else snprintf(text, capacity, "%.*f", digits, x);
    } else snprintf(text, capacity, "-");
    return text;
}

/* Columns of text count characters, not bytes: a UTF-8 continuation byte takes no room. */
static int characters(const char *text)
{
    int n = 0;
    for (; *text; text++) n += ((unsigned char)*text & 0xC0) != 0x80;
    return n;
}

static void print_cell(struct table *table, int c, const char *text)
{
    const bool left = table->columns[c].width < 0, last = !table->columns[c + 1].key;
    const int pad = table->width[c] - characters(text);
    if (pad < 0) table->width[c] -= pad; /* later rows line up with this one */
    printf("%s%*s%s%*s", c ? "  " : "", left || pad < 0 ? 0 : pad, "", text, left && !last && pad > 0 ? pad : 0, "");
}

void table_row(struct table *table)
{
    json_t *row = table->row;
    json_array_append_new(table->rows, row);
    table->row = json_object();
    if (table->json) return;
    progress(NULL);
    if (!table->begun) {
        for (int c = 0; table->columns[c].key; c++) print_cell(table, c, table->columns[c].title);
        putchar('\n');
        table->begun = true;
    }
    for (int c = 0; table->columns[c].key; c++) {
        char text[64];
        const json_t *cell = json_object_get(row, table->columns[c].key);
        print_cell(table, c, cell_text(cell, table->columns[c].digits, text, sizeof text));
    }
    putchar('\n');
    fflush(stdout);
}

bool table_end(struct table *table)
{
    bool good = table->rows && table->row;
    progress(NULL);
    if (good && table->json) {
        good = json_dumpf(table->rows, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(12)) == 0;
        putchar('\n');
    }
    json_decref(table->row);
    json_decref(table->rows);
    return good;
}

void progress(const char *format, ...)
{
    static bool shown;
    if (!isatty(STDERR_FILENO)) return;
    if (shown) fputs("\r\x1b[K", stderr);
    shown = format != NULL;
    if (!format) return;
    struct winsize size;
    char text[512];
    const int width = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col - 1 : 79;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "%.*s", width, text); /* what went on to a second line would stay there */
    fflush(stderr);
}
