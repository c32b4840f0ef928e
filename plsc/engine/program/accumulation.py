"""`accumulate`: the backbone is applied to each micro-batch of a step, and the head once to the features of all.

A step is then that of one batch of all these images: the classes are sampled, and losses, clipping and the loss scale
computed, as for any batch. Only the backbone's gradients are added, each as soon as it is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import paddle

from plsc.backend import autodiff, half_precision, slopes, static
from plsc.backend.micro_batches import ForwardPass, part
from plsc.engine.program.inputs import Inputs
from plsc.errors import ConfigError


@dataclass(frozen=True)
class Pass:
    """The backbone applied to one micro-batch: its ``feature`` [B, E], and the values at which it may be divided
    (Stages.boundaries). ``halves``: {name of a parameter: its copy in half precision}, where all read that."""

    feature: Any
    boundaries: list[Any]
    halves: dict[str, Any] = field(default_factory=dict)


def passes(main, inputs: Inputs, first: Pass) -> list[Pass]:
    """``first``, and the same network applied to the other micro-batches, appended to ``main``. Raises ConfigError."""
    if inputs.parts == 1:
        return [first]
    try:
        network = ForwardPass(main, list(inputs.values.values()), [first.feature, *first.boundaries])
    except ValueError as error:
        raise ConfigError(
            f"accumulate={inputs.parts}: the network has {error}; set accumulate: 1, or change the network"
        ) from None
    found = [first]
    for number in range(1, inputs.parts):
        feature, *boundaries = network.again(inputs.part(number).values())
        found.append(Pass(feature, boundaries, first.halves))
    return found


def together(made: Sequence[Pass]):
    """The features [k * B, E] of all micro-batches, in the order of their images."""
    return made[0].feature if len(made) == 1 else paddle.concat([one.feature for one in made])


def gradients(made: Sequence[Pass], dfeature, parameters: list[Any]) -> list[Any]:
    """Append the backward pass of each micro-batch, the last one first; returns the sum of each parameter's gradients,
    None for one on which the feature does not depend. ``dfeature``: [k * B, E], for ``together``. Sums are float32;
    the gradient of one micro-batch has the type of its parameter, which may be a copy in half precision."""
    total = None
    for number in reversed(range(len(made))):
        own = dfeature if len(made) == 1 else part(dfeature, number, len(made))
        found = autodiff.gradients_from(made[number].feature, own, parameters)
        if any(one is None for one in found):  # an error of the caller's, the same for each micro-batch
            return found
        found = slopes.sum_in_float32(parameters, found)
        total = found if len(made) == 1 else _added(total or [None] * len(found), found)
    return [] if total is None else total


def _added(total: list[Any], found: list[Any]) -> list[Any]:
    """The sums in float32, each appended directly after the operation that computes the second summand, which can then
    go."""
    sums = list(total)
    places = static.operation_indices(found)
    for number in sorted(range(len(found)), key=places.__getitem__, reverse=True):  # places before it stay valid
        with static.insert_after(places[number]):
            value = half_precision.in_float32(found[number])
            sums[number] = value if total[number] is None else total[number] + value
    return sums
