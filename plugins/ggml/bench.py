# SPDX-License-Identifier: MIT
# Tokens per second of llama.cpp with the plug-in (heed), with ggml's own flash attention (ggml) and without flash attention, on two layers of
# Llama 3.2 1B's shape with q8_0 weights. One thread: the CPU time of the process, so that other work on the machine counts little. More: time, on a
# machine that does nothing else. Best of some rounds in turns, more of them where they are short.
#   bench.py GGML_TOKENS PLUGIN FOLDER [THREADS [DEPTH]]
import os
import subprocess
import sys

program, plugin, folder = sys.argv[1:4]
threads, depth = (int(x) for x in (sys.argv[4:] + ["1", "16384"][len(sys.argv) - 4:]))
model = os.path.join(folder, "big.gguf")
ROUNDS = {512: 6, 4096: 2, 16384: 1}
WAYS = {"heed": ("on", True), "ggml": ("on", False), "without": ("off", False)}


def speeds(cache, way, depth):
    flash, ours = WAYS[way]
    environment = {name: value for name, value in os.environ.items() if name not in ("GGML_BACKEND_PATH", "HEED_GGML")}
    if ours:
        environment["GGML_BACKEND_PATH"] = plugin
    done = subprocess.run([program, model, flash, cache, str(threads), str(depth)],
                          env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return {(what, int(tokens)): float(speed) for what, tokens, speed in (line.split() for line in done.stdout.splitlines())}


if not os.path.exists(model):
    subprocess.run([sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "model.py"), "big", model], check=True)
print("llama.cpp, tokens per second" + (" of CPU time, one thread" if threads == 1 else f", {threads} threads"))
print()
print("| cache | tokens | heed | ggml | without flash attention | heed / ggml | heed / without |")
print("| --- | --- | --- | --- | --- | --- | --- |")
for cache in ("f16", "q8_0"):
    best = {}
    ways = [way for way in WAYS if way != "without" or cache == "f16"]  # ggml has no block types of V without flash attention
    for most, rounds in ROUNDS.items():
        if most <= (depth if cache == "f16" else 4096):
            for way in ways * rounds:
                for case, speed in speeds(cache, way, most).items():
                    best[way, case] = max(best.get((way, case), 0), speed)
    for case in sorted({case for _, case in best}):
        heed, ggml, without = (best.get((way, case)) for way in WAYS)
        tokens = f"prompt of {case[1]}" if case[0] == "prompt" else f"one by one, {case[1]} before"
        print(f"| {cache} | {tokens} | {heed:.1f} | {ggml:.1f} | {without:.1f} | {heed / ggml:.2f} | {heed / without:.2f} |" if without else
              f"| {cache} | {tokens} | {heed:.1f} | {ggml:.1f} | | {heed / ggml:.2f} | |", flush=True)
