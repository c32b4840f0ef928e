"""One step of the classifier, from this rank's features and labels to the gradients it hands on.

``model_parallel``: the classes are split over the ranks, and features and labels of all ranks are gathered.
Otherwise (data-parallel full FC) each rank holds all classes, sees its own features, and the gradient of
the rows is summed over the ranks; the sample of the rows is then the same on each. Both are the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import paddle

from plsc.backend import collectives
from plsc.classifiers import gpu_head, sampling
from plsc.classifiers.head import HeadOutput, top_k_accuracy
from plsc.classifiers.margins import Margins
from plsc.classifiers.plain_head import PlainHead
from plsc.parallel.environment import Environment
from plsc.parallel.shards import class_range
from plsc.rows.blocks import RowBlocks
from plsc.rows.gradients import RowGradients


@dataclass(frozen=True)
class ClassifierSpec:
    """What the classifier computes. ``margins`` None: the plain softmax of PLSC 0.1, on the raw products with a bias.

    The bias is the last column of the weight, which then is [num_classes, embedding_size + 1].
    """

    num_classes: int
    embedding_size: int = 512
    margins: Margins | None = (1.0, 0.5, 0.0)
    scale: float = 64.0
    sample_ratio: float = 1.0
    model_parallel: bool = True
    with_bias: bool = False
    seed: int = 0
    calc_acc: bool = False
    half: bool = False  # the products of features and rows in float16 (GPU)
    storage: str = "float32"  # of weight and momentum in memory, see plsc.rows.storage
    compiled: bool = True  # sampled rows by plsc.rows.row_kernels, where these can be used
    only_looked_at: bool = False  # by the plan of a run's memory, and never run

    @property
    def row_size(self) -> int:
        """Numbers in a row of the weight."""
        return self.embedding_size + (1 if self.with_bias else 0)


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
class StepOutput:
    """Static values. ``loss`` [1] is the mean over the global batch, the same on every rank.

    ``dfeature`` [B, E] is its gradient by this rank's features, complete; ``row_gradients`` that by the rows that took
    part, complete, or None where they have been moved already. ``accuracy`` holds acc1 and acc5 [1] of the global
    batch, before the margin, if they were asked for.
    """

    loss: Any
    dfeature: Any
    row_gradients: RowGradients | None
    accuracy: dict[str, Any] = field(default_factory=dict)


def classify(
    feature,
    label,
    spec: ClassifierSpec,
    shard: Shard,
    env: Environment,
    rows,
    step=None,
    loss_scale=None,
    block_rows: int | None = None,
    move: Callable | None = None,
) -> StepOutput:
    """Build the step. ``feature`` [B, E], ``label`` [B] or [B, 1] int64.

    ``rows`` gives the values of a piece of rows by ``fetch(piece)``. ``step`` [1] int64 counts the steps; the sample is
    drawn from it (None where nothing is sampled). ``loss_scale`` [1], if given, multiplies ``dfeature`` (the caller
    divides), so that what flows on in float16 does not vanish. ``block_rows``: work on this many rows at a time; None,
    as the kernel of GPUs needs it: on all at once. ``move``, if given, appends what moves the rows where their
    gradient is made, see PlainHead.
    """
    label = paddle.reshape(paddle.cast(label, "int64"), [-1])
    all_labels = collectives.all_gather(label, env.world_size) if spec.model_parallel or shard.samples else label
    own_labels = all_labels if spec.model_parallel else label
    own_feature = collectives.all_gather(feature, env.world_size) if spec.model_parallel else feature
    divisor = _global_batch(feature, env.world_size)

    remapped, index, position = sample(all_labels, own_labels, spec, shard, env, step)
    if spec.with_bias:
        ones = paddle.ones_like(own_feature[:, :1])
        own_feature = paddle.concat([own_feature, ones], axis=1)
    by_kernel = env.on_gpu and spec.margins is not None
    blocks = RowBlocks(index, shard.num_sample, None if by_kernel else block_rows)
    if by_kernel:
        all_rows = rows.fetch(blocks.whole)
        known = paddle.logical_and(own_labels >= 0, own_labels < spec.num_classes)
        place = shard.rank, shard.world_size
        output = gpu_head.gpu_head(
            own_feature, blocks, all_rows, remapped, known, position, spec, divisor, *place, loss_scale
        )
    else:
        head = PlainHead(own_feature, blocks, rows, position, spec.margins, spec.scale, move)
        output = head.run(divisor, shard.world_size, spec.calc_acc)
        if loss_scale is not None:
            output = replace(output, dfeature=output.dfeature * loss_scale)
    return _finish(output, divisor, spec, shard, env)


def _global_batch(feature, world_size: int):
    if feature.shape[0] > 0:
        return float(feature.shape[0] * world_size)
    return paddle.cast(paddle.shape(feature)[:1], "float32") * float(world_size)


def sample(all_labels, own_labels, spec: ClassifierSpec, shard: Shard, env: Environment, step):
    """(labels counted through the sampled rows, index [S] or None, position of each own label or -1)."""
    local, owned = _localise(all_labels, shard)
    own_local, own_owned = (local, owned) if spec.model_parallel else _localise(own_labels, shard)
    if not shard.samples:
        return own_labels, None, paddle.where(own_owned, own_local, paddle.full_like(own_local, -1))
    key = sampling.stream_key(spec.seed, shard.rank)
    if env.on_gpu and spec.margins is not None and spec.model_parallel:
        index = sampling.sample_by_kernel(local, owned, shard.num_local, shard.num_sample, step, key)
        position = sampling.positions(index, local, owned)
        return sampling.labels_over_ranks(position, index, shard.rank, shard.world_size), index, position
    index, position = sampling.sample_rows(
        local, owned, own_local, own_owned, shard.num_local, shard.num_sample, step, key
    )
    return position, index, position


def _localise(label, shard: Shard):
    local = label - shard.first
    return local, paddle.logical_and(local >= 0, local < shard.num_local)


def _finish(output: HeadOutput, divisor, spec, shard: Shard, env: Environment) -> StepOutput:
    accuracy = {}
    if spec.calc_acc:
        larger = collectives.all_reduce(output.larger, shard.world_size)
        accuracy = {f"acc{k}": top_k_accuracy(larger, k, divisor) for k in (1, 5)}
    dfeature = output.dfeature[:, : spec.embedding_size] if spec.with_bias else output.dfeature
    if spec.model_parallel:
        dfeature = collectives.reduce_scatter(dfeature, env.rank, env.world_size, env.on_gpu)
        return StepOutput(output.loss, dfeature, output.row_gradients, accuracy)
    loss = collectives.all_reduce(output.loss, env.world_size)
    accuracy = {name: collectives.all_reduce(value, env.world_size) for name, value in accuracy.items()}
    row_gradients = output.row_gradients
    if env.world_size > 1:
        row_gradients = row_gradients.map(lambda gradient: collectives.all_reduce(gradient, env.world_size))
    return StepOutput(loss, dfeature, row_gradients, accuracy)
