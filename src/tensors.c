/* SPDX-License-Identifier: MIT
 * tensors.c - the tensors of a call: each looked at if its flag is on, turned into a view in bytes, checked against what it may touch.
 * After it a wing may trust every address. The arithmetic of rows is in ranges.c, that of overlaps in overlap.c.
 */
#include "dtype.h"
#include "mutant.h"
#include "ranges.h"
#include "status.h"
#include <string.h>

enum { WORKSPACE_ALIGNMENT = 64, SLOT_WORKSPACE = ROLE_COUNT, SLOTS };

#define ROLE_BIT(role) (1u << (role))

/* A call being checked: what was taken so far, with its rows, for the comparison of every output with everything else. */
struct taking {
    struct call *call;
    bool host_only;
    struct placed placed[SLOTS];
    uint32_t taken, written; /* bits of roles */
};

static void begin(struct taking *t, const struct heed_plan *plan, const struct heed_batch *batch, bool host_only, struct call *call)
{
    memset(call, 0, sizeof *call);
    call->plan = plan;
    call->batch = batch;
    t->call = call;
    t->host_only = host_only;
    t->taken = t->written = 0;
}

/* ---- one tensor ------------------------------------------------------------------ */

static heed_status check_reserved(const char *name, const heed_tensor *t)
{
    if (t->reserved == 0 && t->reserved2[0] == 0 && t->reserved2[1] == 0) return HEED_OK;
    return fail(HEED_UNSUPPORTED, "%s: a reserved word of its heed_tensor is not 0, which this version does not know", name);
}

static heed_status check_memory(const struct taking *t, const char *name, const heed_tensor *tensor, bool host_only)
{
    const bool cpu = t->call->plan->device->info.backend == HEED_BACKEND_CPU;
    switch (tensor->memory) {
    case HEED_MEMORY_HOST:
        return HEED_OK;
    case HEED_MEMORY_CL_BUFFER:
    case HEED_MEMORY_CL_SVM: {
        const char *kind = tensor->memory == HEED_MEMORY_CL_SVM ? "HEED_MEMORY_CL_SVM" : "HEED_MEMORY_CL_BUFFER";
        if (host_only) return fail(HEED_INVALID_ARGUMENT, "%s.memory is %s: heed_forward takes host memory", name, kind);
        if (cpu) return fail(HEED_INVALID_ARGUMENT, "%s.memory is %s: the CPU takes host memory", name, kind);
        return HEED_OK;
    }
    default:
        return fail(HEED_INVALID_ARGUMENT, "%s.memory is %d: no such kind of memory", name, (int)tensor->memory);
    }
}

static bool in_bytes(int64_t elements, int64_t unit, int64_t *bytes)
{
    return !__builtin_mul_overflow(elements, unit, bytes) && *bytes >= -REACH_LIMIT && *bytes <= REACH_LIMIT;
}

/* Offset and strides in bytes. The stride of an axis that has one step only means nothing: it becomes 0. */
static bool take_strides(const heed_tensor *tensor, const struct shape *s, struct view *v)
{
    const bool one = s->rows == ROWS_ONE;
    if (!in_bytes(tensor->offset, s->unit, &v->offset)) return false;
    if (!one && s->batch > 1 && !in_bytes(tensor->batch_stride, s->unit, &v->batch)) return false;
    if (!one && s->token > 1 && !in_bytes(tensor->token_stride, s->unit, &v->token)) return false;
    return one || s->head <= 1 || in_bytes(tensor->head_stride, s->unit, &v->head);
}

static heed_status check_alignment(const char *name, const heed_tensor *tensor, const struct shape *s, const struct view *v)
{
    const int64_t address = (tensor->memory == HEED_MEMORY_CL_BUFFER ? 0 : (int64_t)(intptr_t)tensor->data) + v->offset;
    if (MUTANT(problem_alignment_unchecked)) return HEED_OK;
    if (address % s->alignment)
        return fail(HEED_INVALID_ARGUMENT, "%s: its first element is not aligned to %d bytes, as %s must be", name, s->alignment,
                    type_name(s->type));
    if (v->batch % s->alignment || v->token % s->alignment || v->head % s->alignment)
        return fail(HEED_INVALID_ARGUMENT,
                    "%s: its strides (batch %lld, head %lld, token %lld bytes) are not multiples of %d, as %s must have", name,
                    (long long)v->batch, (long long)v->head, (long long)v->token, s->alignment, type_name(s->type));
    return HEED_OK;
}

