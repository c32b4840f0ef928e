"""A pool of threads, each with an object that only it may use."""

from __future__ import annotations

import ctypes
import functools
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from plsc.errors import ExportError


class Lifetime:
    """Whether the native objects of ``owner`` may be used: they are open, and this process opened them.

    A fork has none of its parent's threads; freeing native objects there would wait for these threads or crash. So the
    owner is never freed in a fork.
    """

    def __init__(self, owner: object) -> None:
        self._process = os.getpid()
        self.closed = False
        os.register_at_fork(after_in_child=functools.partial(_never_free, weakref.ref(owner)))

    @property
    def in_own_process(self) -> bool:
        """False in a fork of the process that opened the objects."""
        return os.getpid() == self._process

    def require_usable(self) -> None:
        """Raise ExportError after ``close`` and in a fork."""
        if not self.in_own_process:
            raise ExportError(
                f"the model was opened in process {self._process} and cannot be used in its fork {os.getpid()}; open "
                "a Predictor in each process, after the fork"
            )
        if self.closed:
            raise ExportError("the model is closed; open a new Predictor")


class ObjectPool:
    """Threads with one object each, which is made and used in that thread only.

    ``make()`` returns such an object. A new thread is started if all others are busy, up to ``limit``; further callers
    wait. Callers may be any threads.

    Why not a lock: oneDNN's primitives have scratch memory per thread, and running those of another thread fails with
    "could not execute a primitive"; OpenMP keeps a team of threads for each thread that ever called it.
    """

    def __init__(self, make: Callable[[], Any], limit: int):
        self._lifetime = Lifetime(self)
        self._make: Callable[[], Any] | None = make
        self._make_lock = threading.Lock()
        self._made: list[Any] = []  # held here, as a fork frees the objects that threads hold
        self._local = threading.local()
        self._threads = ThreadPoolExecutor(limit, "plsc-predictor")

    def run(self, work: Callable[[Any], Any]) -> Any:
        """Run ``work(object)`` in one of the threads and return its result. Raises ExportError if closed or forked."""
        self._lifetime.require_usable()
        try:
            future = self._threads.submit(self._call, work)
        except RuntimeError:  # closed meanwhile, or the interpreter is ending
            self._lifetime.closed = True
            self._lifetime.require_usable()
        return future.result()

    def close(self) -> None:
        """Wait for running and waiting calls, then free all objects. Does nothing in a fork."""
        if not self._lifetime.in_own_process:
            return
        self._lifetime.closed = True
        self._threads.shutdown(wait=True)
        self._local = threading.local()
        self._make = None
        self._made.clear()

    def _call(self, work: Callable[[Any], Any]) -> Any:
        index = getattr(self._local, "index", None)
        if index is None:
            with self._make_lock:
                assert self._make is not None  # None only after close, which require_usable checks
                self._made.append(self._make())
                index = self._local.index = len(self._made) - 1
        return work(self._made[index])


def _never_free(owner: weakref.ref) -> None:
    """Add a reference, so that the object is never freed."""
    alive = owner()
    if alive is not None:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(alive))
