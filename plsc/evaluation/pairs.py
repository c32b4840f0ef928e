"""Pairs of a folder of identities, drawn without repetition, the same on every machine."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

import numpy as np

from plsc.errors import ConfigError, DataError


def choose_pairs(sizes: Sequence[int], num_pairs: int, folds: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw num_pairs = P distinct pairs: (images int64 [P, 2], issame bool [P]), in folds as in LFW.

    sizes: number of images of each identity; images are numbered consecutively, identity by identity. Every fold has
    P / folds pairs, the first half of them "same". All possible pairs of a kind are equally likely, so an identity with
    many images is in many same pairs; an image may be in several pairs. The draw uses Philox's raw stream, which does
    not change between versions of NumPy.

    Raises ConfigError if num_pairs is not a multiple of 2 * folds, for folds < 2 and a seed outside [0, 2^64);
    DataError, with the largest possible number, if there are not so many distinct pairs.
    """
    _check(num_pairs, folds, seed)
    same_before, other_before = _count_pairs_before(sizes)
    half = num_pairs // 2
    if min(same_before[-1], other_before[-1]) < half:
        raise DataError(
            f"{num_pairs} pairs: {half} of each kind are needed, the {len(sizes)} identities give {same_before[-1]} "
            f"distinct pairs of one identity and {other_before[-1]} of two; at most {max_pairs(sizes, folds)} pairs "
            f"in {folds} folds"
        )
    first = [0]
    for size in sizes:
        first.append(first[-1] + size)
    draw = _Draw(seed)
    same = [_same_pair(index, same_before, first) for index in draw.distinct(same_before[-1], half)]
    other = [_other_pair(index, other_before, first) for index in draw.distinct(other_before[-1], half)]
    per_fold = half // folds
    shape = (folds, per_fold, 2)
    images = np.concatenate([np.reshape(same, shape), np.reshape(other, shape)], axis=1)
    issame = np.tile(np.arange(2 * per_fold) < per_fold, folds)
    return images.reshape(num_pairs, 2).astype(np.int64), issame


def max_pairs(sizes: Sequence[int], folds: int) -> int:
    """The largest number of pairs that `choose_pairs` can draw; 0 if a fold cannot have one pair of each kind."""
    same_before, other_before = _count_pairs_before(sizes)
    return 2 * folds * (min(same_before[-1], other_before[-1]) // folds)


def _check(num_pairs: int, folds: int, seed: int) -> None:
    if folds < 2:
        raise ConfigError(f"folds: {folds}; at least 2 are needed, as each threshold is chosen on the other folds")
    if num_pairs < 2 * folds or num_pairs % (2 * folds):
        near = max(1, round(num_pairs / (2 * folds))) * 2 * folds
        raise ConfigError(
            f"pairs: {num_pairs}; a multiple of {2 * folds} is needed, so that each of {folds} folds is half same, "
            f"half different, such as {near}"
        )
    if not 0 <= seed < 1 << 64:
        raise ConfigError(f"seed: {seed}; allowed: 0 to 2^64 - 1")


def _count_pairs_before(sizes: Sequence[int]) -> tuple[list[int], list[int]]:
    """Numbers of same and of different pairs before each identity; the last entries are the totals."""
    same, other, images = [0], [0], 0
    for size in sizes:
        same.append(same[-1] + size * (size - 1) // 2)
        other.append(other[-1] + size * images)
        images += size
    return same, other


def _same_pair(index: int, before: list[int], first: list[int]) -> tuple[int, int]:
    identity = bisect.bisect_right(before, index) - 1
    rest = index - before[identity]
    b = (1 + math.isqrt(1 + 8 * rest)) // 2  # pairs (a, b) with a < b, in the order of b, then a
    return first[identity] + rest - b * (b - 1) // 2, first[identity] + b


def _other_pair(index: int, before: list[int], first: list[int]) -> tuple[int, int]:
    identity = bisect.bisect_right(before, index) - 1
    mine, earlier = divmod(index - before[identity], first[identity])
    return earlier, first[identity] + mine


class _Draw:
    """Random integers from Philox's raw 64-bit stream."""

    def __init__(self, seed: int):
        self._bits = np.random.Philox(key=[seed, 0])

    def below(self, limit: int) -> int:
        """A random integer in [0, limit); uniform up to limit / 2^64."""
        return int(self._bits.random_raw()) * limit >> 64

    def distinct(self, limit: int, count: int) -> list[int]:
        """`count` distinct integers below limit; all choices and orders are equally likely (Floyd; Fisher-Yates)."""
        taken: set[int] = set()
        chosen = []
        for top in range(limit - count, limit):
            number = self.below(top + 1)
            number = top if number in taken else number
            taken.add(number)
            chosen.append(number)
        for last in range(count - 1, 0, -1):
            at = self.below(last + 1)
            chosen[at], chosen[last] = chosen[last], chosen[at]
        return chosen
