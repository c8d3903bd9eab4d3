/* SPDX-License-Identifier: MIT
 * weights.c - see weights.h. JSON is read by jansson (which bounds its depth and refuses a name that comes twice); ranges must lie in the file, be as
 * long as shape and dtype say, and cover the data without holes or overlap, as the format asks.
 */
#include "weights.h"
#include "file.h"
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the numbers of the file are used where they lie: little endian only"
#endif

enum { LENGTH_BYTES = 8, MOST_TABLE = 100000000 /* bytes; the format's own limit */, MOST_RANK = 8 };

struct weights {
    struct file file;
    char *path;
    json_t *table;
    const char *data; /* behind the table */
    uint64_t bytes;
};

struct tensor {
    const char *dtype;
    int rank;
    uint64_t shape[MOST_RANK], begin, end;
};

static uint64_t bytes_of(const char *dtype)
{
    static const struct { const char *name; uint64_t bytes; } known[] = {
        {"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"I64", 8}, {"I32", 4},
        {"I16", 2}, {"I8", 1},  {"U64", 8}, {"U32", 4},  {"U16", 2},     {"U8", 1},      {"BOOL", 1}};
    for (size_t n = 0; n < sizeof known / sizeof known[0]; n++)
        if (strcmp(known[n].name, dtype) == 0) return known[n].bytes;
    return 0;
}

static bool whole(const json_t *value, uint64_t *number)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0) return false;
    *number = (uint64_t)json_integer_value(value);
    return true;
}

static bool shape_read(const struct weights *w, const char *name, const json_t *shape, struct tensor *tensor, struct message *message)
{
    if (!json_is_array(shape) || json_array_size(shape) > MOST_RANK)
        return refuse(message, 2, "%s: %s: shape is not an array of at most %d numbers", w->path, name, MOST_RANK);
    tensor->rank = (int)json_array_size(shape);
    for (int n = 0; n < tensor->rank; n++)
        if (!whole(json_array_get(shape, (size_t)n), &tensor->shape[n]))
            return refuse(message, 2, "%s: %s: shape[%d] is not a whole number from 0", w->path, name, n);
    return true;
}

/* bytes = width * product(shape), or false when that cannot be said in 64 bits. */
static bool size_of(const struct tensor *tensor, uint64_t *bytes)
{
    *bytes = bytes_of(tensor->dtype);
    for (int n = 0; n < tensor->rank; n++)
        if (__builtin_mul_overflow(*bytes, tensor->shape[n], bytes)) return false;
    return true;
}

static bool tensor_read(const struct weights *w, const char *name, const json_t *entry, struct tensor *tensor, struct message *message)
{
    const json_t *offsets = json_object_get(entry, "data_offsets");
    uint64_t bytes;
    *tensor = (struct tensor){.dtype = json_string_value(json_object_get(entry, "dtype"))};
    if (!tensor->dtype || bytes_of(tensor->dtype) == 0)
        return refuse(message, 2, "%s: %s: dtype %s is not known", w->path, name, tensor->dtype ? tensor->dtype : "(none)");
    if (!shape_read(w, name, json_object_get(entry, "shape"), tensor, message)) return false;
    if (json_array_size(offsets) != 2 || !whole(json_array_get(offsets, 0), &tensor->begin) || !whole(json_array_get(offsets, 1), &tensor->end))
        return refuse(message, 2, "%s: %s: data_offsets are not two whole numbers from 0", w->path, name);
    if (tensor->begin > tensor->end || tensor->end > w->bytes)
        return refuse(message, 2, "%s: %s: data_offsets [%llu, %llu] reach beyond the %llu bytes of data: is the file cut?", w->path, name,
                      (unsigned long long)tensor->begin, (unsigned long long)tensor->end, (unsigned long long)w->bytes);
    if (!size_of(tensor, &bytes) || bytes != tensor->end - tensor->begin)
        return refuse(message, 2, "%s: %s: data_offsets span %llu bytes, shape and dtype %s want another number", w->path, name,
                      (unsigned long long)(tensor->end - tensor->begin), tensor->dtype);
    return true;
}

