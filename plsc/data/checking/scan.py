"""All images looked at by several processes: their hashes in arrays, and what is wrong with them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from plsc.data.checking.look import WORDS, Seen, look_at
from plsc.data.datasets import SourceDataset
from plsc.data.fork_pool import in_order, progress_line

BLOCK = 64  # images that a process is given at a time
MOST_LISTED = 10_000  # problems that are kept with their text; all are counted
LOG_SECONDS = 5


@dataclass(frozen=True)
class Problem:
    """An image that training cannot use. index: in the source; kind: one of plsc.data.checking.look.KINDS."""

    index: int
    kind: str
    text: str


@dataclass
class Scan:
    """What was seen, 29 bytes an image.

    labels: int32 [n], -1 where it is not known. digests: uint64 [n]. perceptual: uint64 [n, 2]. has: uint8 [n], 0: not
    read; 1: with a digest; 2: with both hashes. problems: the first MOST_LISTED; counts: of all, by their kinds.
    """

    labels: np.ndarray
    digests: np.ndarray
    perceptual: np.ndarray
    has: np.ndarray
    problems: list[Problem] = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)

    @classmethod
    def of(cls, count: int) -> Scan:
        """Nothing seen yet of so many images."""
        return cls(
            np.full(count, -1, np.int32), np.zeros(count, np.uint64), np.zeros((count, WORDS), np.uint64),
            np.zeros(count, np.uint8),
        )  # fmt: skip

    def add(self, index: int, seen: Seen) -> None:
        """One image."""
        self.labels[index] = seen.label
        if seen.digest is not None:
            self.digests[index], self.has[index] = seen.digest, 1
        if seen.perceptual is not None:
            self.perceptual[index], self.has[index] = seen.perceptual, 2
        if seen.kind:
            self.counts[seen.kind] += 1
            if len(self.problems) < MOST_LISTED:
                self.problems.append(Problem(index, seen.kind, seen.text))


def scan(dataset: SourceDataset, processes: int, log: Callable[[str], None] = lambda line: None) -> Scan:
    """Look at every image once. processes: 0 looks in this one. log: hears every five seconds how far it is.

    Raises DataError where a process ends, as the kernel ends it for want of memory.
    """
    found, began = Scan.of(len(dataset)), time.monotonic()
    told = began
    firsts = range(0, len(dataset), BLOCK)
    for first, block in in_order(lambda first: _look(dataset, first), firsts, processes, "check"):
        for index, seen in enumerate(block, first):
            found.add(index, seen)
        now = time.monotonic()
        if now - told >= LOG_SECONDS:
            told = now
            log(progress_line(first + len(block), len(dataset), now - began))
    return found


def _look(dataset: SourceDataset, first: int) -> list[Seen]:
    return [look_at(dataset, index) for index in range(first, min(first + BLOCK, len(dataset)))]
