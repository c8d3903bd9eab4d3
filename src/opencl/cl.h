/* SPDX-License-Identifier: MIT
 * cl.h - internal types of the OpenCL wing: device, kernel spec of a row, program, checked calls. Seen by src/opencl and opencl_api.c only.
 * Not the public face (heed_opencl.h) and not the wing's face to the upper floors (opencl.h).
 */
#ifndef HEED_CL_H
#define HEED_CL_H

#include "../problem.h"
#include "../status.h"
#define CL_USE_DEPRECATED_OPENCL_1_2_APIS
#include <CL/cl.h>

/* ---- checked calls ------------------------------------------------------- */

const char *cl_error_name(cl_int code); /* "CL_OUT_OF_RESOURCES", or "error -9999" */

/* Leaves "clFoo(...): CL_NAME" as the message; marks the device lost where the code says so. Allocation codes of calls that create
 * objects become OUT_OF_MEMORY, everything else DEVICE_FAILED. device may be NULL. */
struct cl_device;
heed_status cl_failed(struct cl_device *device, const char *call, cl_int code);

/* status = CL(device, clFinish(queue)): HEED_OK, or a message that holds the call's own text. */
#define CL(device, call) cl_check((device), #call, (call))
static inline heed_status cl_check(struct cl_device *device, const char *text, cl_int code)
{
    return code == CL_SUCCESS ? HEED_OK : cl_failed(device, text, code);
}

/* ---- families: facts about devices are in device.c and tuning.c alone ---- */

enum cl_family {
    FAMILY_POCL_CPU,
    FAMILY_INTEL_CPU,
    FAMILY_GENERIC_CPU,
    FAMILY_GENERIC_GPU,
    FAMILY_NVIDIA,
    FAMILY_AMD,
    FAMILY_INTEL,
    FAMILY_ADRENO,
    FAMILY_MALI,
    FAMILY_COUNT
};

/* Matrix units that kernels/ has words for; numbers of -DMATRIX and, for where fragments lie, of -DLAYOUT. The emulated one is for tests: only a tuning
 * file asks for it, and says whose layout it plays. MATRIX_FAMILY, in a tuning line: whatever the family may have, one after the other. */
enum cl_matrix {
    MATRIX_NONE,
    MATRIX_EMULATED,
    MATRIX_NV_MMA,
    MATRIX_AMD_WMMA3,
    MATRIX_AMD_WMMA4,
    MATRIX_AMD_MFMA,
    MATRIX_INTEL_DPAS8,
    MATRIX_INTEL_DPAS16,
    MATRIX_NV_WGMMA, /* beside MATRIX_NV_MMA, whose words it needs: -DMATRIX says that one's number */
    MATRIX_COUNT,
    MATRIX_FAMILY = MATRIX_COUNT
};

/* One line of tuning.c: tile sizes of a family. They choose how registers and lanes are used, never the order of arithmetic: keys per
 * block, chunks and query tiles that bits depend on are columns of the row. */
