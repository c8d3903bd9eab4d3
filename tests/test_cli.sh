#!/usr/bin/env bash
# The command from outside: exit codes 0, 1, 2 and 3, help, JSON that parses and has the keys of doc/command.md, files in and out, and refusals
# that name the word. tests/test_cli.sh [PATH OF heed]
. "$(dirname "$0")/shell_rig.sh"
heed=${1:-${HEED_BUILD:-build/release}/heed}
data=examples/data
files=(--q $data/q.npy --k $data/k.npy --v $data/v.npy)
export HEED_CACHE_DIR=$work/cache

exits() { # CODE TEXT ARGS...: the exit code, and the text somewhere in the output
  local code=$1 text=$2 got
  shift 2
  "$heed" "$@" >"$work/out" 2>"$work/err" </dev/null
  got=$?
  [ $got = "$code" ] && grep -qF -- "$text" "$work/out" "$work/err"
  verdict $? "exit $got, wanted $code with \"$text\": heed $*"
}

# The same where drivers are loaded: they leak at exit, which the sanitizer would lay at our door.
exits_with_drivers() {
  local before=${ASAN_OPTIONS:-}
  export ASAN_OPTIONS=$before:detect_leaks=0
  exits "$@"
  export ASAN_OPTIONS=$before
}

python() { # NAME PROGRAM: reads $work/out as JSON into `rows`
  python3 - "$work/out" "$work" >"$work/err" 2>&1 <<PYTHON
import json, math, struct, sys
rows = json.load(open(sys.argv[1]))
work = sys.argv[2]
assert isinstance(rows, list), "not an array"
$2
PYTHON
  verdict $? "$1"
}

npy='
def npy(path):
    b = open(path, "rb").read()
    assert b[:6] == b"\x93NUMPY"
    n = struct.unpack("<H", b[8:10])[0]
    head = eval(b[10:10 + n])
    count = math.prod(head["shape"])
    assert head["descr"] == "<f4" and len(b) == 10 + n + 4 * count
    return head["shape"], struct.unpack("<%df" % count, b[10 + n:])
'

help_and_usage() {
  exits 0 "heed VERB" --help
  exits 0 "heed 0." --version
  exits 0 "heed check [PROBLEM...]" help check
  exits 0 ".TH HEED 1" help --man
  exits 2 "no verb fly" help --man fly
  exits 2 "no completion for csh" help --complete csh
  exits 2 "fly is not understood" help fly
  for verb in info run check bench tune roof show cache explore; do exits 0 "--help" $verb --help; done
  exits 2 "a verb is missing"
  exits 2 "unknown verb fly" fly
  exits 2 "one problem at a time" tune "hq1 d8" "hq2 d8"
  exits 2 "rows of the CPU have no tile sizes" tune --device cpu
  exits 2 "--fly" check --fly
  exits 2 "does not take --peers" check --peers
  exits 2 "does not take the word" info causal
  exits 2 "a value is missing" check --device
  exits 2 "not a count: many" check --threads many
  exits 2 "takes no value" check --json=yes
  exits 2 "causl" check --device cpu "hq2 d8 q3 causl"
  exits 2 "hq" check --device cpu "hq3 hk2 d8 q3"
  exits 2 'did you mean "bf16"?' check --device cpu bfloat16
  exits 2 "no dashes before a word of a problem: --causal" run --causal
  exits 2 "unknown option --casual" run --casual
  exits 2 "--threads 0: it is a number from 1" check --threads 0
  exits 2 "--queued 0: it is a number from 1" bench --queued 0
  exits 2 'an empty problem or word: ""' check --device cpu ""
  exits 2 "one of them" cache --list --clear
  exits 2 "--start takes" bench --start --queued 2
  exits 2 "cpu.avx9.decode" check --kernel cpu.avx9.decode
  exits 2 "there are reference, cpu and opencl" check --device cpu --against moon
  exits 2 "no suite slow" bench --device cpu --suite slow
  exits_with_drivers 3 "no device matches" check --device no-such-device
}

