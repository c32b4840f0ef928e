"""The findings of `plsc clean`: against plain NumPy in float64, and precision and recall on planted errors."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from plsc.cleaning import classes, labels, similar
from plsc.cleaning.classes import class_means, meetings
from plsc.cleaning.find import Hashes, Limits, Training, UsedLimits, VerificationImages, find, known_identities
from plsc.cleaning.labels import nearest_other, own_cosines
from plsc.cleaning.removal import reasons
from plsc.cleaning.similar import Stacked, similar_limit, similar_pairs
from plsc.cleaning.splits import two_means
from tests.cleaning.planted import CLASSES, SIZE, Planted, planted, precision_recall, unit

EXACT = 2e-6  # float32 sums of 64 products of unit vectors against float64


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks smaller than the data, whose last one is not full."""
    for module in (classes, labels, similar):
        for name, size in (("IMAGES", 97), ("ROWS", 61)):
            monkeypatch.setattr(module, name, size, raising=False)


@pytest.fixture(scope="module")
def data() -> Planted:
    return planted(0)


def training(data: Planted, centres: bool = True, hashes: Hashes | None = None) -> Training:
    count = len(data.labels)
    return Training(data.embeddings, data.labels, CLASSES, data.centres if centres else None,
                    hashes or Hashes.none(count))  # fmt: skip


def test_cosines_with_centres(data, small_blocks):
    cosines = unit(data.embeddings.astype(float)) @ data.centres.astype(float).T
    places = np.arange(len(data.labels)), data.labels
    np.testing.assert_allclose(own_cosines(data.embeddings, data.labels, data.centres), cosines[places], atol=EXACT)
    cosines[places] = -2
    label, cosine = nearest_other(classes.unit(data.embeddings), data.labels, data.centres)
    np.testing.assert_array_equal(label, cosines.argmax(axis=1))
    np.testing.assert_allclose(cosine, cosines.max(axis=1), atol=EXACT)


def plain_means(data: Planted) -> tuple[np.ndarray, float]:
    """(unit means, noise) in float64, class by class."""
    rows, means, noises = unit(data.embeddings.astype(float)), [], []
    for label in range(CLASSES):
        mine = rows[data.labels == label]
        means.append(unit(mine.sum(axis=0)))
        if len(mine) >= 4:
            cosine = unit(mine[::2].sum(axis=0)) @ unit(mine[1::2].sum(axis=0))
            noises.append(len(mine) / 2 * (1 / max(cosine, 1e-3) - 1))
    return np.array(means), float(np.median(noises))


def test_means_and_pairs_of_classes(data, small_blocks):
    means = class_means(data.embeddings, data.labels, CLASSES)
    rows, noise = plain_means(data)
    np.testing.assert_allclose(means.directions, rows, atol=EXACT)
    assert means.noise == pytest.approx(noise, rel=1e-4)
    factor = np.sqrt(1 + noise / np.bincount(data.labels))
    cosine = rows @ rows.T * factor * factor[:, None]
    np.fill_diagonal(cosine, -1)
    found = meetings(means, 0.4)
    wanted = {(a, b) for a, b in itertools.combinations(range(CLASSES), 2) if cosine[a, b] >= 0.4}
    assert {tuple(pair) for pair in found.pairs.tolist()} == wanted and len(wanted) > 10
    np.testing.assert_allclose(found.nearest, cosine.max(axis=1), atol=1e-4)  # of the noise
    assert (np.diff(found.cosines) <= 0).all()


def test_the_estimated_cosine_does_not_depend_on_the_number_of_images():
    """Two directions with the cosine 0.5; means of 2 to 64 images of either. 400 pairs each: within 0.02."""
    draw = np.random.default_rng(1)
    for count in (2, 8, 64):
        one = unit(draw.standard_normal((400, SIZE)))
        other = unit(draw.standard_normal((400, SIZE)))
        other = unit(other - (other * one).sum(axis=1, keepdims=True) * one)
        other = 0.5 * one + np.sqrt(0.75) * other
        identity = np.concatenate([one, other])
        label = np.repeat(np.arange(800), count)
        rows = unit(identity[label] + draw.standard_normal((len(label), SIZE)) / np.sqrt(SIZE))
        means = classes.ClassMeans(*[class_means(rows, label, 800).directions], np.full(800, count), 1.0)
        estimated = (means.corrected(slice(0, 400)) * means.corrected(slice(400, 800))).sum(axis=1)
        assert np.mean(estimated) == pytest.approx(0.5, abs=0.02), count


