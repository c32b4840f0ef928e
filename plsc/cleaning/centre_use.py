"""Which of the centres of its class each image is nearest to, where classes have several (sub-centre ArcFace).

The dominant centre of a class is the one that most of its images are nearest to (Deng et al. 2020, section 3.3): wrong
labels and hard images gather at the others.
"""

from __future__ import annotations

import numpy as np

from plsc.cleaning.classes import ROWS, blocks, unit


class CentreUse:
    """Of the images with ``embeddings`` [n, E] and ``labels`` int [n]; classes have ``number`` centres."""

    def __init__(self, embeddings: np.ndarray, labels: np.ndarray, number: int):
        self._embeddings, self._number = embeddings, number
        self._order = np.argsort(labels, kind="stable")
        self._labels = labels[self._order]

    def counts(self, first: int, rows: np.ndarray) -> np.ndarray:
        """int64 [R, K]: how many images are nearest to each centre of the classes first .. first + R - 1, whose
        ``rows`` are [R, K * E]. An image with equal cosines counts for the first."""
        found = np.zeros((len(rows), self._number), np.int64)
        for own, cosines in self._cosines(first, rows):
            np.add.at(found, (own, cosines.argmax(axis=1)), 1)
        return found

    def cosines(self, first: int, rows: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """float32: the cosine of each image of these classes with the centre ``chosen`` int [R] of its class."""
        found = [cosines[np.arange(len(own)), chosen[own]] for own, cosines in self._cosines(first, rows)]
        return np.concatenate([np.empty(0, np.float32), *found])

    def _cosines(self, first: int, rows: np.ndarray):
        """(class of each image less ``first``, cosines [m, K] with its centres), a block of images at a time."""
        begin, end = np.searchsorted(self._labels, [first, first + len(rows)])
        centres = unit(rows.reshape(-1, self._embeddings.shape[1])).reshape(len(rows), self._number, -1)
        for here in blocks(int(end - begin), ROWS):
            images = self._order[begin:end][here]
            own = self._labels[begin:end][here] - first
            yield own, np.einsum("nke,ne->nk", centres[own], unit(self._embeddings[images]))


def dominant(counts: np.ndarray) -> np.ndarray:
    """int64 [R]: the centre with the most images, of ``counts`` [R, K]; the first of equal ones, and without images."""
    return counts.argmax(axis=1)


def keep(rows: np.ndarray, chosen: np.ndarray, number: int) -> np.ndarray:
    """[R, E]: the centre ``chosen`` int [R] of each class of ``rows`` [R, number * E]."""
    return rows.reshape(len(rows), number, -1)[np.arange(len(rows)), chosen]
