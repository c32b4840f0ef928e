"""The description of a classifier step: what it computes, which classes this rank holds, and how it is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from plsc.classifiers import sampling
from plsc.classifiers.centres import Centres
from plsc.config.schema.classifier import AUTO, PLSC
from plsc.losses import Loss, PairLoss
from plsc.losses.arcface import ArcFace
from plsc.parallel.environment import Environment
from plsc.parallel.shards import class_range
from plsc.rows.blocks import MAX_ELEMENTS


@dataclass(frozen=True)
class ClassifierSpec:
    """What the classifier computes. ``with_bias``: for a loss of dot products; the bias is the last column of the
    weight, which then is [num_classes, embedding_size + 1]. With ``sub_centres`` K: the weight is [num_classes, K *
    embedding_size]."""

    num_classes: int
    embedding_size: int = 512
    loss: Loss = field(default_factory=ArcFace)
    scale: float = 64.0
    sub_centres: int = 1  # of each class, see plsc.classifiers.centres
    sample_ratio: float = 1.0
    model_parallel: bool = True
    with_bias: bool = False
    seed: int = 0
    calc_acc: bool = False
    filter_above: float | None = None  # other classes with a larger cosine do not count in the step
    label_smoothing: float = 0.0  # the part of the target's probability that all classes of the step share
    hard_negative_share: float = 0.0  # of the sample: see plsc.classifiers.hard_negatives
    weighted: bool = False  # each feature's cross entropy has a factor, StepContext.weight
    half: bool = False  # matrix products of features and rows in float16, with a loss scale (GPU)
    storage: str = "float32"  # of weight and momentum in memory, see plsc.rows.storage
    lazy: bool = False  # rows that are not sampled do not move
    compiled: bool = True  # use plsc.rows.row_kernels for sampled rows where available
    frozen: bool = False  # the rows stay as they are: no gradient of them is computed
    kernels: str = AUTO  # of GPUs, see the key classifier.kernels
    features: int | None = None  # that the head of a rank sees in a step, where that is known at build time
    dry_run: bool = False  # the program is only built, to estimate memory

    @property
    def row_size(self) -> int:
        """The width of the weight."""
        return self.sub_centres * self.embedding_size + (1 if self.with_bias else 0)

    @property
    def centres(self) -> Centres:
        """The centres of a class."""
        return Centres(self.sub_centres)

    def uses_kernel(self, env: Environment) -> bool:
        """Whether sample and loss are computed by Paddle's kernels: on GPUs, for a loss that is fully described by
        three margins, and no more logits than margin_cross_entropy counts. The same on every rank."""
        return env.on_gpu and self.kernels != PLSC and not self._more_than_margins() and not self.overflows(env)

    def overflows(self, env: Environment) -> bool:
        """Whether a rank may have more logits than an array of Paddle's kernels for GPUs can, by the sizes of the
        largest shard. A step has as many rows as its sample, or as there are classes in the batch."""
        if self.features is None:
            return False
        return self.features * self._most_rows(env) * self.sub_centres > MAX_ELEMENTS

    def without_kernel(self, env: Environment) -> str | None:
        """A line for the log where a GPU, unlike classifier.kernels, does not use Paddle's kernels, else None."""
        if not env.on_gpu or self.kernels == PLSC or self.uses_kernel(env):
            return None
        if self._more_than_margins():
            names = "filter_above", "label_smoothing", "weighted", "hard_negative_share"
            also = "".join(f" with {name}" for name in names if getattr(self, name))
            return (
                f"classifier.loss_type: {type(self.loss).__name__}{also} is more than three margins, so this GPU "
                "computes it by plain operations and not by Paddle's kernel margin_cross_entropy"
            )
        return (
            f"classifier.kernels: {self.kernels}: {self.features:,} features and {self._most_rows(env):,} classes per "
            f"rank are more logits than Paddle's kernel margin_cross_entropy counts, {MAX_ELEMENTS:,}; PLSC's own "
            "sample and loss take over (classifier.kernels: plsc)"
        )

    def global_batch(self, env: Environment) -> int:
        """The features of all ranks in a step; 0 where that is not known."""
        return (self.features or 0) * (1 if self.model_parallel else env.world_size)

    def _more_than_margins(self) -> bool:
        more = any(self.loss.overrides(method) for method in ("states", "others", "penalty"))
        more = more or isinstance(self.loss, PairLoss)
        more = more or self.filter_above is not None or self.label_smoothing > 0.0 or self.weighted
        more = more or self.hard_negative_share > 0.0
        return more or self.loss.kernel_margins is None

    def _most_rows(self, env: Environment) -> int:
        first, end = class_range(self.num_classes, 0, env.world_size if self.model_parallel else 1)
        return max(sampling.num_sample(end - first, self.sample_ratio), min(self.global_batch(env), end - first))


@dataclass(frozen=True)
class Shard:
    """The classes first .. first + num_local - 1 of this rank, one of ``world_size`` parts.

    ``samples``: whether a step uses a sample of the rows, the same on every rank: by the largest shard. Another may be
    one class, which is then all of its sample.
    """

    rank: int
    world_size: int
    first: int
    num_local: int
    num_sample: int
    samples: bool

    @classmethod
    def of(cls, spec: ClassifierSpec, env: Environment) -> Shard:
        """The shard of ``env``'s rank. Raises ConfigError where a rank would have no class."""
        rank, world_size = (env.rank, env.world_size) if spec.model_parallel else (0, 1)
        first, end = class_range(spec.num_classes, rank, world_size)
        num_local, (_, largest) = end - first, class_range(spec.num_classes, 0, world_size)
        samples = sampling.num_sample(largest, spec.sample_ratio) < largest
        return cls(rank, world_size, first, num_local, sampling.num_sample(num_local, spec.sample_ratio), samples)


@dataclass(frozen=True)
class StepContext:
    """How a step is built.

    ``step`` [1] int64 counts the steps; it seeds the sample and a loss's random numbers (None where there are none).
    ``loss_scale`` [1], if given, multiplies ``dfeature`` (the caller divides), so that the backbone's float16 gradients
    do not underflow. ``block_rows``: process this many rows at a time; None: all at once, as Paddle's kernel does it.
    ``move``, if given, updates the rows in the backward pass, see PlainHead. ``weight`` [B], if given: the factor of
    each feature's cross entropy. ``hard``: plsc.classifiers.hard_negatives.HardNegatives, if there are any.
    ``learning_rate`` [1], if given: that of the step, by which the bias of a PairLoss moves.
    """

    spec: ClassifierSpec
    shard: Shard
    env: Environment
    step: Any = None
    loss_scale: Any = None
    block_rows: int | None = None
    move: Callable | None = None
    weight: Any = None
    hard: Any = None
    learning_rate: Any = None

    @property
    def block_classes(self) -> int | None:
        """``block_rows`` counted in classes: blocks hold as many centres, however many a class has."""
        return None if self.block_rows is None else max(1, self.block_rows // self.spec.sub_centres)

    @property
    def uses_kernel(self) -> bool:
        """See ClassifierSpec.uses_kernel."""
        return self.spec.uses_kernel(self.env)
