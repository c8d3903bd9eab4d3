/* SPDX-License-Identifier: MIT
 * internal.h - the shared nouns of the library: problem, kernel row, plan, batch, work item, call. Types only, no code.
 *
 * Every floor sees this file. Lengths are in tokens, sizes in bytes. Strides inside the library are in BYTES (the public
 * header's are in elements), so that one address formula serves every storage type:
 *
 *     query-like row (b, h, i):  data + b * batch + (q_token_b + i) * token + h * head      q, o, lse, mask, bias, scores, ...
 *     key-like row   (b, g, j):  data + b * batch + (kv_token_b + j) * token + g * head     k, v, scales; paged:
 *                                data + page_table[b][j / page] * batch + (j % page) * token + g * head
 *
 * For packed (ragged) tensors batch is 0 and q_token_b / kv_token_b say where the sequence begins; otherwise they are 0.
 * view.h has these formulas as inline functions.
 */
#ifndef HEED_INTERNAL_H
#define HEED_INTERNAL_H

#include "heed.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

enum { MAX_HEAD_DIM = 1024, MAX_WORKERS = 256, EXPLAIN_BYTES = 8192 };

/* ---- services: what the caller lent to the context --------------------- */

/* Instruction sets as bits, weakest first; HEED_CPU and cpu_features cap them (cpu/features.c). */
enum isa {
    ISA_SCALAR = 1u << 0,
    ISA_AVX2 = 1u << 1,       /* AVX2, FMA and F16C */
    ISA_AVX512 = 1u << 2,     /* F, BW, DQ, VL, CD */
    ISA_AVX512VBMI = 1u << 3, /* bytes looked up in a table; with ISA_AVX512 */
    ISA_AVX512BF16 = 1u << 4,
    ISA_AMX = 1u << 5,        /* tiles of bf16; with ISA_AVX512BF16 */
    ISA_SLOW_DOTS = 1u << 6,  /* no set, but a word on one: bf16 dots of AVX512-BF16 take longer here than the fma that they stand for */
    ISA_VECTOR = 1u << 7,     /* what the compiler makes of 16-byte vectors on any machine */
    ISA_SVE128 = 1u << 8,     /* SVE with vectors of exactly so many bits: a machine has one of them at most */
    ISA_NEON = 1u << 9,
    ISA_SVE256 = 1u << 10,
    ISA_SVE512 = 1u << 11,
    ISA_RVV128 = 1u << 12,    /* RISC-V's V 1.0, likewise */
    ISA_RVV256 = 1u << 13,
    ISA_NEONBF16 = 1u << 14   /* bf16 dots of ARMv8.6 */
};

struct services {
    heed_allocator allocator; /* functions never NULL */
    heed_threads threads;     /* parallel_for never NULL: the caller's, or the built-in pool's */
    void *pool;               /* the built-in pool (cpu/threads.c), NULL when the threads are the caller's */
    heed_log_fn log;          /* may be NULL */
    void *log_user;
    int32_t log_level;        /* 0 errors, 1 warnings, 2 information, 3 everything */
    uint32_t isa;             /* ISA_ bits that rows may use */
    uint32_t flags;           /* HEED_NO_OPENCL, HEED_NO_FALLBACK, HEED_NO_ENVIRONMENT */
    char *cache_dir;          /* compiled OpenCL kernels and verdicts of probes; NULL = memory only */
    char *tuning_file;        /* NULL = built-in rows only */
};

/* ---- problem: a checked, normalised descriptor -------------------------- */

