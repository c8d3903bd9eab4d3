/* SPDX-License-Identifier: MIT */
/*
 * heed.h - attention for inference, on CPUs and OpenCL devices. Every meaning is fixed in doc/semantics.md.
 *
 * For every sequence b, query head h and query token i the library computes
 *
 *     s[j]      = softcap(scale * dot(q[b,h,i], k[b,g,j])) + alibi[b,h,i,j] + bias[b,h,i,j]      g = h / (q_heads / kv_heads)
 *     o[b,h,i]  = sum_j p[j] * v[b,g,j]      p = softmax of s over the visible keys j (and the sink, if any)
 *     lse[b,h,i] = log(sum_j exp(s[j]))      natural logarithm, the sink counted in
 *
 * The objects follow how often things change:
 *
 *     heed_context   once per process      devices, threads, allocator, compiled kernels
 *     heed_desc      what is computed      types, heads, features: a plain struct
 *     heed_plan      once per sort of problem: the chosen kernels, immutable, shared by threads
 *     heed_batch     once per step         lengths and pages of the sequences, turned into a work list
 *     heed_run()     once per layer        the tensors
 *
 * heed_forward() does all of it in one call and keeps the plan for the next call.
 *
 * Growth. Structs with struct_size grow at their end. A shorter struct than the library knows: the rest counts as zero. A longer
 * one: accepted if all bytes that the library does not know are zero, else HEED_UNSUPPORTED (so are unknown flag bits). heed_tensor
 * cannot grow (it is embedded by value), so it has spare words. Numbers of enums never change their meaning.
 */
#ifndef HEED_H
#define HEED_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef HEED_API
#if defined(__GNUC__)
#define HEED_API __attribute__((visibility("default")))
#else
#define HEED_API
#endif
#endif

#define HEED_VERSION_MAJOR 0
#define HEED_VERSION_MINOR 1
#define HEED_VERSION_PATCH 0
HEED_API uint32_t heed_version(void); /* major * 10000 + minor * 100 + patch, of the library at run time */

/* ---- status ------------------------------------------------------------- */

typedef enum heed_status {
    HEED_OK                  = 0,
    HEED_INVALID_ARGUMENT    = 1,  /* the call breaks a rule of this header: the caller's mistake */
    HEED_OUT_OF_BOUNDS       = 2,  /* strides, lengths or page numbers reach beyond the bytes stated for a tensor */
    HEED_UNSUPPORTED         = 3,  /* a valid request that this device or build cannot do: an honest limit */
    HEED_OUT_OF_MEMORY       = 4,
    HEED_WORKSPACE_TOO_SMALL = 5,
    HEED_DEVICE_NOT_FOUND    = 6,
    HEED_BUILD_FAILED        = 7,  /* the OpenCL compiler refused a kernel; its log is in the message */
    HEED_DEVICE_FAILED       = 8,  /* an OpenCL call failed; the message names the call and the CL error by name */
    HEED_MISMATCH            = 9,  /* validation: two computations differ by more than their error bounds */
    HEED_FORKED              = 10, /* an OpenCL device of a context made before fork() was used in the child */
    HEED_INTERNAL            = 11  /* a bug in this library */
} heed_status;

HEED_API const char *heed_status_string(heed_status status);

/* What went wrong in the last failed call of the calling thread, in one line: the field, its value and the rule. Never NULL; memory of
 * the library, valid until the thread's next failing call. */
HEED_API const char *heed_error_message(void);

/* ---- context ------------------------------------------------------------ */

typedef struct heed_context heed_context;

/* Threads lent by the caller: parallel_for() calls task(arg, i, worker) once for every i in [0, count), from any
 * threads, worker in [0, workers), and returns after the last call has returned. Ten lines over pthreadpool, OpenMP,
 * oneTBB, ggml's pool or a server's own. */
typedef struct heed_threads {
    void *user;
    int32_t workers;
    uint32_t reserved; /* 0 */
    void (*parallel_for)(void *user, int32_t count, void (*task)(void *arg, int32_t i, int32_t worker), void *arg);
} heed_threads;

typedef struct heed_allocator {
    void *user;
    void *(*alloc)(void *user, size_t bytes, size_t alignment); /* NULL on failure */
    void (*free)(void *user, void *block);
} heed_allocator;

typedef void (*heed_log_fn)(void *user, int32_t level, const char *line);

