"""Sorts columns of many millions of numbers in place, with 4 bytes of further memory per row at most."""

from __future__ import annotations

import numpy as np

_BLOCK = 1 << 20  # rows
_PACKED = 1 << 32  # keys and numbers of rows that fit into one uint64


def sort_by(keys: np.ndarray, *columns: np.ndarray) -> None:
    """Sort ``keys`` in ascending order, and the rows of ``columns`` with them, in place.

    keys: int64 [n]. columns: [n], of 4 or 8 bytes a number. All are contiguous. Equal keys come in any order. From
    2**32 rows on, and with keys that are negative or not below 2**32, the order takes 8 bytes per row more.
    """
    if not is_sorted(keys):
        if len(keys) < _PACKED and keys.min() >= 0 and keys.max() < _PACKED:
            order = _sort_packed(keys)
            _reorder(order, columns)
            np.right_shift(keys.view(np.uint64), np.uint64(32), out=keys.view(np.uint64))
        else:
            _reorder(np.argsort(keys), (keys, *columns))


def is_sorted(keys: np.ndarray, strictly: bool = False) -> bool:
    """Whether no number is less than the one before it; strictly: nor equal to it."""
    ends = (keys[first : first + _BLOCK + 1] for first in range(0, len(keys), _BLOCK))
    return all(np.all(some[1:] > some[:-1] if strictly else some[1:] >= some[:-1]) for some in ends)


def keep(columns: list[np.ndarray], mask: np.ndarray) -> list[np.ndarray]:
    """The rows of the columns where ``mask`` is true, in the memory of the columns, whose contents are lost."""
    kept = 0
    for first in range(0, len(mask), _BLOCK):
        here = mask[first : first + _BLOCK]
        count = int(np.count_nonzero(here))
        for column in columns:
            column[kept : kept + count] = column[first : first + _BLOCK][here]
        kept += count
    return [column[:kept] for column in columns]


def _sort_packed(keys: np.ndarray) -> np.ndarray:
    """Replace the keys by key * 2**32 + number of the row, sorted; returns these numbers, uint32, in their memory."""
    packed = keys.view(np.uint64)
    packed <<= np.uint64(32)
    for first in range(0, len(packed), _BLOCK):
        some = packed[first : first + _BLOCK]
        some |= np.arange(first, first + len(some), dtype=np.uint64)
    packed.sort()
    low = 0 if np.little_endian else 1
    return packed.view(np.uint32)[low::2]


def _reorder(order: np.ndarray, columns: tuple[np.ndarray, ...]) -> None:
    """Put row order[i] of the columns at i, four bytes of each number at a time."""
    moved = np.empty(len(order), np.uint32)
    for column in columns:
        parts = column.itemsize // moved.itemsize
        for part in range(parts):
            words = column.view(np.uint32)[part::parts]
            for first in range(0, len(order), _BLOCK):
                moved[first : first + _BLOCK] = words[order[first : first + _BLOCK]]
            words[:] = moved
