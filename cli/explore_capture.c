/* SPDX-License-Identifier: MIT
 * explore_capture.c - queries, keys and values of a real model for the explorer: from .npy files, or the ones that the command carries.
 */
#include "dtype.h"
#include "explore_lessons.h"
#include "npy.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Made of examples/data by script/embed.cmake. */
struct capture_text {
    const char *name, *text;
    size_t length;
};
extern const struct capture_text capture_texts[];

struct message {
    char *text;
    size_t capacity;
};

__attribute__((format(printf, 2, 3))) static bool bad(const struct message *message, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message->text, message->capacity, format, arguments);
    va_end(arguments);
    return false;
}

static const struct capture_text *carried(const char *name)
{
    const struct capture_text *text = capture_texts;
    while (strcmp(text->name, name)) text++;
    return text;
}

static heed_type type_in(const struct npy *npy) { return npy->type == NPY_F2 ? HEED_F16 : npy->type == NPY_U2 ? HEED_BF16 : HEED_F32; }

static bool array_read(const char *name, const char *path, struct npy *npy, const struct message *message)
{
    const struct capture_text *text = path ? NULL : carried(name);
    return path ? npy_read(path, npy, message->text, message->capacity) : npy_parse(text->text, text->length, npy, message->text, message->capacity);
}

/* An array as [len][heads][dim]: steps in elements; two axes are one head. */
struct source {
    const struct npy *npy;
    int64_t len, heads, dim, len_step, head_step;
};

static bool source_of(const char *name, const struct npy *npy, bool heads_first, struct source *s, const struct message *message)
{
    if (npy->type != NPY_F4 && npy->type != NPY_F8 && npy->type != NPY_F2 && npy->type != NPY_U2)
        return bad(message, "%s: holds %s; wanted <f4, <f2, <f8, or <u2 for the bits of bf16", name, npy_type_text(npy->type));
    const bool four = npy->rank == 4 && npy->shape[0] == 1;
    const int64_t *axis = npy->shape + four;
    const int32_t rank = npy->rank - four;
    if (rank != 2 && rank != 3)
        return bad(message, "%s: wanted %s of one sequence, [1, ...] of it, or [len, dim]", name, heads_first ? "[heads, len, dim]" : "[len, heads, dim]");
    *s = (struct source){.npy = npy, .len = axis[rank == 3 && heads_first], .heads = rank == 2 ? 1 : axis[!heads_first], .dim = axis[rank - 1]};
    s->len_step = heads_first ? s->dim : s->heads * s->dim;
    s->head_step = heads_first ? s->len * s->dim : s->dim;
    if (s->len < 1 || s->heads < 1 || s->dim < 1 || s->len > EXPLORE_MAX_TOKENS || s->dim > 1024 || s->heads > 65536)
        return bad(message, "%s: %lld tokens of %lld heads of %lld elements; wanted len from 1 to %d, dim from 1 to 1024", name, (long long)s->len,
                   (long long)s->heads, (long long)s->dim, EXPLORE_MAX_TOKENS);
    return true;
}

static void to_floats(const struct source *s, float *to)
{
    for (int64_t t = 0; t < s->len; t++)
        for (int64_t h = 0; h < s->heads; h++, to += s->dim) {
            const int64_t at = t * s->len_step + h * s->head_step;
            if (s->npy->type == NPY_F8)
                for (int64_t d = 0; d < s->dim; d++) to[d] = (float)((const double *)s->npy->data)[at + d];
            else row_to_f32(type_in(s->npy), (const char *)s->npy->data + (size_t)at * npy_type_size(s->npy->type), 1, to, (int32_t)s->dim);
        }
}

static bool fits(const struct source *q, const struct source *k, const struct source *v, const struct message *message)
{
    if (k->len != v->len || k->heads != v->heads)
        return bad(message, "k has %lld tokens of %lld heads, v %lld of %lld", (long long)k->len, (long long)k->heads, (long long)v->len,
                   (long long)v->heads);
    if (q->heads % k->heads) return bad(message, "q has %lld heads, k %lld: not a multiple", (long long)q->heads, (long long)k->heads);
    if (q->dim != k->dim) return bad(message, "rows of q have %lld elements, rows of k %lld", (long long)q->dim, (long long)k->dim);
    return true;
}