#define HEED_NO_OPENCL   0x1u
#define HEED_NO_FALLBACK 0x2u /* a failing OpenCL device is an error; without it heed_forward() answers from the CPU and logs it */
#define HEED_NO_ENVIRONMENT 0x4u /* read no environment variable */

typedef struct heed_context_options {
    size_t struct_size;
    int32_t num_threads;             /* built-in pool; 0 = one per physical core this process may use, at most its CPU quota; 1 = no thread is made */
    uint32_t flags;
    const heed_threads *threads;     /* NULL = built-in pool */
    const heed_allocator *allocator; /* NULL = malloc */
    heed_log_fn log;                 /* NULL = silent */
    void *log_user;
    const char *cpu_features;        /* highest instruction set to use, e.g. "avx2"; NULL = best present (or HEED_CPU) */
    const char *cache_dir;           /* compiled OpenCL kernels; NULL = the XDG cache directory; "" = memory only */
    uint32_t validate_every;         /* n > 0: every n-th run is computed again by the other wing (or the reference) and compared; 0 = off (or HEED_VALIDATE) */
    uint32_t reserved;
    const char *report_dir;          /* a mismatch is stored here as a case that `heed check --cases` replays; NULL = none */
} heed_context_options;

/* Create: options NULL = all defaults; strings are copied, *threads and *allocator too (what they point to must outlive the context);
 * *context is set on success only. A bad option or HEED_ variable is INVALID_ARGUMENT; UNSUPPORTED above 256 threads.
 * Destroy before or after its plans, batches and buffers: each keeps what it needs. NULL is fine, here and in every destroy below. Any
 * number of threads may use a context at once; destroying wants it alone. */
HEED_API heed_status heed_context_create(const heed_context_options *options, heed_context **context);
HEED_API void heed_context_destroy(heed_context *context);

/* ---- devices ------------------------------------------------------------ */

#define HEED_DEVICE_AUTO (-1) /* heed_forward() chooses by size: small problems stay on the CPU */

typedef enum heed_backend { HEED_BACKEND_CPU = 1, HEED_BACKEND_OPENCL = 2 } heed_backend;

typedef struct heed_device_info {
    size_t struct_size;
    heed_backend backend;
    int32_t compute_units;
    uint64_t memory_bytes;
    uint64_t types;       /* bit (1 << heed_type) for every type the device reads */
    char name[128];
    char vendor[64];
    char driver[64];
    char family[32];      /* tuning row in use, e.g. "amd-zen4", "nvidia-sm90", "pocl-cpu", "generic-gpu" */
    char matrix_unit[32]; /* "none", "nv-mma", "nv-wgmma", "amd-wmma3", "amd-wmma4", "amd-mfma", "intel-dpas", ... found by running a probe, never by name */
    char platform[64];
    char reason[256];     /* why it is unusable, or which rows its driver was refused, in one line */
    uint32_t usable;      /* 0: listed, but every plan on it fails with this reason */
    uint32_t reserved;
} heed_device_info;

/* OpenCL is loaded at the first call that asks for its devices, not by heed_context_create(): a driver's threads break a later fork(). */
HEED_API int32_t heed_device_count(const heed_context *context); /* at least 1: device 0 is the CPU */
HEED_API heed_status heed_device_get_info(const heed_context *context, int32_t device, heed_device_info *info);
HEED_API heed_status heed_device_find(const heed_context *context, const char *text, int32_t *device); /* "cpu", "opencl:0", part of a name */

/* ---- tensors ------------------------------------------------------------ */

typedef enum heed_type {
    HEED_TYPE_DEFAULT = 0, /* q: f32; the others: same as q */
    HEED_F32 = 1, HEED_F16 = 2, HEED_BF16 = 3,
    HEED_I8  = 4,          /* one f32 scale per token and head (k_scale, v_scale) */
    HEED_Q8_0 = 5,         /* blocks of 32: one f16 scale, 32 int8 */
    HEED_Q4_0 = 6,         /* blocks of 32: one f16 scale, 32 4-bit values */
    HEED_F8_E4M3 = 7, HEED_F8_E5M2 = 8
    /* kept free: 16.. asymmetric and per-channel integers, 32.. codebooks (rotated 3 and 4 bit), 48.. fp4 and other block scales */
} heed_type;

