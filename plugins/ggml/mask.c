/* SPDX-License-Identifier: MIT
 * mask.c - a mask of ggml is f16 numbers added to the scores; nearly always 0 and -infinity in one run: what is causal, a window, the end of a
 * cache. Finding the run costs a look at the mask, once; computing hidden scores would cost products with every key.
 *
 *     begin_i = first j with mask[i][j] != -infinity,  end_i = 1 + the last one
 */
#include "plugin.h"

#include <stdlib.h>
#include <string.h>

#define HIDDEN UINT16_C(0xfc00) /* -infinity */
#define HIDDEN_4 UINT64_C(0xfc00fc00fc00fc00)
#define NOT_SIGN_4 UINT64_C(0x7fff7fff7fff7fff)

bool room_for(struct room *room, size_t bytes)
{
    if (room->bytes >= bytes) return true;
    free(room->data);
    room->bytes = 0;
    room->data = malloc(bytes);
    if (!room->data) return false;
    room->bytes = bytes;
    return true;
}

static uint64_t four(const uint16_t *m)
{
    uint64_t x;
    memcpy(&x, m, sizeof x);
    return x;
}

static void find_range(const uint16_t *m, int32_t keys, int32_t range[2])
{
    int32_t begin = 0, end = keys;
    while (begin + 4 <= keys && four(m + begin) == HIDDEN_4) begin += 4;
    while (begin < keys && m[begin] == HIDDEN) begin++;
    while (end - 4 >= begin && four(m + end - 4) == HIDDEN_4) end -= 4;
    while (end > begin && m[end - 1] == HIDDEN) end--;
    range[0] = begin < end ? begin : 0;
    range[1] = begin < end ? end : 0;
}

static bool is_zero(const uint16_t *m, int32_t begin, int32_t end)
{
    uint64_t other = 0;
    for (; begin + 32 <= end; begin += 32) {
        for (int n = 0; n < 32; n += 4) other |= four(m + begin + n) & NOT_SIGN_4;
        if (other) return false;
    }
    for (; begin < end; begin++) other |= m[begin] & NOT_SIGN_4;
    return !other;
}

/* Ranges of the rows of mask b; true if nothing but 0 lies in them. *most is the last end, *same whether all are [0, last end). */
static bool find_ranges(const struct ggml_tensor *mask, int32_t b, int32_t rows, int32_t keys, int32_t *range, int32_t *most, bool *same)
{
    const char *row = (const char *)mask->data + b * (int64_t)mask->nb[3];
    bool zero = true;
    *most = 0;
    for (int32_t i = 0; i < rows; i++, row += mask->nb[1]) {
        const uint16_t *m = (const uint16_t *)row;
        find_range(m, keys, range + 2 * i);
        if (range[2 * i + 1] > *most) *most = range[2 * i + 1];
        zero = zero && is_zero(m, range[2 * i], range[2 * i + 1]);
    }
    for (int32_t i = 0; i < rows; i++) *same = *same && range[2 * i] == 0 && range[2 * i + 1] == *most;
    return zero;
}

bool mask_take(struct attention *a, struct room *room, enum mask_sort *sort)
{
    const int32_t batch = a->lengths.batch, rows = a->lengths.q_len, keys = a->lengths.kv_len;
    *sort = MASK_RANGES;
    if (!a->mask) return true;
    *sort = MASK_BIAS;
    a->desc.bias_type = HEED_F16;
    a->tensors.bias = tensor_of(a->mask, 2, 1);
    if (a->mask->ne[2] == 1) a->tensors.bias.head_stride = 0;
    if (a->mask->ne[3] == 1) a->tensors.bias.batch_stride = 0;
    if (a->mask->ne[2] > 1) return true; /* a mask for each head: a range would be one for all */

    const int32_t masks = a->mask->ne[3] == 1 ? 1 : batch;
    const size_t bytes = ((size_t)masks * (size_t)rows * 2 + (size_t)batch) * sizeof(int32_t);
    if (!room_for(room, bytes ? bytes : 1)) return false;
    int32_t *lens = room->data, *ranges = lens + batch;
    bool zero = true, same = true;
    for (int32_t b = 0; b < masks; b++)
        if (!find_ranges(a->mask, b, rows, keys, ranges + (int64_t)b * rows * 2, &lens[b], &same)) zero = false;
    for (int32_t b = masks; b < batch; b++) lens[b] = lens[0];
    a->lengths.kv_lens = lens;
    if (!same) {
        a->desc.flags |= HEED_KEY_RANGE;
        a->tensors.key_range = (heed_tensor){.data = ranges, .bytes = (size_t)masks * (size_t)rows * 2 * sizeof(int32_t),
                                             .batch_stride = masks == 1 ? 0 : 2 * (int64_t)rows, .token_stride = 2};
    }
    if (zero) *sort = MASK_RANGES;
    return true;
}
