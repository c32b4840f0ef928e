"""From a Paddle inference model to ONNX by paddle2onnx, in a subprocess, since it aborts on unsupported models.

Release 1.3.1 reads the programs of Paddle 2.6, 2.x those of 3.x.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

from plsc.backend import static
from plsc.errors import ExportError
from plsc.extras import install

OPSET = 13  # supported by ONNX Runtime since 1.6; the models use nothing newer
SECONDS = 1800
MAX_BYTES = 2**31 - 1  # the limit of protobuf, the format of ONNX files

_CONVERT = """
import sys
import paddle2onnx
program, weights, target, opset = sys.argv[1:]
paddle2onnx.export(program, weights, save_file=target, opset_version=int(opset), enable_onnx_checker=True)
"""


def require_onnx() -> None:
    """Raise ExportError where paddle2onnx or ONNX Runtime is missing, or does not support this Paddle."""
    major, extra = ("2", "onnx") if static.is_pir() else ("1", "onnx26")
    hint = f"install it with {install(extra)}, or set export.format: paddle"
    for package in ("paddle2onnx", "onnxruntime"):
        try:
            found = version(package)
        except PackageNotFoundError:
            raise ExportError(f"export.format: ONNX needs {package}, which is not installed; {hint}") from None
        if package == "paddle2onnx" and found.partition(".")[0] != major:
            raise ExportError(f"export.format: paddle2onnx {found} does not read this Paddle's programs; {hint}")


class Port(NamedTuple):
    """An input or output of a graph. kind: such as "tensor(float)". shape: a text for an axis of any size."""

    name: str
    kind: str
    shape: list[int | str]


def ports(file: str) -> tuple[list[Port], list[Port]]:
    """(inputs, outputs) of the graph in ``file``, as ONNX Runtime reads them."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    inputs, outputs = ([Port(one.name, one.type, list(one.shape)) for one in given]
                       for given in (session.get_inputs(), session.get_outputs()))  # fmt: skip
    return inputs, outputs


def convert(program: str, weights: str, target: str) -> None:
    """Write ``target``. Raises ExportError: that the disk is full, or what paddle2onnx says of another failure."""
    command = [sys.executable, "-c", _CONVERT, program, weights, target, str(OPSET)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise ExportError(f"{target}: paddle2onnx has not ended after {SECONDS} s; set export.format: paddle") from None
    # where 1.3.1 fails it exits with status 0 and writes an empty file
    if done.returncode != 0 or not os.path.isfile(target) or not os.path.getsize(target):
        _require_space(target, sum(map(os.path.getsize, (program, weights))))
        raise ExportError(
            f"{target}: paddle2onnx cannot convert this model: {_reason(done.stderr + done.stdout)} "
            f"(status {done.returncode}); set export.format: paddle"
        )


def _require_space(target: str, size: int) -> None:
    """Raise ExportError where ``target`` cannot have that size.

    Paddle (program, weights) and paddle2onnx write what fits on a full disk and say nothing; what then fails is the
    reading of a file that ends too early.
    """
    try:
        with open(target, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(size, 1))
    except OSError as error:
        raise ExportError(f"{target}: cannot be written: {error.strerror}") from None
    finally:
        if os.path.exists(target):
            os.remove(target)


def _reason(text: str) -> str:
    """The most informative line: the first about a failure, else the last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if any(word in line for word in ("Error", "ERROR", "ailed", "not support"))]
    return [*telling, *lines[-1:], "no output"][0][:300]
