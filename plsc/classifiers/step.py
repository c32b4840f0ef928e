"""One step of the classifier, from this rank's features and labels to the gradients.

With ``model_parallel`` the classes are split over the ranks, and the features and labels of all ranks are gathered.
Without it (data-parallel mode) each rank holds all classes and sees its own features; the gradient of the rows is
summed over the ranks, and every rank draws the same sample of rows. Both modes compute the same values.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import paddle

from plsc.backend import collectives
from plsc.classifiers import gpu_head, sampling
from plsc.classifiers.gpu_head import Labels
from plsc.classifiers.hard_negatives import searcher
from plsc.classifiers.head import HeadOutput, top_k_accuracy
from plsc.classifiers.loss_terms import LossTerms
from plsc.classifiers.plain_head import PlainHead
from plsc.classifiers.sampling import SampleOptions
from plsc.classifiers.softmax import Parts
from plsc.classifiers.spec import StepContext
from plsc.rows.blocks import RowBlocks
from plsc.rows.gradients import RowGradients
from plsc.rows.storage import ClassTable


@dataclass(frozen=True)
class StepOutput:
    """Static values. ``loss`` [1] is the mean over the global batch, the same on every rank.

    ``dfeature`` [B, E] is the complete gradient of the loss by this rank's features; ``row_gradients`` that by the rows
    of the step, or None where the rows have been updated already or are frozen. ``accuracy`` holds acc1 and acc5 [1] of
    the global batch, before the margin, if ``calc_acc`` is set. ``states``: [(state of the loss, its next value)], the
    same on every rank; ``writes``: [(table, index, rows)] of this rank's classes. The caller assigns and writes them
    unless the step is skipped.
    """

    loss: Any
    dfeature: Any
    row_gradients: RowGradients | None
    accuracy: dict[str, Any] = field(default_factory=dict)
    states: list[tuple[Any, Any]] = field(default_factory=list)
    writes: list[tuple[ClassTable, Any, Any]] = field(default_factory=list)


def classify(feature, label, rows, context: StepContext) -> StepOutput:
    """Build the step. ``feature`` [B, E], ``label`` [B] or [B, 1] int64.

    ``rows``: see plsc.rows.shard_rows.RowValues.
    """
    spec, shard, env = context.spec, context.shard, context.env
    label = paddle.reshape(paddle.cast(label, "int64"), [-1])
    all_labels = collectives.all_gather(label, env.world_size) if spec.model_parallel or shard.samples else label
    head_labels = all_labels if spec.model_parallel else label
    head_feature = collectives.all_gather(feature, env.world_size) if spec.model_parallel else feature
    divisor = _global_batch(feature, env.world_size)

    remapped, index, position = sample(all_labels, head_labels, context)
    if spec.with_bias:
        ones = paddle.ones_like(head_feature[:, :1])
        head_feature = paddle.concat([head_feature, ones], axis=1)
    block_rows = None if context.uses_kernel else context.block_classes
    blocks = RowBlocks(index, shard.num_sample, block_rows, on_gpu=env.on_gpu)
    if context.uses_kernel:
        all_rows = rows.fetch(blocks.only_piece)
        valid = paddle.logical_and(head_labels >= 0, head_labels < spec.num_classes)
        labels = Labels(remapped, valid, position)
        return _finish(gpu_head.gpu_head(head_feature, blocks, all_rows, labels, context, divisor), divisor, context)
    weight = context.weight
    if weight is not None and spec.model_parallel:
        weight = collectives.all_gather(weight, env.world_size)
    loss = LossTerms(spec, env, context.step, weight, context.learning_rate)
    head = PlainHead(head_feature, blocks, rows, position, loss, context.move)
    parts = Parts(divisor, shard.world_size, batch_world=1 if spec.model_parallel else env.world_size)
    output = head.run(parts, spec.calc_acc, searcher(context.hard))
    writes = []
    if context.hard is not None:
        writes = [(context.hard.table, *context.hard.next_rows(all_labels, output.nearest, index, env))]
    if context.loss_scale is not None:
        output = replace(output, dfeature=output.dfeature * context.loss_scale)
    return replace(_finish(output, divisor, context), states=[*loss.changes, *output.states], writes=writes)


def _global_batch(feature, world_size: int):
    if feature.shape[0] > 0:
        return float(feature.shape[0] * world_size)
    return paddle.cast(paddle.shape(feature)[:1], "float32") * float(world_size)


def sample(all_labels, head_labels, context: StepContext):
    """(labels counted over the sampled rows, index [S] or None, position of each target class in it or -1).

    ``all_labels``: of the global batch. ``head_labels``: of the features that the head of this rank sees.
    """
    spec, shard = context.spec, context.shard
    batch = sampling.labels_in(all_labels, shard.first, shard.num_local)
    targets = batch if spec.model_parallel else sampling.labels_in(head_labels, shard.first, shard.num_local)
    if not shard.samples:
        return head_labels, None, paddle.where(targets.owned, targets.row, paddle.full_like(targets.row, -1))
    key = sampling.stream_key(spec.seed, shard.rank)
    hard = context.hard
    options = SampleOptions(shard.num_local, shard.num_sample, context.step, key, hard.num_hard if hard else 0)
    if context.uses_kernel and spec.model_parallel:
        index = sampling.sample_with_kernel(batch, options)
        position = sampling.positions(index, batch)
        return sampling.labels_over_ranks(position, index, shard.rank, shard.world_size), index, position
    index, position = sampling.sample_rows(batch, targets, options, hard.rows(all_labels) if hard else None)
    return position, index, position


def _finish(output: HeadOutput, divisor, context: StepContext) -> StepOutput:
    spec, shard, env, accuracy = context.spec, context.shard, context.env, {}
    if spec.calc_acc:
        num_larger = collectives.all_reduce(output.num_larger, shard.world_size)
        accuracy = {f"acc{k}": top_k_accuracy(num_larger, k, divisor) for k in (1, 5)}
    dfeature = output.dfeature[:, : spec.embedding_size] if spec.with_bias else output.dfeature
    if spec.model_parallel:
        dfeature = collectives.reduce_scatter(dfeature, env.rank, env.world_size, env.on_gpu)
        return StepOutput(output.loss, dfeature, output.row_gradients, accuracy)
    loss = collectives.all_reduce(output.loss, env.world_size)
    accuracy = {name: collectives.all_reduce(value, env.world_size) for name, value in accuracy.items()}
    row_gradients = output.row_gradients
    if env.world_size > 1 and row_gradients is not None:
        summed = lambda value: collectives.all_reduce(value, env.world_size)  # noqa: E731
        bound = row_gradients.bound
        row_gradients = row_gradients.map(summed, None if bound is None else summed(bound))
    return StepOutput(loss, dfeature, row_gradients, accuracy)
