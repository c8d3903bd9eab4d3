/* SPDX-License-Identifier: MIT
 * launch.c - plan + batch + call -> kernel arguments and NDRanges. The lists of arguments are those of kernels/common.cl, append.cl and
 * merge.cl; this is the one place on the host that knows them.
 */
#include "cl.h"
#include "../mutant.h"
#include <string.h>

#define SLOT(slot) (1u << (slot))

/* No launch is meant to last longer: watchdogs kill at two seconds. */
static const double launch_seconds = 0.4;

struct strides { int64_t offset, batch, head, token; };

static struct strides strides_of(const struct cl_memory *memory, int slot)
{
    const struct view *v = slot == CL_SLOT_WORKSPACE ? &memory->call->workspace : call_view(memory->call, (enum role)slot);
    return (struct strides){memory->bound[slot].offset, v->batch, v->head, v->token};
}

/* ---- plans --------------------------------------------------------------------- */

/* The kernel's own limit may be far below the device's. */
static heed_status check_group(struct cl_device *device, const struct kernel_row *row, cl_kernel kernel, const char *name,
                               const size_t local[2])
{
    size_t limit = 0;
    cl_ulong bytes = 0;
    heed_status status = CL(device, clGetKernelWorkGroupInfo(kernel, device->id, CL_KERNEL_WORK_GROUP_SIZE, sizeof limit, &limit, NULL));
    if (MUTANT(cl_group_unchecked)) return status;
    if (status == HEED_OK)
        status = CL(device, clGetKernelWorkGroupInfo(kernel, device->id, CL_KERNEL_LOCAL_MEM_SIZE, sizeof bytes, &bytes, NULL));
    if (status != HEED_OK) return status;
    /* NVIDIA's driver rounds what the registers allow down to a power of two; a marked program names its size itself, and its probe runs it. */
    if (local[0] * local[1] > limit && !row->cl->marked) {
        if (row->cl->shrinks && limit > 0) atomic_store(&device->kernel_group, limit);
        return fail(HEED_UNSUPPORTED, "kernel %s of %s takes groups of %zu work-items, %zu are needed", name, row->name, limit,
                    local[0] * local[1]);
    }
    if (bytes > cl_local_limit(device, row))
        return fail(HEED_UNSUPPORTED, "kernel %s of %s needs %llu bytes of local memory, the device has %llu", name, row->name,
                    (unsigned long long)bytes, (unsigned long long)cl_local_limit(device, row));
    return HEED_OK;
}

static heed_status kernel_make(struct cl_device *device, const struct cl_step *step, const char *name, cl_kernel *kernel)
{
    cl_int code = CL_SUCCESS;
    *kernel = clCreateKernel(step->program->program, name, &code);
    if (*kernel) return HEED_OK;
    if (code == CL_INVALID_KERNEL_NAME)
        return fail(HEED_BUILD_FAILED, "the program of %s has no kernel %s", step->row->name, name);
    return cl_failed(device, "clCreateKernel", code);
}

/* Kernel number n of a step, 0 its row's, 1 that of the merge. A kernel object holds its arguments, so a run has one for itself: the one that the last run gave
 * back, or a new one where several run at once. */
static heed_status kernel_take(struct cl_device *device, struct cl_step *step, int n, cl_kernel *kernel)
{
    *kernel = atomic_exchange(&step->spare[n], NULL);
    return *kernel ? HEED_OK : kernel_make(device, step, n ? step->row->cl->merge : step->row->cl->kernel, kernel);
}

static void kernel_give(struct cl_step *step, int n, cl_kernel kernel)
{
    cl_kernel none = NULL;
    if (kernel && !atomic_compare_exchange_strong(&step->spare[n], &none, kernel)) clReleaseKernel(kernel);
}

