"""Pairs of items with equal keys, among which similar items are looked for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

MOST_NEIGHBOURS = 64  # with an equal key, in sorted order, that each item is paired with
_CHUNK = 1 << 20  # pairs at a time


def equal_pairs(keys: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of indices (one, other) with equal ``keys`` [n], a chunk at a time; see ``crowded``."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    for distance in range(1, MOST_NEIGHBOURS + 1):
        equal = np.flatnonzero(ordered[distance:] == ordered[:-distance])
        if not len(equal):
            return
        for first in range(0, len(equal), _CHUNK):
            here = equal[first : first + _CHUNK]
            yield order[here], order[here + distance]


def crowded(keys: np.ndarray) -> bool:
    """Whether more items have an equal key than each is paired with, so that ``equal_pairs`` leaves some out."""
    ordered, distance = np.sort(keys), MOST_NEIGHBOURS + 1
    return bool((ordered[distance:] == ordered[:-distance]).any())
