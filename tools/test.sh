#!/usr/bin/env bash
# Run the tests in an environment of their own:
#   bash tools/test.sh [3.3.1|2.6.2|gpu]                 all tests, two files at once
#   bash tools/test.sh [3.3.1|2.6.2|gpu] ARGUMENTS       pytest with these arguments, in one process
#   bash tools/test.sh --fast                            in some three minutes, see FAST in tests/parts.py
# 3.3.1 (default), 2.6.2: on that Paddle for CPUs. What needs no Paddle is not run with 2.6.2 once more.
# gpu: tests/gpu, which builds the programs for GPUs with paddlepaddle-gpu 2.6.2 (759 MB) and needs no GPU.
# PYTHON=/path/to/python chooses the Python (3.9 to 3.12). Installs what is missing (Chromium, g++) on Debian and Ubuntu.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$ROOT/tools/environment.sh"
cd "$ROOT"

main() {
  local which=3.3.1
  [ $# -eq 0 ] || [ "$1" = --fast ] || { which=$1 && shift; }
  install_missing
  make_test_environment "$which" || exit
  python=$ENVIRONMENT/bin/python failed=0 left_out=
  if [ "${1:-}" = --fast ]; then
    two_at_once "$(without_paddle)" fast-plain
    two_at_once "$python" fast -m "not slow"
  elif [ $# -gt 0 ]; then
    exec "$python" -m pytest -q $([ "$which" = gpu ] && echo -o testpaths=tests/gpu || echo --ignore=tests/gpu) "$@"
  elif [ "$which" = gpu ]; then
    two_at_once "$python" gpu
  else
    [ "$which" = 2.6.2 ] || two_at_once "$(without_paddle)" plain
    two_at_once "$python" rest
    alone
  fi
  [ -z "$left_out" ] || echo "NOT RUN for want of Chromium: $left_out"
  exit "$failed"
}

# The interpreter that finds no Paddle, for the tests that need none.
without_paddle() {
  "$python" -m tests.without_paddle "$ENVIRONMENT/without_paddle"
}

# two_at_once PYTHON PART [OPTIONS]: a file is run by one process, from its first test to its last. One thread for each.
two_at_once() {
  run "$2" env OMP_NUM_THREADS=1 "$1" -m pytest -n 2 --dist loadfile --no-loadscope-reorder "${@:3}"
}

alone() {
  find_browser || left_out=tests/evaluation/test_page_in_browser.py
  run alone "$python" -m pytest ${left_out:+--ignore="$left_out"}
}

# run PART COMMAND: pytest with the files of the part. Where it fails the next part is run all the same.
run() {
  local part=$1 files
  shift
  mapfile -t files < <("$python" -m tests.parts "$part")
  echo "--- $part: ${#files[@]} files"
  [ ${#files[@]} -gt 0 ] || { failed=1 && return; }  # pytest without files would run all of them
  "$@" -q "${files[@]}" || failed=1
}

main "$@"
