/* SPDX-License-Identifier: MIT
 * harness_fill.c - data into the rows of an instance, and poison wherever no query may look: NaN, infinity and 1e38 in turn, so that a kernel
 * which multiplies a hidden value by 0, or only takes a maximum over it, is seen.
 */
#include "dtype.h"
#include "harness_parts.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- masks, biases, ranges -------------------------------------------------------- */

/* Rows that see nothing, all, nothing in the first 70 keys, or three quarters; and keys that every row of a sequence hides. */
static bool drawn_visible(uint64_t seed, int32_t b, uint64_t row, int32_t j)
{
    const uint64_t kind = row % 16;
    if (hash_of(seed, 3001, (uint64_t)b, (uint64_t)j, 0) % 9 == 0) return false;
    if (kind == 0) return false;
    if (kind <= 2) return true;
    if (kind == 3 && j < 70) return false;
    return hash_of(row, 3002, (uint64_t)j, 0, 0) % 4 != 0;
}

static uint64_t row_hash(const struct instance *in, enum role role, int32_t b, int32_t h, int32_t i)
{
    const struct problem_line *line = &in->line;
    return hash_of(hash_of(line->seed, 3003, role, 0, 0), line->bcast_b ? 0 : (uint64_t)b, line->bcast_h ? 0 : (uint64_t)h,
                   line->bcast_q ? 0 : (uint64_t)i, 0);
}

static void mask_row(struct instance *in, int32_t b, int32_t h, int32_t i)
{
    unsigned char *row = instance_query_row(in, ROLE_MASK, b, h, i);
    const bool bits = in->problem.flags & HEED_MASK_BITS;
    const uint64_t kind = row_hash(in, ROLE_MASK, b, h, i);
    for (int32_t j = 0; j < in->kv_lens[b]; j++) {
        const bool seen = drawn_visible(in->line.seed, in->line.bcast_b ? 0 : b, kind, j);
        if (!bits) row[j] = seen ? (unsigned char)(1 + kind % 255) : 0; /* any byte but 0 shows the key */
        if (bits && !seen) row[j / 8] &= (unsigned char)~(1u << (j % 8));
        if (bits && seen) row[j / 8] |= (unsigned char)(1u << (j % 8));
    }
}

static void bias_row(struct instance *in, int32_t b, int32_t h, int32_t i)
{
    unsigned char *row = instance_query_row(in, ROLE_BIAS, b, h, i);
    const uint64_t kind = row_hash(in, ROLE_BIAS, b, h, i);
    for (int32_t j = 0; j < in->kv_lens[b]; j++) {
        struct random random = {hash_of(kind, 3004, (uint64_t)j, 0, 0)};
        float x = (float)(2 * random_normal(&random));
        if (kind % 16 == 5) x = -10000.0f; /* finite: hides nothing */
        if (!drawn_visible(in->line.seed + 1, in->line.bcast_b ? 0 : b, kind, j)) x = -HUGE_VALF;
        row_from_f32(in->problem.bias_type, &x, row + j * type_row_bytes(in->problem.bias_type, 1), NULL, 1);
    }
}

/* Mostly inside the sequence; some empty, some that reach beyond either end. */
static void range_row(struct instance *in, int32_t b, int32_t i)
{
    int32_t *row = (int32_t *)instance_query_row(in, ROLE_KEY_RANGE, b, 0, i);
    struct random random = {hash_of(in->line.seed, 3005, (uint64_t)b, (uint64_t)i, 0)};
    const int32_t kv = in->kv_lens[b], kind = random_below(&random, 8);
    int32_t begin = random_below(&random, kv + 1), end = random_below(&random, kv + 1);
    if (begin > end) {
        int32_t kept = begin;
        begin = end;
        end = kept;
    }
    if (kind == 0) end = begin - 1;
    if (kind == 1) begin = INT32_MIN;
    if (kind == 2) end = INT32_MAX;
    row[0] = begin;
    row[1] = end;
}

static void fill_tables(struct instance *in)
{
    const int32_t heads = in->problem.q_heads;
    struct random random = {hash_of(in->line.seed, 3006, 0, 0, 0)};
    const struct shape *alibi = &in->shape[ROLE_ALIBI], *sinks = &in->shape[ROLE_SINKS];
    for (int32_t h = 0; h < heads; h++) {
        const float step = (float)(h + 1) / (float)heads; /* near the published 2^(-8 step), without libm */
        const float slope = 1.0f / (1.0f + 255.0f * step * step * step), sink = (float)(2 * random_normal(&random));
        const float none = -HUGE_VALF;
        if (alibi->given) memcpy(in->block[ROLE_ALIBI].data + alibi->start + 4 * h, &slope, sizeof slope);
        if (sinks->given) memcpy(in->block[ROLE_SINKS].data + sinks->start + 4 * h, h % 5 == 3 ? &none : &sink, sizeof sink);
    }
}

