# SPDX-License-Identifier: MIT
# Tokens per second of llama-bench with the plug-in (heed), with ggml's own flash attention (ggml) and without flash attention (plain), in turns, on
# two layers of Llama 3.2 1B's shape with random weights. Best of the rounds: others on the machine only ever take time.
#   bench.py LLAMA_BENCH PLUGIN FOLDER [ROUNDS [THREADS]]
import json
import os
import subprocess
import sys

program, plugin, folder = sys.argv[1:4]
rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 3
threads = sys.argv[5] if len(sys.argv) > 5 else str(len(os.sched_getaffinity(0)))
model = os.path.join(folder, "big.gguf")
WAYS = {"heed": ("on", True), "ggml": ("on", False), "plain": ("off", False)}
# prompt tokens, tokens one by one, tokens in the cache before, cache, rounds at most
CASES = [
    (512, 0, 0, "f16", 9), (4096, 0, 0, "f16", 2), (0, 16, 0, "f16", 9), (0, 16, 4096, "f16", 2), (0, 16, 16384, "f16", 1),
    (512, 0, 0, "q8_0", 9), (0, 16, 0, "q8_0", 9), (0, 16, 4096, "q8_0", 2),
]


def speed(case, way):
    prompt, single, depth, cache, _ = case
    flash, ours = WAYS[way]
    environment = {name: value for name, value in os.environ.items() if name not in ("GGML_BACKEND_PATH", "HEED_GGML", "OMP_WAIT_POLICY")}
    if ours:
        environment["GGML_BACKEND_PATH"] = plugin
    done = subprocess.run([program, "-m", model, "-p", str(prompt), "-n", str(single), "-d", str(depth), "-ctk", cache, "-ctv", cache, "-fa", flash,
                           "-t", threads, "-r", "1" if depth or prompt > 512 else "3", "-o", "json"],
                          env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return max(json.loads(done.stdout)[0]["samples_ts"])


if not os.path.exists(model):
    subprocess.run([sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "model.py"), "big", model], check=True)
print(f"{threads} threads, load of the machine at the start {os.getloadavg()[0]:.1f}, best of up to {rounds} rounds, tokens per second")
print()
print("| cache | tokens | behind | heed | ggml | without flash attention | heed / ggml |")
print("| --- | --- | --- | --- | --- | --- | --- |")
for case in CASES:
    prompt, single, depth, cache, most = case
    best = {way: 0.0 for way in WAYS if way != "plain" or cache == "f16"}
    for _ in range(min(rounds, most)):
        for way in best:
            best[way] = max(best[way], speed(case, way))
    plain = f"{best['plain']:.1f}" if "plain" in best else ""
    tokens = f"prompt of {prompt}" if prompt else "one by one"
    print(f"| {cache} | {tokens} | {depth} | {best['heed']:.1f} | {best['ggml']:.1f} | {plain} | {best['heed'] / best['ggml']:.2f} |", flush=True)
