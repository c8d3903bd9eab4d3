#!/usr/bin/env bash
# How other projects get heed: installed (find_package, pkg-config, C and C++), as a subdirectory, without OpenCL, static and shared;
# and the public headers compiled alone in each language standard.
set -uo pipefail
cd "$(dirname "$0")/.."
top=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0
failed=0

step() { # NAME COMMAND...
  local name=$1
  shift
  if "$@" >"$work/log" 2>&1; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "FAIL $name: $*"
    tail -20 "$work/log"
  fi
}

headers() {
  for standard in c99 c11 c17 c++17; do
    case $standard in c++*) compiler=g++; language=c++ ;; *) compiler=gcc; language=c ;; esac
    for header in heed.h heed_opencl.h; do
      step "$header as $standard" $compiler -std=$standard -Wall -Wextra -Wpedantic -Werror -DCL_TARGET_OPENCL_VERSION=300 -Iinclude \
        -fsyntax-only -x $language "include/$header" -Wno-pragma-once-outside-header
    done
  done
  printf '#include "heed.h"\nint main(void){return (int)sizeof(heed_desc) == 0;}\n' >"$work/alone.c"
  step "heed.h needs only the C standard headers" sh -c "gcc -Iinclude -M '$work/alone.c' | tr ' ' '\n' | grep '/' | grep -vE 'heed.h|alone|stddef|stdint|stdc-predef|/bits/|/gnu/|features|libc-header|sys/cdefs|wordsize|timesize|long-double|typesizes|lib/gcc|include-fixed|\\\\\$' | { ! grep . ; }"
}

installed() { # KIND CMAKE_OPTIONS...
  local kind=$1 prefix=$work/$1/prefix
  shift
  step "$kind: configure" cmake -S . -B "$work/$kind/build" -G Ninja -DHEED_BUILD_TESTS=OFF -DHEED_BUILD_TOOLS=OFF -DHEED_BUILD_EXAMPLES=OFF \
    -DCMAKE_INSTALL_PREFIX="$prefix" "$@"
  step "$kind: build and install" cmake --build "$work/$kind/build" --target install
  step "$kind: find_package, configure" cmake -S tests/consumer -B "$work/$kind/use" -G Ninja -DCMAKE_PREFIX_PATH="$prefix"
  step "$kind: find_package, build" cmake --build "$work/$kind/use"
  step "$kind: C program runs" "$work/$kind/use/use_c"
  step "$kind: C++ program runs" "$work/$kind/use/use_cpp"
  local pc
  pc=$(dirname "$(find "$prefix" -name heed.pc)")
  local flags=--cflags
  [ "$kind" = static ] && flags="$flags --static"
  step "$kind: pkg-config" sh -c "gcc tests/consumer/use.c \$(PKG_CONFIG_PATH=$pc pkg-config $flags --libs heed) -lm -o $work/$kind/pc && LD_LIBRARY_PATH=$(dirname "$pc") $work/$kind/pc"
}

headers
installed shared -DBUILD_SHARED_LIBS=ON
step "SONAME is libheed.so.0" sh -c "readelf -d $work/shared/prefix/lib*/libheed.so $work/shared/prefix/lib/*/libheed.so 2>/dev/null | grep -q 'SONAME.*libheed.so.0\]'"
step "only heed_ symbols are exported" sh -c "nm -D --defined-only \$(find $work/shared/prefix -name 'libheed.so.0') | awk '\$2 != \"A\" {print \$3}' | { ! grep -v '^heed_' ; }"
installed static -DBUILD_SHARED_LIBS=OFF
installed no-opencl -DHEED_OPENCL=OFF
step "subdirectory: configure" cmake -S tests/consumer -B "$work/sub" -G Ninja -DHEED_SUBDIRECTORY="$top"
step "subdirectory: build" cmake --build "$work/sub"
step "subdirectory: C program runs" "$work/sub/use_c"

[ -n "${HEED_TEST_COUNTS:-}" ] && echo "$passed $failed 0" >>"$HEED_TEST_COUNTS"
echo "$passed passed, $failed failed, 0 skipped"
[ $failed = 0 ]
