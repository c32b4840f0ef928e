"""WebDataset's conventions: the members and the label of a sample."""

from __future__ import annotations

import array
import re
from dataclasses import dataclass, field

import numpy as np

from plsc.data.containers.files import Scanner
from plsc.data.containers.tar import Member, members
from plsc.data.indexing import Progress
from plsc.data.label_list import printable
from plsc.errors import DataError
from plsc.files import plain_json, safe_open

IMAGES = (b"jpg", b"jpeg", b"png", b"webp", b"bmp", b"ppm", b"pgm", b"tif", b"tiff", b"gif", b"jp2")
_MOST_LABEL = 1 << 20  # bytes of a .cls or .json
_INTEGER = re.compile(rb"\s*([+-]?[0-9]{1,10})\s*")
MOST_CLASSES = 2**31


@dataclass
class Samples:
    """The samples of files, in order: positions, sizes and labels of the images, as arrays that grow in place."""

    positions: array.array = field(default_factory=lambda: array.array("q"))
    sizes: array.array = field(default_factory=lambda: array.array("I"))
    labels: array.array = field(default_factory=lambda: array.array("i"))

    def add(self, positions: np.ndarray, sizes: np.ndarray, labels: np.ndarray) -> None:
        """Add samples; integers [n]."""
        for column, more in ((self.positions, positions), (self.sizes, sizes), (self.labels, labels)):
            column.frombytes(more.astype(column.typecode).tobytes())

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(positions int64 [n], sizes uint32 [n], labels int32 [n]), without a copy."""
        if not len(self.labels):
            return np.empty(0, np.int64), np.empty(0, np.uint32), np.empty(0, np.int32)
        arrays = (self.positions, np.int64), (self.sizes, np.uint32), (self.labels, np.int32)
        positions, sizes, labels = (np.frombuffer(found, kind) for found, kind in arrays)
        return positions, sizes, labels


def add_shard(samples: Samples, path: str, start: int, label_key: str, progress: Progress) -> int:
    """Add the samples of the shard ``path``, whose first byte has the position ``start``; return the shard's size.

    Consecutive members with the same name up to the first dot of the base name are one sample: an image, and a label in
    ASCII (.cls) or JSON (.json: a number, or a mapping with ``label_key``). Other members of a sample, and those whose
    name begins with a dot, are ignored. Raises DataError for a sample without image or label.
    """
    with Scanner(path, progress) as scanner:
        current = _Sample(b"", "")
        for member in members(scanner):
            folder, slash, base = member.name.rpartition(b"/")
            if base.startswith(b"."):
                continue
            name, _, ending = base.partition(b".")
            key = folder + slash + name
            if key != current.key:
                current.finish(samples, start)
                current = _Sample(key, member.where)
            current.add(member, ending.lower(), scanner, label_key)
        current.finish(samples, start)
        return scanner.size


@dataclass
class _Sample:
    """The members of a sample found so far."""

    key: bytes
    where: str
    image: Member | None = None
    label: int | None = None

    def add(self, member: Member, ending: bytes, scanner: Scanner, label_key: str) -> None:
        if ending in IMAGES:
            if self.image is not None:
                raise self._problem(f"has two images, {printable(self.image.name)} and {printable(member.name)}")
            if member.size > safe_open.IMAGE:
                raise self._problem(f"has an image of {member.size} bytes; it may have {safe_open.IMAGE}")
            self.image = member
        elif ending in (b"cls", b"json"):
            if member.size > _MOST_LABEL:
                raise self._problem(f"has a label of {member.size} bytes; it may have {_MOST_LABEL}")
            label = _label(scanner.at(member.offset, member.size), ending, label_key)
            if label is None or not -MOST_CLASSES <= label < MOST_CLASSES:
                wanted = "a whole number" if ending == b"cls" else f"a whole number, or a mapping with {label_key!r}"
                raise self._problem(f"{printable(member.name)} holds no class: it must hold {wanted}")
            if self.label not in (None, label):
                raise self._problem(f"has two labels, {self.label} and {label}")
            self.label = label

    def finish(self, samples: Samples, start: int) -> None:
        if not self.where:
            return  # before the first sample
        if self.image is None:
            raise self._problem(f"has no image (.{', .'.join(ending.decode() for ending in IMAGES)})")
        if self.label is None:
            raise self._problem("has no label: a member .cls, or .json")
        samples.positions.append(start + self.image.offset)
        samples.sizes.append(self.image.size)
        samples.labels.append(self.label)

    def _problem(self, text: str) -> DataError:
        return DataError(f"{self.where}: sample {printable(self.key)} {text}")


def _label(text: bytes, ending: bytes, label_key: str) -> int | None:
    """The label in a member; None if there is none."""
    if ending == b"cls":
        found = _INTEGER.fullmatch(text)
        return None if found is None else int(found[1])
    try:
        value = plain_json.loads(text)
    except ValueError:
        return None
    value = value.get(label_key) if isinstance(value, dict) else value
    return value if isinstance(value, int) and not isinstance(value, bool) else None
