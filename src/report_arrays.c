/* SPDX-License-Identifier: MIT
 * report_arrays.c - the arrays of a stored case (doc/cases.md): rows gathered from the call's views into plain C order, each array one
 * .npy file and one entry in case.json.
 */
#include "report_arrays.h"
#include "bound.h"
#include "dtype.h"
#include "mutant.h"
#include "reference.h"
#include "schedule.h"
#include "status.h"
#include "view.h"

#include <string.h>

enum { ARRAY_LIMIT = 1 << 30 }; /* bytes of one array: a larger case is not kept */

/* One array while it is made. */
struct array {
    const char *role, *dtype, *descr;
    int64_t shape[4];
    int rank;
    int64_t item; /* bytes per element of shape */
    unsigned char *data;
};

static const struct services *services_of(const struct store *to) { return &to->call->plan->context->services; }

static int64_t array_bytes(const struct array *a)
{
    int64_t bytes = a->item;
    for (int n = 0; n < a->rank; n++) {
        if (a->shape[n] > 0 && bytes > ARRAY_LIMIT / a->shape[n]) return -1;
        bytes *= a->shape[n];
    }
    return bytes;
}

static heed_status array_new(const struct store *to, struct array *a)
{
    int64_t bytes = array_bytes(a);
    if (bytes < 0) return fail(HEED_UNSUPPORTED, "%s has more than %d bytes: too large for a stored case", a->role, ARRAY_LIMIT);
    a->data = memory_new(services_of(to), bytes > 0 ? (size_t)bytes : 1, 1);
    return a->data ? HEED_OK : out_of_memory((size_t)bytes);
}

/* "(3, 4)" and "[3, 4]" from the same numbers; Python's tuple of one needs its comma. */
static size_t shape_text(const struct array *a, char open, char close, char *text, size_t capacity)
{
    size_t n = text_append(text, capacity, 0, "%c", open);
    for (int k = 0; k < a->rank; k++) n = text_append(text, capacity, n, "%s%lld", k ? ", " : "", (long long)a->shape[k]);
    if (a->rank == 1 && open == '(') n = text_append(text, capacity, n, ",");
    return text_append(text, capacity, n, "%c", close);
}

/* .npy version 1.0: magic, length, a dict padded with blanks so that data begin at a multiple of 64. */
static bool write_npy(FILE *file, const struct array *a)
{
    char shape[128], text[256];
    shape_text(a, '(', ')', shape, sizeof shape);
    size_t n = text_append(text, sizeof text, 0, "{'descr': '%s', 'fortran_order': False, 'shape': %s, }", a->descr, shape);
    size_t whole = (10 + n + 1 + 63) / 64 * 64, length = whole - 10;
    while (n < length - 1) text[n++] = ' ';
    text[n++] = '\n';
    unsigned char head[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (unsigned char)(length & 255), (unsigned char)(length >> 8)};
    size_t bytes = (size_t)array_bytes(a);
    return fwrite(head, 1, sizeof head, file) == sizeof head && fwrite(text, 1, n, file) == n && fwrite(a->data, 1, bytes, file) == bytes;
}

/* The file, its entry in case.json, and an end of the array. */
static heed_status array_done(struct store *to, struct array *a)
{
    char path[4096], shape[128];
    shape_text(a, '[', ']', shape, sizeof shape);
    if (text_append(path, sizeof path, 0, "%s/%s.npy", to->folder, a->role) >= sizeof path)
        return fail(HEED_INVALID_ARGUMENT, "report_dir is longer than %zu bytes", sizeof path);
    FILE *file = fopen(path, "wb");
    bool good = file && write_npy(file, a);
    if (file && fclose(file) != 0) good = false;
    memory_delete(services_of(to), a->data);
    a->data = NULL;
    fprintf(to->json, "%s\n    {\"role\": \"%s\", \"file\": \"%s.npy\", \"dtype\": \"%s\", \"shape\": %s}", to->listed++ ? "," : "",
            a->role, a->role, a->dtype, shape);
    return good ? HEED_OK : fail(HEED_INTERNAL, "cannot write %s", path);
}

/* ---- query-like arrays ---------------------------------------------------- */

