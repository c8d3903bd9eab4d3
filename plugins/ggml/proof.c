/* SPDX-License-Identifier: MIT
 * proof.c - the plug-in against ggml's CPU backend and against the formula in double precision, through ggml's public interface: what it claims,
 * what it refuses, who gets the operation in a scheduler. The last line is `N passed, N failed, N skipped`.
 *   GGML_BACKEND_PATH=libggml-heed.so ggml_proof [absent]     absent: the device must not be there, and ggml works
 */
#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int passed, failed;

static void expect(bool good, const char *what, const char *text)
{
    if (good) {
        passed++;
        return;
    }
    failed++;
    printf("  FAILED %s: %s\n", what, text);
}

/* ---- problems --------------------------------------------------------------------- */

enum mask_kind { NO_MASK, CAUSAL, WINDOW, HOLES, NUMBERS, PER_HEAD, EMPTY_ROWS, DISTANCES, PER_SEQUENCE, FIRST_ROW, LAST_KEY };
enum { TOKEN_MAJOR, HEAD_MAJOR };

struct problem {
    int d, dv, heads, kv_heads, n, s, b; /* dv 0: V is a view of K's first 3/4 */
    enum ggml_type k, v;
    enum mask_kind mask;
    float max_bias, softcap;
    bool sinks;
    int layout;
    int pad; /* cache rows and mask rows behind those in use */
};

