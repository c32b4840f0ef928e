"""Gradients of rows that are computed one piece at a time, so that they never exist for the whole shard.

G features, E embedding, R rows of a piece.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import paddle

from plsc.backend import ops
from plsc.rows.blocks import RowBlocks, RowPiece


@dataclass(frozen=True)
class RowProduct:
    """``weights`` [R, G] @ ``feature`` [G, E], plus ``target`` [G, E] added to the rows ``position`` [G]; not computed
    yet."""

    weights: Any
    feature: Any
    position: Any
    target: Any

    def compute(self):
        """[R, E]."""
        return ops.add_rows_(paddle.matmul(self.weights, self.feature), self.position, self.target)

    def add_to(self, value):
        """``value`` [R, E] + the product."""
        return ops.add_rows_(paddle.addmm(value, self.weights, self.feature), self.position, self.target)


class RowGradients:
    """The complete gradient of the loss by the rows of a step, computed on demand, one piece at a time.

    ``compute(piece, rows)`` appends the operations that compute d loss / d rows [R, row size] from the values of these
    rows; ``fetch(piece)`` returns the values.
    """

    def __init__(self, blocks: RowBlocks, fetch: Callable, compute: Callable):
        self.blocks, self._fetch, self._compute = blocks, fetch, compute
        self._known: dict[RowPiece, Any] = {}

    def compute(self, piece: RowPiece, rows):
        """The gradient [R, row size] of a piece, whose values are ``rows``."""
        if piece not in self._known:  # used by clipping and by the update: computed once, or once in each loop
            self._known[piece] = self._compute(piece, rows)
        return self._known[piece]

    def map(self, change: Callable) -> RowGradients:
        """RowGradients with ``change`` applied to each gradient, such as its sum over the ranks."""
        return RowGradients(self.blocks, self._fetch, lambda piece, rows: change(self.compute(piece, rows)))

    def sum(self, measure: Callable):
        """The sum of ``measure(gradient)`` [1] float32 over the pieces."""

        def body(piece: RowPiece, total):
            return [total + measure(self.compute(piece, self._fetch(piece)))]

        return self.blocks.for_each_piece(body, [paddle.zeros([1], "float32")])[0]
