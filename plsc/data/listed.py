"""Chosen samples of the training data, each once and in order, in batches of all ranks."""

from __future__ import annotations

from typing import Protocol

import numpy as np


def images_of(labels: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The indices, in rising order, of the images whose label is a class that is ``chosen`` [C] bool. A label that is
    no class is left out; it is reported when its image is read."""
    inside = (labels >= 0) & (labels < len(chosen))
    return np.flatnonzero(inside & chosen[np.where(inside, labels, 0)])


class BatchSampler(Protocol):
    """The samples that a rank reads in each step. ``batch_size``: their number."""

    batch_size: int

    def indices(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """(epoch [B] int64, index [B] int64) of the samples of this rank."""
        ...


class ListedSampler:
    """The samples ``index`` [n] in this order. Step s has positions [s*G, (s+1)*G) with G = batch_size * world_size,
    and rank r the r-th batch_size of them. The last step is filled up with the last sample, see ``real``."""

    def __init__(self, index: np.ndarray, batch_size: int, rank: int, world_size: int):
        self.batch_size = batch_size
        self._index = index
        self._first, self._global_batch = rank * batch_size, batch_size * world_size

    def __len__(self) -> int:
        """The number of samples."""
        return len(self._index)

    @property
    def steps(self) -> int:
        """The number of steps that read all samples."""
        return -(-len(self._index) // self._global_batch)

    def indices(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """See BatchSampler; the epoch is 0."""
        position = step * self._global_batch + self._first + np.arange(self.batch_size)
        index = self._index[np.minimum(position, len(self._index) - 1)].astype(np.int64)
        return np.zeros_like(index), index

    def real(self, step: int) -> int:
        """How many samples of the global batch of this step are there; those after them are filled in."""
        return min(self._global_batch, len(self._index) - step * self._global_batch)
