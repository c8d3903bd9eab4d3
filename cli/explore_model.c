/* SPDX-License-Identifier: MIT
 * explore_model.c - the numbers behind `heed explore`. Nothing is computed here that the library computes: dot, cosine and plain score come from
 * heed_dot(), heed_cosine() and heed_score(), logits, weights and outputs from rows of the table.
 */
#include "explore_model.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* score / T before the softmax; T = 1 is attention as it is. */
const float explore_temperatures[EXPLORE_TEMPERATURES] = {0.1f, 0.2f, 0.3f, 0.5f, 0.7f, 1, 1.5f, 2, 3, 5, 10};

static void labels_drop(char **labels, int32_t count)
{
    for (int32_t n = 0; labels && n < count; n++) free(labels[n]);
    free(labels);
}

void explore_free(struct explore *explore)
{
    labels_drop(explore->q_labels, explore->queries);
    labels_drop(explore->k_labels, explore->keys);
    float *const arrays[] = {explore->q, explore->k, explore->v, explore->scores, explore->weights, explore->o};
    for (size_t n = 0; n < sizeof arrays / sizeof *arrays; n++) free(arrays[n]);
    free(explore->order);
    *explore = (struct explore){.context = explore->context, .kernel = explore->kernel};
}

static float *zeros(int32_t a, int32_t b, int32_t c) { return calloc((size_t)a * (size_t)b * (size_t)c, sizeof(float)); }

bool explore_shape(struct explore *explore, int32_t queries, int32_t keys, int32_t q_heads, int32_t kv_heads, int32_t dim, int32_t v_dim)
{
    explore_free(explore);
    explore->queries = queries, explore->keys = keys, explore->q_heads = q_heads, explore->kv_heads = kv_heads;
    explore->dim = dim, explore->v_dim = v_dim, explore->scaled = true, explore->temperature = EXPLORE_PLAIN;
    explore->q = zeros(queries, q_heads, dim);
    explore->k = zeros(keys, kv_heads, dim);
    explore->v = zeros(keys, kv_heads, v_dim);
    explore->scores = zeros(queries, keys, 1);
    explore->weights = zeros(queries, keys, 1);
    explore->o = zeros(queries, v_dim, 1);
    explore->order = calloc((size_t)keys, sizeof *explore->order);
    const bool good = explore->q && explore->k && explore->v && explore->scores && explore->weights && explore->o && explore->order;
    if (!good) explore_free(explore);
    return good;
}

static int32_t kv_head(const struct explore *explore) { return explore->head / (explore->q_heads / explore->kv_heads); }

int32_t explore_row_length(const struct explore *explore, enum part part) { return part == PART_V ? explore->v_dim : explore->dim; }

float *explore_row(const struct explore *explore, enum part part, int32_t token)
{
    float *const arrays[] = {[PART_Q] = explore->q, [PART_K] = explore->k, [PART_V] = explore->v};
    const int64_t heads = part == PART_Q ? explore->q_heads : explore->kv_heads, head = part == PART_Q ? explore->head : kv_head(explore);
    return arrays[part] + (token * heads + head) * explore_row_length(explore, part);
}

/* ---- what the library makes of them --------------------------------------- */

/* A head of [tokens][heads][dim]. */
static heed_tensor head_of(const struct explore *explore, enum part part, int32_t tokens)
{
    const int64_t heads = part == PART_Q ? explore->q_heads : explore->kv_heads, dim = explore_row_length(explore, part);
    const uint64_t before = (uint64_t)((part == PART_Q ? explore->head : kv_head(explore)) * dim);
    return (heed_tensor){.data = explore_row(explore, part, 0), .bytes = ((uint64_t)(tokens * heads * dim) - before) * sizeof(float),
                         .token_stride = heads * dim};
}

static heed_tensor grid(float *data, int32_t rows, int32_t columns)
{
    return (heed_tensor){.data = data, .bytes = (uint64_t)rows * (uint64_t)columns * sizeof(float), .token_stride = columns};
}

/* scale: 0 is the library's own 1 / sqrt(dim). */
static float scale_of(const struct explore *explore)
{
    const float temperature = explore_temperatures[explore->temperature];
    if (explore->scaled && explore->temperature == EXPLORE_PLAIN) return 0;
    return (explore->scaled ? 1 / sqrtf((float)explore->dim) : 1) / temperature;
}

static heed_desc desc_of(const struct explore *explore, int32_t v_dim)
{
    return (heed_desc){.struct_size = sizeof(heed_desc), .q_heads = 1, .head_dim = explore->dim, .v_head_dim = v_dim, .scale = scale_of(explore),
                       .flags = explore->causal ? HEED_CAUSAL : 0};
}

static heed_lengths lengths_of(const struct explore *explore)
{
    return (heed_lengths){.struct_size = sizeof(heed_lengths), .batch = 1, .q_len = explore->queries, .kv_len = explore->keys};
}