/* Names of a storage type in a case: dtype, numpy's descr, bytes of one element of the stored last axis. */
static void type_words(heed_type type, struct array *a)
{
    static const struct {
        const char *dtype, *descr;
        int item;
    } words[] = {[HEED_F32] = {"float32", "<f4", 4},     [HEED_F16] = {"float16", "<f2", 2},    [HEED_BF16] = {"bfloat16", "<u2", 2},
                 [HEED_I8] = {"int8", "|i1", 1},         [HEED_Q8_0] = {"q8_0", "|u1", 1},      [HEED_Q4_0] = {"q4_0", "|u1", 1},
                 [HEED_F8_E4M3] = {"f8_e4m3", "|u1", 1}, [HEED_F8_E5M2] = {"f8_e5m2", "|u1", 1}};
    a->dtype = words[type].dtype;
    a->descr = words[type].descr;
    a->item = words[type].item;
}

/* Rows (b, h, i) in the order of the case: dense [batch, heads, q_len]; ragged [tokens, heads] or, heads_first, [heads, tokens]. An axis
 * that the view repeats (stride 0) gets extent 1 where `fold` is set. */
struct rows {
    const struct view *view; /* NULL: nothing to copy, the rows are filled by index */
    int32_t heads;
    bool ragged, heads_first, fold;
    bool one_batch, one_head, one_token;
};

static struct rows rows_of(const struct store *to, const struct view *view, int32_t heads, bool heads_first, bool fold)
{
    struct rows r = {.view = view, .heads = heads, .ragged = to->call->batch->q_packed, .heads_first = heads_first, .fold = fold};
    r.one_batch = fold && view->batch == 0 && !r.ragged;
    r.one_head = fold && view->head == 0;
    r.one_token = fold && view->token == 0;
    if (r.one_head) r.heads = 1;
    return r;
}

/* Leading axes of the shape; returns their number. */
static int rows_shape(const struct store *to, const struct rows *r, int64_t *shape)
{
    const struct heed_batch *batch = to->call->batch;
    int64_t tokens = r->one_token ? 1 : r->ragged ? batch->q_total : batch->q_len_max;
    int n = 0;
    if (!r->ragged) shape[n++] = r->one_batch ? 1 : batch->batch;
    if (r->ragged && !r->heads_first) shape[n++] = tokens;
    if (r->heads > 0) shape[n++] = r->heads;
    if (!r->ragged || r->heads_first) shape[n++] = tokens;
    return n;
}

static int64_t row_index(const struct store *to, const struct rows *r, int32_t b, int32_t h, int32_t i)
{
    const struct heed_batch *batch = to->call->batch;
    const int64_t heads = r->heads > 0 ? r->heads : 1;
    if (r->one_batch) b = 0;
    if (r->one_head) h = 0;
    int64_t token = r->one_token ? 0 : r->ragged ? batch->sequences[b].q_token + i : i;
    if (!r->ragged) return ((int64_t)b * heads + h) * (r->one_token ? 1 : batch->q_len_max) + token;
    return r->heads_first ? h * (r->one_token ? 1 : batch->q_total) + token : token * heads + h;
}

/* All rows of a view: row_bytes each in the array; of sequence b as many as used(b) says (mask and bias rows end with kv_len_b). */
static void copy_rows(const struct store *to, const struct rows *r, struct array *a, int64_t row_bytes, heed_type per_key, bool bits)
{
    const struct heed_batch *batch = to->call->batch;
    for (int32_t b = 0; b < batch->batch; b++) {
        const struct sequence *s = &batch->sequences[b];
        int64_t used = row_bytes;
        if (bits) used = (s->kv_len + 7) / 8;
        if (per_key) used = per_key == HEED_I8 ? s->kv_len : type_row_bytes(per_key, s->kv_len);
        int32_t heads = r->heads > 0 ? r->heads : 1, q_len = r->one_token && s->q_len > 0 ? 1 : s->q_len;
        for (int32_t h = 0; h < heads; h++)
            for (int32_t i = 0; i < q_len; i++) /* a repeated row is copied again by each sequence: the longest leaves all of it */
                memcpy(a->data + row_index(to, r, b, h, i) * row_bytes, query_row(r->view, s, b, h, i), (size_t)used);
    }
}

