/* SPDX-License-Identifier: MIT
 * use.c - a small program over heed.h, C99, built once over the library and once over the one-file release: every instruction set, prefill and decode,
 * several types. It prints the chosen rows and a hash of every result's bits, and holds f32 results against plain loops.
 */
#include "heed.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const sets[] = {"scalar", "vector", "avx2", "avx512", "avx512vbmi", "avx512bf16", "amx", "neon"};
static const char *const problems[] = {
    "hq4 hk2 d64 q40 kv40 causal lse",      "hq8 hk2 d80 q1 kv300 causal lse",      "hq2 d33 q37 kv70 wl=20 wr=3 softcap=0.5",
    "hq4 hk1 d64 q30 kv90 causal bf16",     "hq4 hk1 d64 q1 kv200 causal bf16",     "hq4 hk2 d64 q20 kv64 f16 causal",
    "hq4 hk2 d64 q1 kv300 q=f32 kv=q8_0 o=f32",
};
enum { MOST = 1 << 17 };

static uint32_t state;
static float next(void)
{
    state = state * 1664525u + 1013904223u;
    return (float)(int32_t)(state >> 8) / 8388608.0f - 1.0f;
}

/* Of numbers of 2 or 4 bytes, the same in either byte order. */
static uint64_t hash(const unsigned char *p, size_t bytes, size_t size)
{
    uint64_t h = 14695981039346656037u;
    for (size_t n = 0; n < bytes; n += size) {
        uint16_t two;
        uint32_t x;
        if (size == 2) memcpy(&two, p + n, 2), x = two;
        else memcpy(&x, p + n, 4);
        h = (h ^ x) * 1099511628211u;
    }
    return h;
}

/* Numbers of a type from f32: f16 of small normal numbers by cutting bits off, q8_0 by codes of chance. */
static size_t fill(unsigned char *to, heed_type type, size_t n)
{
    const uint16_t scale = 0x2000; /* 2^-7 */
    size_t x;
    for (x = 0; x < n; x++) {
        const float value = next();
        uint32_t bits;
        uint16_t half;
        memcpy(&bits, &value, 4);
        half = (uint16_t)(bits >> 16);
        if (type == HEED_F16) {
            const int32_t e = (int32_t)(bits >> 23 & 255) - 112;
            half = (uint16_t)((half & 0x8000) | (e < 1 ? 0 : (uint32_t)e << 10 | (bits >> 13 & 1023)));
        }
        if (type == HEED_F32) memcpy(to + 4 * x, &value, 4);
        else if (type != HEED_Q8_0) memcpy(to + 2 * x, &half, 2);
        else to[x / 32 * 34 + 2 + x % 32] = (unsigned char)(bits >> 9);
    }
    if (type == HEED_Q8_0)
        for (x = 0; x < n; x += 32) memcpy(to + x / 32 * 34, &scale, 2);
    return type == HEED_F32 ? 4 * n : type == HEED_Q8_0 ? n / 32 * 34 : 2 * n;
}

static heed_tensor tensor(void *data, size_t bytes, int32_t heads, int32_t row)
{
    heed_tensor t;
    memset(&t, 0, sizeof t);
    t.data = data;
    t.bytes = bytes;
    t.head_stride = row;
    t.token_stride = (int64_t)heads * row;
    return t;
}

/* Largest error of o [q, heads, d] in f32 without window: s = q.k / sqrt d, softmax over j <= kv - q + i, in double. */
static double error_of(const heed_desc *d, const heed_lengths *l, const float *q, const float *k, const float *v, const float *o)
{
    static double p[4096];
    double worst = 0;
    const int group = d->q_heads / d->kv_heads, dim = d->head_dim;
    for (int i = 0; i < l->q_len; i++)
        for (int h = 0; h < d->q_heads; h++) {
            const int end = l->kv_len - l->q_len + i + 1;
            double top = -INFINITY, sum = 0;
            for (int j = 0; j < end; j++) {
                p[j] = 0;
                for (int x = 0; x < dim; x++) p[j] += (double)q[(i * d->q_heads + h) * dim + x] * k[(j * d->kv_heads + h / group) * dim + x];
                p[j] /= sqrt(dim);
                if (p[j] > top) top = p[j];
            }
            for (int j = 0; j < end; j++) sum += p[j] = exp(p[j] - top);
            for (int x = 0; x < dim; x++) {
                double want = 0;
                for (int j = 0; j < end; j++) want += p[j] / sum * v[(j * d->kv_heads + h / group) * dim + x];
                worst = fmax(worst, fabs(want - o[(i * d->q_heads + h) * dim + x]));
            }
        }
    return worst;
}