struct cl_tuning {
    const char *family;       /* "pocl-cpu" */
    int32_t vector;           /* VW: floats per vector of prefill_cpu.cl and decode.cl; 0 = the device's native width, at least 4 */
    int32_t tile_rows, tile_vectors; /* MR x NV: register tile of prefill_cpu.cl; 0 = by the number of registers */
    int32_t wg_x, wg_y;       /* WGX x WGY work-items of prefill_tile.cl */
    int32_t lane_rows, lane_columns; /* TR x TC: register tile of one work-item there */
    int32_t lane_vector;      /* VW there */
    int32_t tile_reads;       /* local memory there: 0 = one float at a time, 1 = WIDE, 2 = and a slice AHEAD */
    int32_t lanes;            /* work-items per group of decode_lanes.cl, and of kernels that name no size of their own; 1 on CPUs */
    bool loop_guard;          /* -DGUARD: see opencl.md, the implicit loop barrier of PoCL */
    bool own_cache;           /* the driver keeps compiled programs itself: we keep none */
    bool builtin_fetch;       /* -DBUILTIN_FETCH: its compiler takes __builtin_prefetch, which nothing else tells; see fetch.cl */
    int32_t limit;            /* seconds a probe may take, its compilation with it */
    int32_t matrix;           /* enum cl_matrix: the unit to be tried there */
    int32_t matrix_rows, matrix_keys, matrix_warps, matrix_slots; /* its tile: TILE_ROWS x TILE_KEYS, WARPS, SLOTS; 0 = by head_dim */
    int32_t matrix_local;     /* query rows: 0 = by head_dim, 1 = in registers, 2 = in local memory */
    int32_t group_keys, group_slots; /* TILE_KEYS and SLOTS of prefill_warpgroup.cl; 0 = by head_dim */
    int32_t matrix_like;      /* enum cl_matrix: whose layout the emulated unit has; 0 = NVIDIA's */
    int32_t tile_q_slice, tile_v_slice; /* of prefill_tile.cl; 0 = by head_dim */
    int32_t group_lanes, group_rows;    /* lanes of a sub-group and TR of prefill_subgroup.cl; 0 = the device's, by registers */
    int32_t group_emulated;   /* sub-groups by local memory and barriers, for tests */
    int32_t local_kib;        /* local memory that kernels get, where the device has more than it says; 0 = what it says */
};

/* What a row may need of a device: column `needs` of struct kernel_row. */
enum {
    CL_NEEDS_CPU = 1u << 0,       /* a device of type CPU: big private arrays, no barriers */
    CL_NEEDS_GPU = 1u << 1,       /* not of type CPU */
    CL_NEEDS_HALF = 1u << 2,      /* cl_khr_fp16 */
    CL_NEEDS_SUBGROUPS = 1u << 3, /* with shuffles: subgroup.cl */
    CL_NEEDS_FP64 = 1u << 4,
    CL_NEEDS_LOCAL = 1u << 5,     /* local memory of its own: local_bytes() of the spec is checked in any case */
    CL_NEEDS_NV = 1u << 6,        /* NVIDIA's inline assembly: the vendor gate */
    CL_NEEDS_MATRIX = 1u << 7,    /* a matrix unit whose words are those of matrix_nvidia.cl */
    CL_NEEDS_COLUMNS = 1u << 8,   /* a matrix unit whose words are those of matrix_columns.cl */
    CL_NEEDS_WARPGROUP = 1u << 9, /* one whose words are those of matrix_warpgroup.cl */
    CL_NEEDS_DOTS = 1u << 10,     /* this process's own processor, with AVX512-BF16, and a compiler that lets inline assembly through: dots.cl */
    CL_NEEDS_UNIT = CL_NEEDS_MATRIX | CL_NEEDS_COLUMNS | CL_NEEDS_WARPGROUP
};

/* ---- a row's kernels ------------------------------------------------------- */

enum { CL_PARTS = 10, CL_UNITS = 4, CL_OPTIONS = 4096, CL_CONSTANTS = 32, CL_DUMMY_BYTES = 64, CL_SLOT_WORKSPACE = ROLE_COUNT, CL_SLOTS };

/* NDRange of every attention and merge-of-parts launch: work_dim 2, local size local[0] x local[1], one work-group per item:
 *
 *     index = item_first + get_group_id(0) + get_group_id(1) * get_num_groups(0);  index >= item_first + item_count: return at once
 *
 * A launch with item_count 0 (one group) is the warm-up that makes drivers finish compiling. The same for append, rotate and merge of two
 * with row_first, row_count and one work-ITEM per row: row = row_first + get_global_id(0) + get_global_id(1) * get_global_size(0). */
