/* SPDX-License-Identifier: MIT
 * main.c - the program: ranks lines of text by how near they are in meaning to a query, writes embeddings, shows word pieces.
 */
#include "encoder.h"
#include "npy.h"
#include "sentences.h"
#include "tokenizer.h"
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char usage[] =
    "minilm: sentence embeddings by a real encoder (all-MiniLM-L6-v2), attention by heed\n"
    "  minilm rank QUERY FILE        the lines of FILE that are nearest to QUERY in meaning, best first (FILE -: standard input)\n"
    "  minilm embed FILE -o OUT.npy  one vector of length 1 for each line: float32 [lines, hidden]\n"
    "  minilm tokens TEXT...         word pieces and their numbers, one text a line (needs only vocab.txt)\n"
    "options\n"
    "  --model DIR    folder with config.json, vocab.txt and model.safetensors (or MINILM_MODEL; script/minilm fetches one)\n"
    "  --device D     cpu (also the default), opencl:0, or part of a device's name: where attention is computed\n"
    "  --threads N    for the products and for attention on the CPU (default: one per core)\n"
    "  --top N        rank: so many lines (default 10)\n"
    "  --batch N      tokens of one batch (default 2048)\n"
    "  --most N       tokens: cut a text behind so many, [CLS] and [SEP] counted in (default 256)\n"
    "  --repeat N     embed: do it N times over and tell the fastest\n"
    "  --explain      which of heed's kernels was chosen, and why not the others\n";

struct options {
    const char *model, *device, *out;
    int32_t threads, top, batch, most, repeat;
    bool explain;
    int count; /* of what is no option */
    char **words;
};

struct program {
    const struct options *options;
    struct tokenizer *tokenizer;
    struct encoder *encoder;
    struct message message;
};

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- options ----------------------------------------------------------------------------------------------------------------- */

static bool number(const char *text, int32_t least, int32_t most, int32_t *value)
{
    char *end;
    const long n = strtol(text, &end, 10);
    if (*text == 0 || *end != 0 || n < least || n > most) {
        fprintf(stderr, "minilm: %s is not a whole number from %d to %d\n", text, least, most);
        return false;
    }
    *value = (int32_t)n;
    return true;
}

static bool options_read(int argc, char **argv, struct options *o)
{
    enum { MODEL = 256, DEVICE, THREADS, TOP, BATCH, MOST, REPEAT, EXPLAIN };
    static const struct option known[] = {{"model", 1, 0, MODEL}, {"device", 1, 0, DEVICE}, {"threads", 1, 0, THREADS}, {"top", 1, 0, TOP},
                                          {"batch", 1, 0, BATCH}, {"most", 1, 0, MOST}, {"repeat", 1, 0, REPEAT}, {"explain", 0, 0, EXPLAIN},
                                          {"help", 0, 0, 'h'}, {0, 0, 0, 0}};
    int option;
    while ((option = getopt_long(argc, argv, "o:h", known, NULL)) != -1) {
        bool good = true;
        switch (option) {
        case MODEL: o->model = optarg; break;
        case DEVICE: o->device = optarg; break;
        case THREADS: good = number(optarg, 1, 256, &o->threads); break;
        case TOP: good = number(optarg, 1, INT32_MAX, &o->top); break;
        case BATCH: good = number(optarg, 2, 1 << 20, &o->batch); break;
        case MOST: good = number(optarg, 2, 1 << 20, &o->most); break;
        case REPEAT: good = number(optarg, 1, 1000, &o->repeat); break;
        case EXPLAIN: o->explain = true; break;
        case 'o': o->out = optarg; break;
        case 'h': fputs(usage, stdout); exit(0);
        default: good = false;
        }
        if (!good) return false;
    }
    o->count = argc - optind, o->words = argv + optind;
    return true;
}

static int misused(void)
{
    fputs(usage, stderr);
    return 2;
}

static int told(const struct program *p)
{
    fprintf(stderr, "minilm: %s\n", p->message.text);
    return p->message.exit_code;
}

/* ---- model ------------------------------------------------------------------------------------------------------------------- */

static bool tokenizer_find(struct program *p)
{
    char path[4096];
    if (!p->options->model) return refuse(&p->message, 2, "no model: --model DIR or MINILM_MODEL (script/minilm fetches one)");
    if (snprintf(path, sizeof path, "%s/vocab.txt", p->options->model) >= (int)sizeof path)
        return refuse(&p->message, 2, "the path of the model is too long");
    return tokenizer_open(path, &p->tokenizer, &p->message);
}

static bool model_open(struct program *p)
{
    const struct options *o = p->options;
    const struct encoder_options wanted = {.folder = o->model, .device = o->device, .threads = o->threads, .most_rows = o->batch};
    if (!tokenizer_find(p) || !encoder_open(&wanted, &p->encoder, &p->message)) return false;
    if (tokenizer_size(p->tokenizer) > encoder_config(p->encoder)->vocabulary)
        return refuse(&p->message, 2, "vocab.txt has %d pieces, the model only %d: they do not belong together", tokenizer_size(p->tokenizer),
                      encoder_config(p->encoder)->vocabulary);
    char text[8192];
    if (o->explain && encoder_explain(p->encoder, text, sizeof text) > 0) fprintf(stderr, "%s\n", text);
    return true;
}

