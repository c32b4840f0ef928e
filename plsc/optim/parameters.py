"""The optimizer's step on the backbone's parameters, with what a ParamAttr asks for."""

from __future__ import annotations

import paddle

from plsc.backend import static
from plsc.rows.optimizer import Step, Update
from plsc.rows.param_attr import weight_decay_of


def update_parameters(parameters: list, gradients: list, update: Update) -> list[str]:
    """Append the update of each parameter, in place; returns the names of the states that the optimizer keeps of them.

    A parameter's own ParamAttr(learning_rate=...) multiplies the rate, its own L2Decay replaces the weight decay.
    """
    rate, optimizer = update.rate, update.optimizer
    names = []
    for parameter, gradient in zip(parameters, gradients):
        slots = tuple(
            static.create_state(f"{slot.name}.{parameter.name}", list(parameter.shape), "float32", slot.initial)
            for slot in optimizer.slots
        )
        decay = weight_decay_of(parameter, update.weight_decay, f"parameter {parameter.name}")
        factor = (getattr(parameter, "optimize_attr", None) or {}).get("learning_rate", 1.0)
        own_rate = rate if factor == 1.0 else rate * float(factor)
        step = Step(own_rate, decay, update.numbers, paddle)
        optimizer.update_(parameter, slots, gradient, step, update.found_inf)
        names += [slot.name for slot in slots]
    return names
