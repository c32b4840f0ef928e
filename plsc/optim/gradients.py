"""Gradients between the backward pass and the update: summed over the ranks, clipped."""

from __future__ import annotations

import contextlib
import math

import paddle

from plsc.backend import collectives, static

# The minimum size of a bucket, as in PyTorch (bucket_cap_mb of DistributedDataParallel): large enough that sending
# takes longer than starting a collective, and small enough that most of a ResNet50's 174 MB is sent during the backward
# pass.
BUCKET_BYTES = 25_000_000


def all_reduce_in_buckets(
    gradients: list, statistics: list, world_size: int, on_gpu: bool, bucket_bytes: int = BUCKET_BYTES
) -> tuple[list, list]:
    """(sum of each gradient, mean of each statistic) over the ranks, by one all-reduce of a flat buffer per bucket.

    Each all-reduce is inserted directly after the operation that computes the last gradient of its bucket, before the
    backward pass of the remaining layers; on a GPU it overlaps with them. The sums are split at the end of the program,
    because an operation that waits for a sum must not precede that backward pass. The running statistics of batch
    normalisation are in the last bucket, so that all replicated state is the same on every rank after every step.
    """
    if world_size == 1:
        return gradients, statistics
    order = static.operation_indices(gradients)
    buckets = group_into_buckets([4 * math.prod(value.shape) for value in gradients], order, bucket_bytes)
    values = [[gradients[number] for number in bucket] for bucket in buckets]
    values[-1] += statistics
    totals = []
    for bucket, members in reversed(list(zip(buckets, values))):  # from the end, so that ``order`` stays valid
        last = max((order[number] for number in bucket), default=None)
        with contextlib.nullcontext() if last is None else static.insert_after(last):
            flat = paddle.concat([paddle.reshape(value, [-1]) for value in members]) if members else None
            totals.append(collectives.all_reduce_overlapped(flat, world_size, on_gpu))
    pieces = [_split_like(total, members) for total, members in zip(reversed(totals), values)]
    whole = {number: piece for bucket, parts in zip(buckets, pieces) for number, piece in zip(bucket, parts)}
    means = [total / world_size for total in pieces[-1][len(buckets[-1]) :]]
    return [whole[number] for number in range(len(gradients))], means


def group_into_buckets(sizes: list[int], order: list[int], min_bytes: int) -> list[list[int]]:
    """The numbers 0, 1, ... of all gradients, sorted by ``order``, in buckets of at least ``min_bytes``.

    A bucket ends with the gradient that fills it, whatever its size; the last bucket may be smaller.
    """
    buckets: list[list[int]] = [[]]
    filled = 0
    for number in sorted(range(len(sizes)), key=lambda number: order[number]):
        if filled >= min_bytes:
            buckets.append([])
            filled = 0
        buckets[-1].append(number)
        filled += sizes[number]
    return buckets


def _split_like(total, members: list) -> list:
    """The flat ``total``, split into arrays with the shapes of ``members``."""
    pieces = paddle.split(total, [math.prod(value.shape) for value in members])
    return [paddle.reshape(piece, list(value.shape)) for piece, value in zip(pieces, members)]


def clip_by_global_norm(replicated: list, sharded, limit: float, shard_world: int):
    """Scale all gradients by min(1, limit / norm); returns (replicated, sharded).

    The norm is that of ``replicated`` (the same on every rank, counted once) and ``sharded`` (a
    plsc.rows.gradients.RowGradients), of which each of the ``shard_world`` ranks holds a part.
    """
    square = collectives.all_reduce(sharded.sum(_square), shard_world)
    for gradient in replicated:
        square = square + _square(gradient)
    factor = limit / paddle.maximum(paddle.sqrt(square), paddle.full([1], limit, "float32"))
    return [gradient * factor for gradient in replicated], sharded.map(lambda gradient: gradient * factor)


def _square(gradient):
    return paddle.reshape(paddle.sum(gradient * gradient), [1])