/* Features a row must be able to do: the flags of heed.h that change what is computed, and these. */
#define FEATURE_SOFTCAP (UINT64_C(1) << 40)
#define FEATURE_PAGED   (UINT64_C(1) << 41)
#define FEATURE_GQA     (UINT64_C(1) << 42) /* q_heads > kv_heads */
#define FEATURE_V_DIM   (UINT64_C(1) << 43) /* v_head_dim differs from head_dim */
#define FEATURE_SUMS    (UINT64_C(1) << 44) /* m and l of every query row are kept in the workspace, for the pass over the scores */
/* HEED_INVARIANT is not a feature but the column `order`; HEED_TOP_LEFT and HEED_ROPE_INTERLEAVED never reach a row, nor do HEED_WRITE_SCORES and
 * HEED_WRITE_KEY_SUMS: they are a kind of step of their own. */
#define FEATURES_ALL (~UINT64_C(0))

struct problem {
    heed_type q_type, k_type, v_type, o_type, bias_type; /* never HEED_TYPE_DEFAULT */
    int32_t q_heads, kv_heads, group;                    /* group = q_heads / kv_heads */
    int32_t head_dim, v_head_dim;
    int32_t max_batch, max_q_len, max_kv_len;            /* hints, 0 = not known */
    float scale;                                         /* never 0: 1/sqrt(head_dim) filled in, rounded to float once */
    float softcap;                                       /* 0 = off */
    int32_t window_left, window_right;                   /* -1 = unbounded; both -1 without HEED_WINDOW */
    int32_t page_size;                                   /* 0 = not paged */
    int32_t rope_dim, rope_offset, scores_stage;
    uint64_t flags;                                      /* as given */
    uint64_t features;                                   /* what a row must be able to do */
};

/* ---- batch: lengths turned into work ------------------------------------ */

/* One sequence. The same layout is read by the OpenCL kernels (kernels/common.cl): 16 + 5 * 8 = 56 bytes. */
struct sequence {
    int32_t q_len, kv_len;
    int32_t first_page; /* index of the sequence's first entry in the page table: b * page_table_stride */
    int32_t reserved;
    int64_t q_token;    /* queries before this sequence in packed tensors; 0 when q is not packed */
    int64_t kv_token;   /* the same for keys */
    int64_t q_index;    /* index of query 0 in q_positions: q_start[b], or b * q_len */
    int64_t position;   /* p_i = position + i, where q_positions is not given */
    int64_t first;      /* r_j = first + j */
};

/* Queries [q_begin, q_end) of one head against keys [kv_begin, kv_end): a superset of what they can see by position.
 * kv_begin = kv_end where nothing can be seen: the item still writes its rows (o = 0, or the sink). 32 bytes, also in OpenCL. */
struct work_item {
    int32_t sequence;
    int32_t head;     /* KV head g where the row packs groups (row->packs_group), else query head h */
    int32_t q_begin, q_end;
    int32_t kv_begin, kv_end; /* multiples of row->kv_chunk or short_chunk, but for the sequence's end, where kv is cut */
    int32_t part;     /* -1: write o and lse. Else index of the first row of partial results in the workspace */
    int32_t reserved;
};
/* reserved of an item of KIND_SCORES: key sums alone, of a step of decode whose row has an order of its own. The scores behind them may then have decode's order. */
enum { SCORED_STEP = 1 };
/* An item of KIND_SCORES: the chosen queries [q_begin, q_end) against keys [kv_begin, kv_end), all of which it writes. head -1: every head, for one
 * row of sums. Empty queries: the sums are 0. */

/* Partial results of `chunks` items, to be merged in this order: rows part + c * rows ... of chunk c. 32 bytes. */
struct merge_item {
    int32_t sequence, head, q_begin, q_end;
    int32_t part, chunks, rows; /* rows = (q_end - q_begin) * (packs_group ? group : 1); row r is query q_begin + r / group,
                                   head g * group + r % group where groups are packed, else query q_begin + r, head h */
    int32_t reserved;
};

struct work_list {
    const struct kernel_row *row;
    int32_t count, merge_count;
    struct work_item *items;   /* costly ones first */
    struct merge_item *merges;
};

