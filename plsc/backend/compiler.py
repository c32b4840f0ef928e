"""Operations of our own in C++, compiled on the machine that they run on and kept in the user's cache.

They are for this machine's processor and for the Paddle that is installed, so no package can bring them along. It takes
a few seconds once (docs/history.md); processes that want the same one wait for each other.
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

from plsc.files.private_directory import Directory, open_directory

COMPILE = ["-O3", "-march=native", "-fopenmp", "-std=c++17", "-fPIC", "-w", "-DPADDLE_WITH_CUSTOM_KERNEL"]
OPENMP = "libiomp5.so"  # Paddle's own threads: those of another library would compete with them
MOST_SECONDS = 60


class CompileError(Exception):
    """Why there is no library, and what helps, in one line."""


class Library(NamedTuple):
    """``path`` is what messages call it. It is opened already, as ``handle``, and to be loaded by ``loadable``: so what
    was looked at is what is run. The handle stays open for good: to the dynamic loader a name is the library."""

    path: Path
    handle: int

    @property
    def loadable(self) -> str:
        return f"/proc/self/fd/{self.handle}"


def compiled_library(source: Path, cpuinfo: Path = Path("/proc/cpuinfo")) -> Library:
    """The shared library of a C++ ``source`` that uses Paddle: the one in the cache, or one that is compiled now.

    ``CXX`` in the environment names another compiler than g++, ``XDG_CACHE_HOME`` another cache than ~/.cache. Nobody
    but the user and root may be able to put something else there. Raises CompileError.
    """
    compiler = _compiler()
    root = Path(paddle.__file__).resolve().parent
    if not (root / "libs" / OPENMP).exists():
        raise CompileError(f"this Paddle has no {OPENMP}")
    name = _key(source, compiler, root, cpuinfo)
    try:
        with open_directory(_cache()) as cache:
            found = _opened(cache, name)
            if found is None:
                with cache.alone(f"{name}.lock"):
                    found = _opened(cache, name)
                    if found is None:
                        _compile(source, compiler, root, cache, name)
                        found = _opened(cache, name)
            if found is None:
                raise CompileError(f"{cache.path / name}.so was taken away at once")
            return found
    except OSError as error:
        raise CompileError(f"the cache cannot be used ({error}; XDG_CACHE_HOME names another)") from None


def _compiler() -> list[str]:
    named = os.environ.get("CXX", "")
    try:
        command = shlex.split(named) or ["g++"]
    except ValueError as error:
        raise CompileError(f"CXX={named!r} in the environment cannot be read: {error}") from None
    if shutil.which(command[0]) is None:
        raise CompileError(f"there is no compiler {command[0]!r} (Debian: apt-get install g++; CXX names another)")
    if "/" in command[0]:
        command[0] = os.path.abspath(command[0])  # it is called from another directory
    return command


def _cache() -> str:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    if not os.path.isabs(base):
        raise CompileError(f"there is no home for a cache, but {base!r} (XDG_CACHE_HOME names one, from / on)")
    return os.path.realpath(os.path.join(base, "plsc"))


def _opened(cache: Directory, name: str) -> Library | None:
    """The library of this name, if it is there."""
    handle = cache.handle_of(f"{name}.so")
    return None if handle is None else Library(cache.path / f"{name}.so", handle)


def _key(source: Path, compiler: list[str], root: Path, cpuinfo: Path) -> str:
    """A name for all that the library depends on."""
    try:
        lines, text = cpuinfo.read_text().splitlines(), source.read_text(encoding="utf-8")
    except OSError as error:
        raise CompileError(f"{error.filename}: {error.strerror}") from None
    kind = [line for line in lines if line.startswith(("flags", "Features"))][:1]
    calls = [_compiling(Path("in"), root, Path("out")), _linking(root, Path("in"), Path("out"))]
    version = _run([*compiler, "--version"])
    parts = [text, paddle.__version__, paddle.version.commit, compiler, version, kind, *calls]
    digest = hashlib.sha256(repr(parts).encode())
    return f"{source.stem}-{digest.hexdigest()[:16]}"


def _compile(source: Path, compiler: list[str], root: Path, cache: Directory, name: str) -> None:
    compiled, linked = Path(f"{name}.o"), Path(f"{name}.linked")
    _run([*compiler, *_compiling(source.absolute(), root, compiled)], cache)
    _run([*compiler, *_linking(root, compiled, linked)], cache)
    cache.remove(compiled.name)
    cache.rename(linked.name, f"{name}.so", 0o700)


def _compiling(source: Path, root: Path, compiled: Path) -> list[str]:
    headers = ["-I", str(root / "include"), "-I", str(root / "include" / "third_party")]
    return [*COMPILE, *headers, "-c", str(source), "-o", str(compiled)]


def _linking(root: Path, compiled: Path, linked: Path) -> list[str]:
    """Without -fopenmp, which could bring the compiler's own library of threads."""
    libs, base = root / "libs", root / "base"
    paddles = ["-L", str(libs), f"-l:{OPENMP}", "-L", str(base), "-l:libpaddle.so", f"-Wl,-rpath,{libs}:{base}"]
    return ["-shared", str(compiled), "-o", str(linked), *paddles]


def _run(command: list[str], where: Directory | None = None) -> str:
    """What it prints."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=MOST_SECONDS, encoding="utf-8",
            errors="replace", env={**os.environ, "LC_ALL": "C"}, cwd=where and where.as_path,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise CompileError(f"{command[0]} took more than {MOST_SECONDS} s") from None
    except OSError as error:
        raise CompileError(f"{command[0]} cannot be run: {error.strerror}") from None
    if done.returncode:
        lines = done.stderr.splitlines()
        said = next((line for line in lines if "error: " in line), lines[-1] if lines else "")
        raise CompileError(f"{command[0]} ended with status {done.returncode}: {said.strip()}")
    return done.stdout