static heed_status store_query(struct store *to, const char *role, const struct view *view, heed_type type, int32_t heads, int64_t elements)
{
    struct array a = {.role = role};
    type_words(type, &a);
    struct rows r = rows_of(to, view, heads, elements == 0, false);
    a.rank = rows_shape(to, &r, a.shape);
    int64_t row_bytes = type_row_bytes(type, elements ? elements : 1);
    if (elements) a.shape[a.rank++] = row_bytes / a.item;
    heed_status status = array_new(to, &a);
    if (status != HEED_OK) return status;
    copy_rows(to, &r, &a, row_bytes, 0, false);
    return array_done(to, &a);
}

/* mask, bias and key_range: rows of keys, repeated axes folded. heads 0: the tensor has none. */
static heed_status store_keys(struct store *to, const char *role, const struct view *view, struct array a, heed_type per_key, bool bits,
                              int32_t heads, int64_t elements)
{
    struct rows r = rows_of(to, view, heads, true, true);
    if (heads == 0) r.heads = 0;
    a.role = role;
    a.rank = rows_shape(to, &r, a.shape);
    a.shape[a.rank++] = elements;
    heed_status status = array_new(to, &a);
    if (status != HEED_OK) return status;
    copy_rows(to, &r, &a, elements * a.item, per_key, bits);
    return array_done(to, &a);
}

/* ---- key-like arrays ------------------------------------------------------ */

/* New numbers of the pages in use, in the order of the old ones: *map [page_max + 1], -1 = unused. Returns how many. */
static int64_t number_pages(const struct store *to, int32_t *map)
{
    const struct heed_batch *batch = to->call->batch;
    const int32_t page_size = to->call->plan->problem.page_size;
    int64_t pages = 0;
    for (int32_t n = 0; n <= batch->page_max; n++) map[n] = -1;
    for (int32_t b = 0; b < batch->batch; b++) {
        const struct sequence *s = &batch->sequences[b];
        for (int32_t n = 0; n < (s->kv_len + page_size - 1) / page_size; n++) map[batch->page_table[s->first_page + n]] = 0;
    }
    for (int32_t n = 0; n <= batch->page_max; n++)
        if (map[n] == 0) map[n] = (int32_t)(MUTANT(report_pages_merged) ? pages++ / 2 : pages++);
    return pages;
}

static heed_status pages_new(const struct store *to, int32_t **map, int64_t *pages)
{
    *map = memory_new(services_of(to), (size_t)to->call->batch->page_max + 2, sizeof **map);
    if (!*map) return out_of_memory(((size_t)to->call->batch->page_max + 2) * sizeof **map);
    *pages = number_pages(to, *map);
    return HEED_OK;
}

/* k, v (elements > 0) or their scales (0): dense [batch, heads, capacity], ragged [tokens, heads], paged [pages, page_size, heads]. */
static heed_status store_cache(struct store *to, const char *role, const struct view *view, heed_type type, int64_t elements)
{
    const struct problem *p = &to->call->plan->problem;
    const struct heed_batch *batch = to->call->batch;
    struct array a = {.role = role};
    int32_t *map = NULL;
    int64_t pages = 0, heads = p->kv_heads;
    type_words(type, &a);
    const int64_t row_bytes = type_row_bytes(type, elements ? elements : 1);
    heed_status status = p->page_size ? pages_new(to, &map, &pages) : HEED_OK;
    if (status != HEED_OK) return status;
    if (p->page_size) {
        a.rank = 3, a.shape[0] = pages, a.shape[1] = p->page_size, a.shape[2] = heads;
    } else if (batch->kv_packed) {
        a.rank = 2, a.shape[0] = batch->kv_total, a.shape[1] = heads;
    } else {
        a.rank = 3, a.shape[0] = batch->batch, a.shape[1] = heads, a.shape[2] = batch->kv_len_max;
    }
    if (elements) a.shape[a.rank++] = row_bytes / a.item;
    status = array_new(to, &a);
    for (int32_t b = 0; status == HEED_OK && b < batch->batch; b++) {
        const struct sequence *s = &batch->sequences[b];
        for (int32_t j = 0; j < s->kv_len; j++) {
            for (int32_t g = 0; g < p->kv_heads; g++) {
                int64_t index =
                    p->page_size
                        ? ((int64_t)map[batch->page_table[s->first_page + j / p->page_size]] * p->page_size + j % p->page_size) * heads + g
                    : batch->kv_packed ? (s->kv_token + j) * heads + g
                                       : ((int64_t)b * heads + g) * batch->kv_len_max + j;
                memcpy(a.data + index * row_bytes, key_row(view, s, batch->page_table, p->page_size, b, g, j), (size_t)row_bytes);
            }
        }
    }
    memory_delete(services_of(to), map);
    return status == HEED_OK ? array_done(to, &a) : status;
}

