"""Rows updated by momentum, with as few passes over them as possible.

Bringing a sampled row up to date and updating it are one linear map of the stored values, with four factors per row.
For float32 rows on CPUs, two operations in C++ compute it (plsc.rows.row_kernels). The results equal those of
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
        learning_rate, decay, velocities = self._learning_rate(update), self.weight_decay, self.slots["velocity"]

        def move(block: RowBlock, along) -> Callable:
            along = None if along is None else block.split(along)

            def move_piece(piece: RowPiece, product) -> None:
                index, rows = self._index(piece), self.fetch(piece)
                velocity = velocities.read(index) * self.optimizer.momentum
                factor = paddle.full_like(rows[:, :1], decay)
                factor = factor if along is None else factor - piece.select(along)
                velocity = product.add_to(velocity + scale_rows(rows, factor, by_channel=block.for_cpu))
                self._write(piece, ops.descend_(rows, velocity, learning_rate), velocity)

            return move_piece

        return move

    def update(self, gradients: RowGradients, update: Update) -> None:
        """See OptimizedRows.update."""

        def body(piece: RowPiece) -> list:
            weight, (velocity,) = self._values(piece)
            gradient = gradients.compute(piece, weight)
            values = apply_momentum(self, weight, velocity, gradient, update)
            if self._index(piece) is not None or self.table.is_half:  # else they are the variables, updated in place
                self._write(piece, *values)
            return []

        gradients.blocks.for_each_piece(body)


class SampledMomentumRows(SampledRows):
    """Only sampled rows are read and written; other rows are brought up to date when they are next sampled."""

    def fetch(self, piece: RowPiece):
        """See RowValues."""
        if piece.block.first is None:  # compute both now, so that the stored rows need not be held until the update
            self._velocity_of(piece)
        return self._now(piece)[0]

    def squares(self, piece: RowPiece):
        """See RowValues."""
        rows, squares = self._now(piece)
        return squared_length(rows, piece.block.for_cpu) if squares is None else squares

    def _now(self, piece: RowPiece) -> tuple:
        return self._cached(piece, "weight", lambda: self._stale(piece.block).weight_now(piece))

    def _velocity_of(self, piece: RowPiece):
        now = self._cached(piece.block, "velocity", lambda: self._stale(piece.block).velocity_now())
        return self._cached(piece, "velocity", lambda: now(piece))

    def _stale(self, block: RowBlock) -> StaleRows:
        return self._cached(block, "stale", lambda: StaleRows(self.state, block, self.window["row_table"]))

    def _up_to_date(self, state: RowState, piece: RowPiece, window: dict) -> list:
        stale = StaleRows(state, piece.block, window["row_table"])
        return [stale.weight_now(piece)[0], stale.velocity_now()(piece)]

    def mover(self, update: Update) -> Callable:
        """See OptimizedRows.mover."""
        learning_rate, decay = self._learning_rate(update), self.weight_decay

        def move(block: RowBlock, along) -> Callable:
            # Bringing a row up to date and updating it are one linear map, so the stored rows are read once.
            stale = self._stale(block)
            of_weight = decay if along is None else decay - along
            combined = stale.factors[:, 2:] * self.optimizer.momentum + stale.factors[:, :2] * of_weight
            if self.state.is_side_by_side:
                mark_up_to_date(self.state, block, self._step_after)
                descend = stale.descent(combined, learning_rate)
                return lambda piece, product: descend(piece, product.compute())
            combine, write = stale.combine(combined), self._writer(block)

            def move_piece(piece: RowPiece, product) -> None:
                velocity = product.add_to(combine(piece)[0])
                write(piece, ops.descend_(self.fetch(piece), velocity, learning_rate), velocity)

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
    """(weight, velocity) of up-to-date rows [R, row size] after one step, in place."""
    return update.optimizer.apply_(weight, velocity, gradient, rows.make_step(update))


class StaleRows:
    """The stored rows of a block, which may have missed steps.

    ``factors`` [R, 4]: the matrix (ww, wv, vw, vv) that brings each row up to date. ``table`` [W, 4]: RowHistory.table.
    """

    def __init__(self, state: RowState, block: RowBlock, table):
        since = paddle.reshape(paddle.gather(state.touched, block.index), [-1])
        self.factors = paddle.gather(table, since)
        self._state, self._block = state, block
        self._index = block.split(block.index)
        self._stored: dict[Any, list] = {}
        self.weight_now = self.combine(self.factors[:, :2])

    def combine(self, factors) -> Callable:
        """A function of a piece: (factors[:, 0] * weight + factors[:, 1] * velocity of its rows [R, E], their squared
        lengths [R, 1] or None where these are not computed on the way). ``factors`` [R, 2]: of the block."""
        parts = self._block.split(factors)
        if self._state.is_side_by_side:
            table = self._state.tables[0].value
            return lambda piece: row_kernels.bring_rows(table, piece.select(self._index), piece.select(parts))
        return lambda piece: (self._combined(piece, piece.select(parts)), None)

    def velocity_now(self) -> Callable:
        """A function of a piece: the velocity [R, E] that dense momentum would have produced by now.
        ``weight_now(piece)`` is (the weight, its squared length) in the same way."""
        velocity = self.combine(self.factors[:, 2:])
        return lambda piece: velocity(piece)[0]

    def _combined(self, piece: RowPiece, factors):
        stored = self._stored.get(piece) or self._read(piece)
        if len(self._block.pieces) == 1:
            # With several pieces, each is read again when it is updated. That costs about as much as keeping it in
            # memory, and the rows are in the cache when they are written (docs/performance.md).
            self._stored[piece] = stored
        return flat(scale_rows(stored[0], factors[:, :1]) + scale_rows(stored[1], factors[:, 1:]))

    def _read(self, piece: RowPiece) -> list:
        index = piece.select(self._index)
        index = as_channels(index) if self._block.for_cpu else index
        return [table.read(index) for table in self._state.tables]

    def descent(self, combined, learning_rate) -> Callable:
        """``move(piece, gradient)`` for rows side by side, in place: velocity := combined[:, 0] * weight +
        combined[:, 1] * velocity + gradient, weight := weight_now - learning_rate * velocity. ``combined`` [R, 2]: of
        the block."""
        table = self._state.tables[0].value
        parts = self._block.split(paddle.concat([self.factors[:, :2] - learning_rate * combined, combined], axis=1))

        def move(piece: RowPiece, gradient) -> None:
            row_kernels.move_rows_(table, piece.select(self._index), piece.select(parts), gradient, learning_rate)

        return move
