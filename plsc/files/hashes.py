"""Size and SHA-256 of existing files, of files while they are written, and of streams."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from plsc.files import safe_open
from plsc.files.atomic import flush

READ_BYTES = 1 << 22


@dataclass(frozen=True)
class FileEntry:
    """Size in bytes and SHA-256 (hex) of one file."""

    num_bytes: int
    sha256: str


class IncrementalHash:
    """Computes size and SHA-256 of bytes incrementally."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._size = 0

    def add(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self._size += len(data)

    def entry(self) -> FileEntry:
        """Size and hash of everything added so far."""
        return FileEntry(self._size, self._hash.hexdigest())


class HashedFile:
    """A context manager that writes a new file and computes its SHA-256. Raises OSError that names the file.

    The file is visible while it is written; use it in directories that are put in place by ``atomic.put_directory``.
    """

    def __init__(self, path: str):
        self._path = path
        self._hash = IncrementalHash()
        self._file = open(path, "xb")

    def write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._hash.add(data)

    def finish(self) -> FileEntry:
        """Flush it to disk. Returns size and hash."""
        flush(self._file)
        return self._hash.entry()

    def __enter__(self) -> HashedFile:
        return self

    def __exit__(self, kind, error, trace) -> None:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = self._path  # otherwise "No space left on device" would not name a file
        try:
            self._file.close()
        except OSError:
            if error is None:
                raise


def write_new(path: str, data: bytes) -> FileEntry:
    """Write a small new file and flush it to disk."""
    with HashedFile(path) as file:
        file.write(data)
        return file.finish()


def hash_bytes(data: bytes) -> str:
    """SHA-256 (hex) of ``data``."""
    return hashlib.sha256(data).hexdigest()


def hash_file(path: str) -> str:
    """SHA-256 (hex) of a file, reading 4 MiB at a time."""
    return file_entry(path).sha256


def file_entry(path: str) -> FileEntry:
    """Size and SHA-256 of a file, reading 4 MiB at a time."""
    digest, buffer = IncrementalHash(), memoryview(bytearray(READ_BYTES))
    with safe_open.open_bytes(path, safe_open.TENSORS) as file:
        while count := file.readinto(buffer):
            digest.add(buffer[:count])
    return digest.entry()
