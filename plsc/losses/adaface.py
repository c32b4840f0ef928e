"""AdaFace."""

from __future__ import annotations

import math

from plsc.losses.base import Batch, Loss
from plsc.losses.margins import angles
from plsc.losses.options import require
from plsc.losses.registration import register_loss

SHORTEST, LONGEST = 1e-3, 100.0  # norms are clipped to this range, as in the authors' code
EPSILON = 1e-3  # the angle with its margin stays that far from 0 and pi; also added to the deviation of the norms


@register_loss("adaface", source="Kim et al. 2022, AdaFace: Quality Adaptive Margin for Face Recognition, eq. 18")
class AdaFace(Loss):
    """Margins that depend on the norm of the feature: cos(theta - m k) - (m + m k), k from -1 (small norm) to 1.

    Eq. 18 of the paper, in which scale multiplies the whole difference (issue 10 of the authors' repository).
    k = h * (norm - mean) / deviation, clipped to [-1, 1]. Mean and deviation of the norms are moving averages over the
    global batch: the states ``mean`` and ``deviation``. They and the norm are constants of the gradient.

    margin: m. h: the width of k. alpha: the weight of the current batch in the moving averages, in (0, 1].
    """

    elementwise = True

    def __init__(self, margin: float = 0.4, h: float = 0.333, alpha: float = 0.01):
        require(margin >= 0.0, "margin", margin, "at least 0")
        require(h > 0.0, "h", h, "above 0")
        require(0.0 < alpha <= 1.0, "alpha", alpha, "above 0 and at most 1")
        self.margin, self.h, self.alpha = margin, h, alpha

    def states(self) -> dict[str, float]:
        return {"mean": 20.0, "deviation": 100.0}

    def update(self, batch: Batch) -> dict:
        import paddle

        norm = paddle.clip(batch.norm, SHORTEST, LONGEST)
        mean = paddle.mean(norm)
        others = paddle.clip(paddle.sum(paddle.ones_like(norm)) - 1.0, min=1.0)  # one feature alone: deviation 0
        now = {"mean": mean, "deviation": paddle.sqrt(paddle.sum((norm - mean) ** 2) / others)}
        return {name: self.alpha * now[name] + (1.0 - self.alpha) * batch.states[name] for name in now}

    def target(self, batch: Batch) -> tuple:
        import paddle

        norm = paddle.clip(batch.norm, SHORTEST, LONGEST)
        quality = self.h * (norm - batch.states["mean"]) / (batch.states["deviation"] + EPSILON)
        shift = self.margin * paddle.clip(quality, -1.0, 1.0)
        theta, inverse_sine = angles(batch.cosine)
        angle = theta - shift
        clipped = paddle.clip(angle, EPSILON, math.pi - EPSILON)
        slope = paddle.where(angle == clipped, paddle.sin(clipped) * inverse_sine, paddle.zeros_like(angle))
        return paddle.cos(clipped) - (self.margin + shift), slope
