/* SPDX-License-Identifier: MIT
 * encoder.c - see encoder.h. Tokens of all sentences stand packed in rows, no padding: the products (OpenBLAS) do not know sentences, attention
 * (heed) does. For each layer:
 *     x = norm(x + attention(x W_q, x W_k, x W_v) W_o)        every W with its bias
 *     x = norm(x + gelu(x W_1) W_2)
 */
#include "encoder.h"
#include "attention.h"
#include "weights.h"
#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_NAME = 128 };

/* y = x W^T + b: weight [out, in], bias [out]. */
struct linear {
    const float *weight, *bias;
    int32_t in, out;
};

struct norm {
    const float *weight, *bias;
};

struct layer {
    struct linear qkv[3], attended, up, down;
    struct norm behind_attention, behind_down;
};

struct encoder {
    struct config config;
    struct weights *weights;
    struct attention *attention;
    const float *words, *positions, *segments; /* [vocabulary, hidden], [positions, hidden], [segments, hidden] */
    struct norm embedded;
    struct layer *layers;
    int32_t most_rows;
    float *x, *o, *qkv, *inner; /* [most_rows, hidden], the same, [most_rows, 3, hidden], [most_rows, inner] */
};

/* ---- weights ----------------------------------------------------------------------------------------------------------------- */

/* The weights of a layer, taken one after the other till one is missing. */
struct taking {
    const struct weights *weights;
    struct message *message;
    int32_t layer;
    bool good;
};

static const float *take(struct taking *taking, const char *part, const char *which, int64_t rows, int64_t columns)
{
    char name[MOST_NAME];
    if (!taking->good) return NULL;
    if (taking->layer < 0) snprintf(name, sizeof name, "embeddings.%s.%s", part, which);
    else snprintf(name, sizeof name, "encoder.layer.%d.%s.%s", taking->layer, part, which);
    const float *data = weights_take(taking->weights, name, rows, columns, taking->message);
    taking->good = data != NULL;
    return data;
}

static struct linear take_linear(struct taking *taking, const char *part, int32_t in, int32_t out)
{
    return (struct linear){.weight = take(taking, part, "weight", out, in), .bias = take(taking, part, "bias", out, 0), .in = in, .out = out};
}

static struct norm take_norm(struct taking *taking, const char *part, int32_t hidden)
{
    return (struct norm){.weight = take(taking, part, "weight", hidden, 0), .bias = take(taking, part, "bias", hidden, 0)};
}

static struct layer take_layer(struct taking *t, const struct config *c)
{
    return (struct layer){
        .qkv = {take_linear(t, "attention.self.query", c->hidden, c->hidden), take_linear(t, "attention.self.key", c->hidden, c->hidden),
                take_linear(t, "attention.self.value", c->hidden, c->hidden)},
        .attended = take_linear(t, "attention.output.dense", c->hidden, c->hidden),
        .behind_attention = take_norm(t, "attention.output.LayerNorm", c->hidden),
        .up = take_linear(t, "intermediate.dense", c->hidden, c->inner),
        .down = take_linear(t, "output.dense", c->inner, c->hidden),
        .behind_down = take_norm(t, "output.LayerNorm", c->hidden)};
}

static bool weights_bind(struct encoder *e, struct message *message)
{
    const struct config *c = &e->config;
    struct taking taking = {.weights = e->weights, .message = message, .layer = -1, .good = true};
    e->words = take(&taking, "word_embeddings", "weight", c->vocabulary, c->hidden);
    e->positions = take(&taking, "position_embeddings", "weight", c->positions, c->hidden);
    e->segments = take(&taking, "token_type_embeddings", "weight", c->segments, c->hidden);
    e->embedded = take_norm(&taking, "LayerNorm", c->hidden);
    e->layers = calloc((size_t)c->layers, sizeof *e->layers);
    if (!e->layers) return out_of_memory(message);
    for (taking.layer = 0; taking.layer < c->layers && taking.good; taking.layer++) e->layers[taking.layer] = take_layer(&taking, c);
    return taking.good;
}

/* ---- open and close ---------------------------------------------------------------------------------------------------------- */

