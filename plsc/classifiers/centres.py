"""Several centres per class: sub-centre ArcFace (Deng et al. 2020, section 3.2).

The cosine of a class is the largest of those with its K centres; only that centre gets a gradient. Of equal cosines the
first counts. A class stays one row, its K centres one after the other, so whatever works with rows (samples, updates,
shards, checkpoints) knows nothing of them: R rows of classes are [R, K * E], or as centres [R * K, E].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import paddle

from plsc.classifiers.head import inverse_root, row_numbers
from plsc.rows.gradients import RowProduct
from plsc.rows.operations import scale_rows, squared_length


@dataclass(frozen=True)
class Centres:
    """``number``: K, of each class. With 1, all methods return their arguments and append no operation."""

    number: int = 1

    def split(self, rows):
        """[R, K * W] of classes -> [R * K, W] of their centres."""
        return rows if self.number == 1 else paddle.reshape(rows, [-1, rows.shape[1] // self.number])

    def join(self, rows):
        """[R * K, W] of centres -> [R, K * W] of their classes."""
        return rows if self.number == 1 else paddle.reshape(rows, [-1, rows.shape[1] * self.number])

    def largest(self, cosine):
        """[R, G], the largest of each class, of ``cosine`` [R * K, G] of all centres."""
        return cosine if self.number == 1 else _largest(self._by_centre(cosine))[0]

    def largest_of_columns(self, cosine):
        """``largest`` of the transposed: [G, R] of ``cosine`` [G, R * K], which a gradient may pass."""
        if self.number == 1:
            return cosine
        by_class = paddle.reshape(cosine, [cosine.shape[0], -1, self.number])
        return _largest([by_class[:, :, k] for k in range(self.number)])[0]

    def spread(self, gradient, cosine):
        """The gradient by ``cosine`` [R * K, G] of all centres, of that by ``largest(cosine)`` [R, G]."""
        if self.number == 1:
            return gradient
        each = [gradient * paddle.cast(chosen, gradient.dtype) for chosen in _chosen(self._by_centre(cosine))]
        return self.split(paddle.concat(each, axis=1))

    def nearest(self, feature, rows) -> tuple:
        """(the centre [G, E] of ``rows`` [G, K * E] with the largest cosine with each ``feature`` [G, E], compared in
        float64; its number [G] int64)."""
        exact = paddle.cast(self.split(rows), "float64")
        unit = self.join(exact * inverse_root(squared_length(exact)))
        features = paddle.cast(feature, "float64")
        ones = paddle.ones([feature.shape[1], 1], "float64")
        cosines = [paddle.matmul(part * features, ones) for part in paddle.split(unit, self.number, axis=1)]
        number = sum(k * paddle.cast(chosen, "int64") for k, chosen in enumerate(_chosen(cosines)))
        number = paddle.squeeze(number, 1)
        return paddle.gather(self.split(rows), row_numbers(feature) * self.number + number), number

    def _by_centre(self, cosine) -> list:
        """K values [R, G] of ``cosine`` [R * K, G]."""
        return paddle.split(self.join(cosine), self.number, axis=1)


ONE_CENTRE = Centres()


def _largest(values: list) -> tuple:
    """(the largest of ``values``, element by element; [whether each but the first is larger than all before it])."""
    best, larger = values[0], []
    for value in values[1:]:
        larger.append(value > best)
        best = paddle.where(larger[-1], value, best)  # not maximum, whose gradient is shared between equal values
    return best, larger


def _chosen(values: list) -> list:
    """[bool for each of ``values``: whether it is the largest; of equal ones the first]."""
    rest, masks = paddle.ones_like(values[0], "bool"), []
    for larger in reversed(_largest(values)[1]):
        masks.append(paddle.logical_and(rest, larger))
        rest = paddle.logical_and(rest, paddle.logical_not(larger))
    return [rest, *reversed(masks)]


@dataclass(frozen=True)
class CentresProduct:
    """``product`` [R * K, E] of centres without its component ``along`` [R * K, 1] each of them, as rows of classes.

    ``rows`` [R, K * E]: the classes. It takes the place of a RowProduct: there, the component is one factor of a row.
    """

    product: RowProduct
    rows: Any
    along: Any
    centres: Centres
    by_channel: bool

    def compute(self):
        """[R, K * E]."""
        return self.centres.join(self.product.add_to(self._minus_along()))

    def add_to(self, value):
        """``value`` [R, K * E] + the product."""
        return self.centres.join(self.product.add_to(self.centres.split(value) + self._minus_along()))

    def _minus_along(self):
        return scale_rows(self.centres.split(self.rows), -1.0 * self.along, self.by_channel)