struct cl_kernel_spec {
    const char *parts[CL_PARTS];  /* names of files in kernels/, in order, "common.cl" first; the rest NULL */
    const char *kernel;           /* the kernel of the row's kinds */
    const char *merge;            /* kernel in the same program that merges this row's partial results; NULL where it never cuts the keys */
    bool shrinks;                 /* local() goes down to device->kernel_group: a kernel that takes less than its device is built again */
    bool marked;                  /* NVIDIA's compiler does not know some instructions: its program is rewritten (retarget.c) and built again */
    bool run_time;                /* the problem's constants are an argument: one program for all problems. Else -D: a program for each */
    /* The row's own -D options, numbers only, e.g. " -DVW=16 -DNV=4"; appended to the common ones. NULL = none. Returns the length. */
    size_t (*options)(const struct cl_device *device, const struct problem *problem, char *text, size_t capacity);
    /* Work-items per group; NULL = 1 x 1. The kernels say reqd_work_group_size with the same numbers (also LOCAL_X, LOCAL_Y by -D). */
    void (*local)(const struct cl_device *device, const struct problem *problem, size_t local[2]);
    size_t (*local_bytes)(const struct cl_device *device, const struct problem *problem); /* local memory wanted; NULL = 0 */
    size_t item_bytes;            /* of the workspace, for each item of its list; struct strides' own */
};

/* Work-items per group of the kernels that tuning->lanes rules (merge, append, rotate): local = {lanes, 1}. */

/* Of the workspace, beside the partial results: the items' own bytes (launch.c). */
size_t cl_workspace_bytes(const struct heed_batch *batch);

/* ---- device ---------------------------------------------------------------- */

/* Rung by the driver at the end of a command (wait.c). */
struct cl_bell {
    pthread_mutex_t lock;
    pthread_cond_t rung;
    uint32_t count;               /* how often it rang */
    int pending;                  /* callbacks still to come: they touch the bell */
};

struct cl_program;   /* program.c */
struct cl_verdict;   /* probe.c */

struct cl_device {
    struct device *device;        /* not to be used by a probe's thread, which may outlive it; these may: */
    char name[128];
    struct services services;     /* malloc, no log, a copy of cache_dir */
    struct heed_context shadow_context;
    struct device shadow;         /* a device with these services, for the probe's plan */
    uint64_t identity[2];         /* hash of platform and its version, name, vendor, driver, library version */
    cl_platform_id platform;
    cl_device_id id;
    cl_context context;           /* made at first use (device_open), or the caller's */
    cl_command_queue queue;       /* in-order, ours */
    cl_mem dummy;                 /* 64 bytes for absent tensors */
    cl_mem no_items;              /* zeros: the lists of the warm-up */
    bool opened, borrowed;        /* borrowed: the caller's context and device, retained */
    bool own_cache;               /* the driver keeps compiled programs itself */
    int pid;                      /* of the process that listed it */
    enum cl_family family;
    const struct cl_tuning *tuning;   /* the built-in line, with what the tuning file says: own_tuning */
    struct cl_tuning own_tuning;
    cl_device_type type;
    uint32_t provides;            /* CL_NEEDS_ bits */
    enum cl_matrix units[CL_UNITS]; /* those that may be tried here, best first, ended by MATRIX_NONE; once one was proved, that one alone */
    enum cl_matrix matrix;        /* units[0]; asked by rows that need one, after cl_admit() has proved it */
    enum cl_matrix warpgroup[2];  /* in place of `units` for rows that need warpgroup products */
    uint32_t proved, proved_warpgroup; /* bits of heed_type: the unit gave exact answers with operands of this type; under `admission` */
    int32_t subgroup_words;       /* enum cl_subgroup: the words of subgroup.cl that may be tried here */
    int32_t subgroup_lanes;       /* of a sub-group, once the words were proved; 0 = not yet; under `admission` */
    bool unified;                 /* works on the caller's memory without copies */
    bool shares;                  /* takes pointers of clSVMAlloc */
    int version;                  /* 120, 200, 300 */
    cl_uint compute_units, native_width, registers, address_bits, base_align;
    size_t max_group, max_sizes[3];
    atomic_size_t kernel_group;   /* at most so many work-items where a row shrinks; max_group until its kernel said less */
    cl_ulong max_alloc, global_bytes, local_bytes;
    cl_ulong matrix_local_bytes;  /* what rows of a matrix unit may have: more than the driver says where a probe found it; 0 = not probed yet */
    char driver[128], version_text[128];
    atomic_int lost;              /* a cl_int code, 0 = alive */
    atomic_int failed_waits;      /* in a row; three of them and the device counts as lost */
    atomic_int probing;           /* probe threads that have not ended */
    pthread_mutex_t lock;         /* context, programs, verdicts, warm */
    pthread_mutex_t admission;    /* one probe at a time */
    struct cl_bell bell;
    struct cl_program *programs;
    struct cl_verdict *verdicts;
};

