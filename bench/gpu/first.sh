#!/usr/bin/env bash
# One command on any machine with a GPU: what is there, what works, how fast; text files into $OUT (else bench/results/gpu), a summary to the terminal, within nine
# minutes. Nothing is installed and nothing is fetched: what the machine lacks comes from the folder that bench/gpu/carry.sh made (build/gpu, else $CARRIED). The
# driver's library gets an .icd file of our own where there is none. BARE=1 uses what was carried although the machine has its own; LIMIT=SECONDS is another end
# than nine minutes.
#   bench/gpu/first.sh            everything
#   bench/gpu/first.sh --small    the same with small sizes and few lines: proves the script itself, on any OpenCL device
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2
small=no
[ "${1:-}" = --small ] && small=yes
OUT=${OUT:-$PWD/bench/results/gpu}
carried=${CARRIED:-$PWD/build/gpu}
third=$carried/third
build=${BUILD:-$PWD/build/gpu-here}
mkdir -p "$OUT" "$build"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HEED_CACHE_DIR=$work/cache
begin=$(date +%s)
left() { echo $((begin + ${LIMIT:-540} - $(date +%s))); }
say() { printf '%4d s  %s\n' $(($(date +%s) - begin)) "$*"; }
limited() { # SECONDS FILE COMMAND...: output to the end of the file, never beyond the whole time
  local limit=$1 file=$2 rest
  shift 2
  rest=$(left)
  [ "$rest" -gt 5 ] || { echo "no time left for: $*" >>"$OUT/$file"; return 1; }
  timeout $((limit < rest ? limit : rest)) "$@" >>"$OUT/$file" 2>&1
  local status=$?
  [ $status = 0 ] || echo "exit status $status: $*" >>"$OUT/$file"
  return $status
}
rm -f "$OUT"/{machine,build,info,units,rates,check,bench,tiles,pytorch}.txt "$OUT/bench.json"

# ---- 1. the machine -------------------------------------------------------------------
machine() {
  nvidia-smi
  uname -a
  lscpu | head -20
  for tool in gcc cc cmake ninja make ptxas nvcc ncu python3; do command -v $tool; done
  ldconfig -p | grep -iE 'opencl|nvidia'
  find /etc/OpenCL /usr/local/nvidia /usr/local/cuda* /usr/lib /usr/lib64 -maxdepth 4 \( -name 'libnvidia-*' -o -name 'libOpenCL.so*' -o -name '*.icd' -o -name 'libcuda.so*' \) -print
  # anywhere else; may be cut off
  find / -xdev \( -path /proc -o -path /sys -o -path /usr/share \) -prune -o \( -name 'libnvidia-opencl*' -o -name 'libOpenCL.so*' -o -name '*.icd' \) -print
}
say "the machine: machine.txt"
timeout 30 bash -c "$(declare -f machine); machine" >"$OUT/machine.txt" 2>&1

