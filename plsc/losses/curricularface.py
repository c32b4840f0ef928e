"""CurricularFace."""

from __future__ import annotations

import math

from plsc.losses.base import Batch, Loss
from plsc.losses.margins import target_cosine
from plsc.losses.options import require
from plsc.losses.registration import register_loss


@register_loss(
    "curricularface",
    source="Huang et al. 2020, CurricularFace: Adaptive Curriculum Learning Loss for Deep Face Recognition",
)
class CurricularFace(Loss):
    """ArcFace that gives hard negatives more weight as training proceeds: c (t + c) for a c above cos(theta + margin2).

    The state ``t`` is a moving average of the target cosines of the global batch, from 0 (eq. 9 of the paper). The rule
    applies to the cosines with all other classes of the step, of all ranks. t and the threshold are constants of the
    gradient.

    Where theta > pi - margin2 the target is cos(theta) - margin2 * sin(margin2), as in the authors' code.

    margin2: added to the angle. alpha: the weight of the current batch in the moving average, in (0, 1].
    """

    def __init__(self, margin2: float = 0.5, alpha: float = 0.01):
        require(0.0 < alpha <= 1.0, "alpha", alpha, "above 0 and at most 1")
        self.margin, self.alpha = margin2, alpha

    def states(self) -> dict[str, float]:
        return {"t": 0.0}

    def update(self, batch: Batch) -> dict:
        import paddle

        return {"t": self.alpha * paddle.mean(batch.cosine) + (1.0 - self.alpha) * batch.states["t"]}

    def target(self, batch: Batch) -> tuple:
        import paddle

        value, slope = target_cosine(batch.cosine, (1.0, self.margin, 0.0))
        rises = batch.cosine <= math.cos(math.pi - self.margin)  # cos(theta + margin) has passed its minimum
        linear = batch.cosine - self.margin * math.sin(self.margin)
        return paddle.where(rises, linear, value), paddle.where(rises, paddle.ones_like(slope), slope)

    def others(self, cosine, batch: Batch) -> tuple:
        import paddle

        sine = paddle.sqrt((1.0 - batch.cosine) * (1.0 + batch.cosine))
        threshold = batch.cosine * math.cos(self.margin) - sine * math.sin(self.margin)  # cos(theta + margin)
        hard = cosine > threshold
        t = batch.states["t"]
        one = paddle.ones_like(cosine)
        return paddle.where(hard, cosine * (t + cosine), cosine), paddle.where(hard, t + 2.0 * cosine, one)
