"""Loss and gradients by the kernel ``margin_cross_entropy``, which exists for GPUs only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import paddle

from plsc.backend import autodiff, collectives, ops
from plsc.classifiers.head import HeadOutput, inverse_norm
from plsc.classifiers.spec import ClassifierSpec, StepContext
from plsc.rows.gradients import RowGradients

# Paddle's margin_cross_entropy computes the angles of float32 cosines, which have errors of up to 1e-7. Cosines are
# clipped to +-COSINE_LIMIT first, so that the slope is at most about 700 * margin1.
COSINE_LIMIT = 1.0 - 1e-6


@dataclass(frozen=True)
class Labels:
    """[G] each. ``number`` int64: the label counted over the sampled rows of all ranks. ``valid`` bool: whether it is a
    class. ``position`` int64: of the target class among this rank's rows, -1 where another rank holds it."""

    number: Any
    valid: Any
    position: Any


def gpu_head(feature, blocks, rows, labels: Labels, context: StepContext, divisor) -> HeadOutput:
    """The loss of the kernel and its gradients by the leaves ``feature`` and ``rows`` [S, E], which are one block.

    The kernel computes acos, so the cosines are clipped to +-COSINE_LIMIT first. The loss scale multiplies
    ``dfeature``, not the gradient of the rows. The kernel would end the process at an invalid label; here the loss and
    all gradients are NaN instead.
    """
    leaves = feature, rows = autodiff.as_leaf(feature), autodiff.as_leaf(rows)
    stopped = [leaf.stop_gradient for leaf in leaves]
    feature.stop_gradient, rows.stop_gradient = False, context.spec.frozen
    cosine = _clipped_cosines(feature, rows, context.spec)
    substitute = context.spec.dry_run and not paddle.is_compiled_with_cuda()
    nll = _nll(cosine, labels, context, substitute)
    loss = paddle.reshape(paddle.sum(nll) / divisor, [1]) * _one_or_nan(labels.valid)
    loss_scale = context.loss_scale
    scaled_loss = loss if loss_scale is None else loss * loss_scale
    dfeature, *drows = autodiff.gradients(scaled_loss, [leaf for leaf in leaves if not leaf.stop_gradient])
    for leaf, flag in zip(leaves, stopped):  # a user's backward pass must stop where it would have stopped
        leaf.stop_gradient = flag
    if substitute:
        paddle.max(cosine)  # the gradient of the real kernel reads the cosines up to here
    gradients = None
    if not context.spec.frozen:
        (by_rows,) = drows if loss_scale is None else [drows[0] / loss_scale]
        gradients = RowGradients(blocks, lambda piece: rows, lambda piece, rows: by_rows)
    num_larger = _num_larger(cosine, labels.position, context.shard.world_size) if context.spec.calc_acc else None
    return HeadOutput(loss, dfeature, gradients, num_larger)


def _clipped_cosines(feature, rows, spec: ClassifierSpec):
    """[G, S], of several centres of a class the largest."""
    rows = spec.centres.split(rows)
    unit_feature, unit_rows = feature * inverse_norm(feature), rows * inverse_norm(rows)
    if spec.half:
        unit_feature, unit_rows = paddle.cast(unit_feature, "float16"), paddle.cast(unit_rows, "float16")
    cosine = paddle.cast(paddle.matmul(unit_feature, unit_rows, transpose_y=True), "float32")
    cosine = spec.centres.largest_of_columns(cosine)
    return paddle.clip(cosine, -COSINE_LIMIT, COSINE_LIMIT)


def _nll(cosine, labels: Labels, context: StepContext, substitute: bool):
    """[G, 1] by the kernel, or, in a dry run without GPUs, by an operation that needs the same memory."""
    number = paddle.where(labels.valid, labels.number, paddle.zeros_like(labels.number))
    number = paddle.unsqueeze(number, 1)
    if substitute:
        return ops.cross_entropy_of_same_memory(cosine, number)
    spec, shard = context.spec, context.shard
    margins = spec.loss.kernel_margins
    return ops.margin_cross_entropy(cosine, number, margins, spec.scale, shard.rank, shard.world_size)


def _one_or_nan(valid):
    """[1]: 1 if all of ``valid`` are true, else NaN."""
    all_valid = paddle.reshape(paddle.all(valid), [1])
    return paddle.where(all_valid, paddle.full([1], 1.0, "float32"), paddle.full([1], float("nan"), "float32"))


def _num_larger(cosine, position, shard_world: int):
    """See HeadOutput.num_larger."""
    column = paddle.unsqueeze(paddle.clip(position, min=0), 1)
    on_rank = paddle.squeeze(paddle.take_along_axis(cosine, column, 1), 1) * paddle.cast(position >= 0, cosine.dtype)
    target = paddle.unsqueeze(collectives.all_reduce(on_rank, shard_world), 1)
    return paddle.sum(paddle.cast(cosine >= target, "float32"), axis=1)
