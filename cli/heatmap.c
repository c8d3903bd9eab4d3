/* SPDX-License-Identifier: MIT
 * heatmap.c - weights as colours. A weight is drawn by its square root: a link of 0.05 beside one of 0.9 should still be seen.
 */
#include "heatmap.h"
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>
#ifdef HEED_PNG
#include <png.h>
#endif

enum { STEPS_256 = 16, STEPS_16 = 5, MAX_ROWS = 96 };

bool color_from(const char *word, enum color *color)
{
    static const char *const names[] = {[COLOR_NEVER] = "never", [COLOR_16] = "16", [COLOR_256] = "256", [COLOR_24BIT] = "24bit"};
    for (int n = 0; word && n < 4; n++)
        if (!strcmp(word, names[n])) {
            *color = (enum color)n;
            return true;
        }
    if (word && strcmp(word, "auto")) return false;
    const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM"), *more = getenv("COLORTERM");
    if ((no_color && *no_color) || !isatty(STDOUT_FILENO) || !term || !*term || !strcmp(term, "dumb")) *color = COLOR_NEVER;
    else if (more && (strstr(more, "truecolor") || strstr(more, "24bit"))) *color = COLOR_24BIT;
    else *color = strstr(term, "256color") ? COLOR_256 : COLOR_16;
    return true;
}

static float strength(float weight)
{
    if (!(weight > 0)) return 0; /* NaN too */
    return weight < 1 ? sqrtf(weight) : 1;
}

/* Dark to bright through violet and orange: brightness alone carries the value, for eyes that see few hues. */
static void rgb_of(float weight, unsigned char rgb[3])
{
    static const unsigned char anchors[][3] = {{0, 0, 4},     {31, 12, 72},  {85, 15, 109},  {136, 34, 106}, {186, 54, 85},
                                               {227, 89, 51}, {249, 140, 10}, {249, 201, 50}, {252, 255, 164}};
    const int last = (int)(sizeof anchors / sizeof anchors[0]) - 1;
    const float x = strength(weight) * (float)last;
    const int n = x >= (float)last ? last - 1 : (int)x;
    for (int c = 0; c < 3; c++)
        rgb[c] = (unsigned char)lrintf((float)anchors[n][c] + (x - (float)n) * (float)(anchors[n + 1][c] - anchors[n][c]));
}

static int step_of(float weight, int steps)
{
    const int step = (int)(strength(weight) * (float)steps);
    return step < steps ? step : steps - 1;
}

static void print_cell(float weight, enum color color, int wide)
{
    static const int palette[STEPS_256] = {16, 233, 17, 53, 54, 90, 126, 162, 161, 197, 203, 208, 214, 220, 227, 230};
    static const int sixteen[STEPS_16] = {40, 44, 45, 43, 103}; /* black, blue, magenta, yellow, bright yellow */
    static const char ramp[] = " .:-=+*#%@";
    unsigned char rgb[3];
    switch (color) {
    case COLOR_24BIT:
        rgb_of(weight, rgb);
        printf("\x1b[48;2;%d;%d;%dm%*s", rgb[0], rgb[1], rgb[2], wide, "");
        break;
    case COLOR_256: printf("\x1b[48;5;%dm%*s", palette[step_of(weight, STEPS_256)], wide, ""); break;
    case COLOR_16: printf("\x1b[%dm%*s", sixteen[step_of(weight, STEPS_16)], wide, ""); break;
    default:
        for (int n = 0; n < wide; n++) putchar(ramp[step_of(weight, (int)sizeof ramp - 1)]);
    }
}

/* Columns that the letter of UTF-8 at `text` takes on a terminal: two in much of East Asia, none for a mark that is drawn on the letter before. */
static int letter_columns(const char *text, int *bytes)
{
    static locale_t utf8;
    if (!utf8) utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
    wchar_t letter = 0;
    size_t length = (size_t)-1;
    int columns = 1;
    if (utf8) {
        const locale_t before = uselocale(utf8);
        length = mbrtowc(&letter, text, strlen(text), &(mbstate_t){0});
        if (length <= 4) columns = wcwidth(letter);
        uselocale(before);
    }
    *bytes = length <= 4 ? (int)length : 1;
    while (length > 4 && ((unsigned char)text[*bytes] & 0xC0) == 0x80) ++*bytes; /* no such locale, or no letter */
    return columns < 0 ? 1 : columns;
}

