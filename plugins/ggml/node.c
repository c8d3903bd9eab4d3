/* SPDX-License-Identifier: MIT
 * node.c - a FLASH_ATTN_EXT node of ggml in heed's words, and the exact list of those that are refused. What is not refused here is sent here, and
 * there is no second chance: so an extra source or parameter that a later ggml may know is a refusal, too.
 */
#include "plugin.h"

#include <math.h>
#include <string.h>

enum { SRC_Q, SRC_K, SRC_V, SRC_MASK, SRC_SINKS, SRC_COUNT };
/* op_params, in words: scale, max_bias, softcap (floats); wanted precision (heed's is f32 always); most visible keys of a row (a hint). */
enum { PARAM_SCALE, PARAM_MAX_BIAS, PARAM_SOFTCAP, PARAM_PRECISION, PARAM_KEYS, PARAM_COUNT };

static float param(const struct ggml_tensor *node, int n)
{
    float x;
    memcpy(&x, &node->op_params[n], sizeof x);
    return x;
}

static heed_type type_of(enum ggml_type type)
{
    switch (type) {
    case GGML_TYPE_F32: return HEED_F32;
    case GGML_TYPE_F16: return HEED_F16;
    case GGML_TYPE_BF16: return HEED_BF16;
    case GGML_TYPE_Q8_0: return HEED_Q8_0;
    case GGML_TYPE_Q4_0: return HEED_Q4_0;
    default: return HEED_TYPE_DEFAULT;
    }
}

float alibi_slope(float max_bias, int32_t heads, int32_t h)
{
    int32_t whole = 1; /* the power of two at or below heads */
    while (whole <= heads / 2) whole *= 2;
    return h < whole ? powf(powf(2.0f, -max_bias / (float)whole), (float)(h + 1))
                     : powf(powf(2.0f, -max_bias / 2.0f / (float)whole), (float)(2 * (h - whole) + 1));
}

heed_tensor tensor_of(const struct ggml_tensor *t, int head, int token)
{
    const int64_t unit = ggml_blck_size(t->type) > 1 ? 1 : (int64_t)ggml_type_size(t->type);
    return (heed_tensor){.data = t->data,
                         .bytes = ggml_nbytes(t),
                         .batch_stride = (int64_t)t->nb[3] / unit,
                         .head_stride = (int64_t)t->nb[head] / unit,
                         .token_stride = (int64_t)t->nb[token] / unit};
}

/* ---- what is refused ------------------------------------------------------------ */

/* Rows whose elements lie side by side, strides that are whole elements, lengths that fit 32 bits. */
static bool has_rows(const struct ggml_tensor *t)
{
    const size_t size = ggml_type_size(t->type), unit = ggml_blck_size(t->type) > 1 ? 1 : size;
    if (t->nb[0] != size) return false;
    for (int n = 0; n < 4; n++)
        if (t->ne[n] < 0 || t->ne[n] > INT32_MAX || t->nb[n] % unit != 0) return false;
    return true;
}

static const char *shapes_refused(const struct ggml_tensor *node)
{
    const struct ggml_tensor *q = node->src[SRC_Q], *k = node->src[SRC_K], *v = node->src[SRC_V];
    if (!has_rows(q) || !has_rows(k) || !has_rows(v) || !has_rows(node)) return "rows of single elements, or lengths beyond 32 bits";
    if (q->ne[0] != k->ne[0] || q->ne[3] != k->ne[3] || k->ne[1] != v->ne[1] || k->ne[2] != v->ne[2] || k->ne[3] != v->ne[3])
        return "q, k and v of different shapes";
    if (k->ne[2] == 0 || q->ne[2] % k->ne[2] != 0) return "query heads that are no multiple of the KV heads";
    if (node->ne[0] != v->ne[0] || node->ne[1] != q->ne[2] || node->ne[2] != q->ne[1] || node->ne[3] != q->ne[3]) return "a result of another shape";
    return NULL;
}

/* ggml repeats a mask of n heads by h % n; strides can say that for 1 and for all. The same for sequences. */
static const char *mask_refused(const struct ggml_tensor *node)
{
    const struct ggml_tensor *q = node->src[SRC_Q], *mask = node->src[SRC_MASK];
    if (!mask) return NULL;
    if (mask->type != GGML_TYPE_F16 || !has_rows(mask)) return "a mask that is not f16";
    if (mask->ne[0] < node->src[SRC_K]->ne[1] || mask->ne[1] < q->ne[1]) return "a mask smaller than the scores";
    if (mask->ne[2] != 1 && mask->ne[2] != q->ne[2]) return "a mask for some of the heads";
    if (mask->ne[3] != 1 && mask->ne[3] != q->ne[3]) return "a mask for some of the sequences";
    return NULL;
}