static const struct problem problems[] = {
    {64, 64, 8, 2, 5, 77, 1, GGML_TYPE_F16, GGML_TYPE_F16, CAUSAL, 0, 0, false, TOKEN_MAJOR, 0},
    {64, 64, 8, 2, 1, 1000, 1, GGML_TYPE_F16, GGML_TYPE_F16, CAUSAL, 0, 0, false, TOKEN_MAJOR, 24},
    {128, 128, 8, 8, 70, 256, 1, GGML_TYPE_F16, GGML_TYPE_F16, CAUSAL, 0, 0, false, TOKEN_MAJOR, 8},
    {128, 128, 6, 2, 33, 130, 2, GGML_TYPE_F16, GGML_TYPE_F16, CAUSAL, 0, 0, false, HEAD_MAJOR, 3},
    {128, 128, 32, 8, 1, 700, 1, GGML_TYPE_F16, GGML_TYPE_F16, NO_MASK, 0, 0, false, TOKEN_MAJOR, 0},
    {80, 80, 4, 4, 17, 100, 1, GGML_TYPE_F16, GGML_TYPE_F16, NO_MASK, 0, 0, false, TOKEN_MAJOR, 0},
    {40, 40, 4, 2, 40, 90, 1, GGML_TYPE_F32, GGML_TYPE_F32, CAUSAL, 0, 0, false, TOKEN_MAJOR, 5},
    {64, 64, 4, 2, 3, 600, 2, GGML_TYPE_F32, GGML_TYPE_F32, HOLES, 0, 0, false, TOKEN_MAJOR, 5},
    {96, 96, 4, 2, 9, 150, 1, GGML_TYPE_BF16, GGML_TYPE_BF16, CAUSAL, 0, 0, false, TOKEN_MAJOR, 5},
    {96, 96, 4, 2, 70, 150, 1, GGML_TYPE_BF16, GGML_TYPE_BF16, WINDOW, 0, 0, false, TOKEN_MAJOR, 5},
    {64, 64, 4, 2, 4, 90, 1, GGML_TYPE_Q8_0, GGML_TYPE_Q8_0, CAUSAL, 0, 0, false, TOKEN_MAJOR, 5},
    {128, 128, 8, 2, 64, 300, 1, GGML_TYPE_Q8_0, GGML_TYPE_Q8_0, WINDOW, 0, 0, false, TOKEN_MAJOR, 5},
    {128, 128, 8, 2, 1, 2000, 1, GGML_TYPE_Q8_0, GGML_TYPE_Q8_0, WINDOW, 0, 0, false, TOKEN_MAJOR, 48},
    {64, 64, 4, 2, 4, 90, 1, GGML_TYPE_Q4_0, GGML_TYPE_Q4_0, CAUSAL, 0, 0, false, TOKEN_MAJOR, 5},
    {128, 128, 4, 2, 50, 200, 2, GGML_TYPE_Q4_0, GGML_TYPE_Q4_0, PER_SEQUENCE, 0, 0, false, HEAD_MAJOR, 5},
    {64, 64, 4, 2, 10, 90, 1, GGML_TYPE_Q8_0, GGML_TYPE_F16, CAUSAL, 0, 0, false, TOKEN_MAJOR, 5},
    {64, 64, 4, 2, 1, 600, 1, GGML_TYPE_F16, GGML_TYPE_Q4_0, CAUSAL, 0, 0, false, TOKEN_MAJOR, 5},
    {64, 64, 4, 2, 40, 90, 1, GGML_TYPE_BF16, GGML_TYPE_F32, CAUSAL, 0, 0, false, TOKEN_MAJOR, 5},
    {64, 64, 8, 2, 40, 300, 1, GGML_TYPE_F16, GGML_TYPE_F16, HOLES, 0, 0, false, TOKEN_MAJOR, 5},
    {64, 64, 8, 2, 2, 900, 2, GGML_TYPE_F16, GGML_TYPE_F16, PER_SEQUENCE, 0, 0, false, TOKEN_MAJOR, 5},
    {64, 64, 8, 2, 40, 300, 3, GGML_TYPE_F16, GGML_TYPE_F16, PER_SEQUENCE, 0, 0, true, TOKEN_MAJOR, 5},
    {64, 64, 8, 2, 20, 300, 1, GGML_TYPE_F16, GGML_TYPE_F16, NUMBERS, 0, 0, false, TOKEN_MAJOR, 5},
    {64, 64, 8, 2, 1, 300, 2, GGML_TYPE_F16, GGML_TYPE_F16, NUMBERS, 0, 0, false, TOKEN_MAJOR, 5},
    {64, 64, 8, 2, 20, 300, 1, GGML_TYPE_F16, GGML_TYPE_F16, FIRST_ROW, 0, 0, false, TOKEN_MAJOR, 5},
    {64, 64, 8, 2, 3, 301, 1, GGML_TYPE_F16, GGML_TYPE_F16, LAST_KEY, 0, 0, false, TOKEN_MAJOR, 5},
    {64, 64, 8, 2, 20, 300, 2, GGML_TYPE_F16, GGML_TYPE_F16, PER_HEAD, 0, 0, false, TOKEN_MAJOR, 5},
    {64, 64, 8, 2, 20, 300, 1, GGML_TYPE_F16, GGML_TYPE_F16, EMPTY_ROWS, 0, 0, false, TOKEN_MAJOR, 5},
    {64, 64, 8, 2, 3, 300, 1, GGML_TYPE_F16, GGML_TYPE_F16, EMPTY_ROWS, 0, 0, true, TOKEN_MAJOR, 5},
    {64, 64, 8, 2, 20, 300, 1, GGML_TYPE_F16, GGML_TYPE_F16, CAUSAL, 0, 0, true, TOKEN_MAJOR, 5},
    {64, 64, 8, 2, 1, 900, 1, GGML_TYPE_F16, GGML_TYPE_F16, WINDOW, 0, 0, true, TOKEN_MAJOR, 5},
    {256, 256, 8, 4, 20, 300, 1, GGML_TYPE_F16, GGML_TYPE_F16, WINDOW, 0, 50, false, TOKEN_MAJOR, 5},
    {256, 256, 8, 4, 1, 700, 1, GGML_TYPE_F16, GGML_TYPE_F16, CAUSAL, 0, 50, false, TOKEN_MAJOR, 5},
    {128, 128, 8, 4, 20, 300, 1, GGML_TYPE_Q8_0, GGML_TYPE_Q8_0, CAUSAL, 0, 2, true, TOKEN_MAJOR, 5},
    {128, 128, 8, 4, 20, 300, 1, GGML_TYPE_F16, GGML_TYPE_F16, NO_MASK, 0, -3, false, TOKEN_MAJOR, 5},
    {64, 64, 8, 8, 20, 300, 1, GGML_TYPE_F16, GGML_TYPE_F16, DISTANCES, 8, 0, false, TOKEN_MAJOR, 5},
    {64, 64, 12, 4, 1, 900, 1, GGML_TYPE_F16, GGML_TYPE_F16, DISTANCES, 8, 0, false, TOKEN_MAJOR, 5},
    {64, 64, 12, 4, 20, 300, 2, GGML_TYPE_Q8_0, GGML_TYPE_Q8_0, PER_SEQUENCE, 8, 5, true, TOKEN_MAJOR, 5},
    {64, 64, 12, 4, 7, 300, 2, GGML_TYPE_F16, GGML_TYPE_F16, PER_HEAD, 4, 0, true, TOKEN_MAJOR, 5},
    {32, 32, 40, 8, 150, 900, 1, GGML_TYPE_F16, GGML_TYPE_F16, DISTANCES, 8, 0, true, TOKEN_MAJOR, 5},   /* ALiBi in pieces of heads */
    {16, 16, 8, 1, 450, 1200, 1, GGML_TYPE_F16, GGML_TYPE_F16, DISTANCES, 8, 0, false, TOKEN_MAJOR, 5}, /* and of queries */
    {64, 64, 8, 2, 20, 300, 1, GGML_TYPE_F16, GGML_TYPE_F16, CAUSAL, 8, 0, false, TOKEN_MAJOR, 5},      /* slopes of zeros */
    {192, 128, 8, 8, 20, 200, 1, GGML_TYPE_F16, GGML_TYPE_F16, CAUSAL, 0, 0, false, TOKEN_MAJOR, 5},
    {64, 72, 4, 1, 2, 256, 1, GGML_TYPE_F16, GGML_TYPE_F16, CAUSAL, 0, 0, false, TOKEN_MAJOR, 5},
    {65, 67, 4, 4, 75, 113, 1, GGML_TYPE_F16, GGML_TYPE_F16, NUMBERS, 8, 0, true, HEAD_MAJOR, 0},
    {1, 3, 2, 1, 4, 9, 1, GGML_TYPE_F32, GGML_TYPE_F32, CAUSAL, 0, 0, false, TOKEN_MAJOR, 0},
    {64, 0, 16, 1, 3, 200, 1, GGML_TYPE_F16, GGML_TYPE_F16, CAUSAL, 0, 0, false, TOKEN_MAJOR, 5}, /* MLA: V is a part of K */
    {512, 0, 8, 1, 20, 200, 1, GGML_TYPE_F16, GGML_TYPE_F16, CAUSAL, 0, 0, false, TOKEN_MAJOR, 5},
    {64, 64, 4, 2, 9, 1, 1, GGML_TYPE_F16, GGML_TYPE_F16, NO_MASK, 0, 0, false, TOKEN_MAJOR, 0},
};