void cl_step_release(struct cl_device *device, struct cl_step *step)
{
    for (int n = 0; n < 2; n++) {
        cl_kernel kernel = atomic_exchange(&step->spare[n], NULL);
        if (kernel && !cl_device_forked(device)) clReleaseKernel(kernel);
    }
    cl_program_drop(device, step->program);
    step->program = NULL;
}

static heed_status prepare(struct cl_device *device, const struct problem *problem, const struct kernel_row *row, struct cl_step *step)
{
    const char *const names[] = {row->cl->kernel, row->cl->merge};
    step->row = row;
    cl_local(device, row, problem, step->local);
    heed_status status = cl_program_get(device, row, problem, &step->program);
    for (int i = 0; i < 2 && names[i] && status == HEED_OK; i++) {
        cl_kernel kernel = NULL;
        status = kernel_take(device, step, i, &kernel);
        if (status == HEED_OK) {
            status = check_group(device, row, kernel, names[i], step->local);
            kernel_give(step, i, kernel);
        }
    }
    return status;
}

heed_status cl_step_prepare(struct cl_device *device, const struct problem *problem, const struct kernel_row *row, struct cl_step *step)
{
    size_t local[2];
    heed_status status = prepare(device, problem, row, step);
    cl_local(device, row, problem, local);
    if (status != HEED_UNSUPPORTED || local[0] * local[1] >= step->local[0] * step->local[1] || MUTANT(cl_group_kept)) return status;
    cl_step_release(device, step); /* its kernel takes smaller groups, and the row can do with them */
    return prepare(device, problem, row, step);
}

/* ---- batches -------------------------------------------------------------------- */

static heed_status upload(struct cl_device *device, const void *from, size_t bytes, cl_mem *mem)
{
    cl_int code = CL_SUCCESS;
    *mem = NULL;
    if (!from || bytes == 0) return HEED_OK;
    if (bytes > device->max_alloc)
        return fail(HEED_UNSUPPORTED, "a list of %zu bytes: %s allocates at most %llu at once", bytes, device->name,
                    (unsigned long long)device->max_alloc);
    *mem = clCreateBuffer(device->context, CL_MEM_READ_ONLY | CL_MEM_COPY_HOST_PTR, bytes, (void *)from, &code);
    return *mem ? HEED_OK : cl_failed(device, "clCreateBuffer", code);
}

static void lists_release(struct cl_batch *lists)
{
    cl_mem *const all[] = {&lists->sequences, &lists->q_positions, &lists->page_table, &lists->score_slots};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (*all[i]) clReleaseMemObject(*all[i]);
    for (int kind = 0; kind < WORK_KINDS; kind++) {
        if (lists->items[kind]) clReleaseMemObject(lists->items[kind]);
        if (lists->merges[kind]) clReleaseMemObject(lists->merges[kind]);
    }
}

/* Cost of an item in (query, key) pairs; a little for items that see nothing. */
static double item_pairs(const struct heed_plan *plan, const struct work_list *list, const struct work_item *item)
{
    const int32_t heads = item->head < 0 ? plan->problem.q_heads : list->row->packs_group ? plan->problem.group : 1;
    const double rows = (double)(item->q_end - item->q_begin) * heads;
    return rows * (item->kv_end - item->kv_begin + 8);
}

