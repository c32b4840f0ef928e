"""UniFace."""

from __future__ import annotations

import math

from plsc.losses.base import Batch
from plsc.losses.options import require
from plsc.losses.pairs import PairLoss
from plsc.losses.registration import register_loss


@register_loss("uniface", source="Zhou et al. 2023, UniFace: Unified Cross-Entropy Loss for Deep Face Recognition")
class UniFace(PairLoss):
    """The unified cross entropy (UCE) with a margin: a threshold on the cosine that is the same for all classes.

    softplus(-(s (cos_y - margin3) + b)) + negative_weight * sum_j softplus(s cos_j + b), where -b / s is the threshold:
    L_uce-m of the paper, with ``negative_weight`` L_uce-mb-lambda (whose b has the other sign). b starts at
    -log(10 S) for the S classes of a step, as in the authors' code.

    margin3: subtracted from the target cosine. negative_weight: of the other classes (lambda). bias_rate: see PairLoss.
    """

    elementwise = True

    def __init__(self, margin3: float = 0.4, negative_weight: float = 1.0, bias_rate: float = 1.0):
        require(negative_weight > 0.0, "negative_weight", negative_weight, "above 0")
        require(bias_rate >= 0.0, "bias_rate", bias_rate, "at least 0")
        self.margin, self.negative_weight, self.bias_rate = margin3, negative_weight, bias_rate

    def weights(self, scale: float) -> tuple[float, float]:
        return 1.0, self.negative_weight

    def initial_bias(self, scale: float, num_classes: int) -> float:
        return -math.log(10.0 * num_classes)

    def target(self, batch: Batch) -> tuple:
        import paddle

        return batch.cosine - self.margin, paddle.ones_like(batch.cosine)