static void describe(const struct problem *p, char *text, size_t capacity)
{
    static const char *const masks[] = {"no mask",    "causal",    "window",            "holes",            "numbers",     "mask per head",
                                        "empty rows", "distances", "mask per sequence", "numbers in row 0", "a number at the end"};
    snprintf(text, capacity, "D %d Dv %d H %d G %d N %d S %d B %d %s %s %s%s%s%s", p->d, p->dv, p->heads, p->kv_heads, p->n, p->s, p->b,
             ggml_type_name(p->k), ggml_type_name(p->v), masks[p->mask], p->max_bias > 0 ? " alibi" : "", p->softcap != 0 ? " softcap" : "", p->sinks ? " sinks" : "");
}

/* ---- numbers ------------------------------------------------------------------------- */

static uint64_t seed = 1;

static float next(void) /* -1 .. 1 */
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (float)(int32_t)(seed >> 32) / 2147483648.0f;
}

static bool sees(const struct problem *p, int b, int h, int i, int j)
{
    const int own = p->s - p->n + i;
    switch (p->mask) {
    case CAUSAL: case DISTANCES: return j <= own;
    case WINDOW: return j <= own && j > own - 40;
    case HOLES: return j <= own && (j * 7 + i) % 5 != 0;
    case PER_HEAD: return (j + h + b) % 3 != 0;
    case EMPTY_ROWS: return i % 3 != 1 && j <= own;
    case PER_SEQUENCE: return b % 2 ? j > 11 && j <= own - 3 : j <= own;
    default: return true;
    }
}

