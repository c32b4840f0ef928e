"""Loss and gradients in plain operations, block by block of rows. Cosines are kept as [R, G]: no row is transposed.

The blocks are gone through twice: forward (cosines, and the sums of the softmax) and backward (gradients of the
cosines, of the features and of the rows, which are moved at once). Where all gradients must be known before the first
row moves, whoever takes those of the rows writes them out one piece at a time in a third.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import paddle

from plsc.classifiers.head import HeadOutput, inverse_norm, inverse_root, row_numbers
from plsc.classifiers.loss_terms import LossTerms, Terms
from plsc.classifiers.softmax import RowSums, Softmax
from plsc.classifiers.target_class import TargetClass
from plsc.rows.blocks import RowBlock, RowBlocks, RowPiece, length
from plsc.rows.gradients import RowGradients, RowProduct
from plsc.rows.operations import scale_rows

LOWEST = -3e38  # about the lowest float32: below every logit
# A logit that adds nothing to a sum. Where no other row is in a block it is the largest, and rounded to 8: exp(8) is
# finite, and 0 times that nothing.
NOTHING = -1e8


class PlainHead:
    """The softmax of ``loss`` over ``blocks`` of rows.

    ``feature`` [G, E]. ``rows`` (see plsc.rows.optimizers) gives the values of a piece by ``fetch(piece)``, their
    squared lengths by ``squares(piece)``. ``move``, if given, is called in the backward pass with each block and the
    part of the gradient along its rows [R, 1], to be subtracted, or None; what it returns is called with each piece
    and the rest of the gradient, a RowProduct.
    ``position`` [G] int64: which of the rows that take part is the feature's own class, -1 where another rank holds it.
    """

    def __init__(self, feature, blocks: RowBlocks, rows, position, loss: LossTerms, move=None):
        self.blocks, self.rows, self.position, self.loss, self.move = blocks, rows, position, loss, move
        self.scale = loss.scale
        self.directions = loss.normalised
        self.rule = None  # for the cosines of the other classes
        self.given = feature
        self.feature_scale = inverse_norm(feature) if self.directions else None
        self.feature = feature * self.feature_scale if self.directions else feature
        # then, where rows are not moved at once, the gradients of the cosines and their part along each row
        self.cosines = blocks.buffer(length(feature))
        self.row_scales = blocks.buffer(1)  # 1 / |row|
        self.exponentials = blocks.buffer(length(feature)) if blocks.is_single else None
        self.slopes = blocks.buffer(length(feature)) if blocks.is_single and loss.has_others_rule else None
        self._places: dict[RowBlock, _Places] = {}

    def run(self, divisor, shard_world: int, count_larger: bool) -> HeadOutput:
        """``divisor``: features of the global batch, a number or a value. ``shard_world``: ranks that share the rows.
        ``count_larger``: whether HeadOutput.larger is wanted."""
        if self.loss.has_others_rule:
            own, terms = self._own_class()
            self.rule = terms.others
        sums = RowSums(*self.forward())
        if not self.loss.has_others_rule:  # not before: what it makes would be held through the loop
            own, terms = self._own_class()
        softmax = Softmax(sums, terms, self.position, self.scale, divisor, shard_world)
        factors = _Factors(self.feature * softmax.share, own.by_row * softmax.own_part)
        dfeature, larger = self.backward(softmax, factors, count_larger)
        if self.directions:
            along = paddle.sum(dfeature * self.feature, axis=1, keepdim=True)
            dfeature = (dfeature - self.feature * along) * self.feature_scale
        dfeature = dfeature + own.by_feature * softmax.own_part
        if softmax.norm_part is not None:
            dfeature = dfeature + self.feature * softmax.norm_part
        gradients = None
        if self.move is None:
            gradients = RowGradients(
                self.blocks, self.rows.fetch, lambda piece, rows: self._row_gradient(piece, factors, rows)
            )
        return HeadOutput(softmax.loss, dfeature, gradients, larger)

    def _own_class(self) -> tuple[TargetClass, Terms]:
        own = TargetClass(self.given, self.rows.fetch(self.blocks.piece_at(self.position)), self.directions)
        return own, self.loss.of(own, self.position)

    def forward(self) -> list:
        """(the largest logit, the sum of exp(logit - largest), the own cosine) [G] of each feature over all blocks.

        The first two without the own class, whose logit, with the margin, is known after the loop.
        """

        def body(block: RowBlock, largest, total, own_cosine):
            cosine = self._cosines(block)
            self.cosines.put(block, cosine)
            own = self._places_in(block).take(cosine)
            others, slope = self._others(block, cosine)
            if self.slopes is not None:
                self.slopes.put(block, slope)
            higher = paddle.maximum(largest, self.scale * _largest(others, block))
            exponential = self._exponential(block, others, higher)
            total = total * paddle.exp(largest - higher) + _sum_over_rows(exponential, block)
            return higher, total, own_cosine + own

        zeros = paddle.zeros_like(paddle.cast(self.position, "float32"))
        return self.blocks.for_each(body, [zeros + LOWEST, zeros, zeros])

    def _cosines(self, block: RowBlock):
        """The cosines [R, G], or with plain softmax the products; keeps 1 / |row|."""
        products, squares = [], []
        for piece in block.pieces:
            rows = self.rows.fetch(piece)
            products.append(paddle.matmul(rows, self.feature, transpose_y=True))
            if self.directions:
                squares.append(self.rows.squares(piece))
        if not self.directions:
            return block.concat(products)
        row_scale = inverse_root(block.concat(squares))
        self.row_scales.put(block, row_scale)
        return scale_rows(block.concat(products), row_scale, by_channel=block.in_blocks)

    def _others(self, block: RowBlock, cosine) -> tuple:
        """(what stands for ``cosine`` [R, G], in which the own classes add nothing to a softmax, its slope or None)."""
        slope, places = None, self._places_in(block)
        if self.rule is not None:
            cosine, slope = self.rule(cosine)
        return places.put(cosine, paddle.full_like(places.held, NOTHING / self.scale)), slope

    def _exponential(self, block: RowBlock, others, largest):
        """exp(logit - largest) [R, G]."""
        exponential = paddle.exp(_scaled_minus(others, self.scale, largest, block))
        if self.exponentials is not None:
            self.exponentials.put(block, exponential)
        return exponential

    def backward(self, softmax: Softmax, factors: _Factors, count_larger: bool) -> tuple:
        """The sum of d loss / d cosine * unit row over all blocks [G, E] without the own classes, and the counts of
        HeadOutput.larger."""

        def body(block: RowBlock, dfeature, *larger):
            cosine = self.cosines.get(block)
            if count_larger:
                at_least = paddle.cast(cosine >= paddle.unsqueeze(softmax.target, 0), "float32")
                larger = [larger[0] + _sum_over_rows(at_least, block)]
            dcosine = self._slope_of_exponentials(block, cosine, softmax.largest)
            # times softmax.share [G, 1], which goes into the features and saves a pass over [R, G]
            along = None
            if self.directions:
                # d cos / d row = (feature - cos * unit row) / |row|; the part along the row is a sum per row
                row_scale = self.row_scales.get(block)
                along = paddle.matmul(dcosine * cosine, softmax.share) * row_scale * row_scale
                dcosine = scale_rows(dcosine, row_scale, by_channel=block.in_blocks)
            move = self.move(block, along) if self.move else self._keep(block, along)
            for piece, weights in zip(block.pieces, block.split(dcosine)):
                dfeature = dfeature + paddle.matmul(weights, self.rows.fetch(piece), transpose_x=True)
                move(piece, self._product(piece, weights, factors))
            return dfeature, *larger

        start = [paddle.zeros_like(self.feature)]
        if count_larger:
            start.append(paddle.zeros_like(softmax.target))
        dfeature, *larger = self.blocks.for_each(body, start)
        return dfeature * softmax.share, larger[0] if count_larger else None

    def _slope_of_exponentials(self, block: RowBlock, cosine, largest):
        """d exp(logit - largest) / d cosine / scale [R, G] of the other classes, 0 at the own ones."""
        if self.exponentials is not None:
            exponential = self.exponentials.get(block)
            slope = None if self.slopes is None else self.slopes.get(block)
        else:
            others, slope = self._others(block, cosine)
            exponential = self._exponential(block, others, largest)
        return exponential if slope is None else exponential * slope

    def _product(self, piece: RowPiece, weights, factors: _Factors) -> RowProduct:
        place, inside = piece.positions(self.position)
        held = paddle.unsqueeze(paddle.cast(inside, "float32"), 1)
        return RowProduct(weights, factors.weighted, place, factors.own * held)

    def _places_in(self, block: RowBlock) -> _Places:
        if block not in self._places:
            self._places[block] = _Places(self, block)
        return self._places[block]

    def _keep(self, block: RowBlock, along) -> Callable:
        if self.directions:
            for piece, values in zip(block.pieces, block.split(along)):
                self.row_scales.put(piece, values)
        return lambda piece, product: self.cosines.put(piece, product.weights)

    def _row_gradient(self, piece: RowPiece, factors: _Factors, rows):
        gradient = self._product(piece, self.cosines.get(piece), factors).compute()
        if not self.directions:
            return gradient
        return gradient - scale_rows(rows, self.row_scales.get(piece), by_channel=piece.block.in_blocks)


@dataclass(frozen=True)
class _Factors:
    """What the gradients of the rows are made of: ``weighted`` [G, E], the features times their shares, and ``own``
    [G, E], the gradient by each feature's own row that comes from this feature."""

    weighted: Any
    own: Any


