"""Reads the wire format of protocol buffers, as in ONNX files, without a schema; the data are untrusted.

https://protobuf.dev/programming-guides/encoding: a message is a sequence of fields, each a tag (number << 3 | kind) and
a value: a varint, 8 bytes, a length and that many bytes, or 4 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Union

from plsc.errors import DataError

Value = Union[int, memoryview]
MAX_PACKED = 65536  # bytes: shapes and strides are short
VARINT, WIDE, BYTES, NARROW = 0, 1, 2, 5


class Reader:
    """Reads messages with at most ``max_fields`` fields and packed integers in total: one may have a byte or two, so
    gigabytes would take hours, and ten times their memory."""

    def __init__(self, max_fields: int) -> None:
        self._max = self._left = max_fields

    def fields(self, value: Value) -> Iterator[tuple[int, Value]]:
        """(number, value) of each field of a message: an int for a varint, else its bytes. Raises DataError."""
        data, at = message(value), 0
        while at < len(data):
            self._count(1)
            tag, at = _varint(data, at)
            kind = tag & 7
            if kind == VARINT:
                number, at = _varint(data, at)
                yield tag >> 3, number
                continue
            if kind == BYTES:
                size, at = _varint(data, at)
            elif kind in (WIDE, NARROW):
                size = 8 if kind == WIDE else 4
            else:
                raise DataError(f"damaged: a field of kind {kind}")
            if size > len(data) - at:
                raise DataError("damaged: a field extends beyond its message")
            yield tag >> 3, data[at : at + size]
            at += size


    def packed_ints(self, value: Value) -> list[int]:
        """A repeated int64: a single value, or several packed into one field, each of which counts as a field."""
        if isinstance(value, int):
            return [signed(value)]
        if len(value) > MAX_PACKED:
            raise DataError(f"refused: a list of integers has {len(value):,} bytes; at most {MAX_PACKED:,} are allowed")
        found, at = [], 0
        while at < len(value):
            one, at = _varint(value, at)
            found.append(signed(one))
        self._count(len(found))
        return found

    def _count(self, fields: int) -> None:
        self._left -= fields
        if self._left < 0:
            raise DataError(f"refused: it has more than {self._max:,} fields")


def signed(value: int) -> int:
    """A varint as int64."""
    return value - 2**64 if value >= 2**63 else value


def text(value: Value) -> str:
    """A string, or bytes."""
    if isinstance(value, int):
        raise DataError("damaged: a number in place of a string")
    return bytes(value).decode("utf-8", "replace")


def message(value: Value) -> memoryview:
    """An embedded message."""
    if isinstance(value, int):
        raise DataError("damaged: a number in place of a message")
    return value


def float32(value: Value) -> float:
    """A float."""
    if isinstance(value, int) or len(value) != 4:
        raise DataError("damaged: an invalid float")
    return struct.unpack("<f", value)[0]


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """(the number, the position of the next byte)."""
    value = 0
    for index in range(10):
        if at + index >= len(data):
            break
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value & (2**64 - 1), at + index + 1
    raise DataError("damaged: a number does not end")
