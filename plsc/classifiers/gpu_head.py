"""Loss and gradients by ``margin_cross_entropy``, which exists for GPUs only."""

from __future__ import annotations

import paddle

from plsc.backend import autodiff, collectives, ops
from plsc.classifiers.head import HeadOutput, inverse_norm
from plsc.classifiers.margins import COSINE_LIMIT
from plsc.rows.gradients import RowGradients


def gpu_head(feature, blocks, rows, label, known, position, spec, divisor, rank, shard_world, loss_scale=None):
    """HeadOutput of the kernel, differentiated down to the leaves ``feature`` and ``rows`` [S, E], which are one block.

    ``spec`` has margins, scale and half. ``label`` [G] int64 counts through the sampled rows of all ranks.
    The kernel takes acos of what it is given, so the cosines are held inside +-COSINE_LIMIT first. ``loss_scale``
    multiplies ``dfeature``, not the gradient of the rows. ``known`` [G] bool: which labels are classes. The kernel
    would end the process at one that is none; here the loss and all gradients are NaN instead.
    """
    leaves = feature, rows = autodiff.leaf(feature), autodiff.leaf(rows)
    frozen = [leaf.stop_gradient for leaf in leaves]
    for leaf in leaves:
        leaf.stop_gradient = False
    unit_feature, unit_rows = feature * inverse_norm(feature), rows * inverse_norm(rows)
    if spec.half:
        unit_feature, unit_rows = paddle.cast(unit_feature, "float16"), paddle.cast(unit_rows, "float16")
    cosine = paddle.cast(paddle.matmul(unit_feature, unit_rows, transpose_y=True), "float32")
    held = paddle.clip(cosine, -COSINE_LIMIT, COSINE_LIMIT)
    label = paddle.unsqueeze(paddle.where(known, label, paddle.zeros_like(label)), 1)
    stands_in = spec.only_looked_at and not paddle.is_compiled_with_cuda()
    if stands_in:
        nll = ops.entropy_of_the_same_memory(held, label)
    else:
        nll = ops.margin_cross_entropy(held, label, spec.margins, spec.scale, rank, shard_world)
    loss = paddle.reshape(paddle.sum(nll) / divisor, [1]) * _one_or_nan(known)
    goal = loss if loss_scale is None else loss * loss_scale
    dfeature, drows = autodiff.gradients(goal, list(leaves))
    for leaf, flag in zip(leaves, frozen):  # a user's backward pass must end where it would have ended
        leaf.stop_gradient = flag
    if stands_in:
        paddle.max(held)  # the kernel's gradient has read them until here
    drows = drows if loss_scale is None else drows / loss_scale
    gradients = RowGradients(blocks, lambda piece: rows, lambda piece, rows: drows)
    return HeadOutput(loss, dfeature, gradients, _larger(held, position, shard_world) if spec.calc_acc else None)


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
