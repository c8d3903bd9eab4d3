/* SPDX-License-Identifier: MIT
 * cases_heed.c - cases of the formats heed-case/1 and heed-case/2 (doc/cases.md): inputs into an instance of our own layout, stored results
 * in the order of rows (b, h, i).
 */
#include "cases_parts.h"
#include "dtype.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool bad(struct stored_case *stored, char *message, size_t capacity, const char *what)
{
    message_set(message, capacity, "%s: %s", stored->folder, what);
    return false;
}

/* ---- the descriptor -------------------------------------------------------------- */

static bool type_of_name(const char *name, heed_type *type)
{
    static const struct {
        const char *name;
        heed_type type;
    } names[] = {{"float32", HEED_F32}, {"float16", HEED_F16}, {"bfloat16", HEED_BF16}, {"int8", HEED_I8}, {"q8_0", HEED_Q8_0},
                 {"q4_0", HEED_Q4_0}, {"f8_e4m3", HEED_F8_E4M3}, {"f8_e5m2", HEED_F8_E5M2}};
    for (size_t n = 0; n < sizeof names / sizeof *names; n++)
        if (!strcmp(name, names[n].name)) return *type = names[n].type, true;
    return type_from_name(name, strlen(name), type);
}

static uint64_t flag_if(bool set, uint64_t flag) { return set ? flag : 0; }

static uint64_t flags_of(const struct case_files *files, bool *good)
{
    const json_t *root = files->root;
    const struct case_array *mask = files_array(files, "mask");
    const int32_t stage = key_int(root, "scores_stage", -1, good);
    return flag_if(key_bool(root, "causal", false, good), HEED_CAUSAL) |
           flag_if(key_bool(root, "bias_first", false, good), HEED_BIAS_FIRST) |
           flag_if(key_bool(root, "lse_base2", false, good), HEED_LSE_BASE2) |
           flag_if(key_bool(root, "lse_without_sink", false, good), HEED_LSE_WITHOUT_SINK) |
           flag_if(key_bool(root, "invariant", false, good), HEED_INVARIANT) |
           flag_if(key_bool(root, "write_lse", true, good), HEED_WRITE_LSE) | flag_if(key_bool(root, "key_sums", false, good), HEED_WRITE_KEY_SUMS) |
           flag_if(key_bool(root, "key_sums_all_heads", false, good), HEED_KEY_SUMS_ALL_HEADS) | flag_if(stage >= 0, HEED_WRITE_SCORES) |
           flag_if(mask && strcmp(mask->dtype, "bits"), HEED_MASK_BOOL) | flag_if(mask && !strcmp(mask->dtype, "bits"), HEED_MASK_BITS) |
           flag_if(files_array(files, "bias"), HEED_BIAS) | flag_if(files_array(files, "alibi"), HEED_ALIBI) |
           flag_if(files_array(files, "sinks"), HEED_SINKS) | flag_if(files_array(files, "key_range"), HEED_KEY_RANGE);
}

static bool read_desc(const struct case_files *files, struct problem_line *line)
{
    const json_t *root = files->root;
    const struct case_array *q = files_array(files, "q"), *k = files_array(files, "k"), *v = files_array(files, "v");
    const struct case_array *bias = files_array(files, "bias");
    bool good = true;
    int32_t window[2] = {-1, -1};
    heed_desc *d = &line->desc;
    *d = (heed_desc){.struct_size = sizeof *d};
    line->batch = key_int(root, "batch", -1, &good);
    d->q_heads = key_int(root, "q_heads", 0, &good);
    d->kv_heads = key_int(root, "kv_heads", 0, &good);
    d->head_dim = key_int(root, "head_dim", 0, &good);
    d->v_head_dim = key_int(root, "v_head_dim", 0, &good);
    d->page_size = key_int(root, "page_size", 0, &good);
    d->scale = (float)key_number(root, "scale", 0, &good);
    d->softcap = (float)key_number(root, "softcap", 0, &good);
    d->flags = flags_of(files, &good);
    if (d->flags & HEED_WRITE_SCORES) d->scores_stage = key_int(root, "scores_stage", 0, &good);
    line->srows = key_int(root, "score_rows", 0, &good);
    const json_t *heads = json_object_get(root, "score_heads");
    line->shead_count = heads ? (int32_t)json_array_size(heads) : 0;
    if (line->shead_count > LINE_HEADS || (heads && !key_ints(root, "score_heads", line->sheads, line->shead_count))) good = false;
    if (json_object_get(root, "window") && !key_ints(root, "window", window, 2)) good = false;
    if (window[0] != -1 || window[1] != -1) {
        d->flags |= HEED_WINDOW;
        d->window_left = window[0];
        d->window_right = window[1];
    }
    if (!q || !k || !v) return false;
    good = good && type_of_name(q->dtype, &d->q_type) && type_of_name(k->dtype, &d->k_type) && type_of_name(v->dtype, &d->v_type);
    const char *o_type = key_text(root, "o_type", "f32");
    good = good && type_from_name(o_type, strlen(o_type), &d->o_type);
    if (bias) good = good && type_of_name(bias->dtype, &d->bias_type);
    return good && line->batch >= 0 && line->batch <= 1 << 20;
}

