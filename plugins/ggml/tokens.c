/* SPDX-License-Identifier: MIT
 * tokens.c - how long llama.cpp takes for prompts and single tokens, at the beginning and behind a long context, in one walk through one context.
 * With one thread it is the CPU time of the process, so that other work on the machine does not count. The plug-in takes part or not by the
 * environment: bench.py starts this program.
 *   ggml_tokens MODEL on|off CACHE_TYPE THREADS DEPTH       prints `prompt TOKENS TOKENS_PER_SECOND` and `single DEPTH TOKENS_PER_SECOND`
 */
#include "llama.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PIECE = 512, SINGLE = 32 };

static clockid_t watch = CLOCK_MONOTONIC;
static int vocabulary;

static double now(void)
{
    struct timespec t;
    clock_gettime(watch, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void quiet(enum ggml_log_level level, const char *text, void *user)
{
    (void)user;
    if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

static enum ggml_type type_of(const char *name)
{
    for (int n = 0; n < GGML_TYPE_COUNT; n++)
        if (ggml_type_name((enum ggml_type)n) && !strcmp(ggml_type_name((enum ggml_type)n), name)) return (enum ggml_type)n;
    return GGML_TYPE_COUNT;
}

/* Seconds for tokens [from, to) in pieces; the last token's logits are made. Exits on failure. */
static double decode(struct llama_context *context, int from, int to, int piece)
{
    llama_token tokens[PIECE];
    double seconds = 0;
    for (int first = from, count; first < to; first += count) {
        count = to - first < piece ? to - first : piece;
        for (int n = 0; n < count; n++) tokens[n] = ((first + n) * 37 + 11) % vocabulary;
        const double begin = now();
        if (llama_decode(context, llama_batch_get_one(tokens, count))) exit(1);
        llama_synchronize(context);
        seconds += now() - begin;
    }
    return seconds;
}

int main(int argc, char **argv)
{
    if (argc != 6 || type_of(argv[3]) == GGML_TYPE_COUNT) {
        fprintf(stderr, "usage: ggml_tokens MODEL on|off CACHE_TYPE THREADS DEPTH\n");
        return 2;
    }
    const int threads = atoi(argv[4]), depth = atoi(argv[5]);
    if (threads == 1) watch = CLOCK_PROCESS_CPUTIME_ID;
    llama_log_set(quiet, NULL);
    ggml_backend_load_all();
    llama_backend_init();
    struct llama_model *model = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (!model) return 1;
    vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = (uint32_t)depth + 1024;
    params.n_batch = params.n_ubatch = PIECE;
    params.n_threads = params.n_threads_batch = threads;
    params.flash_attn_type = strcmp(argv[2], "on") ? LLAMA_FLASH_ATTN_TYPE_DISABLED : LLAMA_FLASH_ATTN_TYPE_ENABLED;
    params.type_k = params.type_v = type_of(argv[3]);
    struct llama_context *context = llama_init_from_model(model, params);
    if (!context) return 1;

    decode(context, 0, 2, 1); /* pages, threads */
    printf("single 0 %.2f\n", SINGLE / decode(context, 2, 2 + SINGLE, 1));
    llama_memory_clear(llama_get_memory(context), true);
    double seconds = 0;
    int done = 0;
    for (int stop = PIECE; stop <= depth; stop = stop == PIECE ? 4096 : 4 * stop) {
        const int first = done ? done + SINGLE : 0; /* behind the single tokens of the stop before */
        seconds += decode(context, first, stop, PIECE);
        printf("prompt %d %.2f\n", stop, stop / seconds);
        printf("single %d %.2f\n", stop, SINGLE / decode(context, stop, stop + SINGLE, 1));
        fflush(stdout);
        done = stop;
    }
    llama_free(context);
    llama_model_free(model);
    return 0;
}
