/* SPDX-License-Identifier: MIT
 * attend.c - one node: its mask, then heed_forward(). With ALiBi ggml multiplies the mask by the head's slope,
 *
 *     bias[h][i][j] = slope[h] * mask[i][j]
 *
 * and a mask may hold anything (distances, as a rule, rounded to f16): so that product is made in f32, for as many heads and queries at a time as
 * fit a room of fixed size, and only there is anything copied.
 */
#include "plugin.h"

enum { BIAS_MOST = 1 << 22 }; /* numbers in the room for biases, if one row of one group fits: 16 MiB */

/* One piece of the work: heads of the KV heads [g, g + groups), queries [i, i + rows) of sequence b. */
struct piece {
    int32_t b, g, groups, i, rows;
};

static void move(heed_tensor *t, int64_t elements, int64_t element_bytes)
{
    t->data = (char *)t->data + elements * element_bytes;
    t->bytes -= (uint64_t)(elements * element_bytes);
}

static int64_t unit_of(heed_type type) { return type == HEED_F32 ? 4 : type == HEED_F16 || type == HEED_BF16 ? 2 : 1; }

static void fill_bias(const struct attention *a, const struct piece *piece, int32_t keys, float *bias)
{
    const int32_t group = a->desc.q_heads / a->desc.kv_heads, first = piece->g * group, heads = piece->groups * group;
    for (int32_t i = 0; i < piece->rows; i++)
        for (int32_t n = 0; n < heads; n++) {
            const int32_t h = first + n;
            const ggml_fp16_t *from = (const ggml_fp16_t *)a->tensors.bias.data + piece->b * a->tensors.bias.batch_stride +
                                      h * a->tensors.bias.head_stride + (piece->i + i) * a->tensors.bias.token_stride;
            float *to = bias + ((int64_t)n * piece->rows + i) * keys;
            const float slope = alibi_slope(a->max_bias, a->desc.q_heads, h);
            ggml_fp16_to_fp32_row(from, to, keys);
            for (int32_t j = 0; j < keys; j++) to[j] *= slope;
        }
}

static heed_status attend_piece(heed_context *context, const struct attention *whole, const struct piece *piece, float *bias)
{
    struct attention a = *whole;
    const int32_t group = a.desc.q_heads / a.desc.kv_heads, h = piece->g * group;
    const int32_t keys = a.lengths.kv_lens ? a.lengths.kv_lens[piece->b] : a.lengths.kv_len;
    fill_bias(whole, piece, keys, bias);
    a.desc.kv_heads = piece->groups;
    a.desc.q_heads = piece->groups * group;
    a.desc.bias_type = HEED_F32;
    a.desc.flags |= HEED_BIAS;
    a.lengths = (heed_lengths){.struct_size = sizeof a.lengths, .batch = 1, .q_len = piece->rows, .kv_len = keys};
    heed_tensors *t = &a.tensors;
    move(&t->q, piece->b * t->q.batch_stride + h * t->q.head_stride + piece->i * t->q.token_stride, 4);
    move(&t->o, piece->b * t->o.batch_stride + h * t->o.head_stride + piece->i * t->o.token_stride, 4);
    move(&t->k, piece->b * t->k.batch_stride + piece->g * t->k.head_stride, unit_of(a.desc.k_type));
    move(&t->v, piece->b * t->v.batch_stride + piece->g * t->v.head_stride, unit_of(a.desc.v_type));
    if (a.desc.flags & HEED_SINKS) move(&t->sinks, h, 4);
    if (a.desc.flags & HEED_KEY_RANGE) move(&t->key_range, piece->b * t->key_range.batch_stride + 2 * (int64_t)piece->i, 4);
    t->bias = (heed_tensor){.data = bias,
                            .bytes = (uint64_t)a.desc.q_heads * (uint64_t)piece->rows * (uint64_t)keys * sizeof(float),
                            .head_stride = (int64_t)piece->rows * keys,
                            .token_stride = keys};
    return heed_forward(context, 0, &a.desc, &a.lengths, t);
}

static heed_status attend_alibi(heed_context *context, struct room *room, const struct attention *a)
{
    const int32_t group = a->desc.q_heads / a->desc.kv_heads, rows = a->lengths.q_len;
    const int64_t row = (int64_t)group * (a->lengths.kv_len > 0 ? a->lengths.kv_len : 1);
    int64_t fit = BIAS_MOST / row;
    if (fit < 1) fit = 1;
    struct piece most = {.groups = 1, .rows = rows < fit ? rows : (int32_t)fit};
    if (rows > 0 && fit / rows > 1) most.groups = fit / rows < a->desc.kv_heads ? (int32_t)(fit / rows) : a->desc.kv_heads;
    if (rows == 0 || a->lengths.batch == 0) return HEED_OK;
    if (!room_for(room, (size_t)(row * most.groups * most.rows) * sizeof(float))) return HEED_OUT_OF_MEMORY;

    for (int32_t b = 0; b < a->lengths.batch; b++)
        for (int32_t g = 0; g < a->desc.kv_heads; g += most.groups)
            for (int32_t i = 0; i < rows; i += most.rows) {
                const struct piece piece = {.b = b,
                                            .g = g,
                                            .groups = a->desc.kv_heads - g < most.groups ? a->desc.kv_heads - g : most.groups,
                                            .i = i,
                                            .rows = rows - i < most.rows ? rows - i : most.rows};
                const heed_status status = attend_piece(context, a, &piece, room->data);
                if (status != HEED_OK) return status;
            }
    return HEED_OK;
}

heed_status attend(heed_context *context, struct rooms *rooms, const struct ggml_tensor *node)
{
    struct attention a;
    enum mask_sort sort;
    node_take(node, &a);
    if (!mask_take(&a, &rooms->ranges, &sort)) return HEED_OUT_OF_MEMORY;
    if (sort == MASK_BIAS) {
        if (a.max_bias > 0) return attend_alibi(context, &rooms->bias, &a);
        a.desc.flags |= HEED_BIAS;
    }
    return heed_forward(context, 0, &a.desc, &a.lengths, &a.tensors);
}
