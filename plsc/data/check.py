"""Is the label list fit for training? Asked before anything is read, answered with everything that is wrong."""

from __future__ import annotations

import array
import os

import numpy as np

from plsc.data.label_list import NO_FILE, NO_LABEL, NOT_INTEGER, OUT_OF_RANGE, LabelList, printable, read_label_list
from plsc.errors import DataError

_NAMED = 10  # problems that the message names; the others are counted


def check_label_list(
    root: str | os.PathLike, label_file: str | os.PathLike, num_classes: int, check_files: bool = True
) -> LabelList:
    """Read the list and check it: there, not empty, every line a path and a label, labels integers in [0, num_classes).

    check_files: also look whether every picture exists (one directory listing per directory, not one question per
    file). Raises one DataError with the number of problems of each kind and the first ten by file and line.
    """
    labels = read_label_list(os.path.join(os.fspath(root), os.fspath(label_file)), num_classes)
    if check_files:
        labels.problems[_missing(os.fsencode(root), labels)] |= NO_FILE
    if labels.problems.any():
        raise DataError(_message(labels))
    return labels


def _missing(root: bytes, labels: LabelList) -> np.ndarray:
    """Indices of the lines whose picture is not there."""
    by_directory: dict[bytes, array.array] = {}
    for index in np.flatnonzero((labels.problems & NO_LABEL) == 0):
        directory = os.path.dirname(labels.path(index))
        by_directory.setdefault(directory, array.array("q")).append(index)
    missing = array.array("q")
    for directory, indices in by_directory.items():
        present = _files(os.path.join(root, directory))
        for index in indices:
            path = labels.path(index)
            if present is None:
                there = os.path.isfile(os.path.join(root, path))
            else:
                there = os.path.basename(path) in present
            if not there:
                missing.append(index)
    return np.array(missing, dtype=np.int64)


def _files(directory: bytes) -> set[bytes] | None:
    """Names of the files in a directory, empty where there is none; None where it may be entered but not listed."""
    try:
        with os.scandir(directory) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except PermissionError:
        return None
    except (OSError, ValueError):  # ValueError: a zero byte in the name
        return set()


def _message(labels: LabelList) -> str:
    limit = f"0..{labels.num_classes - 1}"
    kinds = {
        NO_LABEL: "without a label",
        NOT_INTEGER: "with a label that is no integer",
        OUT_OF_RANGE: f"with a label outside {limit} (set by classifier.num_classes={labels.num_classes})",
        NO_FILE: "whose picture is missing",
    }
    counts = {bit: int(np.count_nonzero(labels.problems & bit)) for bit in kinds}
    total = sum(counts.values())
    summary = ", ".join(f"{count} {kinds[bit]}" for bit, count in counts.items() if count)
    named = [
        f"{labels.place(index)}: {_explain(labels, index, bit, limit)}"
        for index in np.flatnonzero(labels.problems)[:_NAMED]
        for bit in kinds
        if labels.problems[index] & bit
    ][:_NAMED]
    rest = f"; and {total - len(named)} more" if total > len(named) else ""
    return f"label list {labels.file!r}: {total} problem(s), lines {summary}: " + "; ".join(named) + rest


def _explain(labels: LabelList, index: int, bit: int, limit: str) -> str:
    if bit == NO_LABEL:
        return f"{labels.text(index)} has no label, the line must be 'path<TAB>label'"
    if bit == NOT_INTEGER:
        return f"the label in {labels.text(index)} is no integer"
    if bit == OUT_OF_RANGE:
        return f"the label in {labels.text(index)} is not in {limit}"
    return f"picture {printable(labels.path(index))} is missing"
