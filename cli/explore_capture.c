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

/* shape: [len, heads, dim]. path NULL: the carried file. */
static bool array_read(const char *name, const char *path, struct npy *npy, const struct message *message)
{
    char file[16];
    snprintf(file, sizeof file, "%s.npy", name);
    const struct capture_text *text = path ? NULL : carried(file);
    const bool read = path ? npy_read(path, npy, message->text, message->capacity) : npy_parse(text->text, text->length, npy, message->text, message->capacity);
    if (!path) path = file;
    if (!read) return false;
    if (npy->type != NPY_F4 && npy->type != NPY_F8 && npy->type != NPY_F2 && npy->type != NPY_U2)
        return bad(message, "%s: holds %s; wanted <f4, <f2, <f8, or <u2 for the bits of bf16", path, npy_type_text(npy->type));
    if (npy->rank == 4 && npy->shape[0] == 1) memmove(npy->shape, npy->shape + 1, 3 * sizeof npy->shape[0]);
    else if (npy->rank != 3) return bad(message, "%s: wanted [len, heads, dim] of one sequence, or [1, len, heads, dim]", path);
    if (npy->shape[0] < 1 || npy->shape[1] < 1 || npy->shape[2] < 1 || npy->shape[0] > EXPLORE_MAX_TOKENS || npy->shape[2] > 1024 || npy->shape[1] > 65536)
        return bad(message, "%s: [%lld, %lld, %lld]; wanted [len, heads, dim] with len from 1 to %d, dim from 1 to 1024", path,
                   (long long)npy->shape[0], (long long)npy->shape[1], (long long)npy->shape[2], EXPLORE_MAX_TOKENS);
    return true;
}

static void to_floats(const struct npy *npy, float *to)
{
    const int64_t row = npy->shape[2];
    for (int64_t n = 0; n < npy->count / row; n++, to += row)
        if (npy->type == NPY_F8)
            for (int64_t d = 0; d < row; d++) to[d] = (float)((const double *)npy->data)[n * row + d];
        else row_to_f32(type_in(npy), (const char *)npy->data + (size_t)(n * row) * npy_type_size(npy->type), 1, to, (int32_t)row);
}

static bool fits(const struct npy *q, const struct npy *k, const struct npy *v, const struct message *message)
{
    if (k->shape[0] != v->shape[0] || k->shape[1] != v->shape[1])
        return bad(message, "k has %lld tokens of %lld heads, v %lld of %lld", (long long)k->shape[0], (long long)k->shape[1], (long long)v->shape[0],
                   (long long)v->shape[1]);
    if (q->shape[1] % k->shape[1]) return bad(message, "q has %lld heads, k %lld: not a multiple", (long long)q->shape[1], (long long)k->shape[1]);
    if (q->shape[2] != k->shape[2]) return bad(message, "rows of q have %lld elements, rows of k %lld", (long long)q->shape[2], (long long)k->shape[2]);
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

bool explore_load_capture(struct explore *explore, const char *q, const char *k, const char *v, const char *tokens, char *text, size_t capacity)
{
    const struct message message = {text, capacity};
    const char *const names[] = {"q", "k", "v"}, *const paths[] = {q, k, v ? v : k};
    struct npy array[3] = {0};
    bool good = !q == !k || bad(&message, "--q and --k belong together");
    for (int n = 0; good && n < 3; n++) good = array_read(names[n], paths[n], &array[n], &message);
    good = good && fits(&array[0], &array[1], &array[2], &message);
    if (good) {
        const int64_t *qs = array[0].shape, *ks = array[1].shape;
        good = explore_shape(explore, (int32_t)qs[0], (int32_t)ks[0], (int32_t)qs[1], (int32_t)ks[1], (int32_t)qs[2], (int32_t)array[2].shape[2]) ||
               bad(&message, "out of memory");
    }
    if (good) {
        to_floats(&array[0], explore->q);
        to_floats(&array[1], explore->k);
        to_floats(&array[2], explore->v);
        good = labels(explore, !q, tokens, &message);
    }
    for (int n = 0; n < 3; n++) npy_free(&array[n]);
    if (!good) explore_free(explore);
    return good;
}
