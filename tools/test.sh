#!/usr/bin/env bash
# Run the tests in an environment of their own:  bash tools/test.sh [3.3.1|2.6.2|gpu] [arguments of pytest]
# Without paths among the arguments all tests run (pyproject.toml: tests).
# 3.3.1 (default), 2.6.2: all tests on that Paddle for CPUs. gpu: tests/gpu, which builds the programs for GPUs with
# paddlepaddle-gpu 2.6.2 (759 MB) and needs no GPU. PYTHON=/path/to/python chooses the Python (3.9 to 3.12).
# Needs Chromium, in which a test looks at a page, and g++ (Debian: apt-get install chromium g++).
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$ROOT/tools/environment.sh"

which=${1:-3.3.1}
[ $# -eq 0 ] || shift
case $which in
  3.3.1) extras=cpu,onnx,test selection=--ignore=tests/gpu ;;
  2.6.2) extras=cpu26,onnx26,test selection=--ignore=tests/gpu ;;
  gpu) extras=gpu,test selection=tests/gpu ;;
  *)
    echo "error: '$which' is not an environment; allowed: 3.3.1, 2.6.2, gpu" >&2
    exit 2
    ;;
esac
# Where all tests run, better said now than after many minutes.
[ "$which" = gpu ] || [ $# -gt 0 ] || { find_browser && find_compiler; }
make_environment "test-$which" "$extras"
cd "$ROOT"
exec "$ENVIRONMENT/bin/python" -m pytest -q "$selection" "$@"
