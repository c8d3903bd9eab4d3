#!/usr/bin/env bash
# python/: the package on the library of a build, without a package beside it (with numpy and torch, and as pip installs
# it: script/check python). tests/test_python.sh [PATH OF libheed.so, or - for an installed package] [PYTHON]
. "$(dirname "$0")/shell_rig.sh"
library=${1:-${HEED_BUILD:-build/release}/libheed.so}
python=${2:-python3}
unset HEED_VALIDATE
if ! command -v "$python" >/dev/null; then skip python "no $python here"
elif [ "$library" != - ] && [ ! -e "$library" ]; then skip python "this build has no shared library"
elif [ "$library" != - ] && nm -D "$library" 2>/dev/null | grep -q __asan_init; then skip python "a library with sanitizers needs a program with them"
else
  [ "$library" = - ] || export PYTHONPATH=$PWD/python HEED_LIBRARY=$(realpath "$library")
  PYTHONDONTWRITEBYTECODE=1 "$python" -m unittest discover -v -s python/tests >"$work/log" 2>&1
  status=$?
  passed=$(grep -c ' \.\.\. ok$' "$work/log")
  skipped=$(grep -c ' \.\.\. skipped ' "$work/log")
  failed=$(grep -cE ' \.\.\. (FAIL|ERROR)$' "$work/log")
  [ $status = 0 ] && [ "$passed" -gt 0 ] || { [ "$failed" -gt 0 ] || failed=1; cat "$work/log"; }
  grep ' \.\.\. skipped ' "$work/log" | sed 's/.* \.\.\. skipped/skipped: python:/'
fi
finish
