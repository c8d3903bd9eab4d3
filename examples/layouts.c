/* SPDX-License-Identifier: MIT
 * layouts.c - how the arrays of other engines are given to heed in place: strides, no copies. Each recipe (doc/layouts.md quotes them) has the engine's own
 * arrays, filled by the engine's own index order, and its result is held against plain loops.
 * Build: cc layouts.c -lheed -lm
 */
#include <heed.h>
#include <math.h>
#include <stdio.h>

enum { B = 2, S = 3, T = 7, H = 4, G = 2, D = 8 };      /* sequences, queries, keys, heads, KV heads, dimensions */
enum { LAYERS = 3, LAYER = 1, CAPACITY = 10, PAGE = 4 }; /* of caches */

static heed_context *context;
static int failed;

/* Any numbers: query (b, i, h), key and value (b, j, g). */
static float Q(int b, int i, int h, int d) { return sinf((float)(b * 97 + i * 31 + h * 7 + d)); }
static float K(int b, int j, int g, int d) { return cosf((float)(b * 89 + j * 23 + g * 5 + d)); }
static float V(int b, int j, int g, int d) { return sinf((float)(b * 71 + j * 13 + g * 3 + d * 2)); }

#define EACH_QUERY for (int b = 0; b < B; b++) for (int i = 0; i < S; i++) for (int h = 0; h < H; h++) for (int d = 0; d < D; d++)
#define EACH_KEY for (int b = 0; b < B; b++) for (int j = 0; j < T; j++) for (int g = 0; g < G; g++) for (int d = 0; d < D; d++)

/* o of query (b, i, h), causal, the last query at the last key; `alone`: one query, which stands there. */
static double want(int b, int i, int h, int d)
{
    double top = -INFINITY, sum = 0, o = 0, s[T];
    const int g = h / (H / G), keys = T - S + i + 1;
    for (int j = 0; j < keys; j++) {
        s[j] = 0;
        for (int x = 0; x < D; x++) s[j] += (double)Q(b, i, h, x) * K(b, j, g, x);
        s[j] /= sqrt(D);
        if (s[j] > top) top = s[j];
    }
    for (int j = 0; j < keys; j++) sum += exp(s[j] - top), o += exp(s[j] - top) * V(b, j, g, d);
    return o / sum;
}

static void run(const char *engine, heed_desc desc, heed_lengths lengths, heed_tensors tensors)
{
    desc.struct_size = sizeof desc, lengths.struct_size = sizeof lengths, tensors.struct_size = sizeof tensors;
    desc.q_heads = H, desc.kv_heads = G, desc.head_dim = D;
    if (heed_forward(context, 0, &desc, &lengths, &tensors) != HEED_OK) {
        printf("%-22s %s\n", engine, heed_error_message());
        failed = 1;
    }
}

static void report(const char *engine, double worst)
{
    printf("%-22s worst error %.1e\n", engine, worst);
    if (!(worst < 1e-6)) failed = 1;
}

static const heed_lengths all = {.batch = B, .q_len = S, .kv_len = T};

/* PyTorch, OpenVINO, tinygrad, LiteRT, CTranslate2: [batch, heads, len, dim] */
static void torch(void)
{
    static float q[B][H][S][D], k[B][G][T][D], v[B][G][T][D], o[B][H][S][D];
    const heed_tensors t = {
        .q = {q, sizeof q, .batch_stride = H * S * D, .head_stride = S * D, .token_stride = D},
        .k = {k, sizeof k, .batch_stride = G * T * D, .head_stride = T * D, .token_stride = D},
        .v = {v, sizeof v, .batch_stride = G * T * D, .head_stride = T * D, .token_stride = D},
        .o = {o, sizeof o, .batch_stride = H * S * D, .head_stride = S * D, .token_stride = D}};
    double worst = 0;
    EACH_QUERY q[b][h][i][d] = Q(b, i, h, d);
    EACH_KEY k[b][g][j][d] = K(b, j, g, d), v[b][g][j][d] = V(b, j, g, d);
    run("torch", (heed_desc){.flags = HEED_CAUSAL}, all, t);
    EACH_QUERY worst = fmax(worst, fabs(o[b][h][i][d] - want(b, i, h, d)));
    report("torch", worst);
}

