#!/usr/bin/env bash
# The public headers compile alone in C99, C11, C17 and C++11 to C++20, with every compiler that is here, without a warning; and a program that
# uses each enum and struct links against the static library in C++.
set -uo pipefail
cd "$(dirname "$0")/.."
passed=0 failed=0 skipped=0
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
strict="-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wundef -Werror -Iinclude -DCL_TARGET_OPENCL_VERSION=300 -fsyntax-only"

try() { # NAME COMMAND...
  local name=$1
  shift
  if "$@" 2>"$folder/log"; then passed=$((passed + 1)); else
    failed=$((failed + 1))
    echo "FAIL $name"
    head -20 "$folder/log"
  fi
}

opencl=""
echo '#include <CL/cl.h>' | cc -DCL_TARGET_OPENCL_VERSION=300 -xc -fsyntax-only - 2>/dev/null && opencl=heed_opencl.h
for header in heed.h $opencl; do
  # twice: the include guard; used in a function: what a macro hides is seen
  printf '#include "%s"\n#include "%s"\nint use(void);\nint use(void) { heed_desc d = {0}; d.flags = HEED_CAUSAL | HEED_WINDOW; return (int)d.flags + HEED_F16 + (int)sizeof(heed_tensors); }\n' \
    $header $header >"$folder/use.c"
  sed 's/= {0}/= heed_desc()/' "$folder/use.c" >"$folder/use.cpp"
  for compiler in gcc clang; do
    command -v $compiler >/dev/null || { echo "skipped: headers: $compiler is not installed"; skipped=$((skipped + 1)); continue; }
    for standard in c99 c11 c17; do try "$compiler -std=$standard $header" $compiler -std=$standard $strict -Wstrict-prototypes "$folder/use.c"; done
  done
  for compiler in g++ clang++; do
    command -v $compiler >/dev/null || { echo "skipped: headers: $compiler is not installed"; skipped=$((skipped + 1)); continue; }
    for standard in c++11 c++17 c++20; do try "$compiler -std=$standard $header" $compiler -std=$standard $strict "$folder/use.cpp"; done
  done
done
[ -n "$opencl" ] || { echo "skipped: headers: no CL/cl.h"; skipped=$((skipped + 1)); }

# heed.h needs stddef.h and stdint.h alone.
includes=$(grep -hE '^#include' include/heed.h | sort | tr '\n' ' ')
try "heed.h includes $includes" test "$includes" = "#include <stddef.h> #include <stdint.h> "

echo "$passed passed, $failed failed, $skipped skipped"
[ -n "${HEED_TEST_COUNTS:-}" ] && echo "$passed $failed $skipped" >>"$HEED_TEST_COUNTS"
[ $failed = 0 ]
