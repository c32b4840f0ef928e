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
import re
from pathlib import Path

from plsc.backend import private, program_view, static
from plsc.backend.compiler import CompileError, compiled_library

SOURCE = Path(__file__).with_suffix(".cc")

# What Paddle 3 says while it builds a program; it names the operation in this text only.
REFUSED = re.compile(r"Check data type error for op: (\w+)")
SINGLE = ("float32", "float64")

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


def refused(error: BaseException | None, dtype: str) -> str | None:
    """What to do about an ``error`` of Paddle 3 while it builds an operation in half precision; None if it is
    another."""
    found = REFUSED.search(str(error))
    return None if found is None or f" {dtype}" not in str(error) else _without_kernel(found[1], dtype)


def missing(program, dtype: str) -> str | None:
    """What to do about the first operation of ``program`` that reads half numbers and has no kernel for them; None if
    there is none. For Paddle 2.6, which finds it when the program runs."""
    if static.is_pir():
        return None
    kernels = private.require("base.core._get_registered_phi_kernels")("function")
    kernel_name = private.require("base.core._get_phi_kernel_name")
    for op in program_view.walk(program_view.operations(program)):
        types = {tensor.dtype for tensor in op.reads}
        keys = kernels.get(kernel_name(op.kind), [])
        if dtype in types and not types & set(SINGLE) and _on_cpu(keys, "float32") and not _on_cpu(keys, dtype):
            return _without_kernel(op.kind, dtype)
    return None


def _on_cpu(keys: list[str], dtype: str) -> bool:
    """Of keys such as "(CPU, Undefined(AnyLayout), float32)"."""
    return any(key.startswith("(CPU,") and key.endswith(f" {dtype})") for key in keys)


def _without_kernel(kind: str, dtype: str) -> str:
    own = kind.removesuffix("_grad")
    return (
        f"a CPU has no kernel for the operation {own} in {dtype}; keep it in float32 by "
        f"mixed_precision.custom_black_list: [{', '.join(_listed(own))}], or train this model on a GPU"
    )


def _listed(kind: str) -> list[str]:
    """What the lists of mixed precision call an operation: as Paddle 2.6 does, such as top_k_v2 for topk."""
    all_names = private.find("base.core.op_supported_infos")
    kernel_name = private.find("base.core._get_phi_kernel_name")
    if not static.is_pir() or all_names is None or kernel_name is None:
        return [kind]
    known, *_ = all_names("CPU", private.require("base.core.VarDesc.VarType.FP32"))
    return sorted(name for name in known if kernel_name(name) == kind) or [kind]


def note(dtype: str) -> str:
    """What a run on CPUs says."""
    return (
        f"mixed_precision.enabled=True: on a CPU, operations of {dtype} are computed in float32 and rounded; this is "
        "for checking, and slower than mixed_precision.enabled: false"
    )
