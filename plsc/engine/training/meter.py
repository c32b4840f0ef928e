"""Speed and mean loss of a run since its last log line."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from plsc.engine.training.steps import TrainingSteps

Batch = TypeVar("Batch")


class Meter:
    """Since the last log line: mean loss, images per second, and the fraction of the time spent waiting for data. The
    time of verifying and saving is not counted."""

    def __init__(self, training_steps: TrainingSteps):
        self._run_steps = training_steps
        self.restart()

    def restart(self) -> None:
        self._began = time.monotonic()
        self._steps = 0
        self._loss = 0.0
        self._waited = 0.0

    def timed(self, loader: Iterable[Batch]) -> Iterator[Batch]:
        """The batches of the loader; counts the time that each one takes to arrive."""
        batches = iter(loader)
        while True:
            began = time.monotonic()
            batch = next(batches, None)
            self._waited += time.monotonic() - began
            if batch is None:
                return
            yield batch

    def add(self, loss: float) -> None:
        self._steps += 1
        self._loss += loss

    def pause(self, seconds: float) -> None:
        self._began += seconds

    def mean_loss(self) -> float:
        return self._loss / max(1, self._steps)

    def images_per_second(self) -> float:
        """Images per second of all ranks."""
        return self._steps * self._run_steps.global_batch / max(1e-9, time.monotonic() - self._began)

    def data_wait(self) -> float:
        """The fraction of the time, 0 to 1, in which this rank waited for its data."""
        return min(1.0, self._waited / max(1e-9, time.monotonic() - self._began))

    def seconds_left(self, done: int) -> float:
        """Seconds until the last step at the current speed."""
        return (self._run_steps.last - done) * self._run_steps.global_batch / max(1e-9, self.images_per_second())
