"""Reads `label.txt` with NumPy, a few megabytes at a time, as such lists have millions of lines."""

from __future__ import annotations

import array
import os
import re
from collections.abc import Iterator

import numpy as np

from plsc.data.indexing import Progress
from plsc.errors import DataError
from plsc.files import safe_open
from plsc.files.array_file import Arrays
from plsc.files.texts import FileText, HeldText, Text

LARGE = 1 << 26  # bytes of a list, two million lines: it is shared by processes, and not held in memory
# Problems of a line, as bits, since a line can have several.
NO_LABEL, NOT_INTEGER, OUT_OF_RANGE, NO_FILE = 1, 2, 4, 8

_BOM = b"\xef\xbb\xbf"
_IS_SPACE = np.isin(np.arange(256), list(b" \t\r\v\f"))
_IS_DIGIT = np.isin(np.arange(256), list(b"0123456789"))
_INTEGER = re.compile(rb"[+-]?[0-9]+")
_MAX_DIGITS = 18  # always fits into int64
MOST_CLASSES = 2**31 - 1  # the maximum of classifier.num_classes
_CHUNK = 1 << 22  # bytes parsed at a time, so that temporary arrays are small and stay in the cache


class LabelList:
    """The non-blank lines of a label list, in order.

    file: path as given. labels: int32 [n], int64 if there are more than 2**31 classes (-1 where there is none or one
    that is no class). problems: uint8 [n], bits of what is wrong. num_classes: as given; for None they are counted: the
    largest label below MOST_CLASSES, + 1. limit: labels must be smaller.
    The paths stay in ``text``, the bytes of the file; their positions and lengths take 8 bytes per line, 12 in a file
    of 4 GiB or more. ``of_content`` makes a list of the ``content`` of another one, which may be shared by processes.
    """

    def __init__(self, file: str, text: Text, num_classes: int | None, progress: Progress | None = None) -> None:
        self.file = file
        self.limit = MOST_CLASSES if num_classes is None else num_classes
        self._text = text
        columns = [array.array(kind) for kind in ("I" if len(text) < 2**32 else "q", "I", _label_kind(self.limit), "B")]
        for first, block in _chunks(text):
            starts, stops, labels, problems = parse_lines(block)
            if progress is not None:
                progress.read(len(block))
            known = (problems & (NO_LABEL | NOT_INTEGER)) == 0
            problems[known & ((labels < 0) | (labels >= self.limit))] |= OUT_OF_RANGE
            labels[problems != 0] = -1
            for column, more in zip(columns, (starts + first, stops - starts, labels, problems)):
                column.frombytes(more.astype(column.typecode).tobytes())
        self._starts, self._lengths, self.labels, self.problems = (
            np.frombuffer(column, column.typecode) if column else np.empty(0, column.typecode) for column in columns
        )
        self.num_classes = int(self.labels.max(initial=-1)) + 1 if num_classes is None else num_classes

    def content(self) -> Arrays:
        """All of it, to be stored."""
        arrays = {"starts": self._starts, "lengths": self._lengths, "labels": self.labels, "problems": self.problems}
        return Arrays(arrays, {}, {"text": self._text})

    @classmethod
    def of_content(cls, file: str, content: Arrays, num_classes: int | None) -> LabelList:
        """The list whose ``content`` this is, without a copy. file, num_classes: those of that list."""
        made, arrays = cls(file, HeldText(b""), num_classes), content.arrays
        made._text, made._starts, made._lengths = content.texts["text"], arrays["starts"], arrays["lengths"]
        made.labels, made.problems = arrays["labels"], arrays["problems"]
        made.num_classes = int(made.labels.max(initial=-1)) + 1 if num_classes is None else num_classes
        return made

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> bytes:
        """The image's path as in the list. Raises DataError if the file has changed, as the others that read it."""
        start = int(self._starts[index])
        return self._read(start, start + int(self._lengths[index]))

    def paths(self, which: slice) -> list[bytes]:
        """The paths of consecutive lines; faster than one by one."""
        text, starts, lengths = self.block(which)
        return [text[start : start + length] for start, length in zip(starts.tolist(), lengths.tolist())]

    def block(self, which: slice) -> tuple[bytes, np.ndarray, np.ndarray]:
        """(bytes, starts, lengths): the positions of the paths of consecutive lines in these bytes."""
        starts, lengths = self._starts[which].astype(np.int64), self._lengths[which]
        first, last = int(starts[0]), int(starts[-1]) + int(lengths[-1])
        return self._read(first, last), starts - first, lengths

    def line_number(self, index: int) -> int:
        """The line number in the file, from 1 and with blank lines counted."""
        start = int(self._starts[index])
        before = range(0, start, _CHUNK)
        return sum(self._read(first, min(first + _CHUNK, start)).count(b"\n") for first in before) + 1

    def location(self, index: int) -> str:
        """`label.txt:12`"""
        return f"{os.path.basename(self.file)}:{self.line_number(index)}"

    def name(self, index: int) -> str:
        """`label.txt:12: image 'a/b.jpg'`"""
        return f"{self.location(index)}: image {printable(self.path(index))}"

    def line_text(self, index: int) -> str:
        """The text of the line, shortened for a message."""
        start, size = int(self._starts[index]), 1 << 10
        while True:
            text = self._read(start, start + size)
            if b"\n" in text or start + size >= len(self._text):
                return printable(text.split(b"\n", 1)[0].strip())
            size *= 2

    def _read(self, start: int, stop: int) -> bytes:
        try:
            return self._text.read(start, stop)
        except OSError as error:
            raise DataError(f"label list {self.file!r}: {error.strerror or error}") from error


