"""MXNet's RecordIO, read without mxnet: records, their parts, and the header of an image.

Little-endian. A record: u32 MAGIC; u32 with the kind in its upper 3 bits (0 whole, 1 first, 2 middle, 3 last part) and
the length in its lower 29; the data; zeros up to a multiple of 4. If the data contain MAGIC at a multiple of 4, the
writer starts a new part and omits it, so that a reader inserts it between two parts. The data of an image: u32 flag,
f32 label, u64 id, u64 id2; ``flag`` times f32, the labels if flag is not 0; the encoded image. Source: dmlc-core's
recordio, and files published by insightface.
"""

from __future__ import annotations

import array
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from plsc.data.containers.files import Scanner, shown
from plsc.errors import DataError
from plsc.files import safe_open

MAGIC = 0xCED7230A
MAGIC_BYTES = MAGIC.to_bytes(4, "little")
WHOLE, FIRST, MIDDLE, LAST = range(4)
LENGTH_BITS = 29
HEAD = struct.Struct("<II")  # of a part
HEADER = struct.Struct("<IfQQ")  # of an image
MOST_EXACT = 2**24  # float32 represents all integers up to this one
_WORDS = 10  # of a whole record up to its first label of several
_LENGTH = 2**LENGTH_BITS - 1


@dataclass
class Heads:
    """The headers of records; arrays [n] in the order of their offsets.

    sizes: uint32, bytes in the file, without padding. labels: float32, the first label of each.
    has_image: bool, whether data follow the labels.
    """

    sizes: np.ndarray
    labels: np.ndarray
    has_image: np.ndarray


def padded(size):
    """The next multiple of 4."""
    return size + -size % 4


def walk(scanner: Scanner) -> np.ndarray:
    """The offsets of all records, int64 [n], found one after the other. Raises DataError for invalid records."""
    found, offset = array.array("q"), 0
    while offset < scanner.size:
        found.append(offset)
        offset = _end(scanner, offset)
        offset = padded(offset)
    return np.frombuffer(found, np.int64) if found else np.empty(0, np.int64)


def _end(scanner: Scanner, offset: int) -> int:
    """The end of the record at ``offset``, with all its parts. Raises DataError."""
    start, wanted = offset, (WHOLE, FIRST)
    while True:
        head = scanner.at(offset, HEAD.size)
        kind, size = _part(head, f"{shown(scanner.path)}: byte {offset}", wanted)
        end = offset + HEAD.size + size
        if end > scanner.size:
            raise DataError(f"{shown(scanner.path)}: byte {offset}: {_cut_off(size, scanner.size)}")
        if end - start > safe_open.IMAGE:
            raise DataError(f"{shown(scanner.path)}: byte {start}: {_too_long(end - start)}")
        if kind in (WHOLE, LAST):
            return end
        offset, wanted = padded(end), (MIDDLE, LAST)


def _part(head: bytes, where: str, wanted: tuple[int, ...]) -> tuple[int, int]:
    """(kind, length) of a part by its first 8 bytes. Raises DataError that begins with ``where``."""
    if len(head) < HEAD.size:
        raise DataError(f"{where}: the file ends within a record: it was not copied whole")
    magic, word = HEAD.unpack(head)
    kind = word >> LENGTH_BITS
    if magic != MAGIC:
        raise DataError(f"{where}: no record begins here: the file is damaged, or the offset is wrong")
    if kind not in wanted:
        raise DataError(f"{where}: part {kind} of a record stands where {' or '.join(map(str, wanted))} should")
    return kind, word & _LENGTH


def _cut_off(size: int, all_bytes: int) -> str:
    return f"a record of {size} bytes goes beyond the end of the file ({all_bytes} bytes): it was not copied whole"


def _too_long(size: int) -> str:
    return f"a record of {size} bytes or more; an image may have {safe_open.IMAGE}"


def payload(data: bytes, where: str) -> bytes:
    """The data of a record from its bytes in the file, of all parts. Raises DataError that begins with ``where``."""
    kind, size = _part(data[: HEAD.size], where, (WHOLE, FIRST))
    parts, offset = [], HEAD.size
    while True:
        if offset + size > len(data):
            raise DataError(f"{where}: the record has changed since the run began")
        parts.append(data[offset : offset + size])
        if kind in (WHOLE, LAST):
            return parts[0] if len(parts) == 1 else MAGIC_BYTES.join(parts)
        offset = padded(offset + size) + HEAD.size
        kind, size = _part(data[offset - HEAD.size : offset], where, (MIDDLE, LAST))


