"""A feature and the centre of its target class, as two float64 vectors.

For a well-classified sample, or where the two vectors are parallel, the gradients are small differences of nearly equal
numbers; computed from float32 cosines they would consist of rounding errors. There is one target class per feature, so
double precision costs next to nothing.
"""

from __future__ import annotations

import paddle

from plsc.classifiers.centres import ONE_CENTRE, Centres
from plsc.classifiers.head import inverse_root
from plsc.rows.operations import squared_length


class TargetClass:
    """``feature`` and ``rows`` [G, E] float32: row i is the centre of the target class of feature i, or any row where
    another rank holds that class. ``normalised`` False: dot products instead of cosines. Where classes have several
    ``centres``, ``rows`` is [G, K * E], and the nearest one counts; ``centre`` [G] int64 is its number, else None.

    ``cosine`` [G] float64. ``by_feature``, ``by_row`` [G, E] float32: d cosine / d feature and d cosine / d row.
    """

    def __init__(self, feature, rows, normalised: bool, centres: Centres = ONE_CENTRE):
        self.centre = None
        if centres.number > 1:
            rows, self.centre = centres.nearest(feature, rows)
        exact = paddle.cast(feature, "float64"), paddle.cast(rows, "float64")
        if not normalised:
            self.cosine = paddle.squeeze(_dot(*exact), 1)
            self.by_feature, self.by_row = rows, feature
            return
        self._squares = [squared_length(vectors) for vectors in exact]
        inverse = [inverse_root(square) for square in self._squares]
        units = [vectors * factor for vectors, factor in zip(exact, inverse)]
        cosine = paddle.clip(_dot(*units), -1.0, 1.0)
        self.cosine = paddle.squeeze(cosine, 1)
        self.by_feature, self.by_row = (
            paddle.cast((other - unit * cosine) * factor, "float32")
            for unit, other, factor in zip(units, reversed(units), inverse)
        )

    def norm(self):
        """[G] float64: the norm of each feature."""
        return paddle.squeeze(paddle.sqrt(self._squares[0]), 1)


def _dot(left, right):
    """[G, 1]: the dot product of each pair of rows of two [G, E]."""
    return paddle.matmul(left * right, paddle.ones([left.shape[1], 1], left.dtype))
