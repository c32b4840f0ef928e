"""Columns that are sorted in place are those that NumPy sorts, with little memory beside them."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from plsc.data.containers import ordering
from plsc.data.containers.ordering import is_sorted, keep, sort_by

BLOCK = 10_000
COUNT = 3 * BLOCK + 5


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(ordering, "_BLOCK", BLOCK)


def columns(keys: np.ndarray) -> list[np.ndarray]:
    """Positions, sizes and labels that tell their row."""
    row = np.arange(len(keys))
    return [row * 10**10 + 7, row.astype(np.uint32), -row.astype(np.int32)]


@pytest.mark.parametrize("kind", ["packed", "largest packed", "above 32 bits", "negative", "equal", "sorted", "few"])
def test_rows_stay_together(kind):
    rng = np.random.default_rng(1)
    keys = rng.permutation(COUNT).astype(np.int64)
    if kind == "few":
        keys = keys[:2][::-1].copy()
    keys += {"largest packed": 2**32 - COUNT, "above 32 bits": 2**40, "negative": -9}.get(kind, 0)
    keys = {"equal": keys // 3, "sorted": np.sort(keys)}.get(kind, keys)
    given, found = keys.copy(), columns(keys)
    sort_by(keys, *found)
    assert np.array_equal(keys, np.sort(given))
    assert np.array_equal(given[found[1]], keys), "rows moved with their keys"
    assert all(np.array_equal(each, all_rows[found[1]]) for each, all_rows in zip(found, columns(given)))


def test_sorting_takes_four_bytes_a_row():
    """Beside the columns: one array of 4 bytes a row, and blocks. A copy of a column of 8 bytes is seen."""
    keys = np.random.default_rng(1).permutation(COUNT).astype(np.int64)
    given = columns(keys)
    tracemalloc.start()
    sort_by(keys, *given)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 4 * COUNT < peak < 4 * COUNT + 20 * BLOCK


def test_rows_that_are_kept():
    mask = np.random.default_rng(1).random(COUNT) < 0.5
    mask[: BLOCK] = True  # nothing moves in the first block
    given = columns(mask)
    expected = [each[mask] for each in given]
    found = keep(given, mask)
    assert all(np.array_equal(*pair) for pair in zip(found, expected)) and np.shares_memory(found[0], given[0])


@pytest.mark.parametrize("place", [1, BLOCK, BLOCK + 1, COUNT - 1])
def test_what_is_sorted(place):
    """Also where one block ends and the next begins."""
    keys = np.arange(COUNT)
    assert is_sorted(keys) and is_sorted(keys, strictly=True) and is_sorted(keys[:0])
    keys[place] = keys[place - 1]
    assert is_sorted(keys) and not is_sorted(keys, strictly=True)
    keys[place] -= 1
    assert not is_sorted(keys)
