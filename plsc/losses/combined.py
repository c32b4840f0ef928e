"""Any three margins."""

from __future__ import annotations

from plsc.losses.margins import MarginLoss
from plsc.losses.registration import register_loss


@register_loss("combined", source="Deng et al. 2019, ArcFace, eq. 4")
class Combined(MarginLoss):
    """Any three margins together: cos(margin1 * theta + margin2) - margin3."""

    def __init__(self, margin1: float, margin2: float, margin3: float):
        super().__init__(margin1, margin2, margin3)
