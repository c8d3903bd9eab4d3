/* SPDX-License-Identifier: MIT
 * schedule.c - lengths -> work items. Cut by the rows' fixed sizes and by positions alone: never by thread counts, never by what a mask
 * happens to hide, so that the bits of a row do not depend on the machine or on its neighbours.
 */
#include "schedule.h"
#include "dtype.h"
#include "mutant.h"
#include "status.h"
#include "view.h"

enum {
    CACHE_BYTES = 32 << 20, /* of a large device, shared by all that runs there */
    ITEMS_MANY = 64         /* of one kind in a batch: enough for many cores */
};

enum kind sequence_kind(const struct heed_plan *plan, int32_t q_len)
{
    if (q_len > plan->decode_max_q_len) return KIND_PREFILL; /* first: q_len * group is small behind it */
    const int32_t full = plan->row[KIND_PREFILL]->full_rows;
    return q_len > 1 && full > 0 && q_len * plan->problem.group % full == 0 ? KIND_PREFILL : KIND_DECODE;
}

/* Smallest and largest position of queries [q_begin, q_end). */
static void position_span(const struct heed_batch *batch, const struct sequence *s, int32_t q_begin, int32_t q_end, int64_t *low,
                          int64_t *high)
{
    *low = query_position(batch, s, q_begin);
    *high = query_position(batch, s, q_end - 1);
    if (!batch->q_positions) return;
    for (int32_t i = q_begin; i < q_end; i++) {
        int64_t p = query_position(batch, s, i);
        if (p < *low) *low = p;
        if (p > *high) *high = p;
    }
}

/* Keys that some query at a position in [low, high] may see: [*begin, *end), empty as 0, 0. */
static void visible_span(const struct problem *p, const struct sequence *s, int64_t low, int64_t high, int32_t *begin, int32_t *end)
{
    int64_t from = 0, to = s->kv_len;
    low -= s->first; /* from positions to key indices */
    high -= s->first;
    if ((p->flags & HEED_CAUSAL) && high + 1 < to) to = high + 1;
    if (p->window_right >= 0 && high + p->window_right + 1 < to) to = high + p->window_right + 1;
    if (p->window_left >= 0 && low - p->window_left > from) from = low - p->window_left;
    if (MUTANT(schedule_window_start)) from += 1;
    if (from >= to) from = to = 0;
    *begin = (int32_t)from;
    *end = (int32_t)to;
}

/* A list being counted (items NULL) or filled. The next item goes to items[at]; at grows by step. */
struct builder {
    const struct heed_plan *plan;
    const struct heed_batch *batch;
    const struct kernel_row *row;
    struct work_item *items;
    struct merge_item *merges;
    int64_t count, at, step, merge_count, *part_rows;
    int32_t tile; /* queries per item; 0 = all of the sequence */
};

/* Keys per item of a sequence; 0 = all. */
static int32_t chunk_of(const struct builder *to, const struct sequence *s)
{
    return s->q_len <= to->plan->short_max_q_len && to->row->short_chunk > 0 ? to->row->short_chunk : to->row->kv_chunk;
}

static void add_item(struct builder *to, struct work_item item)
{
    if (to->items) to->items[to->at] = item;
    to->at += to->step;
    to->count++;
}