static int by_begin(const void *a, const void *b)
{
    const struct tensor *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

static bool without_holes(const struct weights *w, struct tensor *tensors, size_t count, struct message *message)
{
    uint64_t at = 0;
    qsort(tensors, count, sizeof *tensors, by_begin);
    for (size_t n = 0; n < count; at = tensors[n++].end)
        if (tensors[n].begin != at)
            return refuse(message, 2, "%s: %s at byte %llu of the data", w->path, tensors[n].begin > at ? "a hole" : "tensors overlap",
                          (unsigned long long)(tensors[n].begin > at ? at : tensors[n].begin));
    if (at != w->bytes)
        return refuse(message, 2, "%s: %llu bytes behind the last tensor", w->path, (unsigned long long)(w->bytes - at));
    return true;
}

static bool table_check(struct weights *w, struct message *message)
{
    struct tensor *tensors = calloc(json_object_size(w->table) + 1, sizeof *tensors);
    const char *name;
    json_t *entry;
    size_t count = 0;
    if (!tensors) return out_of_memory(message);
    bool good = true;
    json_object_foreach(w->table, name, entry)
        if (good && strcmp(name, "__metadata__") != 0) good = tensor_read(w, name, entry, &tensors[count++], message);
    good = good && without_holes(w, tensors, count, message);
    free(tensors);
    return good;
}

static bool table_read(struct weights *w, const char *path, struct message *message)
{
    uint64_t length;
    json_error_t error;
    if (!(w->path = strdup(path))) return out_of_memory(message);
    if (!file_open(path, &w->file, message)) return false;
    if (w->file.bytes < LENGTH_BYTES) return refuse(message, 2, "%s: %zu bytes: too short for a .safetensors file", path, w->file.bytes);
    memcpy(&length, w->file.data, LENGTH_BYTES);
    if (length > MOST_TABLE || length > w->file.bytes - LENGTH_BYTES)
        return refuse(message, 2, "%s: states a table of %llu bytes, but the file has %zu (and a table at most %d): not .safetensors, or cut", path,
                      (unsigned long long)length, w->file.bytes, MOST_TABLE);
    w->table = json_loadb(w->file.data + LENGTH_BYTES, (size_t)length, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(w->table))
        return refuse(message, 2, "%s: its table is no JSON object: %s", path, w->table ? "something else" : error.text);
    w->data = w->file.data + LENGTH_BYTES + length;
    w->bytes = w->file.bytes - LENGTH_BYTES - length;
    return table_check(w, message);
}

bool weights_open(const char *path, struct weights **weights, struct message *message)
{
    struct weights *w = calloc(1, sizeof *w);
    if (!w) return out_of_memory(message);
    if (!table_read(w, path, message)) {
        weights_close(w);
        return false;
    }
    *weights = w;
    return true;
}

void weights_close(struct weights *w)
{
    if (!w) return;
    json_decref(w->table);
    file_close(&w->file);
    free(w->path);
    free(w);
}

const float *weights_take(const struct weights *w, const char *name, int64_t rows, int64_t columns, struct message *message)
{
    const json_t *entry = json_object_get(w->table, name);
    struct tensor tensor;
    if (!entry) return refuse(message, 2, "%s: has no tensor %s", w->path, name), NULL;
    if (!tensor_read(w, name, entry, &tensor, message)) return NULL;
    if (strcmp(tensor.dtype, "F32") != 0) return refuse(message, 2, "%s: %s is %s, this program reads F32", w->path, name, tensor.dtype), NULL;
    if (tensor.rank != (columns ? 2 : 1) || tensor.shape[0] != (uint64_t)rows || (columns && tensor.shape[1] != (uint64_t)columns))
        return refuse(message, 2, "%s: %s has another shape than config.json wants: %lld rows of %lld", w->path, name, (long long)rows,
                      columns ? (long long)columns : 1LL), NULL;
    const char *data = w->data + tensor.begin;
    if ((uintptr_t)data % sizeof(float) != 0) return refuse(message, 2, "%s: %s does not lie at a multiple of 4 bytes", w->path, name), NULL;
    return (const float *)(const void *)data;
}