checks() {
  exits 0 "1 passed, 0 failed, 0 skipped" check --device cpu "hq2 d16 q5 causal lse"
  exits 0 "1 passed, 0 failed, 0 skipped" check --device cpu hq2 d16 q5 causal
  exits 0 "2 passed, 0 failed, 0 skipped" check --device cpu "hq2 d16 q5" "hq1 d8 q1 kv9 f16"
  exits 0 "1 passed, 0 failed, 0 skipped" check --device cpu "${files[@]}"
  exits 0 "0 failed" check --device cpu
  exits 2 "nothing was compared" check --device cpu --against cpu "hq2 d16 q5"
  # words that contradict each other only when all are read: refused before anything is computed, and no count of nothing
  exits 2 "a paged cache has no packed q" check --device cpu "hq1 d8" "layout=qkv page=4"
  [ ! -s "$work/out" ]
  verdict $? "nothing is computed where one of the problems is no problem"
  exits 2 "there are heads 0 to 0" check --device cpu "sheads=9 scores=1"
  exits 2 "head 0 twice" check --device cpu "hq2 sheads=0,0 scores=1"
  exits 2 "tree and pos=" check --device cpu --against cpu "tree pos=3"
  exits 2 "beyond 2^31 - 1" check --device cpu "b2 pos=2147483647"
  exits 2 "GiB" check --device cpu "b2000000000 hq64"
  exits 2 "a paged cache has no packed q" bench --device cpu "layout=qkv page=4"
  exits 2 "there are heads 0 to 0" show sheads=9
  exits 2 "there are heads 0 to 3" run "${files[@]}" sheads=4 -o "$work/o.npy" --scores "$work/s.npy"
  exits 2 "no case.json" check --device cpu --cases $data
  exits 2 "--v FILE is missing" check --device cpu --q $data/q.npy --k $data/k.npy
  exits 0 '"verdict": "pass"' check --device cpu --json "hq2 d16 q5 causal lse" "hq2 d16 q1 kv40 bf16"
  python "check --json has its keys" '
keys = {"problem", "device", "backend", "kernel", "verdict", "worst_ratio", "elements", "outside", "got", "expected", "bound", "place", "message"}
assert len(rows) == 2
for row in rows:
    assert keys <= set(row), keys - set(row)
    assert row["verdict"] == "pass" and 0 <= row["worst_ratio"] <= 1 and row["elements"] > 0 and len(row["place"]) == 4'
}

# A case whose stored result is wrong must fail with exit code 1: the check is seen to fail once.
wrong_case() {
  mkdir -p "$work/cases/wrong"
  python3 - "$work/cases/wrong" <<'PYTHON'
import json, struct, sys
def save(name, descr, shape, values, code):
    head = "{'descr': '%s', 'fortran_order': False, 'shape': %s, }" % (descr, shape)
    head += " " * ((-(10 + len(head) + 1)) % 64) + "\n"
    with open(sys.argv[1] + "/" + name, "wb") as f:
        f.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + struct.pack("<%d%s" % (len(values), code), *values))
