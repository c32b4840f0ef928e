# To be sourced by tools/test.sh and tools/quickstart.sh. Needs ROOT, the checkout. Defines find_python,
# find_browser, find_compiler, make_environment.

# Sets PYTHON to a Python 3.9 to 3.12 that can make virtual environments; one that is set already must be such.
find_python() {
  local candidate
  local check='import sys, venv, ensurepip; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 12))'
  if [ -n "${PYTHON:-}" ]; then
    "$PYTHON" -c "$check" 2>/dev/null && return
    echo "error: PYTHON=$PYTHON is not a Python 3.9 to 3.12 with venv" >&2
    return 1
  fi
  for candidate in python3.11 python3.12 python3.10 python3.9 python3 python; do
    if "$candidate" -c "$check" >/dev/null 2>&1; then
      PYTHON=$candidate
      return
    fi
  done
  echo "error: no Python 3.9 to 3.12 with venv is on the PATH; install one (Debian: apt-get install python3-venv)" \
    "or set PYTHON=/path/to/python" >&2
  return 1
}

# Fails, saying what to install, where no browser is there for the tests (tests/unit/page_kit.py: the same names).
find_browser() {
  local candidate
  for candidate in chromium chromium-browser google-chrome; do
    command -v "$candidate" >/dev/null && return
  done
  echo "error: no Chromium is on the PATH, which a test needs; install one (Debian: apt-get install chromium)" >&2
  return 1
}

# Fails, saying what to install, where no compiler is there for the tests of what plsc/compiler.py compiles.
find_compiler() {
  command -v g++ >/dev/null && return
  echo "error: no g++ is on the PATH, which tests need; install one (Debian: apt-get install g++)" >&2
  return 1
}

# make_environment NAME EXTRAS: the virtual environment .venvs/NAME with the checkout and these extras, versions as in
# requirements/pins.txt. Kept while nothing it depends on has changed. Sets ENVIRONMENT to its directory.
make_environment() {
  local stamp
  find_python || return 1
  ENVIRONMENT=$ROOT/.venvs/$1
  stamp="$ROOT $2 $("$PYTHON" -c 'import sys; print(sys.version, sys.executable)')
$(cd "$ROOT" && sha256sum setup.py requirements/pins.txt plsc/version.py)"
  mkdir -p "$ROOT/.venvs"
  exec 9>"$ROOT/.venvs/$1.lock"
  flock 9 # a second run waits until the first has made it
  if [ "$(cat "$ENVIRONMENT/stamp" 2>/dev/null)" != "$stamp" ]; then
    echo "making $ENVIRONMENT with plsc[$2] for $("$PYTHON" -V); what pip says: $ENVIRONMENT/install.log"
    rm -rf "$ENVIRONMENT"
    "$PYTHON" -m venv "$ENVIRONMENT" || return 1
    "$ENVIRONMENT/bin/python" -m pip install --disable-pip-version-check --progress-bar off \
      --constraint "$ROOT/requirements/pins.txt" --editable "$ROOT[$2]" >"$ENVIRONMENT/install.log" 2>&1 || {
      tail -n 20 "$ENVIRONMENT/install.log" >&2
      echo "error: pip could not install plsc[$2]; all it said: $ENVIRONMENT/install.log" >&2
      return 1
    }
    printf '%s\n' "$stamp" >"$ENVIRONMENT/stamp"
  fi
  exec 9>&-
}