/* Candle: [batch, len, heads, dim] in, [batch, heads, len, dim] out */
static void candle(void)
{
    static float q[B][S][H][D], k[B][T][G][D], v[B][T][G][D], o[B][H][S][D];
    const heed_tensors t = {
        .q = {q, sizeof q, .batch_stride = S * H * D, .head_stride = D, .token_stride = H * D},
        .k = {k, sizeof k, .batch_stride = T * G * D, .head_stride = D, .token_stride = G * D},
        .v = {v, sizeof v, .batch_stride = T * G * D, .head_stride = D, .token_stride = G * D},
        .o = {o, sizeof o, .batch_stride = H * S * D, .head_stride = S * D, .token_stride = D}};
    double worst = 0;
    EACH_QUERY q[b][i][h][d] = Q(b, i, h, d);
    EACH_KEY k[b][j][g][d] = K(b, j, g, d), v[b][j][g][d] = V(b, j, g, d);
    run("candle", (heed_desc){.flags = HEED_CAUSAL}, all, t);
    EACH_QUERY worst = fmax(worst, fabs(o[b][h][i][d] - want(b, i, h, d)));
    report("candle", worst);
}

/* ggml: ne[] from the innermost dimension, nb[] in bytes. q, k, v are [dim, len, heads, batch], the result is [dim, heads, len, batch]. */
struct ggml_like { int64_t ne[4]; size_t nb[4]; void *data; };

/* unit: bytes of an element; 1 for block types (Q8_0, Q4_0), whose strides heed takes in bytes. */
static heed_tensor from_ggml(const struct ggml_like *t, size_t bytes, int64_t unit)
{
    return (heed_tensor){t->data, bytes, .token_stride = (int64_t)t->nb[1] / unit, .head_stride = (int64_t)t->nb[2] / unit,
                         .batch_stride = (int64_t)t->nb[3] / unit};
}
static heed_tensor result_from_ggml(const struct ggml_like *t, size_t bytes)
{
    return (heed_tensor){t->data, bytes, .head_stride = (int64_t)t->nb[1] / 4, .token_stride = (int64_t)t->nb[2] / 4, .batch_stride = (int64_t)t->nb[3] / 4};
}
/* The mask [kv, len, 1 or heads, 1 or batch] in f16 is a bias; what it hides is -infinity, so no flag says causal. */
static heed_tensor mask_from_ggml(const struct ggml_like *t, size_t bytes)
{
    return (heed_tensor){t->data, bytes, .token_stride = (int64_t)t->nb[1] / 2, .head_stride = t->ne[2] > 1 ? (int64_t)t->nb[2] / 2 : 0,
                         .batch_stride = t->ne[3] > 1 ? (int64_t)t->nb[3] / 2 : 0};
}

static void llama_cpp(void)
{
    static float q[B][S][H][D], k[B][CAPACITY][G][D], v[B][CAPACITY][G][D], o[B][S][H][D]; /* llama.cpp permutes views of token-major memory */
    static uint16_t mask[S][T];
    const struct ggml_like gq = {{D, S, H, B}, {4, sizeof q[0][0], sizeof q[0][0][0], sizeof q[0]}, q};
    const struct ggml_like gk = {{D, T, G, B}, {4, sizeof k[0][0], sizeof k[0][0][0], sizeof k[0]}, k};
    const struct ggml_like gv = {{D, T, G, B}, {4, sizeof v[0][0], sizeof v[0][0][0], sizeof v[0]}, v};
    const struct ggml_like go = {{D, H, S, B}, {4, sizeof o[0][0][0], sizeof o[0][0], sizeof o[0]}, o};
    const struct ggml_like gm = {{T, S, 1, 1}, {2, sizeof mask[0], sizeof mask, sizeof mask}, mask};
    const heed_tensors t = {.q = from_ggml(&gq, sizeof q, 4), .k = from_ggml(&gk, sizeof k, 4), .v = from_ggml(&gv, sizeof v, 4),
                            .o = result_from_ggml(&go, sizeof o), .bias = mask_from_ggml(&gm, sizeof mask)};
    double worst = 0;
    EACH_QUERY q[b][i][h][d] = Q(b, i, h, d);
    EACH_KEY k[b][j][g][d] = K(b, j, g, d), v[b][j][g][d] = V(b, j, g, d);
    for (int i = 0; i < S; i++) for (int j = 0; j < T; j++) mask[i][j] = j <= T - S + i ? 0 : 0xfc00;
    run("llama.cpp, ggml", (heed_desc){.flags = HEED_BIAS, .bias_type = HEED_F16}, all, t);
    EACH_QUERY worst = fmax(worst, fabs(o[b][i][h][d] - want(b, i, h, d)));
    report("llama.cpp, ggml", worst);
}

