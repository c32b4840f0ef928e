"""The margin softmax family as pure formulas on static values.

With theta the angle between a feature and the centre of its target class (radians), the target logit is
``scale * (cos(margin1 * theta + margin2) - margin3)`` and every other logit ``scale * cos(theta_j)``:
SphereFace (Liu et al. 2017, eq. 7) is margin1, ArcFace (Deng et al. 2019, eq. 3) margin2, CosFace (Wang et
al. 2018, eq. 4) margin3, and their combination is ArcFace's eq. 4.

The formula is also used as written where ``margin1 * theta + margin2`` exceeds pi: there the cosine rises again and
its slope changes sign, as in Paddle's GPU kernel and in PLSC. There is no special case.
"""

from __future__ import annotations

from plsc.losses.base import Batch, Loss

# The slope margin1 * sin(margin1 * theta + margin2) / sin(theta) has no limit where theta goes to 0 or pi. For smaller
# sines it is reduced linearly to 0, since its product with the rounding errors of float32 vectors (6e-8 of their norm)
# would be noise.
MIN_SINE = 1e-5


class MarginLoss(Loss):
    """cos(margin1 * theta + margin2) - margin3: the base class of ArcFace, CosFace and SphereFace."""

    elementwise = True

    def __init__(self, margin1: float = 1.0, margin2: float = 0.0, margin3: float = 0.0):
        self._margins = self.kernel_margins = float(margin1), float(margin2), float(margin3)

    def target(self, batch: Batch) -> tuple:
        return target_cosine(batch.cosine, self._margins)


def target_cosine(cosine, margins: tuple[float, float, float]) -> tuple:
    """cos(margin1 * theta + margin2) - margin3 and its derivative by the cosine, limited by MIN_SINE.

    ``cosine`` [G] float64 of each feature and its target centre; its error of 1e-16 makes one of 1e-11 in an angle of
    1e-5. Returns two [G] values of the same type.
    """
    import paddle

    margin1, margin2, margin3 = margins
    if margin1 == 1.0 and margin2 == 0.0:  # needs no angle
        return cosine - margin3, paddle.ones_like(cosine)
    angle, inverse_sine = angles(cosine)
    angle = margin1 * angle + margin2
    return paddle.cos(angle) - margin3, margin1 * paddle.sin(angle) * inverse_sine


def angles(cosine) -> tuple:
    """(theta, 1 / sin(theta)) [G] of cosines [G] float64. d theta / d cosine is minus the second, which is reduced to 0
    where the sine is below MIN_SINE."""
    import paddle

    sine = paddle.sqrt((1.0 - cosine) * (1.0 + cosine))
    limited = paddle.clip(sine, min=MIN_SINE)
    return paddle.acos(cosine), sine / (limited * limited)
