"""Rows that are not updated in every step: their arrays, and the step at which each was last up to date."""

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
    """``tables`` of L rows, the weight first. ``touched`` [L, 1] int64: the step of the window at which each row was
    last up to date.
    """

    tables: tuple[RowTable, ...]
    touched: Any

    @classmethod
    def side_by_side(cls, value, touched, stride: int) -> RowState:
        """``value`` [stride * L, E] float32: the weight and all states of each row, in the layout of
        plsc.rows.row_kernels."""
        return cls(tuple(RowTable(value, offset=offset, stride=stride) for offset in range(stride)), touched)

    @property
    def is_side_by_side(self) -> bool:
        """True where the weight and all states of a row are stored side by side in one variable."""
        return self.tables[0].stride > 1

    def in_current_program(self) -> RowState:
        """The same rows, for the program that is being built."""
        touched = static.create_state(self.touched.name, list(self.touched.shape), "int64")
        if self.is_side_by_side:
            return RowState.side_by_side(self.tables[0].in_current_program().value, touched, len(self.tables))
        return replace(self, tables=tuple(table.in_current_program() for table in self.tables), touched=touched)


def mark_up_to_date(state: RowState, block: RowBlock, window_step) -> None:
    """Record that all rows of the block are up to date at ``window_step`` [1] int64."""
    step = paddle.reshape(paddle.zeros_like(block.index) + window_step, [-1, 1])
    ops.scatter_rows_(state.touched, block.index, step)


def make_writer(state: RowState, block: RowBlock, window_step) -> Callable:
    """``write(piece, weight, *slots)``, which stores rows of a block in place; all of its rows are then up to date at
    ``window_step`` [1] int64."""
    positions = [block.split(table.positions(block.index)) for table in state.tables]
    mark_up_to_date(state, block, window_step)

    def write(piece, *values) -> None:
        for table, of_table, rows in zip(state.tables, positions, values):
            table.write_at(piece.select(of_table), rows)

    return write


class MissedStepsInProgram:
    """plsc.rows.optimizer.MissedSteps of rows in a program.

    ``since`` [R] int64: an index into ``table`` [W, K], which is filled up to ``now`` [1] int64 (excluded).
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
        """See MissedSteps; a loop over the steps since the oldest row was up to date, for all R rows."""
        first = paddle.reshape(paddle.min(self._since), [1])
        since = paddle.reshape(self._since, [-1, 1])

        def one_step(number, *values):
            applied, learning_rate, *numbers = self._numbers(number)
            step = Step(learning_rate, self.weight_decay, tuple(numbers), paddle)
            weight, others = optimizer.step(values[0], tuple(values[1:]), paddle.zeros_like(values[0]), step)
            missing = paddle.logical_and(since <= number, paddle.reshape(applied > 0.5, [1, 1]))
            unchanged = paddle.logical_not(paddle.logical_and(missing, paddle.ones_like(values[0], "bool")))
            return [number + 1, *(paddle.where(unchanged, old, new) for old, new in zip(values, (weight, *others)))]

        _, *values = ops.while_loop(lambda number, *_: number < self._now, one_step, [first, weight, *slots])
        return values[0], tuple(values[1:])

    def _numbers(self, number) -> list:
        """The K numbers [1] of a step."""
        found = paddle.reshape(paddle.gather(self._table, number), [-1])
        return paddle.split(found, self._table.shape[1])