/* whisper.cpp: one flat cache [layer][n_ctx][n_state], n_state = heads * dim; one sequence */
static void whisper_cpp(void)
{
    enum { N_STATE = G * D };
    static float q[S][H][D], k[LAYERS * CAPACITY * N_STATE], v[LAYERS * CAPACITY * N_STATE], o[S][H][D];
    const heed_tensors t = {
        .q = {q, sizeof q, .head_stride = D, .token_stride = H * D},
        .k = {k, sizeof k, .offset = LAYER * CAPACITY * N_STATE, .head_stride = D, .token_stride = N_STATE},
        .v = {v, sizeof v, .offset = LAYER * CAPACITY * N_STATE, .head_stride = D, .token_stride = N_STATE},
        .o = {o, sizeof o, .head_stride = D, .token_stride = H * D}};
    double worst = 0;
    EACH_QUERY if (b == 1) q[i][h][d] = Q(b, i, h, d);
    EACH_KEY if (b == 1) k[(LAYER * CAPACITY + j) * N_STATE + g * D + d] = K(b, j, g, d), v[(LAYER * CAPACITY + j) * N_STATE + g * D + d] = V(b, j, g, d);
    run("whisper.cpp", (heed_desc){.flags = HEED_CAUSAL}, (heed_lengths){.batch = 1, .q_len = S, .kv_len = T}, t);
    EACH_QUERY if (b == 1) worst = fmax(worst, fabs(o[i][h][d] - want(b, i, h, d)));
    report("whisper.cpp", worst);
}

/* llama2.c: one token: q[heads * dim], key_cache[layer][seq_len][kv heads * dim] */
static void llama2_c(void)
{
    static float q[H * D], key_cache[LAYERS][CAPACITY][G * D], value_cache[LAYERS][CAPACITY][G * D], xb[H * D];
    const int pos = T - 1;
    const heed_tensors t = {
        .q = {q, sizeof q, .head_stride = D},
        .k = {key_cache[LAYER], sizeof key_cache[LAYER], .head_stride = D, .token_stride = G * D},
        .v = {value_cache[LAYER], sizeof value_cache[LAYER], .head_stride = D, .token_stride = G * D},
        .o = {xb, sizeof xb, .head_stride = D}};
    const heed_lengths step = {.batch = 1, .q_len = 1, .kv_len = pos + 1};
    double worst = 0;
    EACH_QUERY if (b == 0 && i == S - 1) q[h * D + d] = Q(b, i, h, d);
    EACH_KEY if (b == 0) key_cache[LAYER][j][g * D + d] = K(b, j, g, d), value_cache[LAYER][j][g * D + d] = V(b, j, g, d);
    run("llama2.c", (heed_desc){0}, step, t);
    EACH_QUERY if (b == 0 && i == S - 1) worst = fmax(worst, fabs(xb[h * D + d] - want(b, i, h, d)));
    report("llama2.c", worst);
}

