"""The index of a RecordIO file, its images, their order and labels, from `.idx` and insightface's header.

Arrays stay in the order of the file until the end, where they are usually sorted already, so that nothing is copied.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from plsc.data.containers.files import Scanner, shown
from plsc.data.containers.ordering import is_sorted, keep, sort_by
from plsc.data.containers.recordio import HEAD, MOST_EXACT, Heads, read_heads, walk
from plsc.data.indexing import Progress
from plsc.data.label_list import printable
from plsc.errors import DataError

_PAIR = rb"[0-9]{1,18}[ \t]+[0-9]{1,18}[ \t]*\r?\n"
_LINE, _LINES = re.compile(_PAIR), re.compile(rb"(?:" + _PAIR + rb")*")
_LONGEST = 64  # bytes of a line
_BLOCK = 1 << 20  # records whose labels are converted at a time


@dataclass
class RecordIndex:
    """The images of a file, in ascending order of their keys.

    keys: integers [n]. offsets: int64 [n]. sizes: uint32 [n], bytes in the file. labels: int32 [n]. size: of the
    file.
    """

    keys: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray
    size: int


@dataclass
class _Found:
    """All records, in the order of the file. keys: None without an `.idx`."""

    path: str
    keys: np.ndarray | None
    offsets: np.ndarray
    heads: Heads

    def name(self, record: int) -> str:
        key = "" if self.keys is None else f"key {self.keys[record]} at "
        return f"{shown(self.path)}: {key}byte {self.offsets[record]}"


def listing_of(path: str) -> str:
    """The path of the `.idx` of a RecordIO file."""
    return os.path.splitext(path)[0] + ".idx"


def read_index(path: str, progress: Progress) -> RecordIndex:
    """The images of the RecordIO file ``path``, by the `.idx` in its directory, or else in the order of the file.

    Raises DataError that names the file, and the key or byte.
    """
    listing = listing_of(path)
    with Scanner(path, progress) as scanner:
        if os.path.lexists(listing):
            keys, offsets = _read_keys(listing, scanner)
        else:
            keys, offsets = None, walk(scanner)
        nothing = np.empty(0)
        found = _Found(path, keys, offsets, Heads(nothing, nothing, nothing))
        found.heads = read_heads(scanner, offsets, found.name)
        return _images(found, scanner.size)


def _read_keys(path: str, scanner: Scanner) -> tuple[np.ndarray, np.ndarray]:
    """(keys, offsets) of an `.idx`, in ascending order of offsets. Raises DataError for invalid lines and offsets."""
    with Scanner(path) as listing:
        count = sum(chunk.count(b"\n") for chunk in _chunks(listing))
        if not count or count > scanner.size // HEAD.size:
            raise DataError(
                f"{shown(path)}: has {count} lines, which is not the list of {shown(scanner.path)} ({scanner.size} "
                "bytes); remove it, and the records are found without it"
            )
        keys, offsets, done = np.empty(count, np.int64), np.empty(count, np.int64), 0
        for chunk in _chunks(listing):
            _require_lines(path, chunk, done)
            numbers = np.array(chunk.split(), dtype="S18").astype(np.int64).reshape(-1, 2)
            here = slice(done, done + len(numbers))
            keys[here], offsets[here] = numbers[:, 0], numbers[:, 1]
            done = here.stop
    _require_offsets(path, keys, offsets, scanner)
    sort_by(offsets, keys)
    if not is_sorted(offsets, strictly=True):
        twice = int(np.flatnonzero(offsets[1:] == offsets[:-1])[0])
        one, other = sorted(keys[twice : twice + 2].tolist())
        raise DataError(f"{shown(path)}: the keys {one} and {other} have the same offset {offsets[twice]}")
    return keys, offsets


def _chunks(listing: Scanner) -> Iterator[bytes]:
    """The text in blocks of complete lines; a missing line end at the end of the file is added."""
    offset = 0
    while offset < listing.size:
        chunk = listing.block(offset)
        if offset + len(chunk) >= listing.size:
            yield chunk if chunk.endswith(b"\n") else chunk + b"\n"
            return
        last = chunk.rfind(b"\n") + 1
        if len(chunk) - last > _LONGEST:
            raise DataError(f"{shown(listing.path)}: byte {offset + last}: the line is longer than {_LONGEST} bytes")
        yield chunk[:last]
        offset += last


def _require_lines(path: str, chunk: bytes, before: int) -> None:
    """Raise DataError for the first line that is not `key<TAB>offset`."""
    if _LINES.fullmatch(chunk):
        return
    for number, line in enumerate(chunk.split(b"\n"), before + 1):
        if not _LINE.fullmatch(line + b"\n"):
            raise DataError(
                f"{shown(path)}: line {number}: {printable(line)} is not 'key<TAB>offset'; remove the file, and the "
                "records are found without it"
            )


def _require_offsets(path: str, keys: np.ndarray, offsets: np.ndarray, scanner: Scanner) -> None:
    for bad, reason in (
        (offsets >= scanner.size, f"{shown(scanner.path)} has {scanner.size} bytes"),
        (offsets % 4 != 0, "a record begins at a multiple of 4"),
    ):
        found = np.flatnonzero(bad)
        if len(found):
            line = found[0]
            raise DataError(
                f"{shown(path)}: line {line + 1}: key {keys[line]} has the offset {offsets[line]}: {reason}; it is the "
                "list of another file, or damaged"
            )


def _images(found: _Found, size: int) -> RecordIndex:
    """The records with images, in the order of their keys; in the memory of ``found``, which is lost. Raises
    DataError."""
    which = _which(found)
    labels = _whole_labels(found, which)
    columns = [found.offsets, found.heads.sizes, labels]
    columns += [] if found.keys is None else [found.keys]
    count = len(found.offsets)
    if which is not None:
        columns = keep(columns, which)
    del which
    found.heads.has_image = np.empty(0, bool)  # memory for 50 million is worth it
    offsets, sizes, labels = columns[:3]
    if found.keys is None:
        keys = np.arange(len(offsets)) + int(len(offsets) < count)
    else:
        keys = columns[3]
        sort_by(keys, *columns[:3])
        if not is_sorted(keys, strictly=True):
            twice = keys[np.flatnonzero(keys[1:] == keys[:-1])[0]]
            raise DataError(f"{shown(found.path)}: its .idx has the key {twice} twice")
    return RecordIndex(keys, offsets, sizes, labels, size)


def _whole_labels(found: _Found, which: np.ndarray | None) -> np.ndarray:
    """Convert float32 labels to int32, in their memory; those of records without an image become 0.

    Raises DataError for the first that is not a class or not exact in float32.
    """
    labels = found.heads.labels
    whole = labels.view(np.int32)
    for first in range(0, len(labels), _BLOCK):
        here = slice(first, first + _BLOCK)
        given = labels[here].copy()
        if which is not None:
            given[~which[here]] = 0
        with np.errstate(invalid="ignore"):
            whole[here] = given.astype(np.int32)
            wrong = np.flatnonzero((whole[here] != given) | (given < 0) | (given >= MOST_EXACT))
        if len(wrong):
            raise DataError(
                f"{found.name(first + int(wrong[0]))}: the label {given[wrong[0]]:.10g} is not a whole number in "
                f"0..{MOST_EXACT - 1}; RecordIO keeps labels as float32, which cannot tell larger ones apart"
            )
    return whole


def _which(found: _Found) -> np.ndarray | None:
    """The records that are images, bool [n]; None for all. With insightface's header those that have an image.

    The header has key 0 and no image, and its label is the number of images + 1; the keys of images start at 1. The
    records of identities, which follow the images, have no image either.
    """
    has_image = found.heads.has_image
    others = np.flatnonzero(~has_image)
    if not len(others):
        return None
    number = len(has_image) - len(others)
    headers = others if found.keys is None else others[found.keys[others] == 0]
    said = found.heads.labels[headers]
    if not np.any(said == np.float32(number + 1)):  # float32 on both sides, with the same rounding
        if found.keys is not None and len(headers):
            raise DataError(
                f"{found.name(headers[0])}: the header says that the images are the keys 1..{said[0] - 1:.10g}, but "
                f"{number} records have an image: the file or its .idx is not whole"
            )
        raise DataError(f"{found.name(others[0])}: the record has no image, and there is no header that says so")
    return has_image