static float mask_value(const struct problem *p, int b, int h, int i, int j)
{
    if (!sees(p, b, h, i, j)) return -INFINITY;
    if (p->mask == NUMBERS) return (float)((i * 31 + j * 17) % 64) / 16.0f - 2.0f;
    if (p->mask == FIRST_ROW && i == 0) return (float)(j % 5);
    if (p->mask == LAST_KEY && j == p->s - 1) return 2;
    if (p->mask == DISTANCES) return -(float)abs(p->s - p->n + i - j);
    return 0;
}

static void fill(struct ggml_tensor *t, float factor)
{
    const int64_t row = t->ne[0], rows = ggml_nrows(t);
    float *x = malloc((size_t)(row * rows) * sizeof *x);
    for (int64_t n = 0; n < row * rows; n++) x[n] = factor * next();
    ggml_quantize_chunk(t->type, x, t->data, 0, rows, row, NULL);
    free(x);
}

static void read_row(const struct ggml_tensor *t, int i1, int i2, int i3, float *x)
{
    const char *row = (const char *)t->data + i1 * (int64_t)t->nb[1] + i2 * (int64_t)t->nb[2] + i3 * (int64_t)t->nb[3];
    if (t->type == GGML_TYPE_F32)
        memcpy(x, row, (size_t)t->ne[0] * sizeof *x);
    else
        ggml_get_type_traits(t->type)->to_float(row, x, t->ne[0]);
}

/* ---- one problem as a graph -------------------------------------------------------------- */

struct instance {
    struct ggml_context *context;
    ggml_backend_buffer_t buffer;
    struct ggml_tensor *q, *k, *v, *mask, *sinks, *o, *k_cache, *v_cache;
    struct ggml_cgraph *graph;
};

/* [dim, len, heads, b] as a view of a cache with `pad` more tokens. */
static struct ggml_tensor *cache_view(struct ggml_context *context, const struct problem *p, enum ggml_type type, int dim, int len, int heads,
                                      int pad, struct ggml_tensor **cache)
{
    if (p->layout == HEAD_MAJOR) {
        *cache = ggml_new_tensor_4d(context, type, dim, len + pad, heads, p->b);
        return ggml_view_4d(context, *cache, dim, len, heads, p->b, (*cache)->nb[1], (*cache)->nb[2], (*cache)->nb[3], 0);
    }
    *cache = ggml_new_tensor_4d(context, type, dim, heads, len + pad, p->b);
    struct ggml_tensor *view = ggml_view_4d(context, *cache, dim, heads, len, p->b, (*cache)->nb[1], (*cache)->nb[2], (*cache)->nb[3], 0);
    return ggml_permute(context, view, 0, 2, 1, 3);
}

static struct ggml_tensor *declare(struct instance *x, const struct problem *p)
{
    const struct ggml_init_params params = {.mem_size = ggml_tensor_overhead() * 64 + ggml_graph_overhead(), .no_alloc = true};
    struct ggml_context *c = x->context = ggml_init(params);
    struct ggml_tensor *unused;
    const int masks_b = p->mask == PER_SEQUENCE || p->mask == PER_HEAD ? p->b : 1;
    x->q = cache_view(c, p, GGML_TYPE_F32, p->d, p->n, p->heads, 0, &unused);
    x->k = cache_view(c, p, p->k, p->d, p->s, p->kv_heads, p->pad, &x->k_cache);
    if (p->dv) {
        x->v = cache_view(c, p, p->v, p->dv, p->s, p->kv_heads, p->pad, &x->v_cache);
    } else {
        x->v = ggml_view_4d(c, x->k, p->d * 3 / 4, p->s, p->kv_heads, p->b, x->k->nb[1], x->k->nb[2], x->k->nb[3], 0);
        x->v_cache = NULL;
    }
    x->mask = p->mask == NO_MASK ? NULL : ggml_new_tensor_4d(c, GGML_TYPE_F16, p->s, p->n + p->pad, p->mask == PER_HEAD ? p->heads : 1, masks_b);
    x->sinks = p->sinks ? ggml_new_tensor_1d(c, GGML_TYPE_F32, p->heads) : NULL;
    x->o = ggml_flash_attn_ext(c, x->q, x->k, x->v, x->mask, 1.0f / sqrtf((float)p->d), p->max_bias, p->softcap);
    ggml_flash_attn_ext_add_sinks(x->o, x->sinks);
    return x->o;
}