# ---- 2. an ICD, a loader, a build --------------------------------------------------------
if ! grep -qE '/etc/OpenCL/vendors/.*nvidia.*\.icd$' "$OUT/machine.txt"; then
  library=$(grep -E '^/.*/libnvidia-opencl\.so\.1$' "$OUT/machine.txt" | head -1)
  [ -n "$library" ] || library=$(grep -E '^/.*/libnvidia-opencl\.so\.[0-9.]+$' "$OUT/machine.txt" | head -1)
  if [ -n "$library" ]; then
    mkdir -p "$work/vendors"
    echo "$library" >"$work/vendors/nvidia.icd"
    export OCL_ICD_VENDORS=$work/vendors OPENCL_VENDOR_PATH=$work/vendors
    export LD_LIBRARY_PATH=$(dirname "$library")${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  fi
fi
flags=""
if [ -d "$third" ]; then
  export LD_LIBRARY_PATH=$third/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  [ -e /usr/include/CL/cl.h ] && [ -e /usr/include/jansson.h ] && [ -e /usr/include/xxhash.h ] && [ -z "${BARE:-}" ] || flags="-I$third/include -L$third/lib"
fi
cc=$(command -v gcc || command -v cc || command -v clang)
loader=$(ls "$third/lib/libOpenCL.so.1" 2>/dev/null || echo -lOpenCL)
build_here() {
  local generator=()
  command -v ninja >/dev/null && generator=(-G Ninja)
  local options=(-DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DHEED_BUILD_TESTS=OFF -DHEED_BUILD_EXAMPLES=OFF -DHEED_INSTALL=OFF)
  [ -z "$flags" ] || options+=("-DCMAKE_C_FLAGS=-I$third/include" "-DOpenCL_INCLUDE_DIR=$third/include" "-DOpenCL_LIBRARY=$third/lib/libOpenCL.so.1"
    "-DXXHASH_LIBRARY=$third/lib/libxxhash.a" "-DJANSSON_LIBRARY=$third/lib/libjansson.a")
  cmake -S . -B "$build" "${generator[@]}" "${options[@]}" && cmake --build "$build" --target heed_command kernel_source -j "$(nproc)"
}
say "building: build.txt"
heed=$build/heed source=$build/kernel_source
if ! limited 150 build.txt bash -c "$(declare -f build_here); third='$third' build='$build' flags='$flags'; build_here"; then
  say "not built here (build.txt): the carried command is used"
  heed=$carried/heed source=$carried/kernel_source
fi
[ -x "$heed" ] || { say "no heed: neither built here nor carried (bench/gpu/carry.sh)"; exit 1; }
# shellcheck disable=SC2086
$cc -std=c11 -O2 $flags -o "$work/rates" bench/gpu/rates.c "$loader" >>"$OUT/build.txt" 2>&1

# ---- 3. what heed sees, and what the device can do at most ---------------------------------
say "heed info: info.txt"
limited 60 info.txt "$heed" info
kernels=()
for problem in "hq8 hk2 d128 bf16 causal lse" "hq8 hk2 d128 bf16" "hq8 hk2 d64 bf16 causal" "hq8 hk2 d256 bf16"; do
  kernels+=("$work/prefill_matrix.${#kernels[@]}.cl")
  "$source" nvidia opencl.prefill_matrix_bf16 "$problem" >"${kernels[-1]}"
done
"$source" nvidia opencl.prefill_tile "hq8 hk2 d128 f32 causal" >"$work/prefill_tile.cl"
"$source" nvidia opencl.decode_matrix_bf16 "hq64 hk8 d128 bf16" >"$work/decode_matrix.cl"
"$source" nvidia opencl.decode_lanes "hq8 hk2 d128 bf16" >"$work/decode_lanes.cl"
say "rates and the compiler's words: rates.txt"
if grep -q libnvidia-opencl "$OUT/machine.txt"; then kernels+=("$work/prefill_tile.cl" "$work/decode_lanes.cl" "$work/decode_matrix.cl"); else kernels=("$work/prefill_tile.cl"); fi
mib=1024
[ $small = no ] || mib=64
limited 90 rates.txt "$work/rates" -m $mib "${kernels[@]}"
limited 60 rates.txt "$heed" roof --device opencl:0

# ---- 3b. matrix units: each candidate's probe, its kernel of whole numbers -------------------------
# One small problem per row and type: passed, or skipped with every candidate's reason. On a device for tests, the emulated unit in each layout instead.
units() {
  for type in bf16 f16; do
    for row in prefill_matrix prefill_warpgroup2 prefill_bulk2 prefill_columns; do "$heed" check --device opencl:0 --kernel "opencl.${row}_$type" "hq1 d32 q40 kv40 $type"; done
    for row in decode_matrix decode_columns; do "$heed" check --device opencl:0 --kernel "opencl.${row}_$type" "hq1 d32 q1 kv40 $type"; done
    "$heed" check --device opencl:0 --kernel "opencl.decode_bytes_$type" "hq1 d32 q1 kv40 $type kv=i8"
  done
  "$heed" check --device opencl:0 --kernel opencl.prefill_tf32x3 "hq1 d32 q40 kv40 f32"
  "$heed" info | grep -A1 'matrix unit'
}
emulated_units() {
  for like in 2 3 4 5 6 7 8; do
    row=prefill_columns_bf16
    [ $like != 2 ] || row=prefill_matrix_bf16
    [ $like != 8 ] || row=prefill_warpgroup2_bf16
    printf '"%s" matrix=1 limit=120 mlike=%d\n' pocl-cpu $like intel-cpu $like generic-cpu $like >"$work/units"
    HEED_TUNING=$work/units "$heed" check --device opencl:0 --kernel opencl.$row "hq1 d32 q40 kv40 bf16"
  done
}
say "matrix units: units.txt"
export -f units emulated_units
export heed work
if grep -qE 'family (pocl|generic)-cpu' "$OUT/info.txt" && [ $small = yes ]; then limited 120 units.txt bash -c emulated_units
else limited 60 units.txt bash -c units; fi
grep -aE '^(pass|fail|skip)' "$OUT/units.txt" | cut -c1-150 | sed 's/^/        /'

# ---- 4. right answers -------------------------------------------------------------------------
lines() { grep -hv '^#' "$@" | grep .; }
check() { # ROW or - | LINES: several processes side by side, a few lines each
  local row=() jobs
  [ "$1" = - ] || row=(--kernel "opencl.$1")
  jobs=$(($(nproc) / 2)); [ $jobs -ge 1 ] || jobs=1
  tr '\n' '\0' | HEED=$heed limited "${2:-100}" check.txt xargs -0 -n 8 -P $jobs bash -c '"$HEED" check --device opencl:0 "$@"; true' - "${row[@]}"
}
say "checks: check.txt"
if [ $small = no ]; then
  lines tests/problems/matrix.txt | grep ' bf16\b' | check prefill_matrix_bf16
  lines tests/problems/matrix.txt | grep ' f16\b' | check prefill_matrix_f16
  if grep -q 'pass.*prefill_warpgroup2' "$OUT/units.txt"; then
    for type in bf16 f16; do
      for groups in 2 3; do lines tests/problems/matrix.txt | grep " $type\b" | check prefill_warpgroup${groups}_$type; done
      for groups in 2 3; do lines tests/problems/matrix.txt | grep " $type\b" | grep -v 'page=\|\bd20\b' | check prefill_bulk${groups}_$type; done
    done
  fi
  lines tests/problems/matrix_decode.txt | grep ' bf16\b' | check decode_matrix_bf16
  lines tests/problems/matrix_decode.txt | grep ' f16\b' | check decode_matrix_f16
  for type in bf16 f16; do lines tests/problems/matrix_bytes.txt | grep " $type\b" | check decode_bytes_$type; done
  if grep -qE 'matrix unit (amd|intel)' "$OUT/units.txt"; then
    for type in bf16 f16; do
      lines tests/problems/matrix.txt | grep " $type\b" | check prefill_columns_$type
      lines tests/problems/matrix_decode.txt | grep " $type\b" | check decode_columns_$type
    done
  fi
  lines tests/problems/{smoke,features}.txt | check - 150
  lines tests/problems/{smoke,features}.txt | check naive
  for row in prefill_tile decode_lanes; do lines tests/problems/smoke.txt | check $row; done
else
  lines tests/problems/tiny.txt | check -
fi
grep -aE '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$OUT/check.txt" | awk '{p += $1; f += $3; s += $5} END {printf "        %d passed, %d failed, %d skipped\n", p, f, s}'

# ---- 5. how fast -------------------------------------------------------------------------------
if [ $small = no ]; then
  rows=("prefill_matrix_bf16|hq16 d128 q16384 bf16" "prefill_matrix_bf16|hq16 d128 q16384 bf16 causal" "prefill_tile|b4 hq16 d128 q4096 bf16 causal"
    "decode_lanes|b4 hq64 hk8 d128 q1 kv8192 bf16" "prefill_tf32x3|hq16 d128 q4096 f32") # what the units are worth
  problems=("hq16 d128 q16384 bf16" "hq16 d128 q16384 bf16 causal" "hq16 d128 q16384 f16 causal" "hq32 d64 q16384 bf16" "hq8 d256 q16384 bf16"
    "b4 hq16 d128 q4096 bf16 causal" "b16 hq32 hk8 d128 q1024 bf16 causal" "b16 hq64 hk8 d128 q1 kv8192 bf16" "hq32 hk8 d128 q1 kv32768 bf16" "hq32 hk8 d128 q64 kv32768 bf16 causal"
    "b16 hq32 hk8 d128 q1 kv4096 f16" "hq32 hk8 d128 q1 kv4096 bf16" "hq16 d128 q4096 f32" "hq16 d128 q4096 f32 causal" "b4 hq64 hk8 d128 q1 kv8192 f32"
    "b16 hq64 hk8 d128 q1 kv8192 f16 kv=q8_0" "b16 hq64 hk8 d128 q1 kv8192 bf16 kv=i8" "b16 hq64 hk8 d128 q1 kv8192 bf16 kv=f8_e4m3" "hq32 hk8 d128 q1 kv4096 bf16 kv=i8"
    "hq32 d128 q1 kv16384 f32")
  queued=("b16 hq64 hk8 d128 q1 kv8192 bf16" "b16 hq64 hk8 d128 q1 kv8192 bf16 kv=i8" "b16 hq64 hk8 d128 q1 kv8192 f16 kv=q8_0" "hq32 hk8 d128 q1 kv32768 bf16" "hq32 hk8 d128 q1 kv4096 bf16" "b4 hq64 hk8 d128 q1 kv8192 f32"
    "b16 hq32 hk8 d128 q1024 bf16 causal") # many runs, one wait
  tiles=("hq16 d128 q16384 bf16" "hq32 d64 q16384 bf16")
else
  rows=("prefill_tile|hq2 d64 q128 bf16")
  problems=("hq2 d64 q128 bf16" "hq4 hk2 d64 q1 kv512 bf16" "hq2 d64 q128 f32")
  queued=("hq4 hk2 d64 q1 kv512 bf16")
  tiles=("hq2 d64 q64 bf16")
fi
say "bench: bench.txt"
for problem in "${problems[@]}"; do limited 40 bench.txt "$heed" bench --device opencl:0 "$problem"; done
echo "many runs on one queue, one wait:" >>"$OUT/bench.txt"
for problem in "${queued[@]}"; do limited 30 bench.txt "$heed" bench --device opencl:0 --queued 20 "$problem"; done
echo "rows by name:" >>"$OUT/bench.txt"
for row in "${rows[@]}"; do limited 30 bench.txt "$heed" bench --device opencl:0 --kernel "opencl.${row%%|*}" "${row#*|}"; done
say "tiles of the matrix rows: tiles.txt"
for tile in "mslots=2 gkeys=64" "mslots=3 gkeys=64 gslots=6" "mkeys=32 mslots=4 gkeys=128 gslots=2"; do
  [ "$(left)" -gt 90 ] || [ $small = yes ] || break
  for family in nvidia amd intel; do printf '"%s" %s\n' $family "$tile"; done >"$work/tuning"
  echo "$tile" >>"$OUT/tiles.txt"
  for problem in "${tiles[@]}"; do
    HEED_TUNING=$work/tuning limited 25 tiles.txt "$heed" bench --device opencl:0 "$problem"
  done
  [ $small = no ] || break
done

# ---- 6. the yardstick ------------------------------------------------------------------------------
say "PyTorch, where it is: pytorch.txt"
if python3 -c "import torch, sys; sys.exit(not torch.cuda.is_available())" 2>/dev/null; then limited 80 pytorch.txt python3 bench/gpu/pytorch_rates.py
else echo "skipped: no PyTorch with a GPU" >"$OUT/pytorch.txt"; fi

# ---- the summary ---------------------------------------------------------------------------------------
say "summary"
{
  grep -E 'device|driver|matrix unit|refused' "$OUT/info.txt" | head -12
  grep -aE '^(pass|fail|skip)|matrix unit|note' "$OUT/units.txt"
  grep -E '^copy|TFLOP|error|Used|spill' "$OUT/rates.txt" | head -30
  grep -aE '^fail' "$OUT/check.txt" | head -20
  grep -avE '^ *$' "$OUT/bench.txt" | head -60
  tail -40 "$OUT/tiles.txt"
  cat "$OUT/pytorch.txt"
} | cut -c1-170
say "done: $OUT"
