"""The steps that rows have missed since all of them were last up to date, on the host in float64.

Imports without Paddle.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from plsc.rows.optimizer import RowOptimizer, Step

# All rows are brought up to date after this many steps, so that the table stays small (64 KB for momentum). One pass
# over the shard in 4096 steps costs less than a thousandth of their time.
WINDOW_STEPS = 4096


class RowHistory:
    """The steps of the window: those since all rows were last up to date.

    ``table[k]``: the numbers that bring a row from step k of the window up to date, see RowOptimizer.missed.
    """

    def __init__(self, optimizer: RowOptimizer, weight_decay: float):
        self.optimizer = optimizer
        self.weight_decay = weight_decay
        self._nothing = np.asarray(optimizer.nothing_missed(), np.float64)
        self.restart()

    def restart(self) -> None:
        """Start a new window: all rows are up to date."""
        self._table = np.zeros((WINDOW_STEPS + 1, len(self._nothing)))
        self._table[0] = self._nothing
        self.steps = 0

    def advance(self, learning_rate: float, skipped: bool = False, numbers: Sequence[float] = ()) -> None:
        """Record a step with this learning rate and RowOptimizer.numbers; a skipped step changed no row."""
        if not skipped:
            step = self.make_step(learning_rate, numbers)
            self._table[: self.steps + 1] = self.optimizer.missed(self._table[: self.steps + 1], step)
        self.steps += 1
        self._table[self.steps] = self._nothing

    def make_step(self, learning_rate: float, numbers: Sequence[float] = ()) -> Step:
        """The Step of the optimizer, on the host."""
        return Step(learning_rate, self.weight_decay, tuple(numbers))

    def window(self) -> np.ndarray:
        """[steps + 1, K] float64, to be saved and passed to ``resume``."""
        return self._table[: self.steps + 1].copy()

    def can_resume(self, steps: int) -> bool:
        """True where a window of this many steps fits."""
        return 0 <= steps <= WINDOW_STEPS

    def resume(self, window: np.ndarray) -> None:
        """Continue from the ``window`` of another history."""
        self.restart()
        self.steps = len(window) - 1
        self._table[: self.steps + 1] = window

    @property
    def room(self) -> int:
        """How many steps may follow until all rows must be brought up to date."""
        return WINDOW_STEPS - self.steps

    @property
    def full(self) -> bool:
        """True when all rows must be brought up to date before the next step."""
        return self.room <= 0

    def copy(self) -> RowHistory:
        """Another one with the same steps."""
        made = copy.copy(self)
        made._table = self._table.copy()
        return made

    def table(self) -> np.ndarray:
        """[WINDOW_STEPS + 1, K] float32."""
        return self._table.astype(np.float32)


class LazyHistory(RowHistory):
    """Of rows that do not move where they are not sampled: no row has missed anything, and none waits."""

    def restart(self) -> None:
        """See RowHistory."""
        super().restart()
        self._table[:] = self._nothing

    def advance(self, learning_rate: float, skipped: bool = False, numbers: Sequence[float] = ()) -> None:
        """See RowHistory; nothing to record."""

    def can_resume(self, steps: int) -> bool:
        """False: what rows of a checkpoint have missed so far is made up for when they are read."""
        return False


class MissedStepsOnHost:
    """plsc.rows.optimizer.MissedSteps of rows in NumPy arrays; ``since`` [R]: an index into ``window`` [steps + 1,
    K]."""

    xp = np

    def __init__(self, window: np.ndarray, since: np.ndarray, weight_decay: float):
        self.weight_decay = weight_decay
        self._window, self._since = window, since

    def factors(self) -> list:
        """See MissedSteps."""
        return np.split(self._window[self._since], self._window.shape[1], axis=1)

    def replay(self, optimizer: RowOptimizer, weight: np.ndarray, slots: tuple) -> tuple:
        """See MissedSteps; float64."""
        values = [np.array(value, np.float64) for value in (weight, *slots)]
        first = int(self._since.min()) if len(self._since) else len(self._window)
        for number in range(first, len(self._window)):
            applied, learning_rate, *numbers = self._window[number].tolist()
            missing = np.flatnonzero(self._since <= number)
            if not applied:
                continue
            rows, *others = (value[missing] for value in values)
            step = Step(learning_rate, self.weight_decay, tuple(numbers))
            rows, others = optimizer.step(rows, tuple(others), np.zeros_like(rows), step)
            for value, new in zip(values, (rows, *others)):
                value[missing] = new
        return values[0], tuple(values[1:])
