"""Momentum for the backbone's parameters, one operation each, with what a ParamAttr asks for."""

from __future__ import annotations

from plsc.backend import ops, static
from plsc.rows.param_attr import weight_decay_of
from plsc.rows.skipped import standing_still


def update_parameters(parameters: list, gradients: list, optimizer) -> list[str]:
    """Append the update of each parameter, in place; returns the names of the velocities it creates.

    ``optimizer`` is a plsc.rows.optimizers.Momentum. A parameter's own ParamAttr(learning_rate=...) multiplies the
    rate, its own L2Decay replaces the weight decay.
    """
    rate, momentum = optimizer.rate, optimizer.momentum
    velocities = []
    for parameter, gradient in zip(parameters, gradients):
        velocity = static.create_state(f"velocity.{parameter.name}", list(parameter.shape), "float32")
        decay = weight_decay_of(parameter, optimizer.weight_decay, f"parameter {parameter.name}")
        if optimizer.found is not None:
            gradient = standing_still(gradient, parameter, velocity, optimizer.found, momentum, decay)
        factor = (getattr(parameter, "optimize_attr", None) or {}).get("learning_rate", 1.0)
        own_rate = rate if factor == 1.0 else rate * float(factor)
        ops.momentum_(parameter, gradient, velocity, own_rate, momentum, decay)
        velocities.append(velocity.name)
    return velocities