/* Local memory that a row's kernel may have on this device. */
static inline cl_ulong cl_local_limit(const struct cl_device *device, const struct kernel_row *row)
{
    return (row->needs & CL_NEEDS_UNIT) && device->matrix_local_bytes ? device->matrix_local_bytes : device->local_bytes;
}

static inline struct cl_device *cl_device_of(const struct device *device) { return (struct cl_device *)device->state; }

heed_status cl_device_open(struct cl_device *device);    /* context, queue, dummy; idempotent; checks fork and loss */
heed_status cl_device_alive(struct cl_device *device);   /* HEED_FORKED, DEVICE_FAILED once lost, or HEED_OK */
bool cl_device_forked(const struct cl_device *device);
const char *cl_matrix_name(enum cl_matrix matrix);           /* "none", "emulated", "nv-mma", ... as heed_device_info has it */
const struct cl_tuning *cl_tuning_of(enum cl_family family); /* tuning.c */
const struct cl_tuning *cl_tuning_named(const char *family);
void cl_tuning_read(const struct services *services, const char *device,
                    struct cl_tuning *tuning); /* tuning_file.c: over the built-in line */

/* Filled in sizes, tuning zeros replaced by what the device says: for options() of rows.c. */
int32_t cl_vector_width(const struct cl_device *device); /* 4, 8 or 16 */
int32_t cl_lanes(const struct cl_device *device);        /* tuning->lanes, at most the device's largest group */

/* ---- waiting (wait.c) ------------------------------------------------------- */

enum { CL_WAIT_OVERRUN = 1 };
double cl_seconds(void);
void cl_rest(double duration);
cl_int cl_event_state(cl_event event); /* CL_COMPLETE, a negative error, or a positive state of a command under way */
/* The state in which the command ended, or CL_WAIT_OVERRUN after `limit` seconds. The queue has been flushed. */
cl_int cl_wait_limited(struct cl_device *device, cl_event event, double limit);
void cl_bell_init(struct cl_bell *bell);
void cl_bell_destroy(struct cl_bell *bell);
bool cl_bell_silent(struct cl_bell *bell, double duration); /* no callback is to come any more; waits for that so long */

/* ---- programs (program.c) -------------------------------------------------- */

struct kernel_text { const char *name, *text; size_t length; };
extern const struct kernel_text kernel_texts[]; /* kernels/, made by script/embed.cmake; ended by name NULL */

struct cl_program {
    struct cl_program *next;
    int holders;                  /* plans and probes; under the device's lock */
    uint64_t hash[2];             /* of source parts, options, device, driver, library version */
    cl_program program;
    bool from_disk;               /* a binary of our cache: must be probed again */
};

/* The problem's constants (HEAD_DIM, ...) as struct problem of kernels/common.cl. */
void cl_constants(const struct problem *problem, int32_t values[CL_CONSTANTS]);
/* Options of a row for a problem: its constants, unless the row takes them at run time, and the row's own. */
heed_status cl_options(const struct cl_device *device, const struct kernel_row *row, const struct problem *problem, char *text,
                       size_t capacity);
void cl_identity(struct cl_device *device, const heed_device_info *info, const char *platform_version); /* fills device->identity */
heed_status cl_program_hash(const struct cl_device *device, const struct kernel_row *row, const struct problem *problem, uint64_t hash[2]);
/* Work-items per group of the row on this device. */
void cl_local(const struct cl_device *device, const struct kernel_row *row, const struct problem *problem, size_t local[2]);
/* From memory, else from disk, else built; held by the caller. BUILD_FAILED with the log. */
heed_status cl_program_get(struct cl_device *device, const struct kernel_row *row, const struct problem *problem,
                           struct cl_program **program);
void cl_program_drop(struct cl_device *device, struct cl_program *program);
void cl_programs_release(struct cl_device *device);

/* ---- files on disk (cache.c) ------------------------------------------------- */

