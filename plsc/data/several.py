"""A combination of several sources: `data.sources`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from plsc.data.record import LabelIndex, index_record
from plsc.data.sources import Source
from plsc.errors import ConfigError, DataError


@dataclass(frozen=True)
class Part:
    """One of several sources. key: its setting, for messages. class_offset: added to its labels; None for the number of
    classes of the parts before it."""

    key: str
    source: Source
    class_offset: int | None = None


class SeveralSources(Source):
    """The images of all parts, in the order of the parts.

    num_classes: the total; None counts them. Raises ConfigError for parts that cannot be combined: a part with an
    unknown number of classes before one without an offset, and model inputs together with images.
    """

    def __init__(self, parts: Sequence[Part], num_classes: int | None) -> None:
        self._parts = list(parts)
        self.ready = parts[0].source.ready
        self._sources = [part.source for part in parts]
        for part in parts:
            if part.source.ready != self.ready:
                raise ConfigError(f"{part.key}: gives {_given(part.source)}, {parts[0].key} {_given(parts[0].source)}")
        self._offsets, ends = _class_ranges(self._parts)
        known = [end for end in ends if end is not None]
        counted = max(known) if len(known) == len(ends) else None
        self._num_classes = num_classes
        self.num_classes = counted if num_classes is None else num_classes
        self._ends = ends
        self._starts = np.concatenate([[0], np.cumsum([len(source) for source in self._sources])]).astype(np.int64)
        self.notes = [note for source in self._sources for note in source.notes]
        if all(source.class_names for source in self._sources) and self._is_in_a_row():
            self.class_names = [name for source in self._sources for name in source.class_names or ()]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, index: int) -> tuple[bytes | np.ndarray, int]:
        number, place = self._find(index)
        image, label = self._sources[number].read(place)
        moved: Any = np.int64(self._offsets[number]) + label  # int32 might overflow
        return image, moved

    def record(self, count: int | None = None) -> dict[str, Any]:
        """The record by the labels of all parts if they are known, else by the records of the parts."""
        if all(source.label_index is not None for source in self._sources):
            return {"kind": "several sources", **index_record(_Joined(self), count)}
        records = [[offset, source.record()] for offset, source in zip(self._offsets, self._sources)]
        text = json.dumps(records, sort_keys=True, default=str)
        return {"kind": "several sources", "digest": hashlib.sha256(text.encode()).hexdigest()[:32]}

    def check(self, check_files: bool) -> None:
        for part, source, end in zip(self._parts, self._sources, self._ends):
            source.check(check_files)
            if end is not None and self._num_classes is not None and end > self._num_classes:
                raise DataError(
                    f"{part.key}: the classes of {source.place} go to {end - 1}, classifier.num_classes="
                    f"{self._num_classes}: set it to {max(filter(None, self._ends))}, or to null, which counts them"
                )

    def open_files(self) -> None:
        for source in self._sources:
            source.open_files()

    def file(self, index: int) -> bytes | None:
        number, place = self._find(index)
        return self._sources[number].file(place)

    def takes_in(self, path: str) -> bool:
        return any(source.takes_in(path) for source in self._sources)

    def name(self, index: int) -> str:
        number, place = self._find(index)
        return self._sources[number].name(place)

    @property
    def place(self) -> str:
        return " and ".join(source.place for source in self._sources)

    def known_labels(self) -> np.ndarray | None:
        """Those of all parts, int32 [n], int64 if they are too large for it."""
        parts = [source.known_labels() for source in self._sources]
        known = [np.asarray(part) for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        largest = max(int(part.max(initial=0)) + offset for part, offset in zip(known, self._offsets))
        found = np.empty(len(self), np.int32 if largest < 2**31 else np.int64)
        for part, offset, start in zip(known, self._offsets, self._starts.tolist()):
            np.add(part, found.dtype.type(offset), out=found[start : start + len(part)], casting="same_kind")
        return found

    def pieces(self, which: slice) -> list[tuple[Source, int, slice]]:
        """The sources of consecutive images, each with the offset of its labels and a slice of it."""
        first, last, _ = which.indices(len(self))
        found = []
        starts, ends = self._starts[:-1].tolist(), self._starts[1:].tolist()
        for source, offset, start, end in zip(self._sources, self._offsets, starts, ends):
            if max(first, start) < min(last, end):
                found.append((source, offset, slice(max(first, start) - start, min(last, end) - start)))
        return found

    def _find(self, index: int) -> tuple[int, int]:
        """The number of the part, and the index in it."""
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return number, index - int(self._starts[number])

    def _is_in_a_row(self) -> bool:
        """Whether the classes of the parts are consecutive, so that their names can be concatenated."""
        return all(offset == end for offset, end in zip(self._offsets, [0, *self._ends[:-1]]))


class _JoinedLabels:
    """The labels of all parts, put together where they are asked for: all of them in each process would be a copy."""

    def __init__(self, sources: SeveralSources) -> None:
        self._sources = sources

    def __getitem__(self, which: slice) -> np.ndarray:
        """int64 [n]."""
        pieces = self._sources.pieces(which)
        return np.concatenate([_index_of(source).labels[part] + np.int64(offset) for source, offset, part in pieces])


class _Joined:
    """The labels and names of all parts, as a plsc.data.record.LabelIndex."""

    def __init__(self, sources: SeveralSources) -> None:
        self._sources = sources
        self.labels = _JoinedLabels(sources)
        self.num_classes = sources.num_classes or 0

    def __len__(self) -> int:
        return len(self._sources)

    def block(self, which: slice) -> tuple[bytes, np.ndarray, np.ndarray]:
        blocks = [_index_of(source).block(part) for source, _, part in self._sources.pieces(which)]
        shifts = np.cumsum([0, *(len(text) for text, _, _ in blocks)])
        starts = [starts + shift for (_, starts, _), shift in zip(blocks, shifts)]
        return b"".join(text for text, _, _ in blocks), np.concatenate(starts), np.concatenate([b[2] for b in blocks])


def _index_of(source: Source) -> LabelIndex:
    assert source.label_index is not None
    return source.label_index


def _given(source: Source) -> str:
    return "input of the model" if source.ready else "images"


def _class_ranges(parts: Sequence[Part]) -> tuple[list[int], list[int | None]]:
    """The offsets and ends of the classes of all parts; an end is None if it is unknown. Raises ConfigError."""
    offsets: list[int] = []
    ends: list[int | None] = []
    for number, part in enumerate(parts):
        before = max((end for end in ends if end is not None), default=0)
        if part.class_offset is None and None in ends:
            unknown = parts[ends.index(None)]
            raise ConfigError(
                f"{part.key}: the classes of {unknown.key} are not known before its images are read; set num_classes "
                "there, or class_offset here"
            )
        offsets.append(before if part.class_offset is None else part.class_offset)
        classes = part.source.num_classes
        ends.append(None if classes is None else offsets[number] + classes)
    return offsets, ends
