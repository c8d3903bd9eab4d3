/* SPDX-License-Identifier: MIT
 * harness_layout.c - where every row of an instance lies: strides with gaps, reversed and repeated axes, and memory that traps beside the
 * last (or first) byte that a tensor may touch.
 */
#include "dtype.h"
#include "harness_parts.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- roles --------------------------------------------------------------------- */

bool role_is_output(enum role role) { return role == ROLE_O || role == ROLE_LSE || role == ROLE_SCORES || role == ROLE_KEY_SUMS; }

heed_tensor *role_tensor(heed_tensors *t, enum role role)
{
    heed_tensor *const tensors[ROLE_COUNT] = {
        [ROLE_Q] = &t->q,           [ROLE_K] = &t->k,           [ROLE_V] = &t->v,           [ROLE_O] = &t->o,
        [ROLE_LSE] = &t->lse,       [ROLE_MASK] = &t->mask,     [ROLE_BIAS] = &t->bias,     [ROLE_ALIBI] = &t->alibi_slopes,
        [ROLE_SINKS] = &t->sinks,   [ROLE_K_SCALE] = &t->k_scale, [ROLE_V_SCALE] = &t->v_scale, [ROLE_SCORES] = &t->scores,
        [ROLE_KEY_RANGE] = &t->key_range, [ROLE_KEY_SUMS] = &t->key_sums, [ROLE_ROPE_COS] = &t->rope_cos, [ROLE_ROPE_SIN] = &t->rope_sin};
    return tensors[role];
}

static bool is_key_like(enum role role) { return role == ROLE_K || role == ROLE_V || role == ROLE_K_SCALE || role == ROLE_V_SCALE; }
static bool is_table(enum role role) { return role == ROLE_ALIBI || role == ROLE_SINKS; }

/* Rows of their own, not packed with the queries. */
static bool is_chosen(const struct instance *in, enum role role) { return role == ROLE_KEY_SUMS || (role == ROLE_SCORES && in->line.srows > 0); }

int64_t instance_output_rows(const struct instance *in, enum role role, int32_t b, int32_t *heads, int32_t *rows)
{
    const bool scores = role == ROLE_SCORES, sums = role == ROLE_KEY_SUMS;
    *heads = in->problem.q_heads;
    *rows = in->q_lens[b];
    if (scores && in->line.shead_count) *heads = in->line.shead_count;
    if (scores && in->line.srows && in->line.srows < *rows) *rows = in->line.srows;
    if (sums) *rows = 1;
    if (sums && (in->problem.flags & HEED_KEY_SUMS_ALL_HEADS)) *heads = 1;
    return scores || sums ? type_row_bytes(HEED_F32, in->kv_lens[b]) : in->shape[role].row_bytes;
}

/* Bytes from element 0. */
static int64_t query_at(const struct instance *in, enum role role, int32_t b, int32_t h, int32_t i)
{
    const struct shape *s = &in->shape[role];
    if (is_chosen(in, role)) return b * s->batch + i * s->token + h * s->head;
    int64_t token = in->q_start ? in->q_start[b] + i : i;
    return (in->q_start ? 0 : b * s->batch) + token * s->token + h * s->head;
}

static int64_t key_at(const struct instance *in, enum role role, int32_t b, int32_t g, int32_t j)
{
    const struct shape *s = &in->shape[role];
    int64_t n = b, token = j;
    if (in->page_table) {
        const int32_t size = in->problem.page_size;
        n = in->page_table[(int64_t)b * in->lengths.page_table_stride + j / size];
        token = j % size;
    } else if (in->kv_start) {
        n = 0;
        token = in->kv_start[b] + j;
    }
    return n * s->batch + token * s->token + g * s->head;
}

unsigned char *instance_query_row(const struct instance *in, enum role role, int32_t b, int32_t h, int32_t i)
{
    const struct shape *s = &in->shape[role];
    return in->block[s->home].data + s->start + query_at(in, role, b, h, i);
}

unsigned char *instance_key_row(const struct instance *in, enum role role, int32_t b, int32_t g, int32_t j)
{
    const struct shape *s = &in->shape[role];
    return in->block[s->home].data + s->start + key_at(in, role, b, g, j);
}

/* ---- extents -------------------------------------------------------------------- */

static int32_t longest(const int32_t *lens, int32_t batch)
{
    int32_t most = 0;
    for (int32_t b = 0; b < batch; b++)
        if (lens[b] > most) most = lens[b];
    return most;
}

/* 8-bit floats come with a scale per row, with one for all, or without; i8 always with one per row. */
enum scales { SCALES_NONE, SCALES_ONE, SCALES_ROWS };
static enum scales scales_of(const struct instance *in, heed_type type)
{
    if (in->stored) return SCALES_NONE; /* given or not by the case, always per row */
    if (type == HEED_I8) return SCALES_ROWS;
    if (type != HEED_F8_E4M3 && type != HEED_F8_E5M2) return SCALES_NONE;
    return (enum scales)((in->line.seed + 1) % 3); /* seed 1: a scale per row */
}

