"""Rows that momentum moves, in as few passes over them as can be.

Bringing a sampled row up to date and moving it are one linear map of what is stored, by four factors a row; on CPUs
with rows of float32 two operations in C++ do it (plsc.rows.row_kernels). The numbers are those of
plsc.rows.optimizers.momentum, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import paddle

from plsc.backend import ops
from plsc.rows import row_kernels
from plsc.rows.blocks import RowBlock, RowPiece
from plsc.rows.gradients import RowGradients
from plsc.rows.operations import as_channels, flat, scale_rows, squared_length
from plsc.rows.optimizer import Update
from plsc.rows.shard_rows import DenseRows, OptimizedRows, SampledRows
from plsc.rows.state import RowState, mark_up_to_date


class DenseMomentumRows(DenseRows):
    """Every row takes part in every step."""

    def mover(self, update: Update) -> Callable:
        """See OptimizedRows.mover."""
        rate, decay, velocities = self._rate(update), self.weight_decay, self.slots["velocity"]

        def move(block: RowBlock, along) -> Callable:
            along = None if along is None else block.split(along)

            def move_piece(piece: RowPiece, product) -> None:
                index, rows = self._index(piece), self.fetch(piece)
                velocity = velocities.read(index) * self.optimizer.momentum
                of_rows = paddle.full_like(product.weights[:, :1], decay)
                of_rows = of_rows if along is None else of_rows - piece.select(along)
                velocity = product.add_to(velocity + scale_rows(rows, of_rows, by_channel=True))
                self._write(piece, ops.descend_(rows, velocity, rate), velocity)

            return move_piece

        return move

    def update(self, gradients: RowGradients, update: Update) -> None:
        """See OptimizedRows.update."""

        def body(piece: RowPiece) -> list:
            weight, (velocity,) = self._values(piece)
            gradient = gradients.compute(piece, weight)
            values = apply_momentum(self, weight, velocity, gradient, update)
            if self._index(piece) is not None or self.table.is_half:  # else these are the variables, and have moved
                self._write(piece, *values)
            return []

        gradients.blocks.for_each_piece(body)


class SampledMomentumRows(SampledRows):
    """Only sampled rows are read and written; the others are brought up to date when they are next touched."""

    def _create_state(self, touched) -> RowState:
        return RowState.paired(self.weight, touched) if self.spec.paired else super()._create_state(touched)

    def fetch(self, piece: RowPiece):
        """See RowValues."""
        if not piece.block.in_blocks:  # of all rows the stored ones are not to be kept until the update
            self._velocity_of(piece)
        return self._now(piece)[0]

    def squares(self, piece: RowPiece):
        """See RowValues."""
        rows, squares = self._now(piece)
        return squared_length(rows) if squares is None else squares

    def _now(self, piece: RowPiece) -> tuple:
        return self._cached(piece, "weight", lambda: self._stale(piece.block).weight_now(piece))

    def _velocity_of(self, piece: RowPiece):
        now = self._cached(piece.block, "velocity", lambda: self._stale(piece.block).velocity_now())
        return self._cached(piece, "velocity", lambda: now(piece))

    def _stale(self, block: RowBlock) -> StaleRows:
        return self._cached(block, "stale", lambda: StaleRows(self.state, block, self.feeds["row_table"]))

    def _up_to_date(self, state: RowState, piece: RowPiece, feeds: dict) -> list:
        stale = StaleRows(state, piece.block, feeds["row_table"])
        return [stale.weight_now(piece)[0], stale.velocity_now()(piece)]

    def mover(self, update: Update) -> Callable:
        """See OptimizedRows.mover."""
        rate, decay = self._rate(update), self.weight_decay

        def move(block: RowBlock, along) -> Callable:
            # Bringing a row up to date and moving it are one linear map of what is stored, which is gone through once
            stale = self._stale(block)
            of_weight = decay if along is None else decay - along
            combined = stale.factors[:, 2:] * self.optimizer.momentum + stale.factors[:, :2] * of_weight
            if self.state.is_paired:
                mark_up_to_date(self.state, block, self._step_after)
                descend = stale.descent(combined, rate)
                return lambda piece, product: descend(piece, product.compute())
            combine, write = stale.combine(combined), self._writer(block)

            def move_piece(piece: RowPiece, product) -> None:
                velocity = product.add_to(combine(piece)[0])
                write(piece, ops.descend_(self.fetch(piece), velocity, rate), velocity)

            return move_piece

        return move

    def update(self, gradients: RowGradients, update: Update) -> None:
        """See OptimizedRows.update."""

        def body(block: RowBlock) -> list:
            for piece in block.pieces:
                rows, velocity = self.fetch(piece), self._velocity_of(piece)
                gradient = gradients.compute(piece, rows)
                self._writer(block)(piece, *apply_momentum(self, rows, velocity, gradient, update))
            return []

        gradients.blocks.for_each(body)


def apply_momentum(rows: OptimizedRows, weight, velocity, gradient, update: Update) -> tuple:
    """(weight, velocity) after one step on up-to-date rows [R, row size], in place."""
    return update.optimizer.apply_(weight, velocity, gradient, rows.make_step(update), update.found_inf)


class StaleRows:
    """The rows of a block, as they are stored and as they are now.

    ``factors`` [R, 4] is the matrix (ww, wv, vw, vv) that brings each row up to date. ``table`` [W, 4]:
    RowHistory.table.
    """

    def __init__(self, state: RowState, block: RowBlock, table):
        when = paddle.reshape(paddle.gather(state.touched, block.index), [-1])
        self.factors = paddle.gather(table, when)
        self._state, self._block = state, block
        self._index = block.split(block.index)
        self._stored: dict[Any, list] = {}
        self.weight_now = self.combine(self.factors[:, :2])

    def combine(self, factors) -> Callable:
        """``of(piece)``: (factors[:, 0] * weight + factors[:, 1] * velocity of its rows [R, E], the squared length of
        each [R, 1], or None where it is not made on the way); ``factors`` [R, 2] of those of the block."""
        cut = self._block.split(factors)
        if self._state.is_paired:
            table = self._state.tables[0].value
            return lambda piece: row_kernels.bring_rows(table, piece.select(self._index), piece.select(cut))
        return lambda piece: (self._combined(piece, piece.select(cut)), None)

    def velocity_now(self) -> Callable:
        """``of(piece)``: the velocity [R, E] as the dense optimizer would have left it by now. ``weight_now(piece)``
        gives the weight in the same way, and its squared length."""
        velocity = self.combine(self.factors[:, 2:])
        return lambda piece: velocity(piece)[0]

    def _combined(self, piece: RowPiece, factors):
        stored = self._stored.get(piece) or self._read(piece)
        if len(self._block.pieces) == 1:
            # Of several pieces each is read anew when it is moved: that costs about as much as to keep what was read,
            # and has the rows in the cache when they are written (docs/performance.md)
            self._stored[piece] = stored
        return flat(scale_rows(stored[0], factors[:, :1]) + scale_rows(stored[1], factors[:, 1:]))

    def _read(self, piece: RowPiece) -> list:
        index = piece.select(self._index)
        index = as_channels(index) if self._block.in_blocks else index
        return [table.read(index) for table in self._state.tables]

    def descent(self, combined, learning_rate) -> Callable:
        """``move(piece, gradient)`` of paired rows, in place: velocity := combined[:, 0] * weight + combined[:, 1] *
        velocity + gradient, weight := weight_now - learning_rate * velocity; ``combined`` [R, 2] of the block."""
        table = self._state.tables[0].value
        cut = self._block.split(paddle.concat([self.factors[:, :2] - learning_rate * combined, combined], axis=1))

        def move(piece: RowPiece, gradient) -> None:
            row_kernels.move_rows_(table, piece.select(self._index), piece.select(cut), gradient, learning_rate)

        return move
