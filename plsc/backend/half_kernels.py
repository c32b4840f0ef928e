"""Half precision on CPUs: kernels for float16 and bfloat16 that Paddle has for GPUs only.

Paddle lacks most of them (2.6.2 has no convolution, 3.3.1 no batch normalisation), and oneDNN's bfloat16 was slower
than its float32 (docs/gpu.md). Those of half_kernels.cc convert their inputs to float32, run Paddle's kernel for
float32 and round its results to the nearest. So the program of a GPU, with all its casts, computes on a CPU what
kernels compute that accumulate in float32. It is for checking: slower than float32.
"""

from __future__ import annotations

import ctypes
import functools
import logging
from pathlib import Path

from plsc.backend import static
from plsc.backend.compiler import CompileError, compiled_library

SOURCE = Path(__file__).with_suffix(".cc")

log = logging.getLogger(__name__)


def load(dtype: str) -> None:
    """Register the kernels in this process; compiles them if they are not in the cache. Raises CompileError.

    They stay until the process ends, and change no operation in float32 but the cast to a half type, which Paddle 2.6
    rounds towards zero.
    """
    if dtype == "float16" and not static.is_pir():
        raise CompileError("Paddle 2.6 refuses to sum float16 there; set bfloat16, or use Paddle 3")
    _load()


@functools.cache
def _load() -> None:
    library = compiled_library(SOURCE)
    try:
        ctypes.CDLL(library.load_path)
    except OSError as error:  # a long text, with little about this library
        log.debug("%s: %s", library.path, error)
        raise CompileError(f"Paddle cannot load {library.path} (delete it to compile it again)") from None


def note(dtype: str) -> str:
    """What a run on CPUs says."""
    return (
        f"mixed_precision.enabled=True: on a CPU, operations of {dtype} are computed in float32 and rounded; this is "
        "for checking, and slower than mixed_precision.enabled: false"
    )
