/* SPDX-License-Identifier: MIT
 * test_schedule.c - lengths -> work items, whoever runs them: each tile of each head once, each of its chunks once and in key order, dear ones first, and
 * which heads take turns. No data, no kernels.
 */
#include "schedule.h"
#include "inner.h"
#include <criterion/criterion.h>
#include <stdio.h>

enum { Q_TILE = 64 };

/* A row that prefills, and decodes the sequences of up to 4 queries. */
struct rig {
    struct inner in;
    struct kernel_row row;
};

static void rig_begin(struct rig *rig, const char *words, int32_t kv_chunk, bool packs_group, bool gpu)
{
    inner_begin(&rig->in);
    cr_assert_eq(inner_problem(&rig->in, words), HEED_OK, "%s: %s", words, heed_error_message());
    rig->row = (struct kernel_row){.name = "rig", .kinds = KIND_BIT(KIND_PREFILL) | KIND_BIT(KIND_DECODE), .q_tile = Q_TILE, .kv_chunk = kv_chunk,
                                   .packs_group = packs_group};
    rig->in.plan.row[KIND_PREFILL] = rig->in.plan.row[KIND_DECODE] = &rig->row;
    rig->in.plan.decode_max_q_len = 4;
    rig->in.device.automatic = gpu;
}

static void rig_schedule(struct rig *rig, const heed_lengths *lengths)
{
    schedule_release(&rig->in.services, &rig->in.batch);
    cr_assert_eq(inner_lengths(&rig->in, lengths), HEED_OK, "%s", heed_error_message());
    cr_assert_eq(schedule_batch(&rig->in.services, &rig->in.batch), HEED_OK, "%s", heed_error_message());
}

static void rig_end(struct rig *rig)
{
    schedule_release(&rig->in.services, &rig->in.batch);
    inner_end(&rig->in);
    cr_assert_eq(rig->in.memory.in_use, 0);
}

/* Where the tile of an item would stand if sequence came after sequence, head after head: one number for each. */
static int64_t tile_number(const struct rig *rig, int32_t heads, const struct work_item *item)
{
    int64_t before = 0;
    for (int32_t b = 0; b < item->sequence; b++) before += (int64_t)heads * ((rig->in.batch.sequences[b].q_len + Q_TILE - 1) / Q_TILE);
    const int64_t tiles = (rig->in.batch.sequences[item->sequence].q_len + Q_TILE - 1) / Q_TILE;
    return before + item->head * tiles + item->q_begin / Q_TILE;
}

/* Both kinds' items cover every visible key of every tile of every head once; pieces of a tile follow each other in key order, each with partial rows of its own. */
static void expect_whole(const struct rig *rig)
{
    const struct heed_batch *batch = &rig->in.batch;
    const struct problem *p = &rig->in.plan.problem;
    const int32_t heads = rig->row.packs_group ? p->kv_heads : p->q_heads, cut = rig->row.kv_chunk;
    int64_t tiles = 0, met = 0, rows = 0;
    for (int32_t b = 0; b < batch->batch; b++) tiles += (int64_t)heads * ((batch->sequences[b].q_len + Q_TILE - 1) / Q_TILE);
    int32_t *reached = calloc((size_t)tiles + 1, sizeof *reached); /* 1 + the key up to which a tile was met; 0 = not met */
    for (int kind = KIND_PREFILL; kind <= KIND_DECODE; kind++)
        for (int32_t n = 0; n < batch->work[kind].count; n++) {
            const struct work_item *item = &batch->work[kind].items[n];
            cr_assert(item->sequence >= 0 && item->sequence < batch->batch && item->head >= 0 && item->head < heads, "kind %d, item %d: b %d, h %d", kind,
                      (int)n, (int)item->sequence, (int)item->head);
            const struct sequence *s = &batch->sequences[item->sequence];
            const int32_t chunk = s->q_len <= rig->in.plan.short_max_q_len && rig->row.short_chunk > 0 ? rig->row.short_chunk : cut;
            const int32_t q_end = item->q_begin + Q_TILE < s->q_len ? item->q_begin + Q_TILE : s->q_len;
            cr_assert(item->q_begin >= 0 && item->q_begin % Q_TILE == 0 && item->q_begin < s->q_len && item->q_end == q_end);
            cr_assert_eq(kind, (int)sequence_kind(&rig->in.plan, s->q_len));
            const int64_t last = s->position + q_end - s->first, end = p->flags & HEED_CAUSAL && last < s->kv_len ? last : s->kv_len; /* keys in sight: [0, end) */
            int32_t *const at = &reached[tile_number(rig, heads, item)];
            if (*at == 0) met++, *at = 1;
            else cr_assert(chunk > 0 && item->part >= 0, "b %d, h %d, queries from %d on: twice", (int)item->sequence, (int)item->head, (int)item->q_begin);
            cr_assert_eq(item->kv_begin, *at - 1, "b %d, h %d: keys from %d on, behind %d", (int)item->sequence, (int)item->head, (int)item->kv_begin, (int)*at - 1);
            cr_assert(item->kv_end <= s->kv_len && (chunk == 0 || item->kv_end - item->kv_begin <= chunk));
            if (item->part >= 0) rows += (item->q_end - item->q_begin) * (rig->row.packs_group ? p->group : 1);
            else cr_assert(item->kv_end >= end, "b %d, h %d: keys up to %d of %d", (int)item->sequence, (int)item->head, (int)item->kv_end, (int)end);
            *at = item->kv_end + 1;
        }
    cr_assert_eq(met, tiles, "%d of %d tiles", (int)met, (int)tiles);
    cr_assert_eq(rows, batch->part_rows);
    free(reached);
}

