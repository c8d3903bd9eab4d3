/* SPDX-License-Identifier: MIT
 * problem.c - a descriptor, checked once and normalised: every default filled in, every rule tested, never trusted again.
 * It knows no lengths and no tensors (lengths.c, tensors.c) and no text (desc_text.c).
 */
#include "problem.h"
#include "dtype.h"
#include "mutant.h"
#include "status.h"
#include <math.h>
#include <string.h>

#define KNOWN_FLAGS ((HEED_KEY_SUMS_ALL_HEADS << 1) - 1)

/* Flags that a row need not know: order is a column, positions are made by lengths.c, rotation and scores are other kinds of step. */
#define QUIET_FLAGS                                                                                                               \
    (HEED_INVARIANT | HEED_TOP_LEFT | HEED_ROPE_INTERLEAVED | HEED_WINDOW | HEED_WRITE_SCORES | HEED_WRITE_KEY_SUMS |               \
     HEED_KEY_SUMS_ALL_HEADS)

enum { TAIL_LIMIT = 65536 }; /* a struct that claims to be longer than this was never initialised */

heed_status struct_take(void *to, size_t known, const void *from, const char *name)
{
    size_t given;
    if (!from) return fail(HEED_INVALID_ARGUMENT, "%s is NULL", name);
    memcpy(&given, from, sizeof given);
    if (given < sizeof given) return fail(HEED_INVALID_ARGUMENT, "%s.struct_size is %zu: it must be sizeof(%s)", name, given, name);
    if (given > known + TAIL_LIMIT)
        return fail(HEED_INVALID_ARGUMENT, "%s.struct_size is %zu, the library knows %zu bytes: was it initialised?", name, given, known);
    for (size_t i = known; i < given; i++)
        if (((const unsigned char *)from)[i] && !MUTANT(problem_tail_ignored))
            return fail(HEED_UNSUPPORTED, "%s has %zu bytes, this version knows %zu, and byte %zu is not 0", name, given, known, i);
    memset(to, 0, known);
    memcpy(to, from, given < known ? given : known);
    memcpy(to, &known, sizeof known);
    return HEED_OK;
}

/* ---- types ------------------------------------------------------------------ */

#define FLOATS (1u << HEED_F32 | 1u << HEED_F16 | 1u << HEED_BF16)
#define FLOATS8 (1u << HEED_F8_E4M3 | 1u << HEED_F8_E5M2)

/* type, or its default; allowed: bits (1u << heed_type). */
static heed_status take_type(const char *field, heed_type given, heed_type otherwise, uint32_t allowed, const char *rule, heed_type *type)
{
    *type = given == HEED_TYPE_DEFAULT ? otherwise : given;
    if (!type_known(*type)) return fail(HEED_INVALID_ARGUMENT, "%s is %d: no such type", field, (int)given);
    if (!(allowed >> *type & 1)) return fail(HEED_UNSUPPORTED, "%s is %s: %s", field, type_name(*type), rule);
    return HEED_OK;
}

static heed_status check_block(const char *field, heed_type type, const char *dim_field, int32_t dim)
{
    if (dim % type_block(type) == 0 || MUTANT(problem_block_dim_unchecked)) return HEED_OK;
    return fail(HEED_INVALID_ARGUMENT, "%s is %d: with %s %s it must be a multiple of %d", dim_field, dim, field, type_name(type),
                type_block(type));
}