/* llm.c: q, k and v side by side in (B, T, 3C), C = heads * dim; it also keeps the weights att (B, NH, T, T) */
static void llm_c(void)
{
    enum { C = H * D };
    static float inp[B][T][3 * C], att[B][H][T][T], out[B][T][C];
    const heed_tensors t = {
        .q = {inp, sizeof inp, .offset = 0, .batch_stride = T * 3 * C, .head_stride = D, .token_stride = 3 * C},
        .k = {inp, sizeof inp, .offset = C, .batch_stride = T * 3 * C, .head_stride = D, .token_stride = 3 * C},
        .v = {inp, sizeof inp, .offset = 2 * C, .batch_stride = T * 3 * C, .head_stride = D, .token_stride = 3 * C},
        .o = {out, sizeof out, .batch_stride = T * C, .head_stride = D, .token_stride = C},
        .scores = {att, sizeof att, .batch_stride = H * T * T, .head_stride = T * T, .token_stride = T}};
    heed_desc desc = {.struct_size = sizeof desc, .q_heads = H, .head_dim = D, .flags = HEED_CAUSAL | HEED_WRITE_SCORES, .scores_stage = 3};
    heed_lengths lengths = {.struct_size = sizeof lengths, .batch = B, .q_len = T, .kv_len = T};
    double worst = 0;
    heed_tensors given = t;
    given.struct_size = sizeof given;
    for (int b = 0; b < B; b++) /* KV heads twice: llm.c has no groups; the last S queries are ours */
        for (int j = 0; j < T; j++)
            for (int h = 0; h < H; h++)
                for (int d = 0; d < D; d++) {
                    inp[b][j][h * D + d] = Q(b, j - (T - S), h, d);
                    inp[b][j][C + h * D + d] = K(b, j, h / (H / G), d);
                    inp[b][j][2 * C + h * D + d] = V(b, j, h / (H / G), d);
                }
    if (heed_forward(context, 0, &desc, &lengths, &given) != HEED_OK) failed = 1, puts(heed_error_message());
    EACH_QUERY worst = fmax(worst, fabs(out[b][T - S + i][h * D + d] - want(b, i, h, d)));
    for (int h = 0; h < H; h++) { /* a row of weights sums to 1 */
        double sum = 0;
        for (int j = 0; j < T; j++) sum += att[1][h][T - 1][j];
        worst = fmax(worst, fabs(sum - 1));
    }
    report("llm.c", worst);
}

/* SnapKV, H2O: how much weight each key got from the last two queries of a prompt, to keep the heaviest */
static void snapkv(void)
{
    static float q[S][H][D], k[T][G][D], v[T][G][D], o[S][H][D], weight[H][T];
    const heed_tensors t = {
        .q = {q, sizeof q, .head_stride = D, .token_stride = H * D},
        .k = {k, sizeof k, .head_stride = D, .token_stride = G * D},
        .v = {v, sizeof v, .head_stride = D, .token_stride = G * D},
        .o = {o, sizeof o, .head_stride = D, .token_stride = H * D},
        .key_sums = {weight, sizeof weight, .head_stride = T}};
    const heed_lengths lengths = {.batch = 1, .q_len = S, .kv_len = T, .score_rows = 2};
    double worst = 0;
    EACH_QUERY if (b == 0) q[i][h][d] = Q(b, i, h, d);
    EACH_KEY if (b == 0) k[j][g][d] = K(b, j, g, d), v[j][g][d] = V(b, j, g, d);
    run("snapkv", (heed_desc){.flags = HEED_CAUSAL | HEED_WRITE_KEY_SUMS}, lengths, t);
    EACH_QUERY if (b == 0) worst = fmax(worst, fabs(o[i][h][d] - want(b, i, h, d)));
    for (int h = 0; h < H; h++) { /* two queries, each with a weight of 1 to give away */
        double sum = 0;
        for (int j = 0; j < T; j++) sum += weight[h][j];
        worst = fmax(worst, fabs(sum - 2));
    }
    report("snapkv", worst);
}

