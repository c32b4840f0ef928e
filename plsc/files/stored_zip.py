"""Reads the directory of a zip file with uncompressed entries, as torch.save writes; the file is untrusted.

Supported is what such files need: one disk, no compression, no encryption; zip64 for files above 4 GiB. Entries may not
overlap or extend beyond the file, so that their total size is limited by that of the file. The format is PKWARE's
APPNOTE.TXT 6.3.10, sections 4.3.7 to 4.3.16 and 4.5.3.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from plsc.errors import DataError
from plsc.files.safe_open import MIB

MAGIC = b"PK\x03\x04"  # of an entry, and so of the file
_END, _END64, _LOCATOR = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")
_CENTRAL, _LOCAL = struct.Struct("<4s6H3L5H2L"), struct.Struct("<4s5H3L2H")
_MAX_DIRECTORY, _MAX_ENTRIES, _MAX_COMMENT = 32 * MIB, 100_000, 65_535
_ENCRYPTED = 1


@dataclass(frozen=True)
class Entry:
    """One file in the zip: the offset, size and CRC-32 of its data."""

    offset: int
    size: int
    crc: int


def read_directory(file: BinaryIO) -> dict[str, Entry]:
    """{name: entry} of a zip that is open for reading. Raises DataError, without the name of the file."""
    count, size, offset = _find_directory(file)
    file.seek(offset)
    directory = file.read(size)
    found: dict[str, tuple[int, int, int]] = {}
    at = 0
    for _ in range(count):
        at, name, entry = _central_entry(directory, at)
        if name in found:
            raise DataError(f"damaged zip: two entries of the name {ascii(name)[:80]}")
        found[name] = entry
    entries, taken = {}, 0
    for name, (header, length, crc) in sorted(found.items(), key=lambda item: item[1][0]):
        start = _data_offset(file, name, header)
        if header < taken or start + length > offset:
            raise DataError(f"damaged zip: entry {ascii(name)[:80]} overlaps another one, or extends beyond the file")
        taken = start + length
        entries[name] = Entry(start, length, crc)
    return entries


def _find_directory(file: BinaryIO) -> tuple[int, int, int]:
    """(entries, bytes, offset) of the central directory."""
    end = file.seek(0, 2)
    first = max(0, end - _END.size - _MAX_COMMENT)
    file.seek(first)
    tail = file.read(end - first)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise DataError("damaged zip: its directory at the end is missing; the file may be cut off")
    _, disk, _, _, count, size, offset, _ = _END.unpack_from(tail, at)
    limit = first + at
    if 0xFFFF in (disk, count) or 0xFFFFFFFF in (size, offset):
        count, size, offset, limit = _find_directory_64(file, tail, at, limit)
    if count > _MAX_ENTRIES or size > _MAX_DIRECTORY or offset + size > limit:
        raise DataError(f"damaged zip: a directory of {count} entries and {size} bytes at {offset} cannot be in it")
    return count, size, offset


def _find_directory_64(file: BinaryIO, tail: bytes, at: int, limit: int) -> tuple[int, int, int, int]:
    place = at - _LOCATOR.size
    if place < 0 or tail[place : place + 4] != b"PK\x06\x07":
        raise DataError("damaged zip: its zip64 directory is missing")
    begin = _LOCATOR.unpack_from(tail, place)[2]
    if begin + _END64.size > limit:
        raise DataError("damaged zip: its zip64 directory lies outside of the file")
    file.seek(begin)
    found = _END64.unpack(file.read(_END64.size))
    if found[0] != b"PK\x06\x06":
        raise DataError("damaged zip: its zip64 directory is missing")
    return found[7], found[8], found[9], begin


def _central_entry(directory: bytes, at: int) -> tuple[int, str, tuple[int, int, int]]:
    """(offset of the next one, name, (offset of the local header, size, CRC-32))."""
    if at + _CENTRAL.size > len(directory):
        raise DataError("damaged zip: its directory ends too early")
    fields = _CENTRAL.unpack_from(directory, at)
    signature, flags, method, crc, packed, size, name_size, extra_size, comment_size = (
        fields[0], fields[3], fields[4], *fields[7:13],
    )  # fmt: skip
    begin, header = at + _CENTRAL.size, fields[16]
    after = begin + name_size + extra_size + comment_size
    if signature != b"PK\x01\x02" or after > len(directory):
        raise DataError("damaged zip: its directory is not one")
    name = directory[begin : begin + name_size].decode("utf-8", "replace")
    if method != 0 or flags & _ENCRYPTED:
        raise DataError(f"zip: the entry {ascii(name)[:80]} is compressed or encrypted; weights are stored as they are")
    extra = directory[begin + name_size : begin + name_size + extra_size]
    size, packed, header = _widened(extra, [size, packed, header])
    if size != packed:
        raise DataError(f"damaged zip: the entry {ascii(name)[:80]} has {packed} bytes, and {size} out of the file")
    return after, name, (header, size, crc)


def _widened(extra: bytes, fields: list[int]) -> list[int]:
    """The 32-bit fields (size, packed size, offset), where those with the value 2**32 - 1 are replaced by zip64
    fields."""
    at, wide = 0, b""
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            wide = extra[at + 4 : at + 4 + length]
        at += 4 + length
    for index, value in enumerate(fields):
        if value == 0xFFFFFFFF:
            if len(wide) < 8:
                raise DataError("damaged zip: a zip64 size is missing")
            fields[index], wide = struct.unpack_from("<Q", wide)[0], wide[8:]
    return fields


def _data_offset(file: BinaryIO, name: str, header: int) -> int:
    """The offset of an entry's data, from its local header, whose name must match."""
    file.seek(header)
    data = file.read(_LOCAL.size)
    if len(data) < _LOCAL.size or data[:4] != MAGIC:
        raise DataError(f"damaged zip: the entry {ascii(name)[:80]} does not begin where the directory says")
    name_size, extra_size = _LOCAL.unpack(data)[-2:]
    if file.read(name_size).decode("utf-8", "replace") != name:
        raise DataError(f"damaged zip: another entry is where {ascii(name)[:80]} should begin")
    return header + _LOCAL.size + name_size + extra_size
