/* SPDX-License-Identifier: MIT
 * test_field.c - faults that users of other attention software met, where a problem line cannot say them (doc/field_faults.md names each): ring
 * caches, one fact in three forms, dimensions beyond the first, shared sequences, plans for everything, exit with live objects. CPU wing.
 */
#include "counting.h"
#include "heed.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const isas[] = {"scalar", "avx2", "avx512"};
enum { ISAS = 3, LARGEST = 1 << 16 };

static heed_context *context_of(const char *isa)
{
    heed_context *context = NULL;
    const heed_context_options options = {.struct_size = sizeof options, .num_threads = 2, .flags = HEED_NO_OPENCL | HEED_NO_ENVIRONMENT,
                                          .cpu_features = isa};
    cr_assert(heed_context_create(&options, &context) == HEED_OK, "%s", heed_error_message());
    return context;
}

static float *noise(size_t count, uint32_t seed)
{
    float *x = malloc(sizeof *x * count);
    cr_assert(x);
    for (size_t n = 0; n < count; n++) {
        seed = seed * 1664525u + 1013904223u;
        x[n] = (float)(seed >> 8) / 8388608.0f - 1;
    }
    return x;
}

/* [tokens, heads, dim] from `data` on. */
static heed_tensor rows(const void *data, int64_t tokens, int64_t heads, int64_t dim)
{
    return (heed_tensor){.data = (void *)(uintptr_t)data, .bytes = (uint64_t)(4 * tokens * heads * dim), .batch_stride = tokens * heads * dim,
                         .head_stride = dim, .token_stride = heads * dim};
}

#define RUN(context, desc, lengths, tensors) \
    cr_assert(heed_forward(context, 0, desc, lengths, tensors) == HEED_OK, "%s", heed_error_message())

/* ---- litgpt#2182: a window over pages that are written again and again ------------------ */

/* Pages of 4, window of 16 keys, pieces of `piece` tokens: a table that repeats after window + piece tokens (and one page, for where they
 * begin) gives the bits of the cache that keeps everything. */
static void ring(heed_context *context, struct counts *counts, int32_t piece)
{
    enum { HEADS = 2, D = 32, PAGE = 4, TOKENS = 120, LEFT = 15, PAGES = TOKENS / PAGE };
    const int32_t ring_pages = (LEFT + 1 + piece + PAGE - 1) / PAGE + 1;
    float *q = noise(TOKENS * HEADS * D, 1), *k = noise(TOKENS * HEADS * D, 2), *v = noise(TOKENS * HEADS * D, 3);
    float *ring_k = noise(TOKENS * HEADS * D, 4), *ring_v = noise(TOKENS * HEADS * D, 5), plain[TOKENS * HEADS * D], ringed[TOKENS * HEADS * D];
    int32_t table[PAGES], straight[PAGES];
    for (int32_t n = 0; n < PAGES; n++) straight[n] = n, table[n] = n % ring_pages;
    const heed_desc desc = {.struct_size = sizeof desc, .q_heads = HEADS, .head_dim = D, .page_size = PAGE, .window_left = LEFT, .window_right = -1,
                            .flags = HEED_CAUSAL | HEED_WINDOW};
    for (int32_t begin = 0; begin < TOKENS; begin += piece) {
        const int32_t end = begin + piece < TOKENS ? begin + piece : TOKENS, count = end - begin;
        for (int32_t j = begin; j < end; j++) {
            const size_t to = (size_t)(table[j / PAGE] * PAGE + j % PAGE) * HEADS * D, bytes = sizeof(float) * HEADS * D;
            memcpy(ring_k + to, k + (size_t)j * HEADS * D, bytes);
            memcpy(ring_v + to, v + (size_t)j * HEADS * D, bytes);
        }
        heed_lengths lengths = {.struct_size = sizeof lengths, .batch = 1, .q_len = count, .kv_len = end, .page_table = straight, .page_table_stride = PAGES};
        heed_tensors t = {.struct_size = sizeof t, .q = rows(q + begin * HEADS * D, count, HEADS, D), .k = rows(k, TOKENS, HEADS, D),
                          .v = rows(v, TOKENS, HEADS, D), .o = rows(plain, count, HEADS, D)};
        t.k.batch_stride = t.v.batch_stride = PAGE * HEADS * D;
        RUN(context, &desc, &lengths, &t);
        lengths.page_table = table;
        t.k.data = ring_k, t.v.data = ring_v, t.o.data = ringed;
        t.k.bytes = t.v.bytes = (uint64_t)ring_pages * PAGE * HEADS * D * sizeof(float);
        RUN(context, &desc, &lengths, &t);
        count_check(counts, !memcmp(plain, ringed, sizeof(float) * (size_t)(count * HEADS * D)), "a ring of pages gives other bits");
    }
    free(q), free(k), free(v), free(ring_k), free(ring_v);
}

