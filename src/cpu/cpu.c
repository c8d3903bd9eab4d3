/* SPDX-License-Identifier: MIT
 * cpu.c - the CPU's backend: hand work items to threads, one item to its row's function, then merge what was split.
 *
 * Workspace: [partial results][sums kept for the scores][scratch of worker 0][scratch of worker 1]..., each rounded up to 64 bytes: a run allocates nothing.
 */
#include "cpu.h"
#include "kernel.h"
#include "rows.h"
#include "../status.h"
#include <string.h>
#include <sys/mman.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#elif !defined(__aarch64__)
#include <fenv.h>
#endif

static const struct kernel_row *const lists[] = {
#if defined(__x86_64__)
    cpu_rows_amx,
    cpu_rows_avx512bf16,
    cpu_rows_avx512vbmi,
    cpu_rows_avx512,
    cpu_rows_avx2,
#elif defined(__aarch64__)
#if defined(HEED_ARM_BF16)
    cpu_rows_neonbf16,
#endif
#if defined(HEED_SVE)
    cpu_rows_sve512,
    cpu_rows_sve256,
#endif
    cpu_rows_neon,
#if defined(HEED_SVE)
    cpu_rows_sve128,
#endif
#endif
#if defined(HEED_RVV)
    cpu_rows_rvv256,
    cpu_rows_rvv128,
#endif
    cpu_rows_vector,
    cpu_rows_scalar,
    cpu_rows_reference,
    NULL,
};

static heed_status admit(struct device *device, const struct problem *problem, const struct kernel_row *row, enum kind kind, char *reason,
                         size_t capacity)
{
    const uint32_t missing = row->needs & ~device->context->services.isa;
    (void)problem;
    (void)kind;
    if (row->needs & device->context->services.isa & ISA_AVX512BF16 && device->context->services.isa & ISA_SLOW_DOTS) {
        text_append(reason, capacity, 0, "bf16 dots are slower than fma on this processor; cpu_features \"avx512bf16\" asks for them");
        return HEED_UNSUPPORTED;
    }
    if (!missing) return HEED_OK;
    text_append(reason, capacity, 0, "needs %s, may use %s", cpu_isa_name(missing), cpu_isa_name(device->context->services.isa));
    return HEED_UNSUPPORTED;
}

/* ---- floating-point mode ------------------------------------------------- */

/* Every task runs with round-to-nearest, no flushing, no traps, whatever the lending thread has, and leaves that as it was. */
#if defined(__x86_64__)
static uint64_t mode_enter(void)
{
    const uint32_t mode = _mm_getcsr();
    if (!MUTANT(cpu_mode_kept)) _mm_setcsr(0x1f80);
    return mode;
}
static void mode_leave(uint64_t mode)
{
    if (!MUTANT(cpu_mode_left)) _mm_setcsr((uint32_t)mode);
}
#elif defined(__aarch64__)
static uint64_t mode_enter(void)
{
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    __asm__ volatile("msr fpcr, %0" : : "r"(UINT64_C(0)));
    return mode;
}
static void mode_leave(uint64_t mode) { __asm__ volatile("msr fpcr, %0" : : "r"(mode)); }
#else
static uint64_t mode_enter(void)
{
    const int mode = fegetround();
    fesetround(FE_TONEAREST);
    return (uint64_t)mode;
}
static void mode_leave(uint64_t mode) { fesetround((int)mode); }
#endif

/* ---- run ----------------------------------------------------------------- */

static size_t round_up(size_t bytes) { return (bytes + 63) / 64 * 64; }

/* Scratch of one worker: what the hungriest of the rows wants. */
static size_t scratch_bytes(const struct heed_batch *batch)
{
    size_t most = 0;
    for (int kind = 0; kind < WORK_KINDS; kind++) {
        const struct work_list *list = &batch->work[kind];
        if (list->count == 0 || !list->row->cpu->scratch) continue;
        const size_t bytes = round_up(list->row->cpu->scratch(&batch->plan->problem, batch->kv_len_max));
        if (bytes > most) most = bytes;
    }
    return most;
}