/* ---- q, k, v ------------------------------------------------------------------------ */

static void value_row(struct instance *in, enum role role, int32_t b, int32_t g, int32_t j)
{
    const bool k = role == ROLE_K;
    const heed_type type = k ? in->problem.k_type : in->problem.v_type;
    const int32_t n = k ? in->problem.head_dim : in->problem.v_head_dim;
    const enum role scale_role = k ? ROLE_K_SCALE : ROLE_V_SCALE;
    const struct shape *scales = &in->shape[scale_role];
    float x[1024], scale = 1.0f;
    data_row(&in->line, role, type, b, g, j, in->kv_lens[b], x, n);
    void *row = instance_key_row(in, role, b, g, j);
    if (scales->given && scales->token == 0 && scales->batch == 0 && scales->head == 0) { /* one for all: chosen, not computed */
        scale = 0.375f;
        for (int32_t d = 0; d < n; d++) x[d] /= scale;
        row_from_f32(type, x, row, NULL, n);
    } else
        row_from_f32(type, x, row, scales->given ? &scale : NULL, n);
    if (scales->given) memcpy(instance_key_row(in, scale_role, b, g, j), &scale, sizeof scale);
}

void instance_fill(struct instance *in)
{
    const struct problem *p = &in->problem;
    float x[1024];
    fill_tables(in);
    for (int32_t b = 0; b < in->line.batch; b++) {
        for (int32_t i = 0; i < in->q_lens[b]; i++) {
            if (in->shape[ROLE_KEY_RANGE].given) range_row(in, b, i);
            for (int32_t h = 0; h < p->q_heads; h++) {
                data_row(&in->line, ROLE_Q, p->q_type, b, h, i, in->q_lens[b], x, p->head_dim);
                row_from_f32(p->q_type, x, instance_query_row(in, ROLE_Q, b, h, i), NULL, p->head_dim);
                if (in->shape[ROLE_MASK].given) mask_row(in, b, h, i);
                if (in->shape[ROLE_BIAS].given) bias_row(in, b, h, i);
            }
        }
        for (int32_t g = 0; g < p->kv_heads; g++)
            for (int32_t j = 0; j < in->kv_lens[b]; j++) {
                value_row(in, ROLE_K, b, g, j);
                value_row(in, ROLE_V, b, g, j);
            }
    }
}

/* ---- who sees what -------------------------------------------------------------------- */

void instance_range(const struct instance *in, int32_t b, int32_t i, int32_t *begin, int32_t *end)
{
    const struct problem *p = &in->problem;
    const int64_t own = instance_position(in, b, i) - instance_first(in, b);
    int64_t from = 0, to = in->kv_lens[b];
    if ((p->flags & HEED_CAUSAL) && own < to) to = own + 1;
    if (p->window_left >= 0 && own - p->window_left > from) from = own - p->window_left;
    if (p->window_right >= 0 && own + p->window_right < to) to = own + p->window_right + 1;
    if (in->shape[ROLE_KEY_RANGE].given) {
        const int32_t *row = (const int32_t *)instance_query_row(in, ROLE_KEY_RANGE, b, 0, i);
        if (row[0] > from) from = row[0];
        if (row[1] < to) to = row[1];
    }
    if (from >= to) from = to = 0;
    *begin = (int32_t)from;
    *end = (int32_t)to;
}

bool instance_masked(const struct instance *in, int32_t b, int32_t h, int32_t i, int32_t j)
{
    if (!in->shape[ROLE_MASK].given) return false;
    const unsigned char *row = instance_query_row(in, ROLE_MASK, b, h, i);
    return in->problem.flags & HEED_MASK_BITS ? !(row[j / 8] >> (j % 8) & 1) : row[j] == 0;
}

static float bias_at(const struct instance *in, int32_t b, int32_t h, int32_t i, int32_t j)
{
    float x;
    const heed_type type = in->problem.bias_type;
    row_to_f32(type, instance_query_row(in, ROLE_BIAS, b, h, i) + j * type_row_bytes(type, 1), 1.0f, &x, 1);
    return x;
}

static bool biased_away(const struct instance *in, int32_t b, int32_t h, int32_t i, int32_t j)
{
    return in->shape[ROLE_BIAS].given && bias_at(in, b, h, i, j) == -HUGE_VALF;
}

