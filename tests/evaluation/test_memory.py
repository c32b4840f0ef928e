"""Verification holds one set at a time and no more than a few blocks beside its embeddings."""

from __future__ import annotations

import tracemalloc
import weakref

import numpy as np
import pytest

from plsc.evaluation.embeddings import ROWS, combine_flip, normalize
from plsc.evaluation.verification import pair_distances, verify

PAIRS, SIZE = 12 * ROWS + 7, 128  # the last block is not full


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)
    plain, mirrored = rng.normal(size=(2, 2 * PAIRS, SIZE)).astype(np.float32)
    plain[2 * ROWS - 1] = mirrored[2 * ROWS - 1] = 0  # at the end of a block
    return plain, mirrored


def test_the_peak_is_one_array_and_blocks(features):
    whole, block = 8 * 2 * PAIRS * SIZE, 8 * ROWS * SIZE  # float64
    tracemalloc.start()
    embeddings, xnorm = combine_flip(*features)
    verify(embeddings, np.arange(PAIRS) % 2 == 0, xnorm=xnorm)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # 8 blocks for temporaries; the scores' sorts and curve, some dozens of numbers a pair, are less than 64 a pair
    assert whole < peak < whole + 8 * block + 64 * 8 * PAIRS < 2 * whole


def test_blocks_change_nothing(features):
    """Against the formula over all rows at once; float64 sums of 64 numbers: 1e-13."""
    plain, mirrored = (part.astype(np.float64) for part in features)
    total = plain + mirrored
    length = np.linalg.norm(total, axis=1, keepdims=True)
    units = total / np.where(length > 0, length, 1)
    combined = combine_flip(*features)[0]
    assert np.abs(combined - units).max() < 1e-13 and np.abs(normalize(total) - units).max() < 1e-13
    distance = np.square(units[0::2] - units[1::2]).sum(axis=1)
    distance[ROWS - 1] = 2  # the zero embedding
    assert np.abs(pair_distances(combined) - distance).max() < 1e-13


def test_a_set_is_gone_before_the_next_is_read(monkeypatch):
    from plsc.config import Config
    from plsc.config.user_objects import UserObjects
    from plsc.engine.evaluation import evaluate
    from plsc.evaluation.bin_file import PairSet

    alive = []

    class Embedder:
        def embed(self, read, count, flip):
            rows = np.random.default_rng(0).normal(size=(count, 4))
            alive.append(weakref.ref(rows))
            return rows, rows

    def sets(config, parts, kinds):
        for name in ("a", "b", "c"):
            assert [ref() for ref in alive] == [None] * len(alive)
            pairs = PairSet(name, [b"x"] * 40, np.arange(20) % 2 == 0)
            alive.append(weakref.ref(pairs))
            yield pairs
            del pairs

    monkeypatch.setattr(evaluate, "verification_sets", sets)
    assert list(evaluate.verify_all(Config(), UserObjects(), Embedder())) == ["a", "b", "c"]