class _Places:
    """Where the features' own classes are in the [R, G] of a block, if they are in it."""

    def __init__(self, head: PlainHead, block: RowBlock):
        row, inside = block.positions(head.position)
        self.place = paddle.stack([row, row_numbers(head.feature)], axis=1)
        self.held = paddle.cast(inside, "float32")

    def take(self, values):
        """[G]: of ``values`` [R, G] those of the own classes, 0 where they are not in this block."""
        return paddle.gather_nd(values, self.place) * self.held

    def put(self, values, own):
        """``values`` [R, G] with ``own`` [G] at the own classes."""
        return paddle.scatter_nd_add(values, self.place, (own - paddle.gather_nd(values, self.place)) * self.held)


def _scaled_minus(x, scale: float, per_feature, block: RowBlock) -> Any:
    """scale * x [R, G] - per_feature [G].

    In blocks, and so on a CPU, as a product: broadcasting over rows takes ten times as long there. A GPU might round
    the factors of a product to TF32, 11 bits: of a logit of 20 that is off by up to 0.008.
    """
    per_feature = paddle.unsqueeze(per_feature, 0)
    if not block.in_blocks:
        return scale * x - per_feature
    return paddle.addmm(x, _ones(x), per_feature, beta=scale, alpha=-1.0)


def _sum_over_rows(x, block: RowBlock):
    """[G] of ``x`` [R, G], on CPUs by a product as well: a tenth of the time of ``sum``."""
    if not block.in_blocks:
        return paddle.sum(x, axis=0)
    return paddle.squeeze(paddle.matmul(_ones(x), x, transpose_x=True), 0)


def _largest(x, block: RowBlock):
    """[G]: the largest of each column of ``x`` [R, G]. On CPUs ``maximum`` of two halves is many times as fast as
    ``max`` by columns."""
    while block.in_blocks and x.shape[0] > 256:
        half = (x.shape[0] + 1) // 2
        x = paddle.maximum(x[:half], x[-half:])
    return paddle.max(x, axis=0)


def _ones(x):
    """[R, 1] for ``x`` [R, G]."""
    return paddle.ones_like(x[:, :1])
