"""Cross entropy over the rows of all blocks of all ranks, from partial sums over each rank's rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import paddle

from plsc.backend import collectives
from plsc.classifiers.loss_terms import Terms


@dataclass(frozen=True)
class RowSums:
    """[G] each, over this rank's rows without the target class: the ``max`` logit, and ``exp_sum``, the sum of
    exp(logit - max). ``target_cosine``: before the margin, 0 where another rank holds the target class."""

    max: Any
    exp_sum: Any
    target_cosine: Any


class Softmax:
    """The loss and its gradient by the cosines.

    ``loss`` [1]. ``target`` [G]: the cosine with the target class, the same on every rank. d loss / d cosine of a class
    other than the target is ``others_factor`` [G, 1] times exp(logit - ``max`` [G]); of the target class it is
    ``target_factor`` [G, 1], which is 0 where another rank holds that class. ``norm_factor`` [G, 1] or None: d loss / d
    norm of the features, 0 where another rank holds the target class.

    ``position`` [G] is negative where another rank holds the target class. ``scale``: logit / cosine. ``divisor``: the
    number of features of the global batch.

    The target class is kept apart from all other classes throughout. For a well-classified sample, 1 - p and the loss
    are far below the rounding errors of p and of the logits. Both follow without loss of precision from the margin
    between the other classes and the target: (1 - p) / p is its exponential.
    """

    def __init__(self, sums: RowSums, terms: Terms, position, scale: float, divisor, shard_world: int):
        owned = paddle.cast(position >= 0, "float32")
        global_max = collectives.all_reduce(sums.max, shard_world, collectives.MAX)  # prevents overflow of exp
        exp_sum = sums.exp_sum * paddle.exp(sums.max - global_max)
        parts = paddle.stack([exp_sum, terms.logit * owned, sums.target_cosine * owned, owned])
        exp_sum, target_logit, self.target, owners = paddle.unbind(collectives.all_reduce(parts, shard_world), axis=0)
        # one rank owns the label; an invalid label has no owner: 0 / 0 makes loss and gradients NaN instead of wrong
        log_odds = paddle.log(exp_sum) + global_max - target_logit / owners  # log((1 - p) / p)
        small = paddle.exp(-paddle.abs(log_odds))
        zero = paddle.zeros_like(log_odds)
        nll = paddle.maximum(log_odds, zero) + paddle.log1p(small)
        if terms.penalty is not None:
            nll = nll + terms.penalty
        self.loss = paddle.reshape(paddle.sum(nll) / divisor, [1])
        one_minus_p = paddle.where(log_odds < 0.0, small, zero + 1.0) / (1.0 + small) * (scale / divisor)
        self.max = sums.max
        self.others_factor = paddle.unsqueeze(paddle.exp(sums.max - global_max) / exp_sum * one_minus_p, 1)
        self.target_factor = paddle.unsqueeze(-one_minus_p * terms.slope * owned, 1)
        by_norm = [] if terms.norm_slope is None else [-one_minus_p * terms.norm_slope]
        by_norm += [] if terms.penalty is None else [terms.penalty_slope / divisor]
        self.norm_factor = paddle.unsqueeze(sum(by_norm[1:], by_norm[0]) * owned, 1) if by_norm else None