static heed_status check_types(const heed_desc *d, struct problem *p)
{
    heed_status status;
    if ((status = take_type("q_type", d->q_type, HEED_F32, FLOATS | FLOATS8, "q is f32, f16, bf16 or f8", &p->q_type))) return status;
    if ((status = take_type("k_type", d->k_type, p->q_type, ~0u, "", &p->k_type))) return status;
    if ((status = take_type("v_type", d->v_type, p->q_type, ~0u, "", &p->v_type))) return status;
    if ((status = take_type("o_type", d->o_type, p->q_type, FLOATS, "o is f32, f16 or bf16", &p->o_type))) return status;
    heed_type bias = FLOATS >> p->q_type & 1 ? p->q_type : HEED_F32; /* an f8 q has no bias type to lend */
    uint32_t allowed = d->flags & HEED_BIAS ? FLOATS : ~0u;
    if ((status = take_type("bias_type", d->bias_type, bias, allowed, "a bias is f32, f16 or bf16", &p->bias_type))) return status;
    if ((status = check_block("k_type", p->k_type, "head_dim", p->head_dim))) return status;
    return check_block("v_type", p->v_type, d->v_head_dim ? "v_head_dim" : "head_dim", p->v_head_dim);
}

/* ---- numbers ---------------------------------------------------------------- */

static heed_status check_range(const char *field, int32_t value, int32_t low, int32_t high)
{
    if (value >= low && value <= high) return HEED_OK;
    if (high == INT32_MAX) return fail(HEED_INVALID_ARGUMENT, "%s is %d: it must be at least %d", field, value, low);
    return fail(HEED_INVALID_ARGUMENT, "%s is %d: it must lie in %d .. %d", field, value, low, high);
}

static heed_status check_shape(const heed_desc *d, struct problem *p)
{
    heed_status status;
    if ((status = check_range("q_heads", d->q_heads, 1, INT32_MAX))) return status;
    if ((status = check_range("kv_heads", d->kv_heads, 0, INT32_MAX))) return status;
    if ((status = check_range("head_dim", d->head_dim, 1, MAX_HEAD_DIM))) return status;
    if ((status = check_range("v_head_dim", d->v_head_dim, 0, MAX_HEAD_DIM))) return status;
    if ((status = check_range("max_batch", d->max_batch, 0, INT32_MAX))) return status;
    if ((status = check_range("max_q_len", d->max_q_len, 0, INT32_MAX))) return status;
    if ((status = check_range("max_kv_len", d->max_kv_len, 0, INT32_MAX))) return status;
    if ((status = check_range("page_size", d->page_size, 0, INT32_MAX))) return status;
    if ((status = check_range("scores_stage", d->scores_stage, 0, 3))) return status;
    p->q_heads = d->q_heads;
    p->kv_heads = d->kv_heads ? d->kv_heads : d->q_heads;
    if (p->q_heads % p->kv_heads && !MUTANT(problem_group_unchecked))
        return fail(HEED_INVALID_ARGUMENT, "q_heads %d is not a multiple of kv_heads %d", p->q_heads, p->kv_heads);
    p->group = p->q_heads / p->kv_heads;
    p->head_dim = d->head_dim;
    p->v_head_dim = d->v_head_dim ? d->v_head_dim : d->head_dim;
    p->max_batch = d->max_batch;
    p->max_q_len = d->max_q_len;
    p->max_kv_len = d->max_kv_len;
    p->page_size = d->page_size;
    p->scores_stage = d->scores_stage;
    return HEED_OK;
}

static heed_status check_rope(const heed_desc *d, struct problem *p)
{
    heed_status status;
    if ((status = check_range("rope_dim", d->rope_dim, 0, MAX_HEAD_DIM))) return status;
    if ((status = check_range("rope_offset", d->rope_offset, 0, MAX_HEAD_DIM))) return status;
    if (d->rope_dim % 2) return fail(HEED_INVALID_ARGUMENT, "rope_dim is %d: it must be even", d->rope_dim);
    if (d->rope_offset + d->rope_dim > d->head_dim)
        return fail(HEED_INVALID_ARGUMENT, "rope_offset %d + rope_dim %d is beyond head_dim %d", d->rope_offset, d->rope_dim, d->head_dim);
    p->rope_dim = d->rope_dim;
    p->rope_offset = d->rope_offset;
    return HEED_OK;
}

