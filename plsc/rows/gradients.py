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

# A gradient is the sum of two parts, each at most 1.01 times the bound of RowGradients, which is a sum in TF32 on some
# GPUs, off by 1e-3: below this limit both are finite in float32, which ends at 3.4e38.
LARGEST_BOUND = 1e38


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
    rows; ``fetch(piece)`` returns the values. ``bound`` [1] float32, if known: where it is below LARGEST_BOUND, every
    gradient is finite.
    """

    def __init__(self, blocks: RowBlocks, fetch: Callable, compute: Callable, bound=None):
        self.blocks, self._fetch, self._compute, self.bound = blocks, fetch, compute, bound
        self._known: dict[RowPiece, Any] = {}

    def compute(self, piece: RowPiece, rows):
        """The gradient [R, row size] of a piece, whose values are ``rows``."""
        if piece not in self._known:  # used by clipping and by the update: computed once, or once in each loop
            self._known[piece] = self._compute(piece, rows)
        return self._known[piece]

    def map(self, change: Callable, bound=None) -> RowGradients:
        """RowGradients with ``change`` applied to each gradient, such as its sum over the ranks, and its ``bound``."""
        return RowGradients(self.blocks, self._fetch, lambda piece, rows: change(self.compute(piece, rows)), bound)

    def not_finite(self):
        """[1] float32: above 0 where a gradient is inf or NaN. With a bound no gradient is computed for it, and a step
        whose gradients might exceed LARGEST_BOUND counts as well."""
        if self.bound is None:
            return self.sum(_not_finite)
        return paddle.cast(paddle.logical_not(self.bound < LARGEST_BOUND), "float32")

    def sum(self, measure: Callable):
        """The sum of ``measure(gradient)`` [1] float32 over the pieces."""

        def body(piece: RowPiece, total):
            return [total + measure(self.compute(piece, self._fetch(piece)))]

        return self.blocks.for_each_piece(body, [paddle.zeros([1], "float32")])[0]


def _not_finite(gradient):
    """[1] float32: 1 if an element is inf or NaN, else 0."""
    bad = paddle.logical_not(paddle.all(paddle.isfinite(gradient)))
    return paddle.reshape(paddle.cast(bad, "float32"), [1])