/* ONNX Runtime, GroupQueryAttention: q [B, S, heads * dim]; past and present share one head-major buffer [B, kv heads, capacity, dim]; seqlens_k = length - 1 */
static void onnxruntime(void)
{
    static float q[B][S][H * D], k[B][G][CAPACITY][D], v[B][G][CAPACITY][D], o[B][S][H * D];
    static const int32_t seqlens_k[B] = {T - 1, T - 1};
    int32_t kv_lens[B];
    for (int b = 0; b < B; b++) kv_lens[b] = seqlens_k[b] + 1;
    const heed_tensors t = {
        .q = {q, sizeof q, .batch_stride = S * H * D, .head_stride = D, .token_stride = H * D},
        .k = {k, sizeof k, .batch_stride = G * CAPACITY * D, .head_stride = CAPACITY * D, .token_stride = D},
        .v = {v, sizeof v, .batch_stride = G * CAPACITY * D, .head_stride = CAPACITY * D, .token_stride = D},
        .o = {o, sizeof o, .batch_stride = S * H * D, .head_stride = D, .token_stride = H * D}};
    const heed_lengths lengths = {.batch = B, .q_len = S, .kv_len = CAPACITY, .kv_lens = kv_lens};
    double worst = 0;
    EACH_QUERY q[b][i][h * D + d] = Q(b, i, h, d);
    EACH_KEY k[b][g][j][d] = K(b, j, g, d), v[b][g][j][d] = V(b, j, g, d);
    run("onnxruntime", (heed_desc){.flags = HEED_CAUSAL}, lengths, t);
    EACH_QUERY worst = fmax(worst, fabs(o[b][i][h * D + d] - want(b, i, h, d)));
    report("onnxruntime", worst);
}

/* ExecuTorch sdpa_with_kv_cache, stable-diffusion.cpp ([N, L, H * D]): token-major [B, capacity, kv heads, dim]; the new queries begin at start_pos */
static void executorch(void)
{
    static float q[B][S][H][D], k[B][CAPACITY][G][D], v[B][CAPACITY][G][D], o[B][S][H][D];
    const int start_pos = T - S;
    const int32_t position[B] = {start_pos, start_pos};
    const heed_tensors t = {
        .q = {q, sizeof q, .batch_stride = S * H * D, .head_stride = D, .token_stride = H * D},
        .k = {k, sizeof k, .batch_stride = CAPACITY * G * D, .head_stride = D, .token_stride = G * D},
        .v = {v, sizeof v, .batch_stride = CAPACITY * G * D, .head_stride = D, .token_stride = G * D},
        .o = {o, sizeof o, .batch_stride = S * H * D, .head_stride = D, .token_stride = H * D}};
    const heed_lengths lengths = {.batch = B, .q_len = S, .kv_len = start_pos + S, .q_position = position};
    double worst = 0;
    EACH_QUERY q[b][i][h][d] = Q(b, i, h, d);
    EACH_KEY k[b][j][g][d] = K(b, j, g, d), v[b][j][g][d] = V(b, j, g, d);
    run("executorch", (heed_desc){.flags = HEED_CAUSAL}, lengths, t);
    EACH_QUERY worst = fmax(worst, fabs(o[b][i][h][d] - want(b, i, h, d)));
    report("executorch", worst);
}

/* ncnn: [heads, len, dim], no batch */
static void ncnn(void)
{
    static float q[H][S][D], k[G][T][D], v[G][T][D], o[H][S][D];
    const heed_tensors t = {
        .q = {q, sizeof q, .head_stride = S * D, .token_stride = D}, .k = {k, sizeof k, .head_stride = T * D, .token_stride = D},
        .v = {v, sizeof v, .head_stride = T * D, .token_stride = D}, .o = {o, sizeof o, .head_stride = S * D, .token_stride = D}};
    double worst = 0;
    EACH_QUERY if (b == 1) q[h][i][d] = Q(b, i, h, d);
    EACH_KEY if (b == 1) k[g][j][d] = K(b, j, g, d), v[g][j][d] = V(b, j, g, d);
    run("ncnn", (heed_desc){.flags = HEED_CAUSAL}, (heed_lengths){.batch = 1, .q_len = S, .kv_len = T}, t);
    EACH_QUERY if (b == 1) worst = fmax(worst, fabs(o[h][i][d] - want(b, i, h, d)));
    report("ncnn", worst);
}

