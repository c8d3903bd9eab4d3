/* SPDX-License-Identifier: MIT
 * show.c - `heed show`: which key does each query attend to? Of arrays from files, or of a lesson of six words. The weights come from the
 * library itself (HEED_WRITE_SCORES, stage 3, of the head that is drawn; HEED_WRITE_KEY_SUMS).
 */
#include "arrays.h"
#include "harness_parts.h"
#include "heatmap.h"
#include "tool.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* The lesson. Four dimensions with meanings that one can follow by hand: thing, deed, link, self. A word's key says what it is, its
 * query what it looks for: `it` looks for a thing, `purred` for who did it, `and` for a deed, articles for themselves. */
enum { WORDS = 6, DIM = 4 };
static char *const lesson_words[WORDS] = {"the", "cat", "slept", "and", "it", "purred"};
static const float lesson_k[WORDS][DIM] = {{0, 0, 0, 2}, {3, 0, 0, 0}, {0, 3, 0, 0}, {0, 0, 3, 0}, {1, 0, 0, 1}, {0, 3, 0, 1}};
static const float lesson_q[WORDS][DIM] = {{0, 0, 0, 2}, {1, 0, 0, 1}, {2, 0, 0, 0}, {0, 2, 0, 0}, {3, 0, 0, 0}, {2, 0, 1, 0}};
static const float lesson_v[WORDS][DIM] = {{0, 0, 0, 1}, {1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}, {0, 1, 0, 0}};

static void place(const float rows[WORDS][DIM], const heed_tensor *tensor)
{
    for (int n = 0; n < WORDS; n++) memcpy((float *)tensor->data + tensor->offset + n * tensor->token_stride, rows[n], sizeof rows[n]);
}

static bool lesson(const struct options *options, struct arrays *arrays)
{
    struct problem_line line;
    char text[LINE_BYTES] = "hq1 d4 q6 kv6 causal scores=3", message[256];
    if (options->sums) strcat(text, " keysums");
    memset(arrays, 0, sizeof *arrays);
    for (int n = 0; n < options->problem_count; n++) {
        const size_t length = strlen(text);
        snprintf(text + length, sizeof text - length, " %s", options->problems[n]);
    }
    const bool read = line_parse(text, &line, message, sizeof message);
    const heed_desc *d = &line.desc;
    if (!read || line.batch != 1 || d->q_heads != 1 || d->head_dim != DIM || line.q_len != WORDS || line.kv_len != WORDS ||
        (d->q_type != HEED_F32 && d->q_type != HEED_TYPE_DEFAULT) || (d->v_head_dim && d->v_head_dim != DIM) || d->scores_stage != 3 ||
        d->page_size || line.ragged || line.kvlens) {
        fprintf(stderr, "heed show: %s\n",
                read ? "the lesson has one head, six words and d4: add words like wl=1 or scale=2 only" : message);
        return false;
    }
    arrays->instance = instance_new(&line, INSTANCE_PLAIN, message, sizeof message);
    if (!arrays->instance) {
        fprintf(stderr, "heed show: %s\n", message);
        return false;
    }
    place(lesson_q, &arrays->instance->tensors.q);
    place(lesson_k, &arrays->instance->tensors.k);
    place(lesson_v, &arrays->instance->tensors.v);
    return true;
}

static heed_status compute(struct tool *tool, struct instance *instance)
{
    struct prepared prepared;
    heed_status status = prepared_make(tool->context, tool->devices[0], NULL, instance, false, &prepared);
    if (status != HEED_OK) return status;
    status = prepared_run(&prepared);
    if (status == HEED_OK) status = prepared_fetch(&prepared);
    prepared_release(&prepared);
    return status;
}

/* Weights [i][j] of sequence 0: of the chosen head, or the mean of all that were computed. */
static float *weights_of(const struct instance *instance, bool mean, int32_t *row_count)
{
    const int32_t columns = instance->line.kv_len;
    int32_t heads, rows;
    instance_output_rows(instance, ROLE_SCORES, 0, &heads, &rows);
    if (!mean) heads = 1;
    *row_count = rows;
    float *weights = calloc((size_t)rows * (size_t)columns + 1, sizeof *weights);
    for (int32_t h = 0; weights && h < heads; h++)
        for (int32_t i = 0; i < rows; i++)
            for (int32_t j = 0; j < columns; j++)
                weights[(int64_t)i * columns + j] += arrays_value(&instance->tensors.scores, 0, h, i, j) / (float)heads;
    return weights;
}

