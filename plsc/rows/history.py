"""What rows have missed since all of them were last up to date, on the host in float64. Imports without Paddle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from plsc.rows.optimizer import RowOptimizer, Step

# steps after which all rows are brought up to date, so that the table stays small (64 KB of momentum); one pass
# over the shard in 4096 steps costs less than a thousandth of them
WINDOW_STEPS = 4096


class RowHistory:
    """The steps of the window: those since all rows were last up to date.

    ``table[k]`` are the numbers that bring a row from step k of the window to now, see RowOptimizer.missed.
    """

    def __init__(self, optimizer: RowOptimizer, weight_decay: float):
        self.optimizer = optimizer
        self.weight_decay = weight_decay
        self._nothing = np.asarray(optimizer.nothing_missed(), np.float64)
        self.restart()

    def restart(self) -> None:
        """All rows are up to date."""
        self._table = np.zeros((WINDOW_STEPS + 1, len(self._nothing)))
        self._table[0] = self._nothing
        self.steps = 0

    def advance(self, learning_rate: float, skipped: bool = False, numbers: Sequence[float] = ()) -> None:
        """One more step was made, with this rate and RowOptimizer.numbers; a skipped one left every row as it was."""
        if not skipped:
            step = self.make_step(learning_rate, numbers)
            self._table[: self.steps + 1] = self.optimizer.missed(self._table[: self.steps + 1], step)
        self.steps += 1
        self._table[self.steps] = self._nothing

    def make_step(self, learning_rate: float, numbers: Sequence[float] = ()) -> Step:
        """What the optimizer is given for a step, on the host."""
        return Step(learning_rate, self.weight_decay, tuple(numbers))

    def window(self) -> np.ndarray:
        """[steps + 1, K] float64: what ``resume`` goes on from."""
        return self._table[: self.steps + 1].copy()

    def can_resume(self, steps: int) -> bool:
        """True where a window of so many steps fits."""
        return 0 <= steps <= WINDOW_STEPS

    def resume(self, window: np.ndarray) -> None:
        """Go on from the window of another history."""
        self.restart()
        self.steps = len(window) - 1
        self._table[: self.steps + 1] = window

    @property
    def full(self) -> bool:
        """True when the rows have to be brought up to date before the next step."""
        return self.steps >= WINDOW_STEPS

    def table(self) -> np.ndarray:
        """[WINDOW_STEPS + 1, K] float32."""
        return self._table.astype(np.float32)


class MissedStepsOnHost:
    """plsc.rows.optimizer.MissedSteps of rows in NumPy arrays: ``since`` [R] counts in ``window`` [steps + 1, K]."""

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
            made, rate, *numbers = self._window[number].tolist()
            late = np.flatnonzero(self._since <= number)
            if not made:
                continue
            rows, *others = (value[late] for value in values)
            step = Step(rate, self.weight_decay, tuple(numbers))
            rows, others = optimizer.step(rows, tuple(others), np.zeros_like(rows), step)
            for value, new in zip(values, (rows, *others)):
                value[late] = new
        return values[0], tuple(values[1:])