static bool is_needed(const struct instance *in, enum role role)
{
    const struct problem *p = &in->problem;
    switch (role) {
    case ROLE_Q: case ROLE_K: case ROLE_V: case ROLE_O: return true;
    case ROLE_LSE: return p->flags & HEED_WRITE_LSE;
    case ROLE_MASK: return p->flags & (HEED_MASK_BOOL | HEED_MASK_BITS);
    case ROLE_BIAS: return p->flags & HEED_BIAS;
    case ROLE_ALIBI: return p->flags & HEED_ALIBI;
    case ROLE_SINKS: return p->flags & HEED_SINKS;
    case ROLE_K_SCALE: return in->shape[role].given || scales_of(in, p->k_type) != SCALES_NONE;
    case ROLE_V_SCALE: return in->shape[role].given || scales_of(in, p->v_type) != SCALES_NONE;
    case ROLE_SCORES: return p->flags & HEED_WRITE_SCORES;
    case ROLE_KEY_RANGE: return p->flags & HEED_KEY_RANGE;
    case ROLE_KEY_SUMS: return p->flags & HEED_WRITE_KEY_SUMS;
    default: return false;
    }
}

static heed_type role_type(const struct instance *in, enum role role)
{
    const struct problem *p = &in->problem;
    switch (role) {
    case ROLE_Q: return p->q_type;
    case ROLE_K: return p->k_type;
    case ROLE_V: return p->v_type;
    case ROLE_O: return p->o_type;
    case ROLE_BIAS: return p->bias_type;
    case ROLE_MASK: return HEED_I8; /* bytes */
    default: return HEED_F32;       /* key_range: elements of 4 bytes */
    }
}

/* Extents and bytes of a row. A stored case may have set some of them already. */
static void measure(struct instance *in, enum role role)
{
    const struct problem *p = &in->problem;
    struct shape *s = &in->shape[role];
    const int32_t batch = in->line.batch, kv = longest(in->kv_lens, batch);
    const int32_t pages = in->shape[ROLE_K].batches;
    const bool masks = role == ROLE_MASK || role == ROLE_BIAS;
    s->given = true;
    s->home = role;
    s->type = role_type(in, role);
    s->batches = s->heads = s->tokens = 1;
    if (is_key_like(role)) {
        s->batches = in->page_table ? pages : in->kv_start ? 1 : batch;
        s->heads = p->kv_heads;
        s->tokens = in->page_table ? p->page_size : in->kv_start ? in->kv_start[batch] : kv + (in->variant == INSTANCE_PLAIN ? 0 : 3);
    } else if (!is_table(role)) {
        s->batches = in->q_start ? 1 : batch;
        s->heads = role == ROLE_KEY_RANGE ? 1 : p->q_heads;
        s->tokens = in->q_start ? (int32_t)in->q_total : in->line.q_len;
        if (masks && in->line.bcast_b) s->batches = 1;
        if (masks && in->line.bcast_h) s->heads = 1;
        if (masks && in->line.bcast_q) s->tokens = s->tokens ? 1 : 0;
    }
    if (is_chosen(in, role)) {
        s->batches = batch;
        s->tokens = role == ROLE_KEY_SUMS ? 1 : in->line.srows < in->line.q_len ? in->line.srows : in->line.q_len;
    }
    if (role == ROLE_SCORES && in->line.shead_count) s->heads = in->line.shead_count;
    if (role == ROLE_KEY_SUMS && (p->flags & HEED_KEY_SUMS_ALL_HEADS)) s->heads = 1;
    int64_t elements = role == ROLE_Q || role == ROLE_K ? p->head_dim : role == ROLE_V || role == ROLE_O ? p->v_head_dim : 1;
    if (masks || role == ROLE_SCORES || role == ROLE_KEY_SUMS) elements = kv;
    if (is_table(role)) elements = p->q_heads;
    if (role == ROLE_KEY_RANGE) elements = 2;
    s->row_bytes = type_row_bytes(s->type, elements);
    if (role == ROLE_MASK && (p->flags & HEED_MASK_BITS)) s->row_bytes = (elements + 7) / 8;
}

/* ---- strides --------------------------------------------------------------------- */

/* A gap of 0, 1, 3 or 16 elements by the seed; none in plain instances. */
static int64_t gap(const struct instance *in, enum role role, int axis)
{
    const int64_t sizes[6] = {0, 0, 0, 1, 3, 16};
    const heed_type type = in->shape[role].type;
    const int64_t unit = type_is_block(type) ? 2 : type_row_bytes(type, 1);
    if (in->variant == INSTANCE_PLAIN) return 0;
    return unit * sizes[hash_of(in->line.seed, 2001, role, (uint64_t)axis, 0) % 6];
}

