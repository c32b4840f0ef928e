"""What a step of the classifier is built from: what it computes, which classes are this rank's, and how it is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from plsc.classifiers import sampling
from plsc.losses import Loss
from plsc.losses.arcface import ArcFace
from plsc.parallel.environment import Environment
from plsc.parallel.shards import class_range


@dataclass(frozen=True)
class ClassifierSpec:
    """What the classifier computes. ``with_bias``: for a loss of products; the bias is the last column of the weight,
    which then is [num_classes, embedding_size + 1]."""

    num_classes: int
    embedding_size: int = 512
    loss: Loss = field(default_factory=ArcFace)
    scale: float = 64.0
    sample_ratio: float = 1.0
    model_parallel: bool = True
    with_bias: bool = False
    seed: int = 0
    calc_acc: bool = False
    half: bool = False  # the products of features and rows in float16 (GPU)
    storage: str = "float32"  # of weight and momentum in memory, see plsc.rows.storage
    compiled: bool = True  # sampled rows by plsc.rows.row_kernels, where these can be used
    dry_run: bool = False  # by the plan of a run's memory, and never run

    @property
    def row_size(self) -> int:
        """Numbers in a row of the weight."""
        return self.embedding_size + (1 if self.with_bias else 0)

    def uses_kernel(self, env: Environment) -> bool:
        """Whether GPUs compute the loss by margin_cross_entropy, which knows a target cosine of three margins only."""
        more = any(self.loss.overrides(method) for method in ("states", "others", "penalty"))
        return env.on_gpu and self.loss.kernel_margins is not None and not more


@dataclass(frozen=True)
class Shard:
    """The classes first .. first + num_local of this rank, one of ``world_size`` parts."""

    rank: int
    world_size: int
    first: int
    num_local: int
    num_sample: int

    @classmethod
    def of(cls, spec: ClassifierSpec, env: Environment) -> Shard:
        """Raises ConfigError where a rank would be left without a class."""
        rank, world_size = (env.rank, env.world_size) if spec.model_parallel else (0, 1)
        first, end = class_range(spec.num_classes, rank, world_size)
        return cls(rank, world_size, first, end - first, sampling.num_sample(end - first, spec.sample_ratio))

    @property
    def samples(self) -> bool:
        """True where a step touches a part of the rows only."""
        return self.num_sample < self.num_local


@dataclass(frozen=True)
class StepContext:
    """How a step is built.

    ``step`` [1] int64 counts the steps: the sample and a loss's random numbers are drawn from it (None where nothing is
    drawn). ``loss_scale`` [1], if given, multiplies ``dfeature`` (the caller divides), so that what flows on in float16
    does not vanish. ``block_rows``: work on this many rows at a time; None, as the kernel of GPUs needs it: on all at
    once. ``move``, if given, appends what moves the rows where their gradient is made, see PlainHead.
    """

    spec: ClassifierSpec
    shard: Shard
    env: Environment
    step: Any = None
    loss_scale: Any = None
    block_rows: int | None = None
    move: Callable | None = None

    @property
    def uses_kernel(self) -> bool:
        """See ClassifierSpec.uses_kernel."""
        return self.spec.uses_kernel(self.env)