def image_of(data: bytes, where: str) -> bytes:
    """The encoded image in the data of a record. Raises DataError that begins with ``where``."""
    start = _after_labels(data, where)
    return data[start:]


def _after_labels(data: bytes, where: str) -> int:
    """The offset of the image in the data of a record. Raises DataError."""
    if len(data) < HEADER.size:
        raise DataError(f"{where}: {len(data)} bytes are too few for the header of an image ({HEADER.size})")
    flag = HEADER.unpack_from(data)[0]
    if HEADER.size + 4 * flag > len(data):
        raise DataError(f"{where}: says that it has {flag} labels, in {len(data)} bytes")
    return HEADER.size + 4 * flag


def read_heads(scanner: Scanner, offsets: np.ndarray, name: Callable[[int], str]) -> Heads:
    """Read the headers of all records in one pass.

    offsets: int64 [n], ascending. name(i): the name of record i in messages. Raises DataError for the first record that
    is invalid or overlaps the next one.
    """
    count = len(offsets)
    heads = Heads(np.empty(count, np.uint32), np.empty(count, np.float32), np.empty(count, bool))
    done = 0
    while done < count:
        start = int(offsets[done])
        block = scanner.block(start)
        stop = int(np.searchsorted(offsets, start + len(block) - 4 * _WORDS, side="right"))
        if start + len(block) >= scanner.size:
            stop, block = count, block + bytes(4 * _WORDS + 3)
        here = slice(done, max(stop, done + 1))
        words = np.frombuffer(block, "<u4", len(block) // 4)
        ends = offsets[here.start + 1 : here.stop + 1]
        if here.stop == count:
            ends = np.append(ends, scanner.size)
        _read_block(scanner, words, _Records(offsets[here], ends, here, name), heads)
        done = here.stop
    return heads


@dataclass
class _Records:
    """Some consecutive records. ends: the latest possible end of each. which: their indices among all."""

    offsets: np.ndarray
    ends: np.ndarray
    which: slice
    name: Callable[[int], str]

    def refuse(self, bad: np.ndarray, reason: Callable[[int], str]) -> None:
        """Raise DataError for the first invalid record."""
        found = np.flatnonzero(bad)
        if len(found):
            place = int(found[0])
            raise DataError(f"{self.name(self.which.start + place)}: {reason(place)}")


def _read_block(scanner: Scanner, words: np.ndarray, records: _Records, heads: Heads) -> None:
    """Fill in the headers of some records, which are at the beginning of ``words``."""
    at = (records.offsets - records.offsets[0]) // 4
    magic, word, flag = words[at], words[at + 1], words[at + 2].astype(np.int64)
    kind, size = word >> LENGTH_BITS, (word & _LENGTH).astype(np.int64)
    records.refuse(magic != MAGIC, lambda _: "no record begins here: the file is damaged, or the offset is wrong")
    records.refuse(kind > FIRST, lambda i: f"part {kind[i]} of a record stands where 0 or 1 should")
    whole = kind == WHOLE
    ends = records.offsets + HEAD.size + size
    records.refuse(ends > scanner.size, lambda i: _cut_off(int(size[i]), scanner.size))
    records.refuse(size > safe_open.IMAGE, lambda i: _too_long(int(size[i])))
    short = whole & (size < HEADER.size)
    records.refuse(short, lambda i: f"{size[i]} bytes are too few for the header of an image ({HEADER.size})")
    begin = HEADER.size + 4 * flag
    records.refuse(whole & (begin > size), lambda i: f"says that it has {flag[i]} labels, in {size[i]} bytes")
    label = np.where(flag > 0, words[at + 8], words[at + 3]).astype("<u4").view("<f4")
    heads.sizes[records.which] = ends - records.offsets
    heads.labels[records.which] = label
    heads.has_image[records.which] = size > begin
    for place in np.flatnonzero(~whole).tolist():
        ends[place] = _read_parts(scanner, records, place, heads)
    beyond = ends > records.ends
    records.refuse(beyond, lambda i: f"goes on to byte {ends[i]}, but the next record begins at byte {records.ends[i]}")


def _read_parts(scanner: Scanner, records: _Records, place: int, heads: Heads) -> int:
    """Fill in the header of a record of several parts; returns its end."""
    offset, index = int(records.offsets[place]), records.which.start + place
    end = _end(scanner, offset)
    where = records.name(index)
    data = payload(scanner.at(offset, end - offset), where)
    begin = _after_labels(data, where)
    heads.sizes[index] = end - offset
    heads.labels[index] = struct.unpack_from("<f", data, HEADER.size if begin > HEADER.size else 4)[0]
    heads.has_image[index] = len(data) > begin
    return end