static int terminal_width(void)
{
    struct winsize size;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
    return 120;
}

/* Labels of a file fit rows and columns where the counts agree: with a cache the last q_len tokens are the queries. */
static bool labels_fit(struct heatmap *map, char **labels, int32_t count)
{
    if (!labels) return true;
    if (count == map->columns) map->column_labels = labels;
    if (count >= map->rows && count == map->columns) map->row_labels = labels + (count - map->rows);
    if (map->column_labels) return true;
    fprintf(stderr, "heed show: %d labels for %d keys\n", (int)count, (int)map->columns);
    return false;
}

/* The head that is shown: the first of those whose scores were computed. */
static int32_t head_of(const struct instance *instance) { return instance->line.shead_count ? instance->line.sheads[0] : 0; }

static int draw(const struct options *options, const struct instance *instance, char **labels, int32_t count)
{
    const int32_t head = head_of(instance);
    enum color color;
    if (!color_from(options->color, &color)) {
        fprintf(stderr, "heed show: --color %s: there are auto, 24bit, 256, 16 and never\n", options->color);
        return EXIT_USAGE;
    }
    int32_t rows;
    float *weights = weights_of(instance, options->mean, &rows);
    if (!weights) return out_of_room();
    struct heatmap map = {.weights = weights, .rows = rows, .columns = instance->line.kv_len};
    int code = EXIT_OK;
    if (map.rows == 0 || map.columns == 0) {
        fputs("heed show: nothing to draw: no query or no key\n", stderr);
        code = EXIT_USAGE;
    } else if (!labels_fit(&map, labels, count)) {
        code = EXIT_USAGE;
    } else if (options->output) {
        code = heatmap_png(&map, options->zoom, options->output) ? EXIT_OK : EXIT_USAGE;
        if (code == EXIT_OK) printf("%s: %d x %d elements\n", options->output, (int)map.columns, (int)map.rows);
    } else {
        if (options->mean)
            printf("mean of %d heads; a row is a query, a column a key\n",
                   (int)(instance->line.shead_count ? instance->line.shead_count : instance->problem.q_heads));
        else printf("head %d of %d; a row is a query, a column a key\n", (int)head, (int)instance->problem.q_heads);
        heatmap_print(&map, color, terminal_width());
    }
    free(weights);
    return code;
}

/* ---- key sums ------------------------------------------------------------------------- */

enum { BARS_MOST = 64 };

/* The keys that are drawn, in their order: all, or where they are too many those with the most weight. *least: the smallest of these. */
static float *heaviest(const struct instance *instance, int32_t head, int32_t *shown, float *least)
{
    const int32_t keys = instance->line.kv_len;
    float *sums = malloc(sizeof *sums * (size_t)(keys + 1));
    if (!sums) return NULL;
    for (int32_t j = 0; j < keys; j++) sums[j] = arrays_value(&instance->tensors.key_sums, 0, head, 0, j);
    *shown = keys < BARS_MOST ? keys : BARS_MOST;
    *least = -1;
    for (int32_t n = 0; keys > BARS_MOST && n < BARS_MOST; n++) { /* the next smaller value, BARS_MOST times */
        float next = -1;
        for (int32_t j = 0; j < keys; j++)
            if (sums[j] > next && (n == 0 || sums[j] < *least)) next = sums[j];
        if (next < 0) break;
        *least = next;
    }
    return sums;
}

