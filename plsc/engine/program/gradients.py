"""The part of the training program between the gradients of the head and the update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from plsc.backend import static
from plsc.classifiers import StepOutput
from plsc.engine.program import accumulation
from plsc.engine.program.accumulation import Pass
from plsc.errors import ConfigError
from plsc.optim.gradients import BUCKET_BYTES, Buckets, all_reduce_in_buckets, clip_by_global_norm
from plsc.optim.loss_scaling import LossScaling, unscale
from plsc.parallel.environment import Environment
from plsc.rows.gradients import RowGradients


@dataclass(frozen=True)
class Reduction:
    """How gradients are summed over the ranks and clipped.

    model_parallel: each rank holds its own classes. clip_norm: the largest global norm; None does not clip.
    bucket_bytes: the smallest all-reduce.
    """

    env: Environment
    model_parallel: bool
    clip_norm: float | None
    bucket_bytes: int = BUCKET_BYTES


@dataclass(frozen=True)
class Gradients:
    """Complete gradients of the global batch, ready for the update.

    ``parameters`` of the backbone and their gradients ``replicated``, the same on every rank; ``rows`` the gradients of
    this rank's rows, None where these have been moved already or are frozen. ``statistics`` are the backbone's other
    float states (running mean and variance) and ``mean_statistics`` their mean over the ranks. ``stop`` [1]
    float32 is above 0 on every rank where some rank is to stop. ``found`` [1] bool under mixed precision: skip
    this step.
    """

    parameters: list[Any]
    replicated: Buckets
    rows: RowGradients | None
    statistics: list[Any]
    mean_statistics: list[Any]
    stop: Any
    found: Any = None

    @classmethod
    def build(
        cls,
        made: Sequence[Pass],
        output: StepOutput,
        backbone: dict[str, Any],
        stop,
        scaling: LossScaling | None,
        reduction: Reduction,
    ) -> Gradients:
        """Append the backward pass of the backbone with its all-reduces, the check and the clipping.

        ``made``: the backbone, applied to each micro-batch.
        ``stop`` [1] float32: 1 where this rank is to stop; it is summed with the gradients.
        """
        parameters = [value for value in backbone.values() if static.is_trainable(value)]
        env = reduction.env
        halves = made[0].halves
        leaves = [halves.get(parameter.name, parameter) for parameter in parameters]
        own = accumulation.gradients(made, output.dfeature, leaves)
        unused = [parameter.name for parameter, gradient in zip(parameters, own) if gradient is None]
        if unused:
            raise ConfigError(
                f"model: the feature does not depend on {', '.join(unused[:5])}; remove what is not used, or freeze it "
                "with ParamAttr(trainable=False)"
            )
        statistics = [value for value in backbone.values() if static.is_statistic(value)]
        flat = scaling is not None or bool(halves)
        replicated, (*means, stop) = all_reduce_in_buckets(
            own, [*statistics, stop], env.world_size, env.on_gpu, reduction.bucket_bytes, flat
        )
        rows, found = output.row_gradients, None
        if scaling is not None:
            replicated, found = unscale(replicated, rows, scaling.scale, env.world_size)
        if reduction.clip_norm is not None:
            shard_world = env.world_size if reduction.model_parallel else 1
            replicated, rows = clip_by_global_norm(replicated, rows, reduction.clip_norm, shard_world)
        return cls(parameters, replicated, rows, statistics, means, stop, found)
