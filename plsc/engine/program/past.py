"""What the steps so far did that the next one is fed: which updates rows have missed, and how many there were."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

from plsc.engine.program.programs import TrainProgram
from plsc.engine.program.results import StepResults
from plsc.rows.history import LazyHistory, RowHistory
from plsc.rows.skipped import IF_SKIPPED


class Past:
    """The updates of the steps so far, for rows that are not sampled and for optimizers that count their steps.

    With float16 a step may be skipped, and is then no update. It says so in its results. Where these have not been read
    when the next step is fed, that one is fed what holds in either case, and chooses by itself (plsc.rows.skipped).

    ``read_count()``: the optimizer's count of updates, from the device. ``ahead``: see plsc.engine.program.results.
    """

    def __init__(self, program: TrainProgram, read_count: Callable[[], int], ahead: int):
        self._program, self._read_count, self._ahead = program, read_count, ahead
        self._skips = "skipped" in program.result_names
        self._count: int | None = None
        self._open: deque[tuple[StepResults, float]] = deque()  # (results that were not read, learning rate)
        self._history = None
        if program.rows.touched is not None:
            kind = LazyHistory if program.spec.lazy else RowHistory
            self._history = kind(program.optimizers.rows, program.rows.weight_decay)

    @property
    def history(self) -> RowHistory | None:
        """That of all steps, whose results are waited for; None where no row misses an update."""
        self._settle(0)
        return self._history

    @property
    def full(self) -> bool:
        """True when all rows must be brought up to date before the next step."""
        return self._history is not None and self._history.room <= len(self._open)

    def forget_count(self) -> None:
        """The optimizer's count is another one from here on."""
        self._settle(0)
        self._count = None

    def feeds(self) -> dict[str, np.ndarray]:
        """What the next step is fed."""
        self._settle(1)
        feeds = self._feeds(skipped=False)
        other = self._feeds(skipped=True) if self._skips else {}
        return {**feeds, **{name + IF_SKIPPED: value for name, value in other.items() if name != "window_step"}}

    def add(self, results: StepResults, learning_rate: float) -> None:
        """Record a step that was started."""
        if self._history is None and self._program.optimizer_count is None:
            return
        rate = learning_rate * self._program.rows.lr_factor
        if self._skips:
            self._open.append((results, rate))
            results.then = self._read
            self._settle(self._ahead)
        else:
            self._update(rate)

    def _settle(self, most: int) -> None:
        """Wait for results until those of at most so many steps are not known."""
        while len(self._open) > most:
            self._open[0][0].wait()

    def _read(self, results: StepResults) -> None:
        """Record what became of a step, and of those before it."""
        while self._open[0][0] is not results:
            self._open[0][0].wait()
        _, rate = self._open.popleft()
        self._update(rate, results["skipped"] > 0)

    def _update(self, rate: float, skipped: bool = False) -> None:
        if self._history is not None:
            self._history.advance(rate, skipped, self._program.optimizers.row_numbers(self._numbers(1)))
        if self._count is not None:
            self._count += not skipped

    def _feeds(self, skipped: bool) -> dict[str, np.ndarray]:
        """What the next step is fed if the step that is not known was ``skipped``, or was not."""
        history, counted = self._history, 0
        for _, rate in self._open:
            counted = 0 if skipped else 1
            if history is not None:
                history = history.copy()
                history.advance(rate, skipped, self._program.optimizers.row_numbers(self._numbers(1)))
        numbers = self._numbers(counted + 1)
        feeds = {name: np.array(values, np.float32) for name, values in numbers.items()}
        if history is not None:
            feeds.update(row_table=history.table(), window_step=np.array([history.steps], np.int64))
        return feeds

    def _numbers(self, further: int) -> dict[str, tuple[float, ...]]:
        """RowOptimizer.numbers of the update that comes ``further`` updates from here, by the program's inputs."""
        program = self._program
        if program.optimizer_count is None:
            return {}
        if self._count is None:
            self._count = self._read_count()
        count = self._count + further
        return {name: tuple(map(float, one.numbers(count))) for name, one in program.optimizers.feeds.items()}