/* vLLM, SGLang: queries of all sequences packed [tokens, heads, dim]; a pool of blocks [blocks, kv heads, block size, dim]; block tables */
static void vllm(void)
{
    enum { BLOCKS = 5 };
    static float q[B * S][H][D], k[BLOCKS][G][PAGE][D], v[BLOCKS][G][PAGE][D], o[B * S][H][D];
    static const int32_t block_table[B][2] = {{3, 0}, {4, 1}}, query_start_loc[B + 1] = {0, S, 2 * S}, seq_lens[B] = {T, T};
    const heed_tensors t = {
        .q = {q, sizeof q, .head_stride = D, .token_stride = H * D},
        .k = {k, sizeof k, .batch_stride = G * PAGE * D, .head_stride = PAGE * D, .token_stride = D}, /* from block to block */
        .v = {v, sizeof v, .batch_stride = G * PAGE * D, .head_stride = PAGE * D, .token_stride = D},
        .o = {o, sizeof o, .head_stride = D, .token_stride = H * D}};
    const heed_lengths lengths = {.batch = B, .q_start = query_start_loc, .kv_lens = seq_lens, .page_table = block_table[0], .page_table_stride = 2};
    double worst = 0;
    EACH_QUERY q[b * S + i][h][d] = Q(b, i, h, d);
    EACH_KEY k[block_table[b][j / PAGE]][g][j % PAGE][d] = K(b, j, g, d), v[block_table[b][j / PAGE]][g][j % PAGE][d] = V(b, j, g, d);
    run("vllm", (heed_desc){.flags = HEED_CAUSAL, .page_size = PAGE}, lengths, t);
    EACH_QUERY worst = fmax(worst, fabs(o[b * S + i][h][d] - want(b, i, h, d)));
    report("vllm", worst);
}

/* MLC, TVM: one pool for both, [pages, 2, kv heads, page size, dim] */
static void mlc(void)
{
    enum { PAGES = 5 };
    static float q[B][S][H][D], pages[PAGES][2][G][PAGE][D], o[B][S][H][D];
    static const int32_t table[B][2] = {{2, 4}, {0, 3}};
    const heed_tensors t = {
        .q = {q, sizeof q, .batch_stride = S * H * D, .head_stride = D, .token_stride = H * D},
        .k = {pages, sizeof pages, .offset = 0, .batch_stride = 2 * G * PAGE * D, .head_stride = PAGE * D, .token_stride = D},
        .v = {pages, sizeof pages, .offset = G * PAGE * D, .batch_stride = 2 * G * PAGE * D, .head_stride = PAGE * D, .token_stride = D},
        .o = {o, sizeof o, .batch_stride = S * H * D, .head_stride = D, .token_stride = H * D}};
    const heed_lengths lengths = {.batch = B, .q_len = S, .kv_len = T, .page_table = table[0], .page_table_stride = 2};
    double worst = 0;
    EACH_QUERY q[b][i][h][d] = Q(b, i, h, d);
    EACH_KEY pages[table[b][j / PAGE]][0][g][j % PAGE][d] = K(b, j, g, d), pages[table[b][j / PAGE]][1][g][j % PAGE][d] = V(b, j, g, d);
    run("mlc", (heed_desc){.flags = HEED_CAUSAL, .page_size = PAGE}, lengths, t);
    EACH_QUERY worst = fmax(worst, fabs(o[b][i][h][d] - want(b, i, h, d)));
    report("mlc", worst);
}

int main(void)
{
    if (heed_context_create(NULL, &context) != HEED_OK) return puts(heed_error_message()), 1;
    torch();
    candle();
    llama_cpp();
    whisper_cpp();
    llama2_c();
    llm_c();
    snapkv();
    onnxruntime();
    executorch();
    ncnn();
    vllm();
    mlc();
    heed_context_destroy(context);
    return failed;
}