static float *rows_of(const struct encoder *e, int32_t width)
{
    return aligned_alloc(64, ((size_t)e->most_rows * (size_t)width * sizeof(float) + 63) / 64 * 64);
}

static bool parts_open(struct encoder *e, const struct encoder_options *options, struct message *message)
{
    char path[4096];
    struct config *c = &e->config;
    if (!config_read(options->folder, c, message)) return false;
    if (snprintf(path, sizeof path, "%s/model.safetensors", options->folder) >= (int)sizeof path)
        return refuse(message, 2, "the path of the model is too long");
    if (!weights_open(path, &e->weights, message) || !weights_bind(e, message)) return false;

    e->most_rows = options->most_rows > c->most_tokens ? options->most_rows : c->most_tokens;
    e->x = rows_of(e, c->hidden), e->o = rows_of(e, c->hidden), e->qkv = rows_of(e, 3 * c->hidden), e->inner = rows_of(e, c->inner);
    if (!e->x || !e->o || !e->qkv || !e->inner) return out_of_memory(message);
    if (options->threads > 0) openblas_set_num_threads(options->threads);
    const struct attention_options wanted = {.device = options->device, .threads = options->threads, .heads = c->heads,
                                             .head_dim = c->hidden / c->heads, .most_tokens = c->most_tokens, .most_rows = e->most_rows};
    return attention_open(&wanted, &e->attention, message);
}

bool encoder_open(const struct encoder_options *options, struct encoder **encoder, struct message *message)
{
    struct encoder *e = calloc(1, sizeof *e);
    if (!e) return out_of_memory(message);
    if (!parts_open(e, options, message)) {
        encoder_close(e);
        return false;
    }
    *encoder = e;
    return true;
}

void encoder_close(struct encoder *e)
{
    if (!e) return;
    attention_close(e->attention);
    weights_close(e->weights);
    free(e->layers);
    free(e->x), free(e->o), free(e->qkv), free(e->inner);
    free(e);
}

const struct config *encoder_config(const struct encoder *e) { return &e->config; }

const char *encoder_device(const struct encoder *e) { return attention_device(e->attention); }

size_t encoder_explain(const struct encoder *e, char *text, size_t capacity) { return attention_explain(e->attention, text, capacity); }

int32_t encoder_most_rows(const struct encoder *e) { return e->most_rows; }

/* ---- the steps --------------------------------------------------------------------------------------------------------------- */

/* y [rows, out] = x [rows, in] W^T + b, plus what is in y if `add`; rows of y are `pitch` floats apart. */
static void linear(const struct linear *w, int32_t rows, const float *x, float *y, int32_t pitch, bool add)
{
    for (int32_t i = 0; i < rows; i++) {
        float *row = y + (size_t)i * (size_t)pitch;
        for (int32_t n = 0; n < w->out; n++) row[n] = w->bias[n] + (add ? row[n] : 0);
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, w->out, w->in, 1, x, w->in, w->weight, w->in, 1, y, pitch);
}

/* x [rows, width]: (x - mean) / sqrt(variance + epsilon) * weight + bias, row by row */
static void norm(const struct norm *w, int32_t rows, int32_t width, float epsilon, float *x)
{
    for (int32_t i = 0; i < rows; i++, x += width) {
        double sum = 0, squares = 0;
        for (int32_t n = 0; n < width; n++) sum += x[n];
        const float mean = (float)(sum / width);
        for (int32_t n = 0; n < width; n++) squares += (double)(x[n] - mean) * (x[n] - mean);
        const float scale = (float)(1 / sqrt(squares / width + epsilon));
        for (int32_t n = 0; n < width; n++) x[n] = (x[n] - mean) * scale * w->weight[n] + w->bias[n];
    }
}

/* erf(x) as a quotient of polynomials, the one that Eigen and XLA use, at most 4.5e-7 off; erff() takes seven times as long, and was a quarter of
 * the whole. */
