# To be sourced by .ci/run, tools/test.sh and tools/quickstart.sh. Needs ROOT, the checkout. Defines find_python,
# find_browser, find_compiler, can_make_hosts, install_missing, make_environment, make_test_environment.

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

# Is there a browser for the test that looks at a page (tests/evaluation/page_kit.py: the same names)?
find_browser() {
  local candidate
  for candidate in chromium chromium-browser google-chrome; do
    command -v "$candidate" >/dev/null && return
  done
  return 1
}

# Is there a compiler for the tests of what plsc/backend/compiler.py compiles?
find_compiler() {
  command -v g++ >/dev/null
}

# Is there a library that wheels link to and do not bring? (Not grep -q: it ends ldconfig early, which pipefail takes for a no.)
find_library() {
  { ldconfig -p || /sbin/ldconfig -p; } 2>/dev/null | grep -F "$1" >/dev/null
}
find_openmp() { find_library libgomp.so.1; }  # Paddle's
find_opengl() { find_library libGL.so.1; }  # that of OpenCV, which insightface needs (tests/engine/test_interop.py)

# Are there the programs with which tests/hosts makes hosts on this machine?
find_host_tools() {
  local tool
  for tool in ip nft setpriv unshare nsenter; do
    command -v "$tool" >/dev/null || return
  done
}

# Can tests/hosts make hosts: network namespaces of their own, which takes root?
can_make_hosts() {
  find_host_tools && [ "$(id -u)" = 0 ] && unshare --mount --uts --ipc --net --pid --fork true 2>/dev/null
}

# install_missing: what the tests need besides Python packages, on Debian and Ubuntu as root or with sudo. Says what to
# install where it cannot, and fails if the tests cannot run without it; without Chromium they can, but for one, and
# without hosts, but for tests/hosts.
install_missing() {
  local need=() as_root=() wanted
  { [ -n "${PYTHON:-}" ] || find_python 2>/dev/null; } || need+=(python3 python3-venv)
  find_openmp || need+=(libgomp1)
  find_compiler || need+=(g++)
  find_opengl || need+=(libgl1)
  wanted="${need[*]}"
  find_browser || wanted="$wanted chromium"
  [ "$(id -u)" != 0 ] || find_host_tools || wanted="$wanted iproute2 nftables"
  [ -n "${wanted// /}" ] || return 0
  [ "$(id -u)" = 0 ] || as_root=(sudo)
  [ -t 0 ] || [ "${#as_root[@]}" = 0 ] || as_root=(sudo -n) # nobody is there to be asked for a password
  if command -v apt-get >/dev/null && "${as_root[@]}" true 2>/dev/null; then
    echo "installing by apt-get: $wanted"
    as_root+=(env DEBIAN_FRONTEND=noninteractive apt-get -qq)
    "${as_root[@]}" update || true
    [ ${#need[@]} -eq 0 ] || "${as_root[@]}" install -y --no-install-recommends "${need[@]}" >/dev/null || true
    find_browser || "${as_root[@]}" install -y --no-install-recommends chromium >/dev/null || true
    find_host_tools || "${as_root[@]}" install -y --no-install-recommends iproute2 nftables >/dev/null || true
  else
    echo "install these first (names of Debian's packages): $wanted" >&2
  fi
  find_browser || echo "warning: no Chromium is on the PATH, so the test that looks at a page cannot run" >&2
  can_make_hosts || echo "warning: not root, or no unshare, ip or nft: the tests of several hosts cannot run" >&2
  find_compiler || { echo "error: no g++ is on the PATH, which tests need" >&2 && return 1; }
  find_openmp || { echo "error: there is no libgomp.so.1 (Debian: libgomp1), which Paddle needs" >&2 && return 1; }
  find_python
}

# make_environment NAME EXTRAS: the virtual environment .venvs/NAME with the checkout and these extras, versions as in
# requirements/pins.txt. Kept while nothing it depends on has changed. Sets ENVIRONMENT to its directory.
make_environment() {
  local stamp
  find_python || return 1
  ENVIRONMENT=$ROOT/.venvs/$1
  stamp="$ROOT $2 $("$PYTHON" -c 'import sys; print(sys.version, sys.executable)')
$(cd "$ROOT" && sha256sum setup.py requirements/pins.txt plsc/version.py plsc/extras.py)"
  mkdir -p "$ROOT/.venvs"
  exec 9>"$ROOT/.venvs/$1.lock"
  flock 9 # a second run waits until the first has made it
  if [ "$(cat "$ENVIRONMENT/stamp" 2>/dev/null)" != "$stamp" ]; then
    echo "making $ENVIRONMENT with the extras $2 for $("$PYTHON" -V); what pip says: $ENVIRONMENT/install.log"
    rm -rf "$ENVIRONMENT"
    "$PYTHON" -m venv "$ENVIRONMENT" || return 1
    "$ENVIRONMENT/bin/python" -m pip install --disable-pip-version-check --progress-bar off \
      --constraint "$ROOT/requirements/pins.txt" --editable "$ROOT[$2]" >"$ENVIRONMENT/install.log" 2>&1 || {
      tail -n 20 "$ENVIRONMENT/install.log" >&2
      echo "error: pip could not install the extras $2; all it said: $ENVIRONMENT/install.log" >&2
      return 1
    }
    printf '%s\n' "$stamp" >"$ENVIRONMENT/stamp"
  fi
  exec 9>&-
}

# make_test_environment 3.3.1|2.6.2|gpu|torch: the environment in which tools/test.sh runs the tests of that Paddle; torch:
# the one without Paddle in which tests/torch runs torch.
make_test_environment() {
  case $1 in
    3.3.1) make_environment "test-$1" cpu,onnx,test,interop ;; # +264 MB
    2.6.2) make_environment "test-$1" cpu26,onnx26,test ;;
    gpu) make_environment "test-$1" gpu,test ;;
    torch) make_environment "test-$1" torch ;;
    *)
      echo "error: '$1' is not an environment; allowed: 3.3.1, 2.6.2, gpu, torch" >&2
      return 2
      ;;
  esac
}
