"""Which rows of the shard take part in a step (Partial FC, An et al. 2021, section 3.2), in plain operations.

The sample holds every class of the global batch that the shard owns (the positives), and then rows that the caller
names (plsc.classifiers.hard_negatives). The rest is drawn uniformly without replacement: it is the start of a
permutation that is a function of (seed, rank, step), the same on every machine and every version of Paddle. There is no
generator whose state would have to be saved. A permutation has no duplicates, so nothing is sorted or searched; its
inverse gives the positions of the rows that are taken already, which are removed from it. The cost depends on the size
of the sample, not on that of the shard.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle

from plsc.backend import collectives, ops

MASK = 0xFFFFFFFF
MULTIPLIER = 0x119DE1F3  # odd, and below 2**31, so that the product with 32 bits stays within int64
ROUNDS = 4
MIN_BITS = 16  # of the permuted numbers: with fewer bits there would be too few permutations


@dataclass(frozen=True)
class ShardLabels:
    """Labels [n] relative to a shard. ``row`` int64: the label minus the first class of the shard. ``owned`` bool:
    whether the label is one of its classes."""

    row: Any
    owned: Any


@dataclass(frozen=True)
class SampleOptions:
    """Size and random numbers of a sample: at least ``num_sample`` of ``num_local`` rows. ``step`` [1] int64 and
    ``key`` (see stream_key) select the random numbers. ``num_hard``: the most rows of ``hard`` in sample_rows."""

    num_local: int
    num_sample: int
    step: Any
    key: int
    num_hard: int = 0


def labels_in(label, first: int, num_local: int) -> ShardLabels:
    """``label`` [n] int64 relative to the shard of the classes first .. first + num_local - 1."""
    row = label - first
    return ShardLabels(row, paddle.logical_and(row >= 0, row < num_local))


def num_sample(num_local: int, sample_ratio: float) -> int:
    """Rows that a shard of ``num_local`` classes samples, at least 1."""
    return max(1, min(num_local, int(sample_ratio * num_local)))


def mix(x, bits: int = 32, keys=(0, 0)):
    """A bijection of the numbers of ``bits`` bits (at most 32) that scrambles them, with one round for each key.

    ``x`` int64 in [0, 2**bits) and the keys: numbers, NumPy arrays or static values.
    """
    xor, low_bits, constant = _bit_operations(x, bits)
    half, multiplier = constant(1 << (bits + 1) // 2), constant(MULTIPLIER)
    for key in keys:
        x = xor(x, key)
        x = low_bits(xor(x, x // half) * multiplier)
    return xor(x, x // half)


def unmix(x, bits: int, keys):
    """The inverse of ``mix``. (``x xor its upper half`` is its own inverse.)"""
    xor, low_bits, constant = _bit_operations(x, bits)
    half, inverse = constant(1 << (bits + 1) // 2), constant(pow(MULTIPLIER, -1, 1 << bits))
    x = xor(x, x // half)
    for key in reversed(keys):
        x = low_bits(x * inverse)
        x = xor(xor(x, x // half), key)
    return x


def _bit_operations(x, bits: int):
    """(xor, keep the lowest bits, make a constant) for NumPy or for static values."""
    mask = (1 << bits) - 1
    if isinstance(x, (int, np.ndarray, np.integer)):
        return np.bitwise_xor, lambda value: value & np.int64(mask), np.int64

    def xor(left, right):
        if isinstance(right, int):
            return left if right == 0 else paddle.bitwise_xor(left, _int64(right))
        return paddle.bitwise_xor(left, right)

    low = _int64(mask)
    return xor, lambda value: paddle.bitwise_and(value, low), _int64


def stream_key(seed: int, rank: int) -> int:
    """32 bits that identify the random numbers of one shard of one run."""
    return int(mix(np.int64(int(mix(np.int64(seed & MASK))) ^ rank)))


def sample_rows(
    batch: ShardLabels, queries: ShardLabels, options: SampleOptions, hard: ShardLabels | None = None
) -> tuple:
    """(index, position). ``index`` [S] int64: distinct rows of the shard, the positives first; S = num_sample, or the
    number of positives where there are more.

    ``hard`` [H]: rows that follow the positives, up to ``options.num_hard`` of those that are no positives, in this
    order; it may name a row more than once.

    ``batch``: the labels of the global batch [G]. ``position`` [n] int64: the position in ``index`` of each label of
    ``queries`` [n], which are labels of the batch; -1 where the shard does not own it.
    """
    num_local, num_sample = options.num_local, options.num_sample
    positives = paddle.sort(paddle.where(batch.owned, batch.row, paddle.full_like(batch.row, num_local)))
    previous = paddle.concat([paddle.full([1], -1, "int64"), positives[:-1]])
    is_first = paddle.logical_and(positives != previous, positives < num_local)
    taken, wanted, is_taken = positives, [], []
    if hard is not None:
        rows, chosen = _choose_hard(positives, hard, options)
        taken, wanted, is_taken = paddle.concat([positives, rows]), [rows], [chosen]
    drawn = _draw(options, taken)
    candidates = paddle.concat([positives, *wanted, drawn])
    counts = paddle.concat([is_first, *is_taken, drawn < num_local])
    number = paddle.cumsum(paddle.cast(counts, "int64"))
    num_positive = paddle.sum(paddle.cast(is_first, "int64"), keepdim=True)
    size = paddle.maximum(paddle.reshape(num_positive, [1]), _int64(num_sample))
    index = paddle.masked_select(candidates, paddle.logical_and(counts, number <= size))
    if 0 <= batch.row.shape[0] <= num_sample:
        index = paddle.reshape(index, [num_sample])  # there cannot be more positives, so S is known at build time
    rows = paddle.where(queries.owned, queries.row, paddle.zeros_like(queries.row))
    position = paddle.gather(number, paddle.searchsorted(positives, rows)) - 1
    return index, paddle.where(queries.owned, position, paddle.full_like(queries.row, -1))


def _choose_hard(positives, hard: ShardLabels, options: SampleOptions) -> tuple:
    """([H] int64: rows of the shard, num_local for those that are not chosen; [H] bool: whether they are chosen)."""
    none = paddle.full_like(hard.row, options.num_local)
    row = paddle.where(hard.owned, hard.row, none)
    at = paddle.minimum(paddle.searchsorted(positives, row), _int64(positives.shape[0] - 1))
    row = paddle.where(paddle.gather(positives, at) == row, none, row)
    place = paddle.arange(row.shape[0], dtype="int64")
    is_new = paddle.logical_and(first_of_same(row) == place, row < options.num_local)
    before = paddle.cumsum(paddle.cast(is_new, "int64"))
    chosen = paddle.logical_and(is_new, before <= _int64(options.num_hard))
    return paddle.where(chosen, row, none), chosen


def first_of_same(numbers):
    """For each of ``numbers`` [n] int64, below 2**32, the place of the first that is the same, [n] int64."""
    size = _int64(numbers.shape[0])
    begins = numbers * size
    keys = paddle.sort(begins + paddle.arange(numbers.shape[0], dtype="int64"))  # by number, then by place
    return paddle.remainder(paddle.gather(keys, paddle.searchsorted(keys, begins)), size)


def _draw(options: SampleOptions, positives):
    """The start of a permutation of [0, 2**bits), [D] int64. With a probability above 1 - 1e-15 at least num_sample of
    the numbers are rows of the shard. Numbers that are no row, or one of ``positives`` (rows that have been taken), are
    replaced by num_local."""
    num_local, num_sample = options.num_local, options.num_sample
    bits = max(MIN_BITS, (num_local - 1).bit_length())
    needed = num_sample + 8.0 * math.sqrt(num_sample) + 32.0  # eight standard deviations, and more for small numbers
    count = min(1 << bits, math.ceil(needed * (1 << bits) / num_local))
    step_key = _step_key(options.step, options.key)
    keys = [paddle.bitwise_and(mix(step_key, keys=(turn,)), _int64((1 << bits) - 1)) for turn in range(1, ROUNDS + 1)]
    drawn = mix(paddle.arange(count, dtype="int64"), bits, keys)
    # a number that is no row is written past the end; several may go there, all with the same value
    is_row = positives < num_local
    position = unmix(paddle.where(is_row, positives, paddle.zeros_like(positives)), bits, keys)
    position = paddle.where(paddle.logical_and(is_row, position < count), position, paddle.full_like(position, count))
    drawn = paddle.concat([drawn, paddle.full([1], num_local, "int64")])
    return paddle.scatter(drawn, position, paddle.full_like(position, num_local))


def _step_key(step, key: int):
    return mix(paddle.bitwise_xor(paddle.bitwise_and(step, _int64(MASK)), _int64(key)))


def uniform(index, step, key: int):
    """[n] float64, uniform in (0, 1): a function of ``index`` [n] int64, below 2**32, ``step`` [1] and ``key``."""
    step_key = _step_key(step, key)
    drawn = mix(index, keys=[mix(step_key, keys=(turn,)) for turn in range(1, ROUNDS + 1)])
    return (paddle.cast(drawn, "float64") + 0.5) / float(1 << 32)


def _int64(number: int):
    return paddle.full([1], number, dtype="int64")


def sample_with_kernel(batch: ShardLabels, options: SampleOptions):
    """``index`` of sample_rows by the kernel ``class_center_sample``, which uses Paddle's generator; in any order."""
    # The kernel treats every label as one of the shard. A label of another shard is replaced by one of this shard, or,
    # where the batch has none, by a row drawn uniformly, so that no row is preferred.
    row, num_local = batch.row, options.num_local
    largest = paddle.max(paddle.where(batch.owned, row, paddle.full_like(row, -1)), axis=0, keepdim=True)
    drawn = mix(_step_key(options.step, options.key)) * _int64(num_local) // _int64(1 << 32)
    replacement = paddle.where(largest < 0, drawn, largest)
    positives = paddle.where(batch.owned, row, paddle.expand_as(replacement, row))
    return ops.class_center_sample(positives, num_local, options.num_sample)


