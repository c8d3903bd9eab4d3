#!/usr/bin/env bash
# What the documents show is true: each code block of README.md, CONTRIBUTING.md and doc/*.md is a program or a command that is run here. By the words
# behind the fence:
#   c          with a main(): compiled as C11 without a warning, and run. Else a piece of a program in examples/, word for word; those are run, too
#   sh         run, all of it, with `heed` in the path; a fresh folder that has the tree's folders in it and example arrays as q.npy, k.npy, v.npy
#   sh slow    the same, but only with HEED_DOCUMENTS=full (builds, benches)
#   sh ci      names scripts that CI itself runs: they must be there
#   console    lines "$ command" and what they print
#   cmake      lines of tests/consumer/CMakeLists.txt
#   python     run where the module is installed, else read
# and pictures in doc/ are what `heed show` draws; links lead somewhere; every place says the same version; the examples run. A fence without a word is a text; it must not look like a command.
#   HEED_BUILD names the build folder; HEED_DOCUMENTS_TREE another copy of the documents (to see the tests fail).
. "$(dirname "$0")/shell_rig.sh"
top=$PWD
build=$(realpath "${HEED_BUILD:-build/release}")
tree=${HEED_DOCUMENTS_TREE:-$top}
shows=("$work/log") lines=20

# A place to run commands in.
mkdir -p "$work/here/build" "$work/home" "$work/bin"
for name in "$top"/* "$top"/.drivers; do
  case $name in */build | */doc) ;; *) [ -e "$name" ] && ln -s "$name" "$work/here/" ;; esac
