"""The end of this process when another rank has failed: its main thread may be blocked in a collective."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable

from plsc.terminal import flush, print_stderr

GRACE_SECONDS = 1.0  # after another rank's failure, before this rank is ended if it has not ended by itself


class Ending:
    """Ends the process of ``rank`` with the reason, unless it ends by itself: only one of two threads says why."""

    def __init__(self, rank: int):
        self.on_stopped: Callable[[str], None] = lambda text: None  # called with the reason before the process ends
        self._rank = rank
        self._by_itself = threading.Event()
        self._lock = threading.Lock()

    def by_itself(self) -> None:
        """This rank ends by itself from now on. Does not return where the process is being ended already."""
        with self._lock:
            self._by_itself.set()

    def stop(self, reason: str, linger: Callable[[], None]) -> None:
        """End the process in a moment; ``linger()`` is called last."""
        self._by_itself.wait(GRACE_SECONDS)
        with self._lock:
            if self._by_itself.is_set():
                return
            with contextlib.suppress(Exception):  # of a disk: the process ends, whatever cannot be written
                self.on_stopped(f"stopped because of {reason}")
            print_stderr(f"plsc: error: [rank {self._rank}] stopped because of {reason}")
            flush()
            linger()
            os._exit(1)
