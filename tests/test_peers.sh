#!/usr/bin/env bash
# `heed bench --peers` from outside: it names the peers that are there and those that are not, checks each before it times it, and reports a wrong,
# failing or dying one without a time. No time is compared with anything. tests/test_peers.sh [PATH OF heed]
. "$(dirname "$0")/shell_rig.sh"
heed=${1:-${HEED_BUILD:-build/release}/heed}
unset HEED_PEERS_SPOIL
compiled=${HEED_CACHE_DIR:-} # of the programs that other tests compiled
shows=("$work/err")
export TMPDIR=$work HEED_CACHE_DIR=$work/cache HEED_PEERS_PYTHON=$work/nowhere

bench() { # PROBLEM...: rows as JSON in $work/out, words in $work/err
  timeout 120 "$heed" bench --device cpu --threads 1 --peers --json "$@" >"$work/out" 2>"$work/err" </dev/null
  verdict $? "exit $?: heed bench --peers $*"
}

says() { # TEXT
  grep -qF -- "$1" "$work/err"
  verdict $? "no \"$1\""
}

python() { # NAME PROGRAM: the rows by peer
  python3 - "$work/out" >>"$work/err" 2>&1 <<PYTHON
import json, sys
rows = {row["peer"]: row for row in json.load(open(sys.argv[1]))}
def timed(row):
    return row["peer_ms_median"] is not None and row["peer_ms_median"] > 0 and row["speedup"] > 0 and row["note"] in (None, "SLOWER")
def untimed(row, note, word):
    return row["peer_ms_median"] is None and row["speedup"] is None and row["note"] == note and word in row["peer_message"]
$2
PYTHON
  verdict $? "$1"
}

# What is there depends on the machine; every name is said in any case.
names() {
  bench "hq2 d16 q12 causal"
  for name in plain-loops openblas blis onednn clblast pytorch onnxruntime openvino; do says "peer $(printf %-12s $name)"; done
  says "peer pytorch      is not there: not installed (script/peers does it)"
  python "plain loops are checked and timed, the absent ones have no row" '
assert timed(rows["plain-loops"]) and rows["plain-loops"]["peer_difference"] < 1e-4 and rows["plain-loops"]["version"]
assert "pytorch" not in rows
for name, row in rows.items():
    assert timed(row) and row["version"], name'
  bench "hq2 d16 q8 f16 sinks"
  python "a problem that no peer can do stands alone" 'assert list(rows) == [None] and rows[None]["ms_median"] > 0'
}

planted() {
  HEED_PEERS_SPOIL=plain-loops bench "hq2 d16 q12 causal"
  says "plain-loops is not timed: wrong"
  python "a spoiled result is WRONG and not timed" 'assert untimed(rows["plain-loops"], "WRONG", "wrong by")'
}

