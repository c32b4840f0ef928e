"""The section `optimizer`."""

from __future__ import annotations

import dataclasses

from plsc.config.option import option
from plsc.registry import OPTIMIZERS


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """The optimizer of the backbone, and of the class centres unless `class_optimizer` names another."""

    name: str = option(
        "momentum", "The optimizer (`plsc list optimizers`), or your own from a module in `plugins`. With sampled "
        "classes its cost follows the sample; that of a Paddle optimizer, set by Entry.set_optimizer, does not.",
        registry=OPTIMIZERS,
    )  # fmt: skip
    options: dict = option({}, "Further options of the optimizer: parameters of its constructor.")
    decay_vectors: bool = option(
        True, "Weight decay also for the backbone's parameters of one dimension: biases, scales and shifts of norms, "
        "slopes of PReLU. false leaves them out, as is usual with adamw; the L2Decay of a ParamAttr takes precedence.",
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ClassOptimizer:
    """The optimizer of the class centres, where it is another one than that of the backbone."""

    name: str | None = option(
        None, "The optimizer of the class centres (`plsc list optimizers`); null: that of the backbone. lars, lamb "
        "and adafactor need one, because they read whole parameters: momentum or adamw.", registry=OPTIMIZERS,
    )  # fmt: skip
    options: dict = option({}, "Its further options: parameters of its constructor.")
    sparse: str = option(
        "exact", "What a step does to class centres that it did not sample (`classifier.sample_ratio` below 1). exact: "
        "what the dense optimizer does, momentum and weight decay included, made up for when a centre is next sampled. "
        "lazy: nothing, as in arcface_torch's Partial FC and in lazy Adam.", choices=("exact", "lazy"),
    )  # fmt: skip