/* On a terminal only, and gone when done. */
static void progress(int32_t done, int32_t count)
{
    if (!isatty(STDERR_FILENO)) return;
    if (done < count) fprintf(stderr, "\r%d of %d lines (%d %%) ", done, count, (int)(100LL * done / count));
    else fputs("\r\033[K", stderr);
    fflush(stderr);
}

/* Vectors of all sentences, [count, hidden]; NULL after a message. A line on standard error tells the time. */
static float *vectors_of(struct program *p, struct sentences *s)
{
    const size_t hidden = (size_t)encoder_config(p->encoder)->hidden;
    if (!sentences_cut(s, p->tokenizer, encoder_config(p->encoder)->most_tokens, &p->message)) return NULL;
    float *vectors = malloc((size_t)s->count * hidden * sizeof *vectors);
    double best = INFINITY;
    bool good = vectors != NULL || out_of_memory(&p->message);
    for (int32_t n = 0; good && n < p->options->repeat; n++) {
        const double begin = seconds_now();
        good = sentences_embed(s, p->encoder, progress, vectors, &p->message);
        best = fmin(best, seconds_now() - begin);
    }
    if (!good) {
        free(vectors);
        return NULL;
    }
    fprintf(stderr, "%d sentences, %d tokens in %.3f s: %.2f ms a sentence (attention on %s)\n", s->count, s->start[s->count], best,
            1e3 * best / s->count, encoder_device(p->encoder));
    return vectors;
}

/* ---- verbs ------------------------------------------------------------------------------------------------------------------- */

struct place {
    double nearness; /* cosine; both vectors have length 1 */
    int32_t n;
};

static int by_nearness(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    if (x->nearness != y->nearness) return x->nearness > y->nearness ? -1 : 1;
    return x->n - y->n;
}

static bool ranking_print(const struct program *p, const struct sentences *s, const float *vectors)
{
    const int32_t hidden = encoder_config(p->encoder)->hidden, count = s->count - 1; /* the last one is the query */
    const float *query = vectors + (size_t)count * (size_t)hidden;
    struct place *places = calloc((size_t)count + 1, sizeof *places);
    if (!places) return false;
    for (int32_t n = 0; n < count; n++) {
        places[n].n = n;
        for (int32_t d = 0; d < hidden; d++) places[n].nearness += (double)query[d] * vectors[(size_t)n * (size_t)hidden + (size_t)d];
    }
    qsort(places, (size_t)count, sizeof *places, by_nearness);
    for (int32_t n = 0; n < count && n < p->options->top; n++)
        printf("%7.4f  %5d  %s\n", places[n].nearness, s->all[places[n].n].line, s->all[places[n].n].text);
    free(places);
    return true;
}

static bool rank(struct program *p, struct sentences *s)
{
    const char *query = p->options->words[1];
    if (!sentences_read(p->options->words[2], false, s, &p->message) || !sentences_add(s, query, strlen(query), 0, &p->message)) return false;
    if (!model_open(p)) return false;
    float *vectors = vectors_of(p, s);
    const bool good = vectors && (ranking_print(p, s, vectors) || out_of_memory(&p->message));
    free(vectors);
    return good;
}

static bool embed(struct program *p, struct sentences *s)
{
    char text[256];
    if (!sentences_read(p->options->words[1], true, s, &p->message) || !model_open(p)) return false;
    float *vectors = vectors_of(p, s);
    const int64_t shape[2] = {s->count, encoder_config(p->encoder)->hidden};
    bool good = vectors != NULL;
    if (good && !npy_write(p->options->out, NPY_F4, 2, shape, vectors, text, sizeof text))
        good = refuse(&p->message, 4, "%s: %s", p->options->out, text);
    free(vectors);
    return good;
}

static bool tokens(struct program *p, struct sentences *s)
{
    for (int n = 1; n < p->options->count; n++)
        if (!sentences_add(s, p->options->words[n], strlen(p->options->words[n]), n, &p->message)) return false;
    if (!tokenizer_find(p) || !sentences_cut(s, p->tokenizer, p->options->most, &p->message)) return false;
    for (int32_t n = 0; n < s->count; n++)
        for (int32_t i = s->start[n]; i < s->start[n + 1]; i++) {
            int32_t bytes;
            const char *piece = tokenizer_piece(p->tokenizer, s->ids[i], &bytes);
            printf("%.*s:%d%c", bytes, piece, s->ids[i], i + 1 < s->start[n + 1] ? ' ' : '\n');
        }
    return true;
}

int main(int argc, char **argv)
{
    struct options options = {.model = getenv("MINILM_MODEL"), .device = "cpu", .top = 10, .batch = 2048, .most = 256, .repeat = 1};
    if (!options_read(argc, argv, &options) || options.count < 1) return misused();
    const char *verb = options.words[0];
    bool (*run)(struct program *, struct sentences *) = NULL;
    if (strcmp(verb, "rank") == 0 && options.count == 3) run = rank;
    if (strcmp(verb, "embed") == 0 && options.count == 2 && options.out) run = embed;
    if (strcmp(verb, "tokens") == 0 && options.count >= 2) run = tokens;
    if (!run) return misused();

    struct program program = {.options = &options};
    struct sentences sentences = {0};
    bool good = run(&program, &sentences);
    if (good && fflush(stdout) != 0) good = refuse(&program.message, 4, "standard output cannot be written");
    const int code = good ? 0 : told(&program);
    sentences_free(&sentences);
    encoder_close(program.encoder);
    tokenizer_close(program.tokenizer);
    return code;
}
