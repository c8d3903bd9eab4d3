#!/usr/bin/env bash
# python/: the package on the library of a build, without a package beside it (with numpy and torch, and as pip installs
# it: script/check python). tests/test_python.sh [PATH OF libheed.so, or - for an installed package] [PYTHON]
set -uo pipefail
cd "$(dirname "$0")/.."
library=${1:-${HEED_BUILD:-build/release}/libheed.so}
python=${2:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset HEED_DEVICE HEED_CPU HEED_THREADS HEED_VALIDATE
counts="0 0 1"
if ! command -v "$python" >/dev/null; then echo "skipped: python: no $python here"
elif [ "$library" != - ] && [ ! -e "$library" ]; then echo "skipped: python: this build has no shared library"
elif [ "$library" != - ] && nm -D "$library" 2>/dev/null | grep -q __asan_init; then echo "skipped: python: a library with sanitizers needs a program with them"
else
  [ "$library" = - ] || export PYTHONPATH=$PWD/python HEED_LIBRARY=$(realpath "$library")
  PYTHONDONTWRITEBYTECODE=1 "$python" -m unittest discover -v -s python/tests >"$work/log" 2>&1
  status=$?
  passed=$(grep -c ' \.\.\. ok$' "$work/log")
  skipped=$(grep -c ' \.\.\. skipped ' "$work/log")
  failed=$(grep -cE ' \.\.\. (FAIL|ERROR)$' "$work/log")
  [ $status = 0 ] && [ "$passed" -gt 0 ] || { [ "$failed" -gt 0 ] || failed=1; cat "$work/log"; }
  grep ' \.\.\. skipped ' "$work/log" | sed 's/.* \.\.\. skipped/skipped: python:/'
  counts="$passed $failed $skipped"
fi
[ -n "${HEED_TEST_COUNTS:-}" ] && echo "$counts" >>"$HEED_TEST_COUNTS"
read -r passed failed skipped <<<"$counts"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