/* One tile of queries of one head: an item, or one item per chunk of keys and a merge of them. */
static void add_tile(struct builder *to, int32_t b, int32_t head, int32_t q_begin, int32_t q_end)
{
    const struct problem *p = &to->plan->problem;
    const struct sequence *s = &to->batch->sequences[b];
    struct work_item item = {.sequence = b, .head = head, .q_begin = q_begin, .q_end = q_end, .part = -1};
    int64_t low, high;
    if (MUTANT(schedule_sequence_16)) item.sequence &= 0xffff;
    if (MUTANT(schedule_head_16)) item.head &= 0xffff;
    if (MUTANT(schedule_query_16) && q_begin > 0xffff) return;
    position_span(to->batch, s, q_begin, q_end, &low, &high);
    visible_span(p, s, low, high, &item.kv_begin, &item.kv_end);

    const int32_t chunk = chunk_of(to, s);
    if (chunk > 0 && item.kv_end > 0) {
        item.kv_begin = item.kv_begin / chunk * chunk;
        int64_t end = ((int64_t)item.kv_end + chunk - 1) / chunk * chunk;
        item.kv_end = end > s->kv_len ? s->kv_len : (int32_t)end;
    }
    if (chunk <= 0 || item.kv_end - item.kv_begin <= chunk) {
        add_item(to, item);
        return;
    }
    const int32_t rows = (q_end - q_begin) * (to->row->packs_group ? p->group : 1);
    struct merge_item merge = {.sequence = b, .head = head, .q_begin = q_begin, .q_end = q_end, .rows = rows};
    merge.part = (int32_t)*to->part_rows;
    for (int64_t j = item.kv_begin; j < item.kv_end; j += chunk) {
        struct work_item piece = item;
        piece.kv_begin = (int32_t)j;
        piece.kv_end = j + chunk > item.kv_end ? item.kv_end : (int32_t)(j + chunk);
        piece.part = (int32_t)*to->part_rows;
        *to->part_rows += rows;
        merge.chunks++;
        add_item(to, piece);
    }
    if (MUTANT(schedule_last_chunk)) merge.chunks--;
    if (to->merges) to->merges[to->merge_count] = merge;
    to->merge_count++;
}

/* All tiles of one head. The last tile of a causal sequence costs most and comes first: the small ones fill the end. */
static void add_head(struct builder *to, int32_t b, int32_t head)
{
    const int32_t q_len = to->batch->sequences[b].q_len, tile = to->tile > 0 ? to->tile : q_len;
    for (int32_t t = (q_len - 1) / tile; t >= 0; t--) add_tile(to, b, head, t * tile, q_len - t * tile < tile ? q_len : t * tile + tile);
}

/* Items that add_head makes; the same for every head. */
static int64_t items_of_head(const struct builder *like, int32_t b)
{
    int64_t part_rows = 0;
    struct builder count = *like;
    count.items = NULL;
    count.merges = NULL;
    count.count = 0;
    count.part_rows = &part_rows;
    add_head(&count, b, 0);
    return count.count;
}

/* Heads that take turns, tile by tile. Rows that cut the keys take chunk after chunk, each with all heads: in most caches the heads of a token lie side by side, so
 * these items share memory pages; head after head would come back to every page once per head (8 heads, 32768 keys, f16: 6.3 ms for 5.2). On devices that run
 * hundreds of items at once the dear tiles of causal heads come first, whichever head's, or the last head's would end alone; as many heads as such a device's cache
 * holds K and V of. */
static int32_t heads_in_turn(const struct builder *to, const struct sequence *s, int32_t heads)
{
    const struct heed_plan *plan = to->plan;
    const struct problem *p = &plan->problem;
    if (chunk_of(to, s) > 0) return heads;
    if (!(p->flags & HEED_CAUSAL) || !plan->device || !plan->device->automatic) return 1;
    const int64_t bytes = (type_row_bytes(p->k_type, p->head_dim) + type_row_bytes(p->v_type, p->v_head_dim)) * s->kv_len;
    const int64_t fit = bytes > 0 ? CACHE_BYTES / bytes * (to->row->packs_group || MUTANT(schedule_turn_group) ? 1 : p->group) : heads;
    return fit < 1 ? 1 : fit < heads ? (int32_t)fit : heads;
}

/* Queries per item: q_tile; q_tile_few where that makes few items, so that they can be shared out. */
static int32_t tile_of(const struct heed_batch *batch, const struct kernel_row *row, enum kind kind)
{
    const struct problem *p = &batch->plan->problem;
    int64_t items = 0;
    if (!row || row->q_tile_few == 0) return row ? row->q_tile : 0;
    for (int32_t b = 0; b < batch->batch && items < ITEMS_MANY; b++) {
        const int32_t q_len = batch->sequences[b].q_len;
        if (q_len == 0 || (sequence_kind(batch->plan, q_len) != kind && !MUTANT(schedule_turn_few))) continue;
        items += ((int64_t)q_len + row->q_tile - 1) / row->q_tile * (row->packs_group ? p->kv_heads : p->q_heads);
    }
    return items < ITEMS_MANY ? row->q_tile_few : row->q_tile;
}

