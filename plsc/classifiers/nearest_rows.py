"""The rows of a step with the largest cosines with each feature, the target class left out, block by block of rows."""

from __future__ import annotations

import math
from typing import Any

import paddle

from plsc.classifiers.head import LOWEST
from plsc.rows.blocks import RowBlock

FEW = 256  # rows that are searched as they are


class NearestRows:
    """The ``count`` largest cosines of each feature, and the positions of their rows among those of the step.

    Both are [count, G], the largest first; ``start`` is what they are before the first block.
    """

    def __init__(self, count: int):
        self.count = count

    def start(self, per_feature) -> list:
        """[cosines float32, positions int64] [count, G] of no row, for ``per_feature`` [G]."""
        zeros = paddle.expand(paddle.unsqueeze(paddle.zeros_like(per_feature), 0), [self.count, -1])
        return [zeros + LOWEST, paddle.cast(zeros, "int64")]

    def merge(self, block: RowBlock, others, values, positions) -> list:
        """``values`` and ``positions`` with the rows of ``block``, whose cosines are ``others`` [R, G]."""
        found, rows = largest(others, self.count)
        first = 0 if block.first is None else block.first
        return choose(self.count, paddle.concat([values, found]), paddle.concat([positions, rows + first]))


def choose(count: int, values, numbers) -> list:
    """The ``count`` largest of ``values`` [n, G] in each column, and what ``numbers`` [n, G] has in their places."""
    best, at = paddle.topk(values, count, axis=0)
    return [best, paddle.take_along_axis(numbers, at, 0)]


def largest(values, count: int) -> tuple[Any, Any]:
    """(the ``count`` largest of ``values`` [R, G] in each column, or R where there are fewer rows; their rows int64).

    ``topk`` over many rows takes several times as long as a maximum. So the rows are put into groups, of which the
    maxima are taken: the ``count`` largest numbers lie in the ``count`` groups with the largest maxima.
    """
    num_rows = values.shape[0]
    if num_rows < 0:  # the last block of a loop may have fewer than `count`
        size = paddle.minimum(paddle.shape(values)[0], paddle.full([], count, paddle.shape(values).dtype))
        return tuple(paddle.topk(values, size, axis=0))
    if num_rows <= max(FEW, 4 * count):
        return tuple(paddle.topk(values, min(count, num_rows), axis=0))
    halvings = int(math.log2(math.sqrt(num_rows / count)))
    num_groups, per_group = num_rows >> halvings, 1 << halvings
    maxima = values[: num_groups * per_group]
    for _ in range(halvings):
        half = maxima.shape[0] // 2
        maxima = paddle.maximum(maxima[:half], maxima[half:])
    _, group = paddle.topk(maxima, count, axis=0)
    rest = paddle.arange(num_groups * per_group, num_rows, dtype="int64")  # of the division, fewer than a group
    rows = paddle.concat(
        [group + number * num_groups for number in range(per_group)]
        + [paddle.expand(paddle.unsqueeze(rest, 1), [-1, values.shape[1]])] * (rest.shape[0] > 0)
    )
    best, at = paddle.topk(paddle.take_along_axis(values, rows, 0), count, axis=0)
    return best, paddle.take_along_axis(rows, at, 0)