def test_similar_pairs_are_those_of_all_comparisons(data, small_blocks):
    """All pairs from 0.97 on, of which one in 10,000 may be missed by the choice of the keys."""
    rows = unit(data.embeddings.astype(float))
    cosine = np.triu(rows @ rows.T, 1)
    one, other = np.nonzero((cosine >= 0.97) & (data.labels[:, None] != data.labels))
    halves = Stacked([data.embeddings[:1000], data.embeddings[1000:]])  # in blocks that span both
    found = similar_pairs(halves, data.labels, 0.97)
    assert found.pairs.tolist() == [list(pair) for pair in zip(one.tolist(), other.tolist())] and len(one) > 15
    np.testing.assert_allclose(found.cosines, cosine[one, other], atol=EXACT)
    assert found.complete


def test_similar_limit_is_a_tenth_of_the_usual_distance(data):
    rows, best = unit(data.embeddings.astype(float)), []
    for label in range(CLASSES):
        mine = rows[data.labels == label]
        cosine = mine @ mine.T - 2 * np.eye(len(mine))
        best += cosine.max(axis=1).tolist() if len(mine) > 1 else []
    assert similar_limit(data.embeddings, data.labels) == pytest.approx(1 - (1 - np.median(best)) / 10, abs=EXACT)
    assert similar_limit(data.embeddings[:3], np.arange(3)) == 1.0


def test_two_means_finds_the_parts():
    draw = np.random.default_rng(0)
    rows = classes.unit(np.concatenate([np.eye(8)[:1] + 0.1 * draw.standard_normal((9, 8)),
                                        np.eye(8)[1:2] + 0.1 * draw.standard_normal((4, 8))]))  # fmt: skip
    second = two_means(rows)
    assert len(set(second[:9])) == len(set(second[9:])) == 1 and second[0] != second[9]
    assert not two_means(np.repeat(rows[:1], 5, axis=0)).any()  # all the same


# noise: 0.7 gives own cosines of 0.8, 1.0 of 0.7
@pytest.mark.parametrize("noise", [0.7, 1.0])
@pytest.mark.parametrize("centres", [True, False], ids=["centres", "means"])
def test_planted_errors_are_found(noise, centres):
    """What docs/clean.md says: 10 % flips, merges, splits and copies, three seeds together."""
    found: dict[str, list[set]] = {name: [set(), set()] for name in ("mislabelled", "merge", "split", "copy")}
    right = 0
    for seed in range(3):
        data = planted(seed, noise)
        one = find(training(data, centres), [])
        far = one.far
        wrong = np.flatnonzero((data.labels >= 30) & (data.truth != data.labels))
        pairs = {
            "mislabelled": (far.index[far.mislabelled].tolist(), wrong.tolist()),
            "merge": (map(tuple, one.merges.pairs.tolist()), data.merges),
            "split": ([split.label for split in one.splits], data.splits),
            "copy": ([tuple(sorted((each.index, each.other))) for each in one.copies], data.copies),
        }
        for name, both in pairs.items():
            for place, these in zip(found[name], both):
                place |= {(seed, each) for each in these}
        right += int((far.nearest[far.mislabelled] == data.truth[far.index[far.mislabelled]]).sum())
        assert not one.blurred and one.complete
        assert len(one.outliers) < 0.01 * len(data.labels)  # none was planted
    results = {name: precision_recall(*sets) for name, sets in found.items()}
    for name, least in {"mislabelled": (0.999, 0.96), "merge": (1, 1), "split": (0.99, 0.9), "copy": (1, 0.99)}.items():
        assert np.greater_equal(results[name], least).all(), (name, results[name])
    assert right >= 0.999 * len(found["mislabelled"][0])  # the class to which it belongs


def test_clean_data_have_no_errors():
    """No flips; what is found then is only what else was planted."""
    data = planted(7, flips=0)
    one = find(training(data), [])
    wrong = set(np.flatnonzero((data.labels >= 30) & (data.truth != data.labels)).tolist())
    assert set(one.far.index[one.far.mislabelled].tolist()) <= wrong


def test_a_model_that_cannot_tell_is_said():
    draw = np.random.default_rng(0)
    rows = draw.standard_normal((600, 16)).astype(np.float32)
    one = find(Training(rows, np.arange(600) % 60, 60, None, Hashes.none(600)), [])
    assert one.blurred