static heed_status beyond_limit(const char *name, const heed_tensor *t)
{
    return fail(HEED_OUT_OF_BOUNDS, "%s: offset %lld, strides (batch %lld, head %lld, token %lld) and lengths reach beyond 2^60 bytes",
                name, (long long)t->offset, (long long)t->batch_stride, (long long)t->head_stride, (long long)t->token_stride);
}

/* The bytes that may be touched from data on: what the caller says, and for a cl_mem what OpenCL says. */
static heed_status available(const struct taking *t, const char *name, const heed_tensor *tensor, uint64_t *bytes)
{
    struct device *device = t->call->plan->device;
    *bytes = tensor->bytes;
    if (tensor->memory == HEED_MEMORY_HOST || !device->backend->tensor_bytes) return HEED_OK;
    uint64_t real;
    heed_status status = device->backend->tensor_bytes(device, tensor, &real);
    if (status == HEED_UNSUPPORTED) return fail(status, "%s.memory is %s", name, heed_error_message());
    if (status) return status;
    if (tensor->bytes > real)
        return fail(HEED_OUT_OF_BOUNDS, "%s.bytes is %llu: its cl_mem has %llu bytes", name, (unsigned long long)tensor->bytes,
                    (unsigned long long)real);
    return HEED_OK;
}

static bool fits(const struct byte_range *range, int64_t offset, uint64_t bytes)
{
    return offset + range->begin >= 0 && (uint64_t)(offset + range->end) <= bytes;
}

static heed_status check_bytes(const struct taking *t, enum role role, const heed_tensor *tensor, struct placed *p)
{
    const char *name = role_name(role);
    struct byte_range range;
    uint64_t bytes;
    heed_status status = available(t, name, tensor, &bytes);
    if (status) return status;
    /* The box may be larger than what is reached, and is quicker: the lengths of the sequences only count where it does not fit. */
    if (!range_of_box(&p->shape, &p->view, &p->box)) return beyond_limit(name, tensor);
    if (fits(&p->box, p->view.offset, bytes)) return HEED_OK;
    if (!range_exact(t->call, role, &p->shape, &p->view, &range)) return beyond_limit(name, tensor);
    if (fits(&range, p->view.offset, bytes) || MUTANT(problem_bytes_unchecked)) {
        p->box = range; /* what lies beside the tensor does not overlap it */
        return HEED_OK;
    }
    return fail(
        HEED_OUT_OF_BOUNDS,
        "%s: offset, strides and lengths reach bytes %lld to %lld of %llu (%lld x %lld x %lld rows of %lld bytes: %s, tokens, heads)", name,
        (long long)(p->view.offset + range.begin), (long long)(p->view.offset + range.end), (unsigned long long)bytes,
        (long long)p->shape.batch, (long long)p->shape.token, (long long)p->shape.head, (long long)p->shape.row_bytes,
        p->shape.rows == ROWS_KEY && t->call->plan->problem.page_size ? "pages" : "batch");
}

static void keep(struct taking *t, enum role role, struct placed *p)
{
    *role_view(t->call, role) = p->view;
    t->taken |= ROLE_BIT(role);
}

/* Take one tensor that the call needs. */
static heed_status take(struct taking *t, enum role role, const heed_tensor *tensor)
{
    const char *name = role_name(role);
    struct placed *p = &t->placed[role];
    heed_status status;
    p->box = (struct byte_range){0, 0};
    role_shape(t->call, role, &p->shape);
    p->view = (struct view){.memory = tensor->memory, .bytes = tensor->bytes, .given = true};
    if ((status = check_reserved(name, tensor)) || (status = check_memory(t, name, tensor, t->host_only))) return status;
    if (shape_empty(&p->shape)) { /* nothing to reach: NULL will do */
        keep(t, role, p);
        return HEED_OK;
    }
    if (!tensor->data) return fail(HEED_INVALID_ARGUMENT, "%s.data is NULL", name);
    if (!take_strides(tensor, &p->shape, &p->view)) return beyond_limit(name, tensor);
    if ((status = check_alignment(name, tensor, &p->shape, &p->view)) || (status = check_bytes(t, role, tensor, p))) return status;
    if (tensor->memory == HEED_MEMORY_CL_BUFFER)
        p->view.mem = tensor->data;
    else
        p->view.data = (unsigned char *)tensor->data + p->view.offset;
    keep(t, role, p);
    return HEED_OK;
}

static heed_status take_if(struct taking *t, bool wanted, enum role role, const heed_tensor *tensor)
{
    return wanted ? take(t, role, tensor) : HEED_OK;
}

