"""Pairs of images of different groups with almost the same embedding, without comparing all pairs.

The signs of products with random directions agree for similar embeddings (Charikar 2002, Similarity Estimation
Techniques from Rounding Algorithms): with the angle a each of the 24 bits of a key differs with probability a / pi. Of
64 such keys one at least is equal with probability 0.9999 at a cosine of 0.97, 0.995 at 0.95, and 0.8 at 0.9. Images
with an equal key are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from plsc.cleaning.classes import ROWS, blocks, unit
from plsc.data.checking.equal_keys import crowded, equal_pairs

_BITS, _KEYS, _AT_ONCE = 24, 64, 8  # bits of a key; keys; keys in memory at a time: a pass over the embeddings each
_SEED = 0
_SAMPLE = 10_000  # images by which the limit is found
_SHARE = 10


@dataclass(frozen=True)
class SimilarPairs:
    """pairs: int [m, 2], the smaller index first, ascending. cosines: float [m]. complete: False where more than 64
    images had an equal key, so that not all of them were compared."""

    pairs: np.ndarray
    cosines: np.ndarray
    complete: bool


class Stacked:
    """Several arrays [n, E] as one, of which rows are read by index; the arrays may be memory-mapped."""

    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        self._arrays = list(arrays)
        self._starts = np.cumsum([0, *(len(one) for one in self._arrays)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def unit_rows(self, index: np.ndarray) -> np.ndarray:
        """The rows ``index``, each of length 1, float32."""
        found = np.empty((len(index), self._arrays[0].shape[1]), np.float32)
        for array, start, end in zip(self._arrays, self._starts[:-1], self._starts[1:]):
            mine = np.flatnonzero((index >= start) & (index < end))
            if len(mine):
                found[mine] = array[index[mine] - start]
        return unit(found)


def similar_limit(embeddings: np.ndarray, labels: np.ndarray) -> float:
    """1 - (1 - q) / 10, where q is the median cosine of an image with the most similar one of its class, of a sample of
    classes: a tenth of the usual squared distance. 1.0 where no class has two images."""
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    sizes = np.diff(np.append(starts, len(order)))
    several = np.flatnonzero(sizes > 1)
    several = several[:: max(1, int(sizes[several].sum()) // _SAMPLE)]
    best = []
    for group in several:
        rows = unit(embeddings[order[starts[group] : starts[group] + min(sizes[group], ROWS)]])
        cosine = rows @ rows.T
        np.fill_diagonal(cosine, -1)
        best.append(cosine.max(axis=1))
    return 1 - (1 - float(np.median(np.concatenate(best)))) / _SHARE if best else 1.0


def similar_pairs(embeddings: Stacked, groups: np.ndarray, limit: float) -> SimilarPairs:
    """Pairs of images of different groups whose cosine is at least ``limit``. groups: int [n].

    Time and memory grow with n: 32 bytes an image.
    """
    size = embeddings.unit_rows(np.arange(1)).shape[1]
    draw = np.random.Generator(np.random.Philox(key=[_SEED, 0]))
    found: dict[tuple[int, int], float] = {}
    complete = True
    for _ in range(_KEYS // _AT_ONCE):
        directions = draw.standard_normal((size, _AT_ONCE * _BITS), np.float32)
        keys = np.empty((_AT_ONCE, len(embeddings)), np.uint32)
        for here in blocks(len(embeddings), ROWS):
            signs = embeddings.unit_rows(np.arange(here.start, here.stop)) @ directions > 0
            weights = np.uint32(1) << np.arange(_BITS, dtype=np.uint32)
            keys[:, here] = (signs.reshape(len(signs), _AT_ONCE, _BITS) * weights).sum(axis=2, dtype=np.uint32).T
        for key in keys:
            for one, other in equal_pairs(key):
                differ = groups[one] != groups[other]
                one, other = one[differ], other[differ]
                for here in blocks(len(one), ROWS):
                    a, b = one[here], other[here]
                    cosine = np.einsum("ne,ne->n", embeddings.unit_rows(a), embeddings.unit_rows(b))
                    for place in np.flatnonzero(cosine >= limit):
                        pair = sorted((int(a[place]), int(b[place])))
                        found[pair[0], pair[1]] = float(cosine[place])
            complete &= not crowded(key)
    pairs = sorted(found)
    return SimilarPairs(np.array(pairs, np.int64).reshape(-1, 2), np.array([found[one] for one in pairs]), complete)

