"""One step of the classifier, from this rank's features and labels to the gradients it hands on.

``model_parallel``: the classes are split over the ranks, and features and labels of all ranks are gathered.
Otherwise (data-parallel full FC) each rank holds all classes, sees its own features, and the gradient of
the rows is summed over the ranks; the sample of the rows is then the same on each. Both are the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import paddle

from plsc.backend import collectives
from plsc.classifiers import gpu_head, sampling
from plsc.classifiers.gpu_head import Labels
from plsc.classifiers.head import HeadOutput, top_k_accuracy
from plsc.classifiers.loss_terms import LossTerms
from plsc.classifiers.plain_head import PlainHead
from plsc.classifiers.spec import Shard, StepContext
from plsc.rows.blocks import RowBlocks
from plsc.rows.gradients import RowGradients


@dataclass(frozen=True)
class StepOutput:
    """Static values. ``loss`` [1] is the mean over the global batch, the same on every rank.

    ``dfeature`` [B, E] is its gradient by this rank's features, complete; ``row_gradients`` that by the rows that took
    part, complete, or None where they have been moved already. ``accuracy`` holds acc1 and acc5 [1] of the global
    batch, before the margin, if they were asked for. ``states``: [(a state of the loss, its next value)], the same on
    every rank, to be assigned where the step counts.
    """

    loss: Any
    dfeature: Any
    row_gradients: RowGradients | None
    accuracy: dict[str, Any] = field(default_factory=dict)
    states: list[tuple[Any, Any]] = field(default_factory=list)


def classify(feature, label, rows, context: StepContext) -> StepOutput:
    """Build the step. ``feature`` [B, E], ``label`` [B] or [B, 1] int64.

    ``rows`` gives the values of a piece of rows by ``fetch(piece)``.
    """
    spec, shard, env = context.spec, context.shard, context.env
    label = paddle.reshape(paddle.cast(label, "int64"), [-1])
    all_labels = collectives.all_gather(label, env.world_size) if spec.model_parallel or shard.samples else label
    own_labels = all_labels if spec.model_parallel else label
    own_feature = collectives.all_gather(feature, env.world_size) if spec.model_parallel else feature
    divisor = _global_batch(feature, env.world_size)

    remapped, index, position = sample(all_labels, own_labels, context)
    if spec.with_bias:
        ones = paddle.ones_like(own_feature[:, :1])
        own_feature = paddle.concat([own_feature, ones], axis=1)
    blocks = RowBlocks(index, shard.num_sample, None if context.uses_kernel else context.block_rows)
    if context.uses_kernel:
        all_rows = rows.fetch(blocks.only_piece)
        known = paddle.logical_and(own_labels >= 0, own_labels < spec.num_classes)
        labels = Labels(remapped, known, position)
        return _finish(gpu_head.gpu_head(own_feature, blocks, all_rows, labels, context, divisor), divisor, context)
    loss = LossTerms(spec, env, context.step)
    head = PlainHead(own_feature, blocks, rows, position, loss, context.move)
    output = head.run(divisor, shard.world_size, spec.calc_acc)
    if context.loss_scale is not None:
        output = replace(output, dfeature=output.dfeature * context.loss_scale)
    return replace(_finish(output, divisor, context), states=loss.changes)


def _global_batch(feature, world_size: int):
    if feature.shape[0] > 0:
        return float(feature.shape[0] * world_size)
    return paddle.cast(paddle.shape(feature)[:1], "float32") * float(world_size)


def sample(all_labels, own_labels, context: StepContext):
    """(labels counted through the sampled rows, index [S] or None, position of each own label or -1)."""
    spec, shard, step = context.spec, context.shard, context.step
    local, owned = _localise(all_labels, shard)
    own_local, own_owned = (local, owned) if spec.model_parallel else _localise(own_labels, shard)
    if not shard.samples:
        return own_labels, None, paddle.where(own_owned, own_local, paddle.full_like(own_local, -1))
    key = sampling.stream_key(spec.seed, shard.rank)
    if context.uses_kernel and spec.model_parallel:
        index = sampling.sample_with_kernel(local, owned, shard.num_local, shard.num_sample, step, key)
        position = sampling.positions(index, local, owned)
        return sampling.labels_over_ranks(position, index, shard.rank, shard.world_size), index, position
    index, position = sampling.sample_rows(
        local, owned, own_local, own_owned, shard.num_local, shard.num_sample, step, key
    )
    return position, index, position


def _localise(label, shard: Shard):
    local = label - shard.first
    return local, paddle.logical_and(local >= 0, local < shard.num_local)


def _finish(output: HeadOutput, divisor, context: StepContext) -> StepOutput:
    spec, shard, env, accuracy = context.spec, context.shard, context.env, {}
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