static void make(struct instance *x, const struct problem *p, ggml_backend_t cpu)
{
    declare(x, p);
    x->graph = ggml_new_graph(x->context);
    ggml_build_forward_expand(x->graph, x->o);
    x->buffer = ggml_backend_alloc_ctx_tensors(x->context, cpu);
    fill(x->q->view_src ? x->q->view_src : x->q, 2.0f);
    fill(x->k_cache, 2.0f);
    if (x->v_cache) fill(x->v_cache, 1.0f);
    if (x->sinks) fill(x->sinks, 4.0f);
    if (!x->mask) return;
    for (int b = 0; b < x->mask->ne[3]; b++)
        for (int h = 0; h < x->mask->ne[2]; h++)
            for (int i = 0; i < x->mask->ne[1]; i++) {
                ggml_fp16_t *row = (ggml_fp16_t *)((char *)x->mask->data + i * (int64_t)x->mask->nb[1] + h * (int64_t)x->mask->nb[2] +
                                                   b * (int64_t)x->mask->nb[3]);
                for (int j = 0; j < p->s; j++) row[j] = ggml_fp32_to_fp16(i < p->n ? mask_value(p, b, h, i, j) : -INFINITY);
            }
}

static void drop(struct instance *x)
{
    ggml_backend_buffer_free(x->buffer);
    ggml_free(x->context);
}

/* The formula, in double: softmax(softcap(scale q.k) + slope mask) v, with the sink in the sum. */
static void formula(const struct instance *x, const struct problem *p, double *o)
{
    const int dv = (int)x->v->ne[0], group = p->heads / p->kv_heads, whole = 1 << (int)floor(log2(p->heads));
    float *q = malloc((size_t)p->d * sizeof *q), *k = malloc((size_t)p->d * sizeof *k), *v = malloc((size_t)dv * sizeof *v);
    double *s = malloc((size_t)p->s * sizeof *s);
    for (int b = 0; b < p->b; b++)
        for (int h = 0; h < p->heads; h++)
            for (int i = 0; i < p->n; i++) {
                const double slope = p->max_bias <= 0  ? 1
                                     : h < whole ? pow(2, -p->max_bias / whole * (h + 1))
                                                 : pow(2, -p->max_bias / 2 / whole * (2 * (h - whole) + 1));
                double m = x->sinks ? ((const float *)x->sinks->data)[h] : -INFINITY, l = 0;
                read_row(x->q, i, h, b, q);
                for (int j = 0; j < p->s; j++) {
                    const int mask_b = x->mask && x->mask->ne[3] > 1 ? b : 0;
                    s[j] = -INFINITY;
                    if (x->mask && !sees(p, mask_b, h, i, j)) continue;
                    read_row(x->k, j, h / group, b, k);
                    double dot = 0;
                    for (int d = 0; d < p->d; d++) dot += (double)q[d] * (double)k[d];
                    dot *= (double)(1.0f / sqrtf((float)p->d));
                    if (p->softcap != 0) dot = p->softcap * tanh(dot / p->softcap);
                    s[j] = dot + (x->mask ? slope * mask_value(p, mask_b, h, i, j) : 0);
                    if (s[j] > m) m = s[j];
                }
                double *to = o + (((int64_t)b * p->n + i) * p->heads + h) * dv;
                for (int d = 0; d < dv; d++) to[d] = 0;
                if (x->sinks) l = exp(((const float *)x->sinks->data)[h] - m);
                for (int j = 0; j < p->s; j++) {
                    if (s[j] == -INFINITY) continue;
                    const double w = exp(s[j] - m);
                    l += w;
                    read_row(x->v, j, h / group, b, v);
                    for (int d = 0; d < dv; d++) to[d] += w * v[d];
                }
                for (int d = 0; d < dv && l > 0; d++) to[d] /= l;
            }
    free(q), free(k), free(v), free(s);
}

