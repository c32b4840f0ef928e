"""Classes whose images are of two identities: two parts, each close together, as far apart as two classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from plsc.cleaning.classes import ClassMeans, unit

LEAST, SHARE = 3, 0.1  # images of a part, and its share of the class, at least
_ROUNDS = 20


@dataclass(frozen=True)
class Split:
    """A class with the images of its two parts, the larger first, and the estimated cosine between them."""

    label: int
    parts: tuple[np.ndarray, np.ndarray]
    cosine: float


def find_splits(
    embeddings: np.ndarray, labels: np.ndarray, chosen: np.ndarray, means: ClassMeans, limit: float
) -> list[Split]:
    """The classes whose two parts have an estimated cosine below ``limit``. chosen: bool [n], who takes part.

    Each class is divided by k-means with two means on the sphere. In both parts the images must be like each other:
    their mean cosine is at least half of what the noise of the data lets expect, 1 / (1 + v). One class is in memory at
    a time.
    """
    indices = np.flatnonzero(chosen)
    indices = indices[np.argsort(labels[indices], kind="stable")]
    found = []
    starts = np.flatnonzero(np.diff(labels[indices], prepend=-1))
    for first, last in zip(starts, np.append(starts[1:], len(indices))):
        images = np.sort(indices[first:last])
        least = max(LEAST, int(np.ceil(SHARE * len(images))))
        if len(images) < 2 * least:
            continue
        rows = unit(embeddings[images])
        second = two_means(rows)
        parts = sorted((images[~second], images[second]), key=len, reverse=True)
        if len(parts[1]) < least:
            continue
        cosine = _estimated(rows[~second], rows[second], means)
        like = min(_likeness(rows[~second]), _likeness(rows[second]))
        if cosine < limit and like >= 0.5 / (1 + means.noise):
            found.append(Split(int(labels[images[0]]), (parts[0], parts[1]), cosine))
    return sorted(found, key=lambda one: one.cosine)


def two_means(rows: np.ndarray) -> np.ndarray:
    """bool [n]: which of the unit rows [n, E] belong to the second mean. Begins with the row that is farthest from the
    mean of all, and the one that is farthest from it."""
    one = rows[np.argmin(rows @ rows.sum(axis=0))]
    centres = np.stack([rows[np.argmin(rows @ one)], one])
    second = np.zeros(len(rows), bool)
    for _ in range(_ROUNDS):
        before, second = second, rows @ centres[1] > rows @ centres[0]
        if not second.any() or second.all() or (second == before).all():
            break
        centres = unit(np.stack([rows[~second].sum(axis=0), rows[second].sum(axis=0)]))
    return second


def _estimated(one: np.ndarray, other: np.ndarray, means: ClassMeans) -> float:
    both = unit(np.stack([one.sum(axis=0), other.sum(axis=0)]))
    factors = means.attenuation(np.array([len(one), len(other)]))
    return min(1.0, float(both[0] @ both[1] * factors[0] * factors[1]))


def _likeness(rows: np.ndarray) -> float:
    """The mean cosine of two different rows."""
    count, total = len(rows), float(np.square(rows.sum(axis=0), dtype=np.float64).sum())
    return (total - count) / (count * (count - 1)) if count > 1 else 0.0
