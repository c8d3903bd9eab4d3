/* SPDX-License-Identifier: MIT
 * suites.c - what the bench runs by name. Shapes, not tolerances: a line is changed only with the reason in the commit, since figures of
 * different lines cannot be compared.
 */
#include "suites.h"
#include <stddef.h>

/* Compute-bound: many queries. */
static const char *const prefill[] = {
    "hq32 hk32 d128 q1024 f32",
    "hq32 hk32 d128 q1024 f32 causal",
    "hq32 hk8 d128 q1024 f16 causal",
    "hq12 hk12 d64 q512 f32",
    "b4 hq16 hk16 d64 q256 f32",
    "hq8 hk8 d64 q2048 bf16 causal",
    "hq16 hk16 d80 q512 f32",
    "hq8 hk8 d256 q512 f32 causal",
    NULL,
};

/* Memory-bound: one new token against a cache. */
static const char *const decode[] = {
    "hq32 hk8 d128 q1 kv4096 f32 causal",
    "hq32 hk8 d128 q1 kv4096 f16 causal",
    "b8 hq32 hk8 d128 q1 kv2048 f16 causal",
    "hq32 hk8 d128 q1 kv32768 f16 causal",
    "hq32 hk32 d128 q1 kv4096 f16 causal",
    "hq32 hk8 d128 q1 kv4096 bf16 causal",
    "hq32 hk8 d128 q1 kv4096 q=f32 kv=q8_0 o=f32 causal",
    "hq32 hk8 d128 q1 kv4096 q=f32 kv=i8 o=f32 causal",
    "b8 hq32 hk8 d128 q1 kv2048 f16 causal page=16",
    NULL,
};

/* Where calls cost more than arithmetic. */
static const char *const small[] = {
    "hq1 d64 q1 kv16 f32",
    "hq12 d64 q32 f32",
    "hq12 d64 q128 f32",
    "hq4 d32 q37 f32",
    "hq32 hk8 d128 q1 kv128 f16 causal",
    "b16 hq8 hk8 d64 q1 kv64 f32 causal",
    NULL,
};

/* One layer of a known model, as it is called. */
static const char *const models[] = {
    "b8 hq12 hk12 d64 q128 f32",                                              /* BERT base, a batch of sentences */
    "b16 hq12 hk12 d32 q64 f32",                                              /* MiniLM L6 */
    "hq12 hk12 d64 q197 f32",                                                 /* ViT-B/16 */
    "hq8 hk8 d64 q1500 f32",                                                  /* Whisper base, encoder */
    "hq8 hk8 d64 q4 kv1500 f32",                                              /* Whisper base, cross attention */
    "hq32 hk8 d128 q512 f16 causal",                                          /* Llama 3 8B, prompt */
    "hq32 hk8 d128 q1 kv8192 f16 causal page=16",                             /* Llama 3 8B, a token */
    "hq14 hk2 d64 q1 kv2048 f16 causal",                                      /* Qwen 2.5 0.5B */
    "hq32 hk8 d128 q1 kv6000 f16 causal wl=4095",                             /* Mistral 7B, window */
    "hq8 hk4 d256 q1 kv4096 bf16 causal softcap=50 scale=0.0625",             /* Gemma 2 2B */
    "hq64 hk8 d64 q1 kv4096 bf16 causal wl=127 sinks",                        /* gpt-oss, window layer */
    "hq128 hk1 d576 dv512 q1 kv1024 bf16 causal scale=0.134765625",           /* DeepSeek MLA, absorbed */
    "hq32 hk32 d96 q1 kv2048 f16 causal",                                     /* Phi-3 mini */
    "hq32 hk32 d112 q1 kv1024 f16 causal alibi",                              /* an ALiBi model with an odd head */
    NULL,
};

/* Many shapes, ordered so that each stands beside others that should cost about the same per operation: the bench's summary compares them
 * (q 1 to 4096, kv 1 to 131072, d 16 to 576). Within reach of a quarter of an hour with all peers. */
