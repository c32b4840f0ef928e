"""Checks the label list before training and reports all problems."""

from __future__ import annotations

import array
import os
from collections.abc import Iterable, Iterator

import numpy as np

from plsc.data.containers.ordering import keep
from plsc.data.label_list import (
    MOST_CLASSES,
    NO_FILE,
    NO_LABEL,
    NOT_INTEGER,
    OUT_OF_RANGE,
    LabelList,
    printable,
    read_label_list,
)
from plsc.errors import DataError

_MAX_LISTED = 10  # problems listed in the message; the others are counted
_CHUNK_LINES = 1 << 15  # lines whose paths are Python objects at the same time
_BATCH = 1 << 20  # files that are compared at a time


def check_label_list(
    root: str | os.PathLike, label_file: str | os.PathLike, num_classes: int, check_files: bool = True
) -> LabelList:
    """Read the list and check it: not empty, every line a path and a label, labels integers in [0, num_classes).

    check_files: also check that every image exists (by listing each directory once). Raises one DataError with the
    number of problems of each kind and the first ten by file and line.
    """
    labels = read_label_list(os.path.join(os.fspath(root), os.fspath(label_file)), num_classes)
    require_good_lines(os.fsencode(root), labels, check_files)
    return labels


def require_good_lines(root: bytes, labels: LabelList, check_files: bool) -> None:
    """Raise the error of check_label_list for a list that has been read."""
    if check_files:
        _mark_missing(root, labels)
    if labels.problems.any():
        raise DataError(_message(labels))


def _missing(root: bytes, labels: LabelList) -> tuple[np.ndarray, set[bytes]]:
    """(hashes of the paths without a file, ascending; the directories that may be entered but not listed).

    Paths are compared by Python's 64-bit hash, which takes 9 bytes per path. For ten million paths, a hash collision
    hides a missing image with a probability of about 1e-12; then reading the image fails.
    """
    directories: dict[bytes, None] = {}  # in the order of the list, which is often the order on the disk
    wanted = np.empty(len(labels), np.int64)
    for here, paths in _by_chunks(labels):
        directories.update(dict.fromkeys([path[: path.rfind(b"/") + 1] for path in paths]))
        wanted[here] = list(map(hash, paths))
    wanted.sort()
    exists = np.zeros(len(wanted), bool)  # whether there is a file of this hash, at first said once for equal ones
    unlistable = _find_files(root, directories, wanted, exists)
    for first in range(0, len(wanted), _CHUNK_LINES):
        here = slice(first, first + _CHUNK_LINES)
        exists[here] |= exists[np.searchsorted(wanted, wanted[here])]
    return keep([wanted], np.logical_not(exists, out=exists))[0], unlistable


def _mark_missing(root: bytes, labels: LabelList) -> None:
    """Mark the lines whose images are missing."""
    missing, unlistable = _missing(root, labels)
    if not len(missing):
        return
    labels.problems = labels.problems.copy()  # those of a shared list are read-only
    for here, paths in _by_chunks(labels):
        gone = _contains(missing, list(map(hash, paths))) & ((labels.problems[here] & NO_LABEL) == 0)
        for index in np.flatnonzero(gone) if unlistable else ():
            gone[index] = not _exists_unlisted(root, paths[index], unlistable)
        labels.problems[here] |= np.where(gone, NO_FILE, 0).astype(np.uint8)


def _by_chunks(labels: LabelList) -> Iterator[tuple[slice, list[bytes]]]:
    """Consecutive lines and their paths."""
    for first in range(0, len(labels), _CHUNK_LINES):
        here = slice(first, min(first + _CHUNK_LINES, len(labels)))
        yield here, labels.paths(here)


def _find_files(root: bytes, directories: Iterable[bytes], wanted: np.ndarray, exists: np.ndarray) -> set[bytes]:
    """Mark the hashes of directory + name of all files in ``exists``, at the first of equal ones in ``wanted``
    (ascending). Returns the directories that may be entered but not listed."""
    found, unlistable = array.array("q"), set()

    def mark() -> None:
        hashes = np.sort(np.frombuffer(found, np.int64)) if found else np.empty(0, np.int64)
        exists[np.searchsorted(wanted, hashes[_contains(wanted, hashes)])] = True

    for directory in directories:
        try:
            with os.scandir(os.path.join(root, directory)) as entries:
                found.extend([hash(directory + entry.name) for entry in entries if entry.is_file()])
        except PermissionError:
            unlistable.add(directory)
        except (OSError, ValueError):  # missing, or no directory; ValueError: a zero byte in the name
            continue
        if len(found) >= _BATCH:
            mark()
            found = array.array("q")
    mark()
    return unlistable


def _contains(ascending: np.ndarray, values: np.ndarray | list[int]) -> np.ndarray:
    """bool [n]: whether each value is among the sorted ``ascending``."""
    if not len(ascending):
        return np.zeros(len(values), bool)
    place = np.searchsorted(ascending, values)
    return ascending[np.minimum(place, len(ascending) - 1)] == values


def _exists_unlisted(root: bytes, path: bytes, unlistable: set[bytes]) -> bool:
    return path[: path.rfind(b"/") + 1] in unlistable and os.path.isfile(os.path.join(root, path))


def _message(labels: LabelList) -> str:
    limit = f"0..{labels.limit - 1}"
    by = f"set by classifier.num_classes={labels.limit}" if labels.limit < MOST_CLASSES else "the most there can be"
    kinds = {
        NO_LABEL: "without a label",
        NOT_INTEGER: "with a label that is not an integer",
        OUT_OF_RANGE: f"with a label outside {limit} ({by})",
        NO_FILE: "whose image is missing",
    }
    counts = {bit: int(np.count_nonzero(labels.problems & bit)) for bit in kinds}
    total = sum(counts.values())
    summary = ", ".join(f"{count:,} {kinds[bit]}" for bit, count in counts.items() if count)
    named = [
        f"{labels.location(index)}: {_explain(labels, index, bit, limit)}"
        for index in _first_nonzero(labels.problems, _MAX_LISTED)
        for bit in kinds
        if labels.problems[index] & bit
    ][:_MAX_LISTED]
    rest = f"; and {total - len(named):,} more" if total > len(named) else ""
    return f"label list {labels.file!r}: {total:,} problem(s), lines {summary}: " + "; ".join(named) + rest


def _first_nonzero(values: np.ndarray, most: int) -> list[int]:
    """The indices of the first values that are not 0, at most so many."""
    found: list[int] = []
    for first in range(0, len(values), _CHUNK_LINES):
        found += (first + np.flatnonzero(values[first : first + _CHUNK_LINES])[:most]).tolist()
        if len(found) >= most:
            break
    return found[:most]


def _explain(labels: LabelList, index: int, bit: int, limit: str) -> str:
    if bit == NO_LABEL:
        return f"{labels.line_text(index)} has no label, the line must be 'path<TAB>label'"
    if bit == NOT_INTEGER:
        return f"the label in {labels.line_text(index)} is not an integer"
    if bit == OUT_OF_RANGE:
        return f"the label in {labels.line_text(index)} is not in {limit}"
    return f"image {printable(labels.path(index))} is missing"
