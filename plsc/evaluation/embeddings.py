"""Checks and normalization of embeddings, before they are compared."""

from __future__ import annotations

from typing import Any

import numpy as np

from plsc.errors import DataError

ROWS = 2048  # rows per block, so that a gallery of millions is never copied whole; even, for pairs


def check_embeddings(embeddings: Any, what: str) -> np.ndarray:
    """Return the embeddings [M, E] as an array. Raises DataError that begins with `what` unless they are
    floating point and finite and E >= 1."""
    array = np.asarray(embeddings)
    if array.ndim != 2 or not array.shape[1] or array.dtype.kind != "f":
        raise DataError(f"{what}: {array.dtype} {list(array.shape)}, expected floating point [images, embedding_size]")
    good = np.zeros(len(array), bool)
    for start in range(0, len(array), ROWS):
        good[start : start + ROWS] = np.isfinite(array[start : start + ROWS]).all(axis=1)
    bad = np.flatnonzero(~good)
    if len(bad):
        raise DataError(f"{what}: {len(bad)} of {len(array)} are not finite, the first is that of image {bad[0]}")
    return array


def norms(embeddings: np.ndarray) -> np.ndarray:
    """Euclidean length of each row, float64 [M]."""
    lengths = np.zeros(len(embeddings))
    for start in range(0, len(embeddings), ROWS):
        largest, _, length = _scaled(embeddings[start : start + ROWS])
        lengths[start : start + ROWS] = (largest * length)[:, 0]
    return lengths


def normalize(embeddings: np.ndarray) -> np.ndarray:
    """Divide each row by its length: float64 [M, E]. A zero row stays zero."""
    units = np.empty(embeddings.shape, np.float64)
    for start in range(0, len(embeddings), ROWS):
        _, scaled, length = _scaled(embeddings[start : start + ROWS])
        np.divide(scaled, np.maximum(length, 1.0), out=units[start : start + ROWS])
    return units


def _scaled(embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Largest absolute entry [M, 1], the rows divided by it [M, E], and the length of those [M, 1]; all float64.

    That length is between 1 and sqrt(E), or 0 for a zero row, so squares neither overflow nor underflow.
    """
    wide = np.asarray(embeddings, np.float64)
    largest = np.abs(wide).max(axis=1, keepdims=True)
    scaled = wide / np.where(largest > 0, largest, 1.0)
    return largest, scaled, np.sqrt(np.square(scaled).sum(axis=1, keepdims=True))


def combine_flip(original: np.ndarray, flipped: np.ndarray) -> tuple[np.ndarray, float]:
    """Combine embeddings for the flip test: (embeddings float64 [M, E] of length 1, xnorm).

    original, flipped [M, E]: embeddings of each image and of its mirror image, as the model returns them. They are
    added and the sum is divided by its length (zero stays zero). xnorm is the mean length of all 2M given embeddings.

    Raises DataError if they differ in shape, are not floating point, or are not finite.
    """
    original = check_embeddings(original, "embeddings")
    flipped = check_embeddings(flipped, "embeddings of the flipped images")
    if original.shape != flipped.shape or not len(original):
        raise DataError(f"embeddings: {list(original.shape)}, flipped {list(flipped.shape)}; must be equal, not empty")
    xnorm = float((norms(original).mean() + norms(flipped).mean()) / 2)
    combined = np.empty(original.shape, np.float64)
    for start in range(0, len(original), ROWS):
        rows = slice(start, start + ROWS)
        combined[rows] = normalize(np.add(original[rows], flipped[rows], dtype=np.float64))
    return combined, xnorm
