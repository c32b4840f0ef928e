"""The program of GPUs on CPUs: gpu_kernels.cc, compiled once for each Paddle, and what else a rank needs to run it.

What is as on a GPU: all operations of the program, their order, and what the three kernels compute, over Gloo instead
of NCCL. What is not: streams, half precision, the sample that a GPU draws, and the reduce-scatter of Paddle 2.6, whose
operation takes no kernel from outside (an all-reduce and the own slice stand for it).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path
from unittest import mock

import paddle
from paddle.base import core

from plsc.backend import collectives, half_kernels, half_precision, static
from plsc.classifiers import gpu_head

SOURCE = Path(__file__).with_name("gpu_kernels.cc")


def library() -> Path:
    """Compiles it where no process has done so before; those that want the same one wait."""
    root = Path(paddle.__file__).resolve().parent
    cache = Path(tempfile.gettempdir(), f"plsc-test-kernels-{os.geteuid()}")
    cache.mkdir(mode=0o700, exist_ok=True)
    assert cache.lstat().st_uid == os.geteuid() and not cache.is_symlink(), f"{cache} is not ours"
    command = _command(root, cache)
    parts = SOURCE.read_bytes(), repr(command).encode(), paddle.version.commit.encode()
    made = cache / f"{hashlib.sha256(b'/'.join(parts)).hexdigest()[:16]}.so"
    with open(made.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            new = made.with_suffix(".new")
            done = subprocess.run([*command, "-o", str(new)], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[-3000:]
            os.replace(new, made)
    return made


def _command(root: Path, cache: Path) -> list[str]:
    headers = [root / "include", root / "include" / "third_party"]
    missing = cache / "include" / "paddle" / "phi" / "core" / "dense_tensor.inl"
    if not (root / "include" / missing.relative_to(cache / "include")).exists():  # the wheel of 2.6 includes it
        missing.parent.mkdir(parents=True, exist_ok=True)
        missing.touch()
        headers.append(cache / "include")
    command = ["g++", "-std=c++17", "-O1", "-fPIC", "-shared", "-w", "-DPADDLE_WITH_GLOO", str(SOURCE)]
    command += [f"-I{path}" for path in headers] + ["-DHAS_REDUCE_SCATTER"] * static.is_pir()
    libraries = [root / "base" / "libpaddle.so"]
    libraries += [root / "libs" / name for name in ("libcommon.so", "libphi_core.so", "libphi.so")] * static.is_pir()
    return [*command, *map(str, libraries), f"-Wl,-rpath,{root / 'base'}:{root / 'libs'}"]


@contextlib.contextmanager
def gpu_kernels(made: Path, env, group):
    """Inside, this rank can build and run the programs of ``device="gpu"``; its ring is the Gloo ring of ``group``."""
    ctypes.CDLL(str(made))
    original = collectives.reduce_scatter
    with contextlib.ExitStack() as stack:
        if not static.is_pir():
            if env.world_size > 1:  # where the kernels look for the ring; Paddle's own operations know another place
                core.CommContextManager.create_gloo_comm_context(group.open_store(env), "0", env.rank, env.world_size)
            slices = lambda value, rank, world_size, on_gpu: original(value, rank, world_size, False)  # noqa: E731
            stack.enter_context(mock.patch.object(collectives, "reduce_scatter", slices))
        yield


@contextlib.contextmanager
def casts_left_out():
    """Mixed precision without its casts, and without the kernels that a CPU needs for them (Paddle 2.6 has none)."""
    as_it_is = mock.patch.object(gpu_head.paddle, "cast", _cast_but_to_half)
    autocast = mock.patch.object(half_precision, "autocast", lambda *a: contextlib.nullcontext())
    kernels = mock.patch.object(half_kernels, "load", lambda dtype: None)
    with as_it_is, autocast, kernels, mock.patch.object(half_precision, "cast_program", lambda *a: None):
        yield


_cast = paddle.cast


def _cast_but_to_half(x, dtype):  # named as in Paddle, which calls it by names
    return x if dtype == "float16" else _cast(x, dtype)