static heed_tensors tensors_of(const struct explore *explore)
{
    return (heed_tensors){.struct_size = sizeof(heed_tensors), .q = head_of(explore, PART_Q, explore->queries),
                          .k = head_of(explore, PART_K, explore->keys), .v = head_of(explore, PART_V, explore->keys),
                          .o = grid(explore->o, explore->queries, explore->v_dim)};
}

static heed_status run_row(const struct explore *explore, const char *row, const heed_desc *desc, const heed_tensors *tensors)
{
    const heed_lengths lengths = lengths_of(explore);
    heed_plan *plan = NULL;
    heed_batch *batch = NULL;
    heed_tensor workspace = {0};
    heed_status status = heed_plan_create(explore->context, 0, desc, row, &plan);
    if (status == HEED_OK) status = heed_batch_create(plan, &lengths, &batch);
    if (status == HEED_OK) {
        const size_t bytes = (heed_batch_workspace_size(batch) + 63) / 64 * 64;
        workspace = (heed_tensor){.data = bytes ? aligned_alloc(64, bytes) : NULL, .bytes = bytes};
        status = bytes && !workspace.data ? HEED_OUT_OF_MEMORY : heed_run(plan, batch, tensors, bytes ? &workspace : NULL);
    }
    free(workspace.data);
    heed_batch_destroy(batch);
    heed_plan_destroy(plan);
    return status;
}

/* By the table's last row, the definition in double. */
static heed_status by_definition(struct explore *explore, int32_t stage, float *scores)
{
    heed_desc desc = desc_of(explore, explore->v_dim);
    heed_tensors tensors = tensors_of(explore);
    desc.flags |= HEED_WRITE_SCORES;
    desc.scores_stage = stage;
    tensors.scores = grid(scores, explore->queries, explore->keys);
    return run_row(explore, "reference", &desc, &tensors);
}

/* A fast row never holds its weights in one place, and what writes scores behind it is a row of its own. Values that are the identity, a column for
 * each key, bring the row's own weights out as its output:
 *     o[i][c] = sum_j w[i][j] (j == c) = w[i][c] */
static heed_status by_kernel(struct explore *explore)
{
    const int32_t keys = explore->keys;
    const heed_desc desc = desc_of(explore, explore->v_dim), wide = desc_of(explore, keys);
    heed_tensors tensors = tensors_of(explore);
    heed_status status = run_row(explore, explore->kernel, &desc, &tensors);
    float *identity = zeros(keys, keys, 1);
    for (int32_t j = 0; identity && j < keys; j++) identity[j * keys + j] = 1;
    tensors.v = grid(identity, keys, keys);
    tensors.o = grid(explore->weights, explore->queries, keys);
    if (status == HEED_OK) status = identity ? run_row(explore, explore->kernel, &wide, &tensors) : HEED_OUT_OF_MEMORY;
    free(identity);
    return status;
}

/* order: keys by falling weight for the query, equal ones by number. Insertion: at most EXPLORE_MAX_TOKENS. As long as the cursor is on the query,
 * the first of them is looked at. */
static void sort_keys(struct explore *explore)
{
    const float *weights = explore->weights + (int64_t)explore->cursor.query * explore->keys;
    for (int32_t n = 0; n < explore->keys; n++) {
        int32_t at = n;
        for (; explore->sorted && at > 0 && weights[explore->order[at - 1]] < weights[n]; at--) explore->order[at] = explore->order[at - 1];
        explore->order[at] = n;
    }
    if (explore->sorted && explore->cursor.part == PART_Q) explore->cursor.key = explore->order[0];
}

heed_status explore_compute(struct explore *explore)
{
    heed_status status = by_definition(explore, 2, explore->scores);
    if (status == HEED_OK) status = explore->kernel ? by_kernel(explore) : by_definition(explore, 3, explore->weights);
    if (status == HEED_OK) sort_keys(explore);
    return status;
}

struct relation explore_relation(const struct explore *explore, int32_t query, int32_t key)
{
    const float *q = explore_row(explore, PART_Q, query), *k = explore_row(explore, PART_K, key);
    const size_t dim = (size_t)explore->dim, at = (size_t)query * (size_t)explore->keys + (size_t)key;
    struct relation relation = {.dot = heed_dot(q, k, dim), .cosine = heed_cosine(q, k, dim), .plain_score = heed_score(q, k, dim),
                                .score = explore->scores[at], .weight = explore->weights[at]};
    const double cosine = fmax(-1, fmin(1, relation.cosine)); /* rounding may lead beyond 1 */
    const bool zero = heed_norm_squared(q, dim) == 0 || heed_norm_squared(k, dim) == 0;
    relation.angle = zero ? (double)NAN : acos(cosine) * 180 / acos(-1);
    relation.hidden = isinf(relation.score) && relation.score < 0;
    return relation;
}

