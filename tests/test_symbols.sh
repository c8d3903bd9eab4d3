#!/usr/bin/env bash
# What the library shows to the outside: the shared library exports heed_* alone and every function of the headers; each isa_*.o exports one
# symbol (else the linker could take AVX-512 code of a common name for another machine); nothing ends the process or prints; no executable stack;
# no state that outlives a call.
#   HEED_BUILD names the build folder.
. "$(dirname "$0")/shell_rig.sh"
build=${HEED_BUILD:-build/release}

empty() { # NAME FOUND: good if nothing was found
  if [ -z "$2" ]; then passed=$((passed + 1)); else
    failed=$((failed + 1))
    echo "FAIL $1:" $2 | cut -c1-1000
  fi
}

lines_not_in() { comm -23 <(sort -u <<<"$1") <(sort -u <<<"$2") | grep -v '^$'; }

library=$(ls "$build"/libheed.so 2>/dev/null)
if [ -n "$library" ]; then
  exported=$(nm -D --defined-only "$library" | awk '$2 != "A" {print $3}' | sed 's/@.*//' | sort -u)
  headers="include/heed.h include/heed_opencl.h"
  grep -qx heed_run_cl <<<"$exported" || headers=include/heed.h # built without OpenCL
  declared=$(grep -hoE '^HEED_API .*' $headers | grep -oE '\bheed_[a-z0-9_]+\(' | tr -d '(')
  [ "$(wc -l <<<"$declared")" -gt 25 ] || empty "functions found in the headers" "$(wc -l <<<"$declared")"
  empty "exported, but not declared in a header" "$(lines_not_in "$exported" "$declared")"
  empty "declared, but not exported" "$(lines_not_in "$declared" "$exported")"
  empty "executable stack" "$(readelf -lW "$library" | grep GNU_STACK | grep -w RWE)"
  needed=$(nm -D --undefined-only "$library" | awk '{print $2}' | sed 's/@.*//')
  empty "calls that a library must not make" \
    "$(grep -xE 'abort|exit|_exit|quick_exit|printf|puts|putchar|perror|vprintf|setlocale|signal|sigaction|atexit|fesetround|strtok|rand|srand' <<<"$needed")"
else
  skip symbols "no shared library in $build"
fi

isa=$(find "$build" -path '*/heed_objects.dir/*' -name 'isa_*.c.o' 2>/dev/null)
for object in $isa; do
  name=$(basename "$object")
  symbols=$(nm --defined-only --extern-only "$object" | awk '{print $3}')
  empty "$name exports more than its rows" "$(grep -vE '^cpu_rows_' <<<"$symbols")"
  [ "$(wc -l <<<"$symbols")" = 1 ] && passed=$((passed + 1)) || empty "$name exports one symbol" "$symbols"
  empty "$name has weak symbols, which instruction sets would share" "$(nm --defined-only "$object" | awk '$2 ~ /^[WVwv]$/ {print $3}')"
done
[ -n "$isa" ] || skip symbols "no objects of instruction sets in $build"

# Writable memory of the library: only what is listed here, each with its reason.
#   counter      opencl/cache.c: an atomic number in the names of temporary files
allowed='^counter(\.[0-9]+)?$'
for object in $(find "$build" -path '*/heed_objects.dir/src/*' -name '*.c.o' 2>/dev/null); do
  objdump -t "$object" | awk '($4 == ".data" || $4 == ".bss" || $3 == ".data" || $3 == ".bss" || $4 ~ /^\.(data|bss)\.[^r]/) && $NF !~ /^\./ {print $NF}' |
    grep -vE "$allowed" | sed "s|^|$(basename "$object"):|"
done >"$work/globals"
empty "writable globals" "$(tr '\n' ' ' <"$work/globals")"

finish
