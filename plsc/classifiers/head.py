"""From features, rows of class centres and labels to the loss and its true gradients.

Two ways with one meaning. ``plain_head`` writes loss and gradient out in ordinary operations and runs
anywhere; ``gpu_head`` uses Paddle's ``margin_cross_entropy`` kernel, which exists for GPUs only, and its
gradient. Both end at leaves: no collective is ever differentiated.

G features, E embedding, S rows. With ``shard_world`` > 1 the rows are one rank's part of the classes and the
features are those of all ranks; the softmax then runs over the rows of all ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import paddle

from plsc import compat
from plsc.classifiers.margins import COSINE_LIMIT, Margins, target_cosine

ZERO_NORM = 1e-6  # a vector shorter than this has no direction: its cosines are 0 and it gets no gradient


@dataclass(frozen=True)
class HeadOutput:
    """Static values of one step.

    ``loss`` [1]: sum of the negative log-likelihoods of the G features over ``divisor`` (a number or a value), the
    same on all ranks that share the classes. ``dfeature`` [G, E]: this shard's contribution to d loss / d feature (sum
    it over the ranks). ``drows`` [S, E]: d loss / d rows, complete. ``target`` [G], ``logits`` [G, S]: no margin.
    """

    loss: Any
    dfeature: Any
    drows: Any
    target: Any
    logits: Any


def inverse_norm(x):
    """1 / |row| for each row of x [n, E] -> [n, 1]; 0 where |row| < ZERO_NORM."""
    square = paddle.sum(x * x, axis=1, keepdim=True)
    has_direction = square > ZERO_NORM * ZERO_NORM
    return paddle.rsqrt(paddle.where(has_direction, square, paddle.ones_like(square))) * paddle.cast(
        has_direction, square.dtype
    )


def plain_head(feature, rows, position, margins: Margins | None, scale: float, divisor, shard_world: int):
    """Loss and gradients in plain operations; ``margins`` None is the softmax of the raw products.

    ``position`` [G] int64: which row is the feature's own class, -1 where another rank holds it.
    """
    if margins is None:
        return _softmax_part(feature, rows, position, None, 1.0, divisor, shard_world)
    feature_scale, row_scale = inverse_norm(feature), inverse_norm(rows)
    unit_feature = feature * feature_scale
    row_scale = paddle.reshape(row_scale, [1, -1])
    cosine = paddle.matmul(unit_feature, rows, transpose_y=True) * row_scale
    loss, dcosine, target = _softmax(cosine, position, margins, scale, divisor, shard_world)
    # d cos / d row = (unit_feature - cos * unit_row) / |row|; the part along the row is a sum per column
    weighted = dcosine * row_scale
    along = paddle.reshape(paddle.sum(dcosine * cosine, axis=0, keepdim=True) * row_scale * row_scale, [-1, 1])
    drows = paddle.matmul(weighted, unit_feature, transpose_x=True) - rows * along
    dunit = paddle.matmul(weighted, rows)
    dfeature = (dunit - unit_feature * paddle.sum(dunit * unit_feature, axis=1, keepdim=True)) * feature_scale
    return HeadOutput(loss, dfeature, drows, target, cosine)


def _softmax_part(feature, rows, position, margins, scale, divisor, shard_world) -> HeadOutput:
    logits = paddle.matmul(feature, rows, transpose_y=True)
    loss, dlogits, target = _softmax(logits, position, margins, scale, divisor, shard_world)
    drows = paddle.matmul(dlogits, feature, transpose_x=True)
    return HeadOutput(loss, paddle.matmul(dlogits, rows), drows, target, logits)


def _softmax(cosine, position, margins: Margins | None, scale: float, divisor, shard_world: int):
    """Cross entropy over the rows of all ranks: (loss [1], d loss / d cosine [G, S], own cosine [G]).

    The own cosine is that of the rank that holds the row, summed over the ranks: the same on each.
    """
    owned = paddle.cast(position >= 0, cosine.dtype)
    column = paddle.unsqueeze(paddle.clip(position, min=0), 1)
    own = paddle.squeeze(paddle.take_along_axis(cosine, column, 1), 1)
    with_margin, slope = (own, paddle.ones_like(own)) if margins is None else target_cosine(own, margins)
    place = paddle.concat([paddle.unsqueeze(_row_numbers(cosine), 1), column], axis=1)
    logits = scale * paddle.scatter_nd_add(cosine, place, (with_margin - own) * owned)

    largest = compat.all_reduce(paddle.max(logits, axis=1), shard_world, compat.MAX)  # keeps exp in range
    exponential = paddle.exp(logits - paddle.unsqueeze(largest, 1))
    parts = paddle.stack([paddle.sum(exponential, axis=1), scale * with_margin * owned, own * owned, owned])
    total, target_logit, target, owners = paddle.unbind(compat.all_reduce(parts, shard_world), axis=0)
    # one rank owns the label; a label that is no class has no owner, and 0 / 0 makes the loss NaN instead of wrong
    nll = paddle.log(total) + largest - target_logit / owners
    loss = paddle.reshape(paddle.sum(nll) / divisor, [1])

    # d nll / d logit = softmax - 1 at the target, softmax elsewhere; the margin's slope acts at the target only
    share = scale / divisor
    dcosine = exponential * paddle.unsqueeze(share / total, 1)
    softmax_own = paddle.squeeze(paddle.take_along_axis(dcosine, column, 1), 1)
    correction = ((softmax_own - share) * slope - softmax_own) * owned
    return loss, paddle.scatter_nd_add(dcosine, place, correction), target


def _row_numbers(x):
    count = x.shape[0] if x.shape[0] > 0 else paddle.shape(x)[0]
    return paddle.arange(count, dtype="int64")


def gpu_head(feature, rows, remapped_label, position, spec, divisor, rank, shard_world, loss_scale=None) -> HeadOutput:
    """The same by ``margin_cross_entropy`` (GPU only), differentiated down to the leaves ``feature`` and ``rows``.

    ``spec`` has margins, scale and half. ``remapped_label`` [G] int64 counts through the sampled rows of all ranks.
    The kernel takes acos of what it is given, so the cosines are held inside +-COSINE_LIMIT first. ``loss_scale``
    multiplies ``dfeature``, not ``drows``.
    """
    leaves = feature, rows
    frozen = [leaf.stop_gradient for leaf in leaves]
    for leaf in leaves:
        leaf.stop_gradient = False
    unit_feature, unit_rows = feature * inverse_norm(feature), rows * inverse_norm(rows)
    if spec.half:
        unit_feature, unit_rows = paddle.cast(unit_feature, "float16"), paddle.cast(unit_rows, "float16")
    cosine = paddle.cast(paddle.matmul(unit_feature, unit_rows, transpose_y=True), "float32")
    held = paddle.clip(cosine, -COSINE_LIMIT, COSINE_LIMIT)
    label = paddle.unsqueeze(remapped_label, 1)
    nll = compat.margin_cross_entropy(held, label, spec.margins, spec.scale, rank, shard_world)
    loss = paddle.reshape(paddle.sum(nll) / divisor, [1])
    goal = loss if loss_scale is None else loss * loss_scale
    dfeature, drows = compat.gradients(goal, list(leaves))
    for leaf, flag in zip(leaves, frozen):  # a user's backward pass must end where it would have ended
        leaf.stop_gradient = flag
    drows = drows if loss_scale is None else drows / loss_scale
    return HeadOutput(loss, dfeature, drows, _own(held, position, shard_world), held)


def _own(cosine, position, shard_world: int):
    column = paddle.unsqueeze(paddle.clip(position, min=0), 1)
    own = paddle.squeeze(paddle.take_along_axis(cosine, column, 1), 1) * paddle.cast(position >= 0, cosine.dtype)
    return compat.all_reduce(own, shard_world)


def top_k_accuracy(output: HeadOutput, k: int, divisor, shard_world: int):
    """Share of the features whose own class is among the k largest cosines (before the margin) of all rows. [1].

    Another class with the same cosine counts as larger: a net whose features are all zero has recognised nothing.
    """
    at_least = paddle.cast(output.logits >= paddle.unsqueeze(output.target, 1), "float32")  # the own class as well
    number = compat.all_reduce(paddle.sum(at_least, axis=1), shard_world)
    return paddle.reshape(paddle.sum(paddle.cast(number <= k, "float32")) / divisor, [1])
