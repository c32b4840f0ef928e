"""The weights and the bias of a PairLoss in the program of a rank."""

from __future__ import annotations

from typing import Any

import paddle

from plsc.backend import static
from plsc.classifiers.checked_loss import CheckedLoss

BIAS = "classifier.loss.bias"


class PairTerms:
    """``positive``, ``negative``: the weights of the pairs with the target class and with others. ``bias`` [1] float32:
    the state of the loss, see plsc.losses.PairLoss.

    ``num_classes``: those of a step. ``learning_rate`` [1]: that of the step; without one the bias stays as it is.
    """

    def __init__(self, loss: CheckedLoss, scale: float, num_classes: int, learning_rate=None):
        self.scale = scale
        self.positive, self.negative, initial, self._rate = loss.pairs(scale, num_classes)
        self.bias = static.create_state(BIAS, [1], "float32", initial)
        self._learning_rate = learning_rate

    def next_bias(self, gradient) -> list[tuple[Any, Any]]:
        """[(the bias, its next value)] by the ``gradient`` [1] of the loss; [] where it stays as it is."""
        if self._learning_rate is None or self._rate == 0.0:
            return []
        limited = paddle.clip(gradient, -self.positive, self.positive)
        return [(self.bias, self.bias - self._rate * self._learning_rate * limited)]


def sigmoid(x):
    """1 / (1 + exp(-x)), with a relative error of a few roundings for any x above -87, where it is 1e-38."""
    return paddle.nn.functional.sigmoid(x)


def softplus(x):
    """log(1 + exp(x)), with a relative error of a few roundings for any x: that of Paddle 2.6 is 0 below -17, where 1 +
    exp(x) is rounded to 1."""
    return paddle.clip(x, min=0.0) + paddle.log1p(paddle.exp(-paddle.abs(x)))
