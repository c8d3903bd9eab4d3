/* SPDX-License-Identifier: MIT
 * logits.c - a model of llama.cpp on fixed tokens: a prompt in pieces, single tokens, then three sequences side by side, in a cache of their own each
 * and in a common one. All logits go to a file as floats. The plug-in takes part or not by the environment: compare.py starts this program.
 *   ggml_logits MODEL on|off TYPE_OF_K TYPE_OF_V FILE       on, off: flash attention
 */
#include "llama.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEQUENCES = 3, MOST = 256, THREADS = 2 };

static FILE *out;
static int vocabulary;

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

static void add(struct llama_batch *batch, int sequence, int position)
{
    const int n = batch->n_tokens++;
    batch->token[n] = (sequence * 101 + position * 37 + position * position % 13) % vocabulary;
    batch->pos[n] = position;
    batch->n_seq_id[n] = 1;
    batch->seq_id[n][0] = sequence;
    batch->logits[n] = 1;
}

static bool decode(struct llama_context *context, struct llama_batch *batch)
{
    if (llama_decode(context, *batch)) return false;
    for (int n = 0; n < batch->n_tokens; n++) {
        const float *logits = llama_get_logits_ith(context, n);
        if (!logits || fwrite(logits, sizeof *logits, (size_t)vocabulary, out) != (size_t)vocabulary) return false;
    }
    batch->n_tokens = 0;
    return true;
}

/* sequences of 90, 73, 56 tokens in one batch, then 8 steps of a token for each. */
static bool walk(struct llama_context *context, int sequences)
{
    struct llama_batch batch = llama_batch_init(MOST, 0, 1);
    bool good = true;
    for (int s = 0; s < sequences; s++)
        for (int i = 0; i < 90 - 17 * s; i++) add(&batch, s, i);
    good = decode(context, &batch);
    for (int step = 0; step < 8 && good; step++) {
        for (int s = 0; s < sequences; s++) add(&batch, s, 90 - 17 * s + step);
        good = decode(context, &batch);
    }
    llama_batch_free(batch);
    return good;
}

int main(int argc, char **argv)
{
    if (argc != 6 || type_of(argv[3]) == GGML_TYPE_COUNT || type_of(argv[4]) == GGML_TYPE_COUNT) {
        fprintf(stderr, "usage: ggml_logits MODEL on|off TYPE_OF_K TYPE_OF_V FILE\n");
        return 2;
    }
    llama_log_set(quiet, NULL);
    ggml_backend_load_all();
    llama_backend_init();
    struct llama_model *model = llama_model_load_from_file(argv[1], llama_model_default_params());
    out = fopen(argv[5], "wb");
    if (!model || !out) return 1;
    vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
    for (int run = 0; run < 3; run++) {
        struct llama_context_params params = llama_context_default_params();
        params.n_ctx = 1024;
        params.n_batch = MOST;
        params.n_ubatch = 64;
        params.n_seq_max = run ? SEQUENCES : 1;
        params.kv_unified = run == 2;
        params.n_threads = params.n_threads_batch = THREADS;
        params.flash_attn_type = strcmp(argv[2], "on") ? LLAMA_FLASH_ATTN_TYPE_DISABLED : LLAMA_FLASH_ATTN_TYPE_ENABLED;
        params.type_k = type_of(argv[3]);
        params.type_v = type_of(argv[4]);
        struct llama_context *context = llama_init_from_model(model, params);
        if (!context || !walk(context, run ? SEQUENCES : 1)) return 1;
        llama_free(context);
    }
    llama_model_free(model);
    llama_backend_free();
    return fclose(out) ? 1 : 0;
}
