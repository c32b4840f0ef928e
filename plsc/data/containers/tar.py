"""The members of a plain tar file, found by their headers in one pass; nothing is extracted.

A member: a header of 512 bytes, its bytes, zeros up to a multiple of 512. A block of zeros ends the file. POSIX's
(ustar, pax) and GNU's headers are read. Source: IEEE Std 1003.1, "pax Interchange Format"; GNU tar's manual.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from plsc.data.containers.files import Scanner, shown
from plsc.data.label_list import printable
from plsc.errors import DataError

BLOCK = 512
_END = bytes(BLOCK)
_MOST_EXTRA = 1 << 20  # bytes of a header's own data: a long name
_FILES = (b"0", b"\0", b"7")
_DIRECTORY, _LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL = b"5", b"L", b"K", b"x", b"g"
_KINDS = {b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"6": "a pipe"}
_NUMBER = re.compile(rb"[ \0]*([0-7]*)[ \0]*")
_ADLER = 65521


@dataclass
class Member:
    """A regular file in a tar. name: as stored. offset: of its bytes. size: in bytes. where: for messages."""

    name: bytes
    offset: int
    size: int
    where: str


def members(scanner: Scanner) -> Iterator[Member]:
    """All regular files, in order.

    Raises DataError for a damaged or truncated file, links and devices, and names with `..`.
    """
    offset, long_name, long_size = 0, None, None
    while True:
        header = scanner.at(offset, BLOCK)
        if header == _END:
            return
        where = f"{shown(scanner.path)}: byte {offset}"
        size = _check(scanner, header, where, offset)
        if long_size is not None:
            size = long_size
        kind, data = header[156:157], offset + BLOCK
        if data + size > scanner.size:
            raise DataError(
                f"{where}: a member of {size} bytes goes beyond the end of the file ({scanner.size} bytes): it was not "
                "copied whole, or is damaged"
            )
        offset = data + size + -size % BLOCK
        if kind in (_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL):
            text = _extra(scanner, data, size, where)
            if kind == _LONG_NAME:
                long_name = text.rstrip(b"\0")
            elif kind == _PAX:
                long_name, long_size = _pax(text, where)
            continue
        name = _name(header) if long_name is None else long_name
        long_name = long_size = None
        if kind == _DIRECTORY:
            continue
        if kind not in _FILES:
            what = _KINDS.get(kind, f"of the type {printable(kind)}")
            raise DataError(f"{where}: member {printable(name)} is {what}; a shard may hold regular files only")
        if b".." in name.split(b"/"):
            raise DataError(f"{where}: member {printable(name)} has `..` in its name")
        yield Member(name, data, size, where)


def _check(scanner: Scanner, header: bytes, where: str, offset: int) -> int:
    """The size in a header. Raises DataError for an invalid header."""
    if len(header) < BLOCK:
        raise DataError(f"{where}: the file ends without the zeros that end a tar file: it was not copied whole")
    if offset == 0 and header.startswith(b"\x1f\x8b"):
        raise DataError(f"{shown(scanner.path)}: is compressed by gzip; its members have no places: gunzip it")
    checksum = _number(header[148:156])
    # the sum of all bytes, those of the checksum as spaces, is the lower half of Adler-32
    found = zlib.adler32(header[156:], zlib.adler32(b" " * 8, zlib.adler32(header[:148]))) & 0xFFFF
    if checksum is None or (checksum + 1) % _ADLER != found:
        raise DataError(f"{where}: no header of a tar file (its checksum is wrong): the file is damaged, or is no tar")
    size = _number(header[124:136])
    if size is None:
        raise DataError(f"{where}: member {printable(_name(header))}: its size is no number")
    return size


def _number(field: bytes) -> int | None:
    """A number in a header: octal digits or GNU's binary form; None for anything else, and for negative numbers."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    found = _NUMBER.fullmatch(field)
    return None if found is None else int(found[1] or b"0", 8)


def _name(header: bytes) -> bytes:
    name, prefix = header[:100].split(b"\0", 1)[0], b""
    if header[257:263] == b"ustar\0":
        prefix = header[345:500].split(b"\0", 1)[0]
    return prefix + b"/" + name if prefix else name


def _extra(scanner: Scanner, offset: int, size: int, where: str) -> bytes:
    if size > _MOST_EXTRA:
        raise DataError(f"{where}: a header says that a name or its like has {size} bytes; it may have {_MOST_EXTRA}")
    return scanner.at(offset, size)


def _pax(text: bytes, where: str) -> tuple[bytes | None, int | None]:
    """(path, size) of a pax header, None for missing ones. Raises DataError."""
    path, size, offset = None, None, 0
    while offset < len(text):
        digits = text[offset : offset + 8].split(b" ", 1)[0]
        length = int(digits) if digits.isdigit() else 0
        line = text[offset : offset + length]
        key, equals, value = line[len(digits) + 1 : -1].partition(b"=")
        if not equals or len(line) != length or not line.endswith(b"\n"):
            raise DataError(f"{where}: a damaged pax header")
        if key.startswith(b"GNU.sparse"):
            raise DataError(f"{where}: a sparse file; a shard may hold regular files only")
        if key == b"path":
            path = value
        if key == b"size":
            if not value.isdigit() or len(value) > 18:
                raise DataError(f"{where}: a pax header gives the size {printable(value)}")
            size = int(value)
        offset += length
    return path, size
