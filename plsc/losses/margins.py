"""The margin softmax family as pure formulas on static-graph values.

With theta the angle between a feature and the centre of its own class (radians), the target logit is
``scale * (cos(margin1 * theta + margin2) - margin3)`` and every other logit ``scale * cos(theta_j)``:
SphereFace (Liu et al. 2017, eq. 7) is margin1, ArcFace (Deng et al. 2019, eq. 3) margin2, CosFace (Wang et
al. 2018, eq. 4) margin3, and their combination is ArcFace's eq. 4.

The formula is used as written also where ``margin1 * theta + margin2`` passes pi: there the cosine rises
again and its slope changes sign, as it does in Paddle's GPU kernel and in PLSC. Nothing is patched in.
"""

from __future__ import annotations

from plsc.losses.base import Batch, Loss

# The slope margin1 * sin(margin1 * theta + margin2) / sin(theta) of a smaller angle to the centre, or to its opposite,
# is lowered towards 0 at the angle 0, where it has no limit, and where its product with the rounding of float32
# vectors, 6e-8 of their length, would be no gradient any more.
SMALLEST_SINE = 1e-5


class MarginLoss(Loss):
    """cos(margin1 * theta + margin2) - margin3: what ArcFace, CosFace and SphereFace have in common."""

    elementwise = True

    def __init__(self, margin1: float = 1.0, margin2: float = 0.0, margin3: float = 0.0):
        self._margins = self.kernel_margins = float(margin1), float(margin2), float(margin3)

    def target(self, batch: Batch) -> tuple:
        return target_cosine(batch.cosine, self._margins)


def target_cosine(cosine, margins: tuple[float, float, float]) -> tuple:
    """cos(margin1 * theta + margin2) - margin3 and its derivative by the cosine, with SMALLEST_SINE.

    ``cosine`` [G] float64 of each feature with its own centre: off by 1e-16, so that an angle of 1e-5 is off by 1e-11.
    Returns two [G] values of its type.
    """
    import paddle

    margin1, margin2, margin3 = margins
    if margin1 == 1.0 and margin2 == 0.0:  # no angle is needed
        return cosine - margin3, paddle.ones_like(cosine)
    angle = margin1 * paddle.acos(cosine) + margin2
    sine = paddle.sqrt((1.0 - cosine) * (1.0 + cosine))
    held = paddle.clip(sine, min=SMALLEST_SINE)
    return paddle.cos(angle) - margin3, margin1 * paddle.sin(angle) * sine / (held * held)
