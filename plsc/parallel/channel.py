"""An exchange of values between all ranks, in the same order on every rank; several go on beside each other."""

from __future__ import annotations

import time

from plsc.errors import TrainingError
from plsc.parallel.control import Control
from plsc.parallel.frames import OF_RANK

WAIT_SECONDS = 3600  # a barrier may wait for a slow disk, but not for ever
_FIRST_LINE, _NEXT_LINES = 10.0, 30.0  # seconds after which a rank says whom it waits for


class Channel:
    """The exchanges of one thread of each rank. ``name``: the same on every rank, and not used before."""

    def __init__(self, control: Control, name: str):
        self.says_who = False  # print whom this rank waits for
        self._control, self._name, self._calls = control, name, 0

    def exchange(self, body: bytes, first_only: bool = False, seconds: float = WAIT_SECONDS) -> list[bytes]:
        """The value of each rank, or only that of rank 0. Raises PeerError if another rank has ended, LaunchError if
        this one cannot take part, TrainingError if a value has not come after ``seconds``."""
        if len(body) > OF_RANK.body:
            raise TrainingError(f"a rank may send at most {OF_RANK.body >> 20:,} MB at once, not {len(body) >> 20:,}")
        self._calls += 1
        key = self._name, self._calls
        waiter = self._control.exchange(key, body, first_only)
        began = time.monotonic()
        line = _FIRST_LINE
        while not waiter.done.wait(max(0.0, min(line, seconds) - (time.monotonic() - began))):
            missing = self._control.missing(key, waiter)
            if waiter.done.is_set():
                break
            if time.monotonic() - began >= seconds:
                raise TrainingError(f"waited {seconds:g} seconds for {missing}")
            if self.says_who:
                self._control.say(f"it has waited {line:g} s for {missing}")
            line += _NEXT_LINES
        return self._control.result(waiter)
