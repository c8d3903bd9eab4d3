/* SPDX-License-Identifier: MIT
 * npy.c - the .npy format of NumPy: a magic word, a version, a header that is a Python dictionary, raw data. The header is read by hand: only
 * its three keys, in any order; what is not understood is refused, never guessed.
 */
#include "npy.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char *const type_texts[NPY_TYPES] = {"<f4", "<f8", "<f2", "<u2", "<i4", "<i8", "|b1", "|u1", "|i1", "<i2", "<u4", "<u8"};
static const size_t type_sizes[NPY_TYPES] = {4, 8, 2, 2, 4, 8, 1, 1, 1, 2, 4, 8};
enum { HEADER_LIMIT = 65536, MAGIC_BYTES = 8 };
static const unsigned char magic[6] = {0x93, 'N', 'U', 'M', 'P', 'Y'};

size_t npy_type_size(enum npy_type type) { return type_sizes[type]; }
const char *npy_type_text(enum npy_type type) { return type_texts[type]; }

static bool refuse(char *message, size_t capacity, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (message && capacity) vsnprintf(message, capacity, format, arguments);
    va_end(arguments);
    return false;
}

/* ---- the header --------------------------------------------------------------- */

struct cursor {
    const char *at, *end;
};

static void skip_blanks(struct cursor *c)
{
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\n' || *c->at == '\t')) c->at++;
}

static bool take(struct cursor *c, char wanted)
{
    skip_blanks(c);
    if (c->at == c->end || *c->at != wanted) return false;
    c->at++;
    return true;
}

/* 'text' or "text", without escapes. */
static bool take_text(struct cursor *c, char *text, size_t capacity)
{
    skip_blanks(c);
    if (c->at == c->end || (*c->at != '\'' && *c->at != '"')) return false;
    const char quote = *c->at++;
    size_t n = 0;
    for (; c->at < c->end && *c->at != quote; c->at++) {
        if (n + 1 >= capacity || *c->at == '\\') return false;
        text[n++] = *c->at;
    }
    text[n] = 0;
    return take(c, quote);
}

static bool take_word(struct cursor *c, const char *word)
{
    const size_t n = strlen(word);
    skip_blanks(c);
    if ((size_t)(c->end - c->at) < n || memcmp(c->at, word, n)) return false;
    c->at += n;
    return true;
}

static bool take_number(struct cursor *c, int64_t *value)
{
    skip_blanks(c);
    if (c->at == c->end || *c->at < '0' || *c->at > '9') return false;
    for (*value = 0; c->at < c->end && *c->at >= '0' && *c->at <= '9'; c->at++)
        if (__builtin_mul_overflow(*value, 10, value) || __builtin_add_overflow(*value, *c->at - '0', value)) return false;
    if (c->at < c->end && *c->at == 'L') c->at++;
    return true;
}

static bool take_shape(struct cursor *c, struct npy *array)
{
    if (!take(c, '(')) return false;
    for (array->rank = 0; !take(c, ')');) {
        if (array->rank == NPY_MAX_RANK || !take_number(c, &array->shape[array->rank])) return false;
        array->rank++;
        if (take(c, ',')) continue;
        return take(c, ')');
    }
    return true;
}

static bool find_type(const char *text, enum npy_type *type)
{
    for (int n = 0; n < NPY_TYPES; n++) {
        const bool one_byte = type_sizes[n] == 1; /* byte order of one byte: '|', sometimes '<' */
        if (!strcmp(text, type_texts[n]) || (one_byte && text[0] == '<' && !strcmp(text + 1, type_texts[n] + 1))) {
            *type = (enum npy_type)n;
            return true;
        }
    }
    return false;
}

/* {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), } */
static bool read_header(struct cursor c, struct npy *array, char *message, size_t capacity)
{
    bool descr = false, order = false, shape = false;
    char key[24], text[24];
    if (!take(&c, '{')) return refuse(message, capacity, "the header is no dictionary");
    while (!take(&c, '}')) {
        if (!take_text(&c, key, sizeof key) || !take(&c, ':')) return refuse(message, capacity, "the header is no dictionary of names");
        if (!strcmp(key, "descr") && !descr) {
            if (!take_text(&c, text, sizeof text)) return refuse(message, capacity, "descr is no plain type (an array of records?)");
            if (!find_type(text, &array->type))
                return *text == '>' ? refuse(message, capacity, "type %s is big endian: save x.astype('<%s')", text, text + 1)
                                    : refuse(message, capacity, "type %s: only f2 f4 f8, u1 to u8, i1 to i8, b1", text);
            descr = true;
        } else if (!strcmp(key, "fortran_order") && !order) {
            if (!take_word(&c, "False")) return refuse(message, capacity, "stored in Fortran order: save numpy.ascontiguousarray(x)");
            order = true;
        } else if (!strcmp(key, "shape") && !shape) {
            if (!take_shape(&c, array)) return refuse(message, capacity, "shape is no tuple of at most %d numbers", NPY_MAX_RANK);
            shape = true;
        } else
            return refuse(message, capacity, "unknown or repeated key %s in the header", key);
        if (!take(&c, ',')) {
            if (!take(&c, '}')) return refuse(message, capacity, "the header does not end");
            break;
        }
    }
    skip_blanks(&c);
    if (c.at != c.end) return refuse(message, capacity, "text behind the header's dictionary");
    if (!descr || !order || !shape) return refuse(message, capacity, "descr, fortran_order or shape is missing");
    return true;
}

static bool measure(struct npy *array, char *message, size_t capacity)
{
    array->count = 1;
    for (int32_t n = 0; n < array->rank; n++)
        if (__builtin_mul_overflow(array->count, array->shape[n], &array->count)) return refuse(message, capacity, "the shape is beyond 64 bits");
    if (__builtin_mul_overflow((size_t)array->count, type_sizes[array->type], &array->bytes))
        return refuse(message, capacity, "the shape is beyond 64 bits");
    return true;
}

