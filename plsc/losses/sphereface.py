"""SphereFace."""

from __future__ import annotations

from plsc.losses.margins import MarginLoss
from plsc.losses.registration import register_loss


@register_loss("sphereface", source="Liu et al. 2017, SphereFace: Deep Hypersphere Embedding for Face Recognition")
class SphereFace(MarginLoss):
    """A factor on the angle: cos(1.35 theta); 1.35 is the value of the ArcFace paper."""

    def __init__(self, margin1: float = 1.35, margin2: float = 0.0, margin3: float = 0.0):
        super().__init__(margin1, margin2, margin3)
