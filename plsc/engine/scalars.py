"""Scalars of a run: JSON lines always, and for VisualDL or TensorBoard if asked for."""

from __future__ import annotations

import importlib
import json
import os
from typing import Any

from plsc.errors import ConfigError

SCALARS = "scalars.jsonl"
PACKAGES = {"visualdl": "visualdl", "tensorboard": "tensorboardX"}


class Scalars:
    """Writes ``<run_dir>/scalars.jsonl``; with ``kind`` visualdl or tensorboard also event files in its ``scalars``.

    Raises ConfigError where the package of ``kind`` is missing, OSError where the directory cannot be written.
    """

    def __init__(self, run_dir: str, kind: str):
        self._writer = _open_writer(os.path.join(run_dir, "scalars"), kind)
        path = os.path.join(run_dir, SCALARS)
        _drop_half_line(path)
        self._lines = open(path, "a", encoding="utf-8")

    def add(self, step: int, values: dict[str, Any]) -> None:
        """One line {"step": ..., ...}; numbers become curves, those of a verification set under test/<name>/."""
        self._lines.write(json.dumps({"step": step, **values}) + "\n")
        self._lines.flush()
        if self._writer is None:
            return
        prefix = f"test/{values['test']}" if "test" in values else "train"
        for name, value in values.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                self._writer.add_scalar(f"{prefix}/{name}", value, step)

    def close(self) -> None:
        self._lines.close()
        if self._writer is not None:
            self._writer.close()


def _drop_half_line(path: str) -> None:
    """Take away what a run that was killed while it wrote a line left of it."""
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
    package = PACKAGES[kind]
    try:
        module = importlib.import_module(package)
    except ImportError:
        raise ConfigError(
            f"scalars={kind!r}: the package {package} is not installed; `pip install {package}`, or set scalars: none"
        ) from None
    return module.LogWriter(logdir=directory) if kind == "visualdl" else module.SummaryWriter(directory)
