"""Steps that are skipped because a gradient is inf or NaN: no weight changes."""

from __future__ import annotations

import paddle


def zero_if_skipped(found_inf, gradients: list) -> list:
    """The gradients for a user's optimizer: zeros in a skipped step.

    The weights stay finite. They still change by its momentum and weight decay, as with Paddle's own loss scaling.
    """
    if found_inf is None:
        return gradients
    return [paddle.where(_everywhere(found_inf, each), paddle.zeros_like(each), each) for each in gradients]


def keep_if_skipped(found_inf, old, new):
    """``old`` where ``found_inf`` [1] bool is True (None: never), else ``new``."""
    return new if found_inf is None else paddle.where(_everywhere(found_inf, new), old, new)


def gradient_that_keeps_velocity(gradient, parameter, velocity, found_inf, momentum: float, weight_decay: float):
    """The gradient; in a skipped step the one for which ops.momentum_ does not change the velocity."""
    keeping = (1.0 - momentum) * velocity - weight_decay * parameter
    return paddle.where(_everywhere(found_inf, gradient), keeping, gradient)


def _everywhere(found_inf, value):
    """``found_inf`` [1] in the shape of ``value``."""
    return paddle.logical_and(paddle.reshape(found_inf, [1] * len(value.shape)), paddle.ones_like(value, "bool"))
