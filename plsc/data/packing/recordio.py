"""Writes RecordIO: `train.rec`, `train.idx` and `property`, also for insightface's readers."""

from __future__ import annotations

import os
from typing import Any

from plsc.data.containers.files import Scanner
from plsc.data.containers.recordio import (
    FIRST,
    HEAD,
    HEADER,
    LAST,
    LENGTH_BITS,
    MAGIC,
    MAGIC_BYTES,
    MIDDLE,
    MOST_EXACT,
    WHOLE,
    padded,
    walk,
)  # fmt: skip
from plsc.data.packing.writer import Contents, Writer
from plsc.data.sources import Source
from plsc.data.sources.recordio import RecordIOSource
from plsc.errors import DataError
from plsc.files.atomic import flush, whole_file, write_bytes

_LINES = 100_000  # of the index that are made at a time


class RecordIOWriter(Writer):
    """Keys from 0, in the order of the source, with one label each."""

    def __init__(self, directory: str, state: dict[str, Any]) -> None:
        self._directory = directory
        self._path = os.path.join(directory, "train.rec")
        self._file = open(self._path, "ab")
        self._file.truncate(state.get("bytes", 0))

    def add(self, index: int, image: bytes, label: int) -> None:
        if not 0 <= label < MOST_EXACT:
            raise DataError(
                f"image {index}: the label {label} is not in 0..{MOST_EXACT - 1}, which is what RecordIO can hold; "
                "pack it --to tar or lmdb"
            )
        self._file.write(encode(HEADER.pack(0, label, index, 0) + image))

    def flush(self) -> dict[str, Any]:
        flush(self._file)
        return {"bytes": os.fstat(self._file.fileno()).st_size}

    def finish(self, contents: Contents) -> None:
        self.flush()
        self._file.close()
        with Scanner(self._path) as scanner:
            offsets = walk(scanner)
        with whole_file(os.path.join(self._directory, "train.idx")) as file:
            for first in range(0, len(offsets), _LINES):
                some = enumerate(offsets[first : first + _LINES].tolist(), first)
                file.write("".join(f"{key}\t{offset}\n" for key, offset in some).encode())
        height, width = contents.size
        text = f"{contents.num_classes},{height},{width}\n"
        write_bytes(os.path.join(self._directory, "property"), text.encode())

    @staticmethod
    def reader(directory: str, num_classes: int, size: tuple[int, int]) -> Source:
        return RecordIOSource(directory, num_classes, (3, *size))


def encode(data: bytes) -> bytes:
    """A record of these bytes, split into parts at each MAGIC at a multiple of 4."""
    cuts, place = [], data.find(MAGIC_BYTES)
    while place >= 0:
        if place % 4 == 0:
            cuts.append(place)
        place = data.find(MAGIC_BYTES, place + (4 if place % 4 == 0 else 1))
    starts, ends = [0, *(cut + 4 for cut in cuts)], [*cuts, len(data)]
    kinds = [FIRST, *[MIDDLE] * (len(cuts) - 1), LAST] if cuts else [WHOLE]
    parts = []
    for kind, start, end in zip(kinds, starts, ends):
        size = end - start
        parts += [HEAD.pack(MAGIC, kind << LENGTH_BITS | size), data[start:end], bytes(padded(size) - size)]
    return b"".join(parts)