/* Scales: i8 needs them, f8 takes 1 without, the others have none. */
static heed_status take_scale(struct taking *t, heed_type type, enum role role, const heed_tensor *tensor)
{
    const bool f8 = type == HEED_F8_E4M3 || type == HEED_F8_E5M2;
    return take_if(t, type == HEED_I8 || (f8 && tensor->data), role, tensor);
}

static heed_status take_output(struct taking *t, enum role role, const heed_tensor *tensor)
{
    t->written |= ROLE_BIT(role);
    return take(t, role, tensor);
}

/* ---- workspace -------------------------------------------------------------------- */

static heed_status take_workspace(struct taking *t, const heed_tensor *w)
{
    const size_t needed = t->call->batch->workspace_bytes;
    const bool cpu = t->call->plan->device->info.backend == HEED_BACKEND_CPU;
    heed_status status;
    uint64_t bytes;
    if (needed == 0) return HEED_OK;
    if (!w || !w->data) return fail(HEED_WORKSPACE_TOO_SMALL, "workspace is NULL: %zu bytes are needed", needed);
    if ((status = check_reserved("workspace", w)) || (status = check_memory(t, "workspace", w, false))) return status;
    if (cpu != (w->memory == HEED_MEMORY_HOST))
        return fail(HEED_INVALID_ARGUMENT, "workspace.memory is host memory: an OpenCL device takes memory of its own (heed_buffer)");
    if (w->offset < 0 || w->offset % WORKSPACE_ALIGNMENT || (w->memory != HEED_MEMORY_CL_BUFFER && (uintptr_t)w->data % WORKSPACE_ALIGNMENT))
        return fail(HEED_INVALID_ARGUMENT, "workspace is not aligned to %d bytes", WORKSPACE_ALIGNMENT);
    if ((status = available(t, "workspace", w, &bytes))) return status;
    if (bytes < needed || bytes - needed < (uint64_t)w->offset)
        return fail(HEED_WORKSPACE_TOO_SMALL, "workspace has %llu bytes from offset %lld on: %zu are needed", (unsigned long long)bytes,
                    (long long)w->offset, needed);

    struct view *v = &t->call->workspace;
    *v = (struct view){.memory = w->memory, .offset = w->offset, .bytes = w->bytes, .given = true};
    if (w->memory == HEED_MEMORY_CL_BUFFER)
        v->mem = w->data;
    else
        v->data = (unsigned char *)w->data + w->offset;
    t->placed[SLOT_WORKSPACE] = (struct placed){
        .shape = {.rows = ROWS_ONE, .batch = 1, .token = 1, .head = 1, .row_bytes = (int64_t)needed},
        .view = *v,
        .box = {0, (int64_t)needed},
    };
    t->taken |= ROLE_BIT(SLOT_WORKSPACE);
    t->written |= ROLE_BIT(SLOT_WORKSPACE);
    return HEED_OK;
}

/* ---- overlaps --------------------------------------------------------------------- */

static const char *slot_name(int slot) { return slot == SLOT_WORKSPACE ? "workspace" : role_name((enum role)slot); }

/* The pass over the scores comes after o is written, and reads q once more: the CPU keeps a copy, heed_forward writes o last. */
static bool reads_q_again(const struct taking *t)
{
    const bool scores = t->written & (ROLE_BIT(ROLE_SCORES) | ROLE_BIT(ROLE_KEY_SUMS));
    return scores && !t->host_only && t->call->plan->device->info.backend != HEED_BACKEND_CPU && !MUTANT(problem_scores_in_place);
}

/* What may be computed in place: o on q, and in a merge the results on either side. */
static bool may_share(const struct taking *t, int out, int in)
{
    return (out == ROLE_O && ((in == ROLE_Q && !reads_q_again(t)) || in == ROLE_O_A || in == ROLE_O_B)) ||
           (out == ROLE_LSE && (in == ROLE_LSE_A || in == ROLE_LSE_B));
}

static heed_status check_pair(const struct taking *t, int out, int other)
{
    const struct placed *a = &t->placed[out], *b = &t->placed[other];
    const enum overlap found = overlap_between(a, b);
    if (found == APART || (may_share(t, out, other) && same_rows(a, b))) return HEED_OK;
    if (found == UNDECIDED)
        return fail(HEED_INVALID_ARGUMENT, "%s and %s share a range of memory, and their strides cannot be told apart", slot_name(out),
                    slot_name(other));
    if (out == ROLE_O && other == ROLE_Q && reads_q_again(t))
        return fail(HEED_UNSUPPORTED, "o overlaps q: with scores or key_sums an OpenCL device reads q once more after o is written");
    if (may_share(t, out, other))
        return fail(HEED_INVALID_ARGUMENT, "%s overlaps %s: it may only be in place, with the same layout", slot_name(out),
                    slot_name(other));
    return fail(HEED_INVALID_ARGUMENT, "%s overlaps %s", slot_name(out), slot_name(other));
}

