/* SPDX-License-Identifier: MIT
 * harness.h - problems from one line of text: make their data, poison what must not be read, guard what must not be touched, run one row
 * of the table on one device, compare. Shared by the tests, the bench and the command, so it knows no test framework and prints nothing.
 */
#ifndef HEED_HARNESS_H
#define HEED_HARNESS_H

#include "heed.h"
#include "problem.h"
#include <stdio.h>

/* ---- one line of text ---------------------------------------------------- */

enum line_layout { LAYOUT_BLHD, LAYOUT_BHLD, LAYOUT_QKV };
enum line_data { DATA_NORMAL, DATA_HUGE, DATA_EQUAL, DATA_SPIKE, DATA_DENORMAL, DATA_ONEHOT, DATA_COUNT };
enum { LINE_BYTES = 512, LINE_HEADS = 64 };

/* A problem string (doc/command.md): the words of heed_desc, and those that belong to the harness. */
struct problem_line {
    char text[LINE_BYTES];          /* as given, without comment and line end */
    heed_desc desc;                 /* max_batch, max_q_len, max_kv_len hold the lengths below */
    int32_t batch, q_len, kv_len;   /* words b, q, kv; with ragged and kvlens the largest lengths */
    bool pos_given;
    int32_t pos;                    /* q_position of sequence b is pos + b */
    bool tree;                      /* q_positions: depth in a random draft tree behind kv_len - q_len */
    bool kvfirst_given;
    int32_t kvfirst;                /* kv_first of sequence b is kvfirst + 7 b */
    bool ragged, kvlens;
    enum line_layout layout;
    bool bcast_b, bcast_h, bcast_q; /* mask and bias repeat over this dimension */
    int32_t srows;                  /* score_rows */
    int32_t sheads[LINE_HEADS], shead_count; /* score_heads */
    uint64_t seed;
    enum line_data data;
};

/* false: message says which word and why. An unknown word is an error, so is a word of heed_desc with a bad value. */
bool line_parse(const char *text, struct problem_line *line, char *message, size_t capacity);
/* Can the problem be made at all? false: words that contradict each other (layout=qkv page=4, sheads=9 of one head, tree pos=3), or tensors
 * beyond this machine's memory; the message says which. Not asked by line_parse(), whose words may be only a part (shapes from files). */
bool line_possible(const struct problem_line *line, char *message, size_t capacity);
/* One line that line_parse() reads back as the same problem; returns the length it would have had. */
size_t line_format(const struct problem_line *line, char *text, size_t capacity);

/* A file of lines: '#' begins a comment, blank lines are skipped. NULL with a message on failure, lines[] freed by free(). */
struct problem_line *lines_read(const char *path, int32_t *count, char *message, size_t capacity);

/* ---- its data ------------------------------------------------------------- */

enum instance_variant {
    INSTANCE_GUARD_AFTER,  /* the page behind each tensor's last reachable byte cannot be touched; everything unreadable is poison */
    INSTANCE_GUARD_BEFORE, /* the page before its first reachable byte */
    INSTANCE_PLAIN         /* dense strides, 64-byte aligned, no guards and no poison: for timing */
};

/* Memory of one tensor: [data, data + bytes) is what the tensor may touch, [open, open + open_bytes) what does not trap. */
struct block {
    unsigned char *map, *open, *data;
    size_t map_bytes, open_bytes, bytes;
    unsigned char *owner; /* [open_bytes] outputs: 1 where a result belongs. NULL for inputs and in plain instances */
    unsigned char *copy;  /* [open_bytes] inputs as they were made. NULL for outputs and in plain instances */
};

/* Rows of one tensor in its block, in bytes: row (n, h, t) at data + start + n * batch + h * head + t * token. */
struct shape {
    heed_type type;
    int32_t batches, heads, tokens; /* extents; batches are pages where KV is paged, 1 where packed */
    int64_t row_bytes, batch, head, token, start;
    enum role home;                 /* whose block: its own role, or ROLE_Q with layout=qkv */
    bool given;
};

struct instance {
    struct problem_line line;
    struct problem problem;
    enum instance_variant variant;
    bool stored;                    /* lengths and rows come from a stored case, not from the seed */
    heed_lengths lengths;
    heed_tensors tensors;           /* host memory */
    struct shape shape[ROLE_COUNT];
    struct block block[ROLE_COUNT]; /* by role; with layout=qkv k and v lie in q's */
    int32_t *q_lens, *kv_lens;      /* [batch], always */
    int32_t *q_start, *kv_start, *q_position, *q_positions, *kv_first, *page_table; /* NULL where not given */
    int64_t q_total;
    double pairs;                   /* visible (query, key) pairs over all query heads: the useful work */
    uint64_t kv_bytes;              /* bytes of K and V that at least one query sees, scales included */
};

/* NULL with a message on failure: no memory, or a line that is not possible. */
struct instance *instance_new(const struct problem_line *line, enum instance_variant variant, char *message, size_t capacity);
void instance_free(struct instance *instance); /* NULL is fine */

/* Does query i of head h in sequence b see key j? The harness's own reading of doc/semantics.md; from host data. */
bool instance_visible(const struct instance *instance, int32_t b, int32_t h, int32_t i, int32_t j);

