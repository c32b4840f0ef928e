"""The margin softmax family as pure formulas on static-graph values.

With theta the angle between a feature and the centre of its own class (radians), the target logit is
``scale * (cos(margin1 * theta + margin2) - margin3)`` and every other logit ``scale * cos(theta_j)``:
SphereFace (Liu et al. 2017, eq. 7) is margin1, ArcFace (Deng et al. 2019, eq. 3) margin2, CosFace (Wang et
al. 2018, eq. 4) margin3, and their combination is ArcFace's eq. 4.

The formula is used as written also where ``margin1 * theta + margin2`` passes pi: there the cosine rises
again and its slope changes sign, as it does in Paddle's GPU kernel and in PLSC. Nothing is patched in.
"""

from __future__ import annotations

import paddle

# float32 cosines of unit vectors are off by up to 1e-7; at 1 - 1e-6 the slope m1 * sin(m1 t + m2) / sin(t)
# is at most about 700 * m1, finite, and at |cos| = 1, where the true slope has no limit, it is 0 by the clamp.
COSINE_LIMIT = 1.0 - 1e-6

Margins = tuple  # (margin1, margin2, margin3)


def target_cosine(cosine, margins: Margins):
    """cos(margin1 * theta + margin2) - margin3 and its derivative by the cosine.

    ``cosine`` [G] float32 of each feature with its own centre. Returns two [G] values. Outside of
    +-COSINE_LIMIT the cosine is held at the limit, and the derivative of that is 0.
    """
    margin1, margin2, margin3 = margins
    if margin1 == 1.0 and margin2 == 0.0:  # no angle is needed, so nothing has to be clamped either
        return cosine - margin3, paddle.ones_like(cosine)
    held = paddle.clip(cosine, -COSINE_LIMIT, COSINE_LIMIT)
    inside = paddle.cast(paddle.abs(cosine) <= COSINE_LIMIT, cosine.dtype)
    angle = margin1 * paddle.acos(held) + margin2
    slope = margin1 * paddle.sin(angle) / paddle.sqrt((1.0 - held) * (1.0 + held))
    return paddle.cos(angle) - margin3, slope * inside