/* Heads that stand beside each other at the beginning of a sequence's items. */
static int32_t turn_of(const struct heed_batch *batch, int32_t b)
{
    const struct work_list *list = &batch->work[KIND_PREFILL];
    int32_t n = 0, turn = 0;
    while (n < list->count && list->items[n].sequence != b) n++;
    while (n + turn < list->count && list->items[n + turn].sequence == b && list->items[n + turn].head == turn && list->items[n + turn].q_begin == list->items[n].q_begin) turn++;
    return turn;
}

/* Turns of `turn` heads, the last one of what is left: tile by tile from the last on, and each tile with all heads of the turn. */
static void expect_turns(const struct rig *rig, int32_t b, int32_t turn)
{
    const struct work_list *list = &rig->in.batch.work[KIND_PREFILL];
    const struct problem *p = &rig->in.plan.problem;
    const int32_t heads = rig->row.packs_group ? p->kv_heads : p->q_heads, tiles = (rig->in.batch.sequences[b].q_len + Q_TILE - 1) / Q_TILE;
    int32_t n = 0;
    cr_assert_eq(turn_of(&rig->in.batch, b), turn, "b %d: %d heads, not %d", (int)b, (int)turn_of(&rig->in.batch, b), (int)turn);
    while (list->items[n].sequence != b) n++;
    for (int32_t begin = 0; begin < heads; begin += turn)
        for (int32_t t = tiles - 1; t >= 0; t--)
            for (int32_t h = begin; h < heads && h < begin + turn; h++, n++)
                cr_assert(list->items[n].sequence == b && list->items[n].head == h && list->items[n].q_begin == t * Q_TILE, "item %d: b %d, h %d, queries from %d on",
                          (int)n, (int)list->items[n].sequence, (int)list->items[n].head, (int)list->items[n].q_begin);
}

#define LENGTHS(...) (&(heed_lengths){.struct_size = sizeof(heed_lengths), __VA_ARGS__})
#define INTS(...) ((const int32_t[]){__VA_ARGS__})

/* K and V of 16384 keys fill half of the cache that turns are made for, and each KV head serves two query heads: turns of 4, 4 and 2. */
Test(schedule, heads_of_a_causal_sequence_take_turns_on_gpus)
{
    struct rig rig;
    rig_begin(&rig, "hq10 hk5 d128 f32 causal", 0, false, true);
    rig_schedule(&rig, LENGTHS(.batch = 1, .q_len = 300, .kv_len = 16384));
    expect_whole(&rig);
    expect_turns(&rig, 0, 4);
    rig_schedule(&rig, LENGTHS(.batch = 1, .q_len = 300, .kv_len = 16385)); /* a key more than fits twice */
    expect_whole(&rig);
    expect_turns(&rig, 0, 2);
    rig_schedule(&rig, LENGTHS(.batch = 1, .q_len = 300, .kv_len = 40000)); /* not even one head fits */
    expect_whole(&rig);
    expect_turns(&rig, 0, 1);
    rig_schedule(&rig, LENGTHS(.batch = 1, .q_len = 40, .kv_len = 16384)); /* one tile per head */
    expect_whole(&rig);
    rig_end(&rig);
}

/* Each sequence by its own length, some of them empty, one without keys, one a step of the other kind. */
Test(schedule, turns_of_ragged_batches)
{
    struct rig rig;
    rig_begin(&rig, "hq10 hk5 d128 f32 causal", 0, false, true);
    rig_schedule(&rig, LENGTHS(.batch = 6, .q_start = INTS(0, 300, 300, 303, 368, 768, 833), .kv_lens = INTS(16384, 9, 5000, 0, 200, 9000)));
    expect_whole(&rig);
    expect_turns(&rig, 0, 4);
    expect_turns(&rig, 3, 10);
    expect_turns(&rig, 4, 10);
    expect_turns(&rig, 5, 6);
    cr_assert_eq(rig.in.batch.work[KIND_DECODE].count, 10);
    rig_end(&rig);
}

