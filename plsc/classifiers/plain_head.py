"""Loss and gradients in plain operations, block by block of rows. Cosines are stored as [R, G]: no row is transposed.

There are two passes over the blocks: forward (cosines, and the sums of the loss over the rows) and backward (gradients
of the cosines, the features and the rows, which are updated in the same pass). Where all gradients must be known before
the first row is updated, the caller computes those of the rows in a third pass, one piece at a time, from the gradients
of the cosines, which are computed again: they never exist for more than a block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import paddle

from plsc.classifiers.centres import CentresProduct
from plsc.classifiers.columns import sum_of_sizes, sum_over_rows
from plsc.classifiers.head import HeadOutput, inverse_norm, inverse_root, row_numbers
from plsc.classifiers.loss_terms import LossTerms, Terms
from plsc.classifiers.nearest_rows import NearestRows
from plsc.classifiers.pairs import PairRows, Pairs
from plsc.classifiers.softmax import Parts, Softmax, SoftmaxRows
from plsc.classifiers.target_class import TargetClass
from plsc.rows.blocks import RowBlock, RowBlocks, RowPiece, length
from plsc.rows.gradients import RowGradients, RowProduct
from plsc.rows.operations import scale_rows, squared_length

# A logit that does not contribute to a sum over the rows. In a block without any other row it is the maximum, with a
# rounding error of up to 8: exp(8) is finite, and multiplied by 0.
MASKED_LOGIT = -1e8


class PlainHead:
    """The softmax or the pairs of ``loss`` over ``blocks`` of rows.

    ``feature`` [G, E]. ``rows``: see plsc.rows.shard_rows.RowValues. ``position`` [G] int64: the position of each
    feature's target class among the rows of the step, -1 where another rank holds it.

    ``move``, if given, updates the rows in the backward pass. It is called as ``move(block, along)`` for each block,
    where ``along`` [R, 1] (or None) is the component of the gradient along each row, to be subtracted. It returns a
    function that is called with each piece and the rest of its gradient, a RowProduct. Where classes have
    several centres, ``along`` is None and the gradient a CentresProduct.

    With ``loss.frozen`` no gradient of the rows is computed, and ``HeadOutput.row_gradients`` is None.

    With ``loss.half`` the cosines are computed from float16 vectors of length 1, in each pass again: a product of
    float16 is cheap beside the two of float32, and nothing [S, G] exists. Their gradients and all products with these
    are float32. For blocks of one piece, as on GPUs.
    """

    def __init__(self, feature, blocks: RowBlocks, rows, position, loss: LossTerms, move=None):
        self.blocks, self.rows, self.position, self.loss, self.move = blocks, rows, position, loss, move
        self.search: NearestRows | None = None
        self.centres = loss.centres
        self.scale = loss.scale
        self.normalised = loss.normalised
        self.over_rows: SoftmaxRows | PairRows = SoftmaxRows(loss) if loss.pairs is None else PairRows(loss.pairs)
        self.others_rule = None  # Loss.others, for the cosines of the other classes
        self.raw_feature = feature
        self.feature_scale = inverse_norm(feature) if self.normalised else None
        self.feature = feature * self.feature_scale if self.normalised else feature
        # dot products of vectors of any length might overflow float16
        self.half_feature = paddle.cast(self.feature, "float16") if loss.half and self.normalised else None
        self.keeps_cosines = blocks.is_single or self.half_feature is None
        self.cosines = blocks.buffer(length(feature) * loss.centres.number)
        self.row_scales = blocks.buffer(loss.centres.number)  # 1 / |centre|
        self.contributions = blocks.buffer(length(feature)) if blocks.is_single else None
        self.slopes = blocks.buffer(length(feature)) if blocks.is_single and loss.has_others_rule else None
        self._targets: dict[RowBlock, _Targets] = {}
        self._known_slopes: dict[RowBlock, _Slopes] = {}

    def run(self, parts: Parts, count_larger: bool, search: NearestRows | None = None) -> HeadOutput:
        """``count_larger``: whether to compute HeadOutput.num_larger. ``search``, if given, finds HeadOutput.nearest,
        by the cosines that enter the loss."""
        self.search = search
        if self.loss.has_others_rule:
            target, terms = self._target_class()
            self.others_rule = terms.others
        target_cosine, sums, nearest = self.forward()
        if not self.loss.has_others_rule:  # not earlier: its tensors would stay in memory through the loop
            target, terms = self._target_class()
        whole = self.over_rows.whole(sums, target_cosine, terms, self.position, parts)
        by_row = target.by_row * whole.target_factor
        factors = _Factors(self.feature * whole.others_factor, by_row, target.centre)
        dfeature, num_larger, bound = self.backward(whole, factors, count_larger)
        if self.normalised:
            along = paddle.sum(dfeature * self.feature, axis=1, keepdim=True)
            dfeature = (dfeature - self.feature * along) * self.feature_scale
        dfeature = dfeature + target.by_feature * whole.target_factor
        if whole.norm_factor is not None:
            dfeature = dfeature + self.feature * whole.norm_factor
        gradients = None
        if self.move is None and not self.loss.frozen:
            compute = lambda piece, rows: self._row_gradient(piece, whole, factors, rows)  # noqa: E731
            gradients = RowGradients(self.blocks, self.rows.fetch, compute, bound)
        return HeadOutput(whole.loss, dfeature, gradients, num_larger, nearest, whole.next_bias)

    def _target_class(self) -> tuple[TargetClass, Terms]:
        rows = self.rows.fetch(self.blocks.piece_at(self.position))
        target = TargetClass(self.raw_feature, rows, self.normalised, self.centres)
        return target, self.loss.compute(target, self.position)

    def forward(self) -> tuple[Any, list, list | None]:
        """(the target cosines [G], 0 where another rank holds the class; the sums of ``over_rows`` over all blocks;
        HeadOutput.nearest)."""

        def body(block: RowBlock, target_cosine, *carried):
            cosine = self.centres.largest(self._cosines(block))
            targets = self._targets_in(block)
            in_block = targets.take(cosine)
            values, slope = self._replaced(cosine)
            others = self._masked(block, values)
            if self.slopes is not None:
                self.slopes.put(block, slope)
            sums, nearest = carried[: len(begin)], carried[len(begin) :]
            if self.search is not None:
                nearest = self.search.merge(block, others, *nearest)
            sums, contribution = self.over_rows.add(block, values, others, targets, list(sums))
            if self.contributions is not None:
                self.contributions.put(block, contribution)
            return target_cosine + in_block, *sums, *nearest

        zeros = paddle.zeros_like(paddle.cast(self.position, "float32"))
        begin = self.over_rows.start(zeros)
        target_cosine, *found = self.blocks.for_each(
            body, [zeros, *begin, *([] if self.search is None else self.search.start(zeros))]
        )
        return target_cosine, found[: len(begin)], found[len(begin) :] or None

    def _cosines(self, block: RowBlock):
        """The cosines [R * K, G] float32 with all centres, or dot products for plain softmax; stores what later passes
        need: 1 / |centre|, and the cosines themselves if these are kept."""
        computed = self._products(block)
        if self.keeps_cosines:
            self.cosines.put(block, self.centres.join(computed))
        return self._in_float32(computed)

    def _cosines_again(self, block: RowBlock):
        """``_cosines`` in a later pass: as stored, or computed again."""
        if self.keeps_cosines:
            return self._in_float32(self.centres.split(self.cosines.get(block)))
        return self._cosines(block)

    def _in_float32(self, cosine):
        return cosine if self.half_feature is None else paddle.cast(cosine, "float32")

    def _products(self, block: RowBlock):
        """The cosines of a block, float16 with ``loss.half``; stores 1 / |centre|."""
        if self.half_feature is not None:
            (piece,) = block.pieces
            rows, row_scale = self.centres.split(self.rows.fetch(piece)), inverse_root(self._squares(piece))
            self.row_scales.put(block, self.centres.join(row_scale))
            return paddle.matmul(paddle.cast(rows * row_scale, "float16"), self.half_feature, transpose_y=True)
        products, squares = [], []
        for piece in block.pieces:
            rows = self.centres.split(self.rows.fetch(piece))
            products.append(paddle.matmul(rows, self.feature, transpose_y=True))
            if self.normalised:
                squares.append(self._squares(piece))
        if not self.normalised:
            return block.concat(products)
        row_scale = inverse_root(block.concat(squares))
        self.row_scales.put(block, self.centres.join(row_scale))
        return scale_rows(block.concat(products), row_scale, by_channel=block.for_cpu)

    def _squares(self, piece: RowPiece):
        """The squared lengths [R * K, 1] of the centres."""
        if self.centres.number == 1:
            return self.rows.squares(piece)
        return squared_length(self.centres.split(self.rows.fetch(piece)), piece.block.for_cpu)

    def _replaced(self, cosine) -> tuple:
        """(``cosine`` [R, G] after the rule of Loss.others; its slope or None)."""
        return (cosine, None) if self.others_rule is None else self.others_rule(cosine)

    def _masked(self, block: RowBlock, cosine):
        """``cosine`` [R, G] with the target classes masked."""
        targets = self._targets_in(block)
        return targets.put(cosine, paddle.full_like(targets.inside, MASKED_LOGIT / self.scale))

    def backward(self, whole: Softmax | Pairs, factors: _Factors, count_larger: bool) -> tuple:
        """(the sum of d loss / d cosine * unit row over all blocks [G, E] without the target classes,
        HeadOutput.num_larger or None, RowGradients.bound or None)."""
        bounded = self.loss.half and self.move is None and not self.loss.frozen

        def body(block: RowBlock, dfeature, *sums):
            slopes, more = self._slopes(block, whole), []
            if count_larger:
                at_least = paddle.cast(slopes.cosine >= paddle.unsqueeze(whole.target, 0), "float32")
                more.append(sum_over_rows(at_least, block))
            if bounded:
                more.append(sum_of_sizes(slopes.weights, factors.weighted))
            sums = [total + value for total, value in zip(sums, more)]
            move = self._mover(block, slopes.along) if self.move else None
            for piece, weights in zip(block.pieces, slopes.weights):
                rows = self.centres.split(self.rows.fetch(piece))
                dfeature = dfeature + paddle.matmul(weights, rows, transpose_x=True)
                if move is not None:
                    move(piece, self._product(piece, weights, factors))
            return dfeature, *sums

        start = [paddle.zeros_like(self.feature)]
        start += [paddle.zeros_like(whole.target)] if count_larger else []
        start += [paddle.reshape(paddle.sum(paddle.abs(factors.target)), [1])] if bounded else []
        dfeature, *sums = self.blocks.for_each(body, start)
        return dfeature * whole.others_factor, sums[0] if count_larger else None, sums[-1] if bounded else None

    def _slopes(self, block: RowBlock, whole: Softmax | Pairs) -> _Slopes:
        """Of a single block they are computed once."""
        if block in self._known_slopes:
            return self._known_slopes[block]
        of_centres = self._cosines_again(block)
        cosine = self.centres.largest(of_centres)
        # whole.others_factor [G, 1] is multiplied into the features instead, which saves a pass over [R, G]
        dcosine = self.centres.spread(self._slope_of_contributions(block, cosine, whole), of_centres)
        along = None
        if self.normalised:
            # d cos / d row = (feature - cos * unit row) / |row|; the component along the row is a sum per row
            row_scale = self.centres.split(self.row_scales.get(block))
            if not self.loss.frozen:
                along = paddle.matmul(dcosine * of_centres, whole.others_factor) * row_scale * row_scale
            dcosine = scale_rows(dcosine, row_scale, by_channel=block.for_cpu)
        weights = [self.centres.split(part) for part in block.split(self.centres.join(dcosine))]
        parts = [] if along is None or self.move else block.split(self.centres.join(along))
        self._known_slopes[block] = _Slopes(cosine, weights, along, parts)
        return self._known_slopes[block]

    def _slope_of_contributions(self, block: RowBlock, cosine, whole: Softmax | Pairs):
        """d loss / d cosine [R, G] of the other classes over ``others_factor``, 0 at the target classes."""
        if self.contributions is not None:
            found = self.contributions.get(block)
            slope = None if self.slopes is None else self.slopes.get(block)
        else:
            values, slope = self._replaced(cosine)
            found = self.over_rows.contribution(block, self._masked(block, values), whole.max)
        if whole.excess is not None:
            targets = self._targets_in(block)
            found = found * paddle.unsqueeze(whole.excess, 0) - 1.0
            found = targets.put(found, paddle.zeros_like(targets.inside))
        return found if slope is None else found * slope

    def _product(self, piece: RowPiece, weights, factors: _Factors) -> RowProduct:
        position, inside = piece.positions(self.position)
        if factors.target_centre is not None:
            position = position * self.centres.number + factors.target_centre
        inside = paddle.unsqueeze(paddle.cast(inside, "float32"), 1)
        return RowProduct(weights, factors.weighted, position, factors.target * inside)

    def _targets_in(self, block: RowBlock) -> _Targets:
        if block not in self._targets:
            self._targets[block] = _Targets(self, block)
        return self._targets[block]

    def _mover(self, block: RowBlock, along) -> Callable:
        if self.centres.number == 1:
            return self.move(block, along)
        move, parts = self.move(block, None), block.split(self.centres.join(along))
        return lambda piece, product: move(piece, self._of_classes(piece, product, piece.select(parts)))

    def _of_classes(self, piece: RowPiece, product: RowProduct, along) -> CentresProduct:
        """``along`` [R, K]."""
        rows, along = self.rows.fetch(piece), self.centres.split(along)
        return CentresProduct(product, rows, along, self.centres, piece.block.for_cpu)

    def _row_gradient(self, piece: RowPiece, whole: Softmax | Pairs, factors: _Factors, rows):
        slopes = self._slopes(piece.block, whole)
        product = self._product(piece, piece.select(slopes.weights), factors)
        if not self.normalised:
            return product.compute()
        along = piece.select(slopes.along_of_pieces)
        if self.centres.number > 1:
            return self._of_classes(piece, product, along).compute()
        return product.compute() - scale_rows(rows, along, by_channel=piece.block.for_cpu)


@dataclass(frozen=True)
class _Slopes:
    """Of a block: ``cosine`` [R, G], of several centres the largest; for each piece ``weights`` [R * K, G], d loss /
    d (row . feature) without Softmax.others_factor; ``along`` [R * K, 1], see PlainHead, or None, and [R, K] of each
    piece where rows are updated later."""

    cosine: Any
    weights: list
    along: Any
    along_of_pieces: list


@dataclass(frozen=True)
class _Factors:
    """Factors of the gradients of the rows: ``weighted`` [G, E], the features times Softmax.others_factor, and
    ``target`` [G, E], the gradient by the row of each feature's target class that comes from this feature, or by the
    centre ``target_centre`` [G] of it."""

    weighted: Any
    target: Any
    target_centre: Any = None


class _Targets:
    """The positions of the features' target classes in the [R, G] of a block. ``inside`` [G]: 1 where the class is in
    this block, else 0."""

    def __init__(self, head: PlainHead, block: RowBlock):
        row, inside = block.positions(head.position)
        self.position = paddle.stack([row, row_numbers(head.feature)], axis=1)
        self.inside = paddle.cast(inside, "float32")

    def take(self, values):
        """The entries [G] of ``values`` [R, G] at the target classes, 0 where these are not in this block."""
        return paddle.gather_nd(values, self.position) * self.inside

    def put(self, values, new):
        """``values`` [R, G] with ``new`` [G] at the target classes."""
        difference = (new - paddle.gather_nd(values, self.position)) * self.inside
        return paddle.scatter_nd_add(values, self.position, difference)