static heed_status check_overlaps(const struct taking *t)
{
    for (int out = 0; out < SLOTS; out++) {
        if (!(t->written & t->taken & ROLE_BIT(out)) || MUTANT(problem_overlap_unchecked)) continue;
        if (overlap_within(&t->placed[out]) != APART)
            return fail(HEED_INVALID_ARGUMENT,
                        "%s: its rows overlap each other (strides: batch %lld, head %lld, token %lld bytes; rows of %lld bytes)",
                        slot_name(out), (long long)t->placed[out].view.batch, (long long)t->placed[out].view.head,
                        (long long)t->placed[out].view.token, (long long)t->placed[out].shape.row_bytes);
        for (int other = 0; other < SLOTS; other++) {
            if (other == out || !(t->taken & ROLE_BIT(other))) continue;
            if (other < out && (t->written & ROLE_BIT(other))) continue; /* seen from the other side */
            heed_status status = check_pair(t, out, other);
            if (status) return status;
        }
    }
    return HEED_OK;
}

/* ---- the calls -------------------------------------------------------------------- */

heed_status tensors_take(const struct heed_plan *plan, const struct heed_batch *batch, const heed_tensors *tensors,
                         const heed_tensor *workspace, bool host_only, struct call *call)
{
    const struct problem *p = &plan->problem;
    const uint64_t flags = p->flags;
    struct taking t;
    heed_tensors x;
    heed_status status = struct_take(&x, sizeof x, tensors, "heed_tensors");
    if (status) return status;
    begin(&t, plan, batch, host_only, call);
    if ((status = take(&t, ROLE_Q, &x.q))) return status;
    if ((status = take(&t, ROLE_K, &x.k))) return status;
    if ((status = take(&t, ROLE_V, &x.v))) return status;
    if ((status = take_output(&t, ROLE_O, &x.o))) return status;
    if ((flags & HEED_WRITE_LSE) && (status = take_output(&t, ROLE_LSE, &x.lse))) return status;
    if ((flags & HEED_WRITE_SCORES) && (status = take_output(&t, ROLE_SCORES, &x.scores))) return status;
    if ((flags & HEED_WRITE_KEY_SUMS) && (status = take_output(&t, ROLE_KEY_SUMS, &x.key_sums))) return status;
    if ((status = take_if(&t, flags & (HEED_MASK_BOOL | HEED_MASK_BITS), ROLE_MASK, &x.mask))) return status;
    if ((status = take_if(&t, flags & HEED_BIAS, ROLE_BIAS, &x.bias))) return status;
    if ((status = take_if(&t, flags & HEED_ALIBI, ROLE_ALIBI, &x.alibi_slopes))) return status;
    if ((status = take_if(&t, flags & HEED_SINKS, ROLE_SINKS, &x.sinks))) return status;
    if ((status = take_if(&t, flags & HEED_KEY_RANGE, ROLE_KEY_RANGE, &x.key_range))) return status;
    if ((status = take_scale(&t, p->k_type, ROLE_K_SCALE, &x.k_scale))) return status;
    if ((status = take_scale(&t, p->v_type, ROLE_V_SCALE, &x.v_scale))) return status;
    if ((status = take_workspace(&t, workspace))) return status;
    return check_overlaps(&t);
}

/* The rotation tables, which every position must lie in. */
static heed_status take_tables(struct taking *t, const heed_tensors *x)
{
    static const enum role tables[] = {ROLE_ROPE_COS, ROLE_ROPE_SIN};
    if (t->call->plan->problem.rope_dim == 0) return HEED_OK;
    struct shape shape;
    role_shape(t->call, ROLE_ROPE_COS, &shape);
    if (shape.first_token < 0)
        return fail(HEED_OUT_OF_BOUNDS, "position %lld is outside rope_cos and rope_sin", (long long)shape.first_token);
    for (int n = 0; n < 2; n++) {
        heed_status status = take(t, tables[n], n ? &x->rope_sin : &x->rope_cos);
        if (status) return status;
    }
    return HEED_OK;
}

