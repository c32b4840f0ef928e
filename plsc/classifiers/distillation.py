"""A teacher's part of the loss: how far the features point from its embeddings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import paddle

from plsc.backend import collectives
from plsc.classifiers.head import inverse_norm
from plsc.classifiers.spec import StepContext
from plsc.classifiers.step import StepOutput


def add_teacher(feature: Any, teacher: Any, output: StepOutput, context: StepContext, weight: float) -> StepOutput:
    """Add ``weight`` * the mean of 1 - cos(f_i, t_i) over the global batch to the loss, and its gradient.

    feature, teacher: [B, E] of this rank. With unit vectors f and t, c = f . t, and G images in the global batch,

        d loss / d feature_i = - weight / G * (t_i - c_i f_i) / |feature_i|

    A feature or embedding of length 0 has the cosine 0 and no gradient. Each rank has the complete gradient of its own
    features, so only the loss is summed over the ranks. ``accuracy`` gets the mean cosine as "teacher".
    """
    world_size = context.env.world_size
    size = float(feature.shape[0] * world_size)
    inverse = inverse_norm(feature)
    unit, target = feature * inverse, teacher * inverse_norm(teacher)
    cosine = paddle.sum(unit * target, axis=1, keepdim=True)
    mean = collectives.all_reduce(paddle.reshape(paddle.sum(cosine) / size, [1]), world_size)
    gradient = (cosine * unit - target) * inverse * (weight / size)
    if context.loss_scale is not None:
        gradient = gradient * context.loss_scale
    return replace(
        output,
        loss=output.loss + weight * (1.0 - mean),
        dfeature=output.dfeature + gradient,
        accuracy={**output.accuracy, "teacher": mean},
    )
