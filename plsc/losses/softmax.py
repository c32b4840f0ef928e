"""Plain softmax."""

from __future__ import annotations

from plsc.losses.base import Batch, Loss
from plsc.losses.registration import register_loss


@register_loss("softmax")
class Softmax(Loss):
    """Softmax cross entropy of dot products with a bias; no normalisation, margin or scale."""

    normalised = False
    elementwise = True

    def target(self, batch: Batch) -> tuple:
        import paddle

        return batch.cosine, paddle.ones_like(batch.cosine)
