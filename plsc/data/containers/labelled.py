"""Sources that know all labels without reading the images, with 16 bytes of memory per image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from plsc.data.containers.files import Files, shown
from plsc.data.label_counts import outside
from plsc.data.record import index_record
from plsc.data.shared_index import Index
from plsc.data.sources import Source
from plsc.errors import DataError
from plsc.files.array_file import Arrays

_NAME = np.dtype([("number", "<i8"), ("size", "<u4")])


class LabelledSource(Source):
    """A source with ``labels``, int [n]. A subclass calls ``_set_labels`` and defines ``numbers``.

    numbers(which): two arrays [m] for consecutive images: identifying numbers, such as keys, and sizes in bytes.
    """

    labels: np.ndarray
    num_classes: int

    def _set_labels(self, labels: np.ndarray, num_classes: int | None, file: str) -> None:
        """Set the labels, and the names of the classes if there is a table of them beside ``file``, which lies where
        the data are (plsc.data.class_table). num_classes: None for the largest label + 1."""
        self.labels = labels
        self.label_index = self
        self.num_classes = int(labels.max(initial=-1)) + 1 if num_classes is None else num_classes
        self._read_class_table(file, self.num_classes, labels)

    def __len__(self) -> int:
        return len(self.labels)

    def numbers(self, which: slice) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError

    def block(self, which: slice) -> tuple[bytes, np.ndarray, np.ndarray]:
        """(bytes, starts, lengths) of the identifying numbers (see plsc.data.record.LabelIndex)."""
        numbers, sizes = self.numbers(which)
        names = np.empty(len(numbers), _NAME)
        names["number"], names["size"] = numbers, sizes
        return names.tobytes(), np.arange(len(names)) * _NAME.itemsize, np.full(len(names), _NAME.itemsize)

    def record(self, count: int | None = None) -> dict[str, Any]:
        return index_record(self, count)

    def check(self, check_files: bool) -> None:
        """Raise DataError for invalid labels. The images were checked when the file was indexed."""
        wrong, first = outside(self.labels, self.num_classes)
        if wrong:
            raise DataError(
                f"{self.place}: {wrong} of {len(self)} images have a label outside 0..{self.num_classes - 1} "
                f"(set by classifier.num_classes={self.num_classes}): {self.name(first)} has {self.labels[first]}, the "
                f"largest is {self.labels.max()}; set classifier.num_classes: {int(self.labels.max()) + 1}"
            )


class ExtentSource(LabelledSource):
    """Images that are byte ranges of a few large files. A subclass extracts an image from its range.

    files: the files. positions: int64 [n], of the ranges. sizes: uint32 [n], in bytes.
    """

    files: Files
    positions: np.ndarray
    sizes: np.ndarray

    def _set_index(self, paths: Sequence[str], index: Index) -> None:
        """Set files, positions and sizes from an index whose arrays are named so; facts: file_sizes."""
        self.files = Files(paths, index.content.facts["file_sizes"])
        self.positions, self.sizes = index.content.arrays["positions"], index.content.arrays["sizes"]
        self.notes = index.notes

    def open_files(self) -> None:
        self.files.open()

    def numbers(self, which: slice) -> tuple[np.ndarray, np.ndarray]:
        return self.positions[which], self.sizes[which]

    def bytes_of(self, index: int) -> bytes:
        """The byte range of an image. Raises DataError."""
        return self.files.read(int(self.positions[index]), int(self.sizes[index]))

    def name(self, index: int) -> str:
        number, offset = self.files.place(int(self.positions[index]))
        return f"{shown(self.files.paths[number])}: image {index} (byte {offset})"


class KeyedSource(ExtentSource):
    """The same with an integer key for each image, ascending, in a single file."""

    def _set_index(self, paths: Sequence[str], index: Index) -> None:
        """As ExtentSource, and the keys: facts: first_key; arrays: keys, if they have gaps."""
        super()._set_index(paths, index)
        self._first_key, self._keys = index.content.facts["first_key"], index.content.arrays.get("keys")

    def numbers(self, which: slice) -> tuple[np.ndarray, np.ndarray]:
        keys = np.arange(*which.indices(len(self))) + self._first_key if self._keys is None else self._keys[which]
        return keys, self.sizes[which]

    def name(self, index: int) -> str:
        key = self._first_key + index if self._keys is None else self._keys[index]
        return f"{self.place}: key {key} at byte {self.positions[index]}"

    @property
    def place(self) -> str:
        return shown(self.files.paths[0])


def with_keys(arrays: dict[str, np.ndarray], facts: dict[str, Any], keys: np.ndarray) -> Arrays:
    """The content of the index of a KeyedSource. keys: integers [n], ascending; stored only if they have gaps."""
    first = int(keys[0]) if len(keys) else 0
    in_a_row = not len(keys) or int(keys[-1]) == first + len(keys) - 1
    more = {} if in_a_row else {"keys": keys.astype(np.int64, copy=False)}
    return Arrays({**arrays, **more}, {**facts, "first_key": first})
