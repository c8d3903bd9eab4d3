/* SPDX-License-Identifier: MIT
 * ranges.c - which rows a tensor of each role has, and the first and last byte that they reach.
 * Checked 64-bit arithmetic throughout; it decides nothing (tensors.c) and reads no tensor.
 */
#include "ranges.h"
#include "dtype.h"
#include "mutant.h"
#include "status.h"
#include "view.h"

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* ---- roles ---------------------------------------------------------------------- */

static const struct {
    const char *name;
    size_t view; /* in struct call */
    enum rows rows;
} roles[ROLE_COUNT] = {
    [ROLE_Q] = {"q", offsetof(struct call, q), ROWS_QUERY},
    [ROLE_K] = {"k", offsetof(struct call, k), ROWS_KEY},
    [ROLE_V] = {"v", offsetof(struct call, v), ROWS_KEY},
    [ROLE_O] = {"o", offsetof(struct call, o), ROWS_QUERY},
    [ROLE_LSE] = {"lse", offsetof(struct call, lse), ROWS_QUERY},
    [ROLE_MASK] = {"mask", offsetof(struct call, mask), ROWS_PAIR},
    [ROLE_BIAS] = {"bias", offsetof(struct call, bias), ROWS_PAIR},
    [ROLE_ALIBI] = {"alibi_slopes", offsetof(struct call, alibi), ROWS_ONE},
    [ROLE_SINKS] = {"sinks", offsetof(struct call, sinks), ROWS_ONE},
    [ROLE_K_SCALE] = {"k_scale", offsetof(struct call, k_scale), ROWS_KEY},
    [ROLE_V_SCALE] = {"v_scale", offsetof(struct call, v_scale), ROWS_KEY},
    [ROLE_SCORES] = {"scores", offsetof(struct call, scores), ROWS_SCORE},
    [ROLE_KEY_SUMS] = {"key_sums", offsetof(struct call, key_sums), ROWS_SUM},
    [ROLE_KEY_RANGE] = {"key_range", offsetof(struct call, key_range), ROWS_QUERY},
    [ROLE_ROPE_COS] = {"rope_cos", offsetof(struct call, rope_cos), ROWS_TABLE},
    [ROLE_ROPE_SIN] = {"rope_sin", offsetof(struct call, rope_sin), ROWS_TABLE},
    [ROLE_NEW_K] = {"new_k", offsetof(struct call, new_k), ROWS_QUERY},
    [ROLE_NEW_V] = {"new_v", offsetof(struct call, new_v), ROWS_QUERY},
    [ROLE_X] = {"x", offsetof(struct call, x), ROWS_QUERY},
    [ROLE_O_A] = {"o_a", offsetof(struct call, o_a), ROWS_QUERY},
    [ROLE_LSE_A] = {"lse_a", offsetof(struct call, lse_a), ROWS_QUERY},
    [ROLE_O_B] = {"o_b", offsetof(struct call, o_b), ROWS_QUERY},
    [ROLE_LSE_B] = {"lse_b", offsetof(struct call, lse_b), ROWS_QUERY},
};

const char *role_name(enum role role) { return roles[role].name; }

struct view *role_view(struct call *call, enum role role) { return (struct view *)(void *)((unsigned char *)call + roles[role].view); }

const struct view *call_view(const struct call *call, enum role role)
{
    return (const struct view *)(const void *)((const unsigned char *)call + roles[role].view);
}

/* ---- shapes --------------------------------------------------------------------- */

