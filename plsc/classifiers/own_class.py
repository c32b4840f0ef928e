"""A feature and the centre of its own class, worked on as the two vectors they are, in float64.

Everything that is small where a sample is learnt, or where the two are parallel, is a difference of numbers that are
nearly the same: made of float32 cosines it would be their rounding. There are as few own classes as features, so the
double precision costs nothing.
"""

from __future__ import annotations

import paddle

from plsc.classifiers.head import inverse_root
from plsc.classifiers.margins import Margins, target_cosine
from plsc.rows.operations import squared_length


class OwnClass:
    """``feature`` and ``rows`` [G, E] float32: row i is the centre of the class of feature i; any, where another rank
    has it. ``margins`` None: their products count, not cosines.

    ``logit`` [G]: scale * the cosine with its margin. ``slope`` [G]: d logit / d cosine / scale. ``by_feature``,
    ``by_row`` [G, E]: d cosine / d feature and d cosine / d row. All float32.
    """

    def __init__(self, feature, rows, margins: Margins | None, scale: float):
        exact = paddle.cast(feature, "float64"), paddle.cast(rows, "float64")
        if margins is None:
            logit = _product(*exact)
            self.slope = paddle.squeeze(paddle.ones_like(feature[:, :1]), 1)
            self.by_feature, self.by_row = rows, feature
        else:
            inverse = [inverse_root(squared_length(vectors)) for vectors in exact]
            units = [vectors * factor for vectors, factor in zip(exact, inverse)]
            cosine = paddle.clip(_product(*units), -1.0, 1.0)
            with_margin, slope = target_cosine(paddle.squeeze(cosine, 1), margins)
            logit, self.slope = scale * with_margin, paddle.cast(slope, "float32")
            self.by_feature, self.by_row = (
                paddle.cast((other - own * cosine) * factor, "float32")
                for own, other, factor in zip(units, reversed(units), inverse)
            )
        self.logit = paddle.cast(paddle.reshape(logit, [-1]), "float32")


def _product(left, right):
    """[G, 1] of two [G, E], row by row."""
    return paddle.matmul(left * right, paddle.ones([left.shape[1], 1], left.dtype))
