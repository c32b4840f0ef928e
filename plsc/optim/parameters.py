"""The optimizer's step for the backbone's parameters, with the settings of their ParamAttrs."""

from __future__ import annotations

import paddle

from plsc.backend import static
from plsc.rows.optimizer import RowOptimizer, Step, Update
from plsc.rows.param_attr import weight_decay_of


def create_slots(parameters: list, optimizer: RowOptimizer) -> list[tuple]:
    """The optimizer's states of each parameter."""
    return [
        tuple(
            static.create_state(f"{slot.name}.{parameter.name}", shape, "float32", slot.initial)
            for slot, shape in optimizer.slots_of(parameter.shape)
        )
        for parameter in parameters
    ]


def update_parameters(parameters: list, slots: list[tuple], gradients: list, update: Update) -> None:
    """Append the update of each parameter and its ``slots``, in place.

    ParamAttr(learning_rate=...) of a parameter multiplies the learning rate; its L2Decay replaces the weight decay, and
    the 0 of a parameter of one dimension without ``update.decay_vectors``.
    """
    learning_rate, optimizer = update.learning_rate, update.optimizer
    for parameter, states, gradient in zip(parameters, slots, gradients):
        decays = update.decay_vectors or len(parameter.shape) > 1
        decay = weight_decay_of(parameter, update.weight_decay if decays else 0.0, f"parameter {parameter.name}")
        factor = (getattr(parameter, "optimize_attr", None) or {}).get("learning_rate", 1.0)
        scaled = learning_rate if factor == 1.0 else learning_rate * float(factor)
        step = Step(scaled, decay, update.numbers, paddle)
        optimizer.update_(parameter, states, gradient, step)