# A process that speaks as python_peers.py does: right, wrong, NaN, short, refusing, failing in a later run, and one that takes the process with it.
fake_process() {
  cat >"$work/fake.py" <<'PYTHON'
import array, math, os, sys
def tell(*words):
    print("\t".join(words), flush=True)
for name in "right", "wrong", "nan", "short", "unable", "falls", "late":
    tell("peer", name, "1.0")
tell("absent", "gone", "on holiday")
tell("end")
runs = {}
for line in sys.stdin:
    words = line.rstrip("\n").split("\t")
    if words[0] == "problem":
        folder, kind = words[1], words[2]
        b, hq, hk, n, m, d, dv, causal = map(int, words[3:11])
        scale = float(words[11])
        assert kind == "f32" and words[12] == "1"
        def load(name, count):
            got = array.array("f")
            got.frombytes(open(os.path.join(folder, name), "rb").read())
            assert len(got) == count, (name, len(got), count)
            return got
        q, k, v = load("q", b * hq * n * d), load("k", b * hk * m * d), load("v", b * hk * m * dv)
        tell("ok")
    elif words[0] == "begin":
        tell("error", "no form of this problem") if words[1] == "unable" else tell("ok", "by hand")
    elif words[0] == "run":
        runs[words[1]] = runs.get(words[1], 0) + 1
        if words[1] == "late" and n == 6:
            sys.exit(3)
        if words[1] == "falls" and runs["falls"] > 2:
            tell("error", "fell over")
        else:
            tell("ok", " ".join(["0.001"] * int(words[2])))
    elif words[0] == "result":
        o = array.array("f")
        for s in range(b):
            for h in range(hq):
                g = h // (hq // hk)
                for i in range(n):
                    last = m - n + i if causal == 1 else i if causal == 2 else m - 1
                    at = ((s * hq + h) * n + i) * d
                    seen = [sum(q[at + x] * k[((s * hk + g) * m + j) * d + x] for x in range(d)) * scale for j in range(min(last, m - 1) + 1)]
                    most = max(seen)
                    w = [math.exp(x - most) for x in seen]
                    for x in range(dv):
                        o.append(sum(w[j] * v[((s * hk + g) * m + j) * dv + x] for j in range(len(w))) / sum(w))
        if words[1] == "wrong": o[-1] += 0.1
        if words[1] == "nan": o[0] = math.nan
        if words[1] == "short": o.pop()
        open(os.path.join(folder, "o"), "wb").write(o.tobytes())
        tell("ok")
    else:
        tell("ok")
PYTHON
  HEED_PEERS_PYTHON=python3 HEED_PEERS_SCRIPT=$work/fake.py bench "b2 hq4 hk2 d8 dv12 q5 kv9 causal"
  says "peer gone         is not there: on holiday"
  says "wrong is not timed: wrong by"
  python "a process with good and bad peers: each gets its own verdict" '
assert timed(rows["right"]) and abs(rows["right"]["peer_ms_median"] - 1) < 1e-6 and rows["right"]["peer_setting"] == "by hand"
assert untimed(rows["wrong"], "WRONG", "wrong by") and untimed(rows["nan"], "WRONG", "wrong by")
assert untimed(rows["short"], "FAILED", "too short")
assert "unable" not in rows and "gone" not in rows
assert timed(rows["late"]) and untimed(rows["falls"], "FAILED", "fell over")'
  HEED_PEERS_PYTHON=python3 HEED_PEERS_SCRIPT=$work/fake.py bench "hq2 d8 q4" "hq2 d8 q4 f16" "hq1 d8 q3 topleft causal"
  HEED_PEERS_PYTHON=python3 HEED_PEERS_SCRIPT=$work/fake.py bench "hq2 d8 q6" "hq2 d8 q5"
  says "late is not timed: failed: the Python process died"
  python "a process that dies is started again for the next problem" 'assert rows["right"]["problem"] == "hq2 d8 q5" and timed(rows["right"]) and timed(rows["late"])'
  [ -z "$(ls -d "$work"/heed-peers-* 2>/dev/null)" ]
  verdict $? "no folder of arrays stays behind"
  echo 'print("nonsense")' >"$work/fake.py"
  HEED_PEERS_PYTHON=python3 HEED_PEERS_SCRIPT=$work/fake.py bench "hq1 d8 q3"
  says "the Python process did not start"
}

# The real script, where its packages are (script/peers): all that is there must be right.
real_process() {
  local python=$PWD/.peers/python/bin/python
  [ -x "$python" ] || { echo "skipped: Python peers are not installed (script/peers)"; return; }
  HEED_PEERS_PYTHON=$python bench "hq4 hk2 d16 q12 kv20 causal" "hq4 hk2 d16 q1 kv20 causal" "hq2 d16 q12"
  ! grep -q "not timed" "$work/err"
  verdict $? "every Python peer that is there is right"
}

summary() {
  bench "hq2 d16 q16" "hq2 d16 q17" "hq2 d16 q40"
  says "against the best of plain loops and unfused products: 3 points"
  says "neighbours: 1 pairs"
  timeout 120 "$heed" bench --device cpu --threads 1 --save "$work/saved.json" "hq1 d8 q4" >"$work/out" 2>"$work/err"
  python3 -c "import json, sys; assert json.load(open(sys.argv[1]))[0]['problem'] == 'hq1 d8 q4'" "$work/saved.json"
  verdict $? "--save writes the rows"
  timeout 120 "$heed" bench --device cpu --threads 1 --save "$work/none/saved.json" "hq1 d8 q4" >"$work/out" 2>"$work/err"
  [ $? = 2 ]
  verdict $? "--save says when it cannot write"
}

