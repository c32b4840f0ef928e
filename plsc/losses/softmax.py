"""Plain softmax."""

from __future__ import annotations

from plsc.losses.base import Batch, Loss
from plsc.losses.registration import register_loss


@register_loss("softmax")
class Softmax(Loss):
    """Cross entropy of the products with a bias, without directions, margins and scale."""

    normalised = False
    elementwise = True

    def target(self, batch: Batch) -> tuple:
        import paddle

        return batch.cosine, paddle.ones_like(batch.cosine)
