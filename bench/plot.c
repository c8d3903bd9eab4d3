/* SPDX-License-Identifier: MIT
 * plot.c - the rows of a bench as a picture: time and share of the roof over the number of keys, a curve for each device (and peer) and sort of
 * problem, so that CPU and OpenCL lie side by side. The numbers and a gnuplot script are written beside it and stay there: people want their own picture.
 * Where gnuplot is not installed an .svg of bars is drawn here, as text.
 */
#include "plot.h"
#include "harness.h"
#include <math.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

extern char **environ;

static const char *text_of(const json_t *row, const char *key)
{
    const char *text = json_string_value(json_object_get(row, key));
    return text ? text : "";
}

static double number_of(const json_t *row, const char *key)
{
    const json_t *value = json_object_get(row, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static bool told(FILE *file, const char *path)
{
    if (file && !(ferror(file) | fclose(file))) return true;
    fputs("heed bench: ", stderr);
    perror(path);
    return false;
}

/* ---- bars, without gnuplot --------------------------------------------------- */

enum { ROW = 34, LEFT = 20, BAR = 560, WIDTH = 900 };

static void escaped(FILE *file, const char *text)
{
    for (; *text; text++) {
        if (*text == '<') fputs("&lt;", file);
        else if (*text == '&') fputs("&amp;", file);
        else if (*text == '>') fputs("&gt;", file);
        else fputc(*text, file);
    }
}

static void bar(FILE *file, const json_t *row, int y)
{
    const double percent = number_of(row, "roof_percent"), length = percent > 100 ? BAR : percent > 0 ? BAR * percent / 100 : 0;
    fprintf(file, "<text x='%d' y='%d'>", LEFT, y + 12);
    escaped(file, text_of(row, "problem"));
    fprintf(file, "  (");
    escaped(file, text_of(row, "device"));
    fprintf(file, ", ");
    escaped(file, text_of(row, "kernel"));
    fprintf(file, ")</text>\n<rect x='%d' y='%d' width='%.1f' height='12' fill='%s'/>\n", LEFT, y + 16, length,
            strcmp(text_of(row, "backend"), "cpu") ? "#bc3754" : "#3b528b");
    fprintf(file, "<text x='%.1f' y='%d'>%.0f %%  %.4g ms</text>\n", LEFT + length + 6, y + 26, percent, number_of(row, "ms_median"));
}

static bool plot_bars(const json_t *rows, const char *path)
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
    return told(file, path);
}

/* ---- curves --------------------------------------------------------------------- */

/* A point of a curve. Its name is device and problem without the number of keys (and without a q that is the same: a square prefill). */
struct point {
    char curve[320];
    double kv, ms, least, most, percent;
    bool opencl, peer;
};

struct points { struct point *point; int count; };

/* The words of a problem that do not move along the x axis. */
static void sort_of_problem(const struct problem_line *line, char *text, size_t capacity)
{
    const bool square = line->kv_len == line->q_len && line->q_len > 1;
    const char *word = line->text;
    size_t length = 0;
    text[0] = '\0';
    while (*word) {
        const size_t n = strcspn(word, " ");
        const bool keys = !strncmp(word, "kv", 2) && word[2] >= '0' && word[2] <= '9', queries = *word == 'q' && word[1] >= '0' && word[1] <= '9';
        if (n && !keys && !(queries && square) && length + n + 2 < capacity)
            length += (size_t)snprintf(text + length, capacity - length, "%s%.*s", length ? " " : "", (int)n, word);
        word += n;
        word += *word == ' ';
    }
    if (square && length + 6 < capacity) snprintf(text + length, capacity - length, " q=kv");
}

static int by_curve(const void *a, const void *b)
{
    const struct point *x = a, *y = b;
    const int names = strcmp(x->curve, y->curve);
    return names ? names : (x->kv > y->kv) - (x->kv < y->kv);
}

static void add_point(struct points *points, const json_t *row, const char *who, bool peer)
{
    struct problem_line line;
    char message[128], sort[200];
    struct point *p = &points->point[points->count];
    if (!line_parse(text_of(row, "problem"), &line, message, sizeof message)) return;
    sort_of_problem(&line, sort, sizeof sort);
    *p = (struct point){.kv = line.kv_len, .ms = number_of(row, peer ? "peer_ms_median" : "ms_median"), .peer = peer,
                        .opencl = strcmp(text_of(row, "backend"), "cpu") != 0};
    if (!(p->ms > 0) || !(p->kv > 0)) return;
    p->least = peer ? p->ms : number_of(row, "ms_min");
    p->most = peer ? p->ms : number_of(row, "ms_max");
    p->percent = peer ? NAN : number_of(row, "roof_percent");
    snprintf(p->curve, sizeof p->curve, "%s: %s", who, sort);
    for (int n = 0; n < points->count; n++) /* with peers heed stands in several rows */
        if (points->point[n].kv == p->kv && !strcmp(points->point[n].curve, p->curve)) return;
    points->count++;
}

static bool gather(const json_t *rows, struct points *points)
{
    const size_t count = json_array_size(rows);
    points->count = 0;
    points->point = calloc(2 * count + 1, sizeof *points->point);
    for (size_t n = 0; points->point && n < count; n++) {
        const json_t *row = json_array_get(rows, n);
        add_point(points, row, text_of(row, "device"), false);
        if (*text_of(row, "peer")) add_point(points, row, text_of(row, "peer"), true);
    }
    if (points->point) qsort(points->point, (size_t)points->count, sizeof *points->point, by_curve);
    return points->point != NULL;
}

static bool begins_curve(const struct points *p, int n) { return n == 0 || strcmp(p->point[n - 1].curve, p->point[n].curve) != 0; }

/* A block of lines per curve; gnuplot counts blocks by two empty lines between them. */
static bool write_data(const struct points *points, const char *path)
{
    FILE *file = fopen(path, "w");
    if (file) fputs("# keys, ms (median), least, most, percent of the roof\n", file);
    for (int n = 0; file && n < points->count; n++) {
        const struct point *p = &points->point[n];
        if (begins_curve(points, n)) fprintf(file, "%s# %s\n", n ? "\n\n" : "", p->curve);
        fprintf(file, "%g %.6g %.6g %.6g ", p->kv, p->ms, p->least, p->most);
        if (isnan(p->percent)) fputs("?\n", file);
        else fprintf(file, "%.3g\n", p->percent);
    }
    return told(file, path);
}

/* A gnuplot string in single quotes. */
static void quoted(FILE *file, const char *text)
{
    fputc('\'', file);
    for (; *text; text++) fputs(*text == '\'' ? "''" : (char[]){*text, 0}, file);
    fputc('\'', file);
}

static const char *sort_of(const struct point *p) { return strstr(p->curve, ": ") + 2; }

/* A colour per sort of problem: the same on every device. */
static int color_of(const struct points *points, int n)
{
    int color = 1;
    for (int m = 0; strcmp(sort_of(&points->point[m]), sort_of(&points->point[n])); m++) {
        bool before = false;
        for (int k = 0; k < m; k++) before |= !strcmp(sort_of(&points->point[k]), sort_of(&points->point[m]));
        color += !before;
    }
    return color;
}

/* CPU solid and round, OpenCL dashed and square, peers dotted. */
static void write_curves(FILE *file, const struct points *points, const char *data, const char *columns, bool peers)
{
    bool first = true;
    int curve = -1;
    for (int n = 0; n < points->count; n++) {
        const struct point *p = &points->point[n];
        if (!begins_curve(points, n)) continue;
        curve++;
        if (p->peer && !peers) continue;
        fputs(first ? "plot " : ", \\\n     ", file);
        first = false;
        quoted(file, data);
        fprintf(file, " index %d using %s with linespoints lc %d dt %d pt %d title ", curve, columns, color_of(points, n), p->peer ? 3 : p->opencl ? 2 : 1,
                p->peer ? 1 : p->opencl ? 5 : 7);
        quoted(file, p->curve);
        fputs(" noenhanced", file);
    }
    fputs("\n", file);
}

static const char *terminal_of(const char *path)
{
    const char *dot = strrchr(path, '.');
    if (dot && !strcmp(dot, ".svg")) return "svg size 1000,1100 background 'white'";
    if (dot && !strcmp(dot, ".png")) return "png size 1000,1100";
    if (dot && !strcmp(dot, ".pdf")) return "pdf size 8,9";
    return NULL;
}

static bool write_script(const struct points *points, const char *path, const char *data, const char *picture)
{
    FILE *file = fopen(path, "w");
    if (file) {
        fprintf(file, "# gnuplot draws %s from this. Median times; the bounds of all runs are columns 3 and 4 of the data.\nset terminal %s\nset output ", picture,
                terminal_of(picture));
        quoted(file, picture);
        fputs("\nset datafile missing '?'\nset multiplot layout 2,1\nset logscale x 2\nset grid\nset key below vertical\nset xlabel 'keys' offset 0,0.7\n"
              "set ylabel 'time, ms'\nset logscale y 10\n", file);
        write_curves(file, points, data, "1:2", true);
        fputs("unset logscale y\nset yrange [0:*]\nset ylabel 'percent of the roof measured in the same run'\n", file);
        write_curves(file, points, data, "1:5", false);
        fputs("unset multiplot\n", file);
    }
    return told(file, path);
}

enum gnuplot { DRAWN, ABSENT, FAILED };

static enum gnuplot run_gnuplot(const char *script)
{
    char *arguments[] = {"gnuplot", (char *)script, NULL};
    pid_t child;
    int state;
    if (posix_spawnp(&child, "gnuplot", NULL, NULL, arguments, environ)) return ABSENT;
    if (waitpid(child, &state, 0) != child || !WIFEXITED(state)) return FAILED;
    return WEXITSTATUS(state) == 0 ? DRAWN : WEXITSTATUS(state) == 127 ? ABSENT : FAILED;
}

/* path with another ending. */
static void beside(const char *path, const char *end, char *name, size_t capacity)
{
    snprintf(name, capacity, "%.*s%s", (int)(strrchr(path, '.') - path), path, end);
}

enum { PATH_BYTES = 1024 };

bool plot_name_good(const char *path)
{
    if (terminal_of(path) && strlen(path) < PATH_BYTES - 8) return true;
    fprintf(stderr, "heed bench: --plot %s: the name should end in .svg, .png or .pdf\n", path);
    return false;
}

bool plot_rows(const json_t *rows, const char *path)
{
    char data[PATH_BYTES], script[PATH_BYTES];
    struct points points;
    beside(path, ".dat", data, sizeof data);
    beside(path, ".gp", script, sizeof script);
    if (!gather(rows, &points)) return false;
    bool good = write_data(&points, data) && write_script(&points, script, data, path);
    enum gnuplot drawn = good && points.count ? run_gnuplot(script) : ABSENT;
    free(points.point);
    if (drawn == FAILED) fprintf(stderr, "heed bench: gnuplot %s failed\n", script);
    if (!good || drawn != ABSENT) return good && drawn == DRAWN;
    const bool svg = !strcmp(strrchr(path, '.'), ".svg");
    fprintf(stderr, "heed bench: gnuplot is not here: %s and %s hold the curves%s\n", data, script, svg ? ", the picture has bars instead" : ", no picture was drawn");
    return svg ? plot_bars(rows, path) : true;
}