static heed_status store_page_table(struct store *to)
{
    const struct heed_batch *batch = to->call->batch;
    const int32_t page_size = to->call->plan->problem.page_size;
    const int64_t columns = (batch->kv_len_max + (int64_t)page_size - 1) / page_size;
    struct array a = {.role = "page_table", .dtype = "int32", .descr = "<i4", .item = 4, .rank = 2, .shape = {batch->batch, columns}};
    int32_t *map;
    int64_t pages;
    heed_status status = pages_new(to, &map, &pages);
    if (status != HEED_OK) return status;
    status = array_new(to, &a);
    for (int32_t b = 0; status == HEED_OK && b < batch->batch; b++) {
        const struct sequence *s = &batch->sequences[b];
        int32_t *row = (int32_t *)a.data + b * columns;
        for (int32_t n = 0; n < columns; n++)
            row[n] = n < (s->kv_len + page_size - 1) / page_size ? map[batch->page_table[s->first_page + n]] : -1;
    }
    memory_delete(services_of(to), map);
    return status == HEED_OK ? array_done(to, &a) : status;
}

static heed_status store_q_positions(struct store *to)
{
    const struct heed_batch *batch = to->call->batch;
    struct array a = {.role = "q_positions", .dtype = "int32", .descr = "<i4", .item = 4, .rank = 1, .shape = {batch->q_total}};
    if (!batch->q_packed) a.rank = 2, a.shape[0] = batch->batch, a.shape[1] = batch->q_len_max;
    heed_status status = array_new(to, &a);
    if (status != HEED_OK) return status;
    memcpy(a.data, batch->q_positions, (size_t)batch->q_total * sizeof(int32_t));
    return array_done(to, &a);
}

static heed_status store_per_head(struct store *to, const char *role, const struct view *view)
{
    struct array a = {.role = role, .dtype = "float32", .descr = "<f4", .item = 4, .rank = 1, .shape = {to->call->plan->problem.q_heads}};
    heed_status status = array_new(to, &a);
    if (status != HEED_OK) return status;
    memcpy(a.data, view->data, (size_t)a.shape[0] * 4);
    return array_done(to, &a);
}

/* ---- all of them ---------------------------------------------------------- */

heed_status store_inputs(struct store *to)
{
    const struct call *c = to->call;
    const struct problem *p = &c->plan->problem;
    const struct heed_batch *batch = c->batch;
    const int64_t keys = batch->kv_len_max;
    struct array mask = {.dtype = "bool", .descr = "|b1", .item = 1}, bias = {.item = 1};
    struct array bits = {.dtype = "bits", .descr = "|u1", .item = 1}, range = {.dtype = "int32", .descr = "<i4", .item = 4};
    if (p->flags & HEED_BIAS) type_words(p->bias_type, &bias);

    heed_status status = store_query(to, "q", &c->q, p->q_type, p->q_heads, p->head_dim);
    if (status == HEED_OK) status = store_cache(to, "k", &c->k, p->k_type, p->head_dim);
    if (status == HEED_OK) status = store_cache(to, "v", &c->v, p->v_type, p->v_head_dim);
    if (status == HEED_OK && c->k_scale.given) status = store_cache(to, "k_scale", &c->k_scale, HEED_F32, 0);
    if (status == HEED_OK && c->v_scale.given) status = store_cache(to, "v_scale", &c->v_scale, HEED_F32, 0);
    if (status == HEED_OK && p->page_size) status = store_page_table(to);
    if (status == HEED_OK && batch->q_positions) status = store_q_positions(to);
    if (status == HEED_OK && (p->flags & HEED_MASK_BOOL)) status = store_keys(to, "mask", &c->mask, mask, HEED_I8, false, p->q_heads, keys);
    if (status == HEED_OK && (p->flags & HEED_MASK_BITS))
        status = store_keys(to, "mask", &c->mask, bits, 0, true, p->q_heads, (keys + 7) / 8);
    if (status == HEED_OK && (p->flags & HEED_BIAS)) status = store_keys(to, "bias", &c->bias, bias, p->bias_type, false, p->q_heads, keys);
    if (status == HEED_OK && (p->flags & HEED_KEY_RANGE)) status = store_keys(to, "key_range", &c->key_range, range, 0, false, 0, 2);
    if (status == HEED_OK && (p->flags & HEED_ALIBI)) status = store_per_head(to, "alibi", &c->alibi);
    if (status == HEED_OK && (p->flags & HEED_SINKS)) status = store_per_head(to, "sinks", &c->sinks);
    return status;
}

