"""Bytes that are read by position: held in memory, or of an open file, which takes no memory of the process."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol

_BLOCK = 1 << 22  # bytes


class Text(Protocol):
    """Bytes by position."""

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from ``start`` up to ``stop``, fewer at the end. Raises OSError."""
        ...


class HeldText:
    """Bytes in memory."""

    def __init__(self, content: bytes | bytearray) -> None:
        self._content = memoryview(content)

    def __len__(self) -> int:
        return len(self._content)

    def read(self, start: int, stop: int) -> bytes:
        return bytes(self._content[start:stop])


class FileText:
    """``size`` bytes of an open file, from ``start`` on. Forked processes may share it.

    handle: of the file; may be closed afterwards. unchanged: whether the file must keep its size and modification time;
    ``read`` raises OSError otherwise, and for a file that has become shorter.
    """

    def __init__(self, handle: int, start: int, size: int, unchanged: bool = True) -> None:
        self._handle = os.dup(handle)
        weakref.finalize(self, os.close, self._handle)
        self._start, self._size = start, size
        self._stamp = _stamp(self._handle) if unchanged else None

    def __len__(self) -> int:
        return self._size

    def read(self, start: int, stop: int) -> bytes:
        parts, at, stop = [], start, min(stop, self._size)
        while at < stop and (part := os.pread(self._handle, stop - at, self._start + at)):
            parts.append(part)
            at += len(part)
        if at < stop or (self._stamp is not None and self._stamp != _stamp(self._handle)):
            raise OSError(errno.ESTALE, "has changed since it was indexed; nobody may write to it")
        return parts[0] if len(parts) == 1 else b"".join(parts)


class GrowingText:
    """Bytes that are added at the end: in memory, or if they are many in a temporary file without a name.

    temporary: returns the directory of that file, None for the usual one. Where it cannot be written, all stay in
    memory.
    """

    def __init__(self, temporary: Callable[[], str | None] = lambda: None, most_held: int = 1 << 26) -> None:
        self._held, self._most_held, self._temporary = bytearray(), most_held, temporary
        self._file: BinaryIO | None = None
        self._written = 0

    def add(self, more: bytes) -> None:
        self._held += more
        if len(self._held) >= self._most_held:
            self._write()

    def text(self) -> Text:
        """All of it; nothing may be added afterwards."""
        if self._written:
            self._write()
        if self._file is None:
            return HeldText(self._held)
        return FileText(self._file.fileno(), 0, self._written)

    def _write(self) -> None:
        """Move what is held to the end of the file; where that fails, the other way."""
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._temporary())
                weakref.finalize(self, self._file.close)
            for start in range(0, len(self._held), _BLOCK):
                _write_all(self._file.fileno(), bytes(self._held[start : start + _BLOCK]))
            self._written += len(self._held)
            self._held = bytearray()
        except OSError:
            if self._file is not None:
                self._held[:0] = FileText(self._file.fileno(), 0, self._written).read(0, self._written)
            self._file, self._written, self._most_held = None, 0, sys.maxsize


def _write_all(handle: int, content: bytes) -> None:
    while content:
        content = content[os.write(handle, content) :]


def blocks(text: Text) -> Iterator[bytes]:
    """All bytes, a few megabytes at a time. Raises OSError."""
    for start in range(0, len(text), _BLOCK):
        yield text.read(start, start + _BLOCK)


def _stamp(handle: int) -> tuple[int, int]:
    found = os.fstat(handle)
    return found.st_size, found.st_mtime_ns
