/* SPDX-License-Identifier: MIT
 * registry.c - the table of all rows, and why a row does not fit. Rows live in the wings' lists; this is the one place that reads their columns.
 */
#include "registry.h"
#include "dtype.h"
#include "status.h"

const struct kernel_row *registry_row(const struct backend *backend, int32_t n)
{
    for (int list = 0; backend->lists[list]; list++)
        for (const struct kernel_row *row = backend->lists[list]; row->name; row++)
            if (n-- == 0) return row;
    return NULL;
}

static const struct {
    uint64_t bit;
    const char *name;
} features[] = {
    {HEED_CAUSAL, "causal"},
    {HEED_WINDOW, "window"},
    {HEED_ALIBI, "alibi"},
    {HEED_SINKS, "sinks"},
    {HEED_MASK_BOOL, "mask=bool"},
    {HEED_MASK_BITS, "mask=bits"},
    {HEED_BIAS, "bias"},
    {HEED_BIAS_FIRST, "biasfirst"},
    {HEED_KEY_RANGE, "keyrange"},
    {HEED_WRITE_LSE, "lse"},
    {HEED_LSE_BASE2, "lse2"},
    {HEED_LSE_WITHOUT_SINK, "lsenosink"},
    {FEATURE_SOFTCAP, "softcap"},
    {FEATURE_PAGED, "page"},
    {FEATURE_GQA, "grouped heads"},
    {FEATURE_V_DIM, "v_head_dim other than head_dim"},
    {FEATURE_SUMS, "sums kept for the scores"},
};

static const char *missing_feature(uint64_t missing)
{
    for (size_t i = 0; i < sizeof features / sizeof *features; i++)
        if (missing & features[i].bit) return features[i].name;
    return "a feature without a name";
}

static const char *type_refusal(const char *role, uint32_t types, heed_type type, char *text, size_t capacity)
{
    if (types & (1u << type)) return NULL;
    size_t length = text_append(text, capacity, 0, "%s type %s, needs", role, type_name(type));
    for (int t = HEED_F32; t <= HEED_F8_E5M2; t++)
        if (types & (1u << t)) length = text_append(text, capacity, length, " %s", type_name((heed_type)t));
    return text;
}

static const char *dim_refusal(const struct kernel_row *row, const char *name, int32_t dim, char *text, size_t capacity)
{
    if (row->dim_limit && dim > row->dim_limit)
        text_append(text, capacity, 0, "%s %d, at most %d", name, dim, row->dim_limit);
    else if (row->dim_step && dim % row->dim_step)
        text_append(text, capacity, 0, "%s %d, needs a multiple of %d", name, dim, row->dim_step);
    else
        return NULL;
    return text;
}

const char *registry_refusal(const struct kernel_row *row, const struct problem *problem, enum kind kind, char *text, size_t capacity)
{
    const char *reason;
    if (!(row->kinds & KIND_BIT(kind))) return "another kind of step";
    const bool attention = kind == KIND_PREFILL || kind == KIND_DECODE;
    if (attention || kind == KIND_SCORES) {
        const uint64_t missing = problem->features & ~row->features;
        if (missing) {
            text_append(text, capacity, 0, "does not do %s", missing_feature(missing));
            return text;
        }
        if (attention && (problem->flags & HEED_INVARIANT) && row->order == ORDER_OWN) return "its order of arithmetic is not the canonical one";
        if ((reason = type_refusal("q", row->q_types, problem->q_type, text, capacity))) return reason;
        if (attention && (reason = type_refusal("o", row->o_types, problem->o_type, text, capacity))) return reason;
        if ((reason = dim_refusal(row, "head_dim", problem->head_dim, text, capacity))) return reason;
        if (attention && (reason = dim_refusal(row, "v_head_dim", problem->v_head_dim, text, capacity))) return reason;
    }
    if (attention || kind == KIND_SCORES || kind == KIND_APPEND) {
        if ((reason = type_refusal("k", row->k_types, problem->k_type, text, capacity))) return reason;
        if (kind != KIND_SCORES && (reason = type_refusal("v", row->v_types, problem->v_type, text, capacity))) return reason;
    }
    return row->fits ? row->fits(problem, text, capacity) : NULL;
}