q, v = (1, 1, 1, 4), (1, 1, 2, 4)
save("q.npy", "<f4", q, [0, 0, 0, 0], "f")
save("k.npy", "<f4", v, [1, 0, 0, 0, 0, 1, 0, 0], "f")
save("v.npy", "<f4", v, [1, 1, 1, 1, 3, 3, 3, 3], "f")
save("Y.npy", "<f8", q, [2, 2, 2.5, 2], "d")  # right is 2 everywhere
save("lse.npy", "<f8", (1, 1, 1), [0.6931471805599453], "d")
save("bound.npy", "<f4", q, [1e-6] * 4, "f")
save("lse_bound.npy", "<f4", (1, 1, 1), [1e-6], "f")
array = lambda role, file, dtype, shape: {"role": role, "file": file, "dtype": dtype, "shape": list(shape)}
json.dump({"format": "heed-case/1", "name": "wrong", "q_layout": "dense", "kv_layout": "dense", "batch": 1, "q_heads": 1, "kv_heads": 1,
           "head_dim": 4, "v_head_dim": 4, "q_len": [1], "kv_len": [2], "q_position": [1], "causal": False, "window": [-1, -1], "scale": None,
           "softcap": 0, "exact": [], "poison": False,
           "inputs": [array("q", "q.npy", "float32", q), array("k", "k.npy", "float32", v), array("v", "v.npy", "float32", v)],
           "outputs": [array("Y", "Y.npy", "float64", q), array("lse", "lse.npy", "float64", (1, 1, 1)), array("bound", "bound.npy", "float32", q),
                       array("lse_bound", "lse_bound.npy", "float32", (1, 1, 1))]}, open(sys.argv[1] + "/case.json", "w"))
PYTHON
  exits 1 "0 passed, 1 failed, 0 skipped" check --device cpu --cases "$work/cases"
}

files_in_and_out() {
  exits 0 "cpu" run --device cpu "${files[@]}" -o "$work/o.npy" --lse "$work/lse.npy" --scores "$work/s.npy"
  exits 0 '"kernel"' run --device cpu "${files[@]}" --json -o "$work/o.npy" --lse "$work/lse.npy" --scores "$work/s.npy"
  python "run writes o, lse and scores that agree with each other and with the definition" "$npy"'
shape, o = npy(work + "/o.npy")
assert shape == (37, 4, 32), shape
shape, lse = npy(work + "/lse.npy")
assert shape == (4, 37), shape
shape, p = npy(work + "/s.npy")
assert shape == (4, 37, 37), shape
_, q = npy("'$data'/q.npy"); _, k = npy("'$data'/k.npy"); _, v = npy("'$data'/v.npy")
for h in range(4):
    for i in range(37):
        s = [sum(q[(i * 4 + h) * 32 + d] * k[(j * 4 + h) * 32 + d] for d in range(32)) / math.sqrt(32) for j in range(37)]
        total = sum(map(math.exp, s))
        assert abs(lse[h * 37 + i] - math.log(total)) < 1e-4
        w = [math.exp(x) / total for x in s]
        assert max(abs(a - b) for a, b in zip(w, p[(h * 37 + i) * 37:])) < 1e-5
        for d in range(32):
            assert abs(o[(i * 4 + h) * 32 + d] - sum(w[j] * v[(j * 4 + h) * 32 + d] for j in range(37))) < 1e-4'
  exits 0 "cpu" run --device cpu "${files[@]}" causal wl=3 -o "$work/o2.npy"
  [ -s "$work/o.npy" ] && [ -s "$work/o2.npy" ] && ! cmp -s "$work/o.npy" "$work/o2.npy"
  verdict $? "causal wl=3 changes the result"
  exits 2 "--v FILE is missing" run --q $data/q.npy --k $data/k.npy
  exits 2 "nowhere.npy" run --q nowhere.npy --k $data/k.npy --v $data/v.npy
  exits 2 "$work cannot be read: Is a directory" run --q "$work" --k $data/k.npy --v $data/v.npy
  exits 2 "tokens.txt" run --q $data/tokens.txt --k $data/k.npy --v $data/v.npy
  exits 2 "contradicts the shapes" run "${files[@]}" hq8
  exits 2 "contradicts the types" run "${files[@]}" q=f16
  exits 2 "no form in files" run "${files[@]}" page=16
  exits 2 "$work/none/o.npy" run --device cpu "${files[@]}" -o "$work/none/o.npy"
}