def labels_over_ranks(position, index, rank: int, world_size: int):
    """``position`` (see positions) counted over the sampled rows of all ranks, as ``margin_cross_entropy`` expects.

    [G] int64. A label of another rank becomes a number outside of this rank's rows, which is all the kernel checks.
    """
    if world_size == 1:
        return position
    num_rows = paddle.cast(paddle.shape(index)[:1], "int64")
    counts = collectives.all_gather(num_rows, world_size)
    first = paddle.sum(counts[:rank], keepdim=True) if rank > 0 else paddle.zeros_like(num_rows)
    row_of_next_rank = paddle.remainder(first + num_rows, paddle.sum(counts, keepdim=True))
    return paddle.where(position >= 0, position + first, paddle.expand_as(row_of_next_rank, position))


def positions(index, labels: ShardLabels):
    """The position in ``index`` [S] (any order) of each label, -1 where the shard does not own it. [G] int64."""
    row = labels.row
    order = paddle.argsort(index)
    ordered = paddle.gather(index, order)
    nearest = paddle.searchsorted(ordered, paddle.where(labels.owned, row, paddle.zeros_like(row)))
    nearest = paddle.minimum(nearest, paddle.shape(index)[:1].astype("int64") - 1)
    found = paddle.logical_and(labels.owned, paddle.gather(ordered, nearest) == row)
    return paddle.where(found, paddle.gather(order, nearest), paddle.full_like(row, -1))
