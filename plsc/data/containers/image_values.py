"""LMDB values of face recognition repositories: msgpack of (image bytes, label). Source: the msgpack specification."""

from __future__ import annotations

import array
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from plsc.data.containers.files import Scanner, shown
from plsc.data.containers.lmdb import entries
from plsc.data.containers.ordering import is_sorted, sort_by
from plsc.data.indexing import Progress
from plsc.errors import DataError
from plsc.files import safe_open

MOST_CLASSES = 2**31
_PAIR = b"\x92", b"\xdc\0\x02"  # an array of two
_LENGTHS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}  # bytes of the length of bytes, or of old "raw"
_NUMBERS = {0xCC: (1, False), 0xCD: (2, False), 0xCE: (4, False), 0xCF: (8, False),
            0xD0: (1, True), 0xD1: (2, True), 0xD2: (4, True), 0xD3: (8, True)}  # fmt: skip
_HEAD, _TAIL = 8, 9  # most bytes before the image and after it
_BLOCK = 1 << 16  # values
_PART = 1 << 22  # values whose order in the file is in memory
_KEY = re.compile(rb"[0-9]{1,18}")
LENGTH, CLASSES, KEYS = b"__len__", b"__classnum__", b"__keys__"


@dataclass
class ImageValues:
    """The images of a file, in numerical order of their keys.

    keys: int64 [n]. positions: int64 [n], of the images. sizes: uint32 [n]. labels: int32 [n]. classes: the number in
    the file, or None. size: of the file.
    """

    keys: np.ndarray
    positions: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray
    classes: int | None
    size: int


def read_values(path: str, progress: Progress) -> ImageValues:
    """Read the positions and labels of all images. Raises DataError that names the file and the key."""
    keys, places, lengths = array.array("q"), array.array("q"), array.array("I")
    said: dict[bytes, int] = {}
    with Scanner(path, progress) as scanner:
        for key, start, length in entries(scanner):
            if key in (LENGTH, CLASSES):
                said[key] = _said(scanner, key, start, length)
            elif _KEY.fullmatch(key):
                keys.append(int(key))
                places.append(start)
                lengths.append(length)
            elif key != KEYS:
                raise DataError(f"{shown(path)}: key {key!r:.80}: is no number: another schema; {_wanted()}")
        if LENGTH in said and said[LENGTH] != len(keys):
            raise DataError(f"{shown(path)}: `__len__` says {said[LENGTH]} images, there are {len(keys)}")
        number, offset, size = (_array(some) for some in (keys, places, lengths))
        sort_by(number, offset, size)  # LMDB sorts them as text
        if not is_sorted(number, strictly=True):
            twice = number[np.flatnonzero(number[1:] == number[:-1])[0]]
            raise DataError(f"{shown(path)}: has the key {twice} twice, with zeros in front")
        labels = _read_heads(scanner, number, offset, size)
        return ImageValues(number, offset, size, labels, said.get(CLASSES), scanner.size)


def _array(values: array.array) -> np.ndarray:
    """The same memory as an array; a new one if it is empty."""
    kind = np.uint32 if values.typecode == "I" else np.int64
    return np.frombuffer(values, kind) if len(values) else np.empty(0, kind)


def _read_heads(scanner: Scanner, keys: np.ndarray, offsets: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Replace the positions and sizes of values by those of the images in them; returns the labels, int32 [n].

    The values are read in the order of the file. Raises DataError.
    """
    labels = np.empty(len(keys), np.int32)
    for places in _in_file_order(offsets):
        for place in places:
            where = f"{shown(scanner.path)}: key {keys[place]}"
            begin, sizes[place], labels[place] = _image(scanner, int(offsets[place]), int(sizes[place]), where)
            offsets[place] += begin
    return labels


def _in_file_order(offsets: np.ndarray) -> Iterator[Iterable[int]]:
    """The indices of ascending offsets, some of them at a time.

    The last part of the file comes first, so that an offset that is moved up is in no part that is still to come.
    """
    if is_sorted(offsets):
        yield range(len(offsets))
        return
    ends = np.linspace(offsets.min(), int(offsets.max()) + 1, len(offsets) // _PART + 2).astype(np.int64)
    for begin, end in zip(ends[-2::-1], ends[:0:-1]):
        inside = np.concatenate([
            first + np.flatnonzero((some >= begin) & (some < end))
            for first in range(0, len(offsets), _BLOCK) for some in [offsets[first : first + _BLOCK]]
        ])  # fmt: skip
        inside = inside[np.argsort(offsets[inside])]
        for first in range(0, len(inside), _BLOCK):
            yield inside[first : first + _BLOCK].tolist()


def _wanted() -> str:
    return "keys must be decimal numbers, values msgpack of (image bytes, label)"


def _said(scanner: Scanner, key: bytes, offset: int, size: int) -> int:
    """Read a number of the file's metadata. Raises DataError."""
    number = _number(scanner.read(offset, min(size, _TAIL))) if size <= _TAIL else None
    if number is None or not 0 <= number < 2**63:
        raise DataError(f"{shown(scanner.path)}: key {key.decode()}: is no whole number as msgpack")
    return number


def _image(scanner: Scanner, offset: int, size: int, where: str) -> tuple[int, int, int]:
    """(offset of the image in the value, its bytes, its label). Raises DataError."""
    head = scanner.at(offset, min(size, _HEAD))
    begin = next((len(pair) for pair in _PAIR if head.startswith(pair)), 0)
    kind = head[begin] if begin < len(head) else 0
    width = _LENGTHS.get(kind, 0)
    start = begin + 1 + width
    length = int.from_bytes(head[begin + 1 : start], "big") if width else kind & 31
    if not begin or (not width and kind >> 5 != 5) or start + length >= size or size - start - length > _TAIL:
        raise DataError(f"{where}: is not (image bytes, label): another schema; {_wanted()}")
    if length > safe_open.IMAGE:
        raise DataError(f"{where}: an image of {length} bytes; it may have {safe_open.IMAGE}")
    label = _number(scanner.at(offset + start + length, size - start - length))
    if label is None or not -MOST_CLASSES <= label < MOST_CLASSES:
        raise DataError(f"{where}: has no class behind its image: another schema; {_wanted()}")
    return start, length, label


def _number(data: bytes) -> int | None:
    """Decode all bytes as a msgpack integer; None for anything else."""
    if len(data) == 1 and (data[0] < 0x80 or data[0] >= 0xE0):
        return int.from_bytes(data, "big", signed=True)
    size, signed = _NUMBERS.get(data[0], (0, False)) if data else (0, False)
    return int.from_bytes(data[1:], "big", signed=signed) if size and len(data) == 1 + size else None
