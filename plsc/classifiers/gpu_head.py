"""Loss and gradients by ``margin_cross_entropy``, which exists for GPUs only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import paddle

from plsc.backend import autodiff, collectives, ops
from plsc.classifiers.head import HeadOutput, inverse_norm
from plsc.classifiers.spec import StepContext
from plsc.rows.gradients import RowGradients

# Where margin_cross_entropy of Paddle takes the angle of float32 cosines, which are off by up to 1e-7, they are held
# inside of +-this first: the slope there is at most about 700 * margin1.
COSINE_LIMIT = 1.0 - 1e-6


@dataclass(frozen=True)
class Labels:
    """[G] each. ``number`` int64: counted through the sampled rows of all ranks. ``known`` bool: which are classes.
    ``position`` int64: that of the own row among this rank's, -1 where another rank holds it."""

    number: Any
    known: Any
    position: Any


def gpu_head(feature, blocks, rows, labels: Labels, context: StepContext, divisor) -> HeadOutput:
    """The result of the kernel, differentiated down to the leaves ``feature`` and ``rows`` [S, E], which are one block.

    The kernel takes acos of what it is given, so the cosines are held inside +-COSINE_LIMIT first. The loss scale
    multiplies ``dfeature``, not the gradient of the rows. The kernel would end the process at a label that is no class;
    here the loss and all gradients are NaN instead.
    """
    leaves = feature, rows = autodiff.as_leaf(feature), autodiff.as_leaf(rows)
    frozen = [leaf.stop_gradient for leaf in leaves]
    for leaf in leaves:
        leaf.stop_gradient = False
    held = _held_cosines(feature, rows, context.spec.half)
    stands_in = context.spec.dry_run and not paddle.is_compiled_with_cuda()
    nll = _nll(held, labels, context, stands_in)
    loss = paddle.reshape(paddle.sum(nll) / divisor, [1]) * _one_or_nan(labels.known)
    loss_scale = context.loss_scale
    goal = loss if loss_scale is None else loss * loss_scale
    dfeature, drows = autodiff.gradients(goal, list(leaves))
    for leaf, flag in zip(leaves, frozen):  # a user's backward pass must end where it would have ended
        leaf.stop_gradient = flag
    if stands_in:
        paddle.max(held)  # the kernel's gradient has read them until here
    drows = drows if loss_scale is None else drows / loss_scale
    gradients = RowGradients(blocks, lambda piece: rows, lambda piece, rows: drows)
    larger = _larger(held, labels.position, context.shard.world_size) if context.spec.calc_acc else None
    return HeadOutput(loss, dfeature, gradients, larger)


def _held_cosines(feature, rows, half: bool):
    unit_feature, unit_rows = feature * inverse_norm(feature), rows * inverse_norm(rows)
    if half:
        unit_feature, unit_rows = paddle.cast(unit_feature, "float16"), paddle.cast(unit_rows, "float16")
    cosine = paddle.cast(paddle.matmul(unit_feature, unit_rows, transpose_y=True), "float32")
    return paddle.clip(cosine, -COSINE_LIMIT, COSINE_LIMIT)


def _nll(cosine, labels: Labels, context: StepContext, stands_in: bool):
    """[G, 1] of the kernel, or, where the program is only looked at, of what needs the same memory."""
    number = paddle.where(labels.known, labels.number, paddle.zeros_like(labels.number))
    number = paddle.unsqueeze(number, 1)
    if stands_in:
        return ops.cross_entropy_of_same_memory(cosine, number)
    spec, shard = context.spec, context.shard
    margins = spec.loss.kernel_margins
    return ops.margin_cross_entropy(cosine, number, margins, spec.scale, shard.rank, shard.world_size)


def _one_or_nan(known):
    """[1]: 1 where all of ``known`` are true."""
    all_known = paddle.reshape(paddle.all(known), [1])
    return paddle.where(all_known, paddle.full([1], 1.0, "float32"), paddle.full([1], float("nan"), "float32"))


def _larger(cosine, position, shard_world: int):
    """See HeadOutput.larger."""
    column = paddle.unsqueeze(paddle.clip(position, min=0), 1)
    own = paddle.squeeze(paddle.take_along_axis(cosine, column, 1), 1) * paddle.cast(position >= 0, cosine.dtype)
    target = paddle.unsqueeze(collectives.all_reduce(own, shard_world), 1)
    return paddle.sum(paddle.cast(cosine >= target, "float32"), axis=1)
