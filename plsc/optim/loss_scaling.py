"""Dynamic loss scaling for float16 on GPUs, with one decision for all ranks.

Micikevicius et al. 2018, section 3.2. The scale multiplies the gradients of the backbone and of the classifier's matrix
products. Every gradient, those of the shard included, is divided by it and checked for inf and NaN. If one rank finds
any, the step is skipped on all ranks: it changes no weight.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import paddle

from plsc.backend import collectives, ops, static
from plsc.optim.gradients import Buckets

PREFIX = "loss_scaling."  # of the names of the states


@dataclass(frozen=True)
class LossScaling:
    """``scale`` [1] float32; ``good`` and ``bad`` [1] int32: consecutive steps without and with inf or NaN."""

    scale: Any
    good: Any
    bad: Any

    @classmethod
    def create(cls, initial: float) -> LossScaling:
        """Create the states in the program being built."""
        return cls(
            static.create_state(PREFIX + "scale", [1], "float32", initial),
            static.create_state(PREFIX + "good", [1], "int32"),
            static.create_state(PREFIX + "bad", [1], "int32"),
        )

    def names(self) -> list[str]:
        return [self.scale.name, self.good.name, self.bad.name]


def unscale(replicated: Buckets, sharded, scale, world_size: int) -> tuple[Buckets, Any]:
    """(``replicated`` / ``scale``, found [1] bool, the same on every rank: a gradient of any rank is inf or NaN).

    ``replicated``: the backbone's gradients, which must have no other reader; ``sharded``: those of the rows,
    plsc.rows.gradients.RowGradients, which are not scaled, or None for frozen rows.
    """
    total = paddle.zeros([1], "float32") if sharded is None else sharded.not_finite()
    if replicated.values:
        values, found = ops.check_finite_and_unscale_(replicated.values, scale)
        replicated, total = replace(replicated, values=values), total + paddle.cast(found, "float32")
    return replicated, collectives.all_reduce(total, world_size, collectives.MAX) > 0.0


def update_scale(state: LossScaling, found_inf, options) -> None:
    """Increase the scale after ``incr_every_n_steps`` good steps, decrease it after ``decr_every_n_nan_or_inf`` bad
    ones."""
    zero = paddle.zeros([1], "int32")
    good = paddle.where(found_inf, zero, state.good + 1)
    bad = paddle.where(found_inf, state.bad + 1, zero)
    grow, shrink = good >= options.incr_every_n_steps, bad >= options.decr_every_n_nan_or_inf
    grown = state.scale * options.incr_ratio
    grown = paddle.where(paddle.isfinite(grown), grown, state.scale)
    smaller = paddle.clip(state.scale * options.decr_ratio, min=1.0)
    scale = paddle.where(grow, grown, paddle.where(shrink, smaller, state.scale))
    paddle.assign(scale, output=state.scale)
    paddle.assign(paddle.where(grow, zero, good), output=state.good)
    paddle.assign(paddle.where(shrink, zero, bad), output=state.bad)
