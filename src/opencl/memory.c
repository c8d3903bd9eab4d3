/* SPDX-License-Identifier: MIT
 * memory.c - the tensors of one run as cl_mem: the caller's own, views of host memory, copies of it, private outputs.
 *
 * Host and shared memory is covered by one cl_mem per connected range, because tensors that share a range (packed q, k, v; o = q) through several
 * cl_mem would be undefined. A tensor is then that cl_mem and the offset of its element 0.
 */
#include "cl.h"
#include "../mutant.h"
#include "../view.h"
#include <string.h>

struct span {
    uintptr_t begin, end; /* addresses */
    uint32_t slots;       /* bits of the tensors inside */
    bool written, shared; /* shared: of clSVMAlloc */
};

size_t cl_workspace_bytes(const struct heed_batch *batch)
{
    size_t bytes = 0; /* kinds run one after the other */
    for (int kind = 0; kind < WORK_KINDS; kind++) {
        const struct kernel_row *row = batch->plan->row[kind];
        const size_t own = row && row->cl ? row->cl->item_bytes * (size_t)batch->work[kind].count : 0;
        if (own > bytes) bytes = own;
    }
    return bytes ? bytes + 128 : 0; /* they begin at a multiple of 128 */
}

static const struct view *view_of(const struct call *call, int slot)
{
    return slot == CL_SLOT_WORKSPACE ? &call->workspace : call_view(call, (enum role)slot);
}

static const char *slot_name(int slot) { return slot == CL_SLOT_WORKSPACE ? "workspace" : role_name((enum role)slot); }

static heed_status range_of(const struct call *call, int slot, struct byte_range *range)
{
    if (slot != CL_SLOT_WORKSPACE) return call_range(call, (enum role)slot, range);
    *range = (struct byte_range){0, (int64_t)call->batch->workspace_bytes};
    return HEED_OK;
}

static heed_status too_large(const struct cl_device *device, const char *name, uint64_t bytes)
{
    return fail(HEED_UNSUPPORTED, "%s reaches over %llu bytes: %s takes at most %llu in one piece", name, (unsigned long long)bytes,
                device->name, (unsigned long long)device->max_alloc);
}

static heed_status own(struct cl_memory *m, cl_mem_flags flags, size_t bytes, void *host, bool written, cl_mem *out)
{
    cl_int code = CL_SUCCESS;
    cl_mem mem = clCreateBuffer(m->device->context, flags, bytes, host, &code);
    if (!mem) return cl_failed(m->device, "clCreateBuffer", code);
    m->owned_bytes[m->owned_count] = bytes;
    m->owned_written[m->owned_count] = written;
    m->owned[m->owned_count++] = *out = mem;
    return HEED_OK;
}

/* heed_forward: results go to memory of our own, so that a device that fails half-way has touched nothing of the caller's. */
static heed_status bind_private(struct cl_memory *m, int slot, const struct byte_range *range)
{
    const uint64_t bytes = (uint64_t)(range->end - range->begin);
    if (bytes > m->device->max_alloc) return too_large(m->device, slot_name(slot), bytes);
    heed_status status = own(m, CL_MEM_READ_WRITE, bytes, NULL, false, &m->bound[slot].mem);
    if (status != HEED_OK) return status;
    m->bound[slot].offset = -range->begin;
    m->private_of[slot] = m->owned_count;
    return HEED_OK;
}

/* Adds a range to the list, melting it with every range that it overlaps. */
static void add_span(struct span *spans, int *count, struct span next)
{
    for (int i = 0; i < *count; i++)
        if (spans[i].begin < next.end && next.begin < spans[i].end) {
            if (spans[i].begin < next.begin) next.begin = spans[i].begin;
            if (spans[i].end > next.end) next.end = spans[i].end;
            next.slots |= spans[i].slots;
            next.written = next.written || spans[i].written;
            next.shared = next.shared || spans[i].shared;
            spans[i] = spans[--*count];
            i = -1; /* it may have grown into others */
        }
    spans[(*count)++] = next;
}