static inline float erf_near(float x)
{
    x = x < -4 ? -4 : x > 4 ? 4 : x;
    const float s = x * x;
    float p = -2.72614225801306e-10f, q = -1.45660718464996e-05f;
    p = p * s + 2.77068142495902e-08f, q = q * s - 2.13374055278905e-04f;
    p = p * s - 2.10102402082508e-06f, q = q * s - 1.68282697438203e-03f;
    p = p * s - 5.69250639462346e-05f, q = q * s - 7.37332916720468e-03f;
    p = p * s - 7.34990630326855e-04f, q = q * s - 1.42647390514189e-02f;
    p = p * s - 2.95459980854025e-03f;
    p = p * s - 1.60960333262415e-02f;
    return x * p / q;
}

/* x / 2 (1 + erf(x / sqrt 2)): not the form with tanh, the model was trained with this one */
static void gelu(size_t count, float *x)
{
    for (size_t n = 0; n < count; n++) x[n] = 0.5f * x[n] * (1 + erf_near(x[n] * 0.70710678f));
}

static bool embed(struct encoder *e, int32_t count, const int32_t *start, const int32_t *ids, struct message *message)
{
    const int32_t hidden = e->config.hidden;
    for (int32_t b = 0; b < count; b++) {
        if (start[b + 1] <= start[b] || start[b + 1] - start[b] > e->config.positions || start[b + 1] > e->most_rows)
            return refuse(message, 2, "sentence %d has %d tokens", b + 1, start[b + 1] - start[b]);
        for (int32_t i = start[b]; i < start[b + 1]; i++) {
            if (ids[i] < 0 || ids[i] >= e->config.vocabulary) return refuse(message, 2, "the model knows no word piece %d", ids[i]);
            const float *word = e->words + (size_t)ids[i] * (size_t)hidden, *place = e->positions + (size_t)(i - start[b]) * (size_t)hidden;
            float *x = e->x + (size_t)i * (size_t)hidden;
            for (int32_t n = 0; n < hidden; n++) x[n] = word[n] + place[n] + e->segments[n];
        }
    }
    norm(&e->embedded, start[count], hidden, e->config.epsilon, e->x);
    return true;
}

static bool layer_run(struct encoder *e, const struct layer *w, int32_t rows, struct message *message)
{
    const int32_t hidden = e->config.hidden, inner = e->config.inner;
    for (int n = 0; n < 3; n++) linear(&w->qkv[n], rows, e->x, e->qkv + n * hidden, 3 * hidden, false);
    if (!attention_run(e->attention, e->qkv, e->o, message)) return false;
    linear(&w->attended, rows, e->o, e->x, hidden, true);
    norm(&w->behind_attention, rows, hidden, e->config.epsilon, e->x);
    linear(&w->up, rows, e->x, e->inner, inner, false);
    gelu((size_t)rows * (size_t)inner, e->inner);
    linear(&w->down, rows, e->inner, e->x, hidden, true);
    norm(&w->behind_down, rows, hidden, e->config.epsilon, e->x);
    return true;
}

/* out [hidden] = mean of x [rows, hidden], made of length 1; false where there is no length. */
static bool pool(int32_t rows, int32_t hidden, const float *x, float *out)
{
    double squares = 0;
    for (int32_t n = 0; n < hidden; n++) {
        double sum = 0;
        for (int32_t i = 0; i < rows; i++) sum += x[(size_t)i * (size_t)hidden + (size_t)n];
        out[n] = (float)(sum / rows);
        squares += (double)out[n] * out[n];
    }
    for (int32_t n = 0; n < hidden; n++) out[n] = (float)(out[n] / sqrt(squares));
    return squares > 0 && isfinite(squares);
}

bool encoder_run(struct encoder *e, int32_t count, const int32_t *start, const int32_t *ids, float *out, struct message *message)
{
    const int32_t hidden = e->config.hidden;
    if (!embed(e, count, start, ids, message) || !attention_lengths(e->attention, count, start, message)) return false;
    for (int32_t n = 0; n < e->config.layers; n++)
        if (!layer_run(e, &e->layers[n], start[count], message)) return false;
    for (int32_t b = 0; b < count; b++)
        if (!pool(start[b + 1] - start[b], hidden, e->x + (size_t)start[b] * (size_t)hidden, out + (size_t)b * (size_t)hidden))
            return refuse(message, 2, "an embedding came out as zero, NaN or infinity: these weights are no model");
    return true;
}
