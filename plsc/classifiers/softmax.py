"""Cross entropy over the rows of all blocks of all ranks, from what each rank knows of its own rows."""

from __future__ import annotations

import paddle

from plsc.backend import collectives
from plsc.classifiers.own_class import OwnClass


class Softmax:
    """``loss`` [1]; ``target`` [G], the own cosine, of the rank that holds the row: the same on each. d loss / d cosine
    of all classes but the own one is ``share`` [G, 1] times exp(logit - ``largest`` [G]); of the own one it is
    ``own_part`` [G, 1], 0 where another rank holds it.

    ``largest`` and ``others`` [G]: of this rank's rows without the own class the largest logit, and the sum of
    exp(logit - largest). ``own_cosine`` [G] and ``own``: true where ``position`` says that this rank holds the row.
    ``divisor``: features of the global batch.

    The own class is kept apart from all others throughout. Of a sample that is learnt, 1 - p and the loss are far below
    the rounding of p and of the logits; but both follow from how far the others are ahead of it: (1 - p) / p is the
    exponential of that.
    """

    def __init__(self, largest, others, own_cosine, own: OwnClass, position, scale, divisor, shard_world: int):
        owned = paddle.cast(position >= 0, "float32")
        every = collectives.all_reduce(largest, shard_world, collectives.MAX)  # keeps exp in range
        others = others * paddle.exp(largest - every)
        parts = paddle.stack([others, own.logit * owned, own_cosine * owned, owned])
        others, target_logit, self.target, owners = paddle.unbind(collectives.all_reduce(parts, shard_world), axis=0)
        # one rank owns the label; a label that is no class has no owner: 0 / 0 makes loss and gradients NaN, not wrong
        ahead = paddle.log(others) + every - target_logit / owners  # log((1 - p) / p)
        small = paddle.exp(-paddle.abs(ahead))
        zero = paddle.zeros_like(ahead)
        nll = paddle.maximum(ahead, zero) + paddle.log1p(small)
        self.loss = paddle.reshape(paddle.sum(nll) / divisor, [1])
        missing = paddle.where(ahead < 0.0, small, zero + 1.0) / (1.0 + small) * (scale / divisor)  # 1 - p
        self.largest = largest
        self.share = paddle.unsqueeze(paddle.exp(largest - every) / others * missing, 1)
        self.own_part = paddle.unsqueeze(-missing * own.slope * owned, 1)