static heed_status bind_span(struct cl_memory *m, const struct span *span)
{
    const struct cl_device *device = m->device;
    const size_t bytes = span->end - span->begin;
    const bool in_place = device->unified || span->shared;
    int first = 0;
    while (!(span->slots >> first & 1)) first++;
    if (!in_place && !m->call->may_copy)
        return fail(HEED_INVALID_ARGUMENT,
                    "%s lies in host memory: device %s takes memory of its own only (heed_buffer, cl_mem); heed_forward() copies",
                    slot_name(first), device->name);
    if (bytes > device->max_alloc) return too_large(device, slot_name(first), bytes);
    /* A copy is made by the creating call, so that no queued command reads the caller's memory. */
    const cl_mem_flags flags =
        (span->written ? CL_MEM_READ_WRITE : CL_MEM_READ_ONLY) | (in_place ? CL_MEM_USE_HOST_PTR : CL_MEM_COPY_HOST_PTR);
    cl_mem mem = NULL;
    /* nobody reads the workspace afterwards, and shared memory is the caller's to map */
    const bool results = span->written && span->slots != 1u << CL_SLOT_WORKSPACE && !span->shared;
    heed_status status = own(m, flags, bytes, (void *)span->begin, in_place && results, &mem);
    if (status != HEED_OK) return status;
    m->on_host = m->on_host || in_place;
    for (int slot = 0; slot < CL_SLOTS; slot++)
        if (span->slots >> slot & 1) {
            m->bound[slot].mem = mem;
            m->bound[slot].offset = (int64_t)((uintptr_t)view_of(m->call, slot)->data - span->begin);
        }
    return HEED_OK;
}

static heed_status bind_slot(struct cl_memory *m, int slot, bool written, struct span *spans, int *count)
{
    const struct view *view = view_of(m->call, slot);
    struct byte_range range;
    m->bound[slot] = (struct cl_bound){m->device->dummy, 0};
    if (!view->given) return HEED_OK;
    heed_status status = range_of(m->call, slot, &range);
    if (status != HEED_OK || range.end <= range.begin) return status;
    if (view->memory == HEED_MEMORY_CL_BUFFER) {
        m->bound[slot] = (struct cl_bound){view->mem, view->offset};
        return HEED_OK;
    }
    if (written && m->call->private_output && !MUTANT(cl_output_shared) && slot != CL_SLOT_WORKSPACE) return bind_private(m, slot, &range);
    const uintptr_t zero = (uintptr_t)view->data;
    add_span(spans, count, (struct span){zero + (uintptr_t)range.begin, zero + (uintptr_t)range.end, 1u << slot, written,
                                         view->memory == HEED_MEMORY_CL_SVM});
    return HEED_OK;
}

heed_status cl_memory_bind(struct cl_device *device, const struct call *call, uint32_t roles, uint32_t written, struct cl_memory *memory)
{
    struct span spans[CL_SLOTS];
    int count = 0;
    heed_status status = HEED_OK;
    memset(memory, 0, sizeof *memory);
    memory->device = device;
    memory->call = call;
    for (int slot = 0; slot < CL_SLOTS && status == HEED_OK; slot++)
        if (roles >> slot & 1) status = bind_slot(memory, slot, written >> slot & 1, spans, &count);
    for (int i = 0; i < count && status == HEED_OK; i++) status = bind_span(memory, &spans[i]);
    if (status != HEED_OK) cl_memory_release(memory);
    return status;
}

/* Queued kernels keep what they use: OpenCL frees a cl_mem only after their end. */
void cl_memory_release(struct cl_memory *memory)
{
    for (int i = 0; i < memory->owned_count; i++) clReleaseMemObject(memory->owned[i]);
    memory->owned_count = 0;
}

