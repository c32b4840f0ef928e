"""Identification against a loop over probes and gallery entries."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from plsc.errors import ConfigError, DataError
from plsc.evaluation.identification import identify


def _case(seed, gallery=30, probes=60, distractors=50, size=6):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(25, size))
    gallery_id, probe_id = rng.integers(0, 18, gallery), rng.integers(0, 25, probes)  # 18..24 are never enrolled
    noise = 0.7 * rng.normal(size=(gallery + probes, size))
    embeddings = (centres[np.append(gallery_id, probe_id)] + noise) * rng.uniform(0.1, 9, (gallery + probes, 1))
    return embeddings[:gallery], gallery_id, embeddings[gallery:], probe_id, rng.normal(size=(distractors, size))


def _cosine(a, b):
    return float(a @ b / np.sqrt(a @ a) / np.sqrt(b @ b))


def _loop(gallery, gallery_id, probes, probe_id, distractors, ranks, fpirs):
    mated, unmated_top = [], []
    for probe, identity in zip(probes, probe_id):
        entries = [(_cosine(probe, row), bool(i == identity)) for row, i in zip(gallery, gallery_id)]
        entries += [(_cosine(probe, row), False) for row in distractors]
        entries.sort(reverse=True)
        owns = [place for place, (_, own) in enumerate(entries, 1) if own]
        if owns:
            # places of others only: one's own entries do not push each other down
            mated.append((owns[0], entries[owns[0] - 1][0]))
        else:
            unmated_top.append(entries[0][0])
    rate = {rank: sum(place <= rank for place, _ in mated) / len(mated) for rank in ranks}
    tpir = {}
    for fpir in fpirs:
        best = None
        for threshold in [*unmated_top, *(score for _, score in mated)]:
            if len(unmated_top) * fpir >= 1 and sum(top >= threshold for top in unmated_top) <= fpir * len(unmated_top):
                hit = sum(place == 1 and score >= threshold for place, score in mated) / len(mated)
                best = hit if best is None else max(best, hit)
        tpir[fpir] = best
    return rate, tpir, len(mated), len(unmated_top)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("block", [1, 200, 1 << 22])
def test_against_a_loop(seed, block):
    case, ranks, fpirs = _case(seed), (1, 2, 5, 80), (0.5, 0.3, 0.1, 0.01)
    found = identify(*case, ranks=ranks, fpirs=fpirs, block=block)
    rate, tpir, num_mated, num_unmated = _loop(*case, ranks, fpirs)
    assert (found.num_mated, found.num_unmated) == (num_mated, num_unmated) and num_unmated >= 5
    assert found.rank_rate == pytest.approx(rate, abs=1e-12)  # shares of equal counts
    assert {f: t for f, t in found.tpir_at_fpir.items() if t is not None} == pytest.approx(
        {f: t for f, t in tpir.items() if t is not None}, abs=1e-12
    )
    assert found.tpir_at_fpir[0.01] is None and tpir[0.01] is None
    assert 0.05 < rate[1] < rate[5] < 1  # else the case shows nothing


def test_float32_and_no_distractors():
    gallery, gallery_id, probes, probe_id, _ = _case(9)
    wide = identify(gallery, gallery_id, probes, probe_id)
    narrow = identify(gallery.astype("f"), gallery_id, probes.astype("f"), probe_id, np.zeros((0, 6), "f"))
    assert wide == narrow
    rate, _, _, _ = _loop(gallery, gallery_id, probes, probe_id, [], (1, 5, 10), ())
    assert wide.rank_rate == pytest.approx(rate, abs=1e-12)


def test_equal_similarities_and_zero_embeddings_count_against_the_probe():
    same = np.ones((4, 2))
    assert identify(same, [0, 1, 2, 3], same[:1], [0], ranks=(1, 3, 4)).rank_rate == {1: 0.0, 3: 0.0, 4: 1.0}
    zero = identify(np.eye(2), [0, 1], np.zeros((1, 2)), [0], distractors=np.eye(2), ranks=(3, 4))
    assert zero.rank_rate == {3: 0.0, 4: 1.0}


def test_nobody_or_everybody_known():
    eye = np.eye(3)
    strangers = identify(eye, [0, 1, 2], eye, [7, 8, 9], fpirs=(0.5,))
    assert (strangers.rank_rate[1], strangers.tpir_at_fpir, strangers.num_unmated) == (None, {0.5: None}, 3)
    known = identify(eye, [0, 1, 2], eye, [0, 1, 2], fpirs=(0.5,))
    assert (known.rank_rate[1], known.tpir_at_fpir) == (1.0, {0.5: None})
    assert identify(eye, [0, 1, 2], eye[:0], []).rank_rate[1] is None


def test_memory_is_that_of_the_block():
    """2000 x 20000 similarities are 160 MB in float32; blocks of 200,000 with their few helpers stay far below."""
    rng = np.random.default_rng(0)
    gallery, probes = rng.normal(size=(20000, 4)).astype("f"), rng.normal(size=(2000, 4)).astype("f")
    tracemalloc.start()
    identify(gallery, np.arange(20000), probes, np.arange(2000), block=200_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16e6


def test_wrong_input():
    gallery, gallery_id, probes, probe_id, distractors = _case(0)
    with pytest.raises(DataError, match="gallery: identities are int64"):
        identify(gallery, gallery_id[:-1], probes, probe_id)
    with pytest.raises(DataError, match="probes: identities are float64"):
        identify(gallery, gallery_id, probes, probe_id + 0.5)
    with pytest.raises(DataError, match="embedding sizes must be equal"):
        identify(gallery, gallery_id, probes, probe_id, distractors[:, :5])
    with pytest.raises(DataError, match="gallery not empty"):
        identify(gallery[:0], [], probes, probe_id)
    with pytest.raises(DataError, match="distractors: 1 of 50 are not finite"):
        identify(gallery, gallery_id, probes, probe_id, np.where(distractors == distractors[4, 4], np.nan, distractors))
    for wrong in ({"ranks": (0,)}, {"fpirs": (0.0,)}, {"fpirs": (1.0,)}):
        with pytest.raises(ConfigError, match="identification"):
            identify(gallery, gallery_id, probes, probe_id, **wrong)
