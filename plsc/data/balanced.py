"""Balanced batches: groups of P identities with K images each (`data.sampler: balanced`)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from plsc.data.label_counts import count_by_class
from plsc.data.philox import BALANCED_IDENTITIES, BALANCED_IMAGES, philox
from plsc.data.shared_index import is_large_order, share_order
from plsc.errors import DataError

_BLOCK = 1 << 18  # places of identities whose images are drawn at a time, each block by a stream of its own


@dataclass(frozen=True)
class GroupSize:
    """identities: P, different ones within a group. images: K, of each identity."""

    identities: int
    images: int

    @property
    def total(self) -> int:
        """The samples of a group, P * K."""
        return self.identities * self.images


class BalancedOrder:
    """The samples of each epoch as groups of P identities x K images, a pure function of (seed, epoch).

    An epoch has as many samples as there are images, rounded up to whole groups. Its identities come in passes, each a
    random permutation of all identities with images, so that their numbers of uses in an epoch differ by at most one. A
    group that spans two passes takes from the new one the first identities that it does not hold yet. At each use, K of
    the identity's images are drawn without replacement; an identity with fewer images repeats them, each equally often
    up to one.

    The images by identity, and the order of an epoch, are shared by all processes of a machine if they are many
    (plsc.data.shared_index).

    labels: int [n], by image. Raises DataError where fewer than P identities have images.
    """

    def __init__(self, labels: np.ndarray, size: GroupSize) -> None:
        kind = np.uint32 if len(labels) < 2**32 else np.int64
        self.size = size
        self._key = _digest(labels) if is_large_order(len(labels)) else ""
        self.images = share_order(  # those of an identity are neighbours
            ["balanced images", self._key], len(labels), lambda: np.argsort(labels, kind="stable").astype(kind)
        )
        counts = count_by_class(labels, int(labels.max(initial=-1)) + 1)
        self._counts = counts[counts > 0]
        self._starts = np.cumsum(self._counts) - self._counts
        if len(self._counts) < size.identities:
            raise DataError(
                f"data.identities={size.identities}: the training data has images of {len(self._counts):,} identities, "
                f"and those of a group are different; set it to at most {len(self._counts)}"
            )
        self.length = -(-len(labels) // size.total) * size.total

    def __call__(self, seed: int, epoch: int) -> np.ndarray:
        """The images of an epoch in order, [length]: group after group, the K images of an identity as neighbours."""
        if not self._key:
            return self._epoch(seed, epoch)
        key = ["balanced", self._key, self.size.identities, self.size.images, seed, epoch]
        return share_order(key, self.length, lambda: self._epoch(seed, epoch))

    def _epoch(self, seed: int, epoch: int) -> np.ndarray:
        who = self._identities(seed, epoch)
        blocks = range(0, len(who), _BLOCK)
        return np.concatenate([self._draw(who[at : at + _BLOCK], seed, epoch, at // _BLOCK) for at in blocks])

    def note(self) -> str:
        """A line for the log: what an epoch is, and that of small identities images repeat."""
        size, small = self.size, int(np.count_nonzero(self._counts < self.size.images))
        text = (
            f"data.sampler: balanced: groups of {size.identities} identities x {size.images} images; an epoch is "
            f"{self.length:,} samples, in which each of {len(self._counts):,} identities comes "
            f"{self.length / size.images / len(self._counts):,.1f} times on average"
        )
        if small:
            text += f"; {small:,} have fewer than {size.images} images, which repeat within a group"
        return text

    def _identities(self, seed: int, epoch: int) -> np.ndarray:
        """The identity at each place of an epoch, [length / K]."""
        count, places = len(self._counts), self.length // self.size.images
        order = np.empty(places, np.int64)
        filled = number = 0
        while filled < places:
            one = np.arange(count)
            philox(seed, BALANCED_IDENTITIES, epoch, number).shuffle(one)
            begun = filled % self.size.identities  # places of a group that the last pass began
            if begun:
                held = np.isin(one, order[filled - begun : filled])
                front = np.flatnonzero(~held)[: self.size.identities - begun]
                one = np.concatenate([one[front], np.delete(one, front)])
            taken = one[: places - filled]
            order[filled : filled + len(taken)] = taken
            filled += len(taken)
            number += 1
        return order

    def _draw(self, who: np.ndarray, seed: int, epoch: int, block: int) -> np.ndarray:
        """K images of each of these identities, [len(who) * K]."""
        generator = philox(seed, BALANCED_IMAGES, epoch, block)
        counts = self._counts[who]
        chosen = np.empty((len(who), self.size.images), np.int64)
        for column in range(self.size.images):
            taken = column % counts  # drawn since all images were last drawn
            draw = generator.integers(0, counts - taken)
            chosen[:, column] = _skip(draw, chosen, column, taken)
        return self.images[(self._starts[who][:, None] + chosen).reshape(-1)]


def _digest(labels: np.ndarray) -> str:
    """A digest of labels, the same for all types of integers."""
    found = hashlib.sha256()
    for first in range(0, len(labels), _BLOCK):
        found.update(labels[first : first + _BLOCK].astype("<i8").tobytes())
    return found.hexdigest()


def _skip(draw: np.ndarray, chosen: np.ndarray, column: int, taken: np.ndarray) -> np.ndarray:
    """The draw-th of the images that are not among the last ``taken`` ones of chosen[:, :column].

    draw, taken: int64 [n]; chosen: int64 [n, K].
    """
    largest = np.iinfo(np.int64).max
    recent = np.arange(column)[None, :] >= (column - taken)[:, None]
    for value in np.sort(np.where(recent, chosen[:, :column], largest), axis=1).T:
        draw = draw + (draw >= value)
    return draw