Test(field, a_ring_of_pages)
{
    struct counts counts = {0};
    for (int isa = 0; isa < ISAS; isa++) {
        heed_context *context = context_of(isas[isa]);
        ring(context, &counts, 1), ring(context, &counts, 7), ring(context, &counts, 20);
        heed_context_destroy(context);
    }
    count_end(&counts);
}

/* ---- pytorch#127055: whole tiles hidden before a row's first key, said in three ways ------- */

static void window_three_ways(heed_context *context, struct counts *counts, int32_t q_len)
{
    enum { D = 4, KV = 640, LEFT = 9 };
    float *q = noise(KV * D, 6), *k = noise(KV * D, 7), *v = noise(KV * D, 8), *bias = malloc(sizeof *bias * KV * KV), o[3][KV * D];
    unsigned char *bits = calloc(KV, KV / 8);
    cr_assert(bias && bits);
    for (int32_t i = 0; i < q_len; i++)
        for (int32_t j = 0; j < KV; j++) {
            const int32_t p = i + KV - q_len;
            const bool seen = j <= p && j >= p - LEFT;
            bias[i * KV + j] = seen ? 0 : -INFINITY;
            bits[i * (KV / 8) + j / 8] |= (unsigned char)(seen << j % 8);
        }
    const heed_lengths lengths = {.struct_size = sizeof lengths, .batch = 1, .q_len = q_len, .kv_len = KV};
    for (int way = 0; way < 3; way++) {
        heed_desc desc = {.struct_size = sizeof desc, .q_heads = 1, .head_dim = D};
        heed_tensors t = {.struct_size = sizeof t, .q = rows(q, q_len, 1, D), .k = rows(k, KV, 1, D), .v = rows(v, KV, 1, D),
                          .o = rows(o[way], q_len, 1, D)};
        if (way == 0) desc.flags = HEED_WINDOW | HEED_CAUSAL, desc.window_left = LEFT, desc.window_right = -1;
        if (way == 1) desc.flags = HEED_BIAS, t.bias = rows(bias, q_len, 1, KV);
        if (way == 2) desc.flags = HEED_MASK_BITS, t.mask = (heed_tensor){.data = bits, .bytes = KV * (KV / 8), .token_stride = KV / 8};
        RUN(context, &desc, &lengths, &t);
    }
    const size_t bytes = sizeof(float) * (size_t)q_len * D;
    count_check(counts, !memcmp(o[0], o[1], bytes), "bias of -infinity is no window");
    count_check(counts, !memcmp(o[0], o[2], bytes), "bits are no window");
    for (int32_t n = 0; n < q_len * D; n++)
        if (!isfinite(o[1][n])) cr_assert_fail("element %d is %g", (int)n, (double)o[1][n]);
    free(q), free(k), free(v), free(bias), free(bits);
}

Test(field, hidden_tiles_before_the_first_key)
{
    struct counts counts = {0};
    for (int isa = 0; isa < ISAS; isa++) {
        heed_context *context = context_of(isas[isa]);
        window_three_ways(context, &counts, 640), window_three_ways(context, &counts, 1);
        heed_context_destroy(context);
    }
    count_end(&counts);
}

/* ---- triton#621: every column counts ---------------------------------------------------------- */

