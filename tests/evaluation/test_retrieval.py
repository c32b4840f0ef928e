"""Retrieval against a loop over queries and gallery in float64: ties, lone images, distractors, blocks."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

from plsc.errors import ConfigError, DataError
from plsc.evaluation.metric import DISTRACTOR
from plsc.evaluation.retrieval import Retrieval, retrieve

KS = (1, 2, 5, 40)


def cosine(a, b) -> float:
    lengths = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return math.fsum(x * y for x, y in zip(a, b)) / lengths if lengths else 0.0


def loop(gallery, gallery_id, queries=None, query_id=None, ks=KS) -> Retrieval:
    """The definitions, one query after the other."""
    within = queries is None
    if within:
        queries, query_id = gallery, gallery_id
    recall, precision, average, lone = {k: [] for k in ks}, [], [], 0
    for number, (query, identity) in enumerate(zip(queries, query_id)):
        if identity == DISTRACTOR:
            continue
        entries = [pair for at, pair in enumerate(zip(gallery, gallery_id)) if not (within and at == number)]
        # nearest first; of equal ones (in twelve digits) those of others first
        found = sorted((-round(cosine(query, row), 12), bool(other == identity)) for row, other in entries)
        own = [is_own for _, is_own in found]
        references = sum(own)
        if not references:
            lone += 1
            continue
        for k in ks:
            recall[k].append(any(own[:k]))
        precision.append(sum(own[:references]) / references)
        at_place = [sum(own[:i]) / i if own[i - 1] else 0.0 for i in range(1, references + 1)]
        average.append(sum(at_place) / references)
    if not precision:
        return Retrieval(dict.fromkeys(ks), None, None, None, 0, lone, len(gallery))
    share = {k: sum(values) / len(values) for k, values in recall.items()}
    mean = sum(precision) / len(precision), sum(average) / len(average)
    return Retrieval(share, share[1], *mean, len(precision), lone, len(gallery))


def case(kind: str):
    """(gallery, identities, queries or None, their identities or None)."""
    rng = np.random.default_rng(sum(map(ord, kind)))
    ids = rng.integers(0, 12, 70)
    centres = rng.standard_normal((12, 5))
    rows = centres[ids] + rng.standard_normal((70, 5))
    rows *= rng.uniform(0.1, 9, (70, 1))
    if kind == "distractors":
        ids[rng.random(70) < 0.3] = DISTRACTOR
    if kind == "lone":
        ids = np.where(ids < 6, ids, 100 + np.arange(70))
    if kind == "ties":  # of few directions, many rows the same, some zero: most cosines are equal to others
        rows = rng.integers(-1, 2, (70, 3)).astype(float)
    if kind == "nobody":
        ids = np.arange(70)
    if kind == "one identity":
        ids = np.zeros(70, int)
    if kind == "queries":
        return rows[:50], ids[:50], rows[50:], np.where(np.arange(20) < 3, 77, ids[50:])
    return rows, ids, None, None


KINDS = ("plain", "distractors", "lone", "ties", "nobody", "one identity", "queries")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block", [1, 200, 1 << 24])
def test_against_a_loop(kind, block):
    gallery, ids, queries, query_id = case(kind)
    found, expected = retrieve(gallery, ids, queries, query_id, KS, block), loop(gallery, ids, queries, query_id)
    assert found.recall == pytest.approx(expected.recall, abs=1e-12)  # means of the same shares, summed otherwise
    for name in ("precision_at_1", "r_precision", "map_at_r"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=1e-12)
    assert (found.num_queries, found.num_lone, found.num_gallery) == (
        expected.num_queries, expected.num_lone, expected.num_gallery)  # fmt: skip
    if kind == "nobody":
        assert found.map_at_r is None and found.num_queries == 0
    elif kind != "one identity":  # the case says something
        assert 0.01 < expected.map_at_r < expected.r_precision < expected.recall[5] < 1
        assert found.precision_at_1 == found.recall[1]


@pytest.mark.parametrize("kind", ["plain", "ties", "queries"])
def test_the_ks_matter_to_recall_only(kind):
    """Of other images no more than needed are looked at: as many as there are references, or as the largest k."""
    gallery, ids, queries, query_id = case(kind)
    few, many = (retrieve(gallery, ids, queries, query_id, ks) for ks in ((1,), (1, 60)))
    assert (few.r_precision, few.map_at_r, few.recall[1]) == (many.r_precision, many.map_at_r, many.recall[1])


@pytest.mark.parametrize("right, r_precision, map_at_r", [
    ([1], 0.1, 0.1), ([1, 10], 0.2, 0.12), ([1, 2], 0.2, 0.2), (range(1, 11), 1.0, 1.0), ([2, 10], 0.2, 0.07),
    ([11, 12], 0.0, 0.0),
])  # fmt: skip
def test_the_examples_of_the_paper(right, r_precision, map_at_r):
    """Ten references, of which those at the places ``right`` are near; the first four are Musgrave's (table 2)."""
    places = [*right, *range(100, 110 - len(right))]
    identity = [int(place in places) for place in range(1, 120)]
    angles = np.arange(1, 120) / 100
    gallery = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    found = retrieve(gallery, identity, np.array([[1.0, 0.0]]), [1])
    assert (found.r_precision, found.map_at_r) == (pytest.approx(r_precision), pytest.approx(map_at_r))
    assert found.recall[1] == float(1 in right)