static heed_status check_window(const heed_desc *d, struct problem *p)
{
    p->window_left = p->window_right = -1;
    if (!(d->flags & HEED_WINDOW)) {
        if (d->window_left == 0 && d->window_right == 0) return HEED_OK;
        return fail(HEED_INVALID_ARGUMENT, "window_left is %d and window_right is %d: without HEED_WINDOW both must be 0", d->window_left,
                    d->window_right);
    }
    heed_status status;
    if ((status = check_range("window_left", d->window_left, -1, INT32_MAX))) return status;
    if ((status = check_range("window_right", d->window_right, -1, INT32_MAX))) return status;
    p->window_left = d->window_left;
    p->window_right = d->window_right;
    return HEED_OK;
}

static heed_status check_logits(const heed_desc *d, struct problem *p)
{
    char text[32];
    text_of_float(d->scale, text, sizeof text);
    if (!isfinite(d->scale)) return fail(HEED_INVALID_ARGUMENT, "scale is %s: it must be finite (0 = 1 / sqrt(head_dim))", text);
    text_of_float(d->softcap, text, sizeof text);
    if (!(d->softcap >= 0) || isinf(d->softcap))
        return fail(HEED_INVALID_ARGUMENT, "softcap is %s: it must be finite and at least 0 (0 = off)", text);
    p->scale = d->scale != 0 ? d->scale : (float)(1 / sqrt((double)d->head_dim));
    p->softcap = d->softcap;
    return HEED_OK;
}

/* ---- flags ------------------------------------------------------------------ */

static heed_status check_flags(const heed_desc *d, struct problem *p)
{
    uint64_t unknown = d->flags & ~KNOWN_FLAGS;
    if (unknown) return fail(HEED_UNSUPPORTED, "flags has bit %d set, which this version does not know", __builtin_ctzll(unknown));
    if ((d->flags & HEED_MASK_BOOL) && (d->flags & HEED_MASK_BITS))
        return fail(HEED_INVALID_ARGUMENT, "flags has both HEED_MASK_BOOL and HEED_MASK_BITS: there is one mask");
    p->flags = d->flags;
    return HEED_OK;
}

static uint64_t features_of(const struct problem *p)
{
    uint64_t features = p->flags & ~QUIET_FLAGS;
    if (p->window_left >= 0 || p->window_right >= 0) features |= HEED_WINDOW; /* unbounded on both sides is no window */
    if (!(p->flags & HEED_BIAS)) features &= ~HEED_BIAS_FIRST;                /* words about what is not there */
    if (!(p->flags & HEED_SINKS)) features &= ~HEED_LSE_WITHOUT_SINK;
    if (p->softcap > 0) features |= FEATURE_SOFTCAP;
    if (p->page_size > 0) features |= FEATURE_PAGED;
    if (p->group > 1) features |= FEATURE_GQA;
    if (p->v_head_dim != p->head_dim) features |= FEATURE_V_DIM;
    if ((p->flags & HEED_WRITE_KEY_SUMS) || ((p->flags & HEED_WRITE_SCORES) && p->scores_stage == 3)) features |= FEATURE_SUMS;
    return features;
}

heed_status problem_from_desc(const heed_desc *desc, struct problem *problem)
{
    static heed_status (*const checks[])(const heed_desc *, struct problem *) = {check_flags, check_shape,  check_types,
                                                                                 check_rope,  check_window, check_logits};
    heed_desc d;
    struct problem p = {0};
    heed_status status = struct_take(&d, sizeof d, desc, "heed_desc");
    for (size_t i = 0; status == HEED_OK && i < sizeof checks / sizeof *checks; i++) status = checks[i](&d, &p);
    if (status) return status;
    p.features = features_of(&p);
    *problem = p;
    return HEED_OK;
}

heed_status heed_desc_check(const heed_desc *desc)
{
    struct problem problem;
    return problem_from_desc(desc, &problem);
}