bool instance_visible(const struct instance *in, int32_t b, int32_t h, int32_t i, int32_t j)
{
    int32_t begin, end;
    instance_range(in, b, i, &begin, &end);
    return j >= begin && j < end && !instance_masked(in, b, h, i, j) && !biased_away(in, b, h, i, j);
}

/* seen[j] = 1 where some query of the KV head's group sees key j; returns the visible pairs of the group. */
static int64_t mark_seen(const struct instance *in, int32_t b, int32_t g, unsigned char *seen)
{
    const struct problem *p = &in->problem;
    const bool by_element = in->shape[ROLE_MASK].given || in->shape[ROLE_BIAS].given;
    int64_t pairs = 0;
    int32_t begin, end, last_begin = 0, last_end = 0;
    memset(seen, 0, (size_t)in->kv_lens[b]);
    for (int32_t i = 0; i < in->q_lens[b]; i++) {
        instance_range(in, b, i, &begin, &end);
        if (!by_element) {
            pairs += (int64_t)p->group * (end - begin);
            if (begin >= last_begin && begin <= last_end && last_end <= end) /* mostly one key more than the row before */
                memset(seen + last_end, 1, (size_t)(end - last_end));
            else
                memset(seen + begin, 1, (size_t)(end - begin));
            last_begin = begin;
            last_end = end;
            continue;
        }
        for (int32_t h = g * p->group; h < (g + 1) * p->group; h++)
            for (int32_t j = begin; j < end; j++)
                if (!instance_masked(in, b, h, i, j) && !biased_away(in, b, h, i, j)) {
                    seen[j] = 1;
                    pairs++;
                }
    }
    return pairs;
}

/* ---- hiding ------------------------------------------------------------------------------ */

/* NaN, +infinity, -infinity and a huge value in turn; NaN alone where scores of stage 0 or 1 show hidden keys. */
static float poison_value(const struct instance *in, uint64_t turn)
{
    const float values[4] = {NAN, HUGE_VALF, -HUGE_VALF, 1e38f};
    const bool shown = (in->problem.flags & HEED_WRITE_SCORES) && in->problem.scores_stage <= 1;
    return values[shown ? 0 : turn % 4];
}

static void hide_row(const struct instance *in, enum role role, unsigned char *row, int32_t n, uint64_t turn, enum hidden with)
{
    const heed_type type = in->shape[role].type;
    const float x = with == HIDDEN_ZERO ? 0.0f : poison_value(in, turn);
    const int64_t bytes = in->shape[role].row_bytes;
    memset(row, 0, (size_t)bytes);
    if (type == HEED_I8) {
        memset(row, with == HIDDEN_ZERO ? 0 : 127, (size_t)bytes); /* its scale is the poison */
        return;
    }
    if (!type_is_block(type)) {
        for (int32_t d = 0; d < n; d++) row_from_f32(type, &x, row + d * type_row_bytes(type, 1), NULL, 1);
        return;
    }
    for (int64_t at = 0; at < bytes; at += type_block_bytes(type)) {
        const uint16_t scale = f32_to_f16(x == 1e38f ? 65504.0f : x);
        memset(row + at, with == HIDDEN_ZERO ? 0 : 0x77, (size_t)type_block_bytes(type));
        memcpy(row + at, &scale, sizeof scale);
    }
}

static void hide_key(const struct instance *in, int32_t b, int32_t g, int32_t j, enum hidden with)
{
    const struct problem *p = &in->problem;
    const uint64_t turn = (uint64_t)(j + g);
    hide_row(in, ROLE_K, instance_key_row(in, ROLE_K, b, g, j), p->head_dim, turn, with);
    hide_row(in, ROLE_V, instance_key_row(in, ROLE_V, b, g, j), p->v_head_dim, turn / 2, with);
    const enum role scales[2] = {ROLE_K_SCALE, ROLE_V_SCALE};
    for (int n = 0; n < 2; n++) {
        const struct shape *s = &in->shape[scales[n]];
        const float x = with == HIDDEN_ZERO ? 0.0f : poison_value(in, turn);
        if (s->given && (s->batch || s->head || s->token)) memcpy(instance_key_row(in, scales[n], b, g, j), &x, sizeof x);
    }
}

