#!/usr/bin/env bash
# The explorer's screen, through tmux: after given keys it shows the numbers that `heed run` gives for the same arrays; it works in 80 x 24 without
# colours; it gives the terminal back at the end and at every signal. tests/test_explore.sh [PATH OF heed]
. "$(dirname "$0")/shell_rig.sh"
heed=$(realpath "${1:-${HEED_BUILD:-build/release}/heed}")
socket=$work/tmux
shows=("$work/screen" "$work/err") lines=40
unset NO_COLOR COLORTERM TMUX
export LC_ALL=C.UTF-8
mux() { tmux -f /dev/null -S "$socket" "$@"; }
trap 'mux kill-server 2>/dev/null; rm -rf "$work"' EXIT

refuses() { # CODE TEXT ARGS...: without a terminal
  local code=$1 text=$2 got
  shift 2
  "$heed" explore "$@" </dev/null >"$work/screen" 2>"$work/err"
  got=$?
  [ $got = "$code" ] && grep -qF -- "$text" "$work/screen" "$work/err"
  verdict $? "exit $got, wanted $code with \"$text\": heed explore $*"
}

# A shell in a terminal of 80 x 24 that knows no line editing; `shown TEXT` waits until the screen shows TEXT.
open_shell() { # TERM
  mux kill-server 2>/dev/null
  socket=$(mktemp -u "$work/tmux-XXXXXX") # the old server may still be on its way out
  mux new-session -d -s x -x 80 -y 24 "env TERM=$1 PS1='ready> ' bash --norc --noprofile --noediting" || return 1
  shown 'ready>'
}
press() { mux send-keys -t x "$@"; }
screen() { mux capture-pane -p -t x >"$work/screen"; }
# A screen is drawn piece by piece, so a look at it may come between two pieces: whatever is asked of it is asked until it holds, for 30 s.
becomes() { # COMMAND...
  for _ in $(seq 300); do
    screen
    "$@" && return 0
    sleep 0.1
  done
  return 1
}
shown() { becomes grep -qF -- "$1" "$work/screen"; }
matched() { becomes grep -qE -- "$1" "$work/screen"; }
start() { # TERM TEXT ARGS...: begins to explore
  local term=$1 text=$2
  shift 2
  open_shell "$term" && press "stty -g >$work/before; $heed explore $*; code=\$?; stty -g >$work/after; echo code \$code" Enter && shown "$text"
}

arrays() { # the same numbers to the explorer, and as changed by the keys to heed run
  python3 - "$work" <<'PYTHON'
import math, struct, sys
work = sys.argv[1]
def write(name, shape, values):
    head = ("{'descr': '<f4', 'fortran_order': False, 'shape': %r, }" % (shape,)).encode()
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    open(f"{work}/{name}.npy", "wb").write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + struct.pack("<%df" % len(values), *values))
wave = lambda n, step, size: [round(size * math.sin(step * x + 1), 2) for x in range(n)]
q, k, v = wave(3 * 2 * 5, 0.9, 2), wave(5 * 2 * 5, 0.7, 2), wave(5 * 2 * 3, 1.3, 1)
for name, values, shape in (("q", q, (3, 2, 5)), ("k", k, (5, 2, 5)), ("v", v, (5, 2, 3))): write(name, shape, values)
at = lambda token, d, dim: (token * 2 + 1) * dim + d # of head 1
q[at(1, 0, 5)] += 0.2
k[at(1, 2, 5)] += 1
v[at(1, 2, 3)] = -v[at(1, 2, 3)]
for name, values, shape in (("q2", q, (3, 2, 5)), ("k2", k, (5, 2, 5)), ("v2", v, (5, 2, 3))): write(name, shape, values)
PYTHON
}

