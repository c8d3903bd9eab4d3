/* SPDX-License-Identifier: MIT
 * plot.c - an SVG of bars: how near each problem came to the machine's own ceiling. Written as text, no library.
 */
#include "plot.h"
#include <stdio.h>
#include <string.h>

enum { ROW = 34, LEFT = 20, BAR = 560, WIDTH = 900 };

static void escaped(FILE *file, const char *text)
{
    for (; text && *text; text++) {
        if (*text == '<') fputs("&lt;", file);
        else if (*text == '&') fputs("&amp;", file);
        else if (*text == '>') fputs("&gt;", file);
        else fputc(*text, file);
    }
}

static const char *text_of(const json_t *row, const char *key)
{
    const char *text = json_string_value(json_object_get(row, key));
    return text ? text : "";
}

static void bar(FILE *file, const json_t *row, int y)
{
    const double percent = json_number_value(json_object_get(row, "roof_percent"));
    const double length = percent > 100 ? BAR : BAR * percent / 100;
    const bool cpu = !strcmp(text_of(row, "backend"), "cpu");
    fprintf(file, "<text x='%d' y='%d'>", LEFT, y + 12);
    escaped(file, text_of(row, "problem"));
    fprintf(file, "  (");
    escaped(file, text_of(row, "device"));
    fprintf(file, ", ");
    escaped(file, text_of(row, "kernel"));
    fprintf(file, ")</text>\n<rect x='%d' y='%d' width='%.1f' height='12' fill='%s'/>\n", LEFT, y + 16, length,
            cpu ? "#3b528b" : "#bc3754");
    fprintf(file, "<text x='%.1f' y='%d'>%.0f %%  %.4g ms</text>\n", LEFT + length + 6, y + 26, percent,
            json_number_value(json_object_get(row, "ms_median")));
}

bool plot_svg(const json_t *rows, const char *path)
{
    const int count = (int)json_array_size(rows), height = 50 + count * (ROW + 4);
    FILE *file = fopen(path, "w");
    if (file) {
        fprintf(file,
                "<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%d' font-family='sans-serif' font-size='12'>\n"
                "<rect width='100%%' height='100%%' fill='white'/>\n"
                "<text x='%d' y='20' font-size='15'>percent of the roof measured in the same run</text>\n"
                "<line x1='%d' y1='30' x2='%d' y2='%d' stroke='#999' stroke-dasharray='4 3'/>\n",
                WIDTH, height, LEFT, LEFT + BAR, LEFT + BAR, height - 10);
        for (int n = 0; n < count; n++) bar(file, json_array_get(rows, (size_t)n), 32 + n * (ROW + 4));
        fputs("</svg>\n", file);
    }
    if (!file || (ferror(file) | fclose(file))) {
        fputs("heed bench: ", stderr);
        perror(path);
        return false;
    }
    return true;
}
