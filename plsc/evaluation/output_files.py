"""Atomic writes of result files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from plsc.errors import DataError
from plsc.files import atomic


def require_writable(path: str | os.PathLike[str], what: str) -> None:
    """Raise DataError that begins with ``what`` if no file can be written at ``path``. Called before long work."""
    path = Path(path)
    if path.is_dir():
        raise DataError(f"{what} {path}: is a directory; give the name of a file")
    if not path.parent.is_dir():
        raise DataError(f"{what} {path}: the directory {path.parent} does not exist; create it first")
    if not os.access(path.parent, os.W_OK):
        raise DataError(f"{what} {path}: the directory {path.parent} is not writable")


def require_new(path: str | os.PathLike[str], what: str) -> None:
    """`require_writable`, and DataError where anything is at ``path``: such a file is never replaced."""
    require_writable(path, what)
    if os.path.lexists(path):
        raise DataError(f"{what} {os.fspath(path)}: is there already; give another name, or remove it")


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str], what: str) -> Iterator[BinaryIO]:
    """`plsc.files.atomic.whole_file` that raises DataError, which begins with ``what``, instead of OSError."""
    try:
        with atomic.whole_file(path) as file:
            yield file
    except OSError as error:
        raise DataError(f"{what} {os.fspath(path)}: cannot be written: {error.strerror or error}") from error


def write_text(path: str | os.PathLike[str], text: str, what: str) -> None:
    """Write UTF-8 text atomically. Raises DataError that begins with ``what``."""
    with whole_file(path, what) as file:
        file.write(text.encode())
