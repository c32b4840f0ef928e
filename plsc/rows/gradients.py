"""Gradients of rows that are written out one piece at a time, so that they never exist for the whole shard.

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
    """``weights`` [R, G] @ ``feature`` [G, E], and ``own`` [G, E] added to the rows ``place`` [G]; not yet made."""

    weights: Any
    feature: Any
    place: Any
    own: Any

    def whole(self):
        """[R, E]."""
        return ops.add_rows_(paddle.matmul(self.weights, self.feature), self.place, self.own)

    def added_to(self, value):
        """``value`` [R, E] + the product."""
        return ops.add_rows_(paddle.addmm(value, self.weights, self.feature), self.place, self.own)


class RowGradients:
    """The gradient of the loss by the rows that took part, complete, not yet written out: one piece at a time is.

    ``of(piece, rows)`` appends the operations that make d loss / d rows [R, row size] from the values of these rows;
    ``fetch(piece)`` gives those.
    """

    def __init__(self, blocks: RowBlocks, fetch: Callable, of: Callable):
        self.blocks, self._fetch, self._of = blocks, fetch, of
        self._known: dict[RowPiece, Any] = {}

    def of(self, piece: RowPiece, rows):
        """The gradient [R, row size] of a piece, whose values are ``rows``."""
        if piece not in self._known:  # asked for by the clipping and by the update: made once, but anew in each loop
            self._known[piece] = self._of(piece, rows)
        return self._known[piece]

    def map(self, change: Callable) -> RowGradients:
        """``change(gradient)`` of each piece, such as its sum over the ranks."""
        return RowGradients(self.blocks, self._fetch, lambda piece, rows: change(self.of(piece, rows)))

    def total(self, measure: Callable):
        """The sum of ``measure(gradient)`` [1] float32 over the pieces."""

        def body(piece: RowPiece, total):
            return [total + measure(self.of(piece, self._fetch(piece)))]

        return self.blocks.each_piece(body, [paddle.zeros([1], "float32")])[0]
