"""How fast a run is and how it is doing, since the last line of its log."""

from __future__ import annotations

import time

from plsc.engine.plan import Plan


class Meter:
    """Mean loss and images per second since the last line of the log, without the time of verifying and saving."""

    def __init__(self, plan: Plan):
        self._plan = plan
        self.restart()

    def restart(self) -> None:
        self._began = time.monotonic()
        self._steps = 0
        self._loss = 0.0

    def add(self, loss: float) -> None:
        self._steps += 1
        self._loss += loss

    def pause(self, seconds: float) -> None:
        self._began += seconds

    def mean(self) -> float:
        return self._loss / max(1, self._steps)

    def rate(self) -> float:
        """Images per second of all ranks."""
        return self._steps * self._plan.global_batch / max(1e-9, time.monotonic() - self._began)

    def left(self, done: int) -> float:
        """Seconds until the last step at the present rate."""
        return (self._plan.last - done) * self._plan.global_batch / max(1e-9, self.rate())