/* Two keys that differ in column c alone, where q is 64: the first takes all the weight. Every other column is 0. */
Test(field, every_column_of_every_dimension)
{
    static const int32_t dims[] = {1, 7, 48, 64, 100, 128, 256, 576, 1024};
    struct counts counts = {0};
    float q[9 * 1024], k[2 * 1024], v[2] = {3, 5}, o[9];
    for (int isa = 0; isa < ISAS; isa++) {
        heed_context *context = context_of(isas[isa]);
        for (size_t n = 0; n < sizeof dims / sizeof *dims; n++)
            for (int32_t c = 0; c < dims[n]; c += c + 1 == dims[n] || dims[n] < 65 ? 1 : (dims[n] - 1 - c < 37 ? dims[n] - 1 - c : 37))
                for (int32_t q_len = 1; q_len <= 9; q_len += 8) {
                    const int32_t d = dims[n];
                    memset(q, 0, sizeof q), memset(k, 0, sizeof k);
                    for (int32_t i = 0; i < q_len; i++) q[i * d + c] = 64, o[i] = 0;
                    k[c] = 64, k[d + c] = -64;
                    const heed_desc desc = {.struct_size = sizeof desc, .q_heads = 1, .head_dim = d, .v_head_dim = 1, .scale = 1};
                    const heed_lengths lengths = {.struct_size = sizeof lengths, .batch = 1, .q_len = q_len, .kv_len = 2};
                    const heed_tensors t = {.struct_size = sizeof t, .q = rows(q, q_len, 1, d), .k = rows(k, 2, 1, d), .v = rows(v, 2, 1, 1),
                                            .o = rows(o, q_len, 1, 1)};
                    RUN(context, &desc, &lengths, &t);
                    count_check(&counts, o[0] == 3 && o[q_len - 1] == 3, "a column has no weight");
                }
        heed_context_destroy(context);
    }
    count_end(&counts);
}

/* ---- mlx#3383: grouped heads, K and V shared by all sequences --------------------------------- */

Test(field, sequences_that_share_one_cache)
{
    enum { B = 2, HQ = 4, HK = 2, D = 64, KV = 70 };
    struct counts counts = {0};
    float *k = noise(B * KV * HK * D, 10), *v = noise(B * KV * HK * D, 11), *q = noise(B * 2 * 9 * HQ * D, 12), o[2][B * 9 * HQ * D];
    memcpy(k + KV * HK * D, k, sizeof *k * KV * HK * D);
    memcpy(v + KV * HK * D, v, sizeof *v * KV * HK * D);
    for (int isa = 0; isa < ISAS; isa++) {
        heed_context *context = context_of(isas[isa]);
        for (int32_t q_len = 1; q_len <= 9; q_len += 4) {
            const heed_desc desc = {.struct_size = sizeof desc, .q_heads = HQ, .kv_heads = HK, .head_dim = D};
            const heed_lengths lengths = {.struct_size = sizeof lengths, .batch = B, .q_len = q_len, .kv_len = KV};
            for (int way = 0; way < 2; way++) {
                heed_tensors t = {.struct_size = sizeof t, .q = rows(q, q_len, HQ, D), .k = rows(k, KV, HK, D), .v = rows(v, KV, HK, D),
                                  .o = rows(o[way], q_len, HQ, D)};
                t.q.batch_stride *= 2, t.q.bytes *= 2 * B, t.o.bytes *= B;
                if (way) t.k.batch_stride = t.v.batch_stride = 0;
                else t.k.bytes *= B, t.v.bytes *= B;
                RUN(context, &desc, &lengths, &t);
            }
            count_check(&counts, !memcmp(o[0], o[1], sizeof(float) * (size_t)(B * q_len * HQ * D)), "a shared cache is no copy of it");
        }
        heed_context_destroy(context);
    }
    free(q), free(k), free(v);
    count_end(&counts);
}

/* ---- a bias of +infinity before the softcap is a logit of c (semantics.md, rule 2) ------------------- */

/* q = 0, so logits are the caps of the biases: c for +infinity, 0 else. o = (e^c v_0 + sum of the others) / (e^c + KV - 1). */
Test(field, infinite_bias_before_the_softcap)
{
    enum { D = 16, KV = 40, Q = 9 };
    struct counts counts = {0};
    float q[Q * D] = {0}, *k = noise(KV * D, 13), v[KV] = {1}, bias[Q * KV] = {0}, o[Q];
    for (int32_t i = 0; i < Q; i++) bias[i * KV] = INFINITY;
    const double expected = exp(2) / (exp(2) + KV - 1);
    for (int isa = 0; isa <= ISAS; isa++) {
        heed_context *context = context_of(isas[isa % ISAS]);
        const heed_desc desc = {.struct_size = sizeof desc, .q_heads = 1, .head_dim = D, .v_head_dim = 1, .softcap = 2,
                                .flags = HEED_BIAS | HEED_BIAS_FIRST};
        heed_plan *plan = NULL;
        cr_assert(heed_plan_create(context, 0, &desc, isa == ISAS ? "reference" : NULL, &plan) == HEED_OK, "%s", heed_error_message());
        for (int32_t q_len = 1; q_len <= Q; q_len += Q - 1) {
            const heed_lengths lengths = {.struct_size = sizeof lengths, .batch = 1, .q_len = q_len, .kv_len = KV};
            const heed_tensors t = {.struct_size = sizeof t, .q = rows(q, q_len, 1, D), .k = rows(k, KV, 1, D), .v = rows(v, KV, 1, 1),
                                    .o = rows(o, q_len, 1, 1), .bias = rows(bias, q_len, 1, KV)};
            heed_batch *batch = NULL;
            cr_assert(heed_batch_create(plan, &lengths, &batch) == HEED_OK);
            const size_t bytes = heed_batch_workspace_size(batch);
            heed_tensor workspace = {.data = aligned_alloc(64, bytes / 64 * 64 + 64), .bytes = bytes};
            cr_assert(heed_run(plan, batch, &t, &workspace) == HEED_OK, "%s", heed_error_message());
            for (int32_t i = 0; i < q_len; i++) count_check(&counts, fabs(o[i] - expected) < 1e-6, "the logit is not c");
            free(workspace.data);
            heed_batch_destroy(batch);
        }
        heed_plan_destroy(plan);
        heed_context_destroy(context);
    }
    free(k);
    count_end(&counts);
}