def read_label_list(file: str, num_classes: int | None, progress: Progress | None = None) -> LabelList:
    """Read a list; bad lines are marked, not raised. The text of a large one stays in the file, which must not change.

    Raises DataError for a missing, unreadable or empty file.
    """
    try:
        with safe_open.open_bytes(file, safe_open.TRAINING_LIST) as opened:
            size = os.fstat(opened.fileno()).st_size
            text: Text = FileText(opened.fileno(), 0, size)
        if size < LARGE:
            text = HeldText(text.read(0, size))
        found = LabelList(file, text, num_classes, progress)
    except FileNotFoundError as error:
        raise DataError(
            f"label list {file!r} not found: check data.dataset_dir and data.label_file; for a first run without data "
            "set data.dataset: synthetic and with_test: false, in a script entry.set('data.dataset', 'synthetic') and "
            "entry.set_with_test(False); see docs/data_sets.md"
        ) from error
    except OSError as error:
        raise DataError(f"label list {file!r} cannot be read: {error.strerror or error}") from error
    if not len(found):
        raise DataError(f"label list {file!r} is empty: it needs one line 'path<TAB>label' per image")
    return found


def printable(text: bytes) -> str:
    """Quote bytes for a message: on one line, at most 200 characters."""
    shown = repr(text.decode("utf-8", "backslashreplace"))
    return shown if len(shown) <= 200 else f"{shown[:197]}..."


def _chunks(text: Text) -> Iterator[tuple[int, bytes]]:
    """(position, bytes) of chunks of about _CHUNK bytes that end at line ends, without a BOM. Raises OSError."""
    first = len(_BOM) if text.read(0, len(_BOM)) == _BOM else 0
    while first < len(text):
        size, end = _CHUNK, 0
        while not end:
            block = text.read(first, first + size)
            end = len(block) if first + len(block) >= len(text) else block.rfind(b"\n") + 1
            size *= 2  # of a longer line
        yield first, block[:end]
        first += end


def _label_kind(limit: int) -> str:
    """The type code of labels below ``limit``."""
    return "i" if limit <= 2**31 else "q"


def parse_lines(blob: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(starts, stops of the paths; labels; problems). Regular lines are parsed by NumPy, others one by one."""
    data = np.frombuffer(blob, dtype=np.uint8)
    newlines = np.flatnonzero(data == ord("\n"))
    starts = np.append(0, newlines + 1)
    stops = np.append(newlines, len(blob))
    _trim_right(data, starts, stops)
    keep = stops > starts
    starts, stops = starts[keep], stops[keep]
    _trim_left(data, starts, stops)

    labels, path_stops = _trailing_numbers(data, starts, stops)
    problems = np.zeros(len(starts), dtype=np.uint8)
    for index in np.flatnonzero(_unusual(data, starts, stops, path_stops)):
        length, labels[index], problems[index] = _parse_line(blob[starts[index] : stops[index]])
        path_stops[index] = starts[index] + length
    _trim_right(data, starts, path_stops)
    return starts, path_stops, labels, problems


def _trim_right(data: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> None:
    active = np.flatnonzero(stops > starts)
    while active.size:
        active = active[_IS_SPACE[data[stops[active] - 1]]]
        stops[active] -= 1
        active = active[stops[active] > starts[active]]


def _trim_left(data: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> None:
    active = np.flatnonzero(stops > starts)
    while active.size:
        active = active[_IS_SPACE[data[starts[active]]]]
        starts[active] += 1
        active = active[stops[active] > starts[active]]


def _trailing_numbers(data: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The number at the end of each line, and its position (the end of the line if there is none)."""
    value = np.zeros(len(starts), dtype=np.int64)
    begin = stops.copy()
    active = np.arange(len(starts))
    for power in range(_MAX_DIGITS):
        active = active[begin[active] > starts[active]]
        active = active[_IS_DIGIT[data[begin[active] - 1]]]
        if not active.size:
            break
        begin[active] -= 1
        value[active] += (data[begin[active]] - ord("0")).astype(np.int64) * 10**power
    return value, begin


def _unusual(data: np.ndarray, starts: np.ndarray, stops: np.ndarray, begin: np.ndarray) -> np.ndarray:
    """Lines that are neither `path<TAB>digits` nor `path<space>digits` without a tab."""
    before = np.where(begin > starts, data[begin - 1], ord("x"))
    tabs = np.flatnonzero(data == ord("\t"))
    has_tab = np.searchsorted(tabs, starts) != np.searchsorted(tabs, stops)
    plain = (begin < stops) & ((before == ord("\t")) | (_IS_SPACE[before] & ~has_tab))
    return ~plain


def _parse_line(line: bytes) -> tuple[int, int, int]:
    """(length of the path, label, problem) of one trimmed line. The separator is its last tab, else its last space."""
    parts = line.rsplit(b"\t", 1) if b"\t" in line else line.rsplit(None, 1)
    if len(parts) < 2:
        return len(line), -1, NO_LABEL
    path, label = parts[0], parts[1].strip()
    if not _INTEGER.fullmatch(label):
        return len(path), -1, NOT_INTEGER
    if len(label) > _MAX_DIGITS:
        return len(path), -1, OUT_OF_RANGE
    return len(path), int(label), 0