static double worst(const double *right, const float *got, size_t count)
{
    double most = 0;
    for (size_t n = 0; n < count; n++) {
        const double error = fabs(right[n] - (double)got[n]);
        if (!(error <= most)) most = error;
    }
    return most;
}

/* NaN in every key that no query sees, and behind the cache's end. */
static void poison(struct instance *x, const struct problem *p)
{
    struct ggml_tensor *const both[] = {x->k, x->v};
    for (int n = 0; n < 2; n++)
        for (int b = 0; b < p->b; b++)
            for (int j = 0; j < p->s; j++) {
                bool hidden = x->mask && x->mask->ne[2] == 1;
                for (int i = 0; i < p->n && hidden; i++) hidden = !sees(p, x->mask->ne[3] > 1 ? b : 0, 0, i, j);
                if (!hidden || (both[n]->type != GGML_TYPE_F32 && both[n]->type != GGML_TYPE_F16 && both[n]->type != GGML_TYPE_BF16)) continue;
                for (int g = 0; g < p->kv_heads; g++)
                    memset((char *)both[n]->data + j * (int64_t)both[n]->nb[1] + g * (int64_t)both[n]->nb[2] + b * (int64_t)both[n]->nb[3], 0xff,
                           (size_t)both[n]->ne[0] * ggml_type_size(both[n]->type));
            }
}

/* ---- what is asked -------------------------------------------------------------------------- */

static ggml_backend_set_n_threads_t threads_of(ggml_backend_t backend)
{
    ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(ggml_backend_get_device(backend));
    void *found = ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads");
    ggml_backend_set_n_threads_t function;
    memcpy(&function, &found, sizeof function); /* ISO C has no cast from an object to a function */
    return function;
}

static bool compute(ggml_backend_t backend, int threads, const struct instance *x, float *to)
{
    threads_of(backend)(backend, threads);
    memset(x->o->data, 0xff, ggml_nbytes(x->o));
    if (ggml_backend_graph_compute(backend, x->graph) != GGML_STATUS_SUCCESS) return false;
    memcpy(to, x->o->data, ggml_nbytes(x->o));
    return true;
}

static void check_problem(const struct problem *p, ggml_backend_t heed, ggml_backend_t cpu)
{
    struct instance x;
    char name[256], text[256];
    describe(p, name, sizeof name);
    make(&x, p, cpu);
    const size_t count = (size_t)ggml_nelements(x.o), bytes = count * sizeof(float);
    double *right = malloc(count * sizeof *right);
    float *ours = malloc(bytes), *again = malloc(bytes), *theirs = malloc(bytes);
    expect(ggml_backend_supports_op(heed, x.o), name, "not claimed");
    formula(&x, p, right);
    expect(compute(heed, 1, &x, ours), name, "the plug-in failed");
    expect(compute(heed, 2, &x, again) && !memcmp(ours, again, bytes), name, "other bits with 2 threads than with 1");
    expect(compute(cpu, 2, &x, theirs), name, "ggml failed");
    const double error = worst(right, ours, count), theirs_error = worst(right, theirs, count);
    /* f32 sums of values up to 1 with weights that sum to 1; a logit of size L moves a weight by L 2^-24. ggml's own sums are f16. */
    snprintf(text, sizeof text, "error %.1e, ggml's %.1e", error, theirs_error);
    expect(error < 4e-6, name, text);
    expect(theirs_error < 0.1, name, text);
    printf("  %-82s error %.1e, ggml's own %.1e\n", name, error, theirs_error);
    poison(&x, p);
    expect(compute(heed, 2, &x, again) && !memcmp(ours, again, bytes), name, "other bits with NaN in hidden keys");
    free(right), free(ours), free(again), free(theirs);
    drop(&x);
}

