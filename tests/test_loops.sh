#!/usr/bin/env bash
# The inner loops in machine code: their sums stay in registers. A compiler that moves vectors to the stack and back costs a kernel up to half of
# its speed, changes no result, and does it at the next innocent change: so the disassembly is read. gcc: at most one instruction in sixteen of a loop
# with eight multiply-adds or more (score_few, which transposes 16 registers in the loop: one in eight); clang keeps weights on the stack: one in three,
# of the types without block scales.
#   HEED_BUILD names the build folder; tests/test_loops.sh FOLDER [ISA...] looks at the isa_*.c.o below another one, with the objdump that OBJDUMP names.
. "$(dirname "$0")/shell_rig.sh"
build=${1:-${HEED_BUILD:-build/release}}
shows=("$work/loops")
lines=20
objdump=${OBJDUMP:-objdump}
[ $# = 0 ] || shift

for isa in ${*:-avx2 avx512 avx512vbmi avx512bf16 amx}; do
  object=$(find "$build" -name "isa_$isa.c.o" -printf "%T@ %p\n" 2>/dev/null | grep -v functions_ | sort -rn | head -1 | cut -d" " -f2)
  if [ -z "$object" ] || ! command -v "$objdump" >/dev/null; then skip loops "no $isa rows in this build, or no objdump"; continue; fi
  if nm "$object" | grep -q __asan_; then skip loops "$isa: a build with sanitizers"; continue; fi
  "$objdump" -d --no-show-raw-insn "$object" | awk -f tests/innermost_loops.awk | grep -E '^(score|value|weigh_(beside|alone))_' | sort >"$work/all"
  if ! grep -q '_[1-4]' "$work/all"; then skip loops "$isa: nothing is unrolled in this build"; continue; fi
  if readelf -p .comment "$object" | grep -q clang; then
    types="f32|f16|bf16|keys|dims|whole|beside|alone"
    [ "$isa" != avx512vbmi ] || types=f8_e4m3
    awk -v types="_($types)_" '$3 >= 8 && $1 ~ types && $1 !~ /tail/' "$work/all" >"$work/hot"
    share=3
  else
    awk '$3 >= 8' "$work/all" >"$work/hot"
    share=16
  fi
  [ "$(wc -l <"$work/hot")" -ge 12 ]
  verdict $? "$isa: loops found in $object"
  awk -v share=$share '$4 * (share == 16 && $1 ~ /^score_few/ ? 8 : share) > $2 {print $1 ": " $4 " of " $2 " instructions move vectors to or from the stack"}' "$work/hot" >"$work/loops"
  [ ! -s "$work/loops" ]
  verdict $? "$isa: vectors on the stack"
done
finish
