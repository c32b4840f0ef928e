"""Sampled rows updated by AdamW, in two operations in C++ where they can be used (plsc.rows.row_kernels).

The results equal those of the formulas in plsc.rows.optimizers.adamw and missed_adam, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import paddle

from plsc.rows import row_kernels
from plsc.rows.blocks import RowBlock, RowPiece
from plsc.rows.gradients import RowGradients
from plsc.rows.operations import scale_rows
from plsc.rows.optimizer import Update
from plsc.rows.shard_rows import SampledRows
from plsc.rows.state import RowState, mark_up_to_date


class SampledAdamRows(SampledRows):
    """Only sampled rows are read and written; other rows are brought up to date when they are next sampled."""

    def fetch(self, piece: RowPiece):
        """See RowValues."""
        return self._now(piece)[0] if self.spec.compiled else super().fetch(piece)

    def squares(self, piece: RowPiece):
        """See RowValues."""
        return self._now(piece)[1] if self.spec.compiled else super().squares(piece)

    def _now(self, piece: RowPiece) -> tuple:
        return self._cached(piece, "now", lambda: self._bring(self.state, piece, self._factors(piece)))

    def _factors(self, piece: RowPiece):
        return piece.select(self._factors_of(piece.block))

    def _factors_of(self, block: RowBlock) -> list:
        return self._cached(block, "factors", lambda: block.split(_factors(self.state, block.index, self.window)))

    def _bring(self, state: RowState, piece: RowPiece, factors) -> tuple:
        constants = _constant([self.optimizer.epsilon, *self.optimizer.points])
        return row_kernels.bring_adam_rows(state.tables[0].value, self._index(piece), factors, constants)

    def _up_to_date(self, state: RowState, piece: RowPiece, window: dict) -> list:
        if not self.spec.compiled:
            return super()._up_to_date(state, piece, window)
        factors, index = _factors(state, self._index(piece), window), self._index(piece)
        weight, _ = self._bring(state, piece, factors)
        moments = [table.read(index) for table in state.tables[1:]]
        return [weight, scale_rows(moments[0], factors[:, :1]), scale_rows(moments[1], factors[:, 1:2])]

    def mover(self, update: Update) -> Callable:
        """See OptimizedRows.mover."""
        if not self.spec.compiled:
            return super().mover(update)

        def move(block: RowBlock, along) -> Callable:
            parts = None if along is None else block.split(along)
            self._factors_of(block)  # read before the rows are marked
            mark_up_to_date(self.state, block, self._step_after)
            return lambda piece, product: self._descend(
                piece, product.compute(), None if parts is None else piece.select(parts), update
            )

        return move

    def update(self, gradients: RowGradients, update: Update) -> None:
        """See OptimizedRows.update."""
        if not self.spec.compiled:
            super().update(gradients, update)
            return

        def body(block: RowBlock) -> list:
            for piece in block.pieces:
                gradient = gradients.compute(piece, self.fetch(piece))
                self._descend(piece, gradient, None, update)
            mark_up_to_date(self.state, block, self._step_after)
            return []

        gradients.blocks.for_each(body)

    def _descend(self, piece: RowPiece, gradient, along, update: Update) -> None:
        """Move the rows of a piece by ``gradient`` - ``along`` [R, 1] * row. Mixed precision, which skips steps, is
        for GPUs, where nothing is compiled."""
        now, powers, optimizer = self.fetch(piece), self._factors(piece)[:, :2], self.optimizer
        factors = paddle.concat([powers, paddle.zeros_like(powers[:, :1]) if along is None else along], axis=1)
        betas = [optimizer.beta1, 1.0 - optimizer.beta1, optimizer.beta2, 1.0 - optimizer.beta2]
        fixed = _constant([*betas, optimizer.epsilon, self.weight_decay])
        step = paddle.concat([fixed, self._learning_rate(update), *update.numbers])
        table = self.state.tables[0].value
        row_kernels.move_adam_rows_(table, self._index(piece), now, factors, gradient, step)


def _factors(state: RowState, index, window: dict):
    """The numbers [R, 5 + n] of plsc.rows.optimizers.missed_adam that bring the rows ``index`` up to date."""
    since = paddle.reshape(paddle.gather(state.touched, index), [-1])
    return paddle.gather(window["row_table"], since)


def _constant(values: list):
    return paddle.assign(np.asarray(values, np.float32))
