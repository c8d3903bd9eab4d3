# What every tests/test_*.sh begins with: `. "$(dirname "$0")/shell_rig.sh"`. In the repository's root, with a folder $work of its own that goes with it,
# nothing of heed in the environment, three counters; at the end `finish`. Not a test, not for other scripts.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset HEED_DEVICE HEED_CPU HEED_THREADS
passed=0 failed=0 skipped=0
shows=("$work/out" "$work/err") lines=5 # a failure prints so many of each

verdict() { # STATUS NAME: good if the status is 0
  if [ "$1" = 0 ]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "FAIL $2"
    head -n "$lines" "${shows[@]}" 2>/dev/null
  fi
}

attempt() { # NAME COMMAND...: good if the command is; what it says is shown if it is not
  local name=$1
  shift
  "$@" >"$work/log" 2>&1
  local status=$? before=$failed
  verdict $status "$name: $*"
  [ $failed = "$before" ] || tail -20 "$work/log"
}

skip() { # WHAT WHY...
  skipped=$((skipped + 1))
  echo "skipped: $1: ${*:2}"
}

finish() {
  [ -n "${HEED_TEST_COUNTS:-}" ] && echo "$passed $failed $skipped" >>"$HEED_TEST_COUNTS"
  echo "$passed passed, $failed failed, $skipped skipped"
  [ $failed = 0 ]
  exit
}