/* Outputs back to the pattern of fresh memory. */
void instance_reset(struct instance *instance);
/* Was any byte written that no output owns, an input included? false: message says where. */
bool instance_untouched(const struct instance *instance, char *message, size_t capacity);
/* Hash of all output bytes that a result owns: equal for equal bits. */
uint64_t instance_bits(const struct instance *instance);

/* ---- a run ------------------------------------------------------------------ */

/* Plan, batch, workspace and tensors of one instance on one device, ready to run again and again. On an OpenCL device the tensors are
 * copied into heed_buffers, unless in_host asks for the host memory itself (devices that share it). */
struct prepared {
    heed_context *context;
    int32_t device;
    heed_backend backend;
    heed_plan *plan;
    heed_batch *batch;
    heed_tensors tensors;
    heed_tensor workspace;
    heed_buffer *buffer[ROLE_COUNT], *workspace_buffer;
    void *workspace_memory;
    const struct instance *instance;
};

/* kernel: name of a row to insist on, or NULL. The status and heed_error_message() are the library's. */
heed_status prepared_make(heed_context *context, int32_t device, const char *kernel, const struct instance *instance, bool in_host,
                          struct prepared *prepared);
heed_status prepared_run(struct prepared *prepared);   /* heed_run() */
heed_status prepared_reset(struct prepared *prepared); /* instance_reset(), and the same on the device */
heed_status prepared_fetch(struct prepared *prepared); /* device outputs (whole blocks) into the instance's memory */
void prepared_release(struct prepared *prepared);

/* ---- a verdict ---------------------------------------------------------------- */

enum verdict { VERDICT_PASS, VERDICT_FAIL, VERDICT_SKIP };

struct outcome {
    enum verdict verdict;
    char kernel[64];         /* row that computed it (the worse one of prefill and decode) */
    char message[512];       /* why it failed or was skipped; the refusal of the row */
    heed_check_report report;
    uint64_t bits;           /* of the outputs */
    /* case_check() against stored bounds: elements with a bound above 0, of these beyond a tenth of it; sum of (got - want) / bound, sum of squares */
    uint64_t bounded, beyond_tenth;
    double signed_ratio, squared_ratio;
};

/* Plan (insisting on the row `kernel`, NULL = the planner's choice), run, compare every element with the reference inside its bound, look
 * for touched bytes, run again and compare bits. SKIP: the row refuses, or no sequence of the problem is its kind of step. */
void instance_check(heed_context *context, int32_t device, const char *kernel, struct instance *instance, struct outcome *outcome);

/* The same from a line: both guard variants. */
void line_check(heed_context *context, int32_t device, const char *kernel, const struct problem_line *line, struct outcome *outcome);

/* Compare what the instance's outputs hold (host memory) with the reference, inside the bounds of the plan's rows. */
heed_status prepared_compare(const struct prepared *prepared, heed_check_report *report);

/* The n-th attention row (prefill or decode) of a device's table, NULL behind the last: the names that instance_check() takes. */
const char *device_row(heed_context *context, int32_t device, int32_t n);

/* ---- stored cases (tests/golden, heed-case/2 reports, ONNX) ------------------- */

enum case_kind { CASE_HEED_1, CASE_HEED_2, CASE_ONNX };

struct stored_case {
    char name[128], folder[1024];
    enum case_kind kind;
    char op[32];              /* ONNX: Attention, RotaryEmbedding, TensorScatter; else "attention" */
    bool supported;           /* false: message says why no instance was made */
    char message[256];
    struct instance *instance;
    double *o, *lse, *scores; /* expected, in the order of rows (b, h, i) x dim; NULL = not stored */
    double *o_bound, *lse_bound; /* NULL: atol + rtol |want| */
    double rtol, atol;
    void *files;              /* ONNX operators beside Attention: their arrays */
    bool poison, empty_rows, zero_pattern, uniform; /* flags of heed-case/1 */
};

/* Every folder with a case.json at or below `folder`, sorted. NULL with a message; names[] and each name freed by free(). */
char **cases_list(const char *folder, int32_t *count, char *message, size_t capacity);
struct stored_case *case_load(const char *folder, enum instance_variant variant, char *message, size_t capacity);
void case_free(struct stored_case *stored);
/* Plan, run and compare with the stored numbers inside the stored bounds and with the reference inside the row's own; poison runs too. */
void case_check(heed_context *context, int32_t device, const char *kernel, struct stored_case *stored, struct outcome *outcome);

/* ---- small things that tests, bench and command share -------------------------- */

/* Splitmix64: the data of a seed are the same on every machine. */
struct random { uint64_t state; };
uint64_t random_bits(struct random *random);
int32_t random_below(struct random *random, int32_t n); /* [0, n), n > 0 */
double random_unit(struct random *random);              /* [0, 1) */
double random_normal(struct random *random);

/* Adds "passed failed skipped" as a line to the file named by HEED_TEST_COUNTS, if that variable is set. */
void counts_report(int64_t passed, int64_t failed, int64_t skipped);

#endif
