"""ElasticFace: random margins around those of ArcFace and CosFace."""

from __future__ import annotations

import math

from plsc.losses.base import Batch, Loss
from plsc.losses.margins import angles
from plsc.losses.options import require
from plsc.losses.registration import register_loss

PAPER = "Boutros et al. 2022, ElasticFace: Elastic Margin Loss for Deep Face Recognition"


class _ElasticFace(Loss):
    """A margin for each feature of the global batch, drawn anew in each step from N(margin, sigma).

    The numbers are a function of seed, step and place in the global batch: the same on any number of ranks and after a
    resume. ``plus``: the margins are handed out by the cosines, the largest margin to the smallest cosine.
    """

    def __init__(self, margin: float, sigma: float, plus: bool):
        require(sigma >= 0.0, "sigma", sigma, "at least 0")
        self.margin, self.sigma, self.plus = margin, sigma, plus
        self.elementwise = not plus

    def margins(self, batch: Batch):
        """[G] float64."""
        import paddle

        normal = math.sqrt(2.0) * paddle.erfinv(2.0 * batch.uniform() - 1.0)
        margins = self.margin + self.sigma * normal
        if not self.plus:
            return margins
        order = paddle.argsort(batch.cosine, descending=True)  # the authors' code uses it where its inverse is meant
        return paddle.scatter(paddle.zeros_like(margins), order, paddle.sort(margins))


@register_loss("elastic_arcface", source=f"{PAPER}, L_EArc")
class ElasticArcFace(_ElasticFace):
    """ArcFace with a random margin: cos(theta + E), E from N(margin2, sigma) for each sample and step.

    margin2: the mean. sigma: the standard deviation (the paper: 0.0125, with ``plus`` 0.0175). plus: sort the margins,
    so that the sample with the smallest cosine gets the largest one.
    """

    def __init__(self, margin2: float = 0.5, sigma: float = 0.0125, plus: bool = False):
        super().__init__(margin2, sigma, plus)

    def target(self, batch: Batch) -> tuple:
        import paddle

        theta, inverse_sine = angles(batch.cosine)
        angle = theta + self.margins(batch)
        return paddle.cos(angle), paddle.sin(angle) * inverse_sine


@register_loss("elastic_cosface", source=f"{PAPER}, L_ECos")
class ElasticCosFace(_ElasticFace):
    """CosFace with a random margin: cos(theta) - E, E from N(margin3, sigma) for each sample and step.

    margin3: the mean. sigma: the standard deviation (the paper: 0.0125, with ``plus`` 0.025). plus: sort the margins,
    so that the sample with the smallest cosine gets the largest one.
    """

    def __init__(self, margin3: float = 0.35, sigma: float = 0.0125, plus: bool = False):
        super().__init__(margin3, sigma, plus)

    def target(self, batch: Batch) -> tuple:
        import paddle

        return batch.cosine - self.margins(batch), paddle.ones_like(batch.cosine)
