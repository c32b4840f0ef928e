"""Images that are far from the centre of their class: with the label of another class, or like no class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from plsc.cleaning.classes import IMAGES, ROWS, blocks, unit

SAMPLE = 10_000  # images by which the cosine with the nearest other class is known
_SIGMA = 1.4826  # of a normal distribution, in median absolute deviations
_DEVIATIONS = 3


@dataclass(frozen=True)
class LabelLimits:
    """far: an image whose cosine with its centre is below is as far from it as from other classes. near: one whose
    cosine with a centre is at least this is like the images of that class."""

    far: float
    near: float

    @property
    def between(self) -> float:
        """Halfway: an image below is not like its own class."""
        return (self.far + self.near) / 2


@dataclass(frozen=True)
class FarImages:
    """Images that are not like their class, in the order of their indices.

    index: int [m]. own, cosine: with their centre, and with that of the nearest other class ``nearest``, [m].
    mislabelled: bool [m], whether they are like that class; the others are like no class.
    """

    index: np.ndarray
    own: np.ndarray
    nearest: np.ndarray
    cosine: np.ndarray
    mislabelled: np.ndarray


def own_cosines(embeddings: np.ndarray, labels: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The cosine of each image with the centre of its class, float32 [n]. centres: unit [C, E]."""
    own = np.empty(len(labels), np.float32)
    for here in blocks(len(labels), ROWS):
        own[here] = np.einsum("ne,ne->n", unit(embeddings[here]), centres[labels[here]])
    return own


def nearest_other(rows: np.ndarray, labels: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(label, cosine) of the nearest centre of another class. rows: unit [n, E]; labels: own ones, -1 for none."""
    label, cosine = np.full(len(rows), -1, np.int64), np.full(len(rows), -2, np.float32)
    for here in blocks(len(rows), IMAGES):
        for over in blocks(len(centres), ROWS):
            found = rows[here] @ centres[over].T
            mine = np.flatnonzero((labels[here] >= over.start) & (labels[here] < over.stop))
            found[mine, labels[here][mine] - over.start] = -2
            best = found.argmax(axis=1)
            value = found[np.arange(len(best)), best]
            better = value > cosine[here]
            label[here][better], cosine[here][better] = best[better] + over.start, value[better]
    return label, cosine


def label_limits(embeddings: np.ndarray, labels: np.ndarray, own: np.ndarray, centres: np.ndarray) -> LabelLimits:
    """The limits by the distributions of the data.

    far: the median cosine with the nearest other class, of a sample. near: the median of the own cosines less three
    standard deviations (by the median absolute deviation), but not below far.
    """
    step = max(1, len(labels) // SAMPLE)
    chosen = np.arange(0, len(labels), step)
    _, cosine = nearest_other(unit(embeddings[chosen]), labels[chosen], centres)
    far, median = float(np.median(cosine)), float(np.median(own))
    spread = _DEVIATIONS * _SIGMA * float(np.median(np.abs(own - median)))
    return LabelLimits(far, max(far, median - spread))


def far_images(
    embeddings: np.ndarray, labels: np.ndarray, own: np.ndarray, centres: np.ndarray, limits: LabelLimits
) -> FarImages:
    """Mislabelled images: below ``limits.between`` with their own centre, and ``limits.near`` to another. The others:
    below ``limits.far``, and near no other. Only images below these are compared with all centres, a block at a time.
    """
    index = np.flatnonzero(own < max(limits.between, limits.far))
    nearest, cosine = np.empty(len(index), np.int64), np.empty(len(index), np.float32)
    for here in blocks(len(index), ROWS):
        chosen = index[here]
        nearest[here], cosine[here] = nearest_other(unit(embeddings[chosen]), labels[chosen], centres)
    mislabelled = (cosine >= limits.near) & (cosine > own[index]) & (own[index] < limits.between)
    keep = mislabelled | ((own[index] < limits.far) & (cosine < limits.near))
    return FarImages(index[keep], own[index][keep], nearest[keep], cosine[keep], mislabelled[keep])