/* ---- iree#24135: a plan for everything; transformers PR#46960: no memory for q x kv --------------------- */

Test(field, a_plan_for_every_type_and_dimension)
{
    static const int32_t dims[] = {64, 96, 128, 256, 512, 1024};
    struct counts counts = {0};
    for (int isa = 0; isa < ISAS; isa++) {
        heed_context *context = context_of(isas[isa]);
        for (int q = HEED_F32; q <= HEED_BF16; q++)
            for (int kv = HEED_F32; kv <= HEED_F8_E5M2; kv++)
                for (size_t n = 0; n < sizeof dims / sizeof *dims; n++) {
                    const heed_desc desc = {.struct_size = sizeof desc, .q_type = (heed_type)q, .k_type = (heed_type)kv, .v_type = (heed_type)kv,
                                            .q_heads = 8, .kv_heads = 2, .head_dim = dims[n]};
                    heed_plan *plan = NULL;
                    char text[4096] = "";
                    count_check(&counts, heed_plan_create(context, 0, &desc, NULL, &plan) == HEED_OK, heed_error_message());
                    if (plan) heed_plan_explain(plan, text, sizeof text);
                    count_check(&counts, !strstr(text, "reference            yes"), "the slow row is taken");
                    heed_plan_destroy(plan);
                }
        heed_context_destroy(context);
    }
    count_end(&counts);
}

Test(field, workspace_is_linear_in_the_lengths)
{
    struct counts counts = {0};
    heed_context *context = context_of("avx512");
    const heed_desc desc = {.struct_size = sizeof desc, .q_type = HEED_BF16, .q_heads = 16, .kv_heads = 4, .head_dim = 512, .flags = HEED_CAUSAL};
    heed_plan *plan = NULL;
    size_t bytes[2];
    cr_assert(heed_plan_create(context, 0, &desc, NULL, &plan) == HEED_OK, "%s", heed_error_message());
    for (int n = 0; n < 2; n++) {
        const heed_lengths lengths = {.struct_size = sizeof lengths, .batch = 1, .q_len = 4096 << n, .kv_len = 4096 << n};
        heed_batch *batch = NULL;
        cr_assert(heed_batch_create(plan, &lengths, &batch) == HEED_OK, "%s", heed_error_message());
        bytes[n] = heed_batch_workspace_size(batch);
        heed_batch_destroy(batch);
    }
    count_check(&counts, bytes[1] <= 2 * bytes[0] + 65536 && bytes[1] < (size_t)256 << 20, "workspace grows with q_len * kv_len");
    heed_plan_destroy(plan);
    heed_context_destroy(context);
    count_end(&counts);
}

/* ---- clvk#531: exit() with live objects ---------------------------------------------------------------------- */

Test(field, exit_with_a_live_context, .timeout = 60)
{
    struct counts counts = {0};
    int state = -1;
    const pid_t child = fork();
    cr_assert(child >= 0);
    if (child == 0) {
        heed_context *context = context_of("scalar");
        const heed_desc desc = {.struct_size = sizeof desc, .q_heads = 1, .head_dim = 8};
        heed_plan *plan = NULL;
        if (heed_plan_create(context, 0, &desc, NULL, &plan) != HEED_OK) _exit(3);
        fflush(NULL);
        exit(0); /* with its threads, and every handler of the process */
    }
    cr_assert(waitpid(child, &state, 0) == child);
    count_check(&counts, WIFEXITED(state) && WEXITSTATUS(state) == 0, "exit() with a live context does not end well");
    count_end(&counts);
}
