#!/usr/bin/env bash
# The documentation site, from docs/ and the docstrings, in an environment of its own without Paddle:
#   bash tools/site.sh             builds it in output/site; a warning (a link or an anchor that leads nowhere) is an error
#   bash tools/site.sh --serve     shows it at http://127.0.0.1:8000 and renews it while you write
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$ROOT/tools/environment.sh"
cd "$ROOT"
make_environment docs docs
export NO_MKDOCS_2_WARNING=1 # a notice of the theme; the versions are pinned
case ${1:-} in
  "") "$ENVIRONMENT/bin/mkdocs" build --quiet && echo "the site is output/site/index.html" ;;
  --serve) "$ENVIRONMENT/bin/mkdocs" serve ;;
  *) sed -n '2,4p' "${BASH_SOURCE[0]}" >&2 && exit 2 ;;
esac
