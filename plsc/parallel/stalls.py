"""Finds a rank that stalls. Without this, the other ranks would wait for it in a collective, silently and for ever.

Every rank sends the step that it has begun to rank 0, and rank 0 sends its own to the others, several times within the
timeout. A rank is late if another one began a step that long ago which it has not begun yet, or if nothing was received
from it for that long. Only steps count: verifying, saving and copying between them may take longer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_CHECKS = 20  # within the timeout
_MAX_SECONDS_BETWEEN_CHECKS = 1.0


class StallWatch:
    """The thread of one rank that sends steps and checks for late ranks.

    send_step(step) sends to rank 0, or from rank 0 to all others. on_stall(reason) is called once, by the thread, when
    a rank is late by more than ``seconds``.
    """

    def __init__(
        self,
        rank: int,
        world_size: int,
        seconds: float,
        send_step: Callable[[int], None],
        on_stall: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ):
        self._rank, self._seconds, self._clock = rank, seconds, clock
        self._send_step, self._on_stall = send_step, on_stall
        now = clock()
        others = range(1, world_size) if rank == 0 else [0]
        self._received = dict.fromkeys(others, now)  # rank -> time of its last message
        self._steps = dict.fromkeys([rank, *others], 0)
        self._furthest, self._since, self._checked = 0, now, now
        self._pause = min(seconds / _CHECKS, _MAX_SECONDS_BETWEEN_CHECKS)
        self._closed = threading.Event()

    def start(self) -> StallWatch:
        threading.Thread(target=self._run, daemon=True, name="plsc-stalls").start()
        return self

    def begin_step(self, step: int) -> None:
        """Record that this rank begins ``step``, counted from 1."""
        self._steps[self._rank] = step

    def record(self, rank: int, step: int) -> None:
        """Record a message of another rank: it is alive and has begun ``step``."""
        if rank in self._received:
            self._received[rank], self._steps[rank] = self._clock(), step

    def close(self) -> None:
        self._closed.set()

    def late_reason(self) -> str | None:
        """The reason to end the run if a rank is late, else None."""
        now = self._clock()
        if now - self._checked > self._seconds / 4 + 5 * self._pause:  # this process itself was paused
            self._since = now
            self._received = dict.fromkeys(self._received, now)
        self._checked = now
        for rank, when in self._received.items():
            if now - when > self._seconds:
                return self._reason(rank, "it has sent nothing; its process is stopped, or its machine is overloaded")
        if self._rank != 0:
            return None  # rank 0 knows all steps
        furthest = max(self._steps.values())
        if furthest > self._furthest:
            self._furthest, self._since = furthest, now
        behind = [rank for rank, step in self._steps.items() if step < furthest]
        if behind and now - self._since > self._seconds:
            return self._reason(behind[0], f"it has not begun step {furthest}, in which the other ranks wait")
        return None

    def _reason(self, rank: int, what: str) -> str:
        return f"rank {rank}, which is late: for {self._seconds:g} s {what} (stall_timeout={self._seconds:g})"

    def _run(self) -> None:
        while not self._closed.wait(self._pause):
            self._send_step(self._steps[self._rank])
            reason = self.late_reason()
            if reason is not None and not self._closed.is_set():
                return self._on_stall(reason)
