"""What the two heads share: their result, inverse norms, the accuracy before the margin.

A head computes the loss and its true gradients from features, rows of class centres and labels. There are two, which
compute the same: ``PlainHead`` uses ordinary operations and runs on any device, block by block of rows; ``gpu_head``
uses Paddle's kernel ``margin_cross_entropy``, which exists for GPUs only. Both compute gradients with respect to
features and rows as leaves; no collective is differentiated.

G features, E embedding, S rows, R rows of a block. With ``shard_world`` > 1 the rows are one rank's part of the classes
and the features are those of all ranks; the softmax then runs over the rows of all ranks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import paddle

from plsc.rows.gradients import RowGradients

LOWEST = -3e38  # about the lowest float32: below every cosine and logit
ZERO_NORM = 1e-6  # a shorter vector is treated as zero: its cosines are 0 and it gets no gradient


@dataclass(frozen=True)
class HeadOutput:
    """Static values of one step.

    ``loss`` [1]: mean of the negative log-likelihoods of the global batch, the same on all ranks that share the
    classes. ``dfeature`` [G, E]: this shard's contribution to d loss / d feature (sum it over the ranks).
    ``row_gradients`` is None where the rows have been updated already or are frozen.
    ``num_larger`` [G] float32, or None: how many of the shard's rows have at least the cosine of the target class,
    before the margin; the target class is counted too. ``nearest``: of plsc.classifiers.nearest_rows, if asked for.
    ``states``: [(state of the loss, its next value)] that follow from the gradient.
    """

    loss: Any
    dfeature: Any
    row_gradients: RowGradients | None
    num_larger: Any
    nearest: list | None = None
    states: list[tuple[Any, Any]] = field(default_factory=list)


def inverse_norm(x):
    """1 / |row| for each row of x [n, E] -> [n, 1]; 0 where |row| < ZERO_NORM."""
    return inverse_root(paddle.sum(x * x, axis=1, keepdim=True))


def inverse_root(square):
    """1 / |row| from |row|**2; NaN where the square is infinite (in float32 from a length of 1.8e19 on)."""
    not_zero = square > ZERO_NORM * ZERO_NORM
    one = paddle.ones_like(square)
    inverse = paddle.rsqrt(paddle.where(not_zero, square, one)) * paddle.cast(not_zero, square.dtype)
    return inverse + (square - square)  # inf - inf is NaN; without it an infinite row would count as one of length 0


def row_numbers(x):
    """0 .. n - 1 for x [n, ...], int64."""
    count = x.shape[0] if x.shape[0] > 0 else paddle.shape(x)[0]
    return paddle.arange(count, dtype="int64")


def top_k_accuracy(num_larger, k: int, divisor):
    """The fraction [1] of features whose target class has one of the k largest cosines (before the margin) of all rows.

    ``num_larger`` [G]: see HeadOutput, summed over the ranks that share the classes. Another class with the same cosine
    counts as larger, so a model whose features are all zero has an accuracy of 0.
    """
    return paddle.reshape(paddle.sum(paddle.cast(num_larger <= k, "float32")) / divisor, [1])