/* Element type, elements per row and heads of a role. ROWS_PAIR: elements of the longest row. */
static void role_row(const struct call *call, enum role role, heed_type *type, int64_t *elements, int64_t *heads)
{
    const struct problem *p = &call->plan->problem;
    *type = HEED_F32; /* most small tensors: one f32 per row */
    *elements = 1;
    *heads = p->q_heads;
    switch (role) {
    case ROLE_Q:
        *type = p->q_type, *elements = p->head_dim;
        break;
    case ROLE_K:
        *type = p->k_type, *elements = p->head_dim, *heads = p->kv_heads;
        break;
    case ROLE_V:
        *type = p->v_type, *elements = p->v_head_dim, *heads = p->kv_heads;
        break;
    case ROLE_O:
    case ROLE_O_A:
    case ROLE_O_B:
        *type = p->o_type, *elements = p->v_head_dim;
        break;
    case ROLE_MASK:
        *type = HEED_I8, *elements = call->batch->kv_len_max;
        break;
    case ROLE_BIAS:
        *type = p->bias_type, *elements = call->batch->kv_len_max;
        break;
    case ROLE_SCORES:
        *elements = call->batch->kv_len_max, *heads = call->batch->score_head_count;
        break;
    case ROLE_KEY_SUMS:
        *elements = call->batch->kv_len_max;
        if (p->flags & HEED_KEY_SUMS_ALL_HEADS) *heads = 1;
        break;
    case ROLE_ALIBI:
    case ROLE_SINKS:
        *elements = p->q_heads, *heads = 1;
        break;
    case ROLE_K_SCALE:
    case ROLE_V_SCALE:
        *heads = p->kv_heads;
        break;
    case ROLE_KEY_RANGE:
        *elements = 2, *heads = 1;
        break; /* i32: the size and alignment of f32 */
    case ROLE_ROPE_COS:
    case ROLE_ROPE_SIN:
        *elements = p->rope_dim / 2, *heads = 1;
        break;
    case ROLE_NEW_K:
        *type = call->new_type, *elements = p->head_dim, *heads = p->kv_heads;
        break;
    case ROLE_NEW_V:
        *type = call->new_type, *elements = p->v_head_dim, *heads = p->kv_heads;
        break;
    case ROLE_X:
        *type = p->q_type, *elements = p->head_dim, *heads = call->heads;
        break;
    default:
        break;
    }
}

static int64_t row_length(const struct shape *shape, int64_t elements)
{
    return shape->bits ? (elements + 7) / 8 : type_row_bytes(shape->type, elements);
}

/* Smallest and largest position of all queries: the rows of the rotation tables in use. */
static void table_extent(const struct heed_batch *batch, struct shape *shape)
{
    int64_t low = INT64_MAX, high = INT64_MIN;
    for (int32_t b = 0; b < batch->batch; b++) {
        const struct sequence *s = &batch->sequences[b];
        if (s->q_len == 0) continue;
        if (!batch->q_positions) {
            low = MIN(low, s->position);
            high = MAX(high, s->position + s->q_len - 1);
        }
        for (int32_t i = 0; batch->q_positions && i < s->q_len; i++) {
            low = MIN(low, query_position(batch, s, i));
            high = MAX(high, query_position(batch, s, i));
        }
    }
    shape->first_token = low <= high ? low : 0;
    shape->token = low <= high ? high + 1 : 0;
}

static void shape_extents(const struct call *call, struct shape *s)
{
    const struct heed_batch *batch = call->batch;
    const int32_t page_size = call->plan->problem.page_size;
    s->batch = batch->batch;
    switch (s->rows) {
    case ROWS_SUM:
        s->token = 1;
        break;
    case ROWS_SCORE:
        if (batch->score_rows > 0) {
            s->token = batch->score_rows_max;
            break;
        } /* fall through */
    case ROWS_QUERY:
    case ROWS_PAIR:
        s->token = batch->q_packed ? batch->q_total : batch->q_len_max;
        if (batch->q_packed) s->batch = MIN(s->batch, 1);
        break;
    case ROWS_KEY:
        s->token = batch->kv_packed ? batch->kv_total : batch->kv_len_max;
        if (batch->kv_packed) s->batch = MIN(s->batch, 1);
        if (page_size > 0) {
            s->token = MIN(s->token, page_size);
            s->batch = (int64_t)batch->page_max + 1;
        }
        break;
    case ROWS_ONE:
        s->batch = s->token = 1;
        break;
    case ROWS_TABLE:
        s->batch = 1;
        table_extent(batch, s);
        break;
    }
}

void role_shape(const struct call *call, enum role role, struct shape *shape)
{
    int64_t elements;
    *shape = (struct shape){.rows = roles[role].rows};
    role_row(call, role, &shape->type, &elements, &shape->head);
    shape->bits = role == ROLE_MASK && (call->plan->problem.flags & HEED_MASK_BITS);
    shape->unit = type_stride_bytes(shape->type);
    shape->alignment = type_alignment(shape->type);
    shape->row_bytes = row_length(shape, elements);
    shape_extents(call, shape);
}

bool shape_empty(const struct shape *s) { return s->batch <= 0 || s->token <= 0 || s->head <= 0 || s->row_bytes <= 0; }

/* ---- ranges --------------------------------------------------------------------- */

/* Where rows may begin: from low to high. */
struct span {
    int64_t low, high;
};

static bool within_limit(const struct span *s) { return s->low >= -REACH_LIMIT && s->high <= REACH_LIMIT; }