/* The lines from..to of a text; NULL: out of memory. */
static char **lines_of(const char *text, size_t length, int32_t from, int32_t count)
{
    char **lines = calloc((size_t)count, sizeof *lines);
    const char *end = text + length;
    bool good = lines != NULL;
    for (int32_t n = 0; good && n < from + count; n++) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        if (!stop) stop = end;
        const size_t size = (size_t)(stop - text) - (stop > text && stop[-1] == '\r');
        if (n >= from) good = (lines[n - from] = strndup(text, size)) != NULL;
        text = stop < end ? stop + 1 : end;
    }
    for (int32_t n = 0; lines && !good && n < count; n++) free(lines[n]);
    if (!good) free(lines);
    return good ? lines : NULL;
}

static bool text_read(const char *path, char **text, size_t *length, const struct message *message)
{
    FILE *file = fopen(path, "r");
    enum { MOST = 1 << 20 };
    *text = malloc(MOST);
    if (file && *text) *length = fread(*text, 1, MOST, file);
    const bool good = file && *text && !ferror(file);
    if (file) fclose(file);
    if (!good) free(*text);
    return good || bad(message, "%s: cannot be read", path);
}

/* One label for each key; with a cache the last of them are the queries. */
static bool label(struct explore *explore, const char *path, const char *text, size_t length, const struct message *message)
{
    int32_t count = length > 0 && text[length - 1] != '\n';
    for (size_t n = 0; n < length; n++) count += text[n] == '\n';
    if (count != explore->keys) return bad(message, "%s: %d labels for %d keys", path, (int)count, (int)explore->keys);
    explore->k_labels = lines_of(text, length, 0, count);
    if (explore->queries <= count) explore->q_labels = lines_of(text, length, count - explore->queries, explore->queries);
    return (explore->k_labels && (explore->q_labels || explore->queries > count)) || bad(message, "out of memory");
}

static void labels_clear(struct explore *explore)
{
    for (int32_t n = 0; explore->k_labels && n < explore->keys; n++) free(explore->k_labels[n]);
    for (int32_t n = 0; explore->q_labels && n < explore->queries; n++) free(explore->q_labels[n]);
    free(explore->k_labels);
    free(explore->q_labels);
    explore->k_labels = explore->q_labels = NULL;
}

bool explore_label_tokens(struct explore *explore, const char *name, const char *lines, size_t length, char *text, size_t capacity)
{
    const struct message message = {text, capacity};
    labels_clear(explore);
    return label(explore, name, lines, length, &message);
}

static bool labels(struct explore *explore, bool own, const char *tokens, const struct message *message)
{
    char *text;
    size_t length = 0;
    const struct capture_text *ours = carried("tokens.txt");
    if (own) return label(explore, "tokens.txt", ours->text, ours->length, message);
    if (!tokens) return true;
    if (!text_read(tokens, &text, &length, message)) return false;
    const bool good = label(explore, tokens, text, length, message);
    free(text);
    return good;
}

bool explore_load_arrays(struct explore *explore, const char *const names[3], const struct npy *const arrays[3], bool heads_first, char *text, size_t capacity)
{
    const struct message message = {text, capacity};
    struct source s[3];
    bool good = true;
    for (int n = 0; good && n < 3; n++) good = source_of(names[n], arrays[n], heads_first, &s[n], &message);
    good = good && fits(&s[0], &s[1], &s[2], &message);
    good = good && (explore_shape(explore, (int32_t)s[0].len, (int32_t)s[1].len, (int32_t)s[0].heads, (int32_t)s[1].heads, (int32_t)s[0].dim, (int32_t)s[2].dim) ||
                    bad(&message, "out of memory"));
    float *const to[3] = {explore->q, explore->k, explore->v};
    for (int n = 0; good && n < 3; n++) to_floats(&s[n], to[n]);
    if (!good) explore_free(explore);
    return good;
}

bool explore_load_capture(struct explore *explore, const char *q, const char *k, const char *v, const char *tokens, char *text, size_t capacity)
{
    const struct message message = {text, capacity};
    const char *const files[] = {"q.npy", "k.npy", "v.npy"}, *const paths[] = {q, k, v ? v : k};
    const char *names[3];
    struct npy array[3] = {0};
    bool good = !q == !k || bad(&message, "--q and --k belong together");
    for (int n = 0; good && n < 3; n++) {
        names[n] = paths[n] ? paths[n] : files[n];
        good = array_read(files[n], paths[n], &array[n], &message);
    }
    good = good && explore_load_arrays(explore, names, (const struct npy *const[]){&array[0], &array[1], &array[2]}, false, text, capacity);
    good = good && labels(explore, !q, tokens, &message);
    for (int n = 0; n < 3; n++) npy_free(&array[n]);
    if (!good) explore_free(explore);
    return good;
}