static int fails(const char *what)
{
    printf("%s: %s\n", what, heed_error_message());
    return 1;
}

static int run(heed_context *context, const char *text)
{
    static unsigned char q[4 * MOST], k[4 * MOST], v[4 * MOST], o[4 * MOST];
    static float lse[MOST];
    static char explain[8192];
    heed_desc desc;
    heed_lengths lengths;
    heed_tensors t;
    heed_plan *plan;
    memset(&desc, 0, sizeof desc);
    memset(&lengths, 0, sizeof lengths);
    memset(&t, 0, sizeof t);
    memset(o, 0, sizeof o);
    desc.struct_size = sizeof desc;
    if (heed_desc_parse(text, &desc)) return fails(text);
    if (!desc.kv_heads) desc.kv_heads = desc.q_heads;
    lengths.struct_size = sizeof lengths;
    lengths.batch = 1;
    lengths.q_len = desc.max_q_len;
    lengths.kv_len = desc.max_kv_len;
    const heed_type q_type = desc.q_type ? desc.q_type : HEED_F32, k_type = desc.k_type ? desc.k_type : q_type, o_type = desc.o_type ? desc.o_type : q_type;
    const int dim = desc.head_dim, row = k_type == HEED_Q8_0 ? dim / 32 * 34 : dim;
    const size_t o_bytes = (size_t)desc.max_q_len * (size_t)desc.q_heads * (size_t)dim * (o_type == HEED_F32 ? 4 : 2);
    state = 7;
    t.struct_size = sizeof t;
    t.q = tensor(q, fill(q, q_type, (size_t)(desc.max_q_len * desc.q_heads * dim)), desc.q_heads, dim);
    t.k = tensor(k, fill(k, k_type, (size_t)(desc.max_kv_len * desc.kv_heads * dim)), desc.kv_heads, row);
    t.v = tensor(v, fill(v, k_type, (size_t)(desc.max_kv_len * desc.kv_heads * dim)), desc.kv_heads, row);
    t.o = tensor(o, o_bytes, desc.q_heads, dim);
    t.lse.data = lse;
    t.lse.bytes = sizeof lse;
    t.lse.head_stride = desc.max_q_len;
    t.lse.token_stride = 1;
    if (!(desc.flags & HEED_WRITE_LSE)) memset(&t.lse, 0, sizeof t.lse);
    if (heed_plan_create(context, 0, &desc, NULL, &plan)) return fails(text);
    heed_plan_explain(plan, explain, sizeof explain);
    heed_plan_destroy(plan);
    if (heed_forward(context, 0, &desc, &lengths, &t)) return fails(text);
    printf("  %-44s %016llx", text, (unsigned long long)hash(o, o_bytes, o_type == HEED_F32 ? 4 : 2));
    if (t.lse.data) printf(" %016llx", (unsigned long long)hash((unsigned char *)lse, 4 * (size_t)(desc.q_heads * desc.max_q_len), 4));
    if (q_type == HEED_F32 && k_type == HEED_F32 && !desc.softcap) {
        const double error = error_of(&desc, &lengths, (float *)q, (float *)k, (float *)v, (float *)o);
        if (!(error < 1e-6)) return printf("\n%s: error %g\n", text, error), 1;
        printf(" error below 1e-6");
    }
    printf("\n%s", explain);
    return 0;
}

int main(void)
{
    int failed = 0;
    const float a[3] = {1, 2, 3}, b[3] = {4, 5, 6};
    printf("%u %g %.4f\n", (unsigned)heed_version(), heed_dot(a, b, 3), heed_cosine(a, b, 3));
    for (size_t n = 0; n < sizeof sets / sizeof *sets; n++) {
        heed_context *context;
        heed_context_options options;
        memset(&options, 0, sizeof options);
        options.struct_size = sizeof options;
        options.num_threads = 2;
        options.flags = HEED_NO_OPENCL | HEED_NO_ENVIRONMENT;
        options.cpu_features = sets[n];
        printf("%s\n", sets[n]);
        if (heed_context_create(&options, &context)) return fails(sets[n]);
        for (size_t m = 0; m < sizeof problems / sizeof *problems; m++) failed |= run(context, problems[m]);
        heed_context_destroy(context);
    }
    return failed;
}