def test_an_equal_cosine_counts_against_the_query():
    same = np.ones((6, 4)) / 3
    found = retrieve(same, [0, 0, 1, 1, 2, 2], ks=(1, 4, 5))
    assert found.recall == {1: 0.0, 4: 0.0, 5: 1.0} and found.map_at_r == 0.0


def test_the_same_numbers_for_any_block():
    """Copies of an image are exactly as near as each other, wherever they lie in a block: with cosines as a matrix
    product rounds them, precision@1 is 0.0098, 0.0049, 0 and 0 here (OpenBLAS on AVX2)."""
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((41, 48)).astype(np.float32)
    gallery = np.concatenate([rows] * 5)  # each image five times, under two identities
    ids = np.concatenate([np.arange(41)] * 2 + [np.arange(41, 82)] * 3)
    found = {block: retrieve(gallery, ids, block=block) for block in (1, 7 * 205, 31 * 205, 1 << 24)}
    assert len(set(map(str, found.values()))) == 1
    assert found[1].precision_at_1 == 0.0  # a copy of the other identity is as near


def test_memory_is_that_of_blocks():
    rng = np.random.default_rng(0)
    rows, ids = rng.standard_normal((4000, 8)).astype(np.float32), rng.integers(0, 900, 4000)
    tracemalloc.start()
    try:
        retrieve(rows, ids, block=1 << 18)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # block 2 MB, twice; the gallery and its copies 0.3 MB each; all similarities would be 128 MB
    assert peak < 8e6


@pytest.mark.parametrize("arguments, keywords, message", [
    ((np.ones((2, 2)), [0]), {}, "identities are int64"),
    ((np.ones((2, 2)), [0, 0.5]), {}, "identities are float64"),
    ((np.array([[1.0, np.nan]]), [0]), {}, "not finite"),
    ((np.ones((2, 2)), [0, 0], np.ones((1, 3)), [0]), {}, "embedding sizes must be equal"),
    ((np.ones((2, 2)), [0, 0], np.ones((1, 2)), [-1]), {}, "no query may be a distractor"),
    ((np.ones((2, 2)), [0, 0], np.ones((1, 2))), {}, "expected one integer for each"),
    ((np.ones((2, 2)), [0, 0]), {"ks": (0,)}, "a list of integers of at least 1"),
    ((np.ones((2, 2)), [0, 0]), {"ks": ()}, "a list of integers"),
    ((np.ones((2, 2)), [0, 0]), {"ks": 3}, "a list of integers"),
])  # fmt: skip
def test_what_cannot_be_searched_is_refused(arguments, keywords, message):
    with pytest.raises((DataError, ConfigError), match=message):
        retrieve(*arguments, **keywords)