static const char *params_refused(const struct ggml_tensor *node)
{
    const float scale = param(node, PARAM_SCALE), softcap = param(node, PARAM_SOFTCAP), max_bias = param(node, PARAM_MAX_BIAS);
    const int32_t heads = (int32_t)node->src[SRC_Q]->ne[2];
    if (!isfinite(scale) || scale == 0) return "a scale of 0 or infinity"; /* heed's 0 is 1 / sqrt(D) */
    if (!isfinite(softcap) || !isfinite(max_bias)) return "a softcap or max_bias that is not finite";
    if (max_bias > 0 && !node->src[SRC_MASK]) return "ALiBi without a mask";
    if (max_bias > 0 && !(alibi_slope(max_bias, heads, heads - 1) > 0 && alibi_slope(max_bias, heads, heads / 2) > 0))
        return "ALiBi with slopes of 0"; /* times -infinity */
    for (size_t n = PARAM_COUNT; n < sizeof node->op_params / sizeof *node->op_params; n++)
        if (node->op_params[n]) return "a parameter that this plug-in does not know";
    return NULL;
}

const char *node_refused(const struct ggml_tensor *node)
{
    const char *reason;
    struct attention a;
    if (node->op != GGML_OP_FLASH_ATTN_EXT) return "another operation";
    for (int n = 0; n < GGML_MAX_SRC; n++)
        if (n <= SRC_V ? !node->src[n] : n >= SRC_COUNT && node->src[n]) return "other sources than q, k, v, mask and sinks";
    const struct ggml_tensor *sinks = node->src[SRC_SINKS];
    if (node->src[SRC_Q]->type != GGML_TYPE_F32 || node->type != GGML_TYPE_F32) return "q or the result not f32";
    if (!type_of(node->src[SRC_K]->type)) return "this type of k";
    if (!type_of(node->src[SRC_V]->type)) return "this type of v";
    if ((reason = shapes_refused(node)) || (reason = mask_refused(node))) return reason;
    if (sinks && (sinks->type != GGML_TYPE_F32 || sinks->nb[0] != sizeof(float) || sinks->ne[0] < node->src[SRC_Q]->ne[2])) return "such sinks";
    if ((reason = params_refused(node))) return reason;
    node_take(node, &a);
    a.desc.bias_type = HEED_F16;
    if (a.mask) a.desc.flags |= HEED_BIAS | HEED_KEY_RANGE;
    return heed_desc_check(&a.desc) == HEED_OK ? NULL : heed_error_message();
}

/* ---- what is taken ---------------------------------------------------------------- */

void node_take(const struct ggml_tensor *node, struct attention *a)
{
    const struct ggml_tensor *q = node->src[SRC_Q], *k = node->src[SRC_K], *v = node->src[SRC_V], *sinks = node->src[SRC_SINKS];
    memset(a, 0, sizeof *a);
    a->mask = node->src[SRC_MASK];
    a->max_bias = param(node, PARAM_MAX_BIAS) > 0 ? param(node, PARAM_MAX_BIAS) : 0;
    a->desc = (heed_desc){.struct_size = sizeof a->desc,
                          .q_type = HEED_F32,
                          .k_type = type_of(k->type),
                          .v_type = type_of(v->type),
                          .o_type = HEED_F32,
                          .q_heads = (int32_t)q->ne[2],
                          .kv_heads = (int32_t)k->ne[2],
                          .head_dim = (int32_t)q->ne[0],
                          .v_head_dim = (int32_t)v->ne[0],
                          .scale = param(node, PARAM_SCALE),
                          .softcap = fabsf(param(node, PARAM_SOFTCAP)), /* c tanh(s / c) is even in c */
                          .flags = sinks ? HEED_SINKS : 0};
    a->lengths = (heed_lengths){
        .struct_size = sizeof a->lengths, .batch = (int32_t)q->ne[3], .q_len = (int32_t)q->ne[1], .kv_len = (int32_t)k->ne[1]};
    a->tensors.struct_size = sizeof a->tensors;
    a->tensors.q = tensor_of(q, 2, 1);
    a->tensors.k = tensor_of(k, 2, 1);
    a->tensors.v = tensor_of(v, 2, 1);
    a->tensors.o = tensor_of(node, 1, 2);
    if (sinks) a->tensors.sinks = (heed_tensor){.data = sinks->data, .bytes = ggml_nbytes(sinks)};
}
