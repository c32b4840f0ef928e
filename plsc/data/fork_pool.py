"""Blocks of images processed by several forked processes, with results in order."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from plsc.errors import DataError

Result = TypeVar("Result")

MOST_PROCESSES = 1024
_AHEAD = 4  # blocks per process that are submitted and not yet collected
_PR_SET_PDEATHSIG = 1  # prctl(2): the signal a process gets when its parent is gone


def in_order(
    work: Callable[[int], Result], firsts: Sequence[int], processes: int, what: str
) -> Iterator[tuple[int, Result]]:
    """(first, work(first)) for each of ``firsts``, in their order.

    work: called in forks of this process, so it may hold anything; its result is pickled. processes: 0 calls it in this
    process. what: for messages ("check"). Raises what ``work`` raises, and DataError if a process ends.
    """
    if not processes or not firsts:
        for first in firsts:
            yield first, work(first)
        return
    context, libc = multiprocessing.get_context("fork"), ctypes.CDLL(None)
    pool = ProcessPoolExecutor(
        min(processes, len(firsts)), context, initializer=_begin, initargs=(work, os.getpid(), libc)
    )
    waiting: deque[tuple[int, Future]] = deque()
    try:
        for first in firsts:
            with warnings.catch_warnings():  # Python 3.12 warns of a fork beside threads: these only run Python
                warnings.simplefilter("ignore", DeprecationWarning)
                waiting.append((first, pool.submit(_work, first)))
            if len(waiting) >= _AHEAD * processes:
                yield _result(*waiting.popleft(), what)
        while waiting:
            yield _result(*waiting.popleft(), what)
    finally:
        pool.shutdown(cancel_futures=True)


def progress_line(done: int, count: int, seconds: float, before: int = 0) -> str:
    """The progress, rate and remaining time. before: images of ``done`` that were done earlier, not in ``seconds``."""
    rate = (done - before) / seconds
    left = round((count - done) / rate)
    clock = f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"
    return f"{done:,} of {count:,} images ({100 * done / count:.1f} %), {rate:,.0f} a second, {clock} left"


def _result(first: int, future: Future, what: str) -> tuple[int, Any]:
    try:
        return first, future.result()
    except BrokenProcessPool:
        raise DataError(
            f"{what} of images {first} and after: a process that decodes ended; the machine may be out of memory: use "
            "fewer (--processes)"
        ) from None


class _Process:
    """The work of a process of the pool; set when it begins."""

    work: Callable[[int], Any]


def _begin(work: Callable[[int], Any], parent: int, libc: ctypes.CDLL) -> None:
    """A process ends with its parent, however that ends; Ctrl-C is the parent's."""
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _Process.work = staticmethod(work)  # type: ignore[assignment]  # else a function would become a method


def _work(first: int) -> Any:
    return _Process.work(first)
