/* SPDX-License-Identifier: MIT
 * test_far.c - rows that lie further apart than 32 bits can say: keys, heads or pages spread over 6 GiB of address space (3 GiB on OpenCL devices,
 * which take no more in one piece), of which only the rows themselves are ever touched. The same bits as with the rows side by side, on every row of the table.
 */
#include "counting.h"
#include "heed.h"
#include <sys/mman.h>

enum { HEADS = 8, KV_HEADS = 2, DIM = 32, QUERIES = 5, KEYS = 6, PAGE = 2 };
static const size_t span = (size_t)6 << 30;

/* Strides in elements; far ones make offsets above 2^31 and above 2^32 bytes. */
struct spread {
    const char *name;
    int64_t token, head, page; /* page: 0 = not paged */
    bool reversed;             /* page numbers from the last to the first */
};
static const struct spread near = {"near", KV_HEADS * DIM, DIM, 0, false};
static const struct spread spreads[] = {
    {"tokens", (INT64_C(1) << 28) + 64, 2 * DIM, 0, false},               /* 1 GiB from key to key */
    {"heads", 2 * DIM, (INT64_C(5) << 28) + 64, 0, false},                /* 5 GiB from head to head; rows close enough to be read in place */
    {"pages", 4 * DIM, 2 * DIM, (INT64_C(5) << 27) + 64, true},           /* 2.5 GiB from page to page */
};

struct result {
    float o[QUERIES * HEADS * DIM];
};

static float *key_at(float *base, const struct spread *s, int g, int j)
{
    if (!s->page) return base + j * s->token + g * s->head;
    return base + (KEYS / PAGE - 1 - j / PAGE) * s->page + j % PAGE * s->token + g * s->head;
}

/* K in the first DIM floats of a row, V in those behind it, so that both are far. */
static void fill(float *k, float *v, const struct spread *s)
{
    struct random random = {4};
    for (int g = 0; g < KV_HEADS; g++)
        for (int j = 0; j < KEYS; j++)
            for (int d = 0; d < DIM; d++) {
                key_at(k, s, g, j)[d] = (float)random_normal(&random);
                key_at(v, s, g, j)[d] = (float)random_normal(&random);
            }
}

static heed_status attend(heed_context *context, int32_t device, const char *kernel, const struct spread *s, float *k, float *v, size_t bytes, int32_t q_len,
                          struct result *result)
{
    static const int32_t pages[KEYS / PAGE] = {2, 1, 0};
    float q[QUERIES * HEADS * DIM];
    struct random random = {5};
    for (size_t n = 0; n < sizeof q / sizeof *q; n++) q[n] = (float)random_normal(&random);
    const heed_desc desc = {.struct_size = sizeof desc, .q_heads = HEADS, .kv_heads = KV_HEADS, .head_dim = DIM, .flags = HEED_CAUSAL,
                            .page_size = s->page ? PAGE : 0};
    const heed_lengths lengths = {.struct_size = sizeof lengths, .batch = 1, .q_len = q_len, .kv_len = KEYS,
                                  .page_table = s->page ? pages : NULL, .page_table_stride = s->page ? KEYS / PAGE : 0};
    const heed_tensor rows = {.head_stride = DIM, .token_stride = HEADS * DIM, .batch_stride = QUERIES * HEADS * DIM};
    const heed_tensor keys = {.bytes = bytes, .head_stride = s->head, .token_stride = s->token, .batch_stride = s->page};
    heed_tensors tensors = {.struct_size = sizeof tensors, .q = rows, .k = keys, .v = keys, .o = rows};
    tensors.q.data = q, tensors.q.bytes = sizeof q;
    tensors.o.data = result->o, tensors.o.bytes = sizeof result->o;
    tensors.k.data = k;
    tensors.v.data = v;
    heed_plan *plan = NULL;
    heed_batch *batch = NULL;
    heed_tensor workspace = {0};
    memset(result, 0, sizeof *result);
    heed_status status = heed_plan_create(context, device, &desc, kernel, &plan);
    if (status == HEED_OK) status = heed_batch_create(plan, &lengths, &batch);
    if (status == HEED_OK && (workspace.bytes = heed_batch_workspace_size(batch))) workspace.data = aligned_alloc(64, workspace.bytes);
    if (status == HEED_OK) status = heed_run(plan, batch, &tensors, workspace.data ? &workspace : NULL);
    free(workspace.data);
    heed_batch_destroy(batch);
    heed_plan_destroy(plan);
    return status;
}

static void far_row(heed_context *context, int32_t device, const char *kernel, struct counts *counts)
{
    const int64_t by = device == 0 ? 1 : 2;
    float k[KEYS * KV_HEADS * DIM], v[KEYS * KV_HEADS * DIM];
    fill(k, v, &near);
    for (size_t n = 0; n < sizeof spreads / sizeof *spreads; n++) {
        float *map = mmap(NULL, span, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (map == MAP_FAILED) {
            counts->skipped++;
            fprintf(stderr, "skipped: %s: no 6 GiB of address space\n", kernel);
            continue;
        }
        struct spread far = spreads[n];
        if (far.token > near.token * 4) far.token /= by;
        if (far.head > near.token * 4) far.head /= by;
        far.page /= by;
        fill(map, map + DIM, &far);
        for (int32_t q_len = 1; q_len <= QUERIES; q_len += QUERIES - 1) {
            struct result want, got;
            char what[256];
            heed_status status = attend(context, device, kernel, &near, k, v, sizeof k, q_len, &want);
            if (status == HEED_OK) status = attend(context, device, kernel, &far, map, map + DIM, span / (size_t)by - DIM * sizeof(float), q_len, &got);
            snprintf(what, sizeof what, "%s, far %s, q_len %d: %s", kernel, far.name, (int)q_len,
                     status == HEED_OK ? "other bits" : heed_error_message());
            if (status == HEED_UNSUPPORTED) {
                counts->skipped++;
                fprintf(stderr, "skipped: %s\n", what);
            } else
                count_check(counts, status == HEED_OK && !memcmp(&want, &got, sizeof want), what);
        }
        munmap(map, span);
    }
}

Test(far, cpu)
{
    struct counts counts = {0};
    heed_context *context = NULL;
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = 2, .flags = HEED_NO_OPENCL | HEED_NO_ENVIRONMENT};
    const char *row;
    if (!test_wants_device("cpu")) return;
    cr_assert(heed_context_create(&options, &context) == HEED_OK, "%s", heed_error_message());
    for (int32_t n = 0; (row = device_row(context, 0, n)); n++) far_row(context, 0, row, &counts);
    heed_context_destroy(context);
    count_end(&counts);
}

/* Only a device that works on the caller's memory, and only the row that does everything: a program is compiled for it. */
Test(far, opencl)
{
    struct counts counts = {0};
    heed_context *context = NULL;
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = 2};
    if (!test_wants_device("opencl")) return;
    cr_assert(heed_context_create(&options, &context) == HEED_OK, "%s", heed_error_message());
    for (int32_t device = 1; device < heed_device_count(context); device++) far_row(context, device, "opencl.naive", &counts);
    heed_context_destroy(context);
    count_end(&counts);
}