/* ---- lengths ---------------------------------------------------------------------- */

static int32_t *sums_of(const int32_t *lens, int32_t batch)
{
    int32_t *sums = calloc((size_t)batch + 1, sizeof *sums);
    for (int32_t b = 0; sums && b < batch; b++) sums[b + 1] = sums[b] + lens[b];
    return sums;
}

static int32_t most_of(const int32_t *lens, int32_t batch)
{
    int32_t most = 0;
    for (int32_t b = 0; b < batch; b++)
        if (lens[b] > most) most = lens[b];
    return most;
}

static int32_t *ints_of(const struct case_array *array, int64_t count)
{
    if (array->npy.type != NPY_I4 || array->npy.count != count) return NULL;
    int32_t *copy = malloc((size_t)(count ? count : 1) * sizeof *copy);
    if (copy && count) memcpy(copy, array->npy.data, (size_t)count * sizeof *copy);
    return copy;
}

static bool read_pages(struct instance *in, const struct case_files *files)
{
    const struct case_array *table = files_array(files, "page_table"), *k = files_array(files, "k");
    const int32_t batch = in->line.batch, page_size = in->problem.page_size;
    if (!table || table->npy.rank != 2 || table->npy.shape[0] != batch || k->npy.rank != 4) return false;
    const int64_t columns = table->npy.shape[1];
    in->page_table = ints_of(table, batch * columns);
    if (!in->page_table || columns > INT32_MAX || k->npy.shape[0] > INT32_MAX || k->npy.shape[1] != page_size) return false;
    for (int32_t b = 0; b < batch; b++)
        for (int64_t n = 0; n < ((int64_t)in->kv_lens[b] + page_size - 1) / page_size; n++)
            if (n >= columns || in->page_table[b * columns + n] < 0 || in->page_table[b * columns + n] >= k->npy.shape[0]) return false;
    in->lengths.page_table = in->page_table;
    in->lengths.page_table_stride = (int32_t)columns;
    in->shape[ROLE_K].batches = (int32_t)k->npy.shape[0];
    return true;
}

static bool read_positions(struct instance *in, const struct case_files *files)
{
    const int32_t batch = in->line.batch;
    const struct case_array *each = files_array(files, "q_positions");
    if (each) {
        in->lengths.q_positions = in->q_positions = ints_of(each, in->q_total);
        if (!in->q_positions) return false;
    } else {
        in->lengths.q_position = in->q_position = calloc((size_t)batch + 1, sizeof *in->q_position);
        if (!in->q_position || !key_ints(files->root, "q_position", in->q_position, batch)) return false;
    }
    if (!json_object_get(files->root, "kv_first")) return true;
    in->lengths.kv_first = in->kv_first = calloc((size_t)batch + 1, sizeof *in->kv_first);
    return in->kv_first && key_ints(files->root, "kv_first", in->kv_first, batch);
}

/* No length goes beyond what the arrays hold: from here on sizes are bounded by the files. */
static bool lengths_fit(const struct instance *in, const struct case_files *files, bool q_ragged, const char *kv_layout)
{
    const struct npy *q = &files_array(files, "q")->npy, *k = &files_array(files, "k")->npy, *v = &files_array(files, "v")->npy;
    int64_t q_total = 0, kv_total = 0;
    if (q->rank != (q_ragged ? 3 : 4) || k->rank != v->rank || k->rank != (strcmp(kv_layout, "ragged") ? 4 : 3)) return false;
    for (int32_t b = 0; b < in->line.batch; b++) {
        if (in->q_lens[b] < 0 || in->kv_lens[b] < 0 || (!q_ragged && in->q_lens[b] != in->q_lens[0])) return false;
        q_total += in->q_lens[b];
        kv_total += in->kv_lens[b];
        if (!strcmp(kv_layout, "dense") && (in->kv_lens[b] > k->shape[2] || in->kv_lens[b] > v->shape[2])) return false;
    }
    if (q_total > INT32_MAX || kv_total > INT32_MAX) return false;
    if (!strcmp(kv_layout, "ragged") && (k->shape[0] != kv_total || v->shape[0] != kv_total)) return false;
    return q_ragged ? q->shape[0] == q_total : q->shape[0] == in->line.batch && (q_total == 0 || q->shape[2] == in->q_lens[0]);
}