static heed_status check_new_type(heed_type type)
{
    if (type == HEED_F32 || type == HEED_F16 || type == HEED_BF16) return HEED_OK;
    if (type_known(type)) return fail(HEED_UNSUPPORTED, "new_type is %s: new keys and values are f32, f16 or bf16", type_name(type));
    return fail(HEED_INVALID_ARGUMENT, "new_type is %d: no such type", (int)type);
}

/* New tokens are the last q_len_b keys. */
static heed_status check_room(const struct heed_batch *batch)
{
    for (int32_t b = 0; b < batch->batch; b++)
        if (batch->sequences[b].q_len > batch->sequences[b].kv_len)
            return fail(HEED_INVALID_ARGUMENT, "q_len %d of sequence %d is above its kv_len %d, which counts the new tokens",
                        batch->sequences[b].q_len, b, batch->sequences[b].kv_len);
    return HEED_OK;
}

heed_status append_take(const struct heed_plan *plan, const struct heed_batch *batch, heed_type new_type, const heed_tensor *new_k,
                        const heed_tensor *new_v, const heed_tensors *tensors, struct call *call)
{
    const struct problem *p = &plan->problem;
    struct taking t;
    heed_tensors x;
    heed_status status = struct_take(&x, sizeof x, tensors, "heed_tensors");
    if (status) return status;
    begin(&t, plan, batch, false, call);
    call->new_type = new_type == HEED_TYPE_DEFAULT ? p->q_type : new_type;
    if ((status = check_new_type(call->new_type)) || (status = check_room(batch))) return status;
    if (new_k) {
        if ((status = take(&t, ROLE_NEW_K, new_k)) || (status = take_output(&t, ROLE_K, &x.k))) return status;
        if ((status = take_scale(&t, p->k_type, ROLE_K_SCALE, &x.k_scale)) || (status = take_tables(&t, &x))) return status;
    }
    if (new_v) {
        if ((status = take(&t, ROLE_NEW_V, new_v)) || (status = take_output(&t, ROLE_V, &x.v))) return status;
        if ((status = take_scale(&t, p->v_type, ROLE_V_SCALE, &x.v_scale))) return status;
    }
    t.written |= ROLE_BIT(ROLE_K_SCALE) | ROLE_BIT(ROLE_V_SCALE); /* where they were taken */
    return check_overlaps(&t);
}

heed_status rotate_take(const struct heed_plan *plan, const struct heed_batch *batch, int32_t heads, const heed_tensor *x,
                        const heed_tensors *tensors, struct call *call)
{
    struct taking t;
    heed_tensors given;
    heed_status status = struct_take(&given, sizeof given, tensors, "heed_tensors");
    if (status) return status;
    if (!x) return fail(HEED_INVALID_ARGUMENT, "x is NULL");
    if (heads < 1) return fail(HEED_INVALID_ARGUMENT, "heads is %d: it must be at least 1", heads);
    begin(&t, plan, batch, false, call);
    call->heads = heads;
    if ((status = take_output(&t, ROLE_X, x)) || (status = take_tables(&t, &given))) return status;
    return check_overlaps(&t);
}

heed_status merge_take(const struct heed_plan *plan, const struct heed_batch *batch, const heed_tensor *o_a, const heed_tensor *lse_a,
                       const heed_tensor *o_b, const heed_tensor *lse_b, const heed_tensor *o, const heed_tensor *lse, struct call *call)
{
    const struct {
        enum role role;
        const heed_tensor *tensor;
    } given[] = {{ROLE_O_A, o_a}, {ROLE_LSE_A, lse_a}, {ROLE_O_B, o_b}, {ROLE_LSE_B, lse_b}, {ROLE_O, o}, {ROLE_LSE, lse}};
    struct taking t;
    if (plan->problem.flags & HEED_LSE_WITHOUT_SINK)
        return fail(HEED_INVALID_ARGUMENT,
                    "flags has HEED_LSE_WITHOUT_SINK: such parts cannot be merged, their weights are not in the lse");
    begin(&t, plan, batch, false, call);
    for (size_t n = 0; n < sizeof given / sizeof *given; n++) {
        if (!given[n].tensor) return fail(HEED_INVALID_ARGUMENT, "%s is NULL", role_name(given[n].role));
        heed_status status = take(&t, given[n].role, given[n].tensor);
        if (status) return status;
    }
    t.written |= ROLE_BIT(ROLE_O) | ROLE_BIT(ROLE_LSE);
    return check_overlaps(&t);
}
