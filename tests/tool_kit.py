"""Run `plsc` or a program of tools/ in this process: output and status are those of a process of its own."""

from __future__ import annotations

import contextlib
import io
import os
import runpy
import subprocess
import sys
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[1] / "tools"


def run(name: str, *arguments) -> subprocess.CompletedProcess:
    """``python tools/NAME.py ARGUMENTS``. Not for what trains or runs a net: that leaves the process changed."""
    return _in_process(str(TOOLS / f"{name}.py"), arguments)


def plsc(*arguments) -> subprocess.CompletedProcess:
    """``python -m plsc ARGUMENTS``. Not for what trains or runs a model: that leaves the process changed."""
    return _in_process(str(TOOLS.parent / "plsc" / "__main__.py"), arguments)


def _in_process(script: str, arguments) -> subprocess.CompletedProcess:
    words = [script, *map(str, arguments)]
    before = sys.argv, list(sys.path), sys.excepthook, dict(os.environ)
    stdout, stderr, code = io.StringIO(), io.StringIO(), 0
    sys.argv, sys.excepthook = words, sys.__excepthook__
    if script.startswith(str(TOOLS)):
        sys.path.insert(0, str(TOOLS))
    try:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            code = _ended(words[0])
    finally:
        sys.argv, sys.path[:], sys.excepthook, environment = before
        os.environ.clear()
        os.environ.update(environment)
    return subprocess.CompletedProcess(words, code, stdout.getvalue(), stderr.getvalue())


def _ended(script: str) -> int:
    """The status with which the interpreter would end."""
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    except Exception:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0
