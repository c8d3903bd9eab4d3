#!/usr/bin/env bash
# How other projects get heed: installed (find_package, pkg-config, C and C++), as a subdirectory, without OpenCL, static and shared;
# and the public headers compiled alone in each language standard.
. "$(dirname "$0")/shell_rig.sh"
top=$PWD

headers() {
  for standard in c99 c11 c17 c++17; do
    case $standard in c++*) compiler=g++; language=c++ ;; *) compiler=gcc; language=c ;; esac
    for header in heed.h heed_opencl.h; do
      attempt "$header as $standard" $compiler -std=$standard -Wall -Wextra -Wpedantic -Werror -DCL_TARGET_OPENCL_VERSION=300 -Iinclude \
        -fsyntax-only -x $language "include/$header" -Wno-pragma-once-outside-header
    done
  done
  printf '#include "heed.h"\nint main(void){return (int)sizeof(heed_desc) == 0;}\n' >"$work/alone.c"
  attempt "heed.h needs only the C standard headers" sh -c "gcc -Iinclude -M '$work/alone.c' | tr ' ' '\n' | grep '/' | grep -vE 'heed.h|alone|stddef|stdint|stdc-predef|/bits/|/gnu/|features|libc-header|sys/cdefs|wordsize|timesize|long-double|typesizes|lib/gcc|include-fixed|\\\\\$' | { ! grep . ; }"
}

installed() { # KIND CMAKE_OPTIONS...
  local kind=$1 prefix=$work/$1/prefix
  shift
  attempt "$kind: configure" cmake -S . -B "$work/$kind/build" -G Ninja -DHEED_BUILD_TESTS=OFF -DHEED_BUILD_TOOLS=OFF -DHEED_BUILD_EXAMPLES=OFF \
    -DCMAKE_INSTALL_PREFIX="$prefix" "$@"
  attempt "$kind: build and install" cmake --build "$work/$kind/build" --target install
  attempt "$kind: find_package, configure" cmake -S tests/consumer -B "$work/$kind/use" -G Ninja -DCMAKE_PREFIX_PATH="$prefix"
  attempt "$kind: find_package, build" cmake --build "$work/$kind/use"
  attempt "$kind: C program runs" "$work/$kind/use/use_c"
  attempt "$kind: C++ program runs" "$work/$kind/use/use_cpp"
  local pc
  pc=$(dirname "$(find "$prefix" -name heed.pc)")
  local flags=--cflags
  [ "$kind" = static ] && flags="$flags --static"
  attempt "$kind: pkg-config" sh -c "gcc tests/consumer/use.c \$(PKG_CONFIG_PATH=$pc pkg-config $flags --libs heed) -lm -o $work/$kind/pc && LD_LIBRARY_PATH=$(dirname "$pc") $work/$kind/pc"
}

headers
installed shared -DBUILD_SHARED_LIBS=ON
attempt "SONAME is libheed.so.0" sh -c "readelf -d $work/shared/prefix/lib*/libheed.so $work/shared/prefix/lib/*/libheed.so 2>/dev/null | grep -q 'SONAME.*libheed.so.0\]'"
attempt "only heed_ symbols are exported" sh -c "nm -D --defined-only \$(find $work/shared/prefix -name 'libheed.so.0') | awk '\$2 != \"A\" {print \$3}' | { ! grep -v '^heed_' ; }"
attempt "component lib" cmake --install "$work/shared/build" --component lib --prefix "$work/lib"
attempt "component lib is the library alone" sh -c "[ \"\$(cd $work/lib && find . -type f -o -type l | sed 's/.*libheed.so/libheed.so/' | sort | tr '\n' ' ')\" = 'libheed.so.0 libheed.so.0.1.0 ' ]"
attempt "component dev" cmake --install "$work/shared/build" --component dev --prefix "$work/dev"
attempt "component dev has headers, pkg-config, CMake's files and the link, no library" sh -c "cd $work/dev && [ -e include/heed.h ] && find . -name heed.pc | grep -q . && find . -name heedConfig.cmake | grep -q . && find . -name libheed.so | grep -q . && ! find . -name 'libheed.so.0' | grep -q ."
installed static -DBUILD_SHARED_LIBS=OFF
installed no-opencl -DHEED_OPENCL=OFF
attempt "subdirectory: configure" cmake -S tests/consumer -B "$work/sub" -G Ninja -DHEED_SUBDIRECTORY="$top"
attempt "subdirectory: build" cmake --build "$work/sub"
attempt "subdirectory: C program runs" "$work/sub/use_c"

finish
