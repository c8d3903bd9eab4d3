#!/usr/bin/env bash
# The public headers compile alone in C99, C11, C17 and C++11 to C++20, with every compiler that is here, without a warning; and a program that
# uses each enum and struct links against the static library in C++.
. "$(dirname "$0")/shell_rig.sh"
strict="-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wundef -Werror -Iinclude -DCL_TARGET_OPENCL_VERSION=300 -fsyntax-only"

opencl=""
echo '#include <CL/cl.h>' | cc -DCL_TARGET_OPENCL_VERSION=300 -xc -fsyntax-only - 2>/dev/null && opencl=heed_opencl.h
for header in heed.h $opencl; do
  # twice: the include guard; used in a function: what a macro hides is seen
  printf '#include "%s"\n#include "%s"\nint use(void);\nint use(void) { heed_desc d = {0}; d.flags = HEED_CAUSAL | HEED_WINDOW; return (int)d.flags + HEED_F16 + (int)sizeof(heed_tensors); }\n' \
    $header $header >"$work/use.c"
  sed 's/= {0}/= heed_desc()/' "$work/use.c" >"$work/use.cpp"
  for compiler in gcc clang; do
    command -v $compiler >/dev/null || { skip headers "$compiler is not installed"; continue; }
    for standard in c99 c11 c17; do attempt "$compiler -std=$standard $header" $compiler -std=$standard $strict -Wstrict-prototypes "$work/use.c"; done
  done
  for compiler in g++ clang++; do
    command -v $compiler >/dev/null || { skip headers "$compiler is not installed"; continue; }
    for standard in c++11 c++17 c++20; do attempt "$compiler -std=$standard $header" $compiler -std=$standard $strict "$work/use.cpp"; done
  done
done
[ -n "$opencl" ] || skip headers "no CL/cl.h"

# heed.h needs stddef.h and stdint.h alone.
includes=$(grep -hE '^#include' include/heed.h | sort | tr '\n' ' ')
attempt "heed.h includes $includes" test "$includes" = "#include <stddef.h> #include <stdint.h> "

finish
