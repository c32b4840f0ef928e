"""One file of arrays that many processes map: their pages are in memory once, and the kernel can free them.

A line of magic; the bytes of the header and their CRC-32; the header, JSON: the key, facts, and of each array its name,
type, number of elements, place and CRC-32; the arrays, each at a multiple of 64 bytes. Little-endian.
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
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from plsc.files import plain_json
from plsc.files.atomic import flush
from plsc.files.private_directory import Directory

_MAGIC = b"PLSC arrays, version 1\n"
_HEAD = struct.Struct("<QI")
_ALIGNMENT = 64
_MOST_HEADER = 1 << 26  # bytes
_KINDS = ("uint8", "int32", "uint32", "int64")
_BLOCK = 1 << 26  # bytes


@dataclass(frozen=True)
class Arrays:
    """One-dimensional arrays by name, of the types uint8, int32, uint32 and int64; and facts, plain JSON."""

    arrays: Mapping[str, np.ndarray]
    facts: Mapping[str, Any] = field(default_factory=dict)


def write(directory: Directory, name: str, key: str, content: Arrays) -> None:
    """Write the file ``name``, atomically. key: what the content was made from. Raises OSError."""
    entries, places, size = [], [], 0
    for each, array in content.arrays.items():
        size += -size % _ALIGNMENT
        entries.append([each, array.dtype.name, len(array), size, _crc(array)])
        places.append(size)
        size += array.nbytes
    header = json.dumps({"key": key, "facts": dict(content.facts), "arrays": entries, "size": size}).encode()
    header += b" " * (-(len(_MAGIC) + _HEAD.size + len(header)) % _ALIGNMENT)
    temporary = f"{name}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    try:
        with open(directory.create_file(temporary), "wb") as file:
            file.write(_MAGIC + _HEAD.pack(len(header), zlib.crc32(header)) + header)
            start = file.tell()
            for place, array in zip(places, content.arrays.values()):
                file.seek(start + place)
                for first in range(0, len(array), _BLOCK // array.itemsize):
                    file.write(array[first : first + _BLOCK // array.itemsize].tobytes())
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
        memory = mmap.mmap(handle, 0, prot=mmap.PROT_READ) if size else b""  # keeps the file and its lock
    finally:
        os.close(handle)
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
    arrays = {}
    for each, kind, count, place, array_crc in said["arrays"]:
        if kind not in _KINDS:
            return None
        arrays[each] = np.frombuffer(memory, kind, count, start + length + place)
        if _crc(arrays[each]) != array_crc:
            return None
    return Arrays(arrays, said["facts"])


def _crc(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).data)


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
