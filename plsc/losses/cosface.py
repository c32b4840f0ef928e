"""CosFace."""

from __future__ import annotations

from plsc.losses.margins import MarginLoss
from plsc.losses.registration import register_loss


@register_loss("cosface", source="Wang et al. 2018, CosFace: Large Margin Cosine Loss for Deep Face Recognition")
class CosFace(MarginLoss):
    """A margin subtracted from the cosine: cos(theta) - 0.35."""

    def __init__(self, margin1: float = 1.0, margin2: float = 0.0, margin3: float = 0.35):
        super().__init__(margin1, margin2, margin3)