/* Payload of a checked file: magic, version, key, length, checksum. NULL: absent, damaged or not ours. Freed with free(). */
void *cl_cache_load(const struct services *services, const uint64_t key[2], const char *suffix, size_t *length);
void cl_cache_store(const struct services *services, const uint64_t key[2], const char *suffix, const void *payload, size_t length);

/* ---- admission (probe.c) ------------------------------------------------------- */

heed_status cl_admit(struct device *device, const struct problem *problem, const struct kernel_row *row, enum kind kind, char *reason,
                     size_t capacity);
/* Seconds per (query, key) pair that the probe of this row measured; a guess where it is not known. */
float cl_pair_seconds(struct cl_device *device, const struct kernel_row *row, const struct problem *problem);
void cl_verdicts_release(struct cl_device *device);

/* ---- matrix units (unit.c) ------------------------------------------------------ */

/* A unit's probe in the form of a row: its program, and a verdict that is kept like others. */
const struct kernel_row *cl_unit_row(enum cl_matrix matrix);
heed_status cl_unit_problem(heed_type type, struct problem *problem); /* what the unit's program is compiled for */
/* The same for local memory beyond what the device names: sizes to try, the largest first; NULL after the last. */
const struct kernel_row *cl_local_row(int n, cl_ulong *bytes);
heed_status cl_unit_case(struct cl_device *device, const struct problem *problem, const struct kernel_row *row, bool *wrong);
enum cl_matrix cl_layout(const struct cl_device *device); /* where the fragments of device->matrix lie */
int32_t cl_warp_lanes(enum cl_matrix layout);             /* work-items of a warp */
int32_t cl_warp_columns(enum cl_matrix layout);           /* query rows of one product */
const char *cl_unit_options(const struct cl_device *device, enum cl_matrix matrix); /* compiler options beside the numbers */

/* ---- memory of one run (memory.c) ------------------------------------------------- */

/* A tensor as a kernel sees it: element 0 at byte `offset` of mem. Absent: the dummy. */
struct cl_bound { cl_mem mem; int64_t offset; };

struct cl_memory {
    struct cl_device *device;
    const struct call *call;
    struct cl_bound bound[CL_SLOTS];
    cl_mem owned[CL_SLOTS];       /* views and copies made for this run */
    size_t owned_bytes[CL_SLOTS];
    bool owned_written[CL_SLOTS]; /* a view of host memory that the kernels write: mapped at the end */
    int owned_count;
    int private_of[CL_SLOTS];     /* by slot: index + 1 in owned of a private output, to be copied out */
    bool on_host;                 /* the device works on the caller's memory: it is waited for without limit */
};

/* Binds every given tensor among `roles` (bits) for reading or, in `written`, writing. On failure nothing is held. */
heed_status cl_memory_bind(struct cl_device *device, const struct call *call, uint32_t roles, uint32_t written, struct cl_memory *memory);
void cl_memory_release(struct cl_memory *memory);
heed_status cl_memory_copy_out(struct cl_memory *memory); /* private outputs to the caller, row by row; after a finished run */

/* ---- commands of one run (stream.c) ------------------------------------------------- */

/* A chain of commands on one queue: each waits for the one before, so that out-of-order queues do too. */
struct cl_stream {
    struct cl_device *device;
    cl_command_queue queue;
    cl_uint num_wait;
    const cl_event *wait;         /* the caller's */
    cl_event last;                /* of the newest command, held */
    cl_event *done;               /* where the caller wants it; NULL */
    bool blocking;                /* on our own queue, waited for */
    double estimate;              /* seconds of work enqueued */
};

heed_status cl_stream_begin(struct cl_device *device, const struct queue_args *queue, struct cl_stream *stream);
heed_status cl_stream_kernel(struct cl_stream *stream, cl_kernel kernel, const size_t global[2], const size_t local[2]);
heed_status cl_stream_coherent(struct cl_stream *stream, const struct cl_memory *memory); /* map and unmap written host memory */
/* Blocking: waits. Else: hands out *done. `status` is how enqueueing went; the worse of both is returned. */
heed_status cl_stream_end(struct cl_stream *stream, heed_status status, const struct cl_memory *memory);
heed_status cl_wait_failed(struct cl_device *device, const char *call, cl_int code);