/* Bytes of a label that take at most `most` columns, or (upright) are so many letters, each with its marks; *length: how many it is. */
static int label_bytes(const char *label, int most, bool upright, int *length)
{
    int bytes = 0, more;
    *length = 0;
    for (; label[bytes]; bytes += more) {
        const int columns = letter_columns(label + bytes, &more), size = upright ? columns > 0 : columns;
        if (*length + size > most) break;
        *length += size;
    }
    return bytes;
}

int label_columns(const char *label)
{
    int length;
    label_bytes(label, LABEL_MAX, false, &length);
    return length;
}

void label_print(const char *label, int width)
{
    int length, bytes = label_bytes(label, LABEL_MAX, false, &length);
    printf("%*s%.*s", width > length ? width - length : 0, "", bytes, label);
}

static const char *label_of(char *const *labels, int32_t n, char *text, size_t capacity)
{
    if (labels) return labels[n];
    snprintf(text, capacity, "%d", (int)n);
    return text;
}

static int longest(char *const *labels, int32_t count, bool upright)
{
    int most = 0, length;
    char text[16];
    for (int32_t n = 0; n < count; n++) {
        label_bytes(label_of(labels, n, text, sizeof text), LABEL_MAX, upright, &length);
        if (length > most) most = length;
    }
    return most;
}

/* One letter of a label, the n-th, or a blank, in `wide` columns; too wide a letter is a question mark. */
static void print_letter(const char *label, int n, int wide)
{
    int before, length, more;
    const int begin = label_bytes(label, n, true, &before), end = label_bytes(label, n + 1, true, &length);
    const int columns = n >= 0 && length > n ? letter_columns(label + begin, &more) : 0;
    if (columns > wide) printf("?%*s", wide - 1, "");
    else printf("%.*s%*s", columns > 0 ? end - begin : 0, label + begin, wide - columns, "");
}

/* Column labels stand upright above their columns, their last letters on the last line. */
static void print_heads(const struct heatmap *map, int margin, int wide)
{
    const int high = longest(map->column_labels, map->columns, true);
    char text[16];
    for (int line = 0; line < high; line++) {
        printf("%*s ", margin, "");
        for (int32_t j = 0; j < map->columns; j++) {
            const char *label = label_of(map->column_labels, j, text, sizeof text);
            int length;
            label_bytes(label, LABEL_MAX, true, &length);
            print_letter(label, line - (high - length), wide);
        }
        putchar('\n');
    }
}

static int32_t strongest(const float *weights, int32_t count)
{
    int32_t best = 0;
    for (int32_t j = 1; j < count; j++)
        if (weights[j] > weights[best]) best = j;
    return best;
}

static bool any_nan(const float *weights, int32_t count)
{
    for (int32_t j = 0; j < count; j++)
        if (isnan(weights[j])) return true;
    return false;
}

static void print_map(const struct heatmap *map, enum color color, int wide)
{
    const int margin = longest(map->row_labels, map->rows, false);
    char text[16];
    print_heads(map, margin, wide);
    for (int32_t i = 0; i < map->rows; i++) {
        const float *weights = map->weights + (int64_t)i * map->columns;
        const char *label = label_of(map->row_labels, i, text, sizeof text);
        label_print(label, margin);
        putchar(' ');
        for (int32_t j = 0; j < map->columns; j++) print_cell(weights[j], color, wide);
        if (color != COLOR_NEVER) fputs("\x1b[0m", stdout);
        const int32_t best = strongest(weights, map->columns);
        label = label_of(map->column_labels, best, text, sizeof text);
        if (weights[best] > 0) {
            fputs("  ", stdout);
            label_print(label, 0);
            printf(" %.2f", (double)weights[best]);
        } else fputs(any_nan(weights, map->columns) ? "  (no numbers: NaN)" : "  (sees nothing)", stdout);
        putchar('\n');
    }
}

