/* SPDX-License-Identifier: MIT
 * arrays.c - .npy files and words -> an instance of the harness. Shapes come from the files and are checked against each other before
 * anything is computed; what the files cannot hold (pages, ragged lengths) is refused.
 */
#include "arrays.h"
#include "dtype.h"
#include "harness_parts.h"
#include "npy.h"
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* A file as [batch, len, heads, dim], in whatever order it is stored. */
struct array {
    struct npy npy;
    int64_t batch, len, heads, dim;
    heed_type type;
};

__attribute__((format(printf, 1, 2))) static bool bad(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("heed: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    return false;
}

static bool heads_first(const struct options *options)
{
    bool first = false;
    for (int n = 0; n < options->problem_count; n++) {
        if (strstr(options->problems[n], "layout=bhld")) first = true;
        if (strstr(options->problems[n], "layout=blhd")) first = false;
    }
    return first;
}

/* Doubles become floats in place: the library has no f64 inputs, and Python's default is f64. */
static void narrow(struct npy *npy)
{
    const double *from = npy->data;
    float *to = npy->data;
    for (int64_t n = 0; n < npy->count; n++) to[n] = (float)from[n];
    npy->type = NPY_F4;
    npy->bytes /= 2;
}

static bool float_type(const char *path, struct npy *npy, heed_type *type)
{
    if (npy->type == NPY_F8) narrow(npy);
    switch (npy->type) {
    case NPY_F4: *type = HEED_F32; return true;
    case NPY_F2: *type = HEED_F16; return true;
    case NPY_U2: *type = HEED_BF16; return true; /* NumPy has no bf16: its bits */
    default:
        return bad("%s: holds %s; wanted <f4, <f2, <f8 (as by x.astype('float32')), or <u2 for the bits of bf16", path, npy_type_text(npy->type));
    }
}

static bool array_read(const char *name, const char *path, bool heads_first, struct array *array)
{
    char message[256];
    if (!path) return bad("--%s FILE is missing (files follow their options: --q q.npy --k k.npy --v v.npy)", name);
    if (!npy_read(path, &array->npy, message, sizeof message)) return bad("%s", message);
    if (!float_type(path, &array->npy, &array->type)) return false;
    const int64_t *shape = array->npy.shape;
    if (array->npy.rank != 3 && array->npy.rank != 4)
        return bad("%s: has %d axes; wanted [batch, len, heads, dim] or [len, heads, dim] (one head: x[:, None, :])", path, (int)array->npy.rank);
    array->batch = array->npy.rank == 4 ? *shape++ : 1;
    array->len = shape[heads_first ? 1 : 0];
    array->heads = shape[heads_first ? 0 : 1];
    array->dim = shape[2];
    if (array->batch > INT32_MAX || array->len > INT32_MAX || array->heads > INT32_MAX || array->dim > MAX_HEAD_DIM)
        return bad("%s: shape beyond the limits (dim at most %d)", path, MAX_HEAD_DIM);
    return true;
}

/* Words that say what the files say, then the user's words: later wins, and array_fit() finds what no longer agrees. */
static bool line_of(const struct array *q, const struct array *k, const struct array *v, const char *mask, const char *bias,
                    const char *extra, const struct options *options, struct problem_line *line)
{
    char text[LINE_BYTES], message[256];
    int n = snprintf(text, sizeof text, "b%lld hq%lld hk%lld d%lld dv%lld q%lld kv%lld q=%s k=%s v=%s%s%s%s", (long long)q->batch,
                     (long long)q->heads, (long long)k->heads, (long long)q->dim, (long long)v->dim, (long long)q->len, (long long)k->len,
                     type_name(q->type), type_name(k->type), type_name(v->type), mask, bias, extra);
    for (int p = 0; p < options->problem_count; p++)
        if (n < (int)sizeof text) n += snprintf(text + n, sizeof text - (size_t)n, " %s", options->problems[p]);
    if (n >= (int)sizeof text) return bad("too many words");
    return line_parse(text, line, message, sizeof message) || bad("%s", message);
}

static bool shapes_fit(const struct array *q, const struct array *k, const struct array *v)
{
    if (k->batch != q->batch || v->batch != q->batch)
        return bad("batch differs: q %lld, k %lld, v %lld", (long long)q->batch, (long long)k->batch, (long long)v->batch);
    if (k->len != v->len || k->heads != v->heads)
        return bad("k has %lld tokens of %lld heads, v %lld of %lld", (long long)k->len, (long long)k->heads, (long long)v->len,
                   (long long)v->heads);
    if (k->heads < 1 || q->heads % k->heads)
        return bad("q has %lld tokens of %lld heads, k %lld of %lld: the heads of q must be a multiple of those of k; files are read as "
                   "[batch, len, heads, dim], layout=bhld reads [batch, heads, len, dim]",
                   (long long)q->len, (long long)q->heads, (long long)k->len, (long long)k->heads);
    if (k->dim != q->dim) return bad("rows of q have %lld elements, rows of k %lld", (long long)q->dim, (long long)k->dim);
    return true;
}

static bool words_fit(const struct array *q, const struct array *k, const struct array *v, const struct problem_line *line)
{
    const heed_desc *d = &line->desc;
    if (line->batch != q->batch || line->q_len != q->len || line->kv_len != k->len || d->q_heads != q->heads ||
        (d->kv_heads ? d->kv_heads : d->q_heads) != k->heads || d->head_dim != q->dim ||
        (d->v_head_dim ? d->v_head_dim : d->head_dim) != v->dim)
        return bad("a word contradicts the shapes of the files (b, hq, hk, d, dv, q, kv come from them)");
    if (d->q_type != q->type || d->k_type != k->type || d->v_type != v->type)
        return bad("a word contradicts the types of the files (q %s, k %s, v %s)", type_name(q->type), type_name(k->type),
                   type_name(v->type));
    if (line->ragged || line->kvlens || line->tree || d->page_size || (d->flags & (HEED_SINKS | HEED_KEY_RANGE | HEED_MASK_BITS)) ||
        line->layout == LAYOUT_QKV)
        return bad("ragged, kvlens, tree, page, sinks, keyrange, mask=bits and layout=qkv have no form in files: use heed check");
    return true;
}

/* Copies the file's rows to where the instance's strides want them. */
static void array_place(const struct array *array, bool heads_first, const heed_tensor *tensor)
{
    const size_t row = (size_t)type_row_bytes(array->type, array->dim), element = (size_t)type_stride_bytes(array->type);
    for (int64_t b = 0; b < array->batch; b++)
        for (int64_t i = 0; i < array->len; i++)
            for (int64_t h = 0; h < array->heads; h++) {
                const int64_t from = b * array->len * array->heads + (heads_first ? h * array->len + i : i * array->heads + h);
                const int64_t to = tensor->offset + b * tensor->batch_stride + h * tensor->head_stride + i * tensor->token_stride;
                memcpy((char *)tensor->data + to * (int64_t)element, (const char *)array->npy.data + (size_t)from * row, row);
            }
}

/* mask or bias, broadcast from the right as in NumPy to [batch, heads, q_len, kv_len]. */
static bool grid_place(const char *path, const struct npy *npy, size_t element, const struct problem_line *line, const heed_tensor *tensor)
{
    const int64_t full[4] = {line->batch, line->desc.q_heads, line->q_len, line->kv_len};
    int64_t stride[4] = {0}, step = 1;
    if (npy->rank > 4) return bad("%s: has %d axes, at most 4", path, (int)npy->rank);
    for (int axis = 3, of = npy->rank - 1; of >= 0; axis--, of--) {
        if (npy->shape[of] != full[axis] && npy->shape[of] != 1)
            return bad("%s: axis %d has %lld elements; wanted %lld or 1", path, of, (long long)npy->shape[of], (long long)full[axis]);
        stride[axis] = npy->shape[of] == 1 ? 0 : step;
        step *= npy->shape[of];
    }
    for (int64_t b = 0; b < full[0]; b++)
        for (int64_t h = 0; h < full[1]; h++)
            for (int64_t i = 0; i < full[2]; i++)
                for (int64_t j = 0; j < full[3]; j++) {
                    const int64_t from = b * stride[0] + h * stride[1] + i * stride[2] + j * stride[3];
                    const int64_t to = tensor->offset + b * tensor->batch_stride + h * tensor->head_stride + i * tensor->token_stride + j;
                    memcpy((char *)tensor->data + to * (int64_t)element, (const char *)npy->data + (size_t)from * element, element);
                }
    return true;
}

/* The published slopes (Press et al., 2021, and the code they published): with n the largest power of two up to `heads`,
 *     slope[h] = 2^(-8 (h + 1) / n)  for h < n,   then every other slope of 2n heads:  slope[h] = 2^(-4 (2 (h - n) + 1) / n) */
static void place_slopes(const struct instance *instance)
{
    const heed_tensor *t = &instance->tensors.alibi_slopes;
    const int32_t heads = instance->problem.q_heads;
    int32_t n = 1;
    while (n <= heads / 2) n *= 2;
    for (int32_t h = 0; h < heads; h++)
        ((float *)t->data)[t->offset + h] = exp2f(h < n ? -8.0f * (float)(h + 1) / (float)n : -4.0f * (float)(2 * (h - n) + 1) / (float)n);
}

struct grids { struct npy mask, bias; heed_type bias_type; };

static bool grids_read(const struct options *options, struct grids *grids)
{
    char message[256];
    if (options->mask && !npy_read(options->mask, &grids->mask, message, sizeof message)) return bad("%s", message);
    if (options->mask && grids->mask.type != NPY_B1)
        return bad("%s: holds %s; a mask is bool (|b1), as by x.astype(bool)", options->mask, npy_type_text(grids->mask.type));
    if (options->bias && !npy_read(options->bias, &grids->bias, message, sizeof message)) return bad("%s", message);
    return !options->bias || float_type(options->bias, &grids->bias, &grids->bias_type);
}

static bool fill(const struct options *options, struct array array[3], const struct grids *grids, struct instance *instance)
{
    const bool first = heads_first(options);
    array_place(&array[0], first, &instance->tensors.q);
    array_place(&array[1], first, &instance->tensors.k);
    array_place(&array[2], first, &instance->tensors.v);
    if (options->mask && !grid_place(options->mask, &grids->mask, 1, &instance->line, &instance->tensors.mask)) return false;
    if (options->bias && !grid_place(options->bias, &grids->bias, (size_t)type_stride_bytes(grids->bias_type), &instance->line,
                                     &instance->tensors.bias))
        return false;
    if (instance->line.desc.flags & HEED_ALIBI) place_slopes(instance);
    return true;
}

bool arrays_read(const struct options *options, const char *extra, struct arrays *arrays)
{
    static const char names[3][2] = {"q", "k", "v"};
    const char *paths[3] = {options->q, options->k, options->v};
    struct array array[3];
    struct grids grids;
    struct problem_line line;
    char message[512], bias[32] = "";
    bool good = true;
    memset(array, 0, sizeof array);
    memset(&grids, 0, sizeof grids);
    memset(arrays, 0, sizeof *arrays);
    arrays->heads_first = heads_first(options);
    for (int n = 0; n < 3; n++) good = good && array_read(names[n], paths[n], arrays->heads_first, &array[n]);
    arrays->one = array[0].npy.rank == 3;
    good = good && shapes_fit(&array[0], &array[1], &array[2]) && grids_read(options, &grids);
    if (options->bias) snprintf(bias, sizeof bias, " bias=%s", type_name(grids.bias_type));
    good = good && line_of(&array[0], &array[1], &array[2], options->mask ? " mask=bool" : "", bias, extra, options, &line);
    good = good && words_fit(&array[0], &array[1], &array[2], &line);
    if (good) {
        arrays->instance = instance_new(&line, INSTANCE_PLAIN, message, sizeof message);
        good = arrays->instance ? fill(options, array, &grids, arrays->instance) : bad("%s", message);
    }
    if (!good) arrays_free(arrays);
    for (int n = 0; n < 3; n++) npy_free(&array[n].npy);
    npy_free(&grids.mask);
    npy_free(&grids.bias);
    return good;
}

void arrays_free(struct arrays *arrays)
{
    instance_free(arrays->instance);
    arrays->instance = NULL;
}

static const enum npy_type file_type[] = {[HEED_F32] = NPY_F4, [HEED_F16] = NPY_F2, [HEED_BF16] = NPY_U2};

bool arrays_write(const struct arrays *arrays, enum role role, const char *path)
{
    const struct instance *instance = arrays->instance;
    const heed_tensors *t = &instance->tensors;
    const heed_tensor *tensor = role == ROLE_O ? &t->o : role == ROLE_LSE ? &t->lse : role == ROLE_SCORES ? &t->scores : &t->key_sums;
    const struct problem_line *line = &instance->line;
    const heed_type type = role == ROLE_O ? instance->problem.o_type : HEED_F32;
    const int64_t dim = role == ROLE_O ? instance->problem.v_head_dim : role == ROLE_LSE ? 1 : line->kv_len;
    int32_t heads = instance->problem.q_heads, rows = line->q_len;
    if (line->batch > 0) instance_output_rows(instance, role, 0, &heads, &rows); /* the lengths of files are those of every sequence */
    /* o like q in the file; lse, scores and key sums [batch, heads (, len) (, keys)] always */
    const bool first = role != ROLE_O || arrays->heads_first;
    const int64_t a = first ? heads : rows, b = first ? rows : heads;
    const int64_t shape[4] = {line->batch, a, b, dim};
    const size_t element = (size_t)type_stride_bytes(type), row = element * (size_t)dim;
    char *data = malloc((size_t)(line->batch * a * b) * row + 1), message[256], *to = data;
    if (!data) return bad("out of memory");
    for (int64_t n = 0; n < shape[0]; n++)
        for (int64_t x = 0; x < a; x++)
            for (int64_t y = 0; y < b; y++, to += row) {
                const int64_t h = first ? x : y, i = first ? y : x;
                const int64_t at = tensor->offset + n * tensor->batch_stride + h * tensor->head_stride + i * tensor->token_stride;
                memcpy(to, (const char *)tensor->data + at * (int64_t)element, row);
            }
    const int64_t sums_shape[3] = {line->batch, heads, dim}, *as = role == ROLE_KEY_SUMS ? sums_shape : shape;
    const int32_t skip = arrays->one ? 1 : 0, rank = (role == ROLE_LSE || role == ROLE_KEY_SUMS ? 3 : 4) - skip;
    const bool good = npy_write(path, file_type[type], rank, as + skip, data, message, sizeof message);
    free(data);
    return good || bad("%s: %s", path, message);
}

float arrays_value(const heed_tensor *tensor, int32_t b, int32_t h, int32_t i, int32_t x)
{
    const int64_t at = tensor->offset + b * tensor->batch_stride + h * tensor->head_stride + i * tensor->token_stride + x;
    return ((const float *)tensor->data)[at];
}

void labels_free(char **labels, int32_t count)
{
    for (int32_t n = 0; labels && n < count; n++) free(labels[n]);
    free(labels);
}

/* A label is shown on terminals: nothing in it may be an order to one (ESC, tab, and the controls that UTF-8 writes as C2 80 to C2 9F). */
static void disarm(char *label)
{
    for (unsigned char *at = (unsigned char *)label; *at; at++) {
        if (*at < 0x20 || *at == 0x7f) *at = '?';
        if (*at == 0xC2 && at[1] >= 0x80 && at[1] < 0xA0) at[0] = at[1] = '?';
    }
}

char **labels_read(const char *path, int32_t *count)
{
    *count = 0;
    FILE *file = fopen(path, "r");
    if (!file) {
        fprintf(stderr, "heed: ");
        perror(path);
        return NULL;
    }
    char **labels = NULL, *text = NULL;
    size_t capacity = 0, room = 0;
    ssize_t length;
    bool good = true;
    while (good && (length = getline(&text, &capacity, file)) >= 0) {
        text[strcspn(text, "\r\n")] = 0;
        disarm(text);
        if ((size_t)*count == room) {
            char **more = realloc(labels, (room = room ? 2 * room : 64) * sizeof *labels);
            if (!more) good = false;
            else labels = more;
        }
        if (good && !(labels[*count] = strdup(text))) good = false;
        if (good) ++*count;
    }
    good = good && !ferror(file) && *count;
    free(text);
    fclose(file);
    if (good) return labels;
    labels_free(labels, *count);
    fprintf(stderr, "heed: %s: no labels could be read\n", path);
    return NULL;
}
