#!/usr/bin/env bash
# Two benches side by side: script/compare on made files whose verdicts are known, Welch's test on data whose t, degrees of freedom and p are in textbooks;
# heed bench --plot with and without gnuplot; the warning on a busy machine.   HEED_BUILD names the build folder.
. "$(dirname "$0")/shell_rig.sh"
heed=$(realpath "${HEED_BUILD:-build/release}")/heed
compare=${HEED_COMPARE:-script/compare}
export HEED_CACHE_DIR=$work/cache
shows=("$work/log") lines=20

python3 - "$work" <<'PYTHON'
import json, random, sys
work = sys.argv[1]
# Student's sleep data: R's t.test(extra ~ group, data = sleep) says t = -1.8608, df = 17.776, p = 0.07939.
one = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
two = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
def row(problem, samples, fma=100, read=20, **more):
    return dict(problem=problem, device="cpu", backend="cpu", kernel="cpu.avx2.decode", samples_ms=samples, roof_fma_gflops=fma, roof_read_gbps=read, **more)
def save(name, rows): json.dump(rows, open(f"{work}/{name}.json", "w"))
save("sleep_a", [row("sleep", one)])
save("sleep_b", [row("sleep", two)])
r = random.Random(7)
def around(mean, spread, n=20): return [r.gauss(mean, spread) for _ in range(n)]
save("a", [row("same", around(1, 0.05)), row("faster", around(1, 0.05)), row("slower", around(1, 0.05)), row("small", around(1, 1e-4)),
           row("machine", around(1, 0.01), 100, 20), row("alone", around(1, 0.1)), row("bare", None), row("still", [2.0] * 5)])
save("b", [row("same", around(1, 0.05)), row("faster", around(0.8, 0.05)), row("slower", around(1.3, 0.2)), row("small", around(1.01, 1e-4)),
           row("machine", around(1.4, 0.01), 65, 20), row("bare", None), row("still", [2.0] * 5), row("new", [1, 2])])
save("busy", [row("same", around(1, 0.05), load=7.5)])
save("other", [row("nothing alike", [1, 2, 3])])
PYTHON

"$compare" --json "$work/sleep_a.json" "$work/sleep_b.json" >"$work/sleep" 2>"$work/log"
python3 -c "
import json, sys
r = json.load(open(sys.argv[1]))[0]
assert abs(r['t'] + 1.8608) < 5e-5 and abs(r['freedom'] - 17.776) < 5e-4 and abs(r['p'] - 0.07939) < 5e-6, r" "$work/sleep" 2>"$work/log"
verdict $? "Welch's test on the sleep data"

row_is() { # PROBLEM VERDICT
  grep -E ", $1\$" "$work/table" | grep -qF "  $2  "
  verdict $? "$1 is $2"
}
"$compare" "$work/a.json" "$work/b.json" >"$work/table" 2>"$work/err"
[ $? = 1 ]
verdict $? "exit code 1 where a row is slower"
cp "$work/table" "$work/log"
row_is same "noise (chance) "
row_is faster "faster         "
row_is slower "slower         "
row_is small "noise (small)  "
row_is machine "noise (machine)"
row_is bare "no samples     "
row_is still "noise (chance) "
grep -qx "1 faster, 1 slower, 4 noise" "$work/table"
verdict $? "the sums"
grep -q "a.json: 1 row without a partner" "$work/err" && grep -q "b.json: 1 row without a partner" "$work/err"
verdict $? "rows without a partner"
"$compare" "$work/b.json" "$work/a.json" --least 0.5 >"$work/table" 2>"$work/err"
row_is small "faster         "
row_is slower "faster         "
"$compare" "$work/a.json" "$work/a.json" >"$work/table" 2>"$work/err" && grep -q "0 faster, 0 slower" "$work/table"
verdict $? "the same file twice is noise, exit code 0"
"$compare" "$work/a.json" "$work/busy.json" 2>&1 >"$work/table" | grep -q "machine was busy (load 7.5)"
verdict $? "a busy machine is named"
for arguments in "$work/a.json" "$work/a.json $work/none.json" "$work/a.json $work/other.json" "$work/a.json tests/test_compare.sh" "--fly $work/a.json $work/b.json"; do
  # shellcheck disable=SC2086
  "$compare" $arguments >"$work/log" 2>&1
  [ $? = 2 ]
  verdict $? "exit code 2: $arguments"
done

# ---- heed bench: two runs that compare can read, and its picture
problems=("hq2 d32 q1 kv64" "hq2 d32 q1 kv128" "hq2 d32 q8 causal")
(cd "$work" && "$heed" bench --device cpu --threads 1 --plot curves.svg --save one.json "${problems[@]}") >"$work/log" 2>&1
verdict $? "heed bench --plot"
"$compare" "$work/one.json" "$work/one.json" >"$work/log" 2>&1 && grep -qx "0 faster, 0 slower, 3 noise" "$work/log"
verdict $? "compare reads what heed bench saves"
python3 -c "
import json, sys
for row in json.load(open(sys.argv[1])):
    n = len(row['samples_ms'])
    assert 2 <= n <= 20 and abs(sum(row['samples_ms']) / n - row['ms_mean']) < 0.05 * row['ms_mean'], row
    assert row['ms_min'] <= row['ms_mean'] <= row['ms_max'] and row['load'] >= 0" "$work/one.json" 2>"$work/log"
verdict $? "samples and their mean"
cp "$work/curves.dat" "$work/log"
[ "$(grep -c '^# cpu: ' "$work/curves.dat")" = 2 ] && grep -q '^# cpu: hq2 d32 q1$' "$work/curves.dat" && grep -q '^# cpu: hq2 d32 causal q=kv$' "$work/curves.dat"
verdict $? "two curves: decode over two caches, and a square"
[ "$(grep -c '^[0-9]' "$work/curves.dat")" = 3 ] && grep -q "index 1 using 1:2" "$work/curves.gp" && grep -q "1:5" "$work/curves.gp"
verdict $? "three points, time and share of the roof"
if command -v gnuplot >/dev/null; then
  grep -q "GNUPLOT" "$work/curves.svg"
  verdict $? "drawn by gnuplot"
else
  skip compare "gnuplot is not installed"
fi
mkdir "$work/bin"
ln -s "$(command -v python3)" "$work/bin/"
(cd "$work" && PATH=$work/bin "$heed" bench --device cpu --threads 1 --plot bars.svg "hq2 d32 q1 kv64") >"$work/log" 2>&1 && grep -q "gnuplot is not here" "$work/log" && grep -q "<rect x=" "$work/bars.svg"
verdict $? "without gnuplot: bars, and the numbers for it"
"$heed" bench --device cpu --plot "$work/curves.txt" "hq2 d32 q1 kv64" >"$work/log" 2>&1
[ $? = 2 ] && grep -q "should end in" "$work/log"
verdict $? "another ending is refused before anything is timed"

# ---- a busy machine: as many idle loops as there are CPUs, and one more
spinners=()
for _ in $(seq $(($(nproc) + 1))); do
  nice -n 19 sh -c 'while :; do :; done' &
  spinners+=($!)
done
sleep 0.2
"$heed" bench --device cpu --threads 1 "hq1 d8 q1 kv8" 2>"$work/log" >/dev/null
kill "${spinners[@]}"
wait 2>/dev/null
if [ -r /proc/loadavg ]; then
  grep -q "the machine is busy: load" "$work/log"
  verdict $? "a warning when others run"
else
  skip compare "no /proc/loadavg"
fi

finish