static bool reversed(const struct instance *in, enum role role)
{
    return in->variant != INSTANCE_PLAIN && !role_is_output(role) && in->line.layout != LAYOUT_QKV &&
           hash_of(in->line.seed, 2002, role, 0, 0) % 5 == 0;
}

static void stride_rows(struct instance *in, enum role role)
{
    struct shape *s = &in->shape[role];
    const int64_t row = s->row_bytes + gap(in, role, 0);
    if (in->line.layout == LAYOUT_BHLD) {
        s->token = row;
        s->head = s->tokens * row + gap(in, role, 1);
        s->batch = s->heads * s->head + gap(in, role, 2);
    } else {
        s->head = row;
        s->token = s->heads * row + gap(in, role, 1);
        s->batch = s->tokens * s->token + gap(in, role, 2);
    }
    if (reversed(in, role)) s->token = -s->token;
    const bool masks = role == ROLE_MASK || role == ROLE_BIAS;
    if (masks && in->line.bcast_b) s->batch = 0;
    if (masks && in->line.bcast_h) s->head = 0;
    if (masks && in->line.bcast_q) s->token = 0;
    if ((role == ROLE_K_SCALE || role == ROLE_V_SCALE) &&
        scales_of(in, role == ROLE_K_SCALE ? in->problem.k_type : in->problem.v_type) == SCALES_ONE)
        s->batch = s->head = s->token = 0;
}

/* One packed projection: token (b, t) holds q_heads rows of q, kv_heads of k, kv_heads of v. */
static void stride_packed(struct instance *in)
{
    const struct problem *p = &in->problem;
    struct shape *q = &in->shape[ROLE_Q];
    const int64_t row = q->row_bytes;
    const int64_t token = (p->q_heads + 2 * p->kv_heads) * row + gap(in, ROLE_Q, 1), batch = q->tokens * token + gap(in, ROLE_Q, 2);
    const enum role roles[3] = {ROLE_Q, ROLE_K, ROLE_V};
    const int64_t start[3] = {0, p->q_heads * row, (p->q_heads + p->kv_heads) * row};
    for (int n = 0; n < 3; n++) {
        struct shape *s = &in->shape[roles[n]];
        s->head = row;
        s->token = token;
        s->batch = batch;
        s->start = start[n];
        s->home = ROLE_Q;
    }
}

/* Bytes from element 0 that the rows in use reach: [*low, *high), empty as 0, 0. Exactly: kv_len of each sequence, not the capacity. */
static void reach(const struct instance *in, enum role role, int64_t *low, int64_t *high)
{
    const struct problem *p = &in->problem;
    const struct shape *s = &in->shape[role];
    *low = INT64_MAX;
    *high = INT64_MIN;
    const bool keys = is_key_like(role);
    for (int32_t b = 0; b < in->line.batch; b++) {
        int32_t heads = keys ? p->kv_heads : role == ROLE_KEY_RANGE ? 1 : p->q_heads;
        int32_t count = keys ? in->kv_lens[b] : in->q_lens[b];
        int64_t row_bytes = s->row_bytes;
        if (role_is_output(role)) row_bytes = instance_output_rows(in, role, b, &heads, &count);
        if (role == ROLE_BIAS) row_bytes = type_row_bytes(s->type, in->kv_lens[b]);
        if (role == ROLE_MASK) row_bytes = p->flags & HEED_MASK_BITS ? (in->kv_lens[b] + 7) / 8 : in->kv_lens[b];
        if (row_bytes == 0) continue;
        for (int32_t h = 0; h < heads; h += heads > 1 ? heads - 1 : 1)
            for (int32_t t = 0; t < count; t += !keys && count > 1 ? count - 1 : 1) {
                const int64_t at = keys ? key_at(in, role, b, h, t) : query_at(in, role, b, h, t);
                if (at < *low) *low = at;
                if (at + row_bytes > *high) *high = at + row_bytes;
            }
    }
    if (*low > *high) *low = *high = 0;
}

/* ---- memory ---------------------------------------------------------------------- */

