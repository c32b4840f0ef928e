"""Verification of pairs of images: the protocol of LFW with exact thresholds.

See docs/verification.md for the formulas and the differences from PLSC 0.x, 2.x and insightface.
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
ORTHOGONAL = 2.0  # squared distance of orthogonal unit vectors
FARTHEST = 4.0  # squared distance of opposite ones
EXACT, INSIGHTFACE = PROTOCOLS = ("exact", "insightface")
GRID = np.arange(0, 4, 0.01)  # the thresholds of insightface


@dataclass(frozen=True)
class Verification:
    """Verification metrics of one set of pairs. Rates are in [0, 1]; distances are squared, in [0, 4].

    accuracy, accuracy_std: mean and standard deviation (divided by folds, not folds - 1) over the folds.
    threshold: the best threshold on all pairs; "same" is distance < threshold, or cosine > 1 - threshold / 2.
    tar_at_far: {far: tar}; None with too few different pairs.
    auc, eer: area under the ROC curve; equal error rate.
    xnorm: mean length of the embeddings before normalization. fpr, tpr: float64, the corners of the ROC curve.
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
    """Verify P pairs from embeddings [2P, E] (floating point; pair i is rows 2i and 2i+1) and issame [P].

    The embeddings are normalized here. With a flip test, pass the results of `combine_flip`. With xnorm None it is
    computed from `embeddings`, which must then be the unmodified outputs of the model. protocol "insightface":
    accuracy and accuracy_std equal those of insightface's verification to the digit; other values do not change.

    Raises DataError for wrong shapes, values that are not finite, fewer pairs than folds, or a set without same or
    without different pairs; ConfigError for folds < 2 and an unknown protocol.
    """
    embeddings = check_embeddings(embeddings, "embeddings")
    same = _flags(issame)
    if len(embeddings) != 2 * len(same):
        raise DataError(f"verification: {len(embeddings)} embeddings for {len(same)} pairs, expected two per pair")
    if protocol not in PROTOCOLS:
        raise ConfigError(f"protocol: {protocol!r}; allowed: {', '.join(PROTOCOLS)}")
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
    """Squared distances of the normalized rows 2i and 2i+1 of embeddings [2P, E]: float64 [P], in [0, 4].

    A zero embedding has no direction: the distance of its pair is ``zero``, by default that of orthogonal vectors, so
    that a model whose output is always zero does not look certain. With ``zero`` None the embedding is the point 0, as
    in insightface.
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
    """The threshold with the highest accuracy of distance < threshold; distance [P] ascending, same [P], P >= 1.

    Candidates: the middle of every gap between distinct distances, 0 (accept none), and one above all. Ties: the widest
    gap wins, then the lowest threshold.
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
    return float(middle if middle > low[best] else high[best])  # adjacent floats have no value between them


def insightface_threshold(distance: np.ndarray, same: np.ndarray) -> float:
    """The lowest of insightface's thresholds with the highest accuracy; arguments as in best_threshold."""
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
    """Accuracy on each fold, float64 [folds], with the threshold that ``choose`` returns for the other folds.

    Folds are contiguous and not shuffled; the first P % folds have one more pair, as in scikit-learn's KFold.
    """
    try:
        folds = operator.index(folds)
    except TypeError:
        raise ConfigError(f"folds: {folds!r}; expected an integer of at least 2") from None
    if folds < 2:
        raise ConfigError(f"folds: {folds}; at least 2 are needed, as each threshold is chosen on the other folds")
    if len(distance) < folds:
        raise DataError(f"verification: {len(distance)} pairs for {folds} folds; each fold needs at least one pair")
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