pictures() {
  exits 0 "animal 0.45" show "${files[@]}" --tokens $data/tokens.txt
  exits 0 "animal 0.45" show --q $data/q.npy --k $data/k.npy --tokens $data/tokens.txt
  exits 0 "mean of 4 heads" show "${files[@]}" --mean --tokens $data/tokens.txt
  cp "$work/out" "$work/mean"
  echo '[]' >"$work/out"
  python "show --mean is the mean of the scores that run wrote" "$npy"'
_, p = npy(work + "/s.npy")
tokens = open("'$data'/tokens.txt").read().split()
mean = [sum(p[(h * 37 + 9) * 37 + j] for h in range(4)) / 4 for j in range(37)]
best = max(range(37), key=lambda j: mean[j])
line = next(l for l in open(work + "/mean") if l.split()[0] == tokens[9] == "it")
assert line.rstrip().endswith("%s %.2f" % (tokens[best], mean[best])), (line, tokens[best], mean[best])'
  exits 0 "purred" show
  exits 0 "cat 1.00" show scale=20
  exits 0 $'\x1b[48;5;' show --color 256
  exits 0 $'\x1b[48;2;' show --color 24bit
  TERM=xterm-256color exits 0 "@@" show # not a terminal: plain
  [ -s "$work/out" ] && ! grep -q $'\x1b' "$work/out"
  verdict $? "no colours where standard output is no terminal"
  exits 0 "37 x 37" show "${files[@]}" -o "$work/map.png" --zoom 4
  python3 -c "import sys, struct
b = open(sys.argv[1], 'rb').read()
assert b[:8] == b'\x89PNG\r\n\x1a\n' and struct.unpack('>II', b[16:24]) == (148, 148)" "$work/map.png"
  verdict $? "the picture is a PNG of 148 x 148"
  exits 2 "there are heads 0 to 3" show "${files[@]}" --head 4
  exits 2 "there are heads 0 to 3" show "${files[@]}" --sums --head 4
  exits 0 "from the last 5 queries, head 2 of 4" show "${files[@]}" --sums --head 2 srows=5 --tokens $data/tokens.txt
  exits 0 "all 4 heads together" show "${files[@]}" --sums --mean
  exits 0 "from 6 queries, head 0 of 1" show --sums
  exits 0 "cpu" run --device cpu "${files[@]}" --key-sums "$work/sums.npy" --scores "$work/some.npy" srows=5 sheads=2,0
  exits 0 '"kernel"' run --device cpu "${files[@]}" --json --key-sums "$work/sums.npy" --scores "$work/some.npy" srows=5 sheads=2,0
  python "key sums are the sums of the scores of the last queries" "$npy"'
shape, s = npy(work + "/some.npy")
width, sums = npy(work + "/sums.npy")
keys = shape[-1]
assert shape[-3:-1] == (2, 5) and width[-2:] == (4, keys), (shape, width)
for n, h in enumerate((2, 0)):
    for j in range(keys):
        want = sum(s[(n * 5 + t) * keys + j] for t in range(5))
        assert abs(want - sums[h * keys + j]) < 1e-5, (h, j)
'
  python3 -c 'import struct, sys
head = "{\x27descr\x27: \x27<f4\x27, \x27fortran_order\x27: False, \x27shape\x27: (2, 1, 2), }".ljust(117) + "\n"
open(sys.argv[1], "wb").write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + struct.pack("<4f", *[float("nan")] * 4))' "$work/nan.npy"
  exits 0 "(no numbers: NaN)" show --q "$work/nan.npy" --k "$work/nan.npy"
  exits 0 "" show --sums --q "$work/nan.npy" --k "$work/nan.npy"
  { printf 'a\033[31m\n\302\233b\n' && seq 35; } >"$work/labels"
  exits 0 "a?[31m" show --q $data/q.npy --k $data/k.npy --tokens "$work/labels"
  ! grep -qP '\x1b|\xc2\x9b' "$work/out"
  verdict $? "no label is an order to the terminal"
  { printf '\347\214\253\nab\ne\314\201\n' && seq 34; } >"$work/labels" # two columns; two letters; one letter and its mark
  exits 0 "" show --q $data/q.npy --k $data/k.npy --tokens "$work/labels" --color never
  grep -q $'^\347\214\253 ' "$work/out" && grep -q '^ab ' "$work/out" && grep -q $'^ e\314\201 ' "$work/out"
  verdict $? "labels take as many columns as a terminal gives them"
  exits 2 "the lesson has none" show --mask $data/q.npy
  exits 2 "bars of text" show --sums -o "$work/bars.png"
  exits 2 "should end in .png" show -o "$work/map.jpg"
  exits 2 "labels for 37 keys" show "${files[@]}" --tokens $data/README.md
  exits 2 "24bit" show --color purple
}