/* `bytes` that end (or begin) at a page that traps. In plain instances: 64-byte aligned, large pages where they pay. */
static bool block_make(struct block *block, size_t bytes, enum instance_variant variant)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), inside = (bytes + page - 1) / page * page, guard = variant == INSTANCE_PLAIN ? 0 : page;
    block->map_bytes = inside + 2 * guard + (inside + guard == 0 ? page : 0);
    void *map = mmap(NULL, block->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) return false;
    block->map = map;
    block->open = block->map + guard;
    block->open_bytes = inside;
    block->bytes = bytes;
    block->data = block->open + (variant == INSTANCE_GUARD_AFTER ? inside - bytes : 0);
    if (guard && (mprotect(block->map, guard, PROT_NONE) || mprotect(block->open + inside, guard, PROT_NONE))) return false;
    if (!guard && bytes >= (size_t)4 << 20) madvise(block->map, block->map_bytes, MADV_HUGEPAGE);
    memset(block->open, 0xFF, inside);
    return true;
}

/* The public tensor: strides in elements (bytes for blocks and bit masks). The stride of an axis of extent 1 may be anything. */
static void tensor_of(struct instance *in, enum role role)
{
    const struct shape *s = &in->shape[role];
    const struct block *block = &in->block[s->home];
    const bool packed = is_key_like(role) ? in->kv_start != NULL : in->q_start != NULL && !is_chosen(in, role);
    int64_t unit = type_stride_bytes(s->type);
    if (role == ROLE_MASK) unit = 1;
    heed_tensor *t = role_tensor(&in->tensors, role);
    *t = (heed_tensor){.data = block->data, .bytes = block->bytes, .offset = s->start / unit, .batch_stride = s->batch / unit,
                       .head_stride = s->head / unit, .token_stride = s->token / unit};
    if (in->variant == INSTANCE_PLAIN || is_table(role)) return;
    const int64_t odd[4] = {INT64_MAX / 2, -7, INT64_MIN, 1};
    const uint64_t pick = hash_of(in->line.seed, 2003, role, 0, 0);
    const bool masks = role == ROLE_MASK || role == ROLE_BIAS;
    if ((packed || in->line.batch == 1) && !(is_key_like(role) && in->page_table)) t->batch_stride = odd[pick % 4];
    if (s->heads == 1 && (role == ROLE_KEY_RANGE || role == ROLE_SCORES || role == ROLE_KEY_SUMS || (is_key_like(role) ? in->problem.kv_heads : in->problem.q_heads) == 1))
        t->head_stride = odd[pick / 4 % 4];
    const bool one_key = is_key_like(role) && !in->page_table && (in->kv_start ? s->tokens : s->tokens - 3) == 1;
    if (one_key || (!masks && !is_key_like(role) && s->tokens == 1)) t->token_stride = odd[pick / 16 % 4];
}

static bool place(struct instance *in, enum role role)
{
    struct shape *s = &in->shape[role];
    int64_t low = 0, high = s->row_bytes;
    if (!is_table(role)) reach(in, role, &low, &high);
    if (is_key_like(role) && in->page_table) { /* whole pages: a page number is checked against the pool */
        low = s->token < 0 ? (s->tokens - 1) * s->token : 0;
        high = (s->batches - 1) * s->batch + (s->token < 0 ? 0 : (s->tokens - 1) * s->token) + (s->heads - 1) * s->head + s->row_bytes;
    }
    const int64_t lead = in->variant == INSTANCE_GUARD_AFTER ? gap(in, role, 3) : 0;
    const int64_t empty = high == low ? 0 : lead; /* nothing is reached: no bytes at all */
    s->start = empty - low;
    return block_make(&in->block[role], (size_t)(high - low + empty), in->variant);
}

/* q, k and v in one block. */
static bool place_packed(struct instance *in)
{
    int64_t most = 0, low, high;
    const enum role roles[3] = {ROLE_Q, ROLE_K, ROLE_V};
    for (int n = 0; n < 3; n++) {
        reach(in, roles[n], &low, &high);
        if (high > 0 && in->shape[roles[n]].start + high > most) most = in->shape[roles[n]].start + high;
    }
    return block_make(&in->block[ROLE_Q], (size_t)most, in->variant);
}

bool instance_lay_out(struct instance *in, char *message, size_t capacity)
{
    const bool packed = in->line.layout == LAYOUT_QKV;
    bool enough = true;
    for (int role = 0; role < ROLE_COUNT; role++)
        if (is_needed(in, (enum role)role)) {
            measure(in, (enum role)role);
            stride_rows(in, (enum role)role);
        }
    if (packed) {
        stride_packed(in);
        enough = place_packed(in);
    }
    for (int role = 0; role < ROLE_COUNT && enough; role++)
        if (in->shape[role].given && !(packed && in->shape[role].home != (enum role)role) && !(packed && role == ROLE_Q))
            enough = place(in, (enum role)role);
    if (!enough) {
        message_set(message, capacity, "no memory for the tensors of %s", in->line.text);
        return false;
    }
    in->tensors.struct_size = sizeof in->tensors;
    for (int role = 0; role < ROLE_COUNT; role++)
        if (in->shape[role].given) tensor_of(in, (enum role)role);
    return true;
}
