"""Writing a result: the whole file or the one that was there before."""

from __future__ import annotations

import os
from pathlib import Path

from plsc.errors import DataError


def check_place(path: str | os.PathLike[str], what: str) -> None:
    """Raises DataError, which begins with ``what``, where no file can be made at ``path``: before hours of work."""
    path = Path(path)
    if path.is_dir():
        raise DataError(f"{what} {path}: is a directory; give the name of a file")
    if not path.parent.is_dir():
        raise DataError(f"{what} {path}: there is no directory {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK):
        raise DataError(f"{what} {path}: the directory {path.parent} cannot be written to")


def write_text(path: str | os.PathLike[str], text: str, what: str) -> None:
    """Writes UTF-8 beside ``path``, flushes it to disk, then renames it. Raises DataError that begins with ``what``."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with open(temporary, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{what} {path}: cannot be written: {error.strerror or error}") from error