/* Partial row r in the workspace: v_head_dim accumulators (f32, not normalised) at float index r * v_head_dim, then, after
 * all rows' accumulators, (m, l) at float index part_rows * v_head_dim + 2 * r. m is a natural logarithm's maximum (in base 2 a bias of
 * -FLT_MAX would overflow), -infinity with l = 0 where nothing was seen. */

/* The query rows' own m and l, behind the partial results (from kept_offset on, FEATURE_SUMS): two floats at index 2 * ((q_index_b + i) * q_heads + h),
 * the sink counted in: p_j = e^(s_j - m) / l. l = 0 where nothing was seen. */

enum kind { KIND_PREFILL, KIND_DECODE, KIND_SCORES, WORK_KINDS, KIND_MERGE = WORK_KINDS, KIND_APPEND, KIND_ROTATE, KIND_COUNT }; /* WORK_KINDS: those of a run, with work lists */
#define KIND_BIT(kind) (1u << (kind))

struct heed_batch {
    atomic_int refs;
    struct heed_plan *plan;           /* held */
    int32_t batch;
    int32_t page_table_stride;
    int64_t q_total, kv_total;        /* tokens of all sequences; kv_total is rows of packed k, else 0 */
    int32_t q_len_max, kv_len_max;
    bool q_packed, kv_packed;
    int32_t page_max;                 /* largest page number in use, -1 if none */
    int32_t page_max_tokens;          /* tokens in use of that page */
    struct sequence *sequences;       /* [batch] */
    int32_t *q_positions;             /* [q_total] or NULL */
    int32_t *page_table;              /* [batch * page_table_stride] or NULL */
    int32_t score_rows;               /* the last so many queries of each sequence; 0 = all */
    int32_t score_rows_max;           /* of the longest sequence */
    int32_t score_head_count;
    int32_t *head_slots;              /* [q_heads] which head of the scores tensor a query head is, -1 = none; NULL: no scores are written */
    struct work_list work[WORK_KINDS];
    int64_t part_rows;
    size_t kept_offset, kept_bytes;   /* of the query rows' sums in the workspace */
    size_t workspace_bytes;
    void *state;                      /* the backend's copy on the device */
};

/* ---- call: one run, checked --------------------------------------------- */

/* A tensor with strides in bytes. Host memory: data points at element 0 (offset applied). Device memory: mem and offset. */
struct view {
    unsigned char *data;
    void *mem;              /* cl_mem for HEED_MEMORY_CL_BUFFER */
    int64_t offset;         /* in bytes from the start of mem (host: already in data) */
    int64_t batch, head, token;
    uint64_t bytes;         /* as stated by the caller */
    heed_memory memory;
    bool given;             /* false: absent, every other field is 0 */
};

struct call {
    const struct heed_plan *plan;
    const struct heed_batch *batch;
    struct view q, k, v, o, lse, mask, bias, alibi, sinks, k_scale, v_scale, scores, key_range, key_sums, rope_cos, rope_sin;
    struct view workspace;
    bool private_output;    /* heed_forward: outputs go to memory of the backend's own, copied out after success */
    bool may_copy;          /* heed_forward: host tensors may be staged through device memory */
    /* append, rotate, merge */
    heed_type new_type;
    int32_t heads;          /* of x */
    struct view new_k, new_v, x, o_a, lse_a, o_b, lse_b;
};

/* The caller's queue, for heed_opencl.h; all NULL / 0 for the blocking calls. */
struct queue_args {
    void *queue;            /* cl_command_queue */
    uint32_t num_wait;
    const void *wait;       /* const cl_event * */
    void *done;             /* cl_event * */
};

/* ---- rows: the table ---------------------------------------------------- */

/* What reliability.md's bound must know of a row's arithmetic (doc/accuracy.md):
 *   h_d = ceil(head_dim / dot_lanes) + dot_extra          additions a product q_i k_i passes through
 *   h_n = n for key_block 0, else key_block + ceil(n / key_block); plus sum_extra      additions a weighted value passes through
 *   T   = ceil(n / rescale_block) + 2                     how often a weight may be rescaled (at most n) */
