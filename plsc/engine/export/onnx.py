"""From a Paddle inference model to ONNX, by paddle2onnx, in a process of its own, since it aborts on what it cannot do.

Which release reads which Paddle: 1.3.1 the programs of 2.6, 2.x those of 3.x.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

from plsc.backend import static
from plsc.errors import ExportError
from plsc.extras import install

OPSET = 13  # read by every ONNX Runtime since 1.6; the nets use nothing newer
SECONDS = 1800
MAX_BYTES = 2**31 - 1  # protobuf, which ONNX is stored in, ends here

_CONVERT = """
import sys
import paddle2onnx
program, weights, target, opset = sys.argv[1:]
paddle2onnx.export(program, weights, save_file=target, opset_version=int(opset), enable_onnx_checker=True)
"""


def require_onnx() -> None:
    """Raise ExportError where paddle2onnx or ONNX Runtime is missing, or is not the one for this Paddle."""
    major, extra = ("2", "onnx") if static.is_pir() else ("1", "onnx26")
    hint = f"install it with {install(extra)}, or set export.format: paddle"
    for package in ("paddle2onnx", "onnxruntime"):
        try:
            found = version(package)
        except PackageNotFoundError:
            raise ExportError(f"export.format: ONNX needs {package}, which is not installed; {hint}") from None
        if package == "paddle2onnx" and found.partition(".")[0] != major:
            raise ExportError(f"export.format: paddle2onnx {found} does not read this Paddle's programs; {hint}")


def convert(program: str, weights: str, target: str) -> None:
    """Write ``target``. Raises ExportError with paddle2onnx's own words where it cannot."""
    command = [sys.executable, "-c", _CONVERT, program, weights, target, str(OPSET)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise ExportError(f"{target}: paddle2onnx has not ended after {SECONDS} s; set export.format: paddle") from None
    # 1.3.1 ends with status 0 and an empty file where it fails
    if done.returncode != 0 or not os.path.isfile(target) or not os.path.getsize(target):
        raise ExportError(
            f"{target}: paddle2onnx cannot convert this net: {_reason(done.stderr + done.stdout)} "
            f"(status {done.returncode}); set export.format: paddle"
        )


def _reason(text: str) -> str:
    """The line that tells most: the first one that speaks of a failure, else the last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if any(word in line for word in ("Error", "ERROR", "ailed", "not support"))]
    return [*telling, *lines[-1:], "it says nothing"][0][:300]