/* Of the query rows, densely [token][head][dim]: where o is written over q, the pass over the scores reads this copy. */
static size_t queries_bytes(const struct heed_batch *batch)
{
    const struct problem *p = &batch->plan->problem;
    if (batch->work[KIND_SCORES].count == 0) return 0;
    return round_up((size_t)batch->q_total * (size_t)p->q_heads * (size_t)type_row_bytes(p->q_type, p->head_dim));
}

size_t cpu_workspace_bytes(const struct heed_batch *batch)
{
    const struct services *services = &batch->plan->context->services;
    size_t workers = (size_t)services->threads.workers;
    const size_t attention = (size_t)batch->work[KIND_PREFILL].count + (size_t)batch->work[KIND_DECODE].count;
    const size_t scores = (size_t)batch->work[KIND_SCORES].count, items = attention > scores ? attention : scores;
    if (services->pool && items < workers) workers = items; /* threads.c: worker numbers below the number of items; a lender may use any */
    return queries_bytes(batch) + scratch_bytes(batch) * workers;
}

struct job {
    const struct call *call;
    unsigned char *scratch; /* of worker 0 */
    size_t scratch_bytes;
};

/* Item i of both lists together, prefill first: its items cost most. */
static void item_task(void *arg, int32_t i, int32_t worker)
{
    const struct job *job = arg;
    const struct work_list *list = &job->call->batch->work[KIND_PREFILL];
    if (i >= list->count) {
        i -= list->count;
        list = &job->call->batch->work[KIND_DECODE];
    }
    const uint64_t mode = mode_enter();
    if (MUTANT(cpu_scratch_shared)) worker = 0;
    list->row->cpu->item(job->call, &list->items[i], job->scratch + (size_t)worker * job->scratch_bytes);
    mode_leave(mode);
}

static void merge_task(void *arg, int32_t i, int32_t worker)
{
    const struct job *job = arg;
    const struct work_list *list = &job->call->batch->work[KIND_PREFILL];
    if (i >= list->merge_count) {
        i -= list->merge_count;
        list = &job->call->batch->work[KIND_DECODE];
    }
    const uint64_t mode = mode_enter();
    list->row->cpu->merge_parts(job->call, &list->merges[i], job->scratch + (size_t)worker * job->scratch_bytes);
    mode_leave(mode);
}

static void scores_task(void *arg, int32_t i, int32_t worker)
{
    const struct job *job = arg;
    const struct work_list *list = &job->call->batch->work[KIND_SCORES];
    const uint64_t mode = mode_enter();
    list->row->cpu->scores(job->call, &list->items[i], job->scratch + (size_t)worker * job->scratch_bytes);
    mode_leave(mode);
}

/* Fused multiply-adds of a run, counted no further than `enough`. */
static double work_of(const struct heed_batch *batch, double enough)
{
    const struct problem *p = &batch->plan->problem;
    double work = 0;
    for (int kind = 0; kind < WORK_KINDS; kind++) {
        const struct kernel_row *row = batch->plan->row[kind];
        const double group = row && row->packs_group ? p->group : 1;
        for (int32_t n = 0; n < batch->work[kind].count && work < enough; n++) {
            const struct work_item *item = &batch->work[kind].items[n];
            const double heads = item->head < 0 ? p->q_heads : group; /* of one item */
            work += heads * ((double)item->kv_end - item->kv_begin + 1) * (item->q_end - item->q_begin) * (p->head_dim + p->v_head_dim);
        }
    }
    return work;
}

/* Work that is worth threads that look for it already, and work worth waking them: about 2 and 20 microseconds of one core. */
static const double worth_sharing = 1e5, worth_waking = 1e6;

/* task(0) ... task(count - 1), on this thread alone where that is quicker. */
static void hand_out(const struct call *call, bool alone, int32_t count, void (*task)(void *, int32_t, int32_t), void *arg)
{
    const heed_threads *threads = &call->plan->context->services.threads;
    if (count == 0) return;
    if (alone || count == 1 || threads->workers == 1)
        for (int32_t i = 0; i < count; i++) task(arg, i, 0);
    else
        threads->parallel_for(threads->user, count, task, arg);
}