struct arithmetic {
    int32_t dot_lanes, dot_extra;
    int32_t key_block, sum_extra;
    int32_t rescale_block;
    float above;                  /* R: how far above the largest score what stands for the running maximum may be */
    float exp_ulp, exp_roundings; /* a, r */
    float tanh_ulp, log_ulp;
    float div_roundings;          /* e_div */
    float add_roundings;          /* roundings of one addition in h_d and h_n: 0 = 1; a matrix unit cuts digits off, 2.5; rounding to odd, 2 */
    int32_t together;             /* products added to each other before they meet the sum: 0 = 1; 2 = neighbours, in d and in keys */
    heed_type weight_type;        /* type in which weights meet v: HEED_F32 (or 0), HEED_F16, HEED_BF16 */
    bool flushes;                 /* denormals become 0 */
    bool exact_double;            /* the reference: its error is rounding of the output only */
};

/* Order of arithmetic. HEED_INVARIANT wants one order for every kind of step: rows with ORDER_OWN refuse it. */
enum order { ORDER_OWN, ORDER_PANEL, ORDER_PANEL_UNFUSED, ORDER_PANEL_BF16, ORDER_PANEL_TILES, ORDER_NAIVE, ORDER_REFERENCE };

struct kernel_row {
    const char *name;         /* "cpu.avx2.prefill", "opencl.naive", "reference" */
    uint32_t kinds;           /* KIND_BIT(...) of every kind of step it can do */
    enum order order;
    uint32_t needs;           /* CPU: ISA_ bits. OpenCL: CL_NEEDS_ bits of opencl/cl.h */
    uint64_t features;        /* must cover problem.features */
    uint32_t q_types, k_types, v_types, o_types; /* 1u << heed_type */
    int32_t dim_step, dim_limit; /* head_dim and v_head_dim: a multiple of, at most; 0 = any */
    /* Why the problem does not fit beyond what the columns say: NULL = fits, else a reason (may be written to text). */
    const char *(*fits)(const struct problem *problem, char *text, size_t capacity);
    int32_t q_tile;           /* queries per work item; 0 = all of the sequence */
    int32_t q_tile_few;       /* the same in batches that make few items of q_tile; 0 = q_tile. The bits of a query must not depend on which */
    int32_t kv_chunk;         /* keys per work item when the row can split keys (partial results, merged); 0 = never split */
    int32_t short_chunk;      /* the same for sequences of up to plan.short_max_q_len queries; 0 = kv_chunk */
    int32_t short_rows;       /* query rows of an item's head, or group, in such a sequence at most: while partial results cost little beside the products */
    int32_t q_align;          /* 0/1; queries per item are counted from 0 in steps of q_tile always */
    int32_t decode_rows;      /* a step is decode while its queries times the group are at most so many; 0 = 8. A single query may be with more: plan.c */
    int32_t decode_queries;   /* or its queries alone, where there are groups and prefill takes each head for itself; 0 = no matter */
    int32_t decode_dim;       /* decode_rows are those of heads at least so long; of shorter ones as much fewer, but 8: what ends a dot product takes as long */
    int32_t step_rows;        /* prefill: quicker than decode from more rows than so many on, whatever decode_rows says; 0 = no matter */
    int32_t full_rows;        /* prefill: multiples of so many rows leave no lane idle, so they are never decode; 0 = no matter */
    bool on_request;          /* chosen only where heed_plan_create() names it: its numbers are not what the types promise */
    bool steps_in_order;      /* steps of decode only for HEED_INVARIANT, which wants them in the order of the row's prefill, or by name: others do them sooner */
    bool packs_group;         /* an item is a KV head with its whole group; else one query head */
    struct arithmetic arithmetic;
    const struct cpu_kernel *cpu; /* of the wing (cpu/kernel.h) */
    const struct cl_kernel_spec *cl; /* of the wing (opencl/cl.h) */
};

