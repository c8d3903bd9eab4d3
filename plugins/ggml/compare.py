# SPDX-License-Identifier: MIT
# The logits of small models, by llama.cpp with the plug-in (heed), with ggml's own flash attention (ggml), and without flash attention on an f16
# cache (plain), the nearest to exact that llama.cpp has. ggml adds up f16 values in f16 and rounds q to the type of k; heed's numbers are f32. So
# heed may not lie further from plain than ggml does, and from ggml not further than both errors together. Distances are root mean squares,
# relative to the logits.
#   compare.py llama GGML_LOGITS PLUGIN FOLDER          FOLDER: for models and logits
#   compare.py whisper WHISPER_LOGITS PLUGIN FOLDER     whisper.cpp's model is there, whisper.bin (whisper_model.py)
# The last line is `N passed, N failed, N skipped`.
import os
import re
import subprocess
import sys

import numpy as np

MODELS = ["gqa64", "gqa80", "heads128", "window", "sinks", "alibi"]
CACHES = {"f16": ("f16", "f16"), "bf16": ("bf16", "bf16"), "q8_0": ("q8_0", "q8_0"), "q4_0": ("q4_0", "q4_0"), "q8_0/f16": ("q8_0", "f16")}
# 4 layers: (2 + 8) + (5 + 8) + (4 + 8) graphs; whisper: an encoder, and 21 decoders with two attentions each
NODES = {"llama": 140, "whisper": 4 * (1 + 2 * 21)}

kind, program, plugin, folder = sys.argv[1:]
here = os.path.dirname(os.path.abspath(__file__))
passed = failed = 0


def expect(good, text):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    if not good:
        print("  FAILED " + text)


def run(arguments, ours=False):
    """The logits, and how many attention nodes the plug-in computed."""
    environment = {name: value for name, value in os.environ.items() if name not in ("GGML_BACKEND_PATH", "HEED_GGML")}
    environment |= {"OMP_WAIT_POLICY": "passive"}
    if ours:
        environment |= {"GGML_BACKEND_PATH": plugin, "HEED_GGML": "verbose"}
    file = os.path.join(folder, "logits.bin")
    done = subprocess.run([program, *arguments, file], env=environment, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr)
        sys.exit(f"{program} {' '.join(arguments)}: exit status {done.returncode}")
    nodes = sum(int(n) for n in re.findall(r"(\d+) attention nodes computed", done.stderr))
    return np.fromfile(file, dtype=np.float32).astype(np.float64), nodes


def distance(x, y):
    return float(np.sqrt(np.mean((x - y) ** 2) / np.mean(y**2)))


def check(name, cache, arguments, plain, near=None):
    heed, nodes = run(arguments, ours=True)
    ggml, none = run(arguments)
    ours, theirs, far = distance(heed, plain), distance(ggml, plain), distance(heed, ggml)
    print(f"  {name:9} {cache:9} {heed.size:7} logits   heed - plain {ours:.1e}   ggml - plain {theirs:.1e}   heed - ggml {far:.1e}", flush=True)
    expect(nodes == NODES[kind] and none == 0, f"the plug-in computed {nodes} nodes, {NODES[kind]} were due; without it {none}")
    expect(ours < 1.25 * theirs, "further from plain than ggml is")
    expect(far < (near or 1.5 * theirs), "further from ggml than both errors together")


def plain_logits(arguments):
    plain, none = run(arguments)
    expect(none == 0 and np.isfinite(plain).all(), "no good logits without the plug-in")
    return plain


if kind == "whisper":
    model = os.path.join(folder, "whisper.bin")
    # Plain is far from both: with flash attention whisper.cpp has 36 keys of zeros behind the sound's 1500, and no mask.
    check("whisper", "f16", [model, "on"], plain_logits([model, "off"]), near=0.01)
else:
    for name in MODELS:
        model = os.path.join(folder, name + ".gguf")
        if not os.path.exists(model):
            subprocess.run([sys.executable, os.path.join(here, "model.py"), name, model], check=True)
        plain = plain_logits([model, "off", *CACHES["f16"]])
        for cache in CACHES if name in ("gqa64", "window") else ["f16"] if name == "gqa80" else ["f16", "q8_0"]:
            check(name, cache, [model, "on", *CACHES[cache]], plain)
print(f"{passed} passed, {failed} failed, 0 skipped")
sys.exit(failed > 0)