/* ---- private outputs ------------------------------------------------------------ */

/* Rows (b, h, i) of one output from `from`, which holds its range, to the caller. Nothing between the rows is touched. */
static void scatter_query_rows(const struct call *call, enum role role, const struct byte_range *range, const unsigned char *from)
{
    const struct problem *p = &call->plan->problem;
    const struct view *view = call_view(call, role);
    const size_t element = p->o_type == HEED_F32 ? 4 : 2;
    for (int32_t b = 0; b < call->batch->batch; b++) {
        const struct sequence *s = &call->batch->sequences[b];
        const size_t bytes = role == ROLE_O ? (size_t)p->v_head_dim * element : 4;
        for (int32_t i = 0; i < s->q_len; i++)
            for (int32_t h = 0; h < p->q_heads; h++) {
                const int64_t at = query_offset(view, s, b, h, i);
                if (MUTANT(cl_gap_overwritten) && at + (int64_t)bytes < range->end)
                    view->data[at + (int64_t)bytes] = from[at + (int64_t)bytes - range->begin];
                memcpy(view->data + at, from + (at - range->begin), bytes);
            }
    }
}

/* One row of the caller's that lies somewhere in the range. */
static void scatter_row(const struct view *view, unsigned char *row, size_t bytes, const struct byte_range *range, const unsigned char *from)
{
    memcpy(row, from + ((row - view->data) - range->begin), bytes);
}

static void scatter(const struct call *call, enum role role, const struct byte_range *range, const unsigned char *from)
{
    const struct problem *p = &call->plan->problem;
    if (role == ROLE_O || role == ROLE_LSE) {
        scatter_query_rows(call, role, range, from);
        return;
    }
    const int32_t sum_rows = (p->flags & HEED_KEY_SUMS_ALL_HEADS) ? 1 : p->q_heads;
    for (int32_t b = 0; b < call->batch->batch; b++) {
        const struct sequence *s = &call->batch->sequences[b];
        const size_t bytes = (size_t)s->kv_len * sizeof(float);
        if (role == ROLE_KEY_SUMS)
            for (int32_t h = 0; h < sum_rows; h++) scatter_row(&call->key_sums, (unsigned char *)key_sums_row(call, b, h), bytes, range, from);
        else
            for (int32_t i = first_scored(call->batch, s); i < s->q_len; i++)
                for (int32_t n = 0; n < call->batch->score_head_count; n++)
                    scatter_row(&call->scores, scored_row(call, b, n, i), bytes, range, from);
    }
}

heed_status cl_memory_copy_out(struct cl_memory *memory)
{
    struct cl_device *device = memory->device;
    const unsigned char *mapped[CL_SLOTS] = {0};
    heed_status status = HEED_OK;
    /* All are mapped before the first byte is copied: a device that fails here has still touched nothing. */
    for (int slot = 0; slot < ROLE_COUNT && status == HEED_OK; slot++) {
        const int index = memory->private_of[slot] - 1;
        cl_int code = CL_SUCCESS;
        if (index < 0) continue;
        mapped[slot] = clEnqueueMapBuffer(device->queue, memory->owned[index], CL_TRUE, CL_MAP_READ, 0, memory->owned_bytes[index], 0, NULL,
                                          NULL, &code);
        if (!mapped[slot]) status = cl_wait_failed(device, "clEnqueueMapBuffer", code);
    }
    for (int slot = 0; slot < ROLE_COUNT; slot++) {
        struct byte_range range;
        if (!mapped[slot]) continue;
        if (status == HEED_OK) status = call_range(memory->call, (enum role)slot, &range);
        if (status == HEED_OK) scatter(memory->call, (enum role)slot, &range, mapped[slot]);
        clEnqueueUnmapMemObject(device->queue, memory->owned[memory->private_of[slot] - 1], (void *)mapped[slot], 0, NULL, NULL);
    }
    return status;
}