/* Each line changes one thing of a node that is claimed. */
static void check_refusals(ggml_backend_t heed)
{
    const struct problem p = {64, 64, 8, 2, 5, 64, 2, GGML_TYPE_F16, GGML_TYPE_F16, PER_SEQUENCE, 8, 5, true, TOKEN_MAJOR, 5};
    struct instance x;
    struct ggml_tensor *o = declare(&x, &p), *mask = x.mask;
    const float zero = 0, infinite = INFINITY, half = 0.5f, huge = 1e6f;
#define REFUSED(change, back, what)                                                  \
    do {                                                                             \
        expect(ggml_backend_supports_op(heed, o), "refusals", "not claimed before"); \
        change;                                                                      \
        expect(!ggml_backend_supports_op(heed, o), "refusals", "claimed: " what);    \
        back;                                                                        \
    } while (0)
    REFUSED(x.k->type = GGML_TYPE_I32, x.k->type = GGML_TYPE_F16, "k of i32");
    REFUSED(x.q->nb[0] = 8, x.q->nb[0] = 4, "elements of q apart");
    REFUSED(x.v->nb[1] += 1, x.v->nb[1] -= 1, "rows of v at odd bytes");
    REFUSED(x.q->type = GGML_TYPE_F16, x.q->type = GGML_TYPE_F32, "q of f16");
    REFUSED(mask->type = GGML_TYPE_F32, mask->type = GGML_TYPE_F16, "a mask of f32");
    REFUSED(mask->ne[2] = 4, mask->ne[2] = 1, "a mask of 4 of 8 heads");
    REFUSED(mask->ne[0] = 63, mask->ne[0] = 64, "a mask of fewer keys");
    REFUSED(o->src[3] = NULL, o->src[3] = mask, "ALiBi without a mask");
    REFUSED(o->src[6] = mask, o->src[6] = NULL, "a seventh source");
    REFUSED(o->op_params[7] = 1, o->op_params[7] = 0, "an eighth parameter");
    REFUSED(memcpy(&o->op_params[0], &zero, 4), memcpy(&o->op_params[0], &half, 4), "a scale of 0");
    REFUSED(memcpy(&o->op_params[0], &infinite, 4), memcpy(&o->op_params[0], &half, 4), "a scale of infinity");
    REFUSED(memcpy(&o->op_params[1], &huge, 4), memcpy(&o->op_params[1], &half, 4), "ALiBi with slopes of 0");
    REFUSED(x.q->ne[0] = x.k->ne[0] = 1025, x.q->ne[0] = x.k->ne[0] = 64, "1025 dimensions");
    REFUSED(o->op = GGML_OP_FLASH_ATTN_BACK, o->op = GGML_OP_FLASH_ATTN_EXT, "the way back");
    REFUSED(o->op = GGML_OP_MUL_MAT, o->op = GGML_OP_FLASH_ATTN_EXT, "a matrix product");
#undef REFUSED
    static const enum ggml_type others[] = {GGML_TYPE_Q5_0, GGML_TYPE_Q5_1, GGML_TYPE_Q4_1, GGML_TYPE_IQ4_NL};
    for (size_t n = 0; n < sizeof others / sizeof *others; n++) {
        struct problem other = p;
        struct instance y;
        other.k = others[n];
        expect(!ggml_backend_supports_op(heed, declare(&y, &other)), "refusals", ggml_type_name(others[n]));
        ggml_free(y.context);
    }
    ggml_free(x.context);
}

/* out = 3 attention(w in), as llama.cpp does it: by a scheduler with [HEED, CPU], or with the CPU alone. Attention goes to us, the rest to ggml. */
enum { SCHED_D = 64, SCHED_H = 8, SCHED_N = 6, SCHED_COUNT = SCHED_D * SCHED_H * SCHED_N };

