/* SPDX-License-Identifier: MIT
 * words.c - the words of a problem string as people meet them: for man pages and for completion in shells. What they mean is read elsewhere
 * (src/desc_text.c, tests/harness_line.c), and the tests hold each word here against those readers.
 */
#include "args.h"

const struct problem_word problem_words[] = {
    {"b4", "batch (default 1)", false},
    {"hq32 hk8", "query heads, KV heads (default: as many)", false},
    {"d128 dv64", "head_dim, v_head_dim (default 64, and the same)", false},
    {"q512 kv4096", "q_len, kv_len", false},
    {"f32 f16 bf16", "type of q, k, v and o (default f32)", false},
    {"q=f32 k=i8 v=q4_0 o=f16 kv=q8_0 kv=f8_e4m3 kv=f8_e5m2", "a type of its own for one of them; kv= is k and v", false},
    {"causal topleft", "a query sees keys up to its own position; the first query stands at the first key instead of the last at the last", true},
    {"pos=17", "position of the first query", true},
    {"wl=255 wr=0", "window: keys to the left, to the right of the own position", true},
    {"scale=0.1 softcap=30", "factor of the scores (default 1 / sqrt(head_dim)); c tanh(score / c)", true},
    {"alibi sinks", "a slope times the distance on each score; one more logit without a value", false},
    {"biasfirst lse2 lsenosink", "bias before the softcap; lse in base 2; lse without the sink", true},
    {"mask=bool mask=bits", "a mask of bytes, of bits", false},
    {"bias=f32 bias=f16 bias=bf16", "added to the scores", false},
    {"bcast=hq", "dimensions (b, h, q) that mask and bias repeat", false},
    {"page=16", "paged KV cache, tokens a page", false},
    {"keyrange tree", "a range of keys per query; positions as in a draft tree", false},
    {"kvfirst=100", "position of the first key", false},
    {"ragged kvlens", "lengths that differ by sequence: packed, padded", false},
    {"layout=blhd layout=bhld layout=qkv", "order of the dimensions in memory", true},
    {"lse invariant", "write the log-sum-exp; bits that do not depend on the length of a piece", false},
    {"scores=3", "write the scores: 0 raw, 1 after the softcap, 2 after the bias, 3 probabilities", true},
    {"keysums sumheads", "write how much weight each key got: a row per head, one row for all", true},
    {"srows=16 sheads=3,0", "scores and key sums of the last queries only; scores of these heads only", true},
    {"rope=64 ropeil ropeoff=16", "rotary dimensions, in pairs side by side, the first one", false},
    {"seed=7", "of the random data", false},
    {"data=normal data=huge data=equal data=spike data=denormal data=onehot", "what the data look like", false},
    {NULL, NULL, false},
};