typedef enum heed_memory {
    HEED_MEMORY_HOST = 0, HEED_MEMORY_CL_BUFFER = 1,
    HEED_MEMORY_CL_SVM = 2 /* clSVMAlloc() of the device's cl_context (heed_context_add_cl_device); not mapped during the call if coarse-grained */
    /* kept free: 3.. unified shared memory, imported handles */
} heed_memory;

/* A view of rows. Element x of row (batch, head, token) lies at
 *     offset + batch * batch_stride + head * head_stride + token * token_stride + x
 * in elements (in bytes for block types). Rows are contiguous. A stride of 0 repeats; inputs may have negative strides.
 * `bytes` is how much may be touched from data on: a call that could reach beyond it fails before touching anything. */
typedef struct heed_tensor {
    void *data;             /* host or SVM pointer, or cl_mem for HEED_MEMORY_CL_BUFFER */
    uint64_t bytes;
    int64_t offset;
    int64_t batch_stride;   /* of pages, not sequences, when the KV cache is paged; unused when ragged */
    int64_t head_stride;
    int64_t token_stride;
    heed_memory memory;
    uint32_t reserved;
    uint64_t reserved2[2];  /* 0; kept for the group of a quantised type and for imported memory */
} heed_tensor;

/* Device memory for callers without OpenCL code of their own; on the CPU 64-byte aligned, in huge pages where they pay. */
typedef struct heed_buffer heed_buffer;
/* Sizes and offsets in bytes. Writes and reads end only when the data has arrived; beyond the buffer they are OUT_OF_BOUNDS.
 * heed_buffer_tensor() is `layout` (offset and strides, in elements) with data, bytes and memory of the buffer, which it does not own. */
HEED_API heed_status heed_buffer_create(heed_context *context, int32_t device, size_t bytes, heed_buffer **buffer);
HEED_API void heed_buffer_destroy(heed_buffer *buffer);
HEED_API heed_status heed_buffer_write(heed_buffer *buffer, size_t offset, const void *from, size_t bytes);
HEED_API heed_status heed_buffer_read(const heed_buffer *buffer, size_t offset, void *to, size_t bytes);
HEED_API heed_tensor heed_buffer_tensor(const heed_buffer *buffer, heed_tensor layout);

/* ---- the problem -------------------------------------------------------- */

#define HEED_CAUSAL           (UINT64_C(1) << 0)  /* query i sees keys at positions up to its own */
#define HEED_TOP_LEFT         (UINT64_C(1) << 1)  /* query 0 stands at key 0; without it the last query stands at the last key */
#define HEED_ALIBI            (UINT64_C(1) << 2)
#define HEED_SINKS            (UINT64_C(1) << 3)
#define HEED_MASK_BOOL        (UINT64_C(1) << 4)  /* bytes, 0 hides the key */
#define HEED_MASK_BITS        (UINT64_C(1) << 5)  /* bits, least significant first, each row starting at a byte; 0 hides the key */
#define HEED_BIAS             (UINT64_C(1) << 6)  /* added to the logit; -INFINITY hides the key; may stand beside a mask */
#define HEED_WRITE_LSE        (UINT64_C(1) << 7)
#define HEED_INVARIANT        (UINT64_C(1) << 8)  /* bits of a row do not depend on q_len either: prefill in pieces = token by token */
#define HEED_BIAS_FIRST       (UINT64_C(1) << 9)  /* the bias is added before the softcap */
#define HEED_WRITE_SCORES     (UINT64_C(1) << 10) /* write what scores_stage says for every (i, j), or of chosen heads and rows: heed_lengths */
#define HEED_KEY_RANGE        (UINT64_C(1) << 11) /* query i sees only keys key_range[i][0] <= j < key_range[i][1]: packed documents, prefix-LM, image spans, chunks */
#define HEED_LSE_BASE2        (UINT64_C(1) << 12) /* lse is written (and read by heed_merge) in base 2 */
#define HEED_LSE_WITHOUT_SINK (UINT64_C(1) << 13) /* the sink weighs in o but is left out of lse */
#define HEED_ROPE_INTERLEAVED (UINT64_C(1) << 14) /* rotate pairs (2i, 2i + 1); without it (i, i + rope_dim / 2) */
#define HEED_WINDOW           (UINT64_C(1) << 15) /* window_left and window_right are meant; a zero-filled descriptor has no window */
#define HEED_WRITE_KEY_SUMS   (UINT64_C(1) << 16) /* write how much weight each key got from the last queries: key_sums */
#define HEED_KEY_SUMS_ALL_HEADS (UINT64_C(1) << 17) /* from all query heads together: one row instead of q_heads */
/* kept free for: block selection, block masks, a mask over the last q_len keys only, output gate, rotated KV */

