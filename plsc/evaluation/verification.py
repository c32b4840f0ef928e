"""Verification: do two images show the same identity? The protocol of LFW with exact thresholds.

docs/verification.md has the formulas and what differs from PLSC 0.x, 2.x and insightface.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from plsc.errors import ConfigError, DataError
from plsc.evaluation.embeddings import ROWS, check_embeddings, normalize, norms
from plsc.evaluation.roc import auc, corners, eer, roc_curve, tar_at_far

FOLDS = 10  # as in the protocol of LFW
FARS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
ORTHOGONAL = 2.0  # squared distance of unit vectors at a right angle
FARTHEST = 4.0  # and of opposite ones
EXACT, INSIGHTFACE = PROTOCOLS = ("exact", "insightface")
GRID = np.arange(0, 4, 0.01)  # the thresholds that insightface tries


@dataclass(frozen=True)
class Verification:
    """How well one set of pairs is told apart. Shares are in [0, 1], distances are squared and in [0, 4].

    accuracy, accuracy_std: mean and standard deviation (divided by folds, not folds - 1) over the folds.
    threshold: the one for use: best on all pairs; "same" is distance < threshold, cosine > 1 - threshold / 2.
    tar_at_far: {far: tar}, None where the set has too few different pairs to tell.
    auc, eer: area under the ROC curve; the error rate where both kinds of error are equal.
    xnorm: mean length of the embeddings before normalisation. fpr, tpr: float64, the corners of the ROC curve.
    num_same, num_different: the numbers of pairs.
    """

    accuracy: float
    accuracy_std: float
    threshold: float
    tar_at_far: dict[float, float | None]
    auc: float
    eer: float
    xnorm: float
    fpr: np.ndarray = field(repr=False)
    tpr: np.ndarray = field(repr=False)
    num_same: int
    num_different: int


def verify(
    embeddings: np.ndarray,
    issame: Sequence[bool] | np.ndarray,
    folds: int = FOLDS,
    xnorm: float | None = None,
    protocol: str = EXACT,
) -> Verification:
    """Judges P pairs from embeddings [2P, E] (floating point; pair i is rows 2i and 2i+1) and issame [P].

    The embeddings are normalised here; with a flip test pass what `combine_flip` gives, and its xnorm. xnorm None is
    measured on `embeddings`, which is right when these are the model's own. protocol "insightface": accuracy and
    accuracy_std are those of insightface's verification, to the digit; all other figures stay the same.

    Raises DataError for wrong shapes, values that are not finite, fewer pairs than folds, or a set without same or
    without different pairs; ConfigError for folds < 2 and another protocol.
    """
    embeddings = check_embeddings(embeddings, "embeddings")
    same = _flags(issame)
    if len(embeddings) != 2 * len(same):
        raise DataError(f"verification: {len(embeddings)} embeddings for {len(same)} pairs, expected two per pair")
    if protocol not in PROTOCOLS:
        raise ConfigError(f"protocol: {protocol!r}; {' or '.join(PROTOCOLS)} is needed")
    distance = pair_distances(embeddings)
    if protocol == INSIGHTFACE:
        accuracies = fold_accuracies(pair_distances(embeddings, zero=None), same, folds, insightface_threshold)
    else:
        accuracies = fold_accuracies(distance, same, folds)
    roc = roc_curve(-distance, same)
    order = np.argsort(distance, kind="stable")
    curve = corners(roc)
    return Verification(
        accuracy=float(accuracies.mean()),
        accuracy_std=float(accuracies.std()),
        threshold=best_threshold(distance[order], same[order]),
        tar_at_far=tar_at_far(roc, FARS),
        auc=auc(roc),
        eer=eer(roc),
        xnorm=float(norms(embeddings).mean()) if xnorm is None else float(xnorm),
        fpr=curve.fpr,
        tpr=curve.tpr,
        num_same=roc.num_same,
        num_different=roc.num_different,
    )


def pair_distances(embeddings: np.ndarray, zero: float | None = ORTHOGONAL) -> np.ndarray:
    """Squared distance of the normalised rows 2i and 2i+1, float64 [P], in [0, 4]; [2P, E] given.

    A zero embedding has no direction: its pair counts as being at a right angle (2), so that a model that answers zero
    to everything does not pass for one that is sure. With ``zero`` None it is the point 0, as insightface has it.
    """
    distance = np.empty(len(embeddings) // 2)
    for start in range(0, len(embeddings), ROWS):
        units = normalize(embeddings[start : start + ROWS])
        first, second = units[0::2], units[1::2]
        near = np.minimum(np.square(first - second).sum(axis=1), FARTHEST)
        if zero is not None:
            near = np.where(first.any(axis=1) & second.any(axis=1), near, zero)
        distance[start // 2 : (start + ROWS) // 2] = near
    return distance


def best_threshold(distance: np.ndarray, same: np.ndarray) -> float:
    """The threshold that answers most pairs rightly by distance < threshold; distance [P] rising, same [P], P >= 1.

    Candidates: the middle of every gap between distinct distances, 0 (accept nothing), and above all. Of equally good
    ones the middle of the widest gap wins, then the lowest.
    """
    cut = np.concatenate([[0], np.flatnonzero(distance[1:] > distance[:-1]) + 1, [len(distance)]])  # numbers accepted
    same_below = np.concatenate([[0], np.cumsum(same)])[cut]
    right = same_below + (len(same) - same.sum()) - (cut - same_below)
    low = np.concatenate([[0.0], distance[cut[1:-1] - 1], distance[-1:]])
    high = np.concatenate([distance[:1], distance[cut[1:-1]], [max(FARTHEST, np.nextafter(distance[-1], np.inf))]])
    best = int(np.argmax(np.where(right == right.max(), high - low, -1.0)))
    if best == 0:
        return 0.0
    if best == len(cut) - 1:
        return float(high[best])
    middle = (low[best] + high[best]) / 2
    return float(middle if middle > low[best] else high[best])  # neighbouring numbers have nothing between them


def insightface_threshold(distance: np.ndarray, same: np.ndarray) -> float:
    """The lowest of insightface's thresholds that answers most pairs rightly; arguments as of best_threshold."""
    accepted = np.searchsorted(distance, GRID, side="left")  # distances below
    same_accepted = np.concatenate([[0], np.cumsum(same)])[accepted]
    right = same_accepted + (len(same) - same.sum()) - (accepted - same_accepted)
    return float(GRID[np.argmax(right)])


