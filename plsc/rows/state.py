"""The rows of a shard that a step may leave alone: their arrays, and since when each row waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import paddle

from plsc.backend import ops, static
from plsc.rows.blocks import RowBlock
from plsc.rows.optimizer import RowOptimizer, Step
from plsc.rows.storage import RowTable


@dataclass(frozen=True)
class RowState:
    """``tables`` of L rows, the weight first; ``touched`` [L, 1] int64, a value of the program: step of the window at
    which a row was last up to date.
    """

    tables: tuple[RowTable, ...]
    touched: Any

    @classmethod
    def paired(cls, value, touched) -> RowState:
        """``value`` [2 L, E] float32: weight and velocity of each row, as plsc.rows.row_kernels works on them."""
        return cls(tuple(RowTable(value, offset=offset, stride=2) for offset in range(2)), touched)

    @property
    def is_paired(self) -> bool:
        """True where weight and velocity of a row lie side by side in one variable."""
        return len(self.tables) == 2 and self.tables[0].value is self.tables[1].value

    def in_current_program(self) -> RowState:
        """The same rows, for the program that is being built."""
        touched = static.create_state(self.touched.name, list(self.touched.shape), "int64")
        if self.is_paired:
            return RowState.paired(self.tables[0].in_current_program().value, touched)
        return replace(self, tables=tuple(table.in_current_program() for table in self.tables), touched=touched)


def mark_up_to_date(state: RowState, block: RowBlock, window_step) -> None:
    """All rows of the block will be up to date at ``window_step`` [1] int64."""
    when = paddle.reshape(paddle.zeros_like(block.index) + window_step, [-1, 1])
    ops.scatter_rows_(state.touched, block.index, when)


def make_writer(state: RowState, block: RowBlock, window_step) -> Callable:
    """``write(piece, weight, *slots)`` stores rows of a block, in place; all of its rows are then up to date at
    ``window_step`` [1] int64."""
    places = [block.split(table.places(block.index)) for table in state.tables]
    mark_up_to_date(state, block, window_step)

    def write(piece, *values) -> None:
        for table, where, rows in zip(state.tables, places, values):
            table.put(piece.select(where), rows)

    return write


class MissedStepsInProgram:
    """plsc.rows.optimizer.MissedSteps of rows in a program.

    ``since`` [R] int64 counts in ``table`` [W, K], whose rows from ``now`` [1] int64 on no step has filled yet.
    """

    xp = paddle

    def __init__(self, table, since, now, weight_decay: float):
        self.weight_decay = weight_decay
        self._table, self._since, self._now = table, since, now

    def factors(self) -> list:
        """See MissedSteps."""
        found = paddle.gather(self._table, self._since)
        return paddle.split(found, found.shape[1], axis=1)

    def replay(self, optimizer: RowOptimizer, weight, slots: tuple) -> tuple:
        """See MissedSteps: a loop over the steps since the row that waits longest, for all R rows."""
        first = paddle.reshape(paddle.min(self._since), [1])
        since = paddle.reshape(self._since, [-1, 1])

        def one_step(number, *values):
            made, rate, *numbers = self._numbers(number)
            step = Step(rate, self.weight_decay, tuple(numbers), paddle)
            weight, others = optimizer.step(values[0], tuple(values[1:]), paddle.zeros_like(values[0]), step)
            late = paddle.logical_and(since <= number, paddle.reshape(made > 0.5, [1, 1]))
            other = paddle.logical_not(paddle.logical_and(late, paddle.ones_like(values[0], "bool")))
            return [number + 1, *(paddle.where(other, old, new) for old, new in zip(values, (weight, *others)))]

        _, *values = ops.while_loop(lambda number, *_: number < self._now, one_step, [first, weight, *slots])
        return values[0], tuple(values[1:])

    def _numbers(self, number) -> list:
        """The K numbers [1] of a step."""
        found = paddle.reshape(paddle.gather(self._table, number), [-1])
        return paddle.split(found, self._table.shape[1])