/* New buffers every time: kernels that are still queued keep the old ones. */
heed_status cl_batch_prepare(struct heed_batch *batch)
{
    struct cl_device *device = cl_device_of(batch->plan->device);
    const struct services *services = &batch->plan->context->services;
    heed_status status = cl_device_open(device);
    if (status != HEED_OK) return status;
    struct cl_batch *lists = memory_new(services, 1, sizeof *lists);
    if (!lists) return out_of_memory(sizeof *lists);
    for (int32_t b = 0; b < batch->batch; b++) batch->sequences[b].reserved = batch->q_positions != NULL; /* common.cl: flags, bit 0 */
    status = upload(device, batch->sequences, (size_t)batch->batch * sizeof *batch->sequences, &lists->sequences);
    if (status == HEED_OK)
        status = upload(device, batch->q_positions, (size_t)batch->q_total * sizeof *batch->q_positions, &lists->q_positions);
    if (status == HEED_OK)
        status = upload(device, batch->page_table, (size_t)batch->batch * (size_t)batch->page_table_stride * sizeof *batch->page_table,
                        &lists->page_table);
    if (status == HEED_OK)
        status = upload(device, batch->head_slots, (size_t)batch->plan->problem.q_heads * sizeof *batch->head_slots, &lists->score_slots);
    for (int kind = 0; kind < WORK_KINDS && status == HEED_OK; kind++) {
        const struct work_list *list = &batch->work[kind];
        status = upload(device, list->items, (size_t)list->count * sizeof *list->items, &lists->items[kind]);
        if (status == HEED_OK)
            status = upload(device, list->merges, (size_t)list->merge_count * sizeof *list->merges, &lists->merges[kind]);
        for (int32_t i = 0; i < list->count; i++) lists->pairs[kind] += item_pairs(batch->plan, list, &list->items[i]);
    }
    if (status != HEED_OK) {
        lists_release(lists);
        memory_delete(services, lists);
        return status;
    }
    batch->state = lists;
    return HEED_OK;
}

void cl_batch_release(struct heed_batch *batch)
{
    struct cl_batch *lists = batch->state;
    if (!lists) return;
    if (!cl_device_forked(cl_device_of(batch->plan->device))) lists_release(lists);
    memory_delete(&batch->plan->context->services, lists);
    batch->state = NULL;
}

/* ---- arguments --------------------------------------------------------------------- */

/* A list of arguments being set; the first failure stays. */
struct arguments {
    struct cl_device *device;
    cl_kernel kernel;
    cl_uint next;
    heed_status status;
};

static void add(struct arguments *a, size_t bytes, const void *value)
{
    if (a->status == HEED_OK) {
        const cl_int code = clSetKernelArg(a->kernel, a->next, bytes, value);
        if (code != CL_SUCCESS) {
            cl_failed(a->device, "clSetKernelArg", code);
            a->status = fail(HEED_DEVICE_FAILED, "argument %u: %s", a->next, heed_error_message());
        }
    }
    a->next++;
}

static void add_mem(struct arguments *a, cl_mem mem)
{
    const cl_mem given = mem ? mem : a->device->dummy;
    add(a, sizeof given, &given);
}

/* A list of sequences or items. Intel's CPU driver 2026.22 reads them although the launch has no item: what is absent is valid to read, all zeros. */
static void add_list(struct arguments *a, cl_mem mem)
{
    const cl_mem given = mem ? mem : a->device->no_items;
    add(a, sizeof given, &given);
}

/* What a run does not have. A launch costs NVIDIA's driver 0.3 us for each buffer among its arguments, so where nobody asks for it NULL is given instead: to the
 * programs of a GPU that are compiled for their problem. CPU devices may read ahead of a condition. */
static void add_absent(struct arguments *a, const struct kernel_row *row, const struct problem *problem, int slot)
{
    const heed_type scaled = slot == ROLE_K_SCALE ? problem->k_type : slot == ROLE_V_SCALE ? problem->v_type : HEED_F32;
    const bool read = scaled == HEED_I8 || scaled == HEED_F8_E4M3 || scaled == HEED_F8_E5M2; /* absent: 1 */
    const cl_mem none = NULL;
    if ((a->device->type & CL_DEVICE_TYPE_GPU) && !row->cl->run_time && !read) add(a, sizeof none, &none);
    else if (slot >= 0) add_mem(a, NULL);
    else add_list(a, NULL);
}

static void add_int(struct arguments *a, int32_t value) { add(a, sizeof value, &value); }

/* struct problem of common.cl; problem NULL: the warm-up, nobody looks at it. */
static void add_problem(struct arguments *a, const struct problem *problem)
{
    int32_t values[CL_CONSTANTS] = {0};
    if (problem) cl_constants(problem, values);
    add(a, sizeof values, values);
}

