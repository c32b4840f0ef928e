"""Counts of labels, a block at a time, since NumPy's own functions take memory for copies of all of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_BLOCK = 1 << 20  # labels that are counted at a time


def count_by_class(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The number of labels of each class, int64 [num_classes]; labels that are no class are left out."""
    found = np.zeros(num_classes, np.int64)
    for _, some in _blocks(labels):
        found += np.bincount(some[(some >= 0) & (some < num_classes)], minlength=num_classes)
    return found


def outside(labels: np.ndarray, num_classes: int) -> tuple[int, int]:
    """(how many labels are no class; the index of the first one, -1 if there is none)."""
    count, first = 0, -1
    for start, some in _blocks(labels):
        wrong = np.flatnonzero((some < 0) | (some >= num_classes))
        if len(wrong) and first < 0:
            first = start + int(wrong[0])
        count += len(wrong)
    return count, first


def _blocks(labels: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The labels in blocks, each with the index of its first one."""
    for first in range(0, len(labels), _BLOCK):
        yield first, labels[first : first + _BLOCK]