static bool read_lengths(struct instance *in, const struct case_files *files)
{
    const int32_t batch = in->line.batch;
    const bool q_ragged = !strcmp(key_text(files->root, "q_layout", "dense"), "ragged");
    const char *kv_layout = key_text(files->root, "kv_layout", "dense");
    if (!lengths_fit(in, files, q_ragged, kv_layout)) return false;
    for (int32_t b = 0; b < batch; b++) in->q_total += in->q_lens[b];
    in->line.q_len = most_of(in->q_lens, batch);
    in->line.kv_len = most_of(in->kv_lens, batch);
    in->line.desc.max_batch = batch;
    in->line.desc.max_q_len = in->line.q_len;
    in->line.desc.max_kv_len = in->line.kv_len;
    in->lengths = (heed_lengths){.struct_size = sizeof in->lengths, .batch = batch, .q_len = in->line.q_len, .kv_len = in->line.kv_len};
    in->lengths.score_rows = in->line.srows;
    in->lengths.score_heads = in->line.shead_count ? in->line.sheads : NULL;
    in->lengths.score_head_count = in->line.shead_count;
    if (q_ragged && !(in->lengths.q_start = in->q_start = sums_of(in->q_lens, batch))) return false;
    if (!strcmp(kv_layout, "ragged"))
        in->lengths.kv_start = in->kv_start = sums_of(in->kv_lens, batch);
    else
        in->lengths.kv_lens = in->kv_lens;
    if (!strcmp(kv_layout, "ragged") && !in->kv_start) return false;
    if (!strcmp(kv_layout, "paged") && (in->problem.page_size < 1 || !read_pages(in, files))) return false;
    return read_positions(in, files);
}

/* ---- rows --------------------------------------------------------------------------- */

/* q: dense [b, heads, tokens, dim], ragged [tokens, heads, dim]. */
static bool copy_queries(struct instance *in, const struct case_array *q, bool zero)
{
    const int64_t row = in->shape[ROLE_Q].row_bytes;
    const int32_t heads = in->problem.q_heads;
    if ((int64_t)q->npy.bytes != in->q_total * heads * row || q->npy.shape[1] != heads) return false;
    for (int32_t b = 0; b < in->line.batch; b++)
        for (int32_t h = 0; h < heads; h++)
            for (int32_t i = 0; i < in->q_lens[b]; i++) {
                const int64_t from = in->q_start ? (int64_t)(in->q_start[b] + i) * heads + h : ((int64_t)b * heads + h) * in->q_lens[b] + i;
                unsigned char *to = instance_query_row(in, ROLE_Q, b, h, i);
                memcpy(to, (const unsigned char *)q->npy.data + from * row, (size_t)row);
                if (zero) memset(to, 0, (size_t)row);
            }
    return true;
}

/* k, v and their scales: dense [b, heads, capacity, dim], ragged [tokens, heads, dim], paged [pages, page_size, heads, dim]. */
static bool copy_keys(struct instance *in, const struct case_array *array, enum role role)
{
    const struct shape *s = &in->shape[role];
    const unsigned char *from = array->npy.data;
    const int32_t heads = in->problem.kv_heads;
    const bool dense = !in->page_table && !in->kv_start;
    const int32_t heads_at = dense ? 1 : in->page_table ? 2 : 1;
    if (array->npy.rank <= heads_at || array->npy.shape[heads_at] != heads) return false;
    const int64_t row = s->row_bytes, capacity = dense && array->npy.rank >= 3 ? array->npy.shape[2] : 0;
    int64_t rows = (int64_t)heads * (dense ? in->line.batch * capacity : (int64_t)s->batches * s->tokens);
    if ((int64_t)array->npy.bytes != rows * row || (dense && capacity < in->line.kv_len)) return false;
    for (int32_t n = 0; n < s->batches; n++)
        for (int32_t g = 0; g < heads; g++)
            for (int32_t t = 0; t < (dense ? in->kv_lens[n] : s->tokens); t++) {
                const int64_t at = dense ? ((int64_t)n * heads + g) * capacity + t : ((int64_t)n * s->tokens + t) * heads + g;
                memcpy(in->block[s->home].data + s->start + n * s->batch + t * s->token + g * s->head, from + at * row, (size_t)row);
            }
    return true;
}

