"""MegaFace's protocol against a plain loop over probes, mates and distractors."""

from __future__ import annotations

import numpy as np
import pytest

from plsc.errors import ConfigError, DataError
from plsc.evaluation.identification import identify
from plsc.evaluation.megaface import megaface


def case(seed, probes=25, mates=20, distractors=12, size=5):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(6, size))
    probe_id, mate_id = rng.integers(0, 6, probes), rng.integers(0, 5, mates)
    rows = centres[np.append(probe_id, mate_id)] + 0.8 * rng.normal(size=(probes + mates, size))
    rows *= rng.uniform(0.1, 9, (probes + mates, 1))
    return rows[:probes], probe_id, rng.normal(size=(distractors, size)), rows[probes:], mate_id


def cosine(a, b):
    return float(a @ b / np.sqrt(a @ a) / np.sqrt(b @ b))


def loop(probes, probe_id, distractors, mates, mate_id, ranks):
    places = []
    for i, probe in enumerate(probes):
        for j, mate in enumerate(probes if mates is None else mates):
            if (probe_id if mates is None else mate_id)[j] == probe_id[i] and not (mates is None and i == j):
                nearer = sum(cosine(probe, row) >= cosine(probe, mate) for row in distractors)
                places.append(1 + nearer)
    return {rank: sum(place <= rank for place in places) / len(places) for rank in ranks}, len(places)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("block", [1, 100, 1 << 22])
@pytest.mark.parametrize("own", [True, False])
def test_against_a_loop(seed, block, own):
    probes, probe_id, distractors, mates, mate_id = case(seed)
    given = (None, None) if own else (mates, mate_id)
    ranks = (1, 3, 12, 13)  # all distractors, and more than there are
    rates, trials = megaface(probes, probe_id, distractors, *given, ranks=ranks, block=block)
    expected, count = loop(probes, probe_id, distractors, *given, ranks)
    assert trials == count > 40 and rates == pytest.approx(expected, abs=1e-12)  # shares of equal counts
    assert 0 < rates[1] < rates[3] < rates[13] == 1


def test_it_counts_every_mate_where_identify_takes_the_nearest():
    probe, near, far, stranger = np.eye(3)[:1], [[1.0, 0.1, 0]], [[0.2, 1.0, 0]], [[1.0, 0, 1.0]]
    mates = np.concatenate([near, far])
    assert megaface(probe, [0], np.array(stranger), mates, [0, 0], ranks=(1,)) == ({1: 0.5}, 2)
    assert identify(mates, [0, 0], probe, [0], np.array(stranger), ranks=(1,)).rank_rate == {1: 1.0}


def test_equal_similarity_counts_against_the_probe():
    row = np.array([[1.0, 2.0]])
    assert megaface(row, [7], row, row, [7], ranks=(1, 2))[0] == {1: 0.0, 2: 1.0}


def test_what_it_cannot_say_and_what_it_refuses():
    rows = np.eye(3)
    assert megaface(rows, [0, 1, 2], rows, ranks=(1,)) == ({1: None}, 0)
    with pytest.raises(ConfigError, match="ranks"):
        megaface(rows, [0, 1, 2], rows, ranks=(0,))
    with pytest.raises(DataError, match="distractors not empty"):
        megaface(rows, [0, 1, 2], rows[:0])
    with pytest.raises(DataError, match="embedding sizes must be equal"):
        megaface(rows, [0, 1, 2], rows[:, :2])
    with pytest.raises(DataError, match="mates: identities"):
        megaface(rows, [0, 1, 2], rows, rows, [0])
