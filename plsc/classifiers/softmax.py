"""Cross entropy over the rows of all blocks of all ranks, from what each rank knows of its own rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import paddle

from plsc.backend import collectives
from plsc.classifiers.loss_terms import Terms


@dataclass(frozen=True)
class RowSums:
    """[G] each, over this rank's rows without the own class: the ``largest`` logit, and ``others``, the sum of
    exp(logit - largest). ``own_cosine``: of the own class, before the margin, 0 where another rank holds it."""

    largest: Any
    others: Any
    own_cosine: Any


class Softmax:
    """``loss`` [1]; ``target`` [G], the own cosine, of the rank that holds the row: the same on each. d loss / d cosine
    of all classes but the own one is ``share`` [G, 1] times exp(logit - ``largest`` [G]); of the own one it is
    ``own_part`` [G, 1], 0 where another rank holds it. ``norm_part`` [G, 1] or None: d loss / d norm of the features, 0
    where another rank holds the own class.

    ``position`` [G] is below 0 where another rank holds the own class. ``scale``: logit / cosine. ``divisor``: features
    of the global batch.

    The own class is kept apart from all others throughout. Of a sample that is learnt, 1 - p and the loss are far below
    the rounding of p and of the logits; but both follow from how far the others are ahead of it: (1 - p) / p is the
    exponential of that.
    """

    def __init__(self, sums: RowSums, terms: Terms, position, scale: float, divisor, shard_world: int):
        owned = paddle.cast(position >= 0, "float32")
        every = collectives.all_reduce(sums.largest, shard_world, collectives.MAX)  # keeps exp in range
        others = sums.others * paddle.exp(sums.largest - every)
        parts = paddle.stack([others, terms.logit * owned, sums.own_cosine * owned, owned])
        others, target_logit, self.target, owners = paddle.unbind(collectives.all_reduce(parts, shard_world), axis=0)
        # one rank owns the label; a label that is no class has no owner: 0 / 0 makes loss and gradients NaN, not wrong
        ahead = paddle.log(others) + every - target_logit / owners  # log((1 - p) / p)
        small = paddle.exp(-paddle.abs(ahead))
        zero = paddle.zeros_like(ahead)
        nll = paddle.maximum(ahead, zero) + paddle.log1p(small)
        if terms.penalty is not None:
            nll = nll + terms.penalty
        self.loss = paddle.reshape(paddle.sum(nll) / divisor, [1])
        missing = paddle.where(ahead < 0.0, small, zero + 1.0) / (1.0 + small) * (scale / divisor)  # 1 - p
        self.largest = sums.largest
        self.share = paddle.unsqueeze(paddle.exp(sums.largest - every) / others * missing, 1)
        self.own_part = paddle.unsqueeze(-missing * terms.slope * owned, 1)
        by_norm = [] if terms.norm_slope is None else [-missing * terms.norm_slope]
        by_norm += [] if terms.penalty is None else [terms.penalty_slope / divisor]
        self.norm_part = paddle.unsqueeze(sum(by_norm[1:], by_norm[0]) * owned, 1) if by_norm else None