/* The order of struct strides and of the first arguments in common.cl. */
static const int attention_slots[] = {ROLE_Q, ROLE_K, ROLE_V, ROLE_O, ROLE_LSE, ROLE_MASK, ROLE_BIAS, ROLE_ALIBI, ROLE_SINKS, ROLE_K_SCALE,
                                      ROLE_V_SCALE, ROLE_KEY_RANGE, ROLE_SCORES, ROLE_KEY_SUMS};
enum { ATTENTION_SLOTS = sizeof attention_slots / sizeof *attention_slots, ARGUMENT_ITEM_FIRST = ATTENTION_SLOTS + 6 };

/* What kernels find in the workspace: the query rows' sums, an item's own bytes. */
static void workspace_strides(const struct cl_memory *memory, struct strides kept_and_own[2])
{
    const struct heed_batch *batch = memory->call->batch;
    const int64_t begin = memory->bound[CL_SLOT_WORKSPACE].offset + (int64_t)batch->kept_offset, head = 2 * sizeof(float);
    kept_and_own[0] = (struct strides){begin, batch->score_rows, head, head * memory->call->plan->problem.q_heads};
    kept_and_own[1] = (struct strides){.offset = begin + (int64_t)batch->kept_bytes};
}

/* memory NULL: the warm-up, every tensor absent, but something is there to be read. */
static heed_status attention_arguments(struct cl_device *device, const struct kernel_row *row, cl_kernel kernel, const struct cl_memory *memory,
                                       const struct cl_batch *lists, cl_mem items, int64_t part_rows)
{
    enum { LISTS = 4 };
    const cl_mem list[LISTS] = {lists ? lists->sequences : NULL, lists ? lists->q_positions : NULL, lists ? lists->page_table : NULL,
                                lists ? lists->score_slots : NULL};
    struct arguments a = {device, kernel, 0, HEED_OK};
    struct strides st[ATTENTION_SLOTS + 2] = {{0}};
    for (int i = 0; i <= ATTENTION_SLOTS; i++) {
        const int slot = i < ATTENTION_SLOTS ? attention_slots[i] : CL_SLOT_WORKSPACE;
        const cl_mem mem = memory ? memory->bound[slot].mem : NULL;
        if (mem || !memory) add_mem(&a, mem);
        else add_absent(&a, row, &memory->call->plan->problem, slot);
        if (memory && i < ATTENTION_SLOTS) st[i] = strides_of(memory, slot);
    }
    if (memory) workspace_strides(memory, st + ATTENTION_SLOTS);
    for (int n = 0; n < LISTS; n++) {
        if (list[n] || !memory) add_list(&a, list[n]);
        else add_absent(&a, row, &memory->call->plan->problem, -1);
    }
    add_list(&a, items);
    add_int(&a, 0);
    add_int(&a, 0);
    add(&a, sizeof st, st);
    if (MUTANT(cl_part_rows)) part_rows--;
    add(&a, sizeof part_rows, &part_rows);
    add_problem(&a, memory ? &memory->call->plan->problem : NULL);
    return a.status;
}

/* ---- NDRanges -------------------------------------------------------------------------- */

/* Groups in dimension 0 so that the grid stays below 65536 work-items per dimension (beyond it PoCL compiles again), the rest folded into
 * dimension 1. Returns how many of `count` fit into one launch. */
static int64_t grid(int64_t count, const size_t local[2], size_t global[2])
{
    const int64_t x = 65535 / (int64_t)local[0], y = 65535 / (int64_t)local[1];
    const int64_t fits = count < x * y ? count : x * y;
    const int64_t columns = fits < x ? (fits > 0 ? fits : 1) : x;
    const int64_t rows = fits > 0 ? (fits + columns - 1) / columns : 1;
    global[0] = (size_t)columns * local[0];
    global[1] = (size_t)rows * local[1];
    return fits;
}