static bool is_little_endian(void)
{
    const uint16_t one = 1;
    unsigned char first;
    memcpy(&first, &one, 1);
    return first == 1;
}

/* ---- files ---------------------------------------------------------------------- */

bool npy_parse(const void *file, size_t bytes, struct npy *array, char *message, size_t capacity)
{
    const unsigned char *at = file;
    memset(array, 0, sizeof *array);
    if (!is_little_endian()) return refuse(message, capacity, "this machine is not little endian");
    if (bytes < MAGIC_BYTES + 2 || memcmp(at, magic, sizeof magic))
        return refuse(message, capacity, bytes > 4 && !memcmp(at, "PK\3\4", 4) ? "is an archive (.npz?): unpack its .npy files" : "is no .npy file");
    const unsigned version = at[6];
    if ((version != 1 && version != 2) || at[7] != 0) return refuse(message, capacity, "version %u.%u: only 1.0 and 2.0", version, at[7]);
    size_t start = MAGIC_BYTES + (version == 1 ? 2 : 4), length;
    if (bytes < start) return refuse(message, capacity, "the file ends in its header");
    length = (size_t)at[8] | (size_t)at[9] << 8;
    if (version == 2) length |= (size_t)at[10] << 16 | (size_t)at[11] << 24;
    if (length > HEADER_LIMIT || length > bytes - start) return refuse(message, capacity, "a header of %zu bytes does not fit the file", length);
    struct cursor cursor = {(const char *)at + start, (const char *)at + start + length};
    if (!read_header(cursor, array, message, capacity) || !measure(array, message, capacity)) return false;
    if (array->bytes != bytes - start - length)
        return refuse(message, capacity, "the shape wants %zu bytes of data, the file has %zu", array->bytes, bytes - start - length);
    array->data = aligned_alloc(64, array->bytes / 64 * 64 + 64);
    if (!array->data) return refuse(message, capacity, "no memory for %zu bytes", array->bytes);
    memcpy(array->data, at + start + length, array->bytes);
    return true;
}

static void *whole_file(const char *path, size_t *bytes)
{
    FILE *file = fopen(path, "rb");
    long size = -1;
    void *data = NULL;
    struct stat about;
    if (file && !fstat(fileno(file), &about) && S_ISDIR(about.st_mode)) errno = EISDIR; /* its length would be the largest number */
    else if (file && !fseek(file, 0, SEEK_END)) size = ftell(file);
    if (size >= 0 && !fseek(file, 0, SEEK_SET)) data = malloc((size_t)size + 1);
    if (data && fread(data, 1, (size_t)size, file) != (size_t)size) {
        free(data);
        data = NULL;
    }
    const int why = errno;
    if (file) fclose(file);
    errno = why;
    *bytes = size < 0 ? 0 : (size_t)size;
    return data;
}

bool npy_read(const char *path, struct npy *array, char *message, size_t capacity)
{
    char why[160] = "";
    size_t bytes;
    void *data = whole_file(path, &bytes);
    memset(array, 0, sizeof *array);
    if (!data) return refuse(message, capacity, "%s cannot be read: %s", path, strerror(errno));
    const bool good = npy_parse(data, bytes, array, why, sizeof why);
    free(data);
    return good ? true : refuse(message, capacity, "%s: %s", path, why);
}

/* The dictionary as NumPy writes it; with the magic word it is padded to a multiple of 64 bytes. */
static size_t write_header(char *text, size_t capacity, enum npy_type type, int32_t rank, const int64_t *shape)
{
    size_t n = (size_t)snprintf(text, capacity, "{'descr': '%s', 'fortran_order': False, 'shape': (", type_texts[type]);
    for (int32_t axis = 0; axis < rank; axis++)
        n += (size_t)snprintf(text + n, capacity - n, axis + 1 < rank ? "%lld, " : rank == 1 ? "%lld," : "%lld", (long long)shape[axis]);
    n += (size_t)snprintf(text + n, capacity - n, "), }");
    while ((n + MAGIC_BYTES + 2 + 1) % 64) text[n++] = ' ';
    text[n++] = '\n';
    return n;
}

bool npy_write(const char *path, enum npy_type type, int32_t rank, const int64_t *shape, const void *data, char *message, size_t capacity)
{
    struct npy array = {.type = type, .rank = rank};
    char header[512];
    if (rank < 0 || rank > NPY_MAX_RANK) return refuse(message, capacity, "rank %d: at most %d", (int)rank, NPY_MAX_RANK);
    for (int32_t n = 0; n < rank; n++) {
        if (shape[n] < 0) return refuse(message, capacity, "a negative extent");
        array.shape[n] = shape[n];
    }
    if (!measure(&array, message, capacity)) return false;
    const size_t length = write_header(header, sizeof header, type, rank, shape);
    const unsigned char start[MAGIC_BYTES + 2] = {magic[0], magic[1], magic[2], magic[3], magic[4], magic[5], 1, 0,
                                                  (unsigned char)(length & 255), (unsigned char)(length >> 8)};
    FILE *file = fopen(path, "wb");
    if (!file) return refuse(message, capacity, "cannot be written: %s", strerror(errno));
    bool good = fwrite(start, 1, sizeof start, file) == sizeof start && fwrite(header, 1, length, file) == length &&
                (array.bytes == 0 || fwrite(data, 1, array.bytes, file) == array.bytes);
    if (fclose(file)) good = false;
    return good ? true : refuse(message, capacity, "writing failed: %s", strerror(errno));
}

void npy_free(struct npy *array)
{
    free(array->data);
    array->data = NULL;
}