/* All items of one kind of step. */
static void build(struct builder *to, enum kind kind)
{
    const struct problem *p = &to->plan->problem;
    const int32_t heads = to->row->packs_group ? p->kv_heads : p->q_heads;
    for (int32_t b = 0; b < to->batch->batch; b++) {
        const int32_t q_len = to->batch->sequences[b].q_len;
        if (q_len == 0 || sequence_kind(to->plan, q_len) != kind) continue;
        const int32_t turn = heads_in_turn(to, &to->batch->sequences[b], heads);
        const int64_t each = to->items && turn > 1 ? items_of_head(to, b) : 0;
        for (int32_t begin = 0; begin < heads; begin += turn) {
            const int32_t end = begin + turn < heads ? begin + turn : heads;
            const int64_t first = to->count;
            to->step = each > 1 && !MUTANT(schedule_turn_step) ? end - begin : 1;
            for (int32_t head = begin; head < end; head++) {
                to->at = each > 1 ? first + head - begin : to->count;
                add_head(to, b, head);
            }
        }
    }
}

static heed_status build_list(const struct services *services, struct heed_batch *batch, enum kind kind)
{
    struct work_list *list = &batch->work[kind];
    struct builder count = {.plan = batch->plan, .batch = batch, .row = batch->plan->row[kind]};
    int64_t part_rows = batch->part_rows;
    count.part_rows = &part_rows;
    count.tile = tile_of(batch, count.row, kind);
    list->row = count.row;
    build(&count, kind);
    if (count.count == 0) return HEED_OK;
    if (count.count > INT32_MAX || part_rows > INT32_MAX)
        return fail(HEED_UNSUPPORTED, "the batch makes %lld work items and %lld partial rows, more than 2^31 - 1 in one call",
                    (long long)count.count, (long long)part_rows);

    struct builder fill = count;
    fill.count = fill.merge_count = 0;
    fill.part_rows = &batch->part_rows;
    list->items = fill.items = memory_new(services, (size_t)count.count, sizeof *list->items);
    if (!list->items) return out_of_memory((size_t)count.count * sizeof *list->items);
    if (count.merge_count) {
        list->merges = fill.merges = memory_new(services, (size_t)count.merge_count, sizeof *list->merges);
        if (!list->merges) return out_of_memory((size_t)count.merge_count * sizeof *list->merges);
    }
    build(&fill, kind);
    list->count = (int32_t)fill.count;
    list->merge_count = (int32_t)fill.merge_count;
    return HEED_OK;
}

/* ---- scores and key sums ------------------------------------------------------------ */

/* Does the pass over the scores have to look at some of the query heads [begin, end)? */
static bool heads_scored(const struct heed_batch *batch, int32_t begin, int32_t end)
{
    if (batch->plan->problem.flags & HEED_WRITE_KEY_SUMS) return true;
    for (int32_t h = begin; h < end; h++)
        if (batch->head_slots[h] >= 0) return true;
    return false;
}

/* One head (or group, or all of them) of a sequence: every key, in chunks where the row can cut them. */
static void add_scored(struct builder *to, int32_t b, int32_t head)
{
    const struct sequence *s = &to->batch->sequences[b];
    const int32_t chunk = to->row->kv_chunk > 0 ? to->row->kv_chunk : s->kv_len;
    const bool step = !(to->plan->problem.flags & HEED_WRITE_SCORES) && s->q_len > 0 && sequence_kind(to->plan, s->q_len) == KIND_DECODE &&
                      to->plan->row[KIND_DECODE]->order == ORDER_OWN;
    for (int64_t j = 0; j < s->kv_len; j += chunk) {
        const int64_t end = j + chunk < s->kv_len ? j + chunk : s->kv_len;
        add_item(to, (struct work_item){.sequence = b, .head = head, .q_begin = first_scored(to->batch, s), .q_end = s->q_len,
                                        .kv_begin = (int32_t)j, .kv_end = (int32_t)(MUTANT(schedule_scores_last_key) ? end - 1 : end), .part = -1,
                                        .reserved = step ? SCORED_STEP : 0});
    }
}

