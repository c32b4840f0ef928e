"""Momentum with L2 decay for rows that a step may not touch.

A dense optimizer moves every row of the weight w with velocity v at each step, with or without a gradient g:

    v := momentum * v + g + weight_decay * w
    w := w - learning_rate * v

Without a gradient that is one 2x2 matrix for all numbers of all rows, so a row that was left alone for n steps is
brought up to date by the product of n such matrices when it is next touched, or read. The result is that of the
dense optimizer, and a step costs the rows it samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle

from plsc.backend import ops, static
from plsc.rows import row_kernels
from plsc.rows.operations import as_channels, flat, scale_rows
from plsc.rows.storage import FLOAT32, RowTable

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

    def window(self) -> np.ndarray:
        """[steps + 1, 4] float64: what ``resume`` goes on from."""
        return self._products[: self.steps + 1].reshape(-1, 4).copy()

    def resume(self, window: np.ndarray) -> None:
        """Go on from the window of another history."""
        self.restart()
        self.steps = len(window) - 1
        self._products[: self.steps + 1] = window.reshape(-1, 2, 2)

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
    which a row was last up to date.
    """

    weight: RowTable
    velocity: RowTable
    touched: Any

    @classmethod
    def paired(cls, value, touched) -> RowState:
        """``value`` [2 L, E] float32: weight and velocity of each row, as plsc.rows.row_kernels works on them."""
        tables = [RowTable.of(value, FLOAT32, name, offset, 2) for offset, name in enumerate(("weight", "velocity"))]
        return cls(*tables, touched)

    @property
    def is_paired(self) -> bool:
        """True where weight and velocity of a row lie side by side in one variable."""
        return self.weight.value is self.velocity.value

    def elsewhere(self) -> RowState:
        """The same rows, for the program that is being built."""
        touched = static.create_state(self.touched.name, list(self.touched.shape), "int64")
        if self.is_paired:
            return RowState.paired(self.weight.elsewhere().value, touched)
        return RowState(self.weight.elsewhere(), self.velocity.elsewhere(), touched)


class StaleRows:
    """The rows of a ``block`` (plsc.classifiers' RowBlock), as they are stored and as they are now.

    ``factors`` [R, 4] is the matrix (ww, wv, vw, vv) that brings each row up to date. ``table`` [W, 4]:
    RowHistory.table.
    """

    def __init__(self, state: RowState, block, table):
        when = paddle.reshape(paddle.gather(state.touched, block.index), [-1])
        self.factors = paddle.gather(table, when)
        self._state, self._block = state, block
        self._index = block.cut(block.index)
        self._stored: dict[Any, list] = {}
        self.weight_now = self.combine(self.factors[:, :2])

    def combine(self, factors) -> Callable:
        """``of(piece)``: (factors[:, 0] * weight + factors[:, 1] * velocity of its rows [R, E], the squared length of
        each [R, 1], or None where it is not made on the way); ``factors`` [R, 2] of those of the block."""
        cut = self._block.cut(factors)
        if self._state.is_paired:
            table = self._state.weight.value
            return lambda piece: row_kernels.bring_rows(table, piece.of(self._index), piece.of(cut))
        return lambda piece: (self._combined(piece, piece.of(cut)), None)

    def velocity_now(self) -> Callable:
        """``of(piece)``: the velocity [R, E] as the dense optimizer would have left it by now. ``weight_now(piece)``
        gives the weight in the same way, and its squared length."""
        velocity = self.combine(self.factors[:, 2:])
        return lambda piece: velocity(piece)[0]

    def _combined(self, piece, factors):
        stored = self._stored.get(piece) or self._read(piece)
        if len(self._block.pieces) == 1:
            # Of several pieces each is read anew when it is moved: that costs about as much as to keep what was read,
            # and has the rows in the cache when they are written (docs/performance.md)
            self._stored[piece] = stored
        return flat(scale_rows(stored[0], factors[:, :1]) + scale_rows(stored[1], factors[:, 1:]))

    def _read(self, piece) -> list:
        index = piece.of(self._index)
        index = as_channels(index) if self._block.is_part else index
        return [self._state.weight.read(index), self._state.velocity.read(index)]

    def descent(self, combined, learning_rate) -> Callable:
        """``move(piece, gradient)`` of paired rows, in place: velocity := combined[:, 0] * weight + combined[:, 1] *
        velocity + gradient, weight := weight_now - learning_rate * velocity; ``combined`` [R, 2] of the block."""
        table = self._state.weight.value
        cut = self._block.cut(paddle.concat([self.factors[:, :2] - learning_rate * combined, combined], axis=1))

        def move(piece, gradient) -> None:
            row_kernels.move_rows_(table, piece.of(self._index), piece.of(cut), gradient, learning_rate)

        return move


def touch(state: RowState, block, window_step) -> None:
    """All rows of the block will be up to date at ``window_step`` [1] int64."""
    when = paddle.reshape(paddle.zeros_like(block.index) + window_step, [-1, 1])
    ops.scatter_rows_(state.touched, block.index, when)


def writer(state: RowState, block, window_step) -> Callable:
    """``write(piece, weight, velocity)`` stores rows of a block, in place; all of its rows are then up to date at
    ``window_step`` [1] int64."""
    tables = state.weight, state.velocity
    places = [block.cut(table.places(block.index)) for table in tables]
    touch(state, block, window_step)

    def write(piece, *values) -> None:
        for table, where, rows in zip(tables, places, values):
            table.put(piece.of(where), rows)

    return write
