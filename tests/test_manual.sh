#!/usr/bin/env bash
# Man pages and completions, which the command writes from its own tables: pages without a complaint of mandoc and groff, every option on its verb's
# page, completions as bash, zsh and fish themselves give them, every word of a problem that is offered is understood, and all of it installed.
#   HEED_BUILD names the build folder; HEED_MANUAL_OUT another folder of written files (to see the tests fail).
. "$(dirname "$0")/shell_rig.sh"
build=${HEED_BUILD:-build/release}
heed=$build/heed
export HEED_CACHE_DIR=$work/cache
shows=("$work/log") lines=20

out=${HEED_MANUAL_OUT:-$work/out}
[ -n "${HEED_MANUAL_OUT:-}" ] || cmake "-DHEED=$heed" "-DOUT=$out" -P script/manual.cmake || exit 1
verbs=$("$heed" help | sed -nE 's/^  ([a-z]+) +.*/\1/p')
verdict $(($(wc -w <<<"$verbs") < 8)) "8 verbs at least: $verbs"

# ---- man pages
mandoc=no groff=no
if command -v mandoc >/dev/null; then mandoc=yes; else skip "manual" "mandoc is not installed"; fi
if [ -e /usr/share/groff/current/tmac/an.tmac ]; then groff=yes; else skip "manual" "groff has no man macros here"; fi
for page in heed $(sed 's/^/heed-/' <<<"$verbs"); do
  file=$out/man/$page.1
  [ -s "$file" ]
  verdict $? "$page.1 is there"
  if [ $mandoc = yes ]; then
    complaints=$(mandoc -T lint -W warning "$file" 2>&1)
    [ -z "$complaints" ]
    verdict $? "mandoc: $complaints"
  fi
  if [ $groff = yes ]; then
    complaints=$(groff -ww -man -z "$file" 2>&1)
    [ -z "$complaints" ]
    verdict $? "groff: $complaints"
  fi
done
for verb in $verbs; do
  "$heed" "$verb" --help | sed -nE 's/^  (-., )? *(--[a-z0-9-]+).*/\2/p' >"$work/options"
  missing=$(while read -r option; do grep -qF "\\fB${option//-/\\-}\\fR" "$out/man/heed-$verb.1" || echo "$option"; done <"$work/options")
  [ -s "$work/options" ] && [ -z "$missing" ]
  verdict $? "options of $verb that are not on its page: $missing"
done

# ---- the environment: what the library reads, what the command names, what the README tells
read_by=$(grep -ohE '"HEED_[A-Z_]+"' src/options.c | tr -d '"' | sort -u)
named=$("$heed" --help | sed -n 's/^Environment: //p' | tr ' ' '\n' | grep -v '^NO_COLOR$' | sort)
told=$(grep -oE '^\| HEED_[A-Z_]+' README.md | tr -d '| ' | sort)
[ -n "$read_by" ] && [ "$read_by" = "$named" ] && [ "$read_by" = "$told" ]
verdict $? "environment: read $read_by; in the help $named; in the README $told"
for name in $read_by; do
  grep -q "^\.B $name\$" "$out/man/heed.1"
  verdict $? "$name is on the man page"
done
others=$(grep -lE '\bgetenv\(|secure_getenv\(' src/*.c src/*/*.c | grep -vE 'src/(options|mutant)\.c' | tr '\n' ' ')
[ -z "$others" ]
verdict $? "the environment is read in one room, not in $others"

# ---- bash, in a shell of its own: the words on the line, what is offered
offers() { # WANTED WORD...: among the offers for the last word is WANTED ("" = none at all)
  local wanted=$1 got
  shift
  got=$(bash --norc -c '. "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _heed 2>/dev/null; printf "%s\n" "${COMPREPLY[@]}"' - "$out/bash/heed" "$@")
  if [ -n "$wanted" ]; then grep -qxF -- "$wanted" <<<"$got"; else [ -z "$got" ]; fi
  verdict $? "bash: $* gives \"$(tr '\n' ' ' <<<"$got")\", without \"$wanted\""
}

touch "$work/q file.npy"
mkdir "$work/cases"
offers check heed c
offers cache heed c
offers "" heed x
offers --device heed bench --d
offers "" heed info --peers
offers opencl heed bench --device ""
offers opencl heed bench --device = op
offers 24bit heed show --color 2
offers decode heed bench --suite de
offers cpu.scalar.decode heed check --kernel cpu.sc
offers "$work/q file.npy" heed run --q "$work/q"
offers "$work/q file.npy" heed run -o "$work/q"
offers "$work/cases" heed check --cases "$work/c"
offers "" heed check --threads ""
offers causal heed check hq2 cau
offers bool heed check mask = bo
offers layout=bhld heed run --q a layout
offers "" heed run k=
offers fish heed help --complete f