typedef struct heed_desc {
    size_t struct_size;
    heed_type q_type, k_type, v_type, o_type, bias_type;
    int32_t q_heads;      /* multiple of kv_heads */
    int32_t kv_heads;     /* 0 = q_heads */
    int32_t head_dim;     /* 1 .. 1024, any */
    int32_t v_head_dim;   /* 0 = head_dim */
    int32_t max_batch, max_q_len, max_kv_len; /* guide the choice of kernels; never a limit; 0 = not known */
    float scale;          /* 0 = 1 / sqrt(head_dim) */
    float softcap;        /* 0 = off */
    int32_t window_left, window_right; /* with HEED_WINDOW: keys beside the own position, -1 = unbounded; without it both must be 0 */
    int32_t page_size;    /* tokens per page; 0 = KV is not paged */
    int32_t rope_dim;     /* heed_append and heed_rotate: rotate so many dimensions; 0 = off */
    int32_t rope_offset;  /* first rotated dimension */
    int32_t scores_stage; /* 0 raw, 1 after softcap, 2 after bias, 3 probabilities */
    uint64_t flags;
    /* later, at the end: head_dim2 (split MLA), select_block, select_q_block, select_heads, kv_group */
} heed_desc;

HEED_API heed_status heed_desc_check(const heed_desc *desc); /* OK, or INVALID_ARGUMENT or UNSUPPORTED with the field; without a device */

/* One line of text, e.g. "hq32 hk8 d128 f16 b8 q1 kv4096 causal softcap=30 page=16": the words of a problem string that are fields
 * of heed_desc (b, q, kv are the max_ fields); others are INVALID_ARGUMENT here. Independent of the locale. Format returns the length of
 * the whole text as snprintf() does, however little fits in `capacity` (0 with a message for a bad struct_size); parse leaves *desc alone on failure. */
HEED_API size_t heed_desc_format(const heed_desc *desc, char *text, size_t capacity);
HEED_API heed_status heed_desc_parse(const char *text, heed_desc *desc);

/* ---- plan --------------------------------------------------------------- */

typedef struct heed_plan heed_plan;

/* Choose and prepare kernels for *desc on a device; an OpenCL device compiles here and nowhere else. kernel = a row of the
 * table to insist on for its own kind of step, or NULL. Every valid desc gets a plan on every usable device: the last row of each
 * backend does everything. UNSUPPORTED, with the reason, where the device's driver fails even that, or the row insisted on. */
HEED_API heed_status heed_plan_create(heed_context *context, int32_t device, const heed_desc *desc,
                                      const char *kernel, heed_plan **plan);
HEED_API void heed_plan_destroy(heed_plan *plan);
/* One line per row looked at: kind of step, row, "yes" or why not. The length as from snprintf(). */
HEED_API size_t heed_plan_explain(const heed_plan *plan, char *text, size_t capacity);

/* ---- batch -------------------------------------------------------------- */

typedef struct heed_batch heed_batch;

typedef struct heed_lengths {
    size_t struct_size;
    int32_t batch;
    int32_t q_len, kv_len;        /* for every sequence; q_len is ignored with q_start; kv_len_b = kv_lens[b], else from kv_start, else kv_len */
    int32_t page_table_stride;
    const int32_t *q_start;       /* [batch + 1]: q, o, lse are packed (ragged); begins with 0, never falls */
    const int32_t *kv_start;      /* [batch + 1]: k, v are packed; with kv_lens beside it these must fit */
    const int32_t *kv_lens;       /* [batch] */
    const int32_t *q_position;    /* [batch] position of query 0 among the keys; NULL = from HEED_TOP_LEFT; may be negative */
    const int32_t *q_positions;   /* [all queries] a position of its own for each query (trees, drafts); NULL = q_position + i */
    const int32_t *kv_first;      /* [batch] position of key 0 (compact window caches, shards); NULL = 0 */
    const int32_t *page_table;    /* [batch, page_table_stride] */
    /* What scores and key_sums tell of. Attention itself stays fused: they are made by one more pass over these queries, from the sums that it
     * kept, so they cost what was chosen and not what the problem is. It reads q once more: o = q in place costs a copy of q (device memory: UNSUPPORTED). */
    int32_t score_rows;           /* the last so many queries of each sequence; 0 = all. With n > 0 row t = i - (q_len_b - min(n, q_len_b)) of the scores */
    int32_t score_head_count;
    const int32_t *score_heads;   /* [score_head_count] query heads whose scores are written, in this order; NULL with a count of 0 = all */
    /* later: page_start [batch + 1], page lists without padding */
} heed_lengths;

