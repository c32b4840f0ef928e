"""One file of arrays that many processes map: their pages are in memory once, and the kernel can free them.

A line of magic; the bytes of the header and their CRC-32; the header, JSON: the key, facts, and of each array its name,
type, number of elements, place and CRC-32; the arrays, each at a multiple of 64 bytes. Little-endian. A text is stored
as an array of the type "text"; it is not mapped, but read by position.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import secrets
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from plsc.files import plain_json
from plsc.files.atomic import flush
from plsc.files.private_directory import Directory
from plsc.files.texts import FileText, Text, blocks

_MAGIC = b"PLSC arrays, version 1\n"
_HEAD = struct.Struct("<QI")
_ALIGNMENT = 64
_MOST_HEADER = 1 << 26  # bytes
_KINDS = ("uint8", "int32", "uint32", "int64")
_TEXT = "text"
_BLOCK = 1 << 26  # bytes


@dataclass(frozen=True)
class Arrays:
    """One-dimensional arrays by name, of the types uint8, int32, uint32 and int64; facts, plain JSON; and texts by
    names that no array has."""

    arrays: Mapping[str, np.ndarray]
    facts: Mapping[str, Any] = field(default_factory=dict)
    texts: Mapping[str, Text] = field(default_factory=dict)

    def parts(self) -> Iterator[tuple[str, str, np.ndarray | Text]]:
        """(name, type, content) of all arrays and texts."""
        yield from ((name, array.dtype.name, array) for name, array in self.arrays.items())
        yield from ((name, _TEXT, text) for name, text in self.texts.items())


def write(directory: Directory, name: str, key: str, content: Arrays) -> None:
    """Write the file ``name``, atomically. key: what the content was made from. Raises OSError."""
    entries: list[list[Any]] = []
    size = 0
    for each, kind, part in content.parts():
        size += -size % _ALIGNMENT
        entries.append([each, kind, len(part), size, _crc(part)])
        size += len(part) * (part.itemsize if isinstance(part, np.ndarray) else 1)
    header = json.dumps({"key": key, "facts": dict(content.facts), "arrays": entries, "size": size}).encode()
    header += b" " * (-(len(_MAGIC) + _HEAD.size + len(header)) % _ALIGNMENT)
    temporary = f"{name}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    try:
        with open(directory.create_file(temporary), "wb") as file:
            file.write(_MAGIC + _HEAD.pack(len(header), zlib.crc32(header)) + header)
            start = file.tell()
            for (_, _, _, place, _), (_, _, part) in zip(entries, content.parts()):
                file.seek(start + place)
                for block in _blocks(part):
                    file.write(block)
            file.truncate(start + size)  # with the padding before an empty array at the end
            flush(file)
        directory.rename(temporary, name, 0o600)
    except BaseException:
        with contextlib.suppress(OSError):
            directory.remove(temporary)
        raise


def read(directory: Directory, name: str, key: str) -> Arrays | None:
    """Map the file ``name``; None if it does not exist, was made for another key, or is damaged.

    All bytes are compared with their checksums. The arrays are read-only. Raises OSError, also for a file that others
    could have written. While it is mapped, the file has a shared lock (flock; see ``remove_unused``).
    """
    handle = directory.open_file(name)
    if handle is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        size = os.fstat(handle).st_size
        memory = mmap.mmap(handle, 0, prot=mmap.PROT_READ) if size else b""  # keeps the file and its lock, as a text
        return _content(memory, handle, size, key)
    finally:
        os.close(handle)


def _content(memory: mmap.mmap | bytes, handle: int, size: int, key: str) -> Arrays | None:
    """See ``read``. memory: the whole file, mapped. handle: the same, open."""
    start = len(_MAGIC) + _HEAD.size
    if len(memory) < start or memory[: len(_MAGIC)] != _MAGIC:
        return None
    length, crc = _HEAD.unpack_from(memory, len(_MAGIC))
    header = memory[start : start + min(length, _MOST_HEADER)]
    if len(header) != length or zlib.crc32(header) != crc:
        return None
    said = plain_json.loads(header)  # which this program wrote, as the checksum says
    if said["key"] != key or size != start + length + said["size"]:
        return None
    arrays: dict[str, np.ndarray] = {}
    texts: dict[str, Text] = {}
    part: np.ndarray | Text
    for each, kind, count, place, crc in said["arrays"]:
        if kind == _TEXT:
            part = texts[each] = FileText(handle, start + length + place, count, unchanged=False)
        elif kind in _KINDS:
            part = arrays[each] = np.frombuffer(memory, kind, count, start + length + place)
        else:
            return None
        if _crc(part) != crc:
            return None
    return Arrays(arrays, said["facts"], texts)


def _crc(part: np.ndarray | Text) -> int:
    found = 0
    for block in _blocks(part):
        found = zlib.crc32(block, found)
    return found


def _blocks(part: np.ndarray | Text) -> Iterator[Any]:
    """The bytes of an array or text, some megabytes at a time. Raises OSError."""
    if not isinstance(part, np.ndarray):
        yield from blocks(part)
        return
    for first in range(0, len(part), _BLOCK // part.itemsize):
        yield np.ascontiguousarray(part[first : first + _BLOCK // part.itemsize]).data


def remove_unused(directory: Directory, prefix: str, keep: str, seconds: float = 0.0) -> None:
    """Remove files that begin with ``prefix`` and that no process has mapped, all but ``keep``.

    seconds: only those that were not written or marked by ``mark_used`` for so long. Raises OSError.
    """
    for name in os.listdir(directory.handle):
        if name.startswith(prefix) and name != keep:
            directory.remove_unlocked(name, time.time() - seconds)


def mark_used(directory: Directory, name: str) -> None:
    """Set the time of the last use of a file to now, if that is possible."""
    with contextlib.suppress(OSError):
        os.utime(name, dir_fd=directory.handle, follow_symlinks=False)