/* ---- launches (launch.c) ------------------------------------------------------------- */

struct cl_step {                  /* one kind of step of a plan */
    struct cl_program *program;
    const struct kernel_row *row;
    size_t local[2];
    _Atomic(cl_kernel) spare[2];  /* the kernels of row and merge that no run holds at the moment, or NULL */
    _Atomic float pair_seconds;   /* per (query, key) pair of a work item: the probe's measurement, refined by runs */
};

struct cl_plan {                  /* plan->state */
    struct cl_step step[KIND_COUNT];
};

struct cl_batch {                 /* batch->state */
    cl_mem sequences, q_positions, page_table;
    cl_mem score_slots;
    cl_mem items[WORK_KINDS], merges[WORK_KINDS];
    double pairs[WORK_KINDS];     /* cost of all items */
};

heed_status cl_step_prepare(struct cl_device *device, const struct problem *problem, const struct kernel_row *row, struct cl_step *step);
void cl_step_release(struct cl_device *device, struct cl_step *step); /* also what was prepared in part */
heed_status cl_plan_prepare(struct heed_plan *plan);
void cl_plan_release(struct heed_plan *plan);
heed_status cl_batch_prepare(struct heed_batch *batch);
void cl_batch_release(struct heed_batch *batch);
heed_status cl_run(const struct call *call, const struct queue_args *queue);
heed_status cl_append(const struct call *call, const struct queue_args *queue);
heed_status cl_rotate(const struct call *call, const struct queue_args *queue);
heed_status cl_merge(const struct call *call, const struct queue_args *queue);

extern const struct kernel_row cl_rows[]; /* rows.c */

/* ---- sub-groups (subgroup.c) ------------------------------------------------------------- */

/* Numbers of -DSG_WORDS. The emulated ones are for tests: only a tuning file asks for them. */
enum cl_subgroup { SUBGROUP_NONE, SUBGROUP_EMULATED, SUBGROUP_INTEL, SUBGROUP_KHRONOS };

/* Probes of the sub-groups that this device may have, best first; NULL after the last. */
const struct kernel_row *cl_subgroup_row(const struct cl_device *device, int n);
int32_t cl_subgroup_lanes_of(const struct kernel_row *row); /* of such a probe */
extern const struct cl_kernel_spec cl_prefill_subgroup;

/* ---- shapes of tiles in local memory (tile.c) ------------------------------------------ */

enum { CL_SCORE_KEYS = 64 }; /* keys per item of scores_tile.cl and scores.cl */
static inline size_t cl_larger(size_t a, size_t b) { return a > b ? a : b; }
extern const struct cl_kernel_spec cl_prefill_tile, cl_scores_tile;

/* ---- argument lists of the row kernels beside attention --------------------------------------------------------
 * (attention and the merge of partial results: kernels/common.cl.) All tensors are uchar pointers, strides in bytes by value in
 * struct strides { long offset, batch, head, token; } x n, in the order of the tensors. t counts queries over all sequences
 * (sequences[b].q_index + i); a kernel finds b by binary search over q_index (skipping sequences with q_len 0). p_i by q_positions[t] if
 * sequences[b].reserved & 1, else position + i.
 *
 *   append(new_k, new_v, k, v, k_scale, v_scale, rope_cos, rope_sin, sequences, q_positions, page_table,
 *          int sequence_count, int heads, int new_type, int given, int row_first, int row_count, struct { struct strides t[8]; } st, problem)
 *          row = t * heads + g; given: bit 0 new_k, 1 new_v, 2 k_scale, 3 v_scale. Key kv_len - q_len + i.
 *   rotate_rows(x, rope_cos, rope_sin, sequences, q_positions, int sequence_count, int heads, int row_first, int row_count, st[3], problem)
 *          row = t * heads + h
 *   merge_two(o_a, lse_a, o_b, lse_b, o, lse, sequences, int sequence_count, int heads, int row_first, int row_count, st[6], problem)
 *          row = t * heads + h
 *
 * One work-item per row, row >= row_first + row_count: return. */

#endif
