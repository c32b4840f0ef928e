"""Scalars of a run: always as JSON lines, optionally for VisualDL or TensorBoard."""

from __future__ import annotations

import errno
import importlib
import json
import os
from types import ModuleType
from typing import Any

from plsc.engine.run.handlers import WarnOnce
from plsc.errors import ConfigError

SCALARS = "scalars.jsonl"
PACKAGES = {"visualdl": "visualdl", "tensorboard": "tensorboardX"}


class Scalars:
    """Writes ``<run_dir>/scalars.jsonl``; with ``kind`` visualdl or tensorboard also event files in its ``scalars``.

    Raises ConfigError where the package of ``kind`` is missing, OSError where the directory cannot be written. A disk
    that is full later is reported once; lines are lost and the run continues.
    """

    def __init__(self, run_dir: str, kind: str):
        self._writer = _open_writer(os.path.join(run_dir, "scalars"), kind)
        path = os.path.join(run_dir, SCALARS)
        _drop_half_line(path)
        self._lines = open(path, "ab", buffering=0)
        self._warn_once = WarnOnce(path)

    def add(self, step: int, values: dict[str, Any]) -> None:
        """Write {"step": ..., ...}; numbers become curves, those of a verification set under test/<name>/."""
        try:
            self._write_line(json.dumps({"step": step, **values}).encode() + b"\n")
            if self._writer is not None:
                self._draw(step, values)
        except OSError as error:
            self._warn_once.warn(error)

    def _write_line(self, line: bytes) -> None:
        """Write the whole line or nothing: a partial line would also break the next one."""
        end = os.fstat(self._lines.fileno()).st_size
        try:
            if self._lines.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.ftruncate(self._lines.fileno(), end)
            raise

    def _draw(self, step: int, values: dict[str, Any]) -> None:
        prefix = f"test/{values['test']}" if "test" in values else "train"
        for name, value in values.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                self._writer.add_scalar(f"{prefix}/{name}", value, step)

    def close(self) -> None:
        try:
            self._lines.close()
            if self._writer is not None:
                self._writer.close()
        except OSError as error:
            self._warn_once.warn(error)


def _drop_half_line(path: str) -> None:
    """Remove a partial last line, left by a run that was killed while writing."""
    if not os.path.exists(path):
        return
    with open(path, "rb+") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            file.seek(end - 1)
            if file.read(1) == b"\n":
                break
            end -= 1
        file.truncate(end)


def _open_writer(directory: str, kind: str):
    if kind == "none":
        return None
    module = import_package(kind)
    return module.LogWriter(logdir=directory) if kind == "visualdl" else module.SummaryWriter(directory)


def import_package(kind: str) -> ModuleType | None:
    """Import the package that writes ``kind``, if it needs one. Raises ConfigError where it is missing."""
    if kind == "none":
        return None
    package = PACKAGES[kind]
    try:
        return importlib.import_module(package)
    except ImportError:
        raise ConfigError(
            f"scalars={kind!r}: the package {package} is not installed; `pip install {package}`, or set scalars: none"
        ) from None
