"""Bytes that are read by position: held in memory, or of an open file, which takes no memory of the process."""

from __future__ import annotations

import errno
import os
import weakref
from collections.abc import Iterator
from typing import Protocol

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


def blocks(text: Text) -> Iterator[bytes]:
    """All bytes, a few megabytes at a time. Raises OSError."""
    for start in range(0, len(text), _BLOCK):
        yield text.read(start, start + _BLOCK)


def _stamp(handle: int) -> tuple[int, int]:
    found = os.fstat(handle)
    return found.st_size, found.st_mtime_ns