static heed_status launch_range(struct cl_stream *stream, cl_kernel kernel, const struct cl_step *step, cl_uint argument, int32_t first,
                                int32_t count)
{
    size_t global[2];
    for (int64_t done = 0; done < count;) {
        const int64_t fits = grid(count - done, step->local, global);
        struct arguments a = {stream->device, kernel, argument, HEED_OK};
        add_int(&a, (int32_t)(first + done));
        add_int(&a, (int32_t)fits);
        if (a.status == HEED_OK) a.status = cl_stream_kernel(stream, kernel, global, step->local);
        if (a.status != HEED_OK) return a.status;
        done += fits;
    }
    return HEED_OK;
}

/* Items in launches of bounded estimated time, costly ones first as the list has them. */
static heed_status launch_items(struct cl_stream *stream, cl_kernel kernel, const struct cl_step *step, const struct call *call,
                                enum kind kind, double all_pairs)
{
    const struct work_list *list = &call->batch->work[kind];
    const double pair = (double)atomic_load(&step->pair_seconds);
    stream->estimate += all_pairs * pair;
    if (all_pairs * pair <= launch_seconds) return launch_range(stream, kernel, step, ARGUMENT_ITEM_FIRST, 0, list->count);
    for (int32_t first = 0; first < list->count;) {
        double cost = 0;
        int32_t end = first;
        while (end < list->count) {
            const double next = pair * item_pairs(call->plan, list, &list->items[end]);
            if (end > first && cost + next > launch_seconds) break;
            cost += next;
            end++;
        }
        heed_status status = launch_range(stream, kernel, step, ARGUMENT_ITEM_FIRST, first, end - first);
        if (status != HEED_OK) return status;
        first = end;
        if (MUTANT(cl_launch_gap)) first++;
    }
    return HEED_OK;
}

/* ---- attention ----------------------------------------------------------------------------- */

static heed_status run_kind(struct cl_stream *stream, const struct cl_memory *memory, struct cl_step *step, enum kind kind)
{
    const struct heed_batch *batch = memory->call->batch;
    const struct cl_batch *lists = batch->state;
    const struct work_list *list = &batch->work[kind];
    cl_kernel kernel = NULL;
    if (list->count == 0) return HEED_OK;
    heed_status status = kernel_take(stream->device, step, 0, &kernel);
    if (status == HEED_OK) status = attention_arguments(stream->device, step->row, kernel, memory, lists, lists->items[kind], batch->part_rows);
    if (status == HEED_OK) status = launch_items(stream, kernel, step, memory->call, kind, lists->pairs[kind]);
    kernel_give(step, 0, kernel);
    if (status != HEED_OK || list->merge_count == 0 || MUTANT(cl_merge_skipped)) return status;
    kernel = NULL;
    status = kernel_take(stream->device, step, 1, &kernel);
    if (status == HEED_OK) status = attention_arguments(stream->device, step->row, kernel, memory, lists, lists->merges[kind], batch->part_rows);
    if (status == HEED_OK) status = launch_range(stream, kernel, step, ARGUMENT_ITEM_FIRST, 0, list->merge_count);
    kernel_give(step, 1, kernel);
    return status;
}

/* A finished blocking run of one kind tells what a pair costs; the probe was too small to know. Rising at once, falling slowly. */
static void learn(struct cl_plan *plan, const struct cl_batch *lists, double spent)
{
    const int kind = lists->pairs[KIND_PREFILL] > 0 ? KIND_PREFILL : KIND_DECODE;
    if ((lists->pairs[KIND_PREFILL] > 0 && lists->pairs[KIND_DECODE] > 0) || lists->pairs[KIND_SCORES] > 0) return;
    if (lists->pairs[kind] < 1e5) return;
    const float seen = (float)(spent / lists->pairs[kind]), old = atomic_load(&plan->step[kind].pair_seconds);
    atomic_store(&plan->step[kind].pair_seconds, seen > old ? seen : 0.5f * (seen + old));
}