bool broadcast_value(const struct case_array *array, const int64_t place[4], int32_t places, int64_t keys, double *value)
{
    const struct npy *npy = &array->npy;
    const bool bits = !strcmp(array->dtype, "bits");
    int64_t at = 0, j = place[places - 1];
    for (int32_t axis = 0; axis < npy->rank; axis++) {
        const int32_t of = places - npy->rank + axis;
        int64_t index = of < 0 ? 0 : place[of];
        if (axis == npy->rank - 1) {
            if (bits) index = j / 8;
            if (npy->shape[axis] == 1 && keys != 1 && !bits) index = 0;
            if (index >= npy->shape[axis]) return false;
        } else if (npy->shape[axis] == 1)
            index = 0;
        at = at * npy->shape[axis] + index;
    }
    *value = array_value(array, at);
    if (bits) *value = ((int)*value >> (j % 8)) & 1;
    return true;
}

/* Masks and biases, element by element; what the stored array is too short for is hidden. */
static void copy_elements(struct instance *in, const struct case_array *array, enum role role)
{
    const struct problem *p = &in->problem;
    const bool bits = role == ROLE_MASK && p->flags & HEED_MASK_BITS;
    for (int32_t b = 0; b < in->line.batch; b++)
        for (int32_t h = 0; h < p->q_heads; h++)
            for (int32_t i = 0; i < in->q_lens[b]; i++) {
                unsigned char *row = instance_query_row(in, role, b, h, i);
                for (int32_t j = 0; j < in->kv_lens[b]; j++) {
                    const int64_t dense[4] = {b, h, i, j}, ragged[4] = {0, h, in->q_start ? in->q_start[b] + i : 0, j};
                    double value = role == ROLE_MASK ? 0 : -INFINITY;
                    broadcast_value(array, in->q_start ? ragged : dense, 4, in->line.kv_len, &value);
                    const float x = (float)value;
                    if (role == ROLE_BIAS) row_from_f32(p->bias_type, &x, row + j * type_row_bytes(p->bias_type, 1), NULL, 1);
                    if (role == ROLE_MASK && !bits) row[j] = value != 0;
                    if (bits) row[j / 8] = (unsigned char)((row[j / 8] & ~(1u << (j % 8))) | (unsigned)(value != 0) << (j % 8));
                }
            }
}

/* dense broadcasts to [batch, q_len, 2], ragged to [tokens, 2]. */
static bool copy_ranges(struct instance *in, const struct case_array *array)
{
    for (int32_t b = 0; b < in->line.batch; b++)
        for (int32_t i = 0; i < in->q_lens[b]; i++)
            for (int32_t n = 0; n < 2; n++) {
                const int64_t place[4] = {0, in->q_start ? 0 : b, in->q_start ? in->q_start[b] + i : i, n};
                double value;
                if (!broadcast_value(array, place, 4, 2, &value)) return false;
                ((int32_t *)instance_query_row(in, ROLE_KEY_RANGE, b, 0, i))[n] = (int32_t)value;
            }
    return true;
}

static bool copy_table(struct instance *in, const struct case_array *array, enum role role)
{
    if (!array) return true;
    if (array->npy.type != NPY_F4 || array->npy.count != in->problem.q_heads) return false;
    memcpy(in->block[role].data + in->shape[role].start, array->npy.data, array->npy.bytes);
    return true;
}

static bool copy_inputs(struct instance *in, const struct case_files *files, bool zero_q)
{
    const struct case_array *mask = files_array(files, "mask"), *bias = files_array(files, "bias"), *range = files_array(files, "key_range");
    const struct case_array *k_scale = files_array(files, "k_scale"), *v_scale = files_array(files, "v_scale");
    if (mask) copy_elements(in, mask, ROLE_MASK);
    if (bias) copy_elements(in, bias, ROLE_BIAS);
    return copy_queries(in, files_array(files, "q"), zero_q) && copy_keys(in, files_array(files, "k"), ROLE_K) &&
           copy_keys(in, files_array(files, "v"), ROLE_V) && (!k_scale || copy_keys(in, k_scale, ROLE_K_SCALE)) &&
           (!v_scale || copy_keys(in, v_scale, ROLE_V_SCALE)) && (!range || copy_ranges(in, range)) &&
           copy_table(in, files_array(files, "alibi"), ROLE_ALIBI) && copy_table(in, files_array(files, "sinks"), ROLE_SINKS);
}

