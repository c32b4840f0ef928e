"""Who is late? Where a rank stands still, the others wait for it in the program, which says nothing and may never end.

Every rank tells rank 0 which step it has begun, and rank 0 tells the others that it is there, several times in the time
that is allowed. A rank is late that has not begun a step which another one began so long ago, or of which nothing was
heard for so long. Steps only: what a rank does between them (verify, save, copy) may take longer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_LOOKS = 20  # in the time that is allowed
_MOST_SECONDS_BETWEEN_LOOKS = 1.0


class StallWatch:
    """The thread of one rank that tells and judges. ``tell(step)`` reaches rank 0, or from it all others.

    on_stall(reason) is called once, by the thread, when a rank is late by more than ``seconds``.
    """

    def __init__(
        self,
        rank: int,
        world_size: int,
        seconds: float,
        tell: Callable[[int], None],
        on_stall: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ):
        self._rank, self._seconds, self._clock = rank, seconds, clock
        self._tell, self._on_stall = tell, on_stall
        now = clock()
        others = range(1, world_size) if rank == 0 else [0]
        self._heard = dict.fromkeys(others, now)
        self._steps = dict.fromkeys([rank, *others], 0)
        self._furthest, self._since, self._looked = 0, now, now
        self._pause = min(seconds / _LOOKS, _MOST_SECONDS_BETWEEN_LOOKS)
        self._closed = threading.Event()

    def start(self) -> StallWatch:
        threading.Thread(target=self._run, daemon=True, name="plsc-stalls").start()
        return self

    def begin_step(self, step: int) -> None:
        """This rank begins a step (counted from 1, upwards)."""
        self._steps[self._rank] = step

    def hear(self, rank: int, step: int) -> None:
        """Another rank is there and has begun ``step``."""
        if rank in self._heard:
            self._heard[rank], self._steps[rank] = self._clock(), step

    def close(self) -> None:
        self._closed.set()

    def late(self) -> str | None:
        """What to say of a rank that is late, if one is."""
        now = self._clock()
        if now - self._looked > self._seconds / 4 + 5 * self._pause:  # this process itself stood still
            self._since = now
            self._heard = dict.fromkeys(self._heard, now)
        self._looked = now
        for rank, when in self._heard.items():
            if now - when > self._seconds:
                return self._reason(rank, "nothing was heard of it; its process is stopped, or its machine too busy")
        if self._rank != 0:
            return None  # rank 0 knows all steps
        furthest = max(self._steps.values())
        if furthest > self._furthest:
            self._furthest, self._since = furthest, now
        behind = [rank for rank, step in self._steps.items() if step < furthest]
        if behind and now - self._since > self._seconds:
            return self._reason(behind[0], f"it has not begun step {furthest}, in which the others wait for it")
        return None

    def _reason(self, rank: int, what: str) -> str:
        return f"rank {rank}, which is late: for {self._seconds:g} s {what} (stall_timeout={self._seconds:g})"

    def _run(self) -> None:
        while not self._closed.wait(self._pause):
            self._tell(self._steps[self._rank])
            reason = self.late()
            if reason is not None and not self._closed.is_set():
                return self._on_stall(reason)
