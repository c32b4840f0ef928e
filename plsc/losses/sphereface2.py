"""SphereFace2."""

from __future__ import annotations

import math

from plsc.losses.base import Batch
from plsc.losses.options import require
from plsc.losses.pairs import PairLoss
from plsc.losses.registration import register_loss

PAPER = "Wen et al. 2022, SphereFace2: Binary Classification is All You Need for Deep Face Recognition"
TINY = 1e-300  # of a number whose logarithm is taken


@register_loss("sphereface2", source=f"{PAPER}, eq. 6")
class SphereFace2(PairLoss):
    """SphereFace2-C: a margin on both sides of the threshold, and cosines that are spread by a power.

    weight / s * (balance * softplus(-(s (g(cos_y) - margin3) + b)) + (1 - balance) * sum_j softplus(s (g(cos_j) +
    margin3) + b)), with g(c) = 2 ((c + 1) / 2)^t - 1 and the scale s, which is r in the paper.

    b starts where the two sides have gradients of equal size at cosines of 0, as in the authors' code. That code takes
    the derivative of g for 1; here it is the true one.

    balance: lambda of eq. 5, the part of the positive pairs. t: the exponent. weight: a factor of the loss; the
    authors' code has 50 and the paper's formula none. bias_rate: see PairLoss.
    """

    elementwise = True

    def __init__(
        self,
        margin3: float = 0.4,
        balance: float = 0.7,
        t: float = 3.0,
        weight: float = 50.0,
        bias_rate: float = 1.0,
    ):
        require(margin3 >= 0.0, "margin3", margin3, "at least 0")
        require(0.0 < balance < 1.0, "balance", balance, "above 0 and below 1")
        require(t >= 1.0, "t", t, "at least 1")
        require(weight > 0.0, "weight", weight, "above 0")
        require(bias_rate >= 0.0, "bias_rate", bias_rate, "at least 0")
        self.margin, self.balance, self.t, self.weight, self.bias_rate = margin3, balance, t, weight, bias_rate

    def weights(self, scale: float) -> tuple[float, float]:
        return self.weight / scale * self.balance, self.weight / scale * (1.0 - self.balance)

    def initial_bias(self, scale: float, num_classes: int) -> float:
        # balance / (1 + e^p u) = (1 - balance) (S - 1) u / (1 + u) for u = e^(n + b), where the logits of a positive
        # and a negative pair are n + p + b and n + b: a quadratic equation, e^p u^2 + (1 - z) u - z = 0
        z = self.balance / ((1.0 - self.balance) * max(num_classes - 1, 1))
        n, p = scale * (2.0 * 0.5**self.t - 1.0 + self.margin), -2.0 * scale * self.margin
        root = math.hypot(1.0 - z, 2.0 * math.sqrt(z) * math.exp(p / 2.0))
        # of the two forms of the root the one that adds
        log_u = math.log(2.0 * z / (1.0 - z + root)) if z < 1.0 else math.log(max(z - 1.0 + root, TINY) / 2.0) - p
        return log_u - n

    def target(self, batch: Batch) -> tuple:
        value, slope = self._spread(batch.cosine)
        return value - self.margin, slope

    def others(self, cosine, batch: Batch) -> tuple:
        value, slope = self._spread(cosine)
        return value + self.margin, slope

    def _spread(self, cosine) -> tuple:
        """(g, its derivative)."""
        import paddle

        half = paddle.clip((cosine + 1.0) / 2.0, min=0.0)  # a rounded -1 has no power
        power = half ** (self.t - 1.0)
        return 2.0 * power * half - 1.0, self.t * power
