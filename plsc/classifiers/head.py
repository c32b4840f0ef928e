"""What the two heads share: their result, directions of vectors, the accuracy before the margin.

A head goes from features, rows of class centres and labels to the loss and its true gradients. There are two with one
meaning: ``PlainHead`` writes loss and gradient out in ordinary operations and runs anywhere, block by block of rows;
``gpu_head`` uses Paddle's ``margin_cross_entropy`` kernel, which exists for GPUs only. Both end at leaves: no
collective is ever differentiated.

G features, E embedding, S rows, R rows of a block. With ``shard_world`` > 1 the rows are one rank's part of the classes
and the features are those of all ranks; the softmax then runs over the rows of all ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import paddle

from plsc.rows.gradients import RowGradients

ZERO_NORM = 1e-6  # a vector shorter than this has no direction: its cosines are 0 and it gets no gradient


@dataclass(frozen=True)
class HeadOutput:
    """Static values of one step.

    ``loss`` [1]: mean of the negative log-likelihoods of the global batch, the same on all ranks that share the
    classes. ``dfeature`` [G, E]: this shard's contribution to d loss / d feature (sum it over the ranks).
    ``row_gradients`` is None where the rows have been moved already.
    ``larger`` [G] float32, if asked for: how many of the shard's rows have at least the cosine of the own class,
    which is counted as well; before the margin.
    """

    loss: Any
    dfeature: Any
    row_gradients: RowGradients | None
    larger: Any


def inverse_norm(x):
    """1 / |row| for each row of x [n, E] -> [n, 1]; 0 where |row| < ZERO_NORM."""
    return inverse_root(paddle.sum(x * x, axis=1, keepdim=True))


def inverse_root(square):
    """1 / |row| from |row|**2; NaN where that is infinite: float32 squares end at a length of 1.8e19."""
    has_direction = square > ZERO_NORM * ZERO_NORM
    one = paddle.ones_like(square)
    inverse = paddle.rsqrt(paddle.where(has_direction, square, one)) * paddle.cast(has_direction, square.dtype)
    return inverse + (square - square)  # inf - inf is NaN: without it such a row would be taken for one of length 0


def row_numbers(x):
    """0 .. n - 1 for x [n, ...], int64."""
    count = x.shape[0] if x.shape[0] > 0 else paddle.shape(x)[0]
    return paddle.arange(count, dtype="int64")


def top_k_accuracy(larger, k: int, divisor):
    """Share of the features whose own class is among the k largest cosines (before the margin) of all rows. [1].

    ``larger`` [G]: see HeadOutput, summed over the ranks that share the classes. Another class with the same cosine
    counts as larger: a net whose features are all zero has recognised nothing.
    """
    return paddle.reshape(paddle.sum(paddle.cast(larger <= k, "float32")) / divisor, [1])