static void build_scored(struct builder *to)
{
    const struct problem *p = &to->plan->problem;
    const bool sums = p->flags & HEED_WRITE_KEY_SUMS, together = sums && (p->flags & HEED_KEY_SUMS_ALL_HEADS);
    const int32_t each = to->row->packs_group ? p->group : 1;
    to->step = 1;
    for (int32_t b = 0; b < to->batch->batch; b++) {
        if (to->batch->sequences[b].q_len == 0 && (!sums || MUTANT(schedule_scores_no_query))) continue;
        if (together) {
            add_scored(to, b, -1);
            continue;
        }
        for (int32_t head = 0; head < p->q_heads / each; head++)
            if (heads_scored(to->batch, head * each, (head + 1) * each)) add_scored(to, b, head);
    }
}

static heed_status build_scores_list(const struct services *services, struct heed_batch *batch)
{
    struct work_list *list = &batch->work[KIND_SCORES];
    struct builder count = {.plan = batch->plan, .batch = batch, .row = batch->plan->row[KIND_SCORES]};
    list->row = count.row;
    if (!count.row) return HEED_OK;
    build_scored(&count);
    if (count.count == 0) return HEED_OK;
    if (count.count > INT32_MAX)
        return fail(HEED_UNSUPPORTED, "the scores of the batch make %lld work items, more than 2^31 - 1 in one call", (long long)count.count);
    struct builder fill = count;
    fill.count = fill.at = 0;
    list->items = fill.items = memory_new(services, (size_t)count.count, sizeof *list->items);
    if (!list->items) return out_of_memory((size_t)count.count * sizeof *list->items);
    build_scored(&fill);
    list->count = (int32_t)fill.count;
    return HEED_OK;
}

/* ---- all of it ------------------------------------------------------------------------ */

static size_t round_up(size_t bytes) { return (bytes + 63) / 64 * 64; }

heed_status schedule_batch(const struct services *services, struct heed_batch *batch)
{
    batch->part_rows = 0;
    batch->workspace_bytes = 0;
    heed_status status = build_list(services, batch, KIND_PREFILL);
    if (status == HEED_OK) status = build_list(services, batch, KIND_DECODE);
    if (status == HEED_OK) status = build_scores_list(services, batch);
    if (status != HEED_OK) {
        schedule_release(services, batch);
        return status;
    }
    const size_t row_bytes = ((size_t)batch->plan->problem.v_head_dim + 2) * sizeof(float);
    if (MUTANT(schedule_short_workspace) && batch->part_rows) batch->part_rows -= 1;
    batch->kept_offset = round_up((size_t)batch->part_rows * row_bytes); /* < 2^31 * 2^13: no overflow in 64 bits */
    batch->kept_bytes = 0;
    if (batch->plan->problem.features & FEATURE_SUMS)
        batch->kept_bytes = round_up((size_t)batch->q_total * (size_t)batch->plan->problem.q_heads * 2 * sizeof(float));
    batch->workspace_bytes = batch->kept_offset + batch->kept_bytes;
    return HEED_OK;
}

void schedule_release(const struct services *services, struct heed_batch *batch)
{
    for (int kind = 0; kind < WORK_KINDS; kind++) {
        memory_delete(services, batch->work[kind].items);
        memory_delete(services, batch->work[kind].merges);
        batch->work[kind] = (struct work_list){0};
    }
}

double schedule_pairs(const struct heed_batch *batch)
{
    const struct problem *p = &batch->plan->problem;
    double pairs = 0;
    for (int32_t b = 0; b < batch->batch; b++) {
        const struct sequence *s = &batch->sequences[b];
        for (int32_t i = 0; i < s->q_len; i++) {
            int32_t begin, end;
            visible_by_position(p, s, query_position(batch, s, i), &begin, &end);
            pairs += end - begin;
        }
    }
    return pairs * p->q_heads;
}