static const char *const all[] = {
    /* self-attention, d 64, from one tile to many; 63, 65, 200 and 1000 fit nothing */
    "hq8 d64 q16 f32",
    "hq8 d64 q32 f32",
    "hq8 d64 q63 f32",
    "hq8 d64 q64 f32",
    "hq8 d64 q65 f32",
    "hq8 d64 q128 f32",
    "hq8 d64 q200 f32",
    "hq8 d64 q256 f32",
    "hq8 d64 q512 f32",
    "hq8 d64 q1000 f32",
    "hq8 d64 q1024 f32",
    /* the same lengths with d 128, causal */
    "hq8 d128 q32 f32 causal",
    "hq8 d128 q64 f32 causal",
    "hq8 d128 q128 f32 causal",
    "hq8 d128 q256 f32 causal",
    "hq8 d128 q512 f32 causal",
    "hq8 d128 q1024 f32 causal",
    "hq8 d128 q2048 f32 causal",
    /* head dimensions */
    "hq4 d16 q512 f32",
    "hq4 d24 q512 f32",
    "hq4 d32 q512 f32",
    "hq4 d40 q512 f32",
    "hq4 d64 q512 f32",
    "hq4 d80 q512 f32",
    "hq4 d96 q512 f32",
    "hq4 d112 q512 f32",
    "hq4 d128 q512 f32",
    "hq4 d160 q512 f32",
    "hq4 d192 q512 f32",
    "hq4 d256 q512 f32",
    "hq4 d320 q512 f32",
    "hq4 d512 q512 f32",
    "hq4 d576 q512 f32",
    /* few queries against many keys: where decode ends and prefill begins */
    "hq8 hk2 d128 q1 kv4096 f32 causal",
    "hq8 hk2 d128 q2 kv4096 f32 causal",
    "hq8 hk2 d128 q3 kv4096 f32 causal",
    "hq8 hk2 d128 q4 kv4096 f32 causal",
    "hq8 hk2 d128 q6 kv4096 f32 causal",
    "hq8 hk2 d128 q8 kv4096 f32 causal",
    "hq8 hk2 d128 q12 kv4096 f32 causal",
    "hq8 hk2 d128 q16 kv4096 f32 causal",
    "hq8 hk2 d128 q24 kv4096 f32 causal",
    "hq8 hk2 d128 q32 kv4096 f32 causal",
    "hq8 hk2 d128 q48 kv4096 f32 causal",
    "hq8 hk2 d128 q64 kv4096 f32 causal",
    "hq8 hk2 d128 q96 kv4096 f32 causal",
    "hq8 hk2 d128 q128 kv4096 f32 causal",
    /* one query, rising cache: 1k to 128k keys */
    "hq8 hk2 d128 q1 kv1 f32 causal",
    "hq8 hk2 d128 q1 kv16 f32 causal",
    "hq8 hk2 d128 q1 kv128 f32 causal",
    "hq8 hk2 d128 q1 kv512 f32 causal",
    "hq8 hk2 d128 q1 kv1024 f32 causal",
    "hq8 hk2 d128 q1 kv2048 f32 causal",
    "hq8 hk2 d128 q1 kv8192 f32 causal",
    "hq8 hk2 d128 q1 kv16384 f32 causal",
    "hq8 hk2 d128 q1 kv32768 f32 causal",
    "hq8 hk2 d128 q1 kv65536 f32 causal",
    "hq8 hk2 d128 q1 kv131072 f32 causal",
    /* sixteen queries, rising cache */
    "hq4 d64 q16 kv1024 f32",
    "hq4 d64 q16 kv4096 f32",
    "hq4 d64 q16 kv16384 f32",
    "hq4 d64 q16 kv65536 f32",
    "hq4 d64 q16 kv131072 f32",
    /* groups: heads of q per head of k */
    "hq32 hk32 d128 q1 kv2048 f32 causal",
    "hq32 hk16 d128 q1 kv2048 f32 causal",
    "hq32 hk8 d128 q1 kv2048 f32 causal",
    "hq32 hk4 d128 q1 kv2048 f32 causal",
    "hq32 hk2 d128 q1 kv2048 f32 causal",
    "hq32 hk1 d128 q1 kv2048 f32 causal",
    /* batches of short sequences */
    "b1 hq12 d64 q128 f32",
    "b2 hq12 d64 q128 f32",
    "b4 hq12 d64 q128 f32",
    "b8 hq12 d64 q128 f32",
    "b16 hq12 d64 q128 f32",
    /* long */
    "hq2 d64 q4096 f32",
    "hq2 d128 q4096 f32 causal",
    /* 16-bit storage */
    "hq8 hk2 d128 q1 kv4096 f16 causal",
    "hq8 hk2 d128 q1 kv8192 f16 causal",
    "hq8 d128 q512 f16 causal",
    "hq8 d128 q1024 f16 causal",
    "hq8 d64 q512 f16",
    "hq8 hk2 d128 q1 kv4096 bf16 causal",
    "hq8 hk2 d128 q1 kv8192 bf16 causal",
    "hq8 d128 q512 bf16 causal",
    "hq8 d128 q1024 bf16 causal",
    "hq8 d64 q512 bf16",
    NULL,
};

