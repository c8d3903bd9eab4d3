/* SPDX-License-Identifier: MIT
 * harness_instance.c - a problem with its data: made, given back, its outputs reset, its untouchable bytes checked.
 */
#include "dtype.h"
#include "harness_parts.h"
#include "status.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static const unsigned char GAP_PATTERN = 0xA5, RESULT_PATTERN = 0xFF; /* a result that was not written is NaN */

struct instance *instance_begin(const struct problem_line *line, enum instance_variant variant, char *message, size_t capacity)
{
    struct instance *in = calloc(1, sizeof *in);
    if (!in) {
        message_set(message, capacity, "no memory for an instance");
        return NULL;
    }
    in->line = *line;
    in->variant = variant;
    in->q_lens = calloc((size_t)line->batch + 1, sizeof *in->q_lens);
    in->kv_lens = calloc((size_t)line->batch + 1, sizeof *in->kv_lens);
    if (!in->q_lens || !in->kv_lens)
        message_set(message, capacity, "no memory for the lengths of %d sequences", (int)line->batch);
    else if (problem_from_desc(&line->desc, &in->problem) != HEED_OK)
        message_set(message, capacity, "%s", heed_error_message());
    else
        return in;
    instance_free(in);
    return NULL;
}

struct instance *instance_new(const struct problem_line *line, enum instance_variant variant, char *message, size_t capacity)
{
    struct instance *in = line_possible(line, message, capacity) ? instance_begin(line, variant, message, capacity) : NULL;
    if (!in) return NULL;
    if (instance_lengths(in, message, capacity) && instance_lay_out(in, message, capacity)) {
        instance_fill(in);
        if ((variant == INSTANCE_PLAIN || instance_hide(in, HIDDEN_POISON)) && instance_seal(in)) return in;
        message_set(message, capacity, "no memory for the data of %s", line->text);
    }
    instance_free(in);
    return NULL;
}

void instance_free(struct instance *in)
{
    if (!in) return;
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (in->block[role].map) munmap(in->block[role].map, in->block[role].map_bytes);
        free(in->block[role].copy);
        free(in->block[role].owner);
    }
    int32_t *arrays[] = {in->q_lens, in->kv_lens, in->q_start, in->kv_start, in->q_position, in->q_positions, in->kv_first, in->page_table};
    for (size_t n = 0; n < sizeof arrays / sizeof *arrays; n++) free(arrays[n]);
    free(in);
}

void instance_reset(struct instance *in)
{
    for (int role = 0; role < ROLE_COUNT; role++) {
        struct block *block = &in->block[role];
        if (!block->map || !role_is_output((enum role)role)) continue;
        memset(block->open, RESULT_PATTERN, block->open_bytes);
        for (size_t n = 0; block->owner && n < block->open_bytes; n++)
            if (!block->owner[n]) block->open[n] = GAP_PATTERN;
    }
}

bool instance_untouched(const struct instance *in, char *message, size_t capacity)
{
    for (int role = 0; role < ROLE_COUNT; role++) {
        const struct block *block = &in->block[role];
        for (size_t n = 0; block->map && n < block->open_bytes; n++) {
            const bool changed = block->copy ? block->open[n] != block->copy[n]
                                             : block->owner && !block->owner[n] && block->open[n] != GAP_PATTERN;
            if (!changed) continue;
            message_set(message, capacity, "byte %lld of %s was written (%zu bytes belong to it)",
                        (long long)n - (long long)(block->data - block->open), role_name((enum role)role), block->bytes);
            return false;
        }
    }
    return true;
}

/* FNV-1a over the bytes that results own, row by row, so that two layouts of one result hash alike; the least significant byte of an element
 * first, so that two byte orders do. */
uint64_t instance_bits(const struct instance *in)
{
    const enum role roles[] = {ROLE_O, ROLE_LSE, ROLE_SCORES, ROLE_KEY_SUMS};
    uint64_t hash = UINT64_C(0xCBF29CE484222325);
    for (size_t n = 0; n < sizeof roles / sizeof *roles; n++) {
        if (!in->shape[roles[n]].given) continue;
        for (int32_t b = 0, heads, rows; b < in->line.batch; b++) {
            const int64_t bytes = instance_output_rows(in, roles[n], b, &heads, &rows);
            const int64_t swap = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? type_row_bytes(in->shape[roles[n]].type, 1) - 1 : 0;
            for (int32_t h = 0; h < heads; h++)
                for (int32_t i = 0; i < rows; i++) {
                    const unsigned char *row = instance_query_row(in, roles[n], b, h, i);
                    for (int64_t d = 0; d < bytes; d++) hash = (hash ^ row[d ^ swap]) * UINT64_C(0x100000001B3);
                }
        }
    }
    return hash;
}