int32_t explore_rank(const struct explore *explore, int32_t key)
{
    int32_t rank = 0;
    while (rank < explore->keys - 1 && explore->order[rank] != key) rank++;
    return rank;
}

int32_t explore_strongest(const struct explore *explore, int32_t query)
{
    const float *weights = explore->weights + (int64_t)query * explore->keys;
    int32_t best = 0;
    for (int32_t j = 1; j < explore->keys; j++)
        if (weights[j] > weights[best]) best = j;
    return weights[best] > 0 ? best : -1;
}

const char *explore_label(char *const *labels, int32_t n, char text[16])
{
    if (labels) return labels[n];
    snprintf(text, 16, "%d", (int)n);
    return text;
}

/* ---- what a key on the keyboard does --------------------------------------- */

static int32_t clamp(int32_t x, int32_t low, int32_t high) { return x < low ? low : x > high ? high : x; }

/* The rows from top to bottom: the query, the keys as shown, the values as shown. */
static void move_rows(struct explore *explore, int32_t by)
{
    struct cursor *cursor = &explore->cursor;
    const int32_t rank = explore_rank(explore, cursor->key), keys = explore->keys;
    int32_t row = cursor->part == PART_Q ? 0 : 1 + rank + (cursor->part == PART_V ? keys : 0);
    row = clamp(row + by, 0, 2 * keys);
    cursor->part = row == 0 ? PART_Q : row <= keys ? PART_K : PART_V;
    if (row > 0) cursor->key = explore->order[(row - 1) % keys];
    cursor->d = clamp(cursor->d, 0, explore_row_length(explore, cursor->part) - 1);
}

/* Kept to thousandths: ten steps of 0.1 are then exactly one step of 1 on the screen and in the sum. Within what a column can show. */
static void set_number(struct explore *explore, float value)
{
    const struct cursor *cursor = &explore->cursor;
    float *row = explore_row(explore, cursor->part, cursor->part == PART_Q ? cursor->query : cursor->key);
    row[cursor->d] = fmaxf(-99, fminf(99, roundf(value * 1000) / 1000)) + 0.0f;
}

static float number(const struct explore *explore)
{
    const struct cursor *cursor = &explore->cursor;
    return explore_row(explore, cursor->part, cursor->part == PART_Q ? cursor->query : cursor->key)[cursor->d];
}

/* True: something changed that must be computed anew. */
static bool change(struct explore *explore, enum action action)
{
    struct cursor *cursor = &explore->cursor;
    const int32_t temperature = explore->temperature, head = explore->head;
    switch (action) {
    case ACTION_MORE: set_number(explore, number(explore) + 0.1f); return true;
    case ACTION_LESS: set_number(explore, number(explore) - 0.1f); return true;
    case ACTION_MUCH_MORE: set_number(explore, number(explore) + 1); return true;
    case ACTION_MUCH_LESS: set_number(explore, number(explore) - 1); return true;
    case ACTION_ZERO: set_number(explore, 0); return true;
    case ACTION_NEGATE: set_number(explore, -number(explore)); return true;
    case ACTION_CAUSAL: explore->causal = !explore->causal; return true;
    case ACTION_SCALED: explore->scaled = !explore->scaled; return true;
    case ACTION_WARMER: explore->temperature = clamp(temperature + 1, 0, EXPLORE_TEMPERATURES - 1); return explore->temperature != temperature;
    case ACTION_COOLER: explore->temperature = clamp(temperature - 1, 0, EXPLORE_TEMPERATURES - 1); return explore->temperature != temperature;
    case ACTION_NEXT_HEAD: explore->head = clamp(head + 1, 0, explore->q_heads - 1); return explore->head != head;
    case ACTION_LAST_HEAD: explore->head = clamp(head - 1, 0, explore->q_heads - 1); return explore->head != head;
    case ACTION_UP: move_rows(explore, -1); return false;
    case ACTION_DOWN: move_rows(explore, 1); return false;
    case ACTION_LEFT: cursor->d = clamp(cursor->d - 1, 0, explore_row_length(explore, cursor->part) - 1); return false;
    case ACTION_RIGHT: cursor->d = clamp(cursor->d + 1, 0, explore_row_length(explore, cursor->part) - 1); return false;
    case ACTION_NEXT_QUERY: cursor->query = (cursor->query + 1) % explore->queries; break;
    case ACTION_LAST_QUERY: cursor->query = (cursor->query + explore->queries - 1) % explore->queries; break;
    case ACTION_SORTED: explore->sorted = !explore->sorted; break;
    default: return false;
    }
    sort_keys(explore);
    return false;
}

heed_status explore_act(struct explore *explore, enum action action)
{
    return change(explore, action) ? explore_compute(explore) : HEED_OK;
}
