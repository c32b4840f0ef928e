"""A step that found inf or NaN and changes no weight: what the optimizers are given, or leave, then."""

from __future__ import annotations

import paddle


def zero_where(found, gradients: list) -> list:
    """The gradients, or zeros in a step that ``found`` inf or NaN: what a user's optimizer gets to see then.

    Its weights stay finite; they still move by its momentum and weight decay, as under Paddle's own loss scaling.
    """
    if found is None:
        return gradients
    return [paddle.where(_everywhere(found, gradient), paddle.zeros_like(gradient), gradient) for gradient in gradients]


def kept_where(found, old, new):
    """``old`` where ``found`` [1] bool is True (None: never), else ``new``."""
    return new if found is None else paddle.where(_everywhere(found, new), old, new)


def gradient_that_keeps(gradient, parameter, velocity, found, momentum: float, weight_decay: float):
    """The gradient, or where ``found`` the one with which momentum_ leaves the velocity as it is."""
    keeping = (1.0 - momentum) * velocity - weight_decay * parameter
    return paddle.where(_everywhere(found, gradient), keeping, gradient)


def _everywhere(found, value):
    """``found`` [1] in the shape of ``value``."""
    return paddle.logical_and(paddle.reshape(found, [1] * len(value.shape)), paddle.ones_like(value, "bool"))