numbers_are_the_librarys() {
  arrays || { verdict 1 "arrays"; return; }
  start screen "your capture" --q "$work/q.npy" --k "$work/k.npy" --v "$work/v.npy" --head 1
  verdict $? "own files are shown"
  # query 1: q[0] + 0.2; key 1: k[2] + 1; value 1: v[2] negated; the mask, T 0.7
  press Tab + + Down Down Right Right PPage Down Down Down Down Down '!' c t
  shown "T 0.7   causal mask on" && shown "hidden"
  verdict $? "keys are heard"
  "$heed" run --q "$work/q2.npy" --k "$work/k2.npy" --v "$work/v2.npy" scale=1 scores=0 causal --scores "$work/dot.npy" -o "$work/o.npy" >/dev/null &&
    "$heed" run --q "$work/q2.npy" --k "$work/k2.npy" --v "$work/v2.npy" scale=0.63887656 scores=2 causal --scores "$work/score.npy" -o "$work/o.npy" >/dev/null &&
    "$heed" run --q "$work/q2.npy" --k "$work/k2.npy" --v "$work/v2.npy" scale=0.63887656 scores=3 causal --scores "$work/weight.npy" -o "$work/o.npy" >/dev/null &&
    becomes numbers_agree
  verdict $? "every number on the screen is the library's"
  press q
  shown "code 0" && [ -s "$work/after" ] && cmp -s "$work/before" "$work/after"
  verdict $? "q gives the terminal back"
}