if command -v zsh >/dev/null; then # a terminal of zsh's own, since its completion works in no other
  cat >"$work/try.zsh" <<'ZSH'
zmodload zsh/zpty
zpty z "zsh -f -i"
answer() { # WANTED: what comes until it is there, 30 s at most
  local part n
  text=
  for ((n = 0; n < 300; n++)); do
    while zpty -r -t z part 2>/dev/null; do text+=$part; done
    [[ -n $1 && $text == *$1* ]] && return
    sleep 0.1
  done
}
zpty -w z "PS1=; cd $1; fpath=($2 \$fpath); autoload -Uz compinit; compinit -u -D; unsetopt zle_bracketed_paste 2>/dev/null; LISTMAX=10000; zstyle ':completion:*' list-prompt ''; print re''ady"
answer ready
for line wanted in 'heed che' 'heed check' 'heed bench --plo' '--plot' 'heed show --color=nev' '--color=never' 'heed bench --suite pref' 'prefill'; do
  zpty -w -n z "$line"$'\t'
  answer $wanted
  print -r -- "$line => $text"
  zpty -w -n z $'\C-u'
done
zpty -d z
ZSH
  TERM=xterm timeout 200 zsh -f "$work/try.zsh" "$work" "$(realpath "$out")/zsh" >"$work/zsh" 2>&1 </dev/null
  for wanted in "heed check" "--plot" "--color=never" "prefill"; do
    grep -qF -- "$wanted" "$work/zsh"
    verdict $? "zsh completes to $wanted: $(tr '\r\n' '  ' <"$work/zsh" | cut -c1-600)"
  done
else skip "manual" "zsh is not installed"; fi

if command -v fish >/dev/null; then
  offered() { HOME=$work fish --no-config -c "source $out/fish/heed.fish; complete -C '$1'" 2>&1 | cut -f1; }
  for pair in "heed che|check" "heed bench --dev|--device" "heed bench --device |opencl" "heed show --color |never" "heed check cau|causal" "heed check --kernel cpu.sca|cpu.scalar.decode"; do
    offered "${pair%|*}" | grep -qxF -- "${pair#*|}"
    verdict $? "fish: ${pair%|*} gives $(offered "${pair%|*}" | tr '\n' ' ' | cut -c1-200)"
  done
else skip "manual" "fish is not installed"; fi

# ---- words: each that is offered is understood, beside a problem where it means something
words=$("$heed" help --words | sed -E 's/   +.*//; s/  .*//')
lines=()
for word in $words; do
  case $word in
    d128 | dv64 | kv4096 | q512) lines+=("$word q3") ;;
    q=f32 | o=f16) lines+=("d32 q3 $word") ;;
    wr=0) lines+=("d32 q3 wl=1 $word") ;;
    bcast=hq) lines+=("d32 q3 mask=bool $word") ;;
    biasfirst) lines+=("d32 q3 bias=f32 softcap=30 $word") ;;
    lse2) lines+=("d32 q3 lse $word") ;;
    lsenosink) lines+=("d32 q3 lse sinks $word") ;;
    kvfirst=100 | tree | pos=17) lines+=("d32 q3 kv9 causal $word") ;;
    ropeil | ropeoff=16) lines+=("d128 q3 rope=64 $word") ;;
    rope=64) lines+=("d128 q3 $word") ;;
    hk8) lines+=("hq8 d32 q3 $word") ;;
    sheads=3,0) lines+=("hq4 d32 q3 scores=1 $word") ;;
    *) lines+=("d32 q3 $word") ;;
  esac
done
verdict $((${#lines[@]} < 50)) "50 words at least"
"$heed" check --device cpu --threads 1 "${lines[@]:0:40}" >"$work/log" 2>&1 && "$heed" check --device cpu --threads 1 "${lines[@]:40}" >>"$work/log" 2>&1
verdict $? "a word is not understood: $(grep -aE 'heed:|fail' "$work/log" | head -3)"

# ---- installed
if [ -e "$build/cmake_install.cmake" ] && [ -d "$build/manual" ]; then
  cmake --install "$build" --prefix "$work/prefix" >"$work/log" 2>&1
  for file in share/man/man1/heed.1 share/man/man1/heed-bench.1 share/bash-completion/completions/heed share/zsh/vendor-completions/_heed \
    share/fish/vendor_completions.d/heed.fish bin/heed; do
    [ -s "$work/prefix/$file" ]
    verdict $? "cmake --install puts $file"
  done
  cmp -s "$work/prefix/share/man/man1/heed.1" "$out/man/heed.1"
  verdict $? "what is installed is what the command writes"
else skip "manual" "$build has no man pages (cross build?)"; fi

finish