/* A bias that every row using it hides by something else is read for nothing: it may hold anything. */
static bool hide_bias(const struct instance *in, enum hidden with)
{
    const struct problem *p = &in->problem;
    const struct shape *s = &in->shape[ROLE_BIAS];
    const size_t bytes = in->block[ROLE_BIAS].bytes;
    unsigned char *used = calloc(bytes ? bytes : 1, 1), *data = in->block[ROLE_BIAS].data;
    if (!used) return false;
    const int64_t size = type_row_bytes(s->type, 1);
    for (int pass = 0; pass < 2; pass++)
        for (int32_t b = 0; b < in->line.batch; b++)
            for (int32_t i = 0; i < in->q_lens[b]; i++) {
                int32_t begin, end;
                instance_range(in, b, i, &begin, &end);
                for (int32_t h = 0; h < p->q_heads; h++) {
                    unsigned char *row = instance_query_row(in, ROLE_BIAS, b, h, i);
                    for (int32_t j = 0; j < in->kv_lens[b]; j++) {
                        const size_t at = (size_t)(row + j * size - data);
                        const float x = with == HIDDEN_ZERO ? 0.0f : j % 3 ? NAN : HUGE_VALF;
                        if (pass == 0) used[at] |= j >= begin && j < end && !instance_masked(in, b, h, i, j);
                        else if (!used[at]) row_from_f32(s->type, &x, row + j * size, NULL, 1);
                    }
                }
            }
    free(used);
    return true;
}

/* Slots of the cache that belong to no key of any sequence are 0xFF already; HIDDEN_ZERO leaves them: both are finite or not in turn. */
bool instance_hide(struct instance *in, enum hidden with)
{
    unsigned char *seen = malloc(1 + (size_t)in->line.kv_len + (size_t)in->line.q_len);
    const bool shown = (in->problem.flags & HEED_WRITE_SCORES) && in->problem.scores_stage <= 1;
    if (!seen || (in->shape[ROLE_BIAS].given && !shown && !hide_bias(in, with))) {
        free(seen);
        return false;
    }
    for (int32_t b = 0; b < in->line.batch; b++)
        for (int32_t g = 0; g < in->problem.kv_heads; g++) {
            mark_seen(in, b, g, seen);
            for (int32_t j = 0; j < in->kv_lens[b]; j++)
                if (!seen[j]) hide_key(in, b, g, j, with);
        }
    free(seen);
    return true;
}

/* ---- sealing --------------------------------------------------------------------------------- */

static void own_row(struct instance *in, enum role role, int32_t b, int32_t h, int32_t i)
{
    const struct block *block = &in->block[role];
    int32_t heads, rows;
    const int64_t bytes = instance_output_rows(in, role, b, &heads, &rows);
    memset(block->owner + (instance_query_row(in, role, b, h, i) - block->open), 1, (size_t)bytes);
}

static bool own_rows(struct instance *in, enum role role)
{
    struct block *block = &in->block[role];
    block->owner = calloc(block->open_bytes ? block->open_bytes : 1, 1);
    if (!block->owner) return false;
    for (int32_t b = 0, heads, rows; b < in->line.batch; b++) {
        instance_output_rows(in, role, b, &heads, &rows);
        for (int32_t h = 0; h < heads; h++)
            for (int32_t i = 0; i < rows; i++) own_row(in, role, b, h, i);
    }
    return true;
}

static bool count_work(struct instance *in)
{
    const struct problem *p = &in->problem;
    unsigned char *seen = malloc(1 + (size_t)in->line.kv_len + (size_t)in->line.q_len);
    if (!seen) return false;
    int64_t row = in->shape[ROLE_K].row_bytes + in->shape[ROLE_V].row_bytes;
    row += 4 * (in->shape[ROLE_K_SCALE].given + in->shape[ROLE_V_SCALE].given);
    for (int32_t b = 0; b < in->line.batch; b++)
        for (int32_t g = 0; g < p->kv_heads; g++) {
            in->pairs += (double)mark_seen(in, b, g, seen);
            for (int32_t j = 0; j < in->kv_lens[b]; j++) in->kv_bytes += seen[j] ? (uint64_t)row : 0;
        }
    free(seen);
    return true;
}

bool instance_seal(struct instance *in)
{
    in->pairs = 0;
    in->kv_bytes = 0;
    if (!count_work(in)) return false;
    for (int role = 0; role < ROLE_COUNT; role++) {
        struct block *block = &in->block[role];
        if (!block->map) continue;
        free(block->copy);
        free(block->owner);
        block->copy = block->owner = NULL;
        if (in->variant == INSTANCE_PLAIN) continue;
        if (role_is_output((enum role)role)) {
            if (!own_rows(in, (enum role)role)) return false;
            continue;
        }
        block->copy = malloc(block->open_bytes ? block->open_bytes : 1);
        if (!block->copy) return false;
        if (block->open_bytes) memcpy(block->copy, block->open, block->open_bytes);
    }
    instance_reset(in);
    return true;
}
