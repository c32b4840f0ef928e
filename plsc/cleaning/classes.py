"""Classes by the embeddings of their images: means, and estimates of the cosine between two of them.

With x = s w + noise for an image of the identity with the direction w, the mean of n images has the squared length
s^2 (1 + v / n), where v is the ratio of noise to signal. So two means of n and m images have the cosine

    cos(w1, w2) / sqrt((1 + v / n) (1 + v / m))

up to noise, and that of the two halves of a class gives v. This is Spearman's correction for attenuation (1904): means
of few images are compared on the same scale as those of many.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

IMAGES, ROWS = 1024, 8192  # images of a block, and classes they are compared with: 32 MB of cosines
_LEAST_FOR_NOISE = 4  # images of a class whose halves are compared


def unit(rows: np.ndarray) -> np.ndarray:
    """Each row divided by its length, float32; zero rows stay zero."""
    rows = np.asarray(rows, np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def blocks(count: int, size: int) -> Iterator[slice]:
    """[0, count) in slices of at most ``size``."""
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))


@dataclass(frozen=True)
class ClassMeans:
    """directions: unit mean of each class, float32 [C, E], zero for a class without images. counts: images, int [C].

    noise: v, the ratio of noise to signal of one image.
    """

    directions: np.ndarray
    counts: np.ndarray
    noise: float

    def attenuation(self, counts: np.ndarray | int) -> np.ndarray:
        """sqrt(1 + v / n), by which the length of a mean of n images exceeds its signal."""
        return np.sqrt(1 + self.noise / np.maximum(counts, 1))

    def corrected(self, which: np.ndarray | slice) -> np.ndarray:
        """The directions multiplied by their attenuation: products of two are estimated cosines."""
        return self.directions[which] * self.attenuation(self.counts[which])[:, None].astype(np.float32)


def class_means(embeddings: np.ndarray, labels: np.ndarray, num_classes: int) -> ClassMeans:
    """The means of unit embeddings [n, E]; labels: int [n]. Memory: two arrays [C, E] of float32, and a block."""
    counts = np.bincount(labels, minlength=num_classes)
    order = np.argsort(labels, kind="stable")
    half = np.empty(len(labels), np.int8)
    half[order] = (np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)) % 2
    sums = np.zeros((2, num_classes, embeddings.shape[1]), np.float32)
    for here in blocks(len(labels), ROWS):
        rows, label, side = unit(embeddings[here]), labels[here], half[here]
        for number in (0, 1):
            mine = np.flatnonzero(side == number)
            mine = mine[np.argsort(label[mine], kind="stable")]
            if len(mine):
                found, starts = np.unique(label[mine], return_index=True)
                sums[number, found] += np.add.reduceat(rows[mine], starts, axis=0)
    noise = _noise(sums, counts)
    sums[0] += sums[1]
    return ClassMeans(unit(sums[0]), counts, noise)


def _noise(sums: np.ndarray, counts: np.ndarray) -> float:
    """v by the median over classes of n / 2 * (1 / cosine of the halves - 1); 1.0 where no class has images enough."""
    estimates = []
    enough = np.flatnonzero(counts >= _LEAST_FOR_NOISE)
    for here in blocks(len(enough), ROWS):
        chosen = enough[here]
        cosine = np.einsum("ce,ce->c", unit(sums[0][chosen]), unit(sums[1][chosen]))
        estimates.append(counts[chosen] / 2 * (1 / np.maximum(cosine, 1e-3) - 1))
    return max(0.0, float(np.median(np.concatenate(estimates)))) if estimates else 1.0


@dataclass(frozen=True)
class Meetings:
    """Pairs of classes. pairs: int [m, 2], the smaller label first; cosines: estimated, float [m], descending.

    nearest: for each class with images the estimated cosine with the nearest other one, float [K].
    """

    pairs: np.ndarray
    cosines: np.ndarray
    nearest: np.ndarray


def meetings(means: ClassMeans, threshold: float | None) -> Meetings:
    """All pairs of classes whose estimated cosine is at least ``threshold``; None: halfway from the median of the
    cosines of nearest classes to 1."""
    present = np.flatnonzero(means.counts)
    rows = means.corrected(present)
    nearest = np.full(len(present), -1.0, np.float32)
    for _, here, cosine in _products(rows):
        nearest[here] = np.maximum(nearest[here], cosine.max(axis=1))
    limit = halfway(nearest) if threshold is None else threshold
    found, values = [], []
    for over, here, cosine in _products(rows):
        one, other = np.nonzero(cosine >= limit)
        values.append(cosine[one, other])
        pair = np.stack([one + here.start, other + over.start], axis=1)
        keep = pair[:, 0] < pair[:, 1]
        found.append(present[pair[keep]])
        values[-1] = values[-1][keep]
    pairs = np.concatenate(found) if found else np.empty((0, 2), np.int64)
    cosines = np.concatenate(values) if values else np.empty(0, np.float32)
    order = np.argsort(-cosines, kind="stable")
    return Meetings(pairs[order], np.minimum(cosines[order], 1), nearest)


def halfway(nearest: np.ndarray) -> float:
    """Halfway from the median cosine of nearest classes to 1."""
    return (float(np.median(nearest)) + 1) / 2 if len(nearest) else 1.0


def _products(rows: np.ndarray) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """(columns, rows, their products) in blocks; -1 on the diagonal."""
    for here in blocks(len(rows), IMAGES):
        for over in blocks(len(rows), ROWS):
            cosine = rows[here] @ rows[over].T
            both = np.arange(max(here.start, over.start), min(here.stop, over.stop))
            cosine[both - here.start, both - over.start] = -1
            yield over, here, cosine
