"""Writing a result: the whole file or the one that was there before."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from plsc.errors import DataError
from plsc.files import atomic


def require_writable(path: str | os.PathLike[str], what: str) -> None:
    """Raises DataError, which begins with ``what``, where no file can be made at ``path``: before hours of work."""
    path = Path(path)
    if path.is_dir():
        raise DataError(f"{what} {path}: is a directory; give the name of a file")
    if not path.parent.is_dir():
        raise DataError(f"{what} {path}: there is no directory {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK):
        raise DataError(f"{what} {path}: the directory {path.parent} cannot be written to")


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str], what: str) -> Iterator[BinaryIO]:
    """`plsc.files.atomic.whole_file`, whose errors are a DataError that begins with ``what``."""
    try:
        with atomic.whole_file(path) as file:
            yield file
    except OSError as error:
        raise DataError(f"{what} {os.fspath(path)}: cannot be written: {error.strerror or error}") from error


def write_text(path: str | os.PathLike[str], text: str, what: str) -> None:
    """Writes UTF-8, whole or not at all. Raises DataError that begins with ``what``."""
    with whole_file(path, what) as file:
        file.write(text.encode())