done
mkdir "$work/here/doc"
ln -s "$top"/doc/*.md "$work/here/doc/"
ln -s "$build" "$work/here/build/release"
cp examples/data/*.npy examples/data/tokens.txt "$work/here/"
ln -s "$build/heed" "$work/bin/heed"
# Presets belong to the tree itself: its build folder knows where it stands.
printf '#!/bin/sh\ncase "$*" in *--preset*) cd "%s" ;; esac\nexec "%s" "$@"\n' "$top" "$(command -v cmake)" >"$work/bin/cmake"
chmod +x "$work/bin/cmake"
export PATH=$work/bin:$PATH HEED_CACHE_DIR=${HEED_CACHE_DIR:-$work/cache}

library=$(ls "$build"/libheed.so "$build"/libheed.a 2>/dev/null | head -1)
libraries="-lm -lpthread"
case $library in *.a) nm "$library" | grep -q clGetPlatformIDs && libraries="$libraries -lOpenCL -lxxhash" ;; esac

program() { # FILE
  # shellcheck disable=SC2086
  gcc -std=c11 -Wall -Wextra -Wpedantic -Werror -Iinclude -x c "$1" -x none -o "$work/program" "$library" $libraries "-Wl,-rpath,$build" >"$work/log" 2>&1 &&
    "$work/program" >"$work/log" 2>&1
}

block() { # PLACE WORDS FILE
  local place=$1 words=$2 file=$3
  : >"$work/log"
  case $words in
    c)
      if grep -q 'int main(' "$file"; then
        program "$file"
        verdict $? "$place: a program"
      else
        python3 - "$file" "$tree"/examples/*.c 2>"$work/log" <<'PYTHON'
import sys
piece = open(sys.argv[1]).read()
if not any(piece in open(name).read() for name in sys.argv[2:]): sys.exit("this is in no file of examples/:\n" + piece)
PYTHON
        verdict $? "$place: a piece of a program"
      fi ;;
    sh) (cd "$work/here" && HOME=$work/home bash -euo pipefail "$file") >"$work/log" 2>&1 </dev/null
      verdict $? "$place: commands" ;;
    "sh slow")
      if [ "${HEED_DOCUMENTS:-}" = full ]; then
        (cd "$work/here" && HOME=$work/home bash -euo pipefail "$file") >"$work/log" 2>&1 </dev/null
        verdict $? "$place: slow commands"
      else
        bash -n "$file" 2>"$work/log"
        verdict $? "$place: slow commands, read only"
      fi ;;
    "sh ci")
      for script in $(grep -oE '(^|[ `])script/[a-z_]+' "$file"); do
        [ -x "$script" ]
        verdict $? "$place: $script"
      done ;;
    console)
      (cd "$work/here" && grep '^\$ ' "$file" | sed 's/^\$ //' | while IFS= read -r command; do
        printf '$ %s\n' "$command"
        HOME=$work/home bash -c "$command" </dev/null 2>>"$work/log"
      done) >"$work/got"
      diff -Z "$file" "$work/got" >"$work/log"
      verdict $? "$place: what a command prints" ;;
    cmake)
      while read -r line; do grep -qE "^ *${line//[()]/.}" tests/consumer/CMakeLists.txt || echo "$line"; done <"$file" >"$work/log"
      [ ! -s "$work/log" ]
      verdict $? "$place: lines of tests/consumer" ;;
    python) # the module is installed by script/python's own environment, if at all; here its grammar
      if python3 -c 'import heed, numpy' 2>/dev/null; then python3 "$file" >"$work/log" 2>&1; else python3 -c 'import ast, sys; ast.parse(open(sys.argv[1]).read())' "$file" 2>"$work/log"; fi
      verdict $? "$place: a program in Python" ;;
    "" | text | json)
      ! grep -q '^ *\$ ' "$file"
      verdict $? "$place: a text that looks like a command" ;;
    *) verdict 1 "$place: what is a block \"$words\"?" ;;
  esac
}

documents=("$tree"/README.md "$tree"/CONTRIBUTING.md "$tree"/doc/*.md)
for document in "${documents[@]}"; do
  mkdir -p "$work/blocks"
  rm -f "$work/blocks"/*
  # Fences may be indented, in lists.
  awk -v folder="$work/blocks" '
    /^ *```/ && !inside {match($0, /^ */); indent = RLENGTH; inside = 1; words = substr($0, indent + 4); n = sprintf("%s/%03d", folder, NR); print words > (n ".words"); printf "" > (n ".block"); next}
    /^ *```$/ && inside {inside = 0; close(n ".block"); next}
    inside {print substr($0, indent + 1) > (n ".block")}
    END {exit inside}' "$document"
  verdict $? "${document#"$tree"/}: a fence is not closed"
  for file in "$work/blocks"/*.block; do
    [ -e "$file" ] || continue
    line=$(basename "$file" .block)
    block "${document#"$tree"/}:$((10#$line))" "$(cat "${file%.block}.words")" "$file"
  done
done

# Pictures that the lesson's commands have drawn are those in doc/: the same pixels, whatever the compressor.
for picture in "$work/here"/lesson_*.png; do
  python3 - "$picture" "$tree/doc/$(basename "$picture")" 2>"$work/log" <<'PYTHON'
import struct, sys, zlib
def pixels(name):
    data, at, image = open(name, "rb").read(), 8, b""
    while at < len(data):
        n, kind = struct.unpack(">I4s", data[at:at + 8])
        if kind == b"IHDR": head = data[at + 8:at + 8 + n]
        if kind == b"IDAT": image += data[at + 8:at + 8 + n]
        at += 12 + n
    w, h, depth, color = struct.unpack(">IIBB", head[:10])
    step = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color] * depth // 8
    raw, rows, before = zlib.decompress(image), [], bytes(w * step)
    for y in range(h):
        kind, row = raw[y * (w * step + 1)], bytearray(raw[y * (w * step + 1) + 1:(y + 1) * (w * step + 1)])
        for x in range(len(row)):
            a, b, c = (row[x - step] if x >= step else 0), before[x], (before[x - step] if x >= step else 0)
            p = a + b - c
            paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            row[x] = (row[x] + (0, a, b, (a + b) // 2, paeth)[kind]) & 255
        rows.append(bytes(row))
        before = row
    return w, h, rows
assert pixels(sys.argv[1]) == pixels(sys.argv[2]), "another picture"
PYTHON
  verdict $? "doc/$(basename "$picture") is what heed show draws"
done
[ "$(ls "$work/here"/lesson_*.png 2>/dev/null | wc -l)" -ge 3 ]
verdict $? "the lesson draws its pictures"

# Links between documents lead somewhere.
for document in "${documents[@]}"; do
  dead=$(grep -oE '\]\([^)#:]+\)' "$document" | tr -d '()]' | while read -r link; do [ -e "$(dirname "$document")/$link" ] || echo "$link"; done)
  [ -z "$dead" ]
  verdict $? "${document#"$tree"/}: dead links: $dead"
done

script/release --check >"$work/log" 2>&1
verdict $? "every place says the same version"

diff <(grep -hoE '^HEED_API .*' include/heed.h include/heed_opencl.h | grep -oE '\bheed_[a-z0-9_]+\(' | tr -d '(' | sort -u) \
  <(sed -nE 's/^ (heed_[a-z0-9_]+)@.*/\1/p' debian/libheed0.symbols | sort) >"$work/log"
verdict $? "debian/libheed0.symbols has the functions of the headers"

# The examples are run: what the documents quote works.
for example in "$build"/example_*; do
  [ -x "$example" ] || continue
  case $example in *.d | *.o) continue ;; esac
  (cd "$work" && timeout 120 "$example") >"$work/log" 2>&1 </dev/null
  verdict $? "$(basename "$example") runs"
done
[ -x "$build/example_layouts" ]
verdict $? "the examples are built"

finish
