#!/usr/bin/env bash
# Run the tests in an environment of their own:
#   bash tools/test.sh [3.3.1|2.6.2|gpu|torch]           all tests, three files at once
#   bash tools/test.sh [3.3.1|2.6.2|gpu|torch] ARGUMENTS pytest with these arguments, in one process
#   bash tools/test.sh --fast                            in some three minutes, see FAST in tests/parts.py
# 3.3.1 (default), 2.6.2: on that Paddle for CPUs. What needs no Paddle, or none of this version, is run with 3.3.1 only
# (tests/parts.py). A complete run says which tests took longest and takes a skipped test for one that failed.
# gpu: tests/gpu, which builds the programs for GPUs with paddlepaddle-gpu 2.6.2 (759 MB) and needs no GPU.
# torch: tests/torch with Paddle 3.3.1, and torch 2.13 (0.7 GB; where pip finds a build for CUDA only, several) beside it. Python 3.10 or later.
# PYTHON=/path/to/python chooses the Python (3.9 to 3.12). Installs what is missing (Chromium, g++, nftables) on Debian and Ubuntu.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$ROOT/tools/environment.sh"
cd "$ROOT"

main() {
  local which=3.3.1
  [ $# -eq 0 ] || [ "$1" = --fast ] || { which=$1 && shift; }
  install_missing
  if [ "$which" = torch ]; then
    make_test_environment torch || exit
    export TEST_TORCH_PYTHON=$ENVIRONMENT/bin/python
    make_test_environment 3.3.1 || exit
  else
    make_test_environment "$which" || exit
  fi
  python=$ENVIRONMENT/bin/python failed=0 left_out=()
  find_browser || left_out+=(tests/evaluation/test_page_in_browser.py)
  can_make_hosts || left_out+=(tests/hosts/test_*.py)
  if [ "${1:-}" = --fast ]; then
    three_at_once "$(without_paddle)" fast-plain
    three_at_once "$python" fast -m "not slow"
  elif [ $# -gt 0 ]; then
    case $which in
      gpu | torch) exec "$python" -m pytest -q -o testpaths="tests/$which" "$@" ;;
      *) exec "$python" -m pytest -q --ignore=tests/gpu --ignore=tests/torch "$@" ;;
    esac
  elif [ "$which" = gpu ] || [ "$which" = torch ]; then
    three_at_once "$python" "$which"
  elif [ "$which" = 2.6.2 ]; then
    three_at_once "$python" rest -m "not once"
    run alone "$python" -m pytest
  else
    three_at_once "$(without_paddle)" plain
    three_at_once "$python" "rest once"
    run alone "$python" -m pytest
  fi
  [ ${#left_out[@]} = 0 ] || echo "NOT RUN for want of Chromium, or of root, unshare, ip and nft: ${left_out[*]}"
  exit "$failed"
}

# The interpreter that finds no Paddle, for the tests that need none.
without_paddle() {
  "$python" -m tests.without_paddle "$ENVIRONMENT/without_paddle"
}

# three_at_once PYTHON PARTS [OPTIONS]: a file is run by one process, from its first test to its last. One thread for each;
# three, as on two cores one of them often waits: for a rank that is late, or to be killed. Threads of OpenMP that have
# nothing to do sleep at once: by default they spin for 0.2 s, a quarter of all CPU time of such runs.
three_at_once() {
  run "$2" env OMP_NUM_THREADS=1 KMP_BLOCKTIME=0 "$1" -m pytest -n 3 --dist loadfile --no-loadscope-reorder \
    --max-worker-restart 1 "${@:3}"
}

# run PARTS COMMAND: pytest with the files of the parts, but for those in left_out (pytest --ignore keeps files that are
# named). Where it fails the next ones are run all the same.
run() {
  local parts=$1 began=$SECONDS files
  shift
  # shellcheck disable=SC2086
  mapfile -t files < <("$python" -m tests.parts $parts | grep -vxF "$(printf '%s\n' "${left_out[@]:-none}")")
  echo "--- $parts: ${#files[@]} files"
  [ ${#files[@]} -gt 0 ] || { failed=1 && return; }  # pytest without files would run all of them
  "$@" -q -p tests.no_skips -p tests.time_limit --durations=15 --durations-min=1 "${files[@]}" || failed=1
  echo "--- $parts: $((SECONDS - began)) s"
}

main "$@"
