"""The exact ROC curve and metrics of it. Every distinct score is a threshold; equal scores are one step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from plsc.errors import DataError


@dataclass(frozen=True)
class Roc:
    """Counts at each threshold, from none accepted to all accepted (T points, T - 1 distinct scores).

    false_accepts, true_accepts: int64 [T], numbers of different and same pairs with a score >= threshold.
    thresholds: float64 [T], descending; the first is infinite. num_different, num_same: the totals.
    """

    false_accepts: np.ndarray
    true_accepts: np.ndarray
    thresholds: np.ndarray
    num_different: int
    num_same: int

    @property
    def fpr(self) -> np.ndarray:
        """False accept rate, float64 [T]: the fraction of different pairs that are accepted."""
        return self.false_accepts / self.num_different

    @property
    def tpr(self) -> np.ndarray:
        """True accept rate, float64 [T]: the fraction of same pairs that are accepted."""
        return self.true_accepts / self.num_same


def roc_curve(scores: np.ndarray, same: np.ndarray) -> Roc:
    """Compute the ROC curve of scores [P], where higher means more similar, and same [P] bool, in O(P log P).

    Raises DataError for different lengths, scores that are not finite, or a set without same or different pairs.
    """
    scores, same = np.asarray(scores, np.float64), np.asarray(same, bool)
    if scores.ndim != 1 or scores.shape != same.shape:
        raise DataError(f"ROC: scores of shape {list(scores.shape)} for flags of shape {list(same.shape)}")
    if not np.isfinite(scores).all():
        raise DataError(f"ROC: {int((~np.isfinite(scores)).sum())} of {len(scores)} scores are not finite")
    num_same = int(same.sum())
    num_different = len(same) - num_same
    if not num_same or not num_different:
        raise DataError(f"ROC: {num_same} same and {num_different} different pairs; at least one of each is needed")
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    last = np.append(falling[1:] != falling[:-1], True)  # the last of equal scores
    true_accepts = np.cumsum(same[order])[last]
    false_accepts = np.flatnonzero(last) + 1 - true_accepts
    return Roc(
        np.append(0, false_accepts),
        np.append(0, true_accepts),
        np.append(np.inf, falling[last]),
        num_different,
        num_same,
    )


def corners(roc: Roc) -> Roc:
    """The same curve without the inner points of straight lines."""
    bend = (np.diff(roc.false_accepts, 2) != 0) | (np.diff(roc.true_accepts, 2) != 0)
    keep = np.concatenate([[True], bend, [True]])
    return Roc(roc.false_accepts[keep], roc.true_accepts[keep], roc.thresholds[keep], roc.num_different, roc.num_same)


def auc(roc: Roc) -> float:
    """Area under the curve by trapezoids: P(same scores above different) + P(equal) / 2."""
    twice = np.sum(np.diff(roc.false_accepts) * (roc.true_accepts[1:] + roc.true_accepts[:-1]))
    return float(twice) / (2.0 * roc.num_different * roc.num_same)


def eer(roc: Roc) -> float:
    """Equal error rate: the FPR at which the curve, its points joined by lines, meets FPR = 1 - TPR."""
    fpr = roc.fpr
    excess = fpr - (1.0 - roc.tpr)  # rises from -1 to 1
    after = int(np.argmax(excess >= 0))
    before = after - 1
    share = -excess[before] / (excess[after] - excess[before])
    return float(fpr[before] + share * (fpr[after] - fpr[before]))


def allowed_errors(rate: float, trials: int) -> int:
    """The largest number of errors in `trials` with an error rate of at most `rate`: floor(rate * trials)."""
    return math.floor(rate * trials + 1e-9)  # 1e-9: 0.29 * 100 is 28.999... in binary


def tar_at_far(roc: Roc, fars: Sequence[float]) -> dict[float, float | None]:
    """For each f, the highest TPR of a threshold whose FPR is at most f, without interpolation.

    None with fewer than 1/f different pairs: one false accept already exceeds f, so the set cannot tell f from 0.
    """
    found: dict[float, float | None] = {}
    for far in fars:
        allowed = allowed_errors(far, roc.num_different)
        point = int(np.searchsorted(roc.false_accepts, allowed, side="right")) - 1
        found[far] = float(roc.tpr[point]) if allowed else None
    return found