static void schedule(ggml_backend_t *backends, int count, struct ggml_tensor *w, struct ggml_tensor *k, struct ggml_tensor *v, const float *x,
                     float *result)
{
    const struct ggml_init_params params = {.mem_size = ggml_tensor_overhead() * 64 + ggml_graph_overhead(), .no_alloc = true};
    struct ggml_context *c = ggml_init(params);
    struct ggml_tensor *in = ggml_new_tensor_2d(c, GGML_TYPE_F32, SCHED_D * SCHED_H, SCHED_N);
    ggml_set_input(in);
    struct ggml_tensor *q = ggml_permute(c, ggml_reshape_3d(c, ggml_mul_mat(c, w, in), SCHED_D, SCHED_H, SCHED_N), 0, 2, 1, 3);
    struct ggml_tensor *o = ggml_flash_attn_ext(c, q, ggml_permute(c, k, 0, 2, 1, 3), ggml_permute(c, v, 0, 2, 1, 3), NULL, 0.125f, 0, 0);
    struct ggml_tensor *out = ggml_scale(c, ggml_reshape_2d(c, o, SCHED_D * SCHED_H, SCHED_N), 3.0f);
    ggml_set_output(out);
    struct ggml_cgraph *graph = ggml_new_graph(c);
    ggml_build_forward_expand(graph, out);
    ggml_backend_sched_t sched = ggml_backend_sched_new(backends, NULL, count, 64, false, true);
    expect(ggml_backend_sched_alloc_graph(sched, graph), "scheduler", "no graph");
    expect(ggml_backend_sched_get_tensor_backend(sched, o) == backends[0], "scheduler", "attention is not ours");
    expect(ggml_backend_sched_get_tensor_backend(sched, out) == backends[count - 1], "scheduler", "the scaling is not ggml's");
    ggml_backend_tensor_set(in, x, 0, SCHED_COUNT * sizeof *x);
    expect(ggml_backend_sched_graph_compute(sched, graph) == GGML_STATUS_SUCCESS, "scheduler", "it failed");
    ggml_backend_tensor_get(out, result, 0, SCHED_COUNT * sizeof *result);
    ggml_backend_sched_free(sched);
    ggml_free(c);
}

static void check_scheduler(ggml_backend_t heed, ggml_backend_t cpu)
{
    static float x[SCHED_COUNT], result[2][SCHED_COUNT];
    const struct ggml_init_params params = {.mem_size = ggml_tensor_overhead() * 8, .no_alloc = true};
    struct ggml_context *c = ggml_init(params);
    struct ggml_tensor *w = ggml_new_tensor_2d(c, GGML_TYPE_F32, SCHED_D * SCHED_H, SCHED_D * SCHED_H);
    struct ggml_tensor *k = ggml_new_tensor_3d(c, GGML_TYPE_F16, SCHED_D, 2, 40), *v = ggml_new_tensor_3d(c, GGML_TYPE_F16, SCHED_D, 2, 40);
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(c, cpu);
    ggml_backend_t backends[] = {heed, cpu};
    fill(w, 0.2f), fill(k, 1), fill(v, 1);
    for (int n = 0; n < SCHED_COUNT; n++) x[n] = next();
    schedule(backends, 2, w, k, v, x, result[0]);
    schedule(backends + 1, 1, w, k, v, x, result[1]);
    float most = 0;
    for (int n = 0; n < SCHED_COUNT; n++) most = fmaxf(most, fabsf(result[0][n] - result[1][n]));
    expect(most < 0.02f && most > 0, "scheduler", "other results, or the same bits (then attention was not ours)");
    ggml_backend_buffer_free(buffer);
    ggml_free(c);
}

static int finish(void)
{
    printf("%d passed, %d failed, 0 skipped\n", passed, failed);
    return failed ? 1 : 0;
}

int main(int argc, char **argv)
{
    (void)argv;
    ggml_backend_load_all();
    ggml_backend_dev_t device = ggml_backend_dev_by_name("HEED");
    ggml_backend_t heed, cpu = ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, NULL);
    if (argc > 1) {
        expect(!device && cpu, "absent", "the device is there, or the CPU is not");
        return finish();
    }
    expect(device && ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_ACCEL, "start",
           "no device HEED of type ACCEL: is GGML_BACKEND_PATH set?");
    if (!device) return finish();
    heed = ggml_backend_dev_init(device, NULL);
    for (size_t n = 0; n < sizeof problems / sizeof *problems; n++) check_problem(&problems[n], heed, cpu);
    check_refusals(heed);
    check_scheduler(heed, cpu);
    ggml_backend_free(heed);
    ggml_backend_free(cpu);
    return finish();
}