numbers_agree() {
  python3 - "$work" >"$work/err" 2>&1 <<'PYTHON'
import math, struct, sys
work = sys.argv[1]
def read(name):
    b = open(f"{work}/{name}.npy", "rb").read()
    n = struct.unpack("<H", b[8:10])[0]
    return eval(b[10:10 + n])["shape"], struct.unpack("<%df" % ((len(b) - 10 - n) // 4), b[10 + n:])
lines = open(f"{work}/screen", encoding="utf-8").read().split("\n")
first = next(n for n, line in enumerate(lines) if line.startswith("query  ")) + 1
q, k, v, o = read("q2")[1], read("k2")[1], read("v2")[1], read("o")[1]
dot, score, weight = read("dot")[1], read("score")[1], read("weight")[1]
row = lambda a, token, dim: a[(token * 2 + 1) * dim:(token * 2 + 1) * dim + dim]
grid = lambda a, i, j: a[(1 * 3 + i) * 5 + j] # scores: [head, query, key]
length = lambda a: math.sqrt(sum(x * x for x in a))
def same(text, value, digits):
    assert abs(float(text) - value) <= 0.5001 * 10 ** -digits, (text, value)
words = lines[first].split()
assert words[0] == "1", words
for d in range(4): same(words[1 + d], row(q, 1, 5)[d], 2)
for j in range(5):
    words = lines[first + 1 + j].split()
    assert words[0] == str(j), words
    for d in range(4): same(words[1 + d], row(k, j, 5)[d], 2)
    cosine = grid(dot, 1, j) / length(row(q, 1, 5)) / length(row(k, j, 5))
    same(words[5], grid(dot, 1, j), 3)
    same(words[6], cosine, 3)
    same(words[7], math.degrees(math.acos(cosine)), 1)
    if j > 3: assert words[8] == "hidden" and grid(score, 1, j) == -math.inf, words
    else: same(words[8], grid(score, 1, j), 3)
    same(words[9], grid(weight, 1, j), 4)
values = first + 1 + 5
assert lines[values].startswith("value"), lines[values]
for j in range(5):
    words = lines[values + 1 + j].split()
    for d in range(3): same(words[1 + d], row(v, j, 3)[d], 2)
words = lines[values + 6].split()
for d in range(3): same(words[1 + d], row(o, 1, 3)[d], 2)
PYTHON
}

line_begins() { # N WORD
  [ "$(sed -n "$1p" "$work/screen" | cut -d' ' -f1)" = "$2" ]
}
colored() { mux capture-pane -pe -t x | grep -qE "$1"; } # PATTERN
lacks() { ! grep -qF -- "$1" "$work/screen"; }        # TEXT

lessons_without_colors() {
  start vt100 "step 1 of 7" && matched "^longer .* 0.9634 ####"
  verdict $? "vt100: the first step with its bar"
  ! awk 'length($0) > 80 {exit 1}' "$work/screen"
  verdict $((1 - $?)) "vt100: 80 columns are enough"
  press n n n n && shown "causal mask on" && shown hidden
  verdict $? "the mask hides"
  press n n && shown "step 7 of 7" && press ']' && shown "head 1 of 4"
  verdict $? "the carried capture"
  press '[' o && shown "keys by weight" && becomes line_begins 8 animal
  verdict $? "\`it\` looks at \`animal\`"
  press m && shown "looks most at" && matched '^it +[: ]+.*animal +0\.45'
  verdict $? "the map in characters"
  press '?' && shown "Shift-Tab" && shown "weight what it gives;" && press '?' && shown "output = sum"
  verdict $? "the page of keys"
  mux resize-window -t x -x 50 -y 10 && shown "50 x 10" && mux resize-window -t x -x 120 -y 40 && shown "[10]"
  verdict $? "follows the size of the terminal"
  press C-c # ends the shell's line, too
  shown 'ready>' && press "code=\$?; stty -g >$work/after; echo code \$code" Enter && shown "code 130" && cmp -s "$work/before" "$work/after"
  verdict $? "Ctrl-C gives the terminal back"
  start screen-256color "step 1 of 7" && becomes colored '48;5;'
  verdict $? "256 colours where the terminal has them"
  press q
  export NO_COLOR=1
  start screen-256color "step 1 of 7" && matched "^longer .* 0.9634 ####" && ! colored '48;5;|\[4[0-7]m'
  verdict $? "NO_COLOR"
  press q
  unset NO_COLOR
  open_shell dumb && press "$heed explore; echo code \$?" Enter && shown "code 2" && shown "cannot move its cursor"
  verdict $? "a terminal without a cursor is refused"
  open_shell dummy-terminal && press "$heed explore; echo code \$?" Enter && shown "code 2" && shown "no such terminal"
  verdict $? "an unknown terminal is named"
}

signals() {
  for signal in TERM HUP QUIT SEGV ABRT USR1 ALRM; do
    start screen-256color "step 1 of 7"
    local child
    child=$(ps -o pid= --ppid "$(mux display-message -p -t x '#{pane_pid}')" | head -1)
    [ -n "$child" ] && kill -$signal "$child"
    # echo code: 128 + number. The numbers of the first screen must be gone, what stood before must be back, and the cursor too.
    shown "code $((128 + $(kill -l $signal)))" && shown 'stty -g' && becomes lacks "step 1 of 7" && cmp -s "$work/before" "$work/after" &&
      [ "$(mux display-message -p -t x '#{cursor_flag}#{alternate_on}')" = 10 ]
    verdict $? "SIG$signal gives the terminal back"
  done
  # Stopped and gone on with.
  start screen-256color "step 1 of 7" && press C-z && shown "Stopped" && press fg Enter && shown "step 1 of 7" && press + && shown "2.10"
  verdict $? "Ctrl-Z and fg"
  press q
}

if grep -qF "no ncurses" <<<"$("$heed" explore </dev/null 2>&1)"; then
  echo "skipped: heed explore: this build has no ncurses"
  skipped=1
  finish
fi
refuses 2 "wants a terminal"
refuses 2 "heed show"
refuses 2 "belong together" --q examples/data/q.npy
refuses 2 "does not take the word" causal
refuses 2 "--color purple" --color purple
refuses 0 "the interactive lesson" --help
if ! command -v tmux >/dev/null; then
  echo "skipped: the explorer's screen: tmux is not installed"
  skipped=1
  finish
fi
numbers_are_the_librarys
lessons_without_colors
signals
finish
