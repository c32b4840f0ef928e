"""ArcFace."""

from __future__ import annotations

from plsc.losses.margins import MarginLoss
from plsc.losses.registration import register_loss


@register_loss("arcface", source="Deng et al. 2019, ArcFace: Additive Angular Margin Loss for Deep Face Recognition")
class ArcFace(MarginLoss):
    """A margin added to the angle: cos(theta + 0.5)."""

    def __init__(self, margin1: float = 1.0, margin2: float = 0.5, margin3: float = 0.0):
        super().__init__(margin1, margin2, margin3)
