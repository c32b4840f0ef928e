"""Large files: sequential reading for indexing, and reading by position during a run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np

from plsc.data.indexing import Progress
from plsc.data.label_list import printable
from plsc.errors import DataError
from plsc.files import safe_open

BLOCK_BYTES = 1 << 20
MOST_OPEN = 64


def shown(path: str | os.PathLike) -> str:
    """Quote a path for a message: on one line, for any bytes."""
    return printable(os.fsencode(path))


def open_container(path: str) -> BinaryIO:
    """Open a regular file for reading. Raises DataError."""
    try:
        return safe_open.open_bytes(path, safe_open.CONTAINER)
    except OSError as error:
        raise DataError(f"{shown(path)}: cannot be opened: {error.strerror or error}") from error


def read_small(path: str, most: int) -> bytes:
    """Read a file of at most ``most`` bytes. Raises DataError."""
    try:
        return safe_open.read_bytes(path, most)
    except OSError as error:
        raise DataError(f"{shown(path)}: cannot be read: {error.strerror or error}") from error


class Scanner:
    """Sequential reading of a file in blocks, which avoids a system call for each access.

    A context manager. path: for messages. size: bytes. progress: hears how much is read.
    """

    def __init__(self, path: str, progress: Progress | None = None) -> None:
        self.path = path
        self._progress = Progress(shown(path)) if progress is None else progress
        self._file = open_container(path)
        self.size = os.fstat(self._file.fileno()).st_size
        self._start, self._block = 0, b""

    def at(self, offset: int, size: int) -> bytes:
        """The ``size`` bytes at ``offset``, fewer at the end of the file. Raises DataError."""
        place = offset - self._start
        if place < 0 or place + size > len(self._block):
            self._start, place = offset, 0
            self._block = self.read(offset, max(size, BLOCK_BYTES))
        return self._block[place : place + size]

    def read(self, offset: int, size: int) -> bytes:
        """The same by a separate read, for access out of order. Raises DataError."""
        self._progress.read(size)
        return pread(self._file, self.path, offset, size)

    def block(self, offset: int) -> bytes:
        """BLOCK_BYTES bytes from ``offset`` on, fewer at the end of the file. Raises DataError."""
        return self.read(offset, BLOCK_BYTES)

    def __enter__(self) -> Scanner:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def pread(file: BinaryIO, path: str, offset: int, size: int) -> bytes:
    """The ``size`` bytes at ``offset``, fewer at the end of the file, without moving its position. Raises DataError."""
    parts, missing = [], size
    try:
        while missing and (part := os.pread(file.fileno(), missing, offset)):
            parts.append(part)
            offset, missing = offset + len(part), missing - len(part)
    except OSError as error:
        raise DataError(f"{shown(path)}: byte {offset}: cannot be read: {error.strerror or error}") from error
    return parts[0] if len(parts) == 1 else b"".join(parts)


class Files:
    """Several files as one sequence of bytes: positions are offsets in their concatenation.

    paths: of the files. sizes: in bytes, at the time of indexing. At most MOST_OPEN files are open at a time.
    """

    def __init__(self, paths: Sequence[str], sizes: Sequence[int]) -> None:
        self.paths = list(paths)
        self._starts = np.concatenate([[0], np.cumsum(np.asarray(sizes, np.int64))]).astype(np.int64)
        self._open: dict[int, BinaryIO] = {}  # by number, least recently used first

    def open(self) -> None:
        """Use new open files in this process. Raises DataError if the first cannot be opened."""
        self._open = {}
        if self.paths:
            self._file(0)

    def place(self, position: int) -> tuple[int, int]:
        """(number of the file, offset in it)."""
        number = int(np.searchsorted(self._starts, position, side="right")) - 1
        return number, position - int(self._starts[number])

    def read(self, position: int, size: int) -> bytes:
        """Exactly ``size`` bytes. Raises DataError, also if the file was truncated."""
        number, offset = self.place(position)
        path = self.paths[number]
        data = pread(self._file(number), path, offset, size)
        if len(data) != size:
            raise DataError(f"{shown(path)}: byte {offset}: the file has become shorter since the run began")
        return data

    def _file(self, number: int) -> BinaryIO:
        file = self._open.pop(number, None)
        if file is None:
            if len(self._open) >= MOST_OPEN:
                self._open.pop(next(iter(self._open))).close()
            file = open_container(self.paths[number])
        self._open[number] = file
        return file
