/* SPDX-License-Identifier: MIT
 * cases_files.c - a folder with a case.json and its arrays: read, sizes checked, not yet understood.
 */
#include "cases_parts.h"
#include "dtype.h"
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- one folder --------------------------------------------------------------- */

static bool safe_name(const char *name) { return *name && *name != '.' && !strchr(name, '/') && strlen(name) < 200; }

static bool shape_agrees(const struct npy *array, const json_t *shape)
{
    if (!json_is_array(shape) || json_array_size(shape) != (size_t)array->rank) return false;
    for (int32_t n = 0; n < array->rank; n++) {
        const json_t *extent = json_array_get(shape, (size_t)n);
        if (!json_is_integer(extent) || json_integer_value(extent) != array->shape[n]) return false;
    }
    return true;
}

static bool array_read(const char *folder, const json_t *entry, struct case_array *array, char *message, size_t capacity)
{
    const char *role = json_string_value(json_object_get(entry, "role")), *file = json_string_value(json_object_get(entry, "file"));
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    char path[1400];
    if (!role || !file || !dtype || !safe_name(file) || strlen(role) >= sizeof array->role || strlen(dtype) >= sizeof array->dtype) {
        message_set(message, capacity, "%s: an array without role, file or dtype", folder);
        return false;
    }
    memcpy(array->role, role, strlen(role) + 1);
    memcpy(array->dtype, dtype, strlen(dtype) + 1);
    snprintf(path, sizeof path, "%s/%s", folder, file);
    if (!npy_read(path, &array->npy, message, capacity)) return false;
    if (shape_agrees(&array->npy, json_object_get(entry, "shape"))) return true;
    message_set(message, capacity, "%s: its shape is not that of case.json", path);
    return false;
}

static bool arrays_read(const char *folder, const char *key, struct case_files *files, char *message, size_t capacity)
{
    size_t n;
    json_t *entry;
    json_array_foreach(json_object_get(files->root, key), n, entry)
    {
        if (files->count == CASE_ARRAYS) {
            message_set(message, capacity, "%s: more than %d arrays", folder, CASE_ARRAYS);
            return false;
        }
        if (!array_read(folder, entry, &files->array[files->count++], message, capacity)) return false;
    }
    return true;
}

bool files_read(const char *folder, struct case_files *files, char *message, size_t capacity)
{
    char path[1400];
    json_error_t error;
    memset(files, 0, sizeof *files);
    snprintf(path, sizeof path, "%s/case.json", folder);
    files->root = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    if (!files->root)
        message_set(message, capacity, "%s:%d: %s", path, error.line, error.text);
    else if (arrays_read(folder, "inputs", files, message, capacity) && arrays_read(folder, "outputs", files, message, capacity))
        return true;
    files_free(files);
    return false;
}

void files_free(struct case_files *files)
{
    for (int32_t n = 0; n < files->count; n++) npy_free(&files->array[n].npy);
    if (files->root) json_decref(files->root);
    memset(files, 0, sizeof *files);
}

const struct case_array *files_array(const struct case_files *files, const char *role)
{
    for (int32_t n = 0; n < files->count; n++)
        if (!strcmp(files->array[n].role, role)) return &files->array[n];
    return NULL;
}

double array_value(const struct case_array *array, int64_t n)
{
    const void *data = array->npy.data;
    switch (array->npy.type) {
    case NPY_F4: return ((const float *)data)[n];
    case NPY_F8: return ((const double *)data)[n];
    case NPY_F2: return f16_to_f32(((const uint16_t *)data)[n]);
    case NPY_U2: return bf16_to_f32(((const uint16_t *)data)[n]);
    case NPY_I4: return ((const int32_t *)data)[n];
    case NPY_I8: return (double)((const int64_t *)data)[n];
    case NPY_I1: return ((const signed char *)data)[n];
    case NPY_I2: return ((const int16_t *)data)[n];
    case NPY_U4: return ((const uint32_t *)data)[n];
    case NPY_U8: return (double)((const uint64_t *)data)[n];
    default: return ((const unsigned char *)data)[n];
    }
}

/* ---- keys ----------------------------------------------------------------------- */

static bool fits_int(const json_t *value)
{
    return json_is_integer(value) && json_integer_value(value) >= INT32_MIN && json_integer_value(value) <= INT32_MAX;
}

int32_t key_int(const json_t *root, const char *key, int32_t otherwise, bool *good)
{
    const json_t *value = json_object_get(root, key);
    if (!value) return otherwise;
    if (fits_int(value)) return (int32_t)json_integer_value(value);
    *good = false;
    return otherwise;
}

double key_number(const json_t *root, const char *key, double otherwise, bool *good)
{
    const json_t *value = json_object_get(root, key);
    if (!value || json_is_null(value)) return otherwise;
    if (json_is_number(value)) return json_number_value(value);
    *good = false;
    return otherwise;
}

bool key_bool(const json_t *root, const char *key, bool otherwise, bool *good)
{
    const json_t *value = json_object_get(root, key);
    if (!value) return otherwise;
    if (!json_is_boolean(value)) *good = false;
    return json_is_true(value);
}

const char *key_text(const json_t *root, const char *key, const char *otherwise)
{
    const char *text = json_string_value(json_object_get(root, key));
    return text ? text : otherwise;
}

bool key_ints(const json_t *root, const char *key, int32_t *to, int32_t count)
{
    const json_t *list = json_object_get(root, key);
    if (!json_is_array(list) || json_array_size(list) != (size_t)count) return false;
    for (int32_t n = 0; n < count; n++) {
        if (!fits_int(json_array_get(list, (size_t)n))) return false;
        to[n] = (int32_t)json_integer_value(json_array_get(list, (size_t)n));
    }
    return true;
}

/* ---- many folders ------------------------------------------------------------------ */

struct names {
    char **list;
    int32_t count;
    bool enough;
};

static void add_name(struct names *names, const char *folder)
{
    char **longer = realloc(names->list, (size_t)(names->count + 1) * sizeof *longer);
    if (longer) names->list = longer;
    char *copy = longer ? strdup(folder) : NULL;
    if (copy)
        names->list[names->count++] = copy;
    else
        names->enough = false;
}

static void walk(struct names *names, const char *folder, int depth)
{
    char path[1024];
    struct stat is;
    DIR *open = depth < 8 ? opendir(folder) : NULL;
    if (!open) return;
    snprintf(path, sizeof path, "%s/case.json", folder);
    if (!stat(path, &is) && S_ISREG(is.st_mode)) add_name(names, folder);
    for (struct dirent *entry; (entry = readdir(open));) {
        if (entry->d_name[0] == '.') continue;
        if (snprintf(path, sizeof path, "%s/%s", folder, entry->d_name) >= (int)sizeof path) continue;
        if (!stat(path, &is) && S_ISDIR(is.st_mode)) walk(names, path, depth + 1);
    }
    closedir(open);
}

static int compare_names(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

char **cases_list(const char *folder, int32_t *count, char *message, size_t capacity)
{
    struct names names = {.enough = true};
    walk(&names, folder, 0);
    *count = names.count;
    if (names.enough && names.count) {
        qsort(names.list, (size_t)names.count, sizeof *names.list, compare_names);
        return names.list;
    }
    message_set(message, capacity, names.enough ? "no case.json in or below %s" : "no memory for the cases below %s", folder);
    for (int32_t n = 0; n < names.count; n++) free(names.list[n]);
    free(names.list);
    *count = 0;
    return NULL;
}