/* The arrays of *lengths are copied. heed_batch_update() gives the batch new lengths and never touches what a queued run still reads.
 * Any number of threads may run with one batch; update and destroy want it alone. */
HEED_API heed_status heed_batch_create(const heed_plan *plan, const heed_lengths *lengths, heed_batch **batch);
HEED_API heed_status heed_batch_update(heed_batch *batch, const heed_lengths *lengths);
HEED_API void heed_batch_destroy(heed_batch *batch);
HEED_API size_t heed_batch_workspace_size(const heed_batch *batch); /* bytes, for these lengths: ask again after an update */

/* ---- run ---------------------------------------------------------------- */

typedef struct heed_tensors {
    size_t struct_size;
    heed_tensor q, k, v, o;
    heed_tensor lse;              /* f32 [batch, q_heads, q_len] */
    heed_tensor mask, bias;       /* [batch, q_heads, q_len, kv_len]; strides of 0 repeat */
    heed_tensor alibi_slopes, sinks; /* f32 [q_heads] */
    heed_tensor k_scale, v_scale; /* f32 [batch, kv_heads, kv_len] */
    heed_tensor rope_cos, rope_sin; /* f32 [position, rope_dim / 2] */
    heed_tensor scores;           /* f32 [batch, q_heads, q_len, kv_len]; of what heed_lengths chooses: [batch, score_head_count, score_rows, kv_len] */
    heed_tensor key_range;        /* i32 [batch, q_len, 2], as two elements per row */
    /* f32 [batch, q_heads, kv_len], or [batch, 1, kv_len] with HEED_KEY_SUMS_ALL_HEADS; never packed, token_stride unused:
     *     key_sums[b,h,j] = sum over the last score_rows queries i of p[b,h,i,j]
     * The probabilities p of scores_stage 3, whatever scores_stage is; a hidden key gets 0. What eviction from a KV cache ranks keys by (H2O,
     * SnapKV); the alignment of words with audio, the pattern of a head: chosen rows of the scores. */
    heed_tensor key_sums;
    /* later, at the end: select, select_count, gate, q2, k2, k_zero, v_zero */
} heed_tensors;

/* Compute o (and lse). Blocks until done; heed_opencl.h has the form that returns an event.
 * Never allocates, compiles, logs or reads the environment (a validated run, see validate_every, may allocate). A failure found
 * before launch leaves the outputs untouched; after DEVICE_FAILED they are undefined; with MISMATCH they hold the device's result.
 * workspace: heed_batch_workspace_size() bytes, 64-byte aligned: host memory for the CPU, memory of the device for OpenCL (a
 * heed_buffer or cl_mem); NULL where the size is 0. It serves one run at a time. A discrete OpenCL device takes device memory only. */
HEED_API heed_status heed_run(const heed_plan *plan, const heed_batch *batch, const heed_tensors *tensors, const heed_tensor *workspace);

/* One call for everything, host memory on any device (or HEED_DEVICE_AUTO). Up to 64 plans are kept in the context, least recently
 * used first to go, keyed by device and *desc with the max_ fields rounded up to powers of two. Thread-safe. On an OpenCL device
 * results are written to memory of our own and copied out after success, so the CPU can always take over (DEVICE_FAILED,
 * BUILD_FAILED, UNSUPPORTED, OUT_OF_MEMORY of the device; never after FORKED), also in place (o = q). */
HEED_API heed_status heed_forward(heed_context *context, int32_t device, const heed_desc *desc,
                                  const heed_lengths *lengths, const heed_tensors *tensors);

/* ---- beside attention --------------------------------------------------- */

