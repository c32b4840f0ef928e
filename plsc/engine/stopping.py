"""SIGTERM as a request: the run saves after the step it is in, on all ranks alike, and ends."""

from __future__ import annotations

import signal
import threading
from types import FrameType

# EX_TEMPFAIL of sysexits.h, "try again later": the run was stopped, has saved, and goes on if started again.
EXIT_STOPPED = 75


class StopRequest:
    """Listens to SIGTERM while it is open; ``made`` says whether it came.

    Only the main thread of a process hears signals: elsewhere nothing is listened to. One rank that is asked is
    enough: the request travels with the gradients of its next step.
    """

    def __init__(self) -> None:
        self.made = False
        self._before = None
        self._listens = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> StopRequest:
        if self._listens:
            self._before = signal.signal(signal.SIGTERM, self._hear)
        return self

    def __exit__(self, *_) -> None:
        if self._listens:
            signal.signal(signal.SIGTERM, signal.SIG_DFL if self._before is None else self._before)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.made = True
