"""ROC, AUC, EER and TAR at FAR against plain loops over all thresholds and all pairs."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from plsc.errors import DataError
from plsc.evaluation.roc import allowed_errors, auc, corners, eer, roc_curve, tar_at_far

# Curves are shares of counts: both sides divide the same integers, so they are equal to the bit. Sums of up to 10^4
# such numbers differ by at most 10^4 roundings of 1e-16.
SUM = 1e-12


def _case(seed, num_pairs, levels):
    rng = np.random.default_rng(seed)
    same = rng.random(num_pairs) < rng.uniform(0.2, 0.8)
    same[:2] = [True, False]
    scores = rng.normal(size=num_pairs) + same
    return (np.round(scores * levels) / levels if levels else scores), same


CASES = [(0, 2, 0), (1, 7, 1), (2, 60, 0), (3, 60, 2), (4, 200, 3), (5, 200, 0), (6, 40, 0.01)]


def _loop_curve(scores, same):
    """Every distinct score, from above, as a threshold; accepted is score >= threshold."""
    points = [(0, 0)]
    for threshold in sorted(set(scores.tolist()), reverse=True):
        accepted = [bool(score >= threshold) for score in scores]
        false = sum(a and not s for a, s in zip(accepted, same))
        points.append((false, sum(accepted) - false))
    return np.array(points)


@pytest.mark.parametrize("case", CASES)
def test_curve_against_a_loop(case):
    scores, same = _case(*case)
    roc, points = roc_curve(scores, same), _loop_curve(scores, same)
    assert np.array_equal(np.stack([roc.false_accepts, roc.true_accepts], 1), points)
    assert np.array_equal(roc.fpr, points[:, 0] / (~same).sum()) and np.array_equal(roc.tpr, points[:, 1] / same.sum())
    assert roc.thresholds[0] == np.inf and np.array_equal(roc.thresholds[1:], np.unique(scores)[::-1])


@pytest.mark.parametrize("case", CASES)
def test_area_is_the_share_of_rightly_ordered_pairs(case):
    scores, same = _case(*case)
    wins = [(s > d) + 0.5 * (s == d) for s in scores[same] for d in scores[~same]]
    assert auc(roc_curve(scores, same)) == pytest.approx(np.mean(wins), abs=SUM)
    assert auc(corners(roc_curve(scores, same))) == pytest.approx(np.mean(wins), abs=SUM)


@pytest.mark.parametrize("case", CASES)
def test_equal_error_rate_lies_on_the_curve_and_the_diagonal(case):
    """By bisection on the curve as a function of its length, independent of the closed form."""
    scores, same = _case(*case)
    points = _loop_curve(scores, same) / [(~same).sum(), same.sum()]
    low, high = 0.0, float(len(points) - 1)
    for _ in range(80):
        middle = (low + high) / 2
        fpr, tpr = (np.interp(middle, np.arange(len(points)), points[:, i]) for i in (0, 1))
        low, high = (middle, high) if fpr < 1 - tpr else (low, middle)
    for curve in (roc_curve(scores, same), corners(roc_curve(scores, same))):
        assert eer(curve) == pytest.approx(fpr, abs=SUM)


@pytest.mark.parametrize("case", CASES)
def test_tar_at_far_against_a_loop(case):
    scores, same = _case(*case)
    fars = (0.5, 0.3, 0.1, 0.01, 0.001)
    found = tar_at_far(roc_curve(scores, same), fars)
    different = int((~same).sum())
    for far in fars:
        fits = [true / same.sum() for false, true in _loop_curve(scores, same) if false <= far * different]
        assert found[far] == (max(fits) if far * different >= 1 else None)


def test_far_that_the_set_just_supports():
    """1000 different pairs: one false accept is 1e-3. 999 do not tell 1e-3 from 0."""
    for num_different, expected in ((1000, 0.5), (999, None)):
        scores = np.append(np.arange(num_different, dtype=float), [num_different - 1.5, 0.5])
        same = np.arange(num_different + 2) >= num_different
        assert tar_at_far(roc_curve(scores, same), [1e-3])[1e-3] == expected


def test_allowed_errors_is_not_fooled_by_binary_fractions():
    cases = ((0.29, 100), (1e-3, 3000), (1e-6, 10**6), (0.1, 9))
    assert [allowed_errors(rate, trials) for rate, trials in cases] == [29, 3, 1, 0]


@pytest.mark.parametrize("case", CASES)
def test_corners_draw_the_same_curve(case):
    scores, same = _case(*case)
    roc = roc_curve(scores, same)
    few = corners(roc)
    # ordered by both coordinates each point of the full curve lies on a line between two corners
    along, along_few = roc.false_accepts + roc.true_accepts, few.false_accepts + few.true_accepts
    assert np.allclose(np.interp(along, along_few, few.true_accepts), roc.true_accepts, rtol=0, atol=SUM)
    assert len(few.fpr) <= len(roc.fpr)


def test_hand_made_curves():
    perfect = roc_curve([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0])
    assert (auc(perfect), eer(perfect)) == (1.0, 0.0)
    inverse = roc_curve([0.1, 0.2, 0.8, 0.9], [1, 1, 0, 0])
    assert (auc(inverse), eer(inverse)) == (0.0, 1.0)
    equal = roc_curve([0.5] * 4, [1, 0, 1, 0])
    assert (auc(equal), eer(equal), equal.fpr.tolist(), equal.tpr.tolist()) == (0.5, 0.5, [0, 1], [0, 1])


def test_scikit_learn_agrees():
    for case in CASES:
        scores, same = _case(*case)
        fpr, tpr, thresholds = metrics.roc_curve(same, scores, drop_intermediate=False)
        roc = roc_curve(scores, same)
        assert np.array_equal(roc.fpr, fpr) and np.array_equal(roc.tpr, tpr)
        assert np.array_equal(roc.thresholds, thresholds)
        few = corners(roc)
        fpr, tpr, _ = metrics.roc_curve(same, scores)
        assert np.array_equal(few.fpr, fpr) and np.array_equal(few.tpr, tpr)
        assert auc(roc) == pytest.approx(metrics.roc_auc_score(same, scores), abs=SUM)


@pytest.mark.parametrize(
    ("scores", "same", "message"),
    [
        ([1.0, 2.0], [True, True], "2 same and 0 different"),
        ([1.0, 2.0], [False, False], "0 same and 2 different"),
        ([1.0, np.nan], [True, False], "1 of 2 scores are not finite"),
        ([1.0], [True, False], "shape"),
        ([], [], "0 same"),
    ],
)
def test_wrong_input(scores, same, message):
    with pytest.raises(DataError, match=message):
        roc_curve(scores, same)
