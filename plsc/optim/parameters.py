"""Momentum for the backbone's parameters, one operation each, with what a ParamAttr asks for."""

from __future__ import annotations

import paddle

from plsc import compat
from plsc.errors import ConfigError
from plsc.optim.loss_scaling import standing_still


def update_parameters(parameters: list, gradients: list, optimizer) -> list[str]:
    """Append the update of each parameter, in place; returns the names of the velocities it creates.

    ``optimizer`` is a plsc.optim.rows.Momentum. A parameter's own ParamAttr(learning_rate=...) multiplies the
    rate, its own L2Decay replaces the weight decay.
    """
    rate, momentum = optimizer.rate, optimizer.momentum
    velocities = []
    for parameter, gradient in zip(parameters, gradients):
        velocity = compat.create_state(f"velocity.{parameter.name}", list(parameter.shape), "float32")
        decay = weight_decay_of(parameter, optimizer.weight_decay, f"parameter {parameter.name}")
        if optimizer.found is not None:
            gradient = standing_still(gradient, parameter, velocity, optimizer.found, momentum, decay)
        factor = (getattr(parameter, "optimize_attr", None) or {}).get("learning_rate", 1.0)
        own_rate = rate if factor == 1.0 else rate * float(factor)
        compat.momentum_(parameter, gradient, velocity, own_rate, momentum, decay)
        velocities.append(velocity.name)
    return velocities


def weight_decay_of(attr, usual: float, what: str) -> float:
    """The coefficient of the L2Decay of a ParamAttr or parameter, else ``usual``. Raises ConfigError for another."""
    regularizer = getattr(attr, "regularizer", None)
    if regularizer is None:
        return usual
    if not isinstance(regularizer, paddle.regularizer.L2Decay):
        raise ConfigError(
            f"{what}: regularizer {type(regularizer).__name__} is not supported by the built-in optimizer; "
            "allowed: paddle.regularizer.L2Decay, or give an optimizer by set_optimizer"
        )
    return float(regularizer._coeff)
