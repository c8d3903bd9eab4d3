# SPDX-License-Identifier: MIT
# Small language models with random weights as GGUF files, one for each sort of attention that llama.cpp asks of a backend. They say nothing that
# makes sense; what counts is that the same tokens give the same logits.
#   model.py KIND FILE      KIND: gqa64 gqa80 heads128 window sinks alibi, or big: two layers of
#                           Llama 3.2 1B's shape with q8_0 weights, for times
import sys

import gguf
import numpy as np

VOCAB, EMBED = 320, 192
# name: architecture, query heads, KV heads, head size
KINDS = {
    "gqa64": ("llama", 8, 2, 64),
    "gqa80": ("llama", 6, 3, 80),
    "heads128": ("llama", 4, 4, 128),
    "window": ("gemma2", 4, 2, 256),  # softcap 50, every other layer sees 24 tokens
    "sinks": ("gpt-oss", 8, 2, 64),   # sinks and a window of 32
    "alibi": ("mpt", 6, 6, 32),       # slopes of a number of heads that is no power of two
    "big": ("llama", 32, 8, 64),
}


class Model:
    def __init__(self, kind, path):
        self.arch, self.heads, self.kv_heads, self.dim = KINDS[kind]
        self.big = kind == "big"
        self.layers = 2 if self.big else 4
        self.embed = 2048 if self.big else EMBED
        self.inner = (4 if self.big else 2) * self.embed
        self.random = np.random.default_rng(7)
        self.out = gguf.GGUFWriter(path, self.arch)

    def weight(self, name, *shape, gain=1.0):
        x = self.random.standard_normal(shape, dtype=np.float32) * np.float32(gain / np.sqrt(shape[-1]))
        if self.big:
            q8_0 = gguf.GGMLQuantizationType.Q8_0
            self.out.add_tensor(name + ".weight", gguf.quants.quantize(x, q8_0), raw_dtype=q8_0)
        else:
            self.out.add_tensor(name + ".weight", x)

    def ones(self, name):
        self.out.add_tensor(name + ".weight", np.ones(self.embed, dtype=np.float32))

    def bias(self, name, *shape):
        self.out.add_tensor(name + ".bias", (self.random.standard_normal(shape) * 0.1).astype(np.float32))

    def fields(self):
        out = self.out
        out.add_vocab_size(VOCAB)
        out.add_tokenizer_model("no_vocab")
        out.add_context_length(40960 if self.big else 1024)
        out.add_embedding_length(self.embed)
        out.add_block_count(self.layers)
        out.add_feed_forward_length(self.inner)
        out.add_head_count(self.heads)
        out.add_head_count_kv(self.kv_heads)
        out.add_key_length(self.dim)
        out.add_value_length(self.dim)
        out.add_rope_dimension_count(self.dim)
        if self.arch == "mpt":
            out.add_layer_norm_eps(1e-5)
            out.add_max_alibi_bias(8.0)
        else:
            out.add_layer_norm_rms_eps(1e-5)
        if self.arch == "gemma2":
            out.add_sliding_window(24)
            out.add_attn_logit_softcapping(50.0)
            out.add_final_logit_softcapping(30.0)
        if self.arch == "gpt-oss":
            out.add_sliding_window(32)
            out.add_expert_count(4)
            out.add_expert_used_count(2)
            out.add_expert_feed_forward_length(self.inner)

    def attention(self, block):
        q, kv = self.heads * self.dim, self.kv_heads * self.dim
        if self.arch == "mpt":
            self.weight(block + "attn_qkv", q + 2 * kv, self.embed, gain=1.5)
        else:
            self.weight(block + "attn_q", q, self.embed, gain=1.5)
            self.weight(block + "attn_k", kv, self.embed, gain=1.5)
            self.weight(block + "attn_v", kv, self.embed)
        self.weight(block + "attn_output", self.embed, q, gain=2)
        if self.arch == "gpt-oss":
            self.weight(block + "attn_sinks", self.heads, gain=np.sqrt(self.heads))
            for name, size in (("q", q), ("k", kv), ("v", kv), ("output", self.embed)):
                self.bias(block + "attn_" + name, size)

    def feed_forward(self, block):
        if self.arch == "gpt-oss":
            self.weight(block + "ffn_gate_inp", 4, self.embed)
            self.bias(block + "ffn_gate_inp", 4)
            for name, rows, columns in (("gate", self.inner, self.embed), ("up", self.inner, self.embed), ("down", self.embed, self.inner)):
                self.weight(block + f"ffn_{name}_exps", 4, rows, columns)
                self.bias(block + f"ffn_{name}_exps", 4, rows)
            return
        if self.arch != "mpt":
            self.weight(block + "ffn_gate", self.inner, self.embed)
        self.weight(block + "ffn_up", self.inner, self.embed)
        self.weight(block + "ffn_down", self.embed, self.inner)

    def write(self):
        self.fields()
        self.weight("token_embd", VOCAB, self.embed, gain=np.sqrt(self.embed) / (8 if self.arch == "gemma2" else 1))
        for n in range(self.layers):
            block = f"blk.{n}."
            self.ones(block + "attn_norm")
            self.attention(block)
            if self.arch in ("gemma2", "gpt-oss"):
                self.ones(block + "post_attention_norm")
            if self.arch == "gemma2":
                self.ones(block + "post_ffw_norm")
            if self.arch != "gpt-oss":
                self.ones(block + "ffn_norm")
            self.feed_forward(block)
        self.ones("output_norm")
        if self.arch in ("llama", "gpt-oss"):
            self.weight("output", VOCAB, self.embed)
        self.out.write_header_to_file()
        self.out.write_kv_data_to_file()
        self.out.write_tensors_to_file()
        self.out.close()


if len(sys.argv) != 3 or sys.argv[1] not in KINDS:
    sys.exit(f"usage: model.py {'|'.join(KINDS)} FILE")
Model(sys.argv[1], sys.argv[2]).write()
