/* SPDX-License-Identifier: MIT
 * whisper_logits.c - a model of whisper.cpp on a fixed sound and fixed tokens: encoder, a prompt of 40 tokens, 20 tokens one by one. The logits go to a
 * file as floats. The plug-in takes part or not by the environment: compare.py starts this program.
 *   whisper_logits MODEL on|off FILE       on, off: flash attention
 */
#include "ggml-backend.h"
#include "whisper.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLES = 16000 * 8, PROMPT = 40, SINGLE = 20, THREADS = 2 };

static void quiet(enum ggml_log_level level, const char *text, void *user)
{
    (void)user;
    if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: whisper_logits MODEL on|off FILE\n");
        return 2;
    }
    whisper_log_set(quiet, NULL);
    ggml_backend_load_all();
    struct whisper_context_params params = whisper_context_default_params();
    params.flash_attn = !strcmp(argv[2], "on");
    struct whisper_context *whisper = whisper_init_from_file_with_params(argv[1], params);
    FILE *out = fopen(argv[3], "wb");
    float *sound = malloc(SAMPLES * sizeof *sound);
    if (!whisper || !out || !sound) return 1;
    for (int n = 0; n < SAMPLES; n++) sound[n] = 0.3f * sinf((float)n * 0.05f * (1.0f + 0.3f * sinf((float)n * 1e-4f)));
    if (whisper_pcm_to_mel(whisper, sound, SAMPLES, THREADS) || whisper_encode(whisper, 0, THREADS)) return 1;
    whisper_token tokens[PROMPT + SINGLE];
    const int words = whisper_n_vocab(whisper);
    for (int n = 0; n < PROMPT + SINGLE; n++) tokens[n] = (n * 7919 + 13) % words;
    for (int n = 0; n <= SINGLE; n++) {
        const int past = n ? PROMPT + n - 1 : 0;
        if (whisper_decode(whisper, tokens + past, n ? 1 : PROMPT, past, THREADS)) return 1;
        if (fwrite(whisper_get_logits(whisper), sizeof(float), (size_t)words, out) != (size_t)words) return 1;
    }
    whisper_free(whisper);
    free(sound);
    return fclose(out) ? 1 : 0;
}