/* The problems that this project holds itself to a number at: shares of the roof, ratios to the best peer. */
static const char *const goals[] = {
    "hq32 d128 q1024 f32",
    "hq32 d128 q1024 f32 causal",
    "hq32 hk8 d128 q2048 f32 causal",
    "hq12 d64 q512 f32",
    "b4 hq16 d64 q256 f32",
    "hq16 d80 q1024 f32",
    "hq8 d256 q1024 f32",
    "hq32 d128 q1024 bf16",
    "hq32 d128 q1024 bf16 causal",
    "hq32 d128 q1024 q=f32 kv=f16 o=f32",
    "hq32 d128 q1024 q=f32 kv=f16 o=f32 causal",
    "hq12 d64 q32 f32",
    "hq12 d64 q128 f32",
    "hq4 d40 q17 kv77 f32",
    "hq32 hk8 d128 q1 kv4096 f32",
    "hq32 hk8 d128 q1 kv4096 f16",
    "hq32 hk8 d128 q1 kv4096 bf16",
    "b8 hq32 hk8 d128 q1 kv2048 f16",
    "hq32 hk8 d128 q1 kv32768 f16",
    "hq32 hk32 d128 q1 kv4096 f16",
    "hq32 hk8 d128 q8 kv8192 f16 causal",
    "hq16 hk1 d576 dv512 q1 kv4096 bf16",
    "hq32 hk8 d128 q1 kv4096 q=f32 kv=q8_0 o=f32",
    "hq32 hk8 d128 q1 kv4096 q=f32 kv=i8 o=f32",
    "hq32 hk8 d128 q1 kv4096 q=f32 kv=f8_e4m3 o=f32",
    "hq32 hk8 d128 q1 kv4096 f32 invariant",
    "hq32 hk4 d128 q1 kv4096 f32 invariant",
    NULL,
};

/* What scores of chosen heads and rows, and column sums of the weights, cost beside attention alone: each line behind its plain one. */
static const char *const scores[] = {
    "hq32 hk8 d128 q1 kv4096 f16",
    "hq32 hk8 d128 q1 kv4096 f16 keysums",
    "hq32 hk8 d128 q1 kv4096 f16 keysums sumheads",
    "hq32 hk8 d128 q1 kv4096 f16 scores=3 sheads=5",
    "hq32 hk8 d128 q1 kv4096 f16 scores=3 sheads=5,14,23,30",
    "hq32 hk8 d128 q1 kv4096 f32",
    "hq32 hk8 d128 q1 kv4096 f32 keysums",
    "hq8 hk2 d128 q1024 f32 causal",
    "hq8 hk2 d128 q1024 f32 causal keysums",
    "hq8 hk2 d128 q1024 f32 causal keysums srows=64",
    "hq8 hk2 d128 q1024 f32 causal scores=3 sheads=0",
    "hq8 hk2 d128 q1024 f32 causal scores=3 sheads=0,2,4,6",
    NULL,
};

const struct suite suites[] = {{"prefill", prefill}, {"decode", decode}, {"small", small}, {"models", models},
                               {"goals", goals},     {"scores", scores},     {"all", all},       {0}};
