"""A feature and the centre of its own class, worked on as the two vectors they are, in float64.

Everything that is small where a sample is learnt, or where the two are parallel, is a difference of numbers that are
nearly the same: made of float32 cosines it would be their rounding. There are as few own classes as features, so the
double precision costs nothing.
"""

from __future__ import annotations

import paddle

from plsc.classifiers.head import inverse_root
from plsc.rows.operations import squared_length


class TargetClass:
    """``feature`` and ``rows`` [G, E] float32: row i is the centre of the class of feature i; any, where another rank
    has it. ``normalised`` False: their products count, not cosines.

    ``cosine`` [G] float64. ``by_feature``, ``by_row`` [G, E] float32: d cosine / d feature and d cosine / d row.
    """

    def __init__(self, feature, rows, normalised: bool):
        exact = paddle.cast(feature, "float64"), paddle.cast(rows, "float64")
        if not normalised:
            self.cosine = paddle.squeeze(_product(*exact), 1)
            self.by_feature, self.by_row = rows, feature
            return
        self._squares = [squared_length(vectors) for vectors in exact]
        inverse = [inverse_root(square) for square in self._squares]
        units = [vectors * factor for vectors, factor in zip(exact, inverse)]
        cosine = paddle.clip(_product(*units), -1.0, 1.0)
        self.cosine = paddle.squeeze(cosine, 1)
        self.by_feature, self.by_row = (
            paddle.cast((other - own * cosine) * factor, "float32")
            for own, other, factor in zip(units, reversed(units), inverse)
        )

    def norm(self):
        """[G] float64: the length of each feature."""
        return paddle.squeeze(paddle.sqrt(self._squares[0]), 1)


def _product(left, right):
    """[G, 1] of two [G, E], row by row."""
    return paddle.matmul(left * right, paddle.ones([left.shape[1], 1], left.dtype))
