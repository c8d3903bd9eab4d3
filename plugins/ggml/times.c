/* SPDX-License-Identifier: MIT
 * times.c - the operation alone, by the plug-in and by ggml's CPU backend in turns, best of many: what a layer of a model costs, without the rest.
 * Masks are causal, caches lie as llama.cpp's do, [token][head][dim]. Nothing is judged here.
 *   GGML_BACKEND_PATH=libggml-heed.so ggml_times THREADS
 */
#include "ggml-backend.h"
#include "ggml.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct shape {
    int n, s, heads, kv_heads, dim;
    enum ggml_type type;
};

static const struct shape shapes[] = {
    {1, 256, 32, 8, 64, GGML_TYPE_F16},   {1, 256, 32, 8, 128, GGML_TYPE_F16},   {1, 4096, 32, 8, 128, GGML_TYPE_F16},
    {1, 16384, 32, 8, 128, GGML_TYPE_F16}, {1, 4096, 32, 8, 128, GGML_TYPE_Q8_0}, {1, 4096, 32, 8, 128, GGML_TYPE_Q4_0},
    {1, 4096, 32, 8, 128, GGML_TYPE_BF16}, {1, 4096, 32, 8, 128, GGML_TYPE_F32},  {1, 4096, 32, 32, 128, GGML_TYPE_F16},
    {4, 4096, 32, 8, 128, GGML_TYPE_F16},  {16, 4096, 32, 8, 128, GGML_TYPE_F16}, {64, 512, 32, 8, 128, GGML_TYPE_F16},
    {512, 512, 32, 8, 64, GGML_TYPE_F16},  {512, 512, 32, 8, 128, GGML_TYPE_F16}, {512, 512, 32, 8, 128, GGML_TYPE_Q8_0},
    {512, 512, 12, 12, 64, GGML_TYPE_F16}, {512, 4096, 32, 8, 128, GGML_TYPE_F16}, {512, 4096, 32, 8, 128, GGML_TYPE_Q8_0},
};

static clockid_t watch = CLOCK_MONOTONIC; /* with one thread the thread's own time: what others take of the machine does not count */

static double now(void)
{
    struct timespec t;
    clock_gettime(watch, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void fill(struct ggml_tensor *t)
{
    static uint64_t seed = 1;
    const int64_t count = ggml_nelements(t);
    float *x = malloc((size_t)count * sizeof *x);
    for (int64_t n = 0; n < count; n++) {
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        x[n] = (float)(int32_t)(seed >> 32) / 2147483648.0f;
    }
    ggml_quantize_chunk(t->type, x, t->data, 0, ggml_nrows(t), t->ne[0], NULL);
    free(x);
}

static void set_threads(ggml_backend_t backend, int threads)
{
    ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(ggml_backend_get_device(backend));
    void *found = ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads");
    ggml_backend_set_n_threads_t function;
    memcpy(&function, &found, sizeof function);
    function(backend, threads);
}

static void measure(const struct shape *shape, ggml_backend_t backends[2])
{
    const struct ggml_init_params params = {.mem_size = ggml_tensor_overhead() * 16 + ggml_graph_overhead(), .no_alloc = true};
    struct ggml_context *c = ggml_init(params);
    struct ggml_tensor *q = ggml_new_tensor_3d(c, GGML_TYPE_F32, shape->dim, shape->heads, shape->n);
    struct ggml_tensor *k = ggml_new_tensor_3d(c, shape->type, shape->dim, shape->kv_heads, shape->s);
    struct ggml_tensor *v = ggml_new_tensor_3d(c, shape->type, shape->dim, shape->kv_heads, shape->s);
    struct ggml_tensor *mask = ggml_new_tensor_2d(c, GGML_TYPE_F16, shape->s, shape->n);
    struct ggml_tensor *o = ggml_flash_attn_ext(c, ggml_permute(c, q, 0, 2, 1, 3), ggml_permute(c, k, 0, 2, 1, 3),
                                                ggml_permute(c, v, 0, 2, 1, 3), mask, 0.125f, 0, 0);
    struct ggml_cgraph *graph = ggml_new_graph(c);
    ggml_build_forward_expand(graph, o);
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(c, backends[1]);
    fill(q), fill(k), fill(v);
    for (int i = 0; i < shape->n; i++)
        for (int j = 0; j < shape->s; j++)
            ((ggml_fp16_t *)mask->data)[i * shape->s + j] = ggml_fp32_to_fp16(j <= shape->s - shape->n + i ? 0.0f : -INFINITY);

    double best[2] = {1e9, 1e9};
    const double end = now() + 1.5;
    for (int turn = 0; turn < 3 || (turn < 1000 && now() < end); turn++)
        for (int n = 0; n < 2; n++) {
            const double begin = now();
            ggml_backend_graph_compute(backends[n], graph);
            if (now() - begin < best[n]) best[n] = now() - begin;
        }
    printf("| %d | %d | %d on %d | %d | %s | %.3f | %.3f | %.2f |\n", shape->n, shape->s, shape->heads, shape->kv_heads, shape->dim,
           ggml_type_name(shape->type), 1e3 * best[0], 1e3 * best[1], best[1] / best[0]);
    fflush(stdout);
    ggml_backend_buffer_free(buffer);
    ggml_free(c);
}

int main(int argc, char **argv)
{
    const int threads = argc > 1 ? atoi(argv[1]) : 1;
    ggml_backend_load_all();
    ggml_backend_dev_t device = ggml_backend_dev_by_name("HEED");
    if (!device || threads < 1) {
        fprintf(stderr, "usage: GGML_BACKEND_PATH=libggml-heed.so ggml_times THREADS\n");
        return 2;
    }
    ggml_backend_t backends[] = {ggml_backend_dev_init(device, NULL), ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, NULL)};
    for (int n = 0; n < 2; n++) set_threads(backends[n], threads);
    if (threads == 1) watch = CLOCK_THREAD_CPUTIME_ID;
    printf("%d thread%s, milliseconds%s\n\n| queries | keys | heads | D | cache | heed | ggml | times faster |\n"
           "| --- | --- | --- | --- | --- | --- | --- | --- |\n",
           threads, threads > 1 ? "s" : "", threads > 1 ? "" : " of CPU time");
    for (size_t n = 0; n < sizeof shapes / sizeof *shapes; n++) measure(&shapes[n], backends);
    for (int n = 0; n < 2; n++) ggml_backend_free(backends[n]);
    return 0;
}