static bool has_work(const struct heed_batch *batch)
{
    return batch->work[KIND_PREFILL].count > 0 || batch->work[KIND_DECODE].count > 0 || batch->work[KIND_SCORES].count > 0;
}

heed_status cl_run(const struct call *call, const struct queue_args *queue)
{
    enum { WRITTEN = SLOT(ROLE_O) | SLOT(ROLE_LSE) | SLOT(ROLE_SCORES) | SLOT(ROLE_KEY_SUMS) | SLOT(CL_SLOT_WORKSPACE) };
    struct cl_device *device = cl_device_of(call->plan->device);
    struct cl_plan *plan = call->plan->state;
    struct cl_stream stream;
    struct cl_memory memory;
    uint32_t slots = has_work(call->batch) ? SLOT(CL_SLOT_WORKSPACE) : 0;
    heed_status status = cl_stream_begin(device, queue, &stream);
    if (status != HEED_OK) return status;
    /* without work no tensor is looked at, wherever it lies */
    for (int i = 0; i < ATTENTION_SLOTS && has_work(call->batch); i++) slots |= SLOT(attention_slots[i]);
    status = cl_memory_bind(device, call, slots, WRITTEN, &memory);
    if (status != HEED_OK) return status;
    const double begin = cl_seconds();
    for (int kind = KIND_PREFILL; kind < WORK_KINDS && status == HEED_OK; kind++)
        status = run_kind(&stream, &memory, &plan->step[kind], (enum kind)kind);
    if (status == HEED_OK) status = cl_stream_coherent(&stream, &memory);
    status = cl_stream_end(&stream, status, &memory);
    if (status == HEED_OK && !queue) {
        learn(plan, call->batch->state, cl_seconds() - begin);
        status = cl_memory_copy_out(&memory);
    }
    cl_memory_release(&memory);
    return status;
}

/* ---- append, rotate, merge of two -------------------------------------------------------------- */

/* What the three have in common: tensors, sequences, rows. */
struct rows_call {
    enum kind kind;
    const int *slots;             /* in the order of the kernel's arguments and strides */
    int slot_count;
    uint32_t written;
    int32_t heads;
    bool page_table, q_positions; /* does the list have them? */
    int32_t extra[2];             /* append: new_type, given */
    int extra_count;
};

static void rows_arguments(struct arguments *a, const struct rows_call *rows, const struct cl_memory *memory, const struct cl_batch *lists,
                           int32_t sequence_count)
{
    struct strides st[CL_SLOTS] = {{0}};
    for (int i = 0; i < rows->slot_count; i++) {
        add_mem(a, memory ? memory->bound[rows->slots[i]].mem : NULL);
        if (memory) st[i] = strides_of(memory, rows->slots[i]);
    }
    add_list(a, lists ? lists->sequences : NULL);
    if (rows->q_positions) add_mem(a, lists ? lists->q_positions : NULL);
    if (rows->page_table) add_mem(a, lists ? lists->page_table : NULL);
    add_int(a, sequence_count);
    add_int(a, rows->heads);
    for (int i = 0; i < rows->extra_count; i++) add_int(a, rows->extra[i]);
    const cl_uint first = a->next;
    add_int(a, 0);
    add_int(a, 0);
    add(a, (size_t)rows->slot_count * sizeof *st, st);
    add_problem(a, memory ? &memory->call->plan->problem : NULL);
    a->next = first; /* where row_first stands */
}

