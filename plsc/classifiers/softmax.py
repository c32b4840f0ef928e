"""Cross entropy over the rows of all blocks of all ranks, from partial sums over each rank's rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import paddle

from plsc.backend import collectives
from plsc.classifiers.columns import max_over_rows, scaled_minus, sum_over_rows
from plsc.classifiers.head import LOWEST
from plsc.classifiers.loss_terms import LossTerms, Terms
from plsc.rows.blocks import RowBlock


@dataclass(frozen=True)
class Parts:
    """``divisor``: the features of the global batch, a number or a value. ``shard_world``: ranks that share the rows.
    ``batch_world``: ranks that share the batch, each with features of its own."""

    divisor: Any
    shard_world: int
    batch_world: int = 1


@dataclass(frozen=True)
class RowSums:
    """[G] each, over this rank's rows without the target class: the ``max`` logit, and ``exp_sum``, the sum of
    exp(logit - max). ``target_cosine``: before the margin, 0 where another rank holds the target class. With label
    smoothing, ``total``: the sum of the cosines, and ``count``: how many they are."""

    max: Any
    exp_sum: Any
    target_cosine: Any
    total: Any = None
    count: Any = None


class SoftmaxRows:
    """The rows of a block in the softmax of ``loss``; see PlainHead. PairRows has the same methods.

    Maximum and sum exclude the target class, whose logit with the margin is known after the loop; so do the two sums
    for label smoothing.
    """

    def __init__(self, loss: LossTerms):
        self._scale, self._smoothing = loss.scale, loss.smoothing

    def start(self, zeros) -> list:
        """The sums [G] of no rows; ``zeros`` [G]."""
        return [zeros + LOWEST, zeros, *([zeros] * 2 if self._smoothing else [])]

    def add(self, block: RowBlock, cosine, others, targets, sums: list) -> tuple[list, Any]:
        """(``sums`` and the rows of ``block``, their exponentials [R, G]). ``cosine`` [R, G] after the rule of
        Loss.others; ``others``: the same with the target classes masked, which are at ``targets``."""
        largest, exp_sum, *more = sums
        if more:
            more = [more[0] + sum_over_rows(cosine, block) - targets.take(cosine),
                    more[1] + sum_over_rows(paddle.ones_like(cosine), block) - targets.inside]  # fmt: skip
        higher = paddle.maximum(largest, self._scale * max_over_rows(others, block))
        exponential = self.contribution(block, others, higher)
        exp_sum = exp_sum * paddle.exp(largest - higher) + sum_over_rows(exponential, block)
        return [higher, exp_sum, *more], exponential

    def contribution(self, block: RowBlock, others, largest):
        """[R, G]: exp(logit - ``largest`` [G]), of which the gradient by the other cosines is a multiple."""
        return paddle.exp(scaled_minus(others, self._scale, largest, block))

    def whole(self, sums: list, target_cosine, terms: Terms, position, parts: Parts) -> Softmax:
        """The loss of all rows of all ranks."""
        return Softmax(RowSums(*sums[:2], target_cosine, *sums[2:]), terms, position, self._scale, parts)


class Softmax:
    """The loss and its gradient by the cosines.

    ``loss`` [1]. ``target`` [G]: the cosine with the target class, the same on every rank. d loss / d cosine of a class
    other than the target is ``others_factor`` [G, 1] times exp(logit - ``max`` [G]); of the target class it is
    ``target_factor`` [G, 1], which is 0 where another rank holds that class. ``norm_factor`` [G, 1] or None: d loss / d
    norm of the features, 0 where another rank holds the target class.

    With label smoothing e the target distribution is 1 - e of the target class and e / S of each of the S classes of
    the step, the target class included. d loss / d cosine of the other classes is then ``others_factor`` times
    (exp(logit - ``max``) * ``excess`` [G] - 1); without, ``excess`` is None.

    ``position`` [G] is negative where another rank holds the target class. ``scale``: logit / cosine.

    The target class is kept apart from all other classes throughout. For a well-classified sample, 1 - p and the loss
    are far below the rounding errors of p and of the logits. Both follow without loss of precision from the margin
    between the other classes and the target: (1 - p) / p is its exponential.
    """

    next_bias: list = []  # of a PairLoss

    def __init__(self, sums: RowSums, terms: Terms, position, scale: float, parts: Parts):
        divisor, shard_world = parts.divisor, parts.shard_world
        owned = paddle.cast(position >= 0, "float32")
        global_max = collectives.all_reduce(sums.max, shard_world, collectives.MAX)  # prevents overflow of exp
        exp_sum = sums.exp_sum * paddle.exp(sums.max - global_max)
        own = [exp_sum, terms.logit * owned, sums.target_cosine * owned, owned]
        own += [sums.total, sums.count] if terms.smoothing else []
        whole = paddle.unbind(collectives.all_reduce(paddle.stack(own), shard_world), axis=0)
        exp_sum, target_logit, self.target, owners, *more = whole
        # one rank owns the label; an invalid label has no owner: 0 / 0 makes loss and gradients NaN instead of wrong
        log_odds = paddle.log(exp_sum) + global_max - target_logit / owners  # log((1 - p) / p)
        small = paddle.exp(-paddle.abs(log_odds))
        zero = paddle.zeros_like(log_odds)
        nll = paddle.maximum(log_odds, zero) + paddle.log1p(small)
        share = 0.0  # of each class, by label smoothing
        if terms.smoothing:
            total, count = more[0], more[1] + 1.0  # the target class is one more
            share = terms.smoothing / count
            nll = nll + terms.smoothing * (target_logit - (scale * total + target_logit) / count)
        by_cosine = scale / divisor  # the factor between d nll / d logit and d loss / d cosine
        if terms.weight is not None:
            nll, by_cosine = nll * terms.weight, by_cosine * terms.weight
        if terms.penalty is not None:
            nll = nll + terms.penalty
        self.loss = paddle.reshape(paddle.sum(nll) / divisor, [1])
        one_minus_p = paddle.where(log_odds < 0.0, small, zero + 1.0) / (1.0 + small) * by_cosine
        self.max = sums.max
        others_factor = paddle.exp(sums.max - global_max) / exp_sum * one_minus_p
        self.excess, by_target = None, -one_minus_p  # d loss / d logit of the target class, times scale
        if terms.smoothing:
            each = share * by_cosine
            self.excess, others_factor = others_factor / each, each
            by_target = by_target + (terms.smoothing - share) * by_cosine
        self.others_factor = paddle.unsqueeze(others_factor, 1)
        self.target_factor = paddle.unsqueeze(by_target * terms.slope * owned, 1)
        by_norm = [] if terms.norm_slope is None else [by_target * terms.norm_slope]
        by_norm += [] if terms.penalty is None else [terms.penalty_slope / divisor]
        self.norm_factor = paddle.unsqueeze(sum(by_norm[1:], by_norm[0]) * owned, 1) if by_norm else None
