"""Custom operations in C++, compiled on the machine that they run on and cached per user.

They are specific to this machine's processor and to the installed Paddle, so they cannot be part of a package.
Compiling takes a few seconds once (docs/history.md); processes that need the same library wait for each other.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import paddle

from plsc.files.private_directory import Directory, open_directory, user_cache

# -fno-math-errno: a square root that may set errno is not computed for several numbers at a time
COMPILE = ["-O3", "-march=native", "-fno-math-errno", "-fopenmp", "-std=c++17", "-fPIC", "-w",
           "-DPADDLE_WITH_CUSTOM_KERNEL"]  # fmt: skip
OPENMP = "libiomp5.so"  # Paddle's OpenMP: the threads of another OpenMP library would compete with it
TIMEOUT_SECONDS = 180  # seconds on a quiet machine, a minute and more beside ten other processes


class CompileError(Exception):
    """Why there is no library, and how to fix it, in one line."""


class Library(NamedTuple):
    """A compiled library. ``path``: for messages. It is open as ``handle`` and must be loaded through ``load_path``, so
    that the file that was checked is the file that runs. The handle stays open: the dynamic loader identifies a library
    by its path."""

    path: Path
    handle: int

    @property
    def load_path(self) -> str:
        return f"/proc/self/fd/{self.handle}"


def compiled_library(source: Path, cpuinfo: Path = Path("/proc/cpuinfo")) -> Library:
    """The shared library of a C++ ``source`` that uses Paddle, from the cache or compiled now.

    The environment variable ``CXX`` selects a compiler other than g++, ``XDG_CACHE_HOME`` a cache other than ~/.cache.
    Only the user and root may have write access to the cache. Raises CompileError.
    """
    compiler = _compiler()
    root = Path(paddle.__file__).resolve().parent
    if not (root / "libs" / OPENMP).exists():
        raise CompileError(f"this Paddle has no {OPENMP}")
    name = _cache_key(source, compiler, root, cpuinfo)
    try:
        with open_directory(user_cache()) as cache:
            found = _open_cached(cache, name)
            if found is None:
                with cache.locked(f"{name}.lock"):
                    found = _open_cached(cache, name)
                    if found is None:
                        _compile(source, compiler, root, cache, name)
                        found = _open_cached(cache, name)
            if found is None:
                raise CompileError(f"{cache.path / name}.so was deleted immediately after it was compiled")
            return found
    except OSError as error:
        raise CompileError(f"the cache cannot be used ({error}; XDG_CACHE_HOME selects another)") from None


def _compiler() -> list[str]:
    named = os.environ.get("CXX", "")
    try:
        command = shlex.split(named) or ["g++"]
    except ValueError as error:
        raise CompileError(f"CXX={named!r} in the environment cannot be parsed: {error}") from None
    if shutil.which(command[0]) is None:
        raise CompileError(f"compiler {command[0]!r} not found (Debian: apt-get install g++; CXX selects another)")
    if "/" in command[0]:
        command[0] = os.path.abspath(command[0])  # it is called from another directory
    return command


def _open_cached(cache: Directory, name: str) -> Library | None:
    """The library of this name, or None if it is not in the cache."""
    handle = cache.open_file(f"{name}.so")
    return None if handle is None else Library(cache.path / f"{name}.so", handle)


def _cache_key(source: Path, compiler: list[str], root: Path, cpuinfo: Path) -> str:
    """A file name with a hash of everything that the library depends on."""
    try:
        lines, text = cpuinfo.read_text().splitlines(), source.read_text(encoding="utf-8")
    except OSError as error:
        raise CompileError(f"{error.filename}: {error.strerror}") from None
    kind = [line for line in lines if line.startswith(("flags", "Features"))][:1]
    calls = [_compile_options(Path("in"), root, Path("out")), _link_options(root, Path("in"), Path("out"))]
    version = _run([*compiler, "--version"])
    parts = [text, paddle.__version__, paddle.version.commit, compiler, version, kind, *calls]
    digest = hashlib.sha256(repr(parts).encode())
    return f"{source.stem}-{digest.hexdigest()[:16]}"


def _compile(source: Path, compiler: list[str], root: Path, cache: Directory, name: str) -> None:
    compiled, linked = Path(f"{name}.o"), Path(f"{name}.linked")
    _run([*compiler, *_compile_options(source.absolute(), root, compiled)], cache)
    _run([*compiler, *_link_options(root, compiled, linked)], cache)
    cache.remove(compiled.name)
    cache.rename(linked.name, f"{name}.so", 0o700)


def _compile_options(source: Path, root: Path, compiled: Path) -> list[str]:
    headers = ["-I", str(root / "include"), "-I", str(root / "include" / "third_party")]
    return [*COMPILE, *headers, "-c", str(source), "-o", str(compiled)]


def _link_options(root: Path, compiled: Path, linked: Path) -> list[str]:
    """Without -fopenmp, which could link the compiler's own OpenMP library."""
    libs, base = root / "libs", root / "base"
    others = [f"-l:{name}" for name in ("libcommon.so", "libphi_core.so", "libphi.so") if (libs / name).exists()]
    paddles = ["-L", str(libs), f"-l:{OPENMP}", *others, "-L", str(base), "-l:libpaddle.so"]
    paddles.append(f"-Wl,-rpath,{libs}:{base}")
    return ["-shared", str(compiled), "-o", str(linked), *paddles]


def _run(command: list[str], where: Directory | None = None) -> str:
    """The standard output of ``command``."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_SECONDS, encoding="utf-8",
            errors="replace", env={**os.environ, "LC_ALL": "C"}, cwd=where and where.as_path,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise CompileError(f"{command[0]} took more than {TIMEOUT_SECONDS} s") from None
    except OSError as error:
        raise CompileError(f"{command[0]} cannot be run: {error.strerror}") from None
    if done.returncode:
        lines = done.stderr.splitlines()
        reason = next((line for line in lines if "error: " in line), lines[-1] if lines else "")
        said = f": {reason.strip()}" if reason.strip() else " and said nothing"
        raise CompileError(f"{command[0]} ended with status {done.returncode}{said}")
    return done.stdout
