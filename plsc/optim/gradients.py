"""What happens to gradients between the backward pass and the update: summed over the ranks, clipped."""

from __future__ import annotations

import math

import paddle

from plsc import compat


def all_reduce_together(gradients: list, statistics: list, world_size: int) -> tuple[list, list]:
    """(sum of each gradient, mean of each statistic) over the ranks, by one all-reduce of one flat buffer.

    The running statistics of batch normalisation travel along, so that all replicated state is the same on every
    rank after every step.
    """
    if world_size == 1:
        return gradients, statistics
    values = gradients + statistics
    if not values:  # a backbone without parameters
        return [], []
    shapes = [list(value.shape) for value in values]
    flat = paddle.concat([paddle.reshape(value, [-1]) for value in values])
    sizes = [math.prod(shape) for shape in shapes]
    pieces = paddle.split(compat.all_reduce(flat, world_size), sizes)
    whole = [paddle.reshape(piece, shape) for piece, shape in zip(pieces, shapes)]
    return whole[: len(gradients)], [value / world_size for value in whole[len(gradients) :]]


def clip_by_global_norm(replicated: list, sharded, limit: float, shard_world: int):
    """Scale all gradients by min(1, limit / norm); returns (replicated, sharded).

    The norm runs over ``replicated`` (the same on every rank, counted once) and ``sharded`` (a
    plsc.classifiers.RowGradients), of which each of the ``shard_world`` ranks holds a part.
    """
    square = compat.all_reduce(sharded.total(_square), shard_world)
    for gradient in replicated:
        square = square + _square(gradient)
    factor = limit / paddle.maximum(paddle.sqrt(square), paddle.full([1], limit, "float32"))
    return [gradient * factor for gradient in replicated], sharded.then(lambda gradient: gradient * factor)


def _square(gradient):
    return paddle.reshape(paddle.sum(gradient * gradient), [1])