/* ---- devices, plans, contexts ------------------------------------------- */

struct device {
    heed_device_info info;
    const struct backend *backend;
    struct heed_context *context;
    bool automatic;           /* HEED_DEVICE_AUTO may choose it: a GPU or accelerator, no CPU in OpenCL's clothes */
    bool far_cache;           /* a line that a core's own cache lacks takes long */
    void *state;              /* the wing's */
};

struct heed_plan {
    atomic_int refs;
    struct heed_context *context;
    struct device *device;
    heed_desc desc;
    struct problem problem;
    const struct kernel_row *row[KIND_COUNT];
    int32_t decode_max_q_len; /* sequences with q_len up to this are decode steps; may be 0 */
    int32_t short_max_q_len;  /* and of those up to this prefill may take the keys in chunks, too */
    char *explain;
    char *insisted;           /* the row name given to heed_plan_create, or NULL */
    void *state;              /* the wing's: compiled kernels */
};

struct heed_buffer {
    struct heed_context *context;
    struct device *device;
    size_t bytes;
    void *data;               /* host pointer, or cl_mem */
};

/* A backend: one wing. Every function returns a status and leaves its message (status.h). */
struct backend {
    heed_backend id;
    const struct kernel_row *const *lists; /* NULL-terminated array of row lists, each ended by a row without name; best first */
    /* May this row be used on this device for this problem (admission; instruction sets)? HEED_OK, or UNSUPPORTED with a reason. */
    heed_status (*admit)(struct device *device, const struct problem *problem, const struct kernel_row *row, enum kind kind,
                         char *reason, size_t capacity);
    heed_status (*plan_prepare)(struct heed_plan *plan); /* compile; sets plan->state */
    void (*plan_release)(struct heed_plan *plan);
    heed_status (*batch_prepare)(struct heed_batch *batch); /* lists to the device; called again after an update */
    void (*batch_release)(struct heed_batch *batch);
    size_t (*workspace)(const struct heed_batch *batch); /* bytes beside the partial results (scratch of the workers); NULL = 0 */
    heed_status (*run)(const struct call *call, const struct queue_args *queue);
    heed_status (*append)(const struct call *call, const struct queue_args *queue);
    heed_status (*rotate)(const struct call *call, const struct queue_args *queue);
    heed_status (*merge)(const struct call *call, const struct queue_args *queue);
    heed_status (*buffer_create)(struct heed_buffer *buffer);
    void (*buffer_destroy)(struct heed_buffer *buffer);
    heed_status (*buffer_write)(struct heed_buffer *buffer, size_t offset, const void *from, size_t bytes);
    heed_status (*buffer_read)(const struct heed_buffer *buffer, size_t offset, void *to, size_t bytes);
    /* Bytes [first, first + bytes) of a caller's device tensor, to and from host memory (validation, heed_check). */
    heed_status (*tensor_read)(struct device *device, const heed_tensor *tensor, uint64_t first, void *to, size_t bytes);
    heed_status (*tensor_write)(struct device *device, const heed_tensor *tensor, uint64_t first, const void *from, size_t bytes);
    heed_status (*tensor_bytes)(struct device *device, const heed_tensor *tensor, uint64_t *bytes); /* real size; context checked */
};

struct plan_entry; /* plan_cache.c */

struct heed_context {
    atomic_int refs;                /* plans and buffers hold their context */
    struct services services;
    pthread_mutex_t lock;           /* devices, plan cache */
    struct device **devices;        /* device 0 is the CPU */
    int32_t device_count;
    bool opencl_listed;
    int pid;                        /* fork check */
    uint32_t validate_every;
    atomic_uint runs;
    char *report_dir;
    struct plan_entry *plans;       /* heed_forward's, most recently used first */
};

#endif
