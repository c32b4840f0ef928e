"""The wire format of protocol buffers, read without a schema and without trusting it: what an ONNX file is made of.

https://protobuf.dev/programming-guides/encoding: a message is a row of fields, each a tag (number << 3 | kind) and a
value: a varint, 8 bytes, a length and that many bytes, or 4 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Union

from plsc.errors import DataError

Value = Union[int, memoryview]
MOST_PACKED = 65536  # bytes: shapes and strides are short
VARINT, WIDE, BYTES, NARROW = 0, 1, 2, 5


class Reader:
    """Reads messages, of so many fields in all: two bytes are a field, and a file of gigabytes would take hours."""

    def __init__(self, most_fields: int) -> None:
        self._most = self._left = most_fields

    def fields(self, value: Value) -> Iterator[tuple[int, Value]]:
        """(number, value) of each field of a message: an int for a varint, else its bytes. Raises DataError."""
        data, at = message(value), 0
        while at < len(data):
            self._left -= 1
            if self._left < 0:
                raise DataError(f"refused: it has more than {self._most} fields")
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
                raise DataError("damaged: a field ends behind the message that it is in")
            yield tag >> 3, data[at : at + size]
            at += size


def signed(value: int) -> int:
    """A varint as int64."""
    return value - 2**64 if value >= 2**63 else value


def packed_ints(value: Value) -> list[int]:
    """A repeated int64: one of its values, or several in one field."""
    if isinstance(value, int):
        return [signed(value)]
    if len(value) > MOST_PACKED:
        raise DataError(f"refused: a list of whole numbers of {len(value)} bytes; it may have {MOST_PACKED}")
    found, at = [], 0
    while at < len(value):
        one, at = _varint(value, at)
        found.append(signed(one))
    return found


def text(value: Value) -> str:
    """A string, or bytes."""
    if isinstance(value, int):
        raise DataError("damaged: a number is where a text should be")
    return bytes(value).decode("utf-8", "replace")


def message(value: Value) -> memoryview:
    """An embedded message."""
    if isinstance(value, int):
        raise DataError("damaged: a number is where a message should be")
    return value


def float32(value: Value) -> float:
    """A float."""
    if isinstance(value, int) or len(value) != 4:
        raise DataError("damaged: what should be a float is none")
    return struct.unpack("<f", value)[0]


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """(the number, where the next byte is)."""
    value = 0
    for index in range(10):
        if at + index >= len(data):
            break
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value & (2**64 - 1), at + index + 1
    raise DataError("damaged: a number does not end")
