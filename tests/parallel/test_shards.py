"""Which rank owns which class, against a plain loop over every small case."""

from __future__ import annotations

import math

import numpy as np
import pytest

from plsc.errors import ConfigError
from plsc.parallel.shards import class_range, num_local, overlaps, owner

MAX_CLASSES, MAX_RANKS = 41, 12


def dealt_out(num_classes: int, world_size: int) -> list[list[int]]:
    """The oracle: hand out the class ids one by one, ceil(C/N) to each rank in turn."""
    per_rank = math.ceil(num_classes / world_size)
    hands: list[list[int]] = [[] for _ in range(world_size)]
    for class_id in range(num_classes):
        hands[class_id // per_rank].append(class_id)
    return hands


CASES = [(c, n) for c in range(1, MAX_CLASSES) for n in range(1, MAX_RANKS)]
GOOD = [(c, n) for c, n in CASES if all(dealt_out(c, n))]
BAD = [(c, n) for c, n in CASES if not all(dealt_out(c, n))]


def test_every_split_equals_dealing_out():
    for num_classes, world_size in GOOD:
        for rank, hand in enumerate(dealt_out(num_classes, world_size)):
            first, last = class_range(num_classes, rank, world_size)
            assert list(range(first, last)) == hand, (num_classes, rank, world_size)
            assert num_local(num_classes, rank, world_size) == len(hand)
            assert [owner(c, num_classes, world_size) for c in hand] == [rank] * len(hand)


def test_every_split_with_an_empty_rank_is_refused_on_every_rank():
    assert (9, 4) in BAD and (9, 5) in GOOD
    for num_classes, world_size in BAD:
        works = max(n for n in range(1, world_size) if all(dealt_out(num_classes, n)))
        for rank in range(world_size):
            with pytest.raises(ConfigError) as error:
                class_range(num_classes, rank, world_size)
            text = str(error.value)
            assert f"num_classes {num_classes} " in text and f"world_size {world_size}:" in text
            assert f"use world_size {works}," in text


@pytest.mark.parametrize("num_classes, world_size", [(9, 4), (49, 8), (225, 16)])
def test_the_largest_bad_class_counts_that_are_known(num_classes, world_size):
    with pytest.raises(ConfigError):
        class_range(num_classes, 0, world_size)
    for more in range(num_classes + 1, num_classes + 200):
        class_range(more, 0, world_size)


def test_overlaps_equal_a_loop_over_classes():
    for num_classes, world_size in [(c, n) for c, n in GOOD if c <= 14]:
        for first in range(num_classes + 1):
            for last in range(first, num_classes + 1):
                pieces = overlaps(num_classes, world_size, first, last)
                found = [(rank, c) for rank, a, b in pieces for c in range(a, b)]
                assert found == [(owner(c, num_classes, world_size), c) for c in range(first, last)]
                assert all(a < b for _, a, b in pieces)
                assert len({rank for rank, _, _ in pieces}) == len(pieces)


def test_large_counts_cost_nothing():
    assert class_range(92_000_000, 7, 8) == (80_500_000, 92_000_000)
    with pytest.raises(ConfigError, match="use world_size 10,"):
        class_range(10, 0, 10**9)


def test_numpy_integers_are_integers():
    assert class_range(np.int64(10), np.int32(3), np.int64(4)) == (9, 10)


@pytest.mark.parametrize("args", [(0, 0, 1), (-1, 0, 1), (4, 0, 0), (4, -1, 2), (4, 2, 2), (4, 0, True), ("4", 0, 1)])
def test_values_out_of_range(args):
    with pytest.raises(ConfigError):
        class_range(*args)


@pytest.mark.parametrize("class_id", [-1, 4, 1.0])
def test_owner_of_no_class(class_id):
    with pytest.raises(ConfigError, match="class_id"):
        owner(class_id, 4, 2)


@pytest.mark.parametrize("first, last", [(-1, 2), (2, 1), (0, 5), (5, 5)])
def test_overlaps_out_of_range(first, last):
    with pytest.raises(ConfigError, match="first|last"):
        overlaps(4, 2, first, last)
