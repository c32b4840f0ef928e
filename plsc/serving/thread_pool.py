"""Threads that own what only one thread may use."""

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
    """Whether what ``owner`` holds may be used: it is open, and this is the process that opened it.

    A fork has none of its parent's threads, and native objects that are freed there wait for them or crash. So in a
    fork the owner is never freed.
    """

    def __init__(self, owner: object) -> None:
        self._process = os.getpid()
        self.closed = False
        os.register_at_fork(after_in_child=functools.partial(_never_free, weakref.ref(owner)))

    @property
    def in_own_process(self) -> bool:
        """False in a fork of the process that opened it, which has none of its threads."""
        return os.getpid() == self._process

    def require_usable(self) -> None:
        """Raise ExportError where it must not be used."""
        if not self.in_own_process:
            raise ExportError(
                f"the model was opened in process {self._process} and cannot be used in its fork {os.getpid()}; open "
                "a Predictor in each process, after the fork"
            )
        if self.closed:
            raise ExportError("the model is closed; open another Predictor")


class ObjectPool:
    """Threads that each have an object of their own, which is made and used in that thread only.

    ``make()`` gives such an object; a thread is started where all others are busy, up to ``limit``, then callers wait
    for their turn. They may come from any threads.

    Why not a lock: oneDNN's primitives keep scratch memory by thread, and running those of another thread ends with
    "could not execute a primitive"; OpenMP has a team of threads for each thread that ever called it.
    """

    def __init__(self, make: Callable[[], Any], limit: int):
        self._lifetime = Lifetime(self)
        self._make: Callable[[], Any] | None = make
        self._make_lock = threading.Lock()
        self._made: list[Any] = []  # held here and not by the threads: a fork would free what those hold
        self._local = threading.local()
        self._threads = ThreadPoolExecutor(limit, "plsc-predictor")

    def run(self, work: Callable[[Any], Any]) -> Any:
        """``work(object)`` in one of the threads. Raises what it raises, and ExportError when closed or in a fork."""
        self._lifetime.require_usable()
        try:
            future = self._threads.submit(self._call, work)
        except RuntimeError:  # closed meanwhile, or the interpreter is ending
            self._lifetime.closed = True
            self._lifetime.require_usable()
        return future.result()

    def close(self) -> None:
        """Let those that wait or run finish, then drop all objects. In a fork there is nothing to do."""
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
                assert self._make is not None  # None once it is closed, when nobody gets here
                self._made.append(self._make())
                index = self._local.index = len(self._made) - 1
        return work(self._made[index])


def _never_free(owner: weakref.ref) -> None:
    """Count one reference more than there is."""
    alive = owner()
    if alive is not None:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(alive))