def verification(data: Planted, with_identities: bool) -> tuple[VerificationImages, set, set]:
    """40 identities of 5 images: 10 are classes, 30 unknown; 15 images are training images once more. Returns (set,
    leaks (training image, place), classes)."""
    draw = np.random.default_rng(9)
    known = np.arange(40, 50)
    identity = [unit(data.embeddings[data.truth == label].sum(axis=0)) for label in known]
    identity += list(unit(draw.standard_normal((30, SIZE))))
    number = np.repeat(np.arange(40), 5)
    rows = unit(np.array(identity)[number] + draw.standard_normal((200, SIZE)) / np.sqrt(SIZE))
    copied = draw.choice(np.setdiff1d(np.flatnonzero(data.labels >= 90), list(data.copies)), 15, replace=False)
    rows = np.concatenate(
        [rows, unit(data.embeddings[copied] + 0.1 * draw.standard_normal((15, SIZE)) / np.sqrt(SIZE))]
    )
    number = np.concatenate([number, np.full(15, -1)])
    leaks = {(int(image), 200 + place) for place, image in enumerate(copied)}
    return (
        VerificationImages("faces/", rows, number if with_identities else np.full(215, -1), Hashes.none(215)),
        leaks,
        set(known.tolist()),
    )


@pytest.mark.parametrize("with_identities", [True, False])
def test_planted_leaks_are_found(data, with_identities):
    test, leaks, known = verification(data, with_identities)
    one = find(training(data), [test])
    found = {(pair.index, pair.other) for pair in one.leaks if pair.set_name == "faces/"}
    assert found == leaks and len(found) == len(one.leaks)
    labels = {int(each.label) for each in one.known if (each.images < 200).all()}
    # a single image of 64 numbers is like one of 200 classes by chance now and then
    assert np.greater_equal(precision_recall(labels, known), (1 if with_identities else 0.7, 1)).all()
    if with_identities:
        assert all(len(each.images) == 5 for each in one.known if each.images[0] < 200)


def test_the_estimated_cosine_of_an_identity_by_the_formula(data):
    test, _, _ = verification(data, True)
    means = class_means(data.embeddings, data.labels, CLASSES)
    rows, counts = plain_means(data)[0], np.bincount(data.labels)
    found = known_identities(test, means, -1.0)
    assert len(found) == 40 + 15
    for one in found:
        mean = unit(unit(test.embeddings[one.images].astype(float)).sum(axis=0))
        cosines = rows @ mean * np.sqrt((1 + means.noise / counts) * (1 + means.noise / len(one.images)))
        assert one.label == cosines.argmax() and one.cosine == pytest.approx(min(1, cosines.max()), abs=1e-5)


def test_equal_hashes_are_copies_and_leaks_whatever_their_embeddings(data):
    count = len(data.labels)
    draw = np.random.default_rng(0)
    values = draw.integers(0, 2**63, (count, 2), dtype=np.uint64)
    one, other, same = (int(np.flatnonzero(data.labels == label)[0]) for label in (50, 60, 70))
    values[other] = values[one] ^ np.uint64([5, 0])  # two bits
    values[np.flatnonzero(data.labels == 70)[1]] = values[same]  # of one class
    test = VerificationImages(
        "lfw", unit(draw.standard_normal((2, SIZE))), np.full(2, -1), Hashes(values[[9, same]], np.array([False, True]))
    )
    found = find(training(data, hashes=Hashes(values, np.ones(count, bool))), [test])
    pairs = [pair for pair in found.copies if pair.bits is not None]
    assert [(sorted((pair.index, pair.other)), pair.bits) for pair in pairs] == [(sorted((one, other)), 2)]
    assert found.own[pairs[0].index] < found.own[pairs[0].other]
    leaks = [(pair.index, pair.other, pair.bits) for pair in found.leaks]
    assert sorted(leaks) == sorted([(same, 1, 0), (int(np.flatnonzero(data.labels == 70)[1]), 1, 0)])


def test_given_limits_are_used(data):
    one = find(training(data), [], Limits(far=-1, near=0.99, class_pair=1, copy=1))
    assert not len(one.far.index) and (one.merges.cosines == 1).all() and not one.copies
    assert one.limits == UsedLimits(-1, 0.99, pytest.approx(-0.005), 1, 1)


def test_reasons_are_of_the_first_kind_that_holds(data):
    test, leaks, known = verification(data, True)
    found = find(training(data), [test])
    removed = reasons(found, data.labels, ("mislabelled", "leak", "copy", "outlier", "known"))
    kinds = {kind: {index for index, (one, _) in removed.items() if one == kind}
             for kind in ("leak", "mislabelled", "copy", "outlier", "known")}  # fmt: skip
    assert kinds["leak"] == {pair.index for pair in found.leaks}
    assert kinds["mislabelled"] == set(found.far.index[found.far.mislabelled].tolist()) - kinds["leak"]
    assert {int(data.labels[index]) for index in kinds["known"]} >= known
    assert set(reasons(found, data.labels, ("copy",))) == {pair.index for pair in found.copies}
    assert reasons(found, data.labels, ()) == {}
