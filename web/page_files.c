/* SPDX-License-Identifier: MIT
 * page_files.c - .npy files that were dropped on the page: read by cli/npy.c, the command's own reader, so that the page refuses what the command
 * refuses, in its words. A file is a picture, slice by slice, or the q, k or v of an attention.
 */
#include "page.h"
#include "dtype.h"
#include "npy.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILES = 8, MOST_SIDE = 4096 };
static struct npy files[FILES];
static char names[FILES][64];
static char *room;

/* Where JavaScript writes a file's bytes, or a name; 0: no memory. One at a time. */
EXPORT char *page_room(size_t bytes);
EXPORT char *page_room(size_t bytes)
{
    free(room);
    return room = malloc(bytes + 1);
}

EXPORT void page_file_drop(int n);
EXPORT void page_file_drop(int n) { npy_free(&files[n]); }

/* The bytes in the room as file n. 0: read. */
EXPORT int page_file(int n, size_t bytes);
EXPORT int page_file(int n, size_t bytes)
{
    npy_free(&files[n]);
    *message = 0;
    const bool good = npy_parse(room, bytes, &files[n], message, sizeof message);
    free(room);
    room = NULL;
    return !good;
}

/* The name in the room, for messages. */
EXPORT void page_file_name(int n);
EXPORT void page_file_name(int n) { snprintf(names[n], sizeof names[n], "%s", room); }

EXPORT int page_file_rank(int n);
EXPORT int page_file_rank(int n) { return files[n].rank; }
EXPORT double page_file_extent(int n, int axis);
EXPORT double page_file_extent(int n, int axis) { return (double)files[n].shape[axis]; }
EXPORT const char *page_file_type(int n);
EXPORT const char *page_file_type(int n) { return npy_type_text(files[n].type); }

/* ---- a picture ----------------------------------------------------------------- */

static double element(const struct npy *npy, int64_t n)
{
    const void *data = npy->data;
    switch (npy->type) {
    case NPY_F4: return (double)((const float *)data)[n];
    case NPY_F8: return ((const double *)data)[n];
    case NPY_F2: return (double)f16_to_f32(((const uint16_t *)data)[n]);
    case NPY_U2: return (double)bf16_to_f32(((const uint16_t *)data)[n]); /* NumPy has no bf16: its bits, as everywhere in heed */
    case NPY_I1: return ((const int8_t *)data)[n];
    case NPY_I2: return ((const int16_t *)data)[n];
    case NPY_I4: return ((const int32_t *)data)[n];
    case NPY_I8: return (double)((const int64_t *)data)[n];
    case NPY_U4: return ((const uint32_t *)data)[n];
    case NPY_U8: return (double)((const uint64_t *)data)[n];
    default: return ((const uint8_t *)data)[n];
    }
}

/* The last two axes are rows and columns, one axis alone is a row; the others together number the slices. */
static int64_t rows_of(const struct npy *npy) { return npy->rank >= 2 ? npy->shape[npy->rank - 2] : 1; }
static int64_t columns_of(const struct npy *npy) { return npy->rank >= 1 ? npy->shape[npy->rank - 1] : 1; }

/* 0: it can be drawn. */
EXPORT int page_drawable(int n);
EXPORT int page_drawable(int n)
{
    const struct npy *npy = &files[n];
    *message = 0;
    if (npy->count == 0) snprintf(message, sizeof message, "has no elements: nothing to draw");
    else if (rows_of(npy) > MOST_SIDE || columns_of(npy) > MOST_SIDE)
        snprintf(message, sizeof message, "%lld rows of %lld columns: drawn are %d of each at most", (long long)rows_of(npy), (long long)columns_of(npy), MOST_SIDE);
    return *message != 0;
}

EXPORT double page_element(int n, double at);
EXPORT double page_element(int n, double at) { return element(&files[n], (int64_t)at); }

/* A slice as floats, [rows][columns]; 0: no memory. Summary: least, most, mean of the finite elements; how many are NaN, how many infinite. */
static double summary[5];
EXPORT const double *page_summary(void);
EXPORT const double *page_summary(void) { return summary; }
EXPORT const float *page_slice(int n, int slice);
EXPORT const float *page_slice(int n, int slice)
{
    static float *values;
    const struct npy *npy = &files[n];
    const int64_t count = rows_of(npy) * columns_of(npy);
    double least = INFINITY, most = -INFINITY, sum = 0, nans = 0, infinite = 0;
    free(values);
    values = malloc((size_t)count * sizeof *values);
    for (int64_t m = 0; values && m < count; m++) {
        const double x = element(npy, slice * count + m);
        values[m] = (float)x;
        if (isnan(x)) nans++;
        else if (isinf(x)) infinite++;
        else least = fmin(least, x), most = fmax(most, x), sum += x;
    }
    const double numbers[5] = {least, most, sum / ((double)count - nans - infinite), nans, infinite};
    memcpy(summary, numbers, sizeof summary);
    return values;
}

/* ---- an attention --------------------------------------------------------------- */

static bool all_finite(int n)
{
    const struct npy *npy = &files[n];
    int64_t bad = 0;
    for (int64_t m = 0; m < npy->count; m++) bad += !isfinite((float)element(npy, m));
    if (bad) snprintf(message, sizeof message, "%s: %lld elements are NaN or infinite as f32", names[n], (long long)bad);
    return !bad;
}

/* 0: files q, k and v (-1: k again) are loaded and computed. heads_first: [heads, len, dim]. */
EXPORT int page_attention(int q, int k, int v, int heads_first);
EXPORT int page_attention(int q, int k, int v, int heads_first)
{
    if (!page_context()) return 1;
    if (v < 0) v = k;
    const char *const used[3] = {names[q], names[k], names[v]};
    const struct npy *const arrays[3] = {&files[q], &files[k], &files[v]};
    if (!all_finite(q) || !all_finite(k) || !all_finite(v)) return 1;
    if (!explore_load_arrays(&explore, used, arrays, heads_first != 0, message, sizeof message)) return 1;
    return page_compute();
}

/* The lines in the room label the tokens. 0: done. */
EXPORT int page_tokens(int bytes);
EXPORT int page_tokens(int bytes)
{
    *message = 0;
    return !explore_label_tokens(&explore, "tokens", room, (size_t)bytes, message, sizeof message);
}
