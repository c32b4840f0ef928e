"""Binary losses of all pairs of a feature and a class, summed over the rows of all blocks of all ranks.

See plsc.losses.PairLoss for the formula. With the logit z_j = s c_j + b of a class j and the sigmoid of x, sigma(x),

    d loss / d c_j = s / G * negative * sigma(z_j),    d loss / d c_y = -s / G * positive * sigma(-z_y)

so no class needs to know of any other: the ranks exchange sums for the loss and for the gradient of b only.
"""

from __future__ import annotations

from typing import Any

import paddle

from plsc.backend import collectives
from plsc.classifiers.columns import scaled_minus, sum_over_rows
from plsc.classifiers.loss_terms import Terms
from plsc.classifiers.pair_terms import PairTerms, sigmoid, softplus
from plsc.classifiers.softmax import Parts
from plsc.rows.blocks import RowBlock


class PairRows:
    """The rows of a block as pairs; the methods are those of SoftmaxRows.

    All terms are above 0, and what is added over the blocks is float64: the relative error of a sum is that of the
    float32 additions within a block, at most 6e-8 for each of its rows, however many classes there are. Gradients by
    the cosines need no sum.
    """

    def __init__(self, terms: PairTerms):
        self._terms = terms

    def start(self, zeros) -> list:
        """The sums [G] of no rows: of softplus(z) and of sigma(z)."""
        return [paddle.cast(zeros, "float64")] * 2

    def add(self, block: RowBlock, cosine, others, targets, sums: list) -> tuple[list, Any]:
        """(``sums`` and the rows of ``block``, sigma(z) [R, G]); where the target classes are masked, both are 0."""
        logit = self._logit(block, others)
        values = softplus(logit), sigmoid(logit)
        each = (paddle.cast(sum_over_rows(value, block), "float64") for value in values)
        return [total + value for total, value in zip(sums, each)], values[1]

    def contribution(self, block: RowBlock, others, largest):
        """sigma(z) [R, G], of which the gradient by the other cosines is a multiple."""
        return sigmoid(self._logit(block, others))

    def whole(self, sums: list, target_cosine, terms: Terms, position, parts: Parts) -> Pairs:
        """The loss of all rows of all ranks."""
        sums = [paddle.cast(value, "float32") for value in sums]
        return Pairs(sums, target_cosine, terms, position, self._terms, parts)

    def _logit(self, block: RowBlock, others):
        minus_bias = paddle.zeros_like(others[0]) - self._terms.bias
        return scaled_minus(others, self._terms.scale, minus_bias, block)


class Pairs:
    """The loss and its gradient by the cosines, with the attributes of Softmax, whose ``max`` and ``excess`` are None.

    ``next_bias``: see PairTerms.
    """

    max = excess = None

    def __init__(self, sums: list, target_cosine, terms: Terms, position, pairs: PairTerms, parts: Parts):
        owned = paddle.cast(position >= 0, "float32")
        minus_logit = -(terms.logit + pairs.bias)
        away, miss = sigmoid(minus_logit), softplus(minus_logit)
        own = [*sums, miss * owned, away * owned, target_cosine * owned, owned]
        whole = paddle.unbind(collectives.all_reduce(paddle.stack(own), parts.shard_world), axis=0)
        others, others_slope, positive, positive_slope, self.target, owners = whole
        # one rank owns the label; an invalid label has no owner: 0 / 0 makes loss and gradients NaN instead of wrong
        factor = owners / owners / parts.divisor
        if terms.weight is not None:
            factor = factor * terms.weight
        loss = factor * (pairs.positive * positive + pairs.negative * others)
        if terms.penalty is not None:
            loss = loss + terms.penalty / parts.divisor
        self.loss = paddle.reshape(paddle.sum(loss), [1])
        by_bias = paddle.sum(factor * (pairs.negative * others_slope - pairs.positive * positive_slope))
        by_bias = collectives.all_reduce(paddle.reshape(by_bias, [1]), parts.batch_world)
        self.next_bias = pairs.next_bias(by_bias)
        by_cosine = pairs.scale * factor
        self.others_factor = paddle.unsqueeze(pairs.negative * by_cosine, 1)
        by_target = -pairs.positive * away * by_cosine * owned
        self.target_factor = paddle.unsqueeze(by_target * terms.slope, 1)
        by_norm = [] if terms.norm_slope is None else [by_target * terms.norm_slope]
        by_norm += [] if terms.penalty is None else [terms.penalty_slope / parts.divisor * owned]
        self.norm_factor = paddle.unsqueeze(sum(by_norm[1:], by_norm[0]), 1) if by_norm else None