tables() {
  exits_with_drivers 0 "devices" info
  taskset -c "$(taskset -pc $$ | sed 's/.*: *//; s/[-,].*//')" "$heed" info >"$work/out" 2>&1 </dev/null
  grep -q ', 1 core, ' "$work/out" && ! grep -qE ' 1 (cores|compute units)' "$work/out"
  verdict $? "info on one processor says: 1 core"
  exits_with_drivers 0 '"version"' info --json
  python "info --json has its keys" '
info = rows[0]
assert {"version", "cpu", "threads", "cache_dir", "devices", "environment"} <= set(info)
assert {"isa", "isas", "cores", "l2_kib"} <= set(info["cpu"])
assert info["devices"][0]["backend"] == "cpu" and {"index", "name", "platform", "driver", "family", "matrix_unit", "admitted", "reason"} <= set(info["devices"][0])
assert info["environment"]["HEED_CACHE_DIR"] == work + "/cache"'
  exits 0 '"fma_gflops"' roof --device cpu --json
  python "roof --json has its keys" '
assert {"device", "backend", "threads", "fma_gflops", "bf16_gflops", "read_gbps", "launch_us"} <= set(rows[0])
assert rows[0]["threads"] == 1 and rows[0]["fma_gflops"] > 0.1 and rows[0]["read_gbps"] > 0.1'
  exits 0 '"gflops"' bench --device cpu --threads 1 --peers --json --plot "$work/plot.svg" "hq2 d32 q16"
  python "bench --json has its keys" '
keys = {"problem", "device", "backend", "kernel", "threads", "ms_median", "ms_min", "ms_max", "runs", "gflops", "kv_gbps", "roof_percent", "worst_ratio",
        "peer", "version", "peer_ms_median", "speedup"}
row = rows[0]
assert keys <= set(row), keys - set(row)
assert row["runs"] >= 10 and row["ms_min"] <= row["ms_median"] <= row["ms_max"] and row["peer"] == "plain-loops" and row["worst_ratio"] <= 1
assert abs(row["gflops"] - 2 * 64 * 2 * 16 * 16 / row["ms_median"] / 1e6) < 1e-3 * row["gflops"]'
  grep -q "</svg>" "$work/plot.svg"
  verdict $? "bench --plot draws"
  exits 0 "no OpenCL device is timed" bench --device cpu --threads 1 --queued 4 "hq2 d32 q16"
  mkdir -p "$work/cache" && chmod 700 "$work/cache"
  printf 'HEEDCL\r\nrest' >"$work/cache/0123456789abcdef0123456789abcdef.bin"
  echo precious >"$work/cache/0123456789abcdef0123456789abcdee.bin"
  exits 0 "1 file in" cache
  exits 0 "1 file removed" cache --clear
  [ ! -e "$work/cache/0123456789abcdef0123456789abcdef.bin" ] && [ -e "$work/cache/0123456789abcdef0123456789abcdee.bin" ]
  verdict $? "cache --clear removes what is ours and nothing else"
  "$heed" --version >/dev/full 2>"$work/err"
  [ $? = 4 ]
  verdict $? "a full disk is no success for --version either"
  "$heed" show >/dev/full 2>"$work/err"
  [ $? = 4 ]
  verdict $? "a full disk is no success"
}

help_and_usage
checks
wrong_case
files_in_and_out
pictures
tables
finish