/* *again: the call with its queries in the workspace at `to`. */
static void keep_queries(const struct call *call, unsigned char *to, struct call *again)
{
    const struct heed_batch *batch = call->batch;
    const struct problem *p = &batch->plan->problem;
    const int64_t row = type_row_bytes(p->q_type, p->head_dim);
    struct view *kept = &again->q;
    *again = *call;
    kept->data = to;
    kept->head = row;
    kept->token = row * p->q_heads;
    for (int32_t b = 0; b < batch->batch; b++) {
        const struct sequence *s = &batch->sequences[b];
        kept->batch = batch->q_packed ? 0 : kept->token * s->q_len;
        for (int32_t i = 0; i < s->q_len; i++)
            for (int32_t h = 0; h < p->q_heads; h++) memcpy(query_row(kept, s, b, h, i), query_row(&call->q, s, b, h, i), (size_t)row);
    }
}

static heed_status run(const struct call *call, const struct queue_args *queue)
{
    const struct heed_batch *batch = call->batch;
    const struct services *services = &batch->plan->context->services;
    const double work = work_of(batch, worth_waking);
    const bool between = work >= worth_sharing && work < worth_waking && services->pool;
    const bool alone = between ? !cpu_threads_near(services) : work < worth_waking;
    unsigned char *queries = call->workspace.given ? call->workspace.data + batch->kept_offset + batch->kept_bytes : NULL;
    struct job job = {.call = call, .scratch_bytes = scratch_bytes(batch)};
    struct call again;
    (void)queue;
    if (queries) job.scratch = queries + queries_bytes(batch);
    const bool kept = queries_bytes(batch) > 0 && call->o.data == call->q.data && !MUTANT(cpu_scores_read_outputs);
    if (kept) keep_queries(call, queries, &again);
    hand_out(call, alone, batch->work[KIND_PREFILL].count + batch->work[KIND_DECODE].count, item_task, &job);
    hand_out(call, alone, batch->work[KIND_PREFILL].merge_count + batch->work[KIND_DECODE].merge_count, merge_task, &job);
    if (kept) job.call = &again;
    hand_out(call, alone, batch->work[KIND_SCORES].count, scores_task, &job);
    if (between) cpu_threads_used(services);
    return HEED_OK;
}

/* ---- append, rotate, merge: row by row ----------------------------------- */

enum { ROW_TASK = 16 }; /* query tokens per task */

struct row_job {
    const struct call *call;
    void (*row)(const struct call *call, int32_t b, int32_t h, int32_t i, void *scratch);
    int32_t heads;
    int64_t tokens;
};

/* Query tokens [i * ROW_TASK, (i + 1) * ROW_TASK) of all sequences in a line, all heads. */
static void row_task(void *arg, int32_t task, int32_t worker)
{
    const struct row_job *job = arg;
    const struct heed_batch *batch = job->call->batch;
    _Alignas(64) unsigned char scratch[CPU_ROW_SCRATCH];
    int64_t token = (int64_t)task * ROW_TASK;
    const int64_t end = token + ROW_TASK < job->tokens ? token + ROW_TASK : job->tokens;
    int64_t first = 0; /* token 0 of sequence b */
    const uint64_t mode = mode_enter();
    (void)worker;
    for (int32_t b = 0; b < batch->batch && token < end; b++) {
        const int32_t q_len = batch->sequences[b].q_len;
        for (; token < end && token < first + q_len; token++)
            for (int32_t h = 0; h < job->heads; h++) job->row(job->call, b, h, (int32_t)(token - first), scratch);
        first += q_len;
    }
    mode_leave(mode);
}

