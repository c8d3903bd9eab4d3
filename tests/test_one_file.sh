#!/usr/bin/env bash
# The one-file release: made, compiled as C99 without a warning, no name outside that does not begin with heed_, and a small program over it gives the
# bits that it gives over the library, for every instruction set. HEED_ONE_FILE=full: also gcc and clang at -O2, -march=native, and 64-bit ARM and IBM Z under an emulator.
#   HEED_BUILD names the build folder.
. "$(dirname "$0")/shell_rig.sh"
build=${HEED_BUILD:-build/release}
shows=("$work/log") lines=20

silent() { "$@" >"$work/log" 2>&1 && [ ! -s "$work/log" ]; }

silent cmake "-DOUT=$work" -P script/one_file.cmake
verdict $? "script/one_file.cmake"
cmp -s include/heed.h "$work/heed.h"
verdict $? "heed.h is the header"
if [ "${HEED_ONE_FILE:-}" = full ]; then
  cmake "-DOUT=$work/again" -P script/one_file.cmake && cmp -s "$work/heed.c" "$work/again/heed.c"
  verdict $? "the same sources give the same file"
fi
python3 - "$work/heed.c" script/one_file_head.c src/*.[ch] src/cpu/*.[ch] include/heed.h >"$work/log" <<'PYTHON'
import re, sys
def strings(name):
    return set(re.findall(r'"(?:[^"\\\n]|\\.)*"', re.sub(r"/\*.*?\*/", "", open(name).read(), flags=re.S)))
known = set().union(*map(strings, sys.argv[2:]))
changed = [s for s in strings(sys.argv[1]) - known if not re.fullmatch(r'"avx[a-z0-9,=-]*"', s)]
if changed: sys.exit(print("strings that no source has:", changed) or 1)
PYTHON
verdict $? "no string is changed by changing names"
[ -z "${HEED_ONE_FILE_SPOIL:-}" ] || sed -i "$HEED_ONE_FILE_SPOIL" "$work/heed.c" # to see the tests fail

library=$(ls "$build"/libheed.so "$build"/libheed.a 2>/dev/null | head -1)
libraries="-lm -lpthread"
if [ -z "$library" ]; then skip "one file" "no library in $build"
else
  case $library in *.a) nm "$library" | grep -q clGetPlatformIDs && libraries="$libraries -lOpenCL -lxxhash" ;; esac
  # shellcheck disable=SC2086
  silent gcc -std=c99 -O1 -Iinclude tests/one_file/use.c -o "$work/library" "$library" $libraries "-Wl,-rpath,$(realpath "$build")"
  verdict $? "the program over the library"
  "$work/library" >"$work/library.txt" 2>"$work/log"
  verdict $? "the program over the library runs"
  grep -c yes "$work/library.txt" | grep -qE '^[0-9]{3}'
  verdict $? "it says which rows it used"
fi

# What the rows named `vector` do depends on whether the compiler may use an fma: left out where the library was compiled for another machine.
without_vector() { awk '/^[a-z0-9]+$/ {skip = $0 == "vector" || ($0 == "neon" && !/neon\.decode/)} !skip' "$1"; }

# Compilations take a minute each: they are begun all together, a processor's worth at a time, and judged afterwards.
begin() { # KEY COMMAND...
  local key=$1
  shift
  while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n; done
  { "$@" >"$work/$key.log" 2>&1; echo $? >"$work/$key.status"; } &
}
compiled() { # KEY: without a word
  cp "$work/$1.log" "$work/log"
  [ "$(cat "$work/$1.status")" = 0 ] && [ ! -s "$work/log" ]
}

try() { # COMPILER FLAGS...
  local here=$work/here.txt there=$work/library.txt key
  key=$(tr -c 'a-z0-9\n' _ <<<"$*")
  if ! command -v "$1" >/dev/null; then
    [ $phase = judge ] && skip "one file" "$1 is not installed"
    return
  fi
  if [ $phase = begin ]; then
    begin "$key" "$@" -Wall -Wextra -Wpedantic -I"$work" -c "$work/heed.c" -o "$work/$key.o"
    return
  fi
  compiled "$key"
  verdict $? "$*: compiled without a warning"
  [ -z "$(nm -g --defined-only "$work/$key.o" | awk '{print $3}' | grep -v '^heed_')" ]
  verdict $? "$*: a name outside that does not begin with heed_"
  [ -n "$library" ] || return
  silent "$1" -std=c99 -Wall -Wextra -Wpedantic -I"$work" tests/one_file/use.c "$work/$key.o" -o "$work/use" -lm -lpthread
  verdict $? "$*: linked with the program"
  "$work/use" >"$here" 2>"$work/log"
  verdict $? "$*: the program runs"
  case "$*" in *march=*)
    without_vector "$here" >"$work/a" && without_vector "$there" >"$work/b"
    here=$work/a there=$work/b ;;
  esac
  diff "$there" "$here" >"$work/log"
  verdict $? "$*: the library's bits"
}

syntax() { # COMPILER
  if ! command -v "$1" >/dev/null; then
    skip "one file" "$1 is not installed"
    return
  fi
  silent "$1" -std=c99 -Wall -Wextra -Wpedantic -I"$work" -fsyntax-only "$work/heed.c"
  verdict $? "$1 -std=c99: without a warning"
}

# Another machine under an emulator: all its rows give the bits of this machine's scalar ones.
hashes() { awk '/^[a-z0-9]+$/ {section = $0} /^  hq/ {print section, $0}' "$1"; }
foreign() { # MACHINE
  if ! command -v "$1-linux-gnu-gcc" >/dev/null || ! command -v "qemu-$1" >/dev/null; then
    [ $phase = judge ] && skip "one file" "no compiler or no qemu for $1"
    return
  fi
  if [ $phase = begin ]; then
    begin "$1" "$1-linux-gnu-gcc" -std=c99 -O2 -Wall -Wextra -Wpedantic -static -I"$work" "$work/heed.c" tests/one_file/use.c -o "$work/$1" -lm -lpthread
    return
  fi
  compiled "$1"
  verdict $? "$1: compiled without a warning"
  "qemu-$1" "$work/$1" >"$work/there.txt" 2>"$work/log"
  verdict $? "$1: the program runs"
  hashes "$work/library.txt" | sed -n 's/^scalar //p' | sort -u >"$work/a"
  hashes "$work/there.txt" | sed 's/^[a-z0-9]* //' | sort -u >"$work/b"
  [ -s "$work/a" ] && diff "$work/a" "$work/b" >"$work/log"
  verdict $? "$1: the bits of this machine's scalar rows"
}

for phase in begin judge; do
  if [ "${HEED_ONE_FILE:-}" = full ]; then
    foreign aarch64
    foreign s390x
    try gcc -std=c99 -O2
    try clang -std=c99 -O2
    try gcc -std=gnu11 -O2 -march=native
  else
    try gcc -std=c99 -O0
    [ $phase = judge ] && syntax clang
  fi
  wait
done

finish
