"""Momentum with L2 decay for rows that a step may not touch.

A dense optimizer moves every row of the weight w with velocity v at each step, with or without a gradient g:

    v := momentum * v + g + weight_decay * w
    w := w - learning_rate * v

Without a gradient that is one 2x2 matrix for all numbers of all rows, so a row that was left alone for n steps is
brought up to date by the product of n such matrices when it is next touched, or read. The result is that of the
dense optimizer, and a step costs the rows it samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle

from plsc import compat
from plsc.row_ops import as_channels, flat, scale_rows
from plsc.row_storage import RowTable

# steps after which all rows are brought up to date, so that the table of products stays small (128 KB); one pass
# over the shard in 4096 steps costs less than a thousandth of them
WINDOW_STEPS = 4096


class RowHistory:
    """The products of the steps since all rows were last up to date ("the window"), on the host in float64.

    ``table[k]`` is the 2x2 matrix, as (ww, wv, vw, vv), that brings a row from step k of the window to now.
    """

    def __init__(self, momentum: float, weight_decay: float):
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.restart()

    def restart(self) -> None:
        """All rows are up to date."""
        self._products = np.zeros((WINDOW_STEPS + 1, 2, 2))
        self._products[0] = np.eye(2)
        self.steps = 0

    def advance(self, learning_rate: float, skipped: bool = False) -> None:
        """One more step of the optimizer was made, with this rate; a skipped one left every row as it was."""
        decay, momentum = self.weight_decay, self.momentum
        step = np.array([[1.0 - learning_rate * decay, -learning_rate * momentum], [decay, momentum]])
        step = np.eye(2) if skipped else step
        self._products[: self.steps + 1] = step @ self._products[: self.steps + 1]
        self.steps += 1
        self._products[self.steps] = np.eye(2)

    @property
    def full(self) -> bool:
        """True when the rows have to be brought up to date before the next step."""
        return self.steps >= WINDOW_STEPS

    def table(self) -> np.ndarray:
        """[WINDOW_STEPS + 1, 4] float32."""
        return self._products.reshape(-1, 4).astype(np.float32)


@dataclass(frozen=True)
class RowState:
    """``weight`` and ``velocity`` of L rows; ``touched`` [L, 1] int64, a value of the program: step of the window at
    which a row was last up to date."""

    weight: RowTable
    velocity: RowTable
    touched: Any


@dataclass(frozen=True)
class StaleRows:
    """Rows as they are stored, ``weight`` and ``velocity`` (see plsc.row_ops), the step of the window at which each was
    up to date, ``when`` [R] int64, and the matrix (ww, wv, vw, vv) that brings it up to date since, in ``columns``
    [W, 1] of a RowHistory.table."""

    weight: Any
    velocity: Any
    when: Any
    columns: list

    @classmethod
    def read(cls, state: RowState, index, columns: list, by_channel: bool = False) -> StaleRows:
        """The rows ``index`` [R] int64. ``by_channel``: see plsc.row_ops."""
        when = paddle.reshape(paddle.gather(state.touched, index), [-1])
        index = as_channels(index) if by_channel else index
        return cls(state.weight.read(index), state.velocity.read(index), when, columns)

    def factors(self, columns: list) -> list:
        """Those of ``columns`` [W, 1] that belong to each row, [R, 1] each."""
        return [paddle.gather(column, self.when) for column in columns]

    def combine(self, weight_factor, velocity_factor):
        """weight_factor * weight + velocity_factor * velocity [R, E]; a factor [R, 1] for each row."""
        return flat(scale_rows(self.weight, weight_factor) + scale_rows(self.velocity, velocity_factor))

    def weight_now(self):
        """The weight [R, E] as the dense optimizer would have left it by now."""
        return self.combine(*self.factors(self.columns[:2]))

    def velocity_now(self):
        """The velocity, in the same way."""
        return self.combine(*self.factors(self.columns[2:]))


def columns_of(table) -> list:
    """The four columns [W, 1] of a RowHistory.table that is fed."""
    return [table[:, column : column + 1] for column in range(4)]


def write_rows(state: RowState, index, weight, velocity, window_step) -> None:
    """Store rows that are up to date at ``window_step`` [1] int64, in place."""
    state.weight.write(index, weight)
    state.velocity.write(index, velocity)
    when = paddle.reshape(paddle.zeros_like(index) + window_step, [-1, 1])
    compat.scatter_rows_(state.touched, index, when)
