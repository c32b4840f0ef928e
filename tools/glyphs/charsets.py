"""The characters, those that become classes, and those of them that are held out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glyphs.draw import PURPOSE_CLASSES, stream
from plsc.errors import DataError

# Classes are drawn in runs of neighbours in Unicode order (same radical, similar number of strokes), so that small sets
# and held-out classes have hard pairs, too.
RUN_LENGTH = 5


def _gb2312(first_row: int, last_row: int) -> list[int]:
    points = []
    for row in range(first_row, last_row + 1):
        for cell in range(0xA1, 0xFF):
            try:
                points.append(ord(bytes([row, cell]).decode("gb2312")))
            except UnicodeDecodeError:  # five cells at the end of level 1 are empty
                continue
    return sorted(points)


def _uro() -> list[int]:
    return list(range(0x4E00, 0x9FA5 + 1))


CHARSETS = {
    "gb2312-1": lambda: _gb2312(0xB0, 0xD7),
    "gb2312": lambda: _gb2312(0xB0, 0xF7),
    "uro": _uro,
    "uro+hangul": lambda: _uro() + list(range(0xAC00, 0xD7A3 + 1)),
}


@dataclass(frozen=True)
class Classes:
    """Code points in Unicode order: `trained[i]` has label i; `unseen` have none. `twins[c]`: share a glyph with c."""

    trained: tuple[int, ...]
    unseen: tuple[int, ...]
    twins: dict[int, frozenset[int]]


def choose_classes(
    points: list[int], num_classes: int, num_held_out: int, seed: int, twins: dict[int, frozenset[int]]
) -> Classes:
    """Draw `num_classes` of `points` in runs of RUN_LENGTH; the first `num_held_out` are held out.

    Raises DataError if there are not enough points.
    """
    if num_classes > len(points):
        raise DataError(
            f"--classes is {num_classes}, but only {len(points)} characters of this --charset are in all "
            f"the fonts chosen: ask for fewer or take a larger --charset"
        )
    runs = [points[start : start + RUN_LENGTH] for start in range(0, len(points), RUN_LENGTH)]
    order = np.argsort(stream(seed, PURPOSE_CLASSES).random(len(runs)), kind="stable")
    drawn = [point for run in order for point in runs[run]][:num_classes]
    return Classes(tuple(sorted(drawn[num_held_out:])), tuple(sorted(drawn[:num_held_out])), twins)


def find_twins(points: list[int], drawn: list[list[bytes]]) -> dict[int, frozenset[int]]:
    """Characters that look the same in at least one face. `drawn[i]` are the digests of `points[i]`, one per face."""
    sharing: dict[tuple[int, bytes], list[int]] = {}
    for point, row in zip(points, drawn):
        for column, digest in enumerate(row):
            sharing.setdefault((column, digest), []).append(point)
    twins: dict[int, set[int]] = {}
    for group in sharing.values():
        for point in group if len(group) > 1 else ():
            twins.setdefault(point, set()).update(other for other in group if other != point)
    return {point: frozenset(others) for point, others in twins.items()}
