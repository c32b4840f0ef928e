"""Verification pairs in ten folds, each half same and half different."""

from __future__ import annotations

import pickle
from dataclasses import dataclass

import numpy as np

from glyphs.draw import PURPOSE_PAIRS, stream
from glyphs.fonts import Face
from plsc.errors import DataError

NUM_FOLDS = 10
# A hard negative is at most this many places away in the Unicode order of the set's own characters.
HARD_REACH = 3
_TRIES = 1000


@dataclass(frozen=True)
class ImageSpec:
    """The arguments of `draw_jpeg` besides seed, purpose and size."""

    face: Face
    point: int
    k: int


class PairChooser:
    """Draws pairs for one verification set.

    points: characters in Unicode order. sides: for the first and the second image of a pair, the designs to draw
    from, each a list of its faces; a design is drawn first, then one of its faces. twins: see charsets.find_twins.
    """

    def __init__(
        self,
        seed: int,
        purpose: int,
        points: tuple[int, ...],
        sides: tuple[list, list],
        twins: dict[int, frozenset[int]],
    ):
        self._random = stream(seed, PURPOSE_PAIRS, point=purpose)
        self._points = points
        self._sides = sides
        self._twins = twins

    def choose(self, num_pairs: int) -> tuple[list[ImageSpec], list[bool]]:
        """2 * num_pairs images, pairs adjacent, and whether each pair is the same character.

        Ten folds one after the other; in each the same pairs come first, then different ones, every second of which
        is a hard negative. num_pairs must be a multiple of 20.
        """
        specs: list[ImageSpec] = []
        is_same: list[bool] = []
        half = num_pairs // (2 * NUM_FOLDS)
        for pair in range(num_pairs):
            position = pair % (2 * half)
            first = self._below(len(self._points))
            second = first if position < half else self._other(first, hard=position % 2 == 0)
            is_same.append(position < half)
            for side, position in enumerate((first, second)):
                specs.append(ImageSpec(self._face(side), self._points[position], 2 * pair + side))
        return specs, is_same

    def _below(self, limit: int) -> int:
        return int(self._random.random() * limit)

    def _face(self, side: int) -> Face:
        designs = self._sides[side]
        faces = designs[self._below(len(designs))]
        return faces[self._below(len(faces))]

    def _other(self, first: int, hard: bool) -> int:
        """The position of a character that is not `first` and shares no glyph with it."""
        count = len(self._points)
        low, high = (max(0, first - HARD_REACH), min(count, first + HARD_REACH + 1)) if hard else (0, count)
        for _ in range(_TRIES):
            second = low + self._below(high - low)
            if second != first and self._points[second] not in self._twins.get(self._points[first], ()):
                return second
        raise DataError(
            f"no different character found to pair with U+{self._points[first]:04X}: "
            f"raise --classes or --held-out-classes"
        )


def bin_bytes(encoded: list[bytes], is_same: list[bool]) -> bytes:
    """The file that insightface's verification reads: a pickle, protocol 2, of (encoded images, same or not)."""
    return pickle.dumps((encoded, [bool(value) for value in np.asarray(is_same)]), protocol=2)
