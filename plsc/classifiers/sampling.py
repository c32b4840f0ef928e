"""Which rows of the shard take part in a step (Partial FC, An et al. 2021, section 3.2), in plain operations.

Every class of the global batch that the shard owns is in the sample; the rest is drawn uniformly without
replacement: the first numbers of a permutation that is a function of (seed, rank, step), the same on every machine and
Paddle, with no generator whose state would have to be saved. A permutation repeats nothing, so nothing has to be
sorted or searched; and as it can be turned round, it tells where it holds the positives, which are taken out of it.
The cost follows the sample, not the shard.
"""

from __future__ import annotations

import math

import numpy as np
import paddle

from plsc.backend import collectives, ops

MASK = 0xFFFFFFFF
MULTIPLIER = 0x119DE1F3  # odd, and below 2**31, so that the product with 32 bits stays within int64
ROUNDS = 4
FEWEST_BITS = 16  # of the numbers that are permuted: fewer would allow for few permutations


def num_sample(num_local: int, sample_ratio: float) -> int:
    """Rows that a shard of ``num_local`` classes samples, at least 1."""
    return max(1, min(num_local, int(sample_ratio * num_local)))


def mix(x, bits: int = 32, keys=(0, 0)):
    """A bijection of the numbers of ``bits`` bits (at most 32) that scatters them, with one round for each key.

    ``x`` int64 in [0, 2**bits) and the keys: numbers, NumPy arrays or static values.
    """
    xor, low_bits, constant = _operations(x, bits)
    half, multiplier = constant(1 << (bits + 1) // 2), constant(MULTIPLIER)
    for key in keys:
        x = xor(x, key)
        x = low_bits(xor(x, x // half) * multiplier)
    return xor(x, x // half)


def unmix(x, bits: int, keys):
    """What ``mix`` made ``x`` of. (x xor its upper half is turned round by doing it again.)"""
    xor, low_bits, constant = _operations(x, bits)
    half, inverse = constant(1 << (bits + 1) // 2), constant(pow(MULTIPLIER, -1, 1 << bits))
    x = xor(x, x // half)
    for key in reversed(keys):
        x = low_bits(x * inverse)
        x = xor(xor(x, x // half), key)
    return x


def _operations(x, bits: int):
    """(xor, the lowest bits, a constant) for NumPy or for static values."""
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
    """32 bits that name the stream of draws of one shard of one run."""
    return int(mix(np.int64(int(mix(np.int64(seed & MASK))) ^ rank)))


def sample_rows(local, owned, own_local, own_owned, num_local: int, num_sample: int, step, key: int):
    """(index, position). ``index`` [S] int64: distinct rows of the shard, the positives first; S = num_sample, or the
    number of positives where there are more.

    ``local`` [G] int64: label minus the first class of the shard; ``owned`` [G] bool: the label is one of the
    shard's. ``position`` [B] int64: where each of ``own_local`` (labels out of ``local``, with ``own_owned``) stands in
    the index, -1 where it is not the shard's. ``step`` [1] int64 and ``key`` (see stream_key) choose the draws.
    """
    positives = paddle.sort(paddle.where(owned, local, paddle.full_like(local, num_local)))
    previous = paddle.concat([paddle.full([1], -1, "int64"), positives[:-1]])
    is_first = paddle.logical_and(positives != previous, positives < num_local)
    drawn = _draw(num_local, num_sample, step, key, positives)
    candidates = paddle.concat([positives, drawn])
    counts = paddle.concat([is_first, drawn < num_local])
    number = paddle.cumsum(paddle.cast(counts, "int64"))
    num_positive = paddle.sum(paddle.cast(is_first, "int64"), keepdim=True)
    size = paddle.maximum(paddle.reshape(num_positive, [1]), _int64(num_sample))
    index = paddle.masked_select(candidates, paddle.logical_and(counts, number <= size))
    if 0 <= local.shape[0] <= num_sample:
        index = paddle.reshape(index, [num_sample])  # there cannot be more positives: S is known while building
    wanted = paddle.where(own_owned, own_local, paddle.zeros_like(own_local))
    position = paddle.gather(number, paddle.searchsorted(positives, wanted)) - 1
    return index, paddle.where(own_owned, position, paddle.full_like(own_local, -1))


def _draw(num_local: int, num_sample: int, step, key: int, positives):
    """The first numbers of a permutation of [0, 2**bits) [D] int64: num_sample of them are rows of the shard with a
    probability above 1 - 1e-15. Those that are not, or are one of ``positives``, are num_local or more."""
    bits = max(FEWEST_BITS, (num_local - 1).bit_length())
    wanted = num_sample + 8.0 * math.sqrt(num_sample) + 32.0  # eight standard deviations, and some for small numbers
    count = min(1 << bits, math.ceil(wanted * (1 << bits) / num_local))
    step_key = _step_key(step, key)
    keys = [paddle.bitwise_and(mix(step_key, keys=(turn,)), _int64((1 << bits) - 1)) for turn in range(1, ROUNDS + 1)]
    drawn = mix(paddle.arange(count, dtype="int64"), bits, keys)
    # what is no row has its place behind the last number; several may share it, they all write the same
    is_row = positives < num_local
    place = unmix(paddle.where(is_row, positives, paddle.zeros_like(positives)), bits, keys)
    place = paddle.where(paddle.logical_and(is_row, place < count), place, paddle.full_like(place, count))
    drawn = paddle.concat([drawn, paddle.full([1], num_local, "int64")])
    return paddle.scatter(drawn, place, paddle.full_like(place, num_local))


def _step_key(step, key: int):
    return mix(paddle.bitwise_xor(paddle.bitwise_and(step, _int64(MASK)), _int64(key)))


def uniform(index, step, key: int):
    """[n] float64, uniform in (0, 1): a function of ``index`` [n] int64, below 2**32, ``step`` [1] and ``key``."""
    step_key = _step_key(step, key)
    drawn = mix(index, keys=[mix(step_key, keys=(turn,)) for turn in range(1, ROUNDS + 1)])
    return (paddle.cast(drawn, "float64") + 0.5) / float(1 << 32)


def _int64(number: int):
    return paddle.full([1], number, dtype="int64")


def sample_with_kernel(local, owned, num_local: int, num_sample: int, step, key: int):
    """The same by ``class_center_sample``, with the draws of Paddle's generator; the rows are in any order."""
    # the kernel takes every label for one of the shard: those that are not stand for one that is, or, where the
    # batch has none, for a row drawn uniformly, so that no row is favoured
    largest = paddle.max(paddle.where(owned, local, paddle.full_like(local, -1)), axis=0, keepdim=True)
    drawn = mix(_step_key(step, key)) * _int64(num_local) // _int64(1 << 32)
    stand_in = paddle.where(largest < 0, drawn, largest)
    positives = paddle.where(owned, local, paddle.expand_as(stand_in, local))
    return ops.class_center_sample(positives, num_local, num_sample)


def labels_over_ranks(position, index, rank: int, world_size: int):
    """``position`` (see positions) counted through the sampled rows of all ranks, as ``margin_cross_entropy`` does.

    [G] int64. A label that another rank owns becomes a number outside of this rank's rows: the kernel looks no further.
    """
    if world_size == 1:
        return position
    own = paddle.cast(paddle.shape(index)[:1], "int64")
    counts = collectives.all_gather(own, world_size)
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
