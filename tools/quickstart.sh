#!/usr/bin/env bash
# From nothing to a trained and verified net on two CPU ranks:  bash tools/quickstart.sh [--small] [--out DIR]
# Makes a virtual environment, draws Chinese characters in many fonts, trains on some of them, verifies on characters
# and designs that were never trained on. Started again, it goes on where it stopped and does not redo what is done.
#   --small    few characters and two epochs, a minute: shows that everything works, not that it is accurate
#   --out DIR  where everything goes (default: output/quickstart or output/quickstart-small in the checkout)
# PYTHON=/path/to/python chooses the Python (3.9 to 3.12).
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$ROOT/tools/environment.sh"

die() {
  echo "error: $*" >&2
  exit 1
}

main() {
  read_arguments "$@"
  make_environment quickstart cpu,report,fonts || exit 1
  python=$ENVIRONMENT/bin/python
  SECONDS=0 # what took long so far was downloading
  mkdir -p "$out" || die "--out $out cannot be made"
  cd "$ROOT"
  "$python" tools/make_glyphs.py --out "$out/glyphs" --size 64 "${glyphs[@]}"
  check_recipe
  if [ -e "$out/trained" ]; then
    echo "$out/run: already trained"
  else
    train
  fi
  "$python" -m plsc report "$out/run" --picture "$out/report.png"
  echo
  echo "time     $(cat "$out/trained") to draw, train and verify, without downloads"
  echo "model    $out/run"
  echo "log      $out/run/logs"
  echo "picture  $out/report.png"
}

read_arguments() {
  local small=
  out=
  while [ $# -gt 0 ]; do
    case $1 in
      --small) small=yes ;;
      --out)
        [ -n "${2:-}" ] || die "--out needs a directory"
        out=$2
        shift
        ;;
      -h | --help)
        sed -n '2,/^set/{/^# /s/^# //p}' "${BASH_SOURCE[0]}"
        exit 0
        ;;
      *) die "'$1' is not an option; allowed: --small, --out DIR" ;;
    esac
    shift
  done
  if [ -n "$small" ]; then
    glyphs=(--classes 60 --held-out-classes 20 --per-class 8 --pairs 200)
    settings=(-o classifier.num_classes=40 -o train_epochs=2 -o log_period=2)
  else
    glyphs=(--classes 500 --held-out-classes 50 --per-class 30 --pairs 3000)
    settings=()
  fi
  out=${out:-$ROOT/output/quickstart${small:+-small}}
  case $out in /*) ;; *) out=$PWD/$out ;; esac
  settings+=(-o "data.dataset_dir=$out/glyphs" -o "model_save_dir=$out/run" -o resume=auto)
}

# Refuse to go on with, or to report, a training that was started from other settings.
check_recipe() {
  local recipe
  recipe=$(sed 's/ *#.*//; /^$/d' configs/quickstart.yaml && printf '%s\n' "${settings[@]}")
  if [ -d "$out/run/checkpoints" ] && [ "$recipe" != "$(cat "$out/recipe")" ]; then
    die "$out holds a training with other settings (its file 'recipe'); choose another --out, or remove $out"
  fi
  printf '%s\n' "$recipe" >"$out/recipe"
}

train() {
  local status=0 resumed=
  [ ! -d "$out/run/checkpoints" ] || resumed=" since it was resumed"
  launcher=
  trap 'stop 130' INT
  trap 'stop 143' TERM HUP
  # What Paddle tells its own developers; errors are still told.
  export PYTHONWARNINGS=ignore::UserWarning GLOG_minloglevel=2
  # In the background, so that a signal reaches this shell at once; the ranks are sessions of their own, which the
  # launcher, but not the terminal, can end. It waits until they have saved.
  "$python" -m plsc train -c configs/quickstart.yaml "${settings[@]}" --ranks 2 --log-dir "$out/launch" &
  launcher=$!
  wait "$launcher" || status=$?
  trap - INT TERM HUP
  [ "$status" -eq 0 ] || die "the training failed; what each rank said: $out/launch/workerlog.*, $out/run/logs"
  echo "$SECONDS s$resumed" >"$out/trained"
}

stop() {
  if [ -n "$launcher" ]; then
    kill -TERM "$launcher" 2>/dev/null || true
    wait "$launcher" || true
  fi
  echo "stopped; the same command goes on from the last checkpoint" >&2
  exit "$1"
}

main "$@"
