"""Copies between the host and a GPU: in time, or behind the programs that the GPU has been given, without waiting.

``Executor.run`` with arrays to feed waits for the program before it: Paddle copies an array from pageable memory on the
legacy default stream, which the computing stream is synchronised with, and reads a variable in the same way. A copy
from or to pinned memory is queued on the computing stream (docs/gpu_program.md, "What a step waits for").
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle

from plsc.backend import private

POLL_SECONDS = 1e-4  # an event's own wait keeps Python's lock, and with it the threads that save and watch the ranks

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sent:
    """What a program is fed, and the pinned ``buffers`` that it is copied from, by name."""

    feed: dict[str, Any]
    buffers: dict[str, Any]


class InTime:
    """Copies that Paddle makes when it is fed and read; reading waits. On a CPU there is nothing to wait for."""

    def send(self, feed: Mapping[str, np.ndarray]) -> Sent:
        """What to feed to a program for ``feed``."""
        return Sent(dict(feed), {})

    def begin_read(self, variable: Any, sent: Sent) -> Callable[[], np.ndarray]:
        """A function that returns the value which ``variable`` has after the program that was fed ``sent``."""
        value = np.array(variable)
        return lambda: value


@dataclass(frozen=True)
class Queue:
    """The computing stream of a device. ``place``: of the device; ``pinned``: of host memory that it copies from and
    to by itself; ``mark()``: a function that tells whether all that was queued before has been done."""

    place: Any
    pinned: Any
    mark: Callable[[], Callable[[], bool]]

    def copy(self, source: Any, target: Any, place: Any) -> None:
        """Queue a copy of a tensor to another one, at ``place``."""
        target._copy_from(source, place)


class Behind:
    """Copies that are queued behind what the device has been given.

    A pinned buffer that a copy reads may not change, nor be freed, before the copy was made. So those of a step are
    used again only when its results have been read, which is behind all of its operations.
    """

    def __init__(self, queue: Queue):
        self._queue = queue
        self._tensor = private.require("base.core.LoDTensor")
        self._free: dict[str, list] = {}

    def send(self, feed: Mapping[str, np.ndarray]) -> Sent:
        """See InTime."""
        tensors, buffers = {}, {}
        for name, array in feed.items():
            buffers[name], tensors[name] = self._buffer(name), self._tensor()
            buffers[name].set(np.ascontiguousarray(array), self._queue.pinned)
            self._queue.copy(buffers[name], tensors[name], self._queue.place)
        return Sent(tensors, buffers)

    def begin_read(self, variable: Any, sent: Sent) -> Callable[[], np.ndarray]:
        """See InTime; the function waits until the program has ended, not for those that were started after it."""
        buffer = self._buffer("")
        # what is read before its time is no number, and not that of the step before
        buffer.set(np.full(variable.shape(), np.nan), self._queue.pinned)
        self._queue.copy(variable, buffer, self._queue.pinned)
        done = self._queue.mark()

        def read() -> np.ndarray:
            while not done():
                time.sleep(POLL_SECONDS)
            value = np.array(buffer)
            for name, used in {**sent.buffers, "": buffer}.items():
                self._free.setdefault(name, []).append(used)
            return value

        return read

    def _buffer(self, name: str) -> Any:
        free = self._free.get(name)
        return free.pop() if free else self._tensor()


def copies_of_gpu(device_id: int) -> InTime | Behind:
    """``Behind`` for this GPU; where this Paddle cannot do it, InTime, and the log says why."""
    try:
        place = paddle.CUDAPlace(device_id)
        current_stream, event_type = private.require("base.core._get_current_stream"), paddle.device.cuda.Event

        def mark() -> Callable[[], bool]:
            event = event_type()
            event.record(current_stream(device_id))
            return event.query

        behind = Behind(Queue(place, paddle.CUDAPinnedPlace(), mark))
        there = behind.send({"x": np.arange(3.0)})
        if behind.begin_read(there.feed["x"], there)().tolist() != [0.0, 1.0, 2.0]:
            raise ValueError("a copy to the GPU and back brought other numbers")
        return behind
    except Exception as error:  # whatever a Paddle that is not known says: the slower way is always there
        log.warning("the results of each step are waited for, because copies behind it failed: %s", error)
        return InTime()