static void print_scale(enum color color)
{
    fputs("weight 0 ", stdout);
    for (int n = 0; n <= 24; n++) print_cell((float)(n * n) / (24.0f * 24.0f), color, 1);
    if (color != COLOR_NEVER) fputs("\x1b[0m", stdout);
    puts(" 1   (drawn by its square root; right: the key with the largest weight)");
}

/* The map with `by` x `by` neighbours averaged; weights to be freed. Labels are numbers of the coarse cells' first elements. */
static bool coarse(const struct heatmap *map, int32_t by, struct heatmap *to)
{
    *to = (struct heatmap){.rows = (map->rows + by - 1) / by, .columns = (map->columns + by - 1) / by};
    float *weights = calloc((size_t)to->rows * (size_t)to->columns, sizeof *weights);
    if (!weights) return false;
    for (int32_t i = 0; i < map->rows; i++)
        for (int32_t j = 0; j < map->columns; j++)
            weights[(int64_t)(i / by) * to->columns + j / by] += map->weights[(int64_t)i * map->columns + j] / (float)by;
    to->weights = weights;
    return true;
}

void heatmap_print(const struct heatmap *map, enum color color, int width)
{
    const int room = width - longest(map->row_labels, map->rows, false) - 4 - LABEL_MAX;
    const int cells = room > 16 ? room : 16;
    int32_t by = (map->columns + cells - 1) / cells;
    if ((map->rows + MAX_ROWS - 1) / MAX_ROWS > by) by = (map->rows + MAX_ROWS - 1) / MAX_ROWS;
    struct heatmap smaller;
    if (by > 1 && coarse(map, by, &smaller)) {
        print_map(&smaller, color, 2 * smaller.columns <= cells ? 2 : 1);
        printf("one cell: %d keys (summed) of %d queries (mean)\n", (int)by, (int)by);
        free((void *)smaller.weights);
    } else {
        print_map(map, color, 2 * map->columns <= cells ? 2 : 1);
    }
    print_scale(color);
}

#ifdef HEED_PNG
/* libpng jumps back here on an error; `row` is freed either way. */
static bool png_rows(FILE *file, const struct heatmap *map, int32_t zoom, unsigned char *row)
{
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (!info || setjmp(png_jmpbuf(png))) {
        png_destroy_write_struct(&png, &info);
        return false;
    }
    png_init_io(png, file);
    png_set_IHDR(png, info, (png_uint_32)(map->columns * zoom), (png_uint_32)(map->rows * zoom), 8, PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    for (int32_t i = 0; i < map->rows; i++) {
        for (int32_t x = 0; x < map->columns * zoom; x++) rgb_of(map->weights[(int64_t)i * map->columns + x / zoom], row + 3 * (size_t)x);
        for (int32_t n = 0; n < zoom; n++) png_write_row(png, row);
    }
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    return true;
}
#endif

bool heatmap_png(const struct heatmap *map, int32_t zoom, const char *path)
{
#ifdef HEED_PNG
    const int32_t longer = map->columns > map->rows ? map->columns : map->rows;
    if (zoom == 0) zoom = longer > 300 ? 1 : 600 / longer;
    if ((int64_t)longer * zoom > 32768) {
        fprintf(stderr, "heed show: a picture of %lld pixels; at most 32768\n", (long long)longer * zoom);
        return false;
    }
    unsigned char *row = malloc(3 * (size_t)map->columns * (size_t)zoom);
    FILE *file = row ? fopen(path, "wb") : NULL;
    bool good = file && png_rows(file, map, zoom, row);
    if (file && fclose(file)) good = false;
    if (!good) {
        fputs("heed show: ", stderr);
        perror(path);
    }
    free(row);
    return good;
#else
    (void)map, (void)zoom;
    fprintf(stderr, "heed show: %s: this build has no libpng\n", path);
    return false;
#endif
}