static heed_status launch_rows(struct cl_stream *stream, const struct rows_call *rows, const struct cl_memory *memory, struct cl_step *step)
{
    const struct call *call = memory->call;
    const int64_t total = call->batch->q_total * rows->heads;
    cl_kernel kernel = NULL;
    if (total == 0) return HEED_OK;
    if (total > INT32_MAX) return fail(HEED_UNSUPPORTED, "%lld rows in one call, at most 2^31 - 1", (long long)total);
    heed_status status = kernel_take(stream->device, step, 0, &kernel);
    if (status != HEED_OK) return status;
    struct arguments a = {stream->device, kernel, 0, HEED_OK};
    rows_arguments(&a, rows, memory, call->batch->state, call->batch->batch);
    status = a.status;
    for (int64_t done = 0; done < total && status == HEED_OK;) {
        size_t global[2];
        const int64_t lanes = (int64_t)(step->local[0] * step->local[1]), groups = (total - done + lanes - 1) / lanes;
        const int64_t fits = grid(groups, step->local, global) * lanes, count = total - done < fits ? total - done : fits;
        struct arguments next = {stream->device, kernel, a.next, HEED_OK};
        add_int(&next, (int32_t)done);
        add_int(&next, (int32_t)count);
        status = next.status == HEED_OK ? cl_stream_kernel(stream, kernel, global, step->local) : next.status;
        done += count;
    }
    kernel_give(step, 0, kernel);
    return status;
}

static heed_status run_rows(const struct call *call, const struct queue_args *queue, const struct rows_call *rows)
{
    struct cl_device *device = cl_device_of(call->plan->device);
    struct cl_plan *plan = call->plan->state;
    struct cl_step *step = &plan->step[rows->kind];
    struct cl_stream stream;
    struct cl_memory memory;
    uint32_t slots = 0;
    if (!step->row) return fail(HEED_UNSUPPORTED, "no row of %s can do this; see heed_plan_explain()", device->name);
    heed_status status = cl_stream_begin(device, queue, &stream);
    if (status != HEED_OK) return status;
    for (int i = 0; i < rows->slot_count && call->batch->q_total > 0; i++) slots |= SLOT(rows->slots[i]);
    status = cl_memory_bind(device, call, slots, rows->written, &memory);
    if (status != HEED_OK) return status;
    status = launch_rows(&stream, rows, &memory, step);
    if (status == HEED_OK) status = cl_stream_coherent(&stream, &memory);
    status = cl_stream_end(&stream, status, &memory);
    cl_memory_release(&memory);
    return status;
}

static const int append_slots[] = {ROLE_NEW_K, ROLE_NEW_V, ROLE_K, ROLE_V, ROLE_K_SCALE, ROLE_V_SCALE, ROLE_ROPE_COS, ROLE_ROPE_SIN};
static const int rotate_slots[] = {ROLE_X, ROLE_ROPE_COS, ROLE_ROPE_SIN};
static const int merge_slots[] = {ROLE_O_A, ROLE_LSE_A, ROLE_O_B, ROLE_LSE_B, ROLE_O, ROLE_LSE};

/* The list of a kind, with nothing in it yet. */
static struct rows_call rows_of(enum kind kind)
{
    if (kind == KIND_APPEND)
        return (struct rows_call){.kind = kind,
                                  .slots = append_slots,
                                  .slot_count = 8,
                                  .page_table = true,
                                  .q_positions = true,
                                  .extra_count = 2,
                                  .written = SLOT(ROLE_K) | SLOT(ROLE_V) | SLOT(ROLE_K_SCALE) | SLOT(ROLE_V_SCALE)};
    if (kind == KIND_ROTATE)
        return (struct rows_call){.kind = kind, .slots = rotate_slots, .slot_count = 3, .q_positions = true, .written = SLOT(ROLE_X)};
    return (struct rows_call){.kind = kind, .slots = merge_slots, .slot_count = 6, .written = SLOT(ROLE_O) | SLOT(ROLE_LSE)};
}

heed_status cl_append(const struct call *call, const struct queue_args *queue)
{
    struct rows_call rows = rows_of(KIND_APPEND);
    rows.heads = call->plan->problem.kv_heads;
    rows.extra[0] = (int32_t)call->new_type;
    rows.extra[1] =
        (call->new_k.given ? 1 : 0) | (call->new_v.given ? 2 : 0) | (call->k_scale.given ? 4 : 0) | (call->v_scale.given ? 8 : 0);
    return run_rows(call, queue, &rows);
}

