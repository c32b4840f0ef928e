"""Embeddings as a trained net has them, with planted errors whose places are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SIZE, CLASSES = 64, 200


@dataclass
class Planted:
    """embeddings [n, E], labels and centres as one sees them; the rest is what was planted."""

    embeddings: np.ndarray
    labels: np.ndarray
    centres: np.ndarray
    flipped: set[int]  # images with the label of another class
    truth: np.ndarray  # the identity of each image
    merges: set[tuple[int, int]]  # classes of one identity
    splits: set[int]  # classes of two identities
    copies: set[tuple[int, int]]  # images that are almost the same, in two classes


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def planted(seed: int, noise: float = 1.0, flips: float = 0.1) -> Planted:
    """4 to 40 images of a class, whose noise is `noise` times as long as the signal: with 1.0 cosines of 0.7.

    Classes 0 to 9 are the identities of classes 10 to 19 once more. Classes 20 to 29 are of two identities each. Then
    flips * n of the labels are replaced by others; 20 images of classes from 30 on are copied into other classes.
    """
    draw = np.random.default_rng(seed)
    identity = unit(draw.standard_normal((CLASSES + 10, SIZE)))
    sizes = draw.integers(4, 41, CLASSES)
    sizes[20:30] = np.maximum(sizes[20:30], 12)
    labels = np.repeat(np.arange(CLASSES), sizes)
    truth = np.where(labels < 10, labels + 10, labels)
    second = (labels >= 20) & (labels < 30) & (draw.random(len(labels)) < 0.5)
    truth[second] = CLASSES + labels[second] - 20
    rows = unit(identity[truth] + noise * draw.standard_normal((len(labels), SIZE)) / np.sqrt(SIZE))
    flipped = draw.choice(np.flatnonzero(labels >= 30), round(flips * len(labels)), replace=False)
    labels[flipped] = 30 + (labels[flipped] - 30 + draw.integers(1, CLASSES - 30, len(flipped))) % (CLASSES - 30)
    left = np.setdiff1d(np.flatnonzero(labels >= 30), flipped)
    first, other = draw.choice(left, 40, replace=False).reshape(2, 20)
    keep = labels[first] != labels[other]
    first, other = first[keep], other[keep]
    rows[other] = unit(rows[first] + 0.1 * draw.standard_normal((len(first), SIZE)) / np.sqrt(SIZE))
    truth[other] = truth[first]
    sums = np.zeros((CLASSES, SIZE))
    np.add.at(sums, labels, rows)
    centres = unit(
        sums + 0.3 * np.linalg.norm(sums, axis=1, keepdims=True) * draw.standard_normal((CLASSES, SIZE)) / np.sqrt(SIZE)
    )
    return Planted(
        rows.astype(np.float32), labels, centres.astype(np.float32), set(flipped.tolist()), truth,
        {(one, one + 10) for one in range(10)}, set(range(20, 30)),
        {tuple(sorted(pair)) for pair in zip(first.tolist(), other.tolist())},
    )  # fmt: skip


def precision_recall(found: set, wanted: set) -> tuple[float, float]:
    right = len(found & wanted)
    return right / max(1, len(found)), right / max(1, len(wanted))