/* ---- results ------------------------------------------------------------------------- */

int64_t rows_before(const struct instance *in, int32_t b)
{
    int64_t rows = 0;
    for (int32_t n = 0; n < b; n++) rows += (int64_t)in->q_lens[n] * in->problem.q_heads;
    return rows;
}

/* Stored Y, lse and their bounds as rows (b, h, i) of `dim` numbers. lse when ragged: [heads, tokens]. */
static bool take_result(const struct instance *in, const struct case_array *array, int32_t dim, bool heads_first, double **to)
{
    const int32_t heads = in->problem.q_heads;
    *to = NULL;
    if (!array) return true;
    if (array->npy.count != in->q_total * heads * dim) return false;
    double *next = *to = malloc((size_t)(array->npy.count + 1) * sizeof *next);
    if (!next) return false;
    for (int32_t b = 0; b < in->line.batch; b++)
        for (int32_t h = 0; h < heads; h++)
            for (int32_t i = 0; i < in->q_lens[b]; i++) {
                int64_t from = ((int64_t)b * heads + h) * in->q_lens[b] + i;
                if (in->q_start) from = heads_first ? h * in->q_total + in->q_start[b] + i : (int64_t)(in->q_start[b] + i) * heads + h;
                for (int32_t d = 0; d < dim; d++) *next++ = array_value(array, from * dim + d);
            }
    return true;
}

static bool take_results(struct stored_case *stored, const struct case_files *files)
{
    const struct instance *in = stored->instance;
    const int32_t dim = in->problem.v_head_dim;
    return take_result(in, files_array(files, "Y"), dim, false, &stored->o) &&
           take_result(in, files_array(files, "bound"), dim, false, &stored->o_bound) &&
           take_result(in, files_array(files, "lse"), 1, true, &stored->lse) &&
           take_result(in, files_array(files, "lse_bound"), 1, true, &stored->lse_bound);
}

static void take_flags(struct stored_case *stored, const json_t *root)
{
    size_t n;
    json_t *flag;
    bool good = true;
    stored->poison = key_bool(root, "poison", false, &good);
    json_array_foreach(json_object_get(root, "exact"), n, flag)
    {
        const char *name = json_is_string(flag) ? json_string_value(flag) : "";
        stored->empty_rows |= !strcmp(name, "empty_rows");
        stored->zero_pattern |= !strcmp(name, "zero_pattern");
        stored->uniform |= !strcmp(name, "uniform");
    }
}

bool case_read_heed(struct stored_case *stored, const struct case_files *files, enum instance_variant variant, char *message, size_t capacity)
{
    struct problem_line line = {.batch = 0, .seed = 1};
    snprintf(line.text, sizeof line.text, "%s", stored->name);
    if (!read_desc(files, &line)) return bad(stored, message, capacity, "case.json lacks a key, or one is out of range");
    const json_t *scale = json_object_get(files->root, "scale");
    const bool zero_scale = json_is_number(scale) && json_number_value(scale) == 0; /* 0 in a descriptor means 1/sqrt(d): pass q = 0 */
    for (const char *c = stored->name; *c; c++) line.seed = line.seed * 31 + (unsigned char)*c; /* other gaps in every case */
    take_flags(stored, files->root);

    struct instance *in = stored->instance = instance_begin(&line, variant, message, capacity);
    if (!in) return false;
    in->stored = true;
    in->shape[ROLE_K_SCALE].given = files_array(files, "k_scale") != NULL;
    in->shape[ROLE_V_SCALE].given = files_array(files, "v_scale") != NULL;
    if (!key_ints(files->root, "q_len", in->q_lens, line.batch) || !key_ints(files->root, "kv_len", in->kv_lens, line.batch) ||
        !read_lengths(in, files))
        return bad(stored, message, capacity, "lengths, positions or pages do not fit");
    if (!instance_lay_out(in, message, capacity)) return false;
    if (!copy_inputs(in, files, zero_scale)) return bad(stored, message, capacity, "an input has not the shape of its role");
    if (!take_results(stored, files)) return bad(stored, message, capacity, "an output has not the shape of its role");
    if (!instance_seal(in)) return bad(stored, message, capacity, "no memory");
    return true;
}