# Peers that run on an OpenCL device, on the device that heed runs on.
on_opencl() {
  if ! "$heed" info 2>/dev/null | grep -q '^opencl:0'; then
    skip "peers on OpenCL" "no OpenCL device"
    return
  fi
  [ -z "$compiled" ] || export HEED_CACHE_DIR=$compiled
  bench --device opencl --naive "hq2 hk1 d32 q9 kv9 causal" "hq2 hk1 d32 q1 kv40 causal"
  says "peer opencl.naive kernels/naive.cl"
  says "against the table's last row, opencl.naive: 2 points"
  python "the last row is checked and timed beside the chosen one, CLBlast too where it is installed" '
row = rows["opencl.naive"]
assert timed(row) and row["kernel"] != "opencl.naive" and row["backend"] == "opencl" and row["peer_difference"] < 1e-4
absent = "clblast      is not there" in open(sys.argv[1][:-3] + "err").read()
assert absent or timed(rows["clblast"]) and "product" in rows["clblast"]["peer_setting"] and rows["clblast"]["peer_difference"] < 1e-4, rows.keys()'
  HEED_PEERS_SPOIL=opencl.naive bench --device opencl --naive "hq2 hk1 d32 q9 kv9 causal"
  says "opencl.naive is not timed: wrong"
  bench --device opencl --naive --kernel opencl.naive "hq2 hk1 d32 q9 kv9 causal"
  python "the last row is not compared with itself" 'assert "opencl.naive" not in rows'
  started opencl "--kernel opencl.naive"
  timeout 120 "$heed" bench --device opencl --queued 4 --json "hq2 hk1 d32 q1 kv40 causal" "hq2 hk1 d32 q9 kv9 causal" >"$work/out" 2>"$work/err"
  python3 -c 'import json, sys
rows = json.load(open(sys.argv[1]))
assert len(rows) >= 2 and all(row["queued"] == 4 and row["ms_median"] > 0 and row["worst_ratio"] <= 1 for row in rows), rows' "$work/out" 2>>"$work/err"
  verdict $? "--queued: runs on one queue, one wait"
  timeout 120 "$heed" bench --device opencl --queued 4 --naive "hq2 hk1 d32 q1 kv40 causal" >"$work/out" 2>"$work/err"
  [ $? = 2 ]
  verdict $? "--queued beside others is refused: their runs are not in a row"
  export HEED_CACHE_DIR=$work/cache
}

started() { # DEVICE OPTIONS: --start
  # shellcheck disable=SC2086
  timeout 120 "$heed" bench --start --device "$1" $2 --json "hq2 hk1 d32 q9 kv9 causal" >"$work/out" 2>"$work/err" </dev/null
  verdict $? "exit $?: heed bench --start --device $1 $2"
  python3 - "$work/out" "$1" "$2" >>"$work/err" 2>&1 <<'PYTHON'
import json, sys
rows = json.load(open(sys.argv[1]))
assert len(rows) >= 1
for row in rows:
    assert row["device"].startswith(sys.argv[2]) and row["problem"] == "hq2 hk1 d32 q9 kv9 causal" and row["kernel"]
    for key in "context_ms", "first_ms", "cold_ms", "warm_ms", "again_us", "row_cold_ms", "row_warm_ms": assert row[key] > 0, key
    assert (row["found_us"] is None) == bool(sys.argv[3]) and (sys.argv[3] or row["found_us"] > 0)
PYTHON
  verdict $? "--start: a row per device with every figure"
  [ -z "$(ls -d "$work"/heed-start-* 2>/dev/null)" ]
  verdict $? "--start: no folder of caches stays behind"
}

start() {
  started cpu ""
  timeout 60 "$heed" bench --start --device cpu "hq2 d8 q4" >"$work/out" 2>"$work/err"
  grep -q "context ms .*cold ms .*warm ms .*found us .*row cold .*row warm" "$work/out"
  verdict $? "--start: the columns"
  for words in --peers "--suite small" "'hq1 d8 q3' 'hq1 d8 q4'" "--kernel no.such.row"; do
    eval "timeout 60 '$heed' bench --start $words" >"$work/out" 2>"$work/err"
    [ $? = 2 ] && [ -s "$work/err" ]
    verdict $? "--start with $words is refused"
  done
  timeout 60 "$heed" bench --start --device nowhere >"$work/out" 2>"$work/err"
  [ $? = 3 ]
  verdict $? "--start: a device that is not there"
}

names
on_opencl
start
planted
fake_process
real_process
summary
finish
