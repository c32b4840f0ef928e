"""A loss with every optional part, as a plugin of a user's (see test_own_losses.py; in NumPy: tests/reference)."""

from __future__ import annotations

import paddle

from plsc.losses import Loss, register_loss


@register_loss("toy")
class Toy(Loss):
    """A margin of norm, batch and chance; a rule for others; a penalty; two running means."""

    def __init__(self, margin: float = 0.2, weight: float = 0.1):
        self.margin, self.weight = margin, weight

    def states(self):
        return {"norm": 3.0, "cosine": 0.1}

    def update(self, batch):
        return {
            "norm": 0.9 * batch.states["norm"] + 0.1 * paddle.mean(batch.norm),
            "cosine": 0.5 * batch.states["cosine"] + 0.5 * paddle.mean(batch.cosine),
        }

    def target(self, batch):
        whole = batch.norm + batch.states["norm"]
        margin = self.margin + 0.1 * batch.norm / whole + 0.05 * batch.uniform() + 0.1 * paddle.max(batch.cosine)
        gap = 1.0 - batch.cosine
        by_norm = -0.1 * batch.states["norm"] / (whole * whole)
        return batch.cosine - margin - 0.05 * gap * gap, 1.0 + 0.1 * gap, by_norm

    def others(self, cosine, batch):
        hard = cosine > batch.target
        kept, state = paddle.ones_like(cosine), batch.states["cosine"]
        return (
            paddle.where(hard, cosine * (state + cosine), cosine),
            paddle.where(hard, state + 2.0 * cosine, kept),
        )

    def penalty(self, batch):
        return self.weight * (batch.norm + 4.0 / batch.norm), self.weight * (1.0 - 4.0 / (batch.norm * batch.norm))
