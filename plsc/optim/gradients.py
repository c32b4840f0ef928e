"""Gradients between the backward pass and the update: summed over the ranks, clipped."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import paddle

from plsc.backend import collectives, static
from plsc.backend.half_precision import is_half

# The minimum size of a bucket, as in PyTorch (bucket_cap_mb of DistributedDataParallel): large enough that sending
# takes longer than starting a collective, and small enough that most of a ResNet50's 174 MB is sent during the backward
# pass.
BUCKET_BYTES = 25_000_000


@dataclass(frozen=True)
class Buckets:
    """Gradients in flat buffers, so that what is done to all of them is one operation for each buffer.

    ``values``: the buffers [n] float32, or the gradients themselves where these are not ``flat``. ``members``: for each
    buffer the numbers of the gradients in it, in their order. ``shapes``: of the gradients, by number.
    """

    values: list
    members: list[list[int]]
    shapes: list[list[int]]
    flat: bool = True

    @classmethod
    def of_one_each(cls, gradients: list) -> Buckets:
        """Each gradient as it is."""
        shapes = [list(value.shape) for value in gradients]
        return cls(gradients, [[number] for number in range(len(gradients))], shapes, flat=False)

    def map(self, change: Callable) -> Buckets:
        """Buckets with ``change`` applied to each buffer."""
        return replace(self, values=[change(value) for value in self.values])

    def apart(self) -> list:
        """Append the operations that split the buffers; returns the gradients by number."""
        if not self.flat:
            return self.values
        found = {}
        for value, numbers in zip(self.values, self.members):
            found.update(zip(numbers, _split_like(value, [self.shapes[number] for number in numbers])))
        return [found[number] for number in range(len(self.shapes))]


def all_reduce_in_buckets(
    gradients: list,
    statistics: list,
    world_size: int,
    on_gpu: bool,
    bucket_bytes: int = BUCKET_BYTES,
    always_flat: bool = False,
) -> tuple[Buckets, list]:
    """(sum of each gradient, mean of each statistic) over the ranks, by one all-reduce of a flat buffer per bucket.

    Each all-reduce is inserted directly after the operation that computes the last gradient of its bucket, before the
    backward pass of the remaining layers; on a GPU it overlaps with them. The sums are split at the end of the program,
    because an operation that waits for a sum must not precede that backward pass. The running statistics of batch
    normalisation are in the last bucket, so that all replicated state is the same on every rank after every step.

    ``always_flat``: buffers also where there is one rank, and so nothing to sum.
    """
    alone = world_size == 1
    if alone and not (always_flat and gradients):
        return Buckets.of_one_each(gradients), statistics
    order = static.operation_indices(gradients)
    buckets = group_into_buckets([4 * math.prod(value.shape) for value in gradients], order, bucket_bytes)
    # those in half precision first, so that they are cast as one
    buckets = [sorted(bucket, key=lambda number: not is_half(gradients[number])) for bucket in buckets]
    values = [[gradients[number] for number in bucket] for bucket in buckets]
    values[-1] += [] if alone else statistics
    totals = []
    for bucket, members in reversed(list(zip(buckets, values))):  # from the end, so that ``order`` stays valid
        last = max((order[number] for number in bucket), default=None)
        with contextlib.nullcontext() if last is None else static.insert_after(last):
            flat = _flat(members) if members else None
            totals.append(flat if alone else collectives.all_reduce_overlapped(flat, world_size, on_gpu))
    totals.reverse()
    whole = Buckets(totals, buckets, [list(value.shape) for value in gradients])
    return (whole, statistics) if alone else _without_statistics(whole, statistics, world_size)


def _flat(values: list):
    """``values``, those in half precision first, in one buffer [n] float32."""
    halves = [paddle.reshape(value, [-1]) for value in values if is_half(value)]
    singles = [paddle.reshape(value, [-1]) for value in values if not is_half(value)]
    if halves:
        singles = [paddle.cast(paddle.concat(halves), "float32"), *singles]
    return paddle.concat(singles) if len(singles) > 1 or not halves else singles[0]


def _without_statistics(buckets: Buckets, statistics: list, world_size: int) -> tuple[Buckets, list]:
    """(buckets, means over the ranks) of buckets whose last one ends with the sums of ``statistics``."""
    *others, last = buckets.values
    size = sum(math.prod(buckets.shapes[number]) for number in buckets.members[-1])
    own = [[size]] if size else []
    pieces = _split_like(last, own + [list(value.shape) for value in statistics])
    values = others + pieces[: len(own)]
    means = [total / world_size for total in pieces[len(own) :]]
    return replace(buckets, values=values, members=buckets.members[: len(values)]), means


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


def _split_like(total, shapes: list[list[int]]) -> list:
    """The flat ``total``, split into arrays with these shapes."""
    pieces = paddle.split(total, [math.prod(shape) for shape in shapes])
    return [piece if len(shape) == 1 else paddle.reshape(piece, shape) for piece, shape in zip(pieces, shapes)]


def clip_by_global_norm(replicated: Buckets, sharded, limit: float, shard_world: int):
    """Scale all gradients by min(1, limit / norm); returns (replicated, sharded).

    The norm is that of ``replicated`` (the same on every rank, counted once) and ``sharded`` (a
    plsc.rows.gradients.RowGradients, or None for frozen rows), of which each of the ``shard_world`` ranks holds a part.
    """
    square = paddle.zeros([1], "float32")
    if sharded is not None:
        square = collectives.all_reduce(sharded.sum(_square), shard_world)
    for gradients in replicated.values:
        square = square + _square(gradients)
    factor = limit / paddle.maximum(paddle.sqrt(square), paddle.full([1], limit, "float32"))
    rows = None if sharded is None else sharded.map(lambda gradient: gradient * factor)
    return replicated.map(lambda gradients: gradients * factor), rows


def _square(gradient):
    return paddle.reshape(paddle.sum(gradient * gradient), [1])