/* Steps `from` .. `to` along an axis. */
static bool span_axis(struct span *span, int64_t from, int64_t to, int64_t stride)
{
    int64_t a, b;
    if (__builtin_mul_overflow(from, stride, &a) || __builtin_mul_overflow(to, stride, &b)) return false;
    if (__builtin_add_overflow(span->low, MIN(a, b), &span->low)) return false;
    if (__builtin_add_overflow(span->high, MAX(a, b), &span->high)) return false;
    if (MUTANT(problem_range_ignores_negative) && span->low < 0) span->low = 0;
    return within_limit(span);
}

/* Rows batch [b0, b1], tokens [t0, t1], every head; the range grows to hold them. An empty range has begin > end. */
static bool range_add(struct byte_range *range, const struct view *v, const int64_t b[2], const int64_t t[2], int64_t heads,
                      int64_t row_bytes)
{
    struct span span = {0, 0};
    if (!span_axis(&span, b[0], b[1], v->batch) || !span_axis(&span, t[0], t[1], v->token) || !span_axis(&span, 0, heads - 1, v->head))
        return false;
    if (row_bytes > REACH_LIMIT) return false;
    range->begin = MIN(range->begin, span.low);
    range->end = MAX(range->end, span.high + row_bytes);
    return true;
}

static const struct byte_range no_range = {INT64_MAX, INT64_MIN};

static void range_settle(struct byte_range *range)
{
    if (range->begin > range->end) *range = (struct byte_range){0, 0};
}

bool range_of_box(const struct shape *s, const struct view *v, struct byte_range *range)
{
    *range = no_range;
    bool ok = shape_empty(s) ||
              range_add(range, v, (int64_t[2]){0, s->batch - 1}, (int64_t[2]){s->first_token, s->token - 1}, s->head, s->row_bytes);
    range_settle(range);
    return ok;
}

/* Pages below the largest may be full; of the largest only so many tokens are in use. */
static bool range_of_pages(const struct call *call, const struct shape *s, const struct view *v, struct byte_range *range)
{
    const int64_t page_max = call->batch->page_max, used = call->batch->page_max_tokens;
    if (page_max > 0 && !range_add(range, v, (int64_t[2]){0, page_max - 1}, (int64_t[2]){0, s->token - 1}, s->head, s->row_bytes))
        return false;
    return used == 0 || range_add(range, v, (int64_t[2]){page_max, page_max}, (int64_t[2]){0, used - 1}, s->head, s->row_bytes);
}

/* One sequence's rows. */
static bool range_of_sequence(const struct call *call, const struct shape *s, const struct view *v, int32_t b, struct byte_range *range)
{
    const struct sequence *q = &call->batch->sequences[b];
    const bool keys = s->rows == ROWS_KEY, chosen = s->rows == ROWS_SUM || (s->rows == ROWS_SCORE && call->batch->score_rows > 0);
    const bool packed = keys ? call->batch->kv_packed : call->batch->q_packed && !chosen;
    const bool by_key = s->rows == ROWS_PAIR || s->rows == ROWS_SCORE || s->rows == ROWS_SUM;
    int64_t tokens = keys ? q->kv_len : q->q_len, first = keys ? q->kv_token : q->q_token;
    const int64_t row_bytes = by_key ? row_length(s, q->kv_len) : s->row_bytes, place = packed ? 0 : b;
    if (chosen) tokens = s->rows == ROWS_SUM ? 1 : q->q_len - first_scored(call->batch, q), first = 0;
    if (tokens == 0 || row_bytes == 0) return true;
    return range_add(range, v, (int64_t[2]){place, place}, (int64_t[2]){first, first + tokens - 1}, s->head, row_bytes);
}

bool range_exact(const struct call *call, enum role role, const struct shape *s, const struct view *v, struct byte_range *range)
{
    bool ok = true;
    if (shape_empty(s) || roles[role].rows == ROWS_ONE || roles[role].rows == ROWS_TABLE) return range_of_box(s, v, range);
    *range = no_range;
    if (s->rows == ROWS_KEY && call->plan->problem.page_size > 0)
        ok = range_of_pages(call, s, v, range);
    else
        for (int32_t b = 0; ok && b < call->batch->batch; b++) ok = range_of_sequence(call, s, v, b, range);
    range_settle(range);
    return ok;
}

heed_status call_range(const struct call *call, enum role role, struct byte_range *range)
{
    const struct view *view = call_view(call, role);
    struct shape shape;
    *range = (struct byte_range){0, 0};
    if (!view->given) return HEED_OK;
    role_shape(call, role, &shape);
    if (range_exact(call, role, &shape, view, range)) return HEED_OK;
    return fail(HEED_OUT_OF_BOUNDS, "%s: its strides and lengths reach beyond 2^60 bytes", role_name(role));
}