/* Before the run of the same step, with the same batch:
 *     for b, g, i in [0, q_len_b), j = kv_len_b - q_len_b + i:  k[b,g,j] = convert(rotate(new_k[b,g,i], p_i)),  v[b,g,j] = convert(new_v[b,g,i])
 * Write q_len_b new tokens of each sequence into the (paged) cache, rotating k and converting both. Token i goes to key
 * kv_len_b - q_len_b + i (kv_len counts the new tokens; q_len_b > kv_len_b is INVALID_ARGUMENT) and is rotated at p_i of
 * semantics.md, section 2, not at its slot. new_k, new_v: [batch, kv_heads, q_len, dim], packed by q_start; either may be NULL (not
 * written). With i8 and f8 the scales are written too, one for each token and head (f8: where k_scale, v_scale are given). A p_i outside the tables is OUT_OF_BOUNDS. Two sequences that write one page
 * are the caller's error. */
HEED_API heed_status heed_append(const heed_plan *plan, const heed_batch *batch, heed_type new_type,
                                 const heed_tensor *new_k, const heed_tensor *new_v, const heed_tensors *tensors);

/* Rotate x [batch, heads, q_len, head_dim], of q_type, in place by the rule that heed_append uses for new k: q before attention
 * (rotary embedding: Su et al., 2021). For each pair (x, y) of dimensions, angle from row p_i of rope_cos and rope_sin:
 *     x' = x cos - y sin,  y' = y cos + x sin */
HEED_API heed_status heed_rotate(const heed_plan *plan, const heed_batch *batch, int32_t heads, const heed_tensor *x, const heed_tensors *tensors);

/* (o, lse) of the union of two disjoint sets of keys, as in the online softmax of Milakov and Gimelshein (2018):
 *     m = max(lse_a, lse_b), w = e^(lse - m), o = (w_a o_a + w_b o_b) / (w_a + w_b), lse = m + log(w_a + w_b)
 * o of o_type [batch, q_heads, q_len, v_head_dim], lse f32 [batch, q_heads, q_len]. Associative up to rounding; an empty side (lse = -INFINITY) is an exact identity. o may be
 * o_a or o_b, lse likewise. */
HEED_API heed_status heed_merge(const heed_plan *plan, const heed_batch *batch,
                                const heed_tensor *o_a, const heed_tensor *lse_a,
                                const heed_tensor *o_b, const heed_tensor *lse_b,
                                const heed_tensor *o, const heed_tensor *lse);

/* ---- checking ----------------------------------------------------------- */

typedef struct heed_check_report {
    size_t struct_size;
    uint64_t elements, outside;      /* compared; of these beyond the bound */
    double worst_ratio;              /* largest error / bound; <= 1 passes */
    double max_abs_error, mean_signed_error;
    int32_t worst_output;            /* 0 o, 1 lse, 2 scores, 3 key_sums */
    uint32_t reserved;
    int64_t worst_batch, worst_head, worst_token, worst_dim; /* worst_dim -1 for lse */
    double got, expected, bound;     /* at the worst element */
    char kernel[64];                 /* the row that computed it */
} heed_check_report;

/* Compute the problem by a plan and by another (NULL = the double-precision reference), and hold every element of o, lse, scores and key_sums
 * against its own derived error bound (semantics.md, 7). HEED_MISMATCH if one lies outside. Device tensors are read back; with o = q
 * the input is saved first. */
HEED_API heed_status heed_check(const heed_plan *plan, const heed_plan *against, const heed_lengths *lengths,
                                const heed_tensors *tensors, heed_check_report *report);

/* ---- the dot product underneath ------------------------------------------ */

/* In double, left to right; nothing is allocated, no context is needed. n = 0: 0. NULL with n > 0: NaN, and a message. */
HEED_API double heed_dot(const float *a, const float *b, size_t n);                       /* sum_i a[i] b[i] */
HEED_API double heed_norm_squared(const float *a, size_t n);                              /* dot(a, a) */
HEED_API double heed_cosine(const float *a, const float *b, size_t n);                    /* dot / (|a| |b|); 0 if a norm is 0 */
HEED_API double heed_score(const float *q, const float *k, size_t d_k);                   /* dot / sqrt(d_k) */
HEED_API double heed_weighted_sum(const float *w, const float *x, size_t n, float bias);  /* dot + bias: a neuron before its activation */

#ifdef __cplusplus
}
#endif
#endif
