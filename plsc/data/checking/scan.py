"""All images looked at by several processes: their hashes in arrays, and what is wrong with them."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field

import numpy as np

from plsc.data.checking.look import WORDS, Seen, look_at
from plsc.data.datasets import SourceDataset
from plsc.errors import DataError

BLOCK = 64  # images that a process is given at a time
MOST_LISTED = 10_000  # problems that are kept with their text; all are counted
LOG_SECONDS = 5
_AHEAD = 4  # blocks for each process that are on their way
_PR_SET_PDEATHSIG = 1  # prctl(2): the signal a process gets when its parent is gone


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
    for first, block in _blocks(dataset, processes):
        for index, seen in enumerate(block, first):
            found.add(index, seen)
        now = time.monotonic()
        if now - told >= LOG_SECONDS:
            told = now
            log(progress_line(first + len(block), len(dataset), now - began))
    return found


def progress_line(done: int, count: int, seconds: float) -> str:
    """How far it is, how fast, and how long it will take."""
    rate = done / seconds
    left = round((count - done) / rate)
    clock = f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"
    return f"{done:,} of {count:,} images ({100 * done / count:.1f} %), {rate:,.0f} a second, {clock} left"


def _blocks(dataset: SourceDataset, processes: int) -> Iterator[tuple[int, list[Seen]]]:
    """(index of the first, what was seen) of each block, in order."""
    firsts = range(0, len(dataset), BLOCK)
    if not processes:
        for first in firsts:
            yield first, _look(dataset, first)
        return
    context, libc = multiprocessing.get_context("fork"), ctypes.CDLL(None)
    pool = ProcessPoolExecutor(
        min(processes, len(firsts)), context, initializer=_begin, initargs=(dataset, os.getpid(), libc)
    )
    waiting: deque[tuple[int, Future]] = deque()
    try:
        for first in firsts:
            with warnings.catch_warnings():  # Python 3.12 warns of a fork beside threads: these only run Python
                warnings.simplefilter("ignore", DeprecationWarning)
                waiting.append((first, pool.submit(_look_in_process, first)))
            if len(waiting) >= _AHEAD * processes:
                yield _result(*waiting.popleft())
        while waiting:
            yield _result(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _result(first: int, future: Future) -> tuple[int, list[Seen]]:
    try:
        return first, future.result()
    except BrokenProcessPool:
        raise DataError(
            f"check of images {first} and after: a process that decodes ended; the machine may be out of memory: use "
            "fewer (--processes)"
        ) from None


def _look(dataset: SourceDataset, first: int) -> list[Seen]:
    return [look_at(dataset, index) for index in range(first, min(first + BLOCK, len(dataset)))]


class _Process:
    """What a process of the pool looks at; set when it begins."""

    dataset: SourceDataset


def _begin(dataset: SourceDataset, parent: int, libc: ctypes.CDLL) -> None:
    """A process ends with its parent, however that ends; Ctrl-C is the parent's."""
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _Process.dataset = dataset


def _look_in_process(first: int) -> list[Seen]:
    return _look(_Process.dataset, first)