/* What is stored of the outputs, side by side. */
struct results {
    struct array y, bound, lse, lse_bound, got, got_lse;
};

static void fill_results(struct store *to, struct results *all, const struct rows *o_rows, const struct rows *lse_rows,
                         struct reference_row *row)
{
    const struct call *c = to->call;
    const struct problem *p = &c->plan->problem;
    for (int32_t b = 0; b < c->batch->batch; b++) {
        const struct sequence *s = &c->batch->sequences[b];
        const struct arithmetic *arithmetic = &c->plan->row[sequence_kind(c->plan, s->q_len)]->arithmetic;
        for (int32_t h = 0; h < p->q_heads; h++) {
            for (int32_t i = 0; i < s->q_len; i++) {
                int64_t at = row_index(to, o_rows, b, h, i), at_lse = row_index(to, lse_rows, b, h, i);
                reference_compute(c, b, h, i, row);
                bound_row(c, b, h, i, row, arithmetic, (double *)all->bound.data + at * p->v_head_dim,
                          (double *)all->lse_bound.data + at_lse);
                memcpy((double *)all->y.data + at * p->v_head_dim, row->o, (size_t)p->v_head_dim * sizeof(double));
                ((double *)all->lse.data)[at_lse] = row->lse_out;
                row_to_f32(p->o_type, query_row(&c->o, s, b, h, i), 1.0f, (float *)all->got.data + at * p->v_head_dim, p->v_head_dim);
                if (c->lse.given) ((float *)all->got_lse.data)[at_lse] = *(const float *)query_row(&c->lse, s, b, h, i);
            }
        }
    }
}

heed_status store_outputs(struct store *to)
{
    const struct call *c = to->call;
    const struct problem *p = &c->plan->problem;
    struct results all = {.y = {.role = "Y"},
                          .bound = {.role = "bound"},
                          .lse = {.role = "lse"},
                          .lse_bound = {.role = "lse_bound"},
                          .got = {.role = "got"},
                          .got_lse = {.role = "got_lse"}};
    struct array *arrays[6] = {&all.y, &all.bound, &all.lse, &all.lse_bound, &all.got, &all.got_lse};
    struct rows o_rows = rows_of(to, &c->o, p->q_heads, false, false), lse_rows = rows_of(to, &c->o, p->q_heads, true, false);
    struct reference_row *row = reference_row_new(services_of(to), p, c->batch->kv_len_max);
    heed_status status = row ? HEED_OK : out_of_memory(reference_row_bytes(p, c->batch->kv_len_max));
    for (int n = 0; n < 6 && status == HEED_OK; n++) {
        bool per_row = arrays[n] == &all.lse || arrays[n] == &all.lse_bound || arrays[n] == &all.got_lse, single = n >= 4;
        arrays[n]->dtype = single ? "float32" : "float64";
        arrays[n]->descr = single ? "<f4" : "<f8";
        arrays[n]->item = single ? 4 : 8;
        arrays[n]->rank = rows_shape(to, per_row ? &lse_rows : &o_rows, arrays[n]->shape);
        if (!per_row) arrays[n]->shape[arrays[n]->rank++] = p->v_head_dim;
        status = array_new(to, arrays[n]);
    }
    if (status == HEED_OK) fill_results(to, &all, &o_rows, &lse_rows, row);
    for (int n = 0; n < 6; n++) {
        if (status == HEED_OK && (n < 5 || c->lse.given)) status = array_done(to, arrays[n]);
        memory_delete(services_of(to), arrays[n]->data);
    }
    reference_row_delete(services_of(to), row);
    return status;
}