Test(schedule, turns_of_packed_groups)
{
    struct rig rig;
    rig_begin(&rig, "hq10 hk5 d128 f32 causal", 0, true, true);
    rig_schedule(&rig, LENGTHS(.batch = 2, .q_len = 200, .kv_len = 16384));
    expect_whole(&rig);
    expect_turns(&rig, 0, 2);
    expect_turns(&rig, 1, 2);
    rig_end(&rig);
}

/* Nothing is dear where every tile sees every key, and a CPU's few workers go head by head, for its own cache. */
Test(schedule, head_after_head)
{
    struct rig rig;
    rig_begin(&rig, "hq10 hk5 d128 f32", 0, false, true);
    rig_schedule(&rig, LENGTHS(.batch = 1, .q_len = 300, .kv_len = 16384));
    expect_whole(&rig);
    expect_turns(&rig, 0, 1);
    rig_end(&rig);
    rig_begin(&rig, "hq10 hk5 d128 f32 causal", 0, false, false);
    rig_schedule(&rig, LENGTHS(.batch = 2, .q_len = 300, .kv_len = 700));
    expect_whole(&rig);
    expect_turns(&rig, 0, 1);
    rig_end(&rig);
}

/* Rows that cut the keys: chunk after chunk, each with all heads. */
Test(schedule, chunks_take_turns_everywhere)
{
    for (int gpu = 0; gpu < 2; gpu++)
        for (int packs = 0; packs < 2; packs++) {
            struct rig rig;
            rig_begin(&rig, "hq10 hk5 d128 f32 causal", 256, packs, gpu);
            rig_schedule(&rig, LENGTHS(.batch = 4, .q_start = INTS(0, 1, 4, 304, 305), .kv_lens = INTS(3000, 256, 1000, 257)));
            expect_whole(&rig);
            const struct work_item *items = rig.in.batch.work[KIND_DECODE].items;
            const int32_t heads = packs ? 5 : 10;
            for (int32_t n = 0; n < 12 * heads; n++)
                cr_assert(items[n].head == n % heads && items[n].kv_begin == n / heads * 256, "item %d: h %d, keys from %d on", (int)n, (int)items[n].head,
                          (int)items[n].kv_begin);
            rig_end(&rig);
        }
}

/* Sequences of up to 130 queries take their keys in chunks of 192; the longer one has them whole. */
Test(schedule, short_sequences_are_cut)
{
    for (int packs = 0; packs < 2; packs++) {
        struct rig rig;
        rig_begin(&rig, "hq10 hk5 d128 f32 causal", 0, packs, false);
        rig.row.short_chunk = 192, rig.in.plan.short_max_q_len = 130;
        rig_schedule(&rig, LENGTHS(.batch = 4, .q_start = INTS(0, 130, 261, 268, 269), .kv_lens = INTS(1000, 1000, 193, 400)));
        expect_whole(&rig);
        const struct work_list *lists = rig.in.batch.work;
        const int32_t heads = packs ? 5 : 10; /* tiles: 5 + 6 + 6 chunks; 3 items; 2 chunks. And a step of one query: 3 */
        cr_assert_eq(lists[KIND_PREFILL].count, 22 * heads, "%d items", (int)lists[KIND_PREFILL].count);
        cr_assert_eq(lists[KIND_PREFILL].merge_count, 4 * heads);
        cr_assert_eq(lists[KIND_DECODE].count, 3 * heads);
        rig_end(&rig);
    }
}

/* 64 items of the larger tile are many; with fewer the smaller tile is taken. */
Test(schedule, few_items_are_smaller)
{
    struct rig rig;
    rig_begin(&rig, "hq8 d16 f32", 0, false, false);
    rig.row.q_tile = 2 * Q_TILE, rig.row.q_tile_few = Q_TILE;
    const int32_t q_len = 2 * Q_TILE * 7 + 1; /* 8 tiles, the last of one query */
    rig_schedule(&rig, LENGTHS(.batch = 1, .q_len = q_len, .kv_len = 3));
    cr_assert_eq(rig.in.batch.work[KIND_PREFILL].count, 8 * 8);
    cr_assert_eq(rig.in.batch.work[KIND_PREFILL].items[1].q_begin, 2 * Q_TILE * 6);
    rig_schedule(&rig, LENGTHS(.batch = 2, .q_start = INTS(0, q_len - 1, q_len + 3), .kv_lens = INTS(3, 3))); /* a tile less; decode does not count */
    cr_assert_eq(rig.in.batch.work[KIND_PREFILL].count, 8 * 14);
    expect_whole(&rig);
    rig_end(&rig);
}