static void run_rows(const struct call *call, struct row_job *job)
{
    int64_t tokens = 0;
    for (int32_t b = 0; b < call->batch->batch; b++) tokens += call->batch->sequences[b].q_len;
    job->call = call;
    job->tokens = tokens;
    const int64_t tasks = (tokens + ROW_TASK - 1) / ROW_TASK;
    hand_out(call, tokens * job->heads < 64, (int32_t)tasks, row_task, job);
}

static heed_status append(const struct call *call, const struct queue_args *queue)
{
    struct row_job job = {.row = call->plan->row[KIND_APPEND]->cpu->append, .heads = call->plan->problem.kv_heads};
    (void)queue;
    run_rows(call, &job);
    return HEED_OK;
}

static heed_status rotate(const struct call *call, const struct queue_args *queue)
{
    struct row_job job = {.row = call->plan->row[KIND_ROTATE]->cpu->rotate, .heads = call->heads};
    (void)queue;
    run_rows(call, &job);
    return HEED_OK;
}

static heed_status merge(const struct call *call, const struct queue_args *queue)
{
    struct row_job job = {.row = call->plan->row[KIND_MERGE]->cpu->merge, .heads = call->plan->problem.q_heads};
    (void)queue;
    run_rows(call, &job);
    return HEED_OK;
}

/* ---- memory --------------------------------------------------------------- */

/* Large buffers on pages of 2 MiB: worth 1.5 to 1.8 times the bandwidth of a KV cache. */
static heed_status buffer_create(struct heed_buffer *buffer)
{
    const heed_allocator *allocator = &buffer->context->services.allocator;
    const size_t huge = (size_t)2 << 20;
    const bool large = buffer->bytes >= 2 * huge;
    if (buffer->bytes > SIZE_MAX / 2) return out_of_memory(buffer->bytes);
    const size_t unit = large ? huge : 64, bytes = (buffer->bytes + unit - 1) / unit * unit;
    buffer->data = allocator->alloc(allocator->user, bytes, unit);
    if (!buffer->data) return out_of_memory(buffer->bytes);
#ifdef MADV_HUGEPAGE
    if (large) (void)madvise(buffer->data, bytes, MADV_HUGEPAGE); /* advice: refusal costs speed alone */
#endif
    return HEED_OK;
}

static void buffer_destroy(struct heed_buffer *buffer)
{
    const heed_allocator *allocator = &buffer->context->services.allocator;
    if (buffer->data) allocator->free(allocator->user, buffer->data);
    buffer->data = NULL;
}

static heed_status buffer_write(struct heed_buffer *buffer, size_t offset, const void *from, size_t bytes)
{
    memcpy((unsigned char *)buffer->data + offset, from, bytes);
    return HEED_OK;
}

static heed_status buffer_read(const struct heed_buffer *buffer, size_t offset, void *to, size_t bytes)
{
    memcpy(to, (const unsigned char *)buffer->data + offset, bytes);
    return HEED_OK;
}

static heed_status tensor_read(struct device *device, const heed_tensor *tensor, uint64_t first, void *to, size_t bytes)
{
    (void)device;
    memcpy(to, (const unsigned char *)tensor->data + first, bytes);
    return HEED_OK;
}

static heed_status tensor_write(struct device *device, const heed_tensor *tensor, uint64_t first, const void *from, size_t bytes)
{
    (void)device;
    memcpy((unsigned char *)tensor->data + first, from, bytes);
    return HEED_OK;
}

static heed_status tensor_bytes(struct device *device, const heed_tensor *tensor, uint64_t *bytes)
{
    (void)device;
    *bytes = tensor->bytes;
    return HEED_OK;
}

const struct backend cpu_backend = {
    .id = HEED_BACKEND_CPU,
    .lists = lists,
    .admit = admit,
    .workspace = cpu_workspace_bytes,
    .run = run,
    .append = append,
    .rotate = rotate,
    .merge = merge,
    .buffer_create = buffer_create,
    .buffer_destroy = buffer_destroy,
    .buffer_write = buffer_write,
    .buffer_read = buffer_read,
    .tensor_read = tensor_read,
    .tensor_write = tensor_write,
    .tensor_bytes = tensor_bytes,
};