static int draw_sums(const struct options *options, const struct instance *instance, char **labels, int32_t count)
{
    const bool together = instance->problem.flags & HEED_KEY_SUMS_ALL_HEADS;
    const int32_t head = together ? 0 : options->head < 0 ? 0 : options->head, keys = instance->line.kv_len, queries = instance->line.q_len;
    const int32_t rows = instance->line.srows && instance->line.srows < queries ? instance->line.srows : queries;
    int32_t shown, widest = 0, drawn = 0;
    float least, most = 0;
    if (labels && count != keys) {
        fprintf(stderr, "heed show: %d labels for %d keys\n", (int)count, (int)keys);
        return EXIT_USAGE;
    }
    float *sums = heaviest(instance, head, &shown, &least);
    if (!sums) return out_of_room();
    for (int32_t j = 0; j < keys; j++) {
        if (sums[j] > most) most = sums[j];
        if (labels && label_columns(labels[j]) > widest) widest = label_columns(labels[j]);
    }
    if (rows == 1) printf("weight that each key got from the last query, ");
    else printf("weight that each key got from %s%d queries, ", rows < queries ? "the last " : "", (int)rows);
    if (together) printf("all %d heads together", (int)instance->problem.q_heads);
    else printf("head %d of %d", (int)head, (int)instance->problem.q_heads);
    if (shown < keys) printf("; the %d heaviest of %d", (int)shown, (int)keys);
    putchar('\n');
    const int room = terminal_width() - widest - 18;
    for (int32_t j = 0; j < keys && drawn < shown; j++) {
        if (sums[j] < least) continue;
        int length = most > 0 && sums[j] > 0 ? (int)((float)(room > 10 ? room : 10) * sums[j] / most + 0.5f) : 0;
        printf("%6d ", (int)j);
        label_print(labels ? labels[j] : "", widest);
        printf(" %9.4f ", (double)sums[j]);
        for (; length > 0; length--) putchar('#');
        putchar('\n');
        drawn++;
    }
    free(sums);
    return EXIT_OK;
}

/* What has to be computed: the scores of one head or of all, or sums. */
static void words_of(const struct options *options, char *text, size_t capacity)
{
    if (options->sums) snprintf(text, capacity, " keysums%s", options->mean ? " sumheads" : "");
    else if (options->mean) snprintf(text, capacity, " scores=3");
    else snprintf(text, capacity, " scores=3 sheads=%d", (int)(options->head < 0 ? 0 : options->head));
}

static bool head_is_there(const struct options *options, const struct instance *instance)
{
    if (options->head < instance->problem.q_heads) return true;
    fprintf(stderr, "heed show: --head %d: there are heads 0 to %d\n", (int)options->head, (int)instance->problem.q_heads - 1);
    return false;
}

/* What would be passed over in silence otherwise. */
static bool options_agree(const struct options *options, bool files)
{
    const char *dot = options->output ? strrchr(options->output, '.') : NULL;
    const char *why = NULL;
    if (!files && (options->mask || options->bias)) why = "--mask and --bias belong to --q and --k; the lesson has none";
    if (options->sums && options->output) why = "--sums are bars of text; without --sums -o draws the map";
    if (dot && !strchr(dot, '/') && strcasecmp(dot, ".png")) why = "-o writes a PNG: its name should end in .png";
    if (why) fprintf(stderr, "heed show: %s\n", why);
    return !why;
}

int run_show(const struct options *options)
{
    struct tool tool;
    struct arrays arrays;
    const bool files = options->q || options->k || options->v;
    int32_t count = WORDS;
    char **labels = NULL, *words[WORDS];
    memcpy(words, lesson_words, sizeof words);
    if (!options_agree(options, files)) return EXIT_USAGE;
    if (options->tokens && !(labels = labels_read(options->tokens, &count))) return EXIT_USAGE;
    struct options given = *options;
    if (!given.v) given.v = given.k; /* the weights do not depend on it */
    char extra[64];
    words_of(options, extra, sizeof extra);
    int code = (files ? arrays_read(&given, extra, &arrays) : lesson(options, &arrays)) ? EXIT_OK : EXIT_USAGE;
    if (code == EXIT_OK && !head_is_there(options, arrays.instance)) {
        code = EXIT_USAGE;
        arrays_free(&arrays);
    } else if (code == EXIT_OK) {
        code = tool_open(&tool, options, "cpu");
        if (code == EXIT_OK) {
            const heed_status status = compute(&tool, arrays.instance);
            if (status != HEED_OK) code = tool_fail(status, "show");
            else code = (options->sums ? draw_sums : draw)(options, arrays.instance, labels ? labels : files ? NULL : words, count);
            tool_close(&tool);
        }
        arrays_free(&arrays);
    }
    labels_free(labels, count);
    return code;
}