def fold_accuracies(
    distance: np.ndarray,
    same: np.ndarray,
    folds: int,
    choose: Callable[[np.ndarray, np.ndarray], float] = best_threshold,
) -> np.ndarray:
    """Accuracy on each fold with the threshold that is best on the others, as ``choose`` finds it, float64 [folds].

    Folds are contiguous and not shuffled; the first P % folds have one pair more (as scikit-learn's KFold).
    """
    try:
        folds = operator.index(folds)
    except TypeError:
        raise ConfigError(f"folds: {folds!r}; an integer of at least 2 is needed") from None
    if folds < 2:
        raise ConfigError(f"folds: {folds}; at least 2 are needed, a threshold is chosen on the others")
    if len(distance) < folds:
        raise DataError(f"verification: {len(distance)} pairs for {folds} folds; at least one pair per fold is needed")
    order = np.argsort(distance, kind="stable")
    accuracies = np.zeros(folds)
    for i, (start, stop) in enumerate(_folds(len(distance), folds)):
        others = order[(order < start) | (order >= stop)]
        threshold = choose(distance[others], same[others])
        accuracies[i] = np.mean((distance[start:stop] < threshold) == same[start:stop])
    return accuracies


def _flags(issame: Sequence[bool] | np.ndarray) -> np.ndarray:
    flags = np.asarray(issame)
    if flags.ndim != 1 or flags.dtype.kind not in "bui" or not np.isin(flags, (0, 1)).all():
        raise DataError(f"issame: {flags.dtype} {list(flags.shape)}, expected one True or False per pair")
    return flags.astype(bool)


def _folds(num_pairs: int, folds: int) -> Iterator[tuple[int, int]]:
    small, larger = divmod(num_pairs, folds)
    start = 0
    for i in range(folds):
        stop = start + small + (i < larger)
        yield start, stop
        start = stop
