"""Verification against a second writing of the protocol: plain loops over folds, thresholds and pairs."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.model_selection import KFold

from plsc.errors import ConfigError, DataError
from plsc.evaluation.embeddings import combine_flip, normalize, norms
from plsc.evaluation.verification import best_threshold, fold_accuracies, pair_distances, verify


def _pairs(seed, num_pairs=60, noise=1.0, size=8):
    rng = np.random.default_rng(seed)
    same = rng.random(num_pairs) < 0.5
    same[:2] = [True, False]
    first = rng.normal(size=(num_pairs, size))
    second = np.where(same[:, None], first + noise * rng.normal(size=first.shape), rng.normal(size=first.shape))
    return np.stack([first, second], 1).reshape(-1, size) * 3.0, same


def _loop_distances(embeddings):
    found = []
    for i in range(0, len(embeddings), 2):
        a, b = (row / np.sqrt(sum(float(x) ** 2 for x in row)) for row in embeddings[i : i + 2].astype(np.float64))
        found.append(sum((x - y) ** 2 for x, y in zip(a, b)))
    return np.array(found)


def _loop_threshold(distance, same):
    """All thresholds that differ in what they accept; the most right answers, then the widest gap, then the lowest."""
    edges = sorted(set(distance.tolist()))
    gaps = [(0.0, edges[0], 0.0)]
    gaps += [(low, high, (low + high) / 2) for low, high in zip(edges, edges[1:])]
    above = max(4.0, np.nextafter(edges[-1], 9.0))  # to accept what lies at 4 exactly it must be above 4
    gaps += [(edges[-1], above, above)]
    rights = [sum((d < t) == s for d, s in zip(distance, same)) for _, _, t in gaps]
    return max(zip(rights, (high - low for low, high, _ in gaps), (-t for _, _, t in gaps)))[2] * -1


def _loop_folds(num_pairs, folds):
    """As scikit-learn's KFold says: the first num_pairs % folds folds get one more."""
    sizes = [num_pairs // folds + (1 if i < num_pairs % folds else 0) for i in range(folds)]
    edges = np.cumsum([0, *sizes])
    return [list(range(a, b)) for a, b in zip(edges, edges[1:])]


@pytest.mark.parametrize(("seed", "num_pairs", "folds"), [(0, 60, 10), (1, 63, 10), (2, 10, 10), (3, 37, 4), (4, 5, 2)])
def test_accuracy_against_a_loop(seed, num_pairs, folds):
    embeddings, same = _pairs(seed, num_pairs)
    distance = _loop_distances(embeddings)
    accuracies = []
    for held_out in _loop_folds(num_pairs, folds):
        others = [i for i in range(num_pairs) if i not in held_out]
        threshold = _loop_threshold(distance[others], same[others])
        accuracies.append(sum((distance[i] < threshold) == same[i] for i in held_out) / len(held_out))
    result = verify(embeddings, same, folds=folds)
    # float64 throughout, no more than 63 terms in a sum
    assert result.accuracy == pytest.approx(sum(accuracies) / folds, abs=1e-12)
    spread = (sum((a - sum(accuracies) / folds) ** 2 for a in accuracies) / folds) ** 0.5
    assert result.accuracy_std == pytest.approx(spread, abs=1e-12)
    assert result.threshold == pytest.approx(_loop_threshold(distance, same), abs=1e-12)
    assert np.allclose(pair_distances(embeddings), distance, rtol=0, atol=1e-14)
    assert (result.num_same, result.num_different) == (same.sum(), (~same).sum())
    if num_pairs == 63:
        assert 0.6 < result.accuracy < 0.999 and result.accuracy_std > 0  # else the case shows nothing


def test_folds_follow_scikit_learn():
    for num_pairs, folds in ((63, 10), (10, 10), (37, 4)):
        expected = [test.tolist() for _, test in KFold(folds).split(np.zeros(num_pairs))]
        assert _loop_folds(num_pairs, folds) == expected


def test_the_threshold_comes_from_the_other_folds():
    """Fold 1 alone has its pairs the wrong way round: judged by the rest it must be all wrong."""
    distance = np.array([3.0, 1.0, 1.0, 3.0, 1.0, 3.0, 1.0, 3.0])
    same = np.array([True, False] + [True, False] * 3)
    assert fold_accuracies(distance, same, 4).tolist() == [0.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("seed", range(30))
def test_best_threshold_with_ties(seed):
    rng = np.random.default_rng(seed)
    distance = np.sort(rng.integers(0, 8 + seed % 2, 20) / 2.0)  # with and without pairs at 4, the farthest
    same = rng.random(20) < rng.choice([0.0, 0.3, 0.7, 1.0])
    assert best_threshold(distance, same) == _loop_threshold(distance, same)


def test_threshold_between_neighbouring_numbers():
    low = 1.0
    high = np.nextafter(low, 2.0)
    threshold = best_threshold(np.array([low, high]), np.array([True, False]))
    assert low < threshold <= high


@pytest.mark.parametrize("seed", range(3))
def test_exact_thresholds_against_the_grid_of_prior_systems(seed):
    """They scan 0, 0.01, ... 3.99. On the pairs that choose, exact is never worse; held out, both are close."""
    embeddings, same = _pairs(seed, 1200, noise=1.5, size=16)
    distance = pair_distances(embeddings)
    grid = np.arange(0, 4, 0.01)
    exact = verify(embeddings, same)
    best_on_grid = max(np.mean((distance < t) == same) for t in grid)
    assert np.mean((distance < exact.threshold) == same) >= best_on_grid
    accuracies = []
    for held_out in _loop_folds(1200, 10):
        others = np.setdiff1d(np.arange(1200), held_out)
        threshold = grid[np.argmax([np.mean((distance[others] < t) == same[others]) for t in grid])]
        accuracies.append(np.mean((distance[held_out] < threshold) == same[held_out]))
    # either can be ahead: the choice moves few of 1200 pairs; 1 % is 12 pairs
    assert exact.accuracy == pytest.approx(np.mean(accuracies), abs=0.01)


def test_grid_fails_where_exact_does_not():
    """A young model whose distances all lie within a hundredth: nothing on the grid parts them."""
    angle = np.where(np.tile([True, False], 50), 1e-3, 2e-3)
    first, second = np.tile([1.0, 0.0], (100, 1)), np.stack([np.cos(angle), np.sin(angle)], 1)
    embeddings = np.stack([first, second], 1).reshape(-1, 2)
    same = np.tile([True, False], 50)
    assert verify(embeddings, same).accuracy == 1.0
    distance = pair_distances(embeddings)
    assert max(np.mean((distance < t) == same) for t in np.arange(0, 4, 0.01)) == 0.5


def test_figures_of_a_set_small_enough_to_count():
    """Unit vectors at known angles: squared distance 2 - 2 cos. Distances: same 0, 1, 2; different 1, 2, 4."""
    angles = np.radians([0, 60, 90, 60, 90, 180])
    embeddings = np.stack([np.stack([[1, 0]] * 6), np.stack([np.cos(angles), np.sin(angles)], 1)], 1).reshape(-1, 2)
    same = np.array([True, True, True, False, False, False])
    result = verify(5 * embeddings, same, folds=3)
    assert np.allclose(pair_distances(embeddings), [0, 1, 2, 1, 2, 4], atol=1e-15)
    # counted: same before different 6 of 9, equal 2 of 9
    assert result.auc == pytest.approx((6 + 1) / 9)
    assert result.xnorm == pytest.approx(5.0)
    assert result.tar_at_far == {1e-1: None, 1e-2: None, 1e-3: None, 1e-4: None, 1e-5: None, 1e-6: None}
    assert result.fpr[-1] == result.tpr[-1] == 1.0 and result.fpr[0] == result.tpr[0] == 0.0


def test_tar_at_far_names_what_the_set_supports():
    embeddings, same = _pairs(5, 400)
    result = verify(embeddings, same)
    distance = pair_distances(embeddings)
    for far, tar in result.tar_at_far.items():
        fits = [np.mean(distance[same] <= t) for t in [-1.0, *distance] if np.mean(distance[~same] <= t) <= far]
        assert tar == (max(fits) if far >= 0.01 else None), far


def test_flip_test():
    original, _ = _pairs(6)
    flipped, same = _pairs(7)
    embeddings, xnorm = combine_flip(original.astype(np.float32), flipped.astype(np.float32))
    total = original.astype(np.float32).astype(np.float64) + flipped.astype(np.float32)
    assert np.allclose(embeddings, total / np.sqrt((total**2).sum(1, keepdims=True)), rtol=0, atol=1e-15)
    lengths = [np.sqrt(np.sum(row.astype(np.float64) ** 2)) for row in [*original, *flipped]]
    assert xnorm == pytest.approx(np.mean(lengths), rel=1e-6)  # the inputs were rounded to float32
    result = verify(embeddings, same, xnorm=xnorm)
    assert result.xnorm == xnorm
    assert result.accuracy == verify(total, same).accuracy  # normalising twice changes nothing


def test_zero_opposite_and_extreme_embeddings():
    """No NaN and no warning; a zero embedding is at a right angle to all, two of them too."""
    rows = np.array([[0, 0], [1, 0], [0, 0], [0, 0], [1, 0], [-1, 0], [1e-200, 0], [0, 1e-200], [1e200, 0], [1e200, 0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.allclose(pair_distances(rows), [2, 2, 4, 2, 0], rtol=0, atol=1e-15)
        assert pair_distances(rows).max() <= 4.0
        assert np.allclose(norms(rows), [0, 1, 0, 0, 1, 1, 1e-200, 1e-200, 1e200, 1e200], rtol=1e-15, atol=0)
        assert np.array_equal(normalize(rows)[0], [0, 0])
        combined, xnorm = combine_flip(rows[4:5], rows[5:6])  # an image and its mirror image cancel out
        assert np.array_equal(combined, [[0, 0]]) and xnorm == 1.0
        collapsed = verify(np.zeros((40, 4)), np.tile([True, False], 10))
    assert (collapsed.accuracy, collapsed.auc, collapsed.eer, collapsed.xnorm) == (0.5, 0.5, 0.5, 0.0)


def test_opposite_vectors_are_never_farther_than_four():
    """Rounding takes the plain sum of one in seven of these past 4."""
    units = np.random.default_rng(0).normal(size=(1000, 16))
    distance = pair_distances(np.stack([units, -units], 1).reshape(-1, 16))
    assert distance.max() == 4.0 and np.allclose(distance, 4, rtol=0, atol=1e-14)


def test_dtypes_and_flags():
    embeddings, same = _pairs(8)
    wide = verify(embeddings.astype(np.float32).astype(np.float64), same)
    for narrow in (embeddings.astype(np.float32), np.asfortranarray(embeddings.astype(np.float32))):
        for flags in (same, same.tolist(), same.astype(int)):
            result = verify(narrow, flags)
            assert (result.accuracy, result.threshold, result.auc) == (wide.accuracy, wide.threshold, wide.auc)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e, s: (e[:-1], s), "119 embeddings for 60 pairs"),
        (lambda e, s: (e[:18], s[:9]), "9 pairs for 10 folds"),
        (lambda e, s: (e, s | True), "60 same and 0 different"),
        (lambda e, s: (e, s & False), "0 same and 60 different"),
        (lambda e, s: (np.where(np.arange(120)[:, None] == 7, np.nan, e), s), "1 of 120 are not finite.* image 7"),
        (lambda e, s: (np.where(e == e[3, 2], np.inf, e), s), "not finite.* image 3"),
        (lambda e, s: (e[0], s), "expected floating point"),
        (lambda e, s: (e[:, :0], s), "expected floating point"),
        (lambda e, s: (e.astype(int), s), "expected floating point"),
        (lambda e, s: (e, s + 1), "issame"),
        (lambda e, s: (e, s.astype(float)), "issame"),
        (lambda e, s: (e, s[:, None]), "issame"),
        (lambda e, s: (e[:0], s[:0]), "0 pairs for 10 folds"),
    ],
)
def test_wrong_input(change, message):
    embeddings, same = change(*_pairs(9))
    with pytest.raises(DataError, match=message) as caught:
        verify(embeddings, same)
    assert "\n" not in str(caught.value)


def test_wrong_folds_and_flips():
    embeddings, same = _pairs(9)
    for folds in (1, 0, -3, 2.5, "10"):
        with pytest.raises(ConfigError, match="folds"):
            verify(embeddings, same, folds=folds)
    with pytest.raises(DataError, match="must be equal"):
        combine_flip(embeddings, embeddings[:-1])
    with pytest.raises(DataError, match="flipped images: 1 of 120 are not finite"):
        combine_flip(embeddings, np.where(embeddings == embeddings[3, 2], np.inf, embeddings))


# --- insightface's protocol ---------------------------------------------------------------------------------


def loops_of_insightface(embeddings, issame):
    """Mean and deviation of the accuracies, threshold by threshold and pair by pair as insightface's program goes."""
    units = [row / (np.sqrt(sum(x * x for x in row)) or 1.0) for row in embeddings.astype(np.float64)]
    distances = [float(((a - b) ** 2).sum()) for a, b in zip(units[0::2], units[1::2])]
    thresholds, pairs = np.arange(0, 4, 0.01), len(issame)
    sizes = [pairs // 10 + (1 if fold < pairs % 10 else 0) for fold in range(10)]
    accuracies = []
    for fold in range(10):
        test = range(sum(sizes[:fold]), sum(sizes[: fold + 1]))
        train = [pair for pair in range(pairs) if pair not in test]
        best, most = None, -1.0
        for threshold in thresholds:
            right = sum((distances[pair] < threshold) == issame[pair] for pair in train) / len(train)
            if right > most:
                best, most = threshold, right
        accuracies.append(sum((distances[pair] < best) == issame[pair] for pair in test) / len(test))
    mean = sum(accuracies) / 10
    return mean, (sum((a - mean) ** 2 for a in accuracies) / 10) ** 0.5


@pytest.mark.parametrize("pairs, noise, zeros", [(103, 0.9, 0), (60, 0.3, 4), (50, 0.01, 0)])
def test_the_protocol_of_insightface_to_the_digit(pairs, noise, zeros):
    """Among them pairs of zero embeddings, and distances that all lie within the first steps of the grid."""
    rng = np.random.default_rng(pairs)
    issame = rng.random(pairs) < 0.5
    first = rng.standard_normal((pairs, 8)) if noise > 0.1 else 1.0 + noise * rng.standard_normal((pairs, 8))
    second = np.where(issame[:, None], first + noise * rng.standard_normal((pairs, 8)), np.roll(first, 1, axis=0))
    embeddings = np.stack([first, second], axis=1).reshape(2 * pairs, 8).astype("float32")
    embeddings[:zeros] = 0.0
    got = verify(embeddings, issame, protocol="insightface")
    accuracy, deviation = loops_of_insightface(embeddings, issame)
    assert (got.accuracy, got.accuracy_std) == (pytest.approx(accuracy, abs=1e-14), pytest.approx(deviation, abs=1e-14))
    exact = verify(embeddings, issame)
    assert (exact.threshold, exact.auc, exact.tar_at_far) == (got.threshold, got.auc, got.tar_at_far)
    assert exact.accuracy != got.accuracy or noise == 0.3  # what the test tells apart


def test_another_protocol_is_refused():
    with pytest.raises(ConfigError, match="protocol: 'lfw'; allowed: exact, insightface"):
        verify(np.eye(40, dtype="float32"), np.arange(20) < 10, protocol="lfw")
