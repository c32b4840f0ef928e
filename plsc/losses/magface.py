"""MagFace."""

from __future__ import annotations

from plsc.losses.base import Batch, Loss
from plsc.losses.margins import angles
from plsc.losses.options import require
from plsc.losses.registration import register_loss

PAPER = "Meng et al. 2021, MagFace: A Universal Representation for Face Recognition and Quality Assessment"


@register_loss("magface", source=PAPER)
class MagFace(Loss):
    """An angular margin m(a) that grows with the norm a of the feature, and a penalty that makes norms grow.

    The target is cos(theta + m(a)). m grows linearly from ``smallest_margin`` at ``shortest`` to ``largest_margin`` at
    ``longest``; a is the norm, clipped to this range. The penalty is ``penalty_weight`` * (a / longest^2 + 1 / a).
    Both have a gradient by the norm, which is 0 outside of the range.
    """

    elementwise = True

    def __init__(
        self,
        smallest_margin: float = 0.45,
        largest_margin: float = 0.8,
        shortest: float = 10.0,
        longest: float = 110.0,
        penalty_weight: float = 35.0,
    ):
        require(largest_margin >= smallest_margin, "largest_margin", largest_margin, "at least smallest_margin")
        require(shortest > 0.0, "shortest", shortest, "above 0")
        require(longest > shortest, "longest", longest, "above shortest")
        require(penalty_weight >= 0.0, "penalty_weight", penalty_weight, "at least 0")
        self.smallest_margin, self.shortest, self.longest = smallest_margin, shortest, longest
        self.growth = (largest_margin - smallest_margin) / (longest - shortest)  # dm / da
        self.penalty_weight = penalty_weight

    def target(self, batch: Batch) -> tuple:
        import paddle

        length, inside = self._clipped(batch)
        theta, inverse_sine = angles(batch.cosine)
        angle = theta + self.smallest_margin + self.growth * (length - self.shortest)
        sine = paddle.sin(angle)
        return paddle.cos(angle), sine * inverse_sine, -self.growth * sine * inside

    def penalty(self, batch: Batch) -> tuple:
        length, inside = self._clipped(batch)
        value = length / self.longest**2 + 1.0 / length
        slope = (1.0 / self.longest**2 - 1.0 / (length * length)) * inside
        return self.penalty_weight * value, self.penalty_weight * slope

    def _clipped(self, batch: Batch) -> tuple:
        """(the norm within its range, 1 where it is inside and 0 where it was clipped) [G]."""
        import paddle

        length = paddle.clip(batch.norm, self.shortest, self.longest)
        return length, paddle.cast(length == batch.norm, length.dtype)
