"""Which rows of the shard take part in a step (Partial FC, An et al. 2021, section 3.2), in plain operations.

Every class of the global batch that the shard owns is in the sample; the rest is drawn uniformly without
replacement. The draws are a hash of (seed, rank, step, position): the same on every machine and Paddle, with
no generator whose state would have to be saved. The cost follows the sample, not the shard.
"""

from __future__ import annotations

import math

import numpy as np
import paddle

from plsc import compat

MASK = 0xFFFFFFFF
MULTIPLIER = 0x119DE1F3  # below 2**31, so that the product with 32 bits stays within int64


def num_sample(num_local: int, sample_ratio: float) -> int:
    """Rows that a shard of ``num_local`` classes samples, at least 1."""
    return max(1, min(num_local, int(sample_ratio * num_local)))


def mix(x):
    """A bijection of 32-bit numbers that scatters them: int64 values in [0, 2**32), NumPy arrays or static values."""
    if isinstance(x, (int, np.ndarray, np.integer)):
        xor, mod = np.bitwise_xor, np.bitwise_and
    else:
        xor, mod = paddle.bitwise_xor, paddle.bitwise_and
    constant = _constant_like(x)
    for _ in range(2):
        x = mod(xor(x, x // constant(65536)) * constant(MULTIPLIER), constant(MASK))
    return xor(x, x // constant(65536))


def _constant_like(x):
    if isinstance(x, (int, np.ndarray, np.integer)):
        return np.int64
    return lambda number: paddle.full([1], number, dtype="int64")


def stream_key(seed: int, rank: int) -> int:
    """32 bits that name the stream of draws of one shard of one run."""
    return int(mix(np.int64(int(mix(np.int64(seed & MASK))) ^ rank)))


def sample_rows(local, owned, num_local: int, num_sample: int, step, key: int):
    """Sorted distinct rows [S] int64 of the shard; S = num_sample, or more where the positives alone are more.

    ``local`` [G] int64: label minus the first class of the shard; ``owned`` [G] bool: the label is one of the
    shard's. ``step`` [1] int64 and ``key`` (see stream_key) choose the draws.
    """
    draws = _draw(num_local, num_sample, step, key)
    # a label that the shard does not own stands for the first draw, which is in the sample anyhow
    positives = paddle.where(owned, local, paddle.expand_as(draws[:1], local))
    # the tail guarantees num_sample distinct values; it is reached with a probability below 1e-9
    tail = paddle.arange(num_sample, dtype="int64")
    candidates = paddle.concat([positives, draws, tail])
    _, first_seen = paddle.unique(candidates, return_index=True)
    rows = paddle.gather(candidates, first_seen)  # not unique's own values: Paddle 3.3 declares them float32
    num_positive = paddle.sum(paddle.cast(first_seen < paddle.shape(local)[:1].astype("int64"), "int64"), keepdim=True)
    keep = paddle.maximum(num_positive.reshape([1]), paddle.full([1], num_sample, dtype="int64"))
    last = paddle.gather(paddle.sort(first_seen), keep - 1)
    return paddle.masked_select(rows, first_seen <= last)


def _draw(num_local: int, num_sample: int, step, key: int):
    """Numbers in [0, num_local), int64: num_sample distinct ones among them, with a probability above 1 - 1e-9."""
    wanted = num_sample + 6.0 * math.sqrt(num_sample) + 6.0
    step_key = _step_key(step, key)
    if wanted > num_local / 2:  # most of the shard: a permutation of it is as cheap
        numbers = paddle.bitwise_xor(paddle.arange(num_local, dtype="int64"), step_key)
        return paddle.argsort(mix(numbers))
    # r distinct of n are expected from -n * log(1 - r / n) draws with replacement
    count = math.ceil(-num_local * math.log1p(-wanted / num_local))
    numbers = paddle.bitwise_xor(paddle.arange(count, dtype="int64"), step_key)
    return mix(numbers) * _int64(num_local) // _int64(1 << 32)


def _step_key(step, key: int):
    return mix(paddle.bitwise_xor(paddle.bitwise_and(step, _int64(MASK)), _int64(key)))


def _int64(number: int):
    return paddle.full([1], number, dtype="int64")


def sample_by_kernel(local, owned, num_local: int, num_sample: int, step, key: int):
    """The same by ``class_center_sample``, with the draws of Paddle's generator; the rows are in any order."""
    # the kernel takes every label for one of the shard: those that are not stand for one that is, or, where the
    # batch has none, for a row drawn uniformly, so that no row is favoured
    largest = paddle.max(paddle.where(owned, local, paddle.full_like(local, -1)), axis=0, keepdim=True)
    drawn = mix(_step_key(step, key)) * _int64(num_local) // _int64(1 << 32)
    stand_in = paddle.where(largest < 0, drawn, largest)
    positives = paddle.where(owned, local, paddle.expand_as(stand_in, local))
    return compat.class_center_sample(positives, num_local, num_sample)


def labels_over_ranks(position, index, rank: int, world_size: int):
    """``position`` (see positions) counted through the sampled rows of all ranks, as ``margin_cross_entropy`` does.

    [G] int64. A label that another rank owns becomes a number outside of this rank's rows: the kernel looks no further.
    """
    if world_size == 1:
        return position
    own = paddle.cast(paddle.shape(index)[:1], "int64")
    counts = compat.all_gather(own, world_size)
    first = paddle.sum(counts[:rank], keepdim=True) if rank > 0 else paddle.zeros_like(own)
    elsewhere = paddle.remainder(first + own, paddle.sum(counts, keepdim=True))
    return paddle.where(position >= 0, position + first, paddle.expand_as(elsewhere, position))


def positions(index, local, owned):
    """Where each owned label stands in ``index`` [S] (any order), -1 where it is not the shard's. [G] int64."""
    order = paddle.argsort(index)
    ranked = paddle.gather(index, order)
    place = paddle.searchsorted(ranked, paddle.where(owned, local, paddle.zeros_like(local)))
    place = paddle.minimum(place, paddle.shape(index)[:1].astype("int64") - 1)
    found = paddle.logical_and(owned, paddle.gather(ranked, place) == local)
    return paddle.where(found, paddle.gather(order, place), paddle.full_like(local, -1))