heed_status cl_rotate(const struct call *call, const struct queue_args *queue)
{
    struct rows_call rows = rows_of(KIND_ROTATE);
    rows.heads = call->heads;
    return run_rows(call, queue, &rows);
}

heed_status cl_merge(const struct call *call, const struct queue_args *queue)
{
    struct rows_call rows = rows_of(KIND_MERGE);
    rows.heads = call->plan->problem.q_heads;
    return run_rows(call, queue, &rows);
}

/* ---- preparing: what a driver compiles at the first launch is compiled now ------------------------ */

static heed_status warm_kernel(struct cl_stream *stream, struct cl_step *step, enum kind kind, int n)
{
    cl_kernel kernel = NULL;
    size_t global[2];
    heed_status status = kernel_take(stream->device, step, n, &kernel);
    if (status != HEED_OK) return status;
    grid(0, step->local, global);
    if (kind < WORK_KINDS) {
        status = attention_arguments(stream->device, step->row, kernel, NULL, NULL, NULL, 0);
    } else {
        const struct rows_call rows = rows_of(kind);
        struct arguments a = {stream->device, kernel, 0, HEED_OK};
        rows_arguments(&a, &rows, NULL, NULL, 0);
        status = a.status;
    }
    if (status == HEED_OK) status = cl_stream_kernel(stream, kernel, global, step->local);
    kernel_give(step, n, kernel);
    return status;
}

/* One group without work per kernel. */
static heed_status warm(struct cl_device *device, struct cl_step *step, enum kind kind)
{
    const char *const names[] = {step->row->cl->kernel, step->row->cl->merge};
    const struct cl_memory none = {.on_host = true};
    struct cl_stream stream;
    heed_status status = cl_stream_begin(device, NULL, &stream);
    for (int i = 0; i < 2 && names[i] && status == HEED_OK; i++) status = warm_kernel(&stream, step, kind, i);
    return cl_stream_end(&stream, status, &none);
}

/* The first guess at what a pair costs. Probes are small, and on a device that works on copies most of their time is the copies': such a GPU would get its first runs
 * in many pieces. A fast row does at least two multiplications a unit and cycle, at half a gigahertz. */
static float pair_at_most(struct cl_device *device, const struct kernel_row *row, const struct problem *problem)
{
    const float probed = cl_pair_seconds(device, row, problem);
    const float slow = (float)((problem->head_dim + problem->v_head_dim) / (1e9 * device->compute_units));
    if (!(device->type & CL_DEVICE_TYPE_GPU) || row->cl->run_time) return probed;
    return probed < slow ? probed : slow;
}

heed_status cl_plan_prepare(struct heed_plan *plan)
{
    struct cl_device *device = cl_device_of(plan->device);
    struct cl_plan *state = memory_new(&plan->context->services, 1, sizeof *state);
    heed_status status = HEED_OK;
    if (!state) return out_of_memory(sizeof *state);
    for (int kind = 0; kind < KIND_COUNT && status == HEED_OK; kind++) {
        struct cl_step *step = &state->step[kind];
        if (!plan->row[kind]) continue;
        status = cl_step_prepare(device, &plan->problem, plan->row[kind], step);
        if (status == HEED_OK) status = warm(device, step, (enum kind)kind);
        atomic_store(&step->pair_seconds, pair_at_most(device, plan->row[kind], &plan->problem));
    }
    plan->state = state;
    if (status != HEED_OK) cl_plan_release(plan);
    return status;
}

void cl_plan_release(struct heed_plan *plan)
{
    struct cl_plan *state = plan->state;
    for (int kind = 0; state && kind < KIND_COUNT; kind++) cl_step_release(cl_device_of(plan->device), &state->step[kind]);
    memory_delete(&plan->context->services, plan->state);
    plan->state = NULL;
}
