"""The rows that take part in a step, worked on block by block in loops of the program.

A block of some thousand rows stays in the processor's cache while it is worked on, and only one block's intermediate
values exist at a time. The loop is an operation of the program (``while``): its size does not grow with the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import paddle

from plsc import compat

# 4 MB of rows of 512 numbers: what a body reads and writes of them stays in the processor's cache
BLOCK_ROWS = 2048


@dataclass(frozen=True, eq=False)
class RowBlock:
    """Rows ``first`` .. ``end`` - 1 ([1] int64) of those that take part; both are None where the block is all of them.

    ``index`` [R] int64 says which rows of the shard they are, None: all.
    """

    first: Any
    end: Any
    index: Any

    def positions(self, position):
        """(``position`` [G] counted in this block, 0 where it is not in it; [G] bool: it is)."""
        if self.first is None:
            inside, local = position >= 0, position
        else:
            inside, local = paddle.logical_and(position >= self.first, position < self.end), position - self.first
        return paddle.where(inside, local, paddle.zeros_like(local)), inside


class RowBlocks:
    """``index`` [S] of all rows that take part (None: every row of the shard, ``count`` of them).

    ``count`` rows are sure to be there. ``block_rows`` None: one block of all, without a loop.
    """

    def __init__(self, index, count: int, block_rows: int | None):
        self.index = index
        self.block_rows = block_rows
        self.in_one = block_rows is None or count <= block_rows
        self.whole = RowBlock(None, None, index)  # the one block, if it is one
        if not self.in_one:
            self._total = paddle.full([1], count, "int64") if index is None else length(index)
            self._start = paddle.zeros([1], "int64")

    def each(self, body: Callable, carried: Sequence = ()) -> list:
        """Append the loop: ``carried = body(block, *carried)`` for each block, in order. Returns what is carried last.

        What a body changes in place is seen by the bodies of later loops over the same blocks.
        """
        if self.in_one:
            return list(body(self.whole, *carried))

        def turn(first, *carried):
            end = paddle.minimum(first + self.block_rows, self._total)
            index = paddle.arange(first, end) if self.index is None else _piece(self.index, first, end)
            return [end, *body(RowBlock(first, end, index), *carried)]

        last, *carried = compat.while_loop(lambda first, *_: first < self._total, turn, [self._start, *carried])
        self._start = last - self._total  # 0, and known only when this loop has ended: the next one waits for it
        return carried

    def store(self, width):
        """Room for one value [width] of each row, float32."""
        return _OneBlock() if self.in_one else _Buffer(self._total, width)


class _Buffer:
    """[S, width] in memory, written in place."""

    def __init__(self, total, width):
        self.values = _zeros([total, width], "float32")

    def put(self, block: RowBlock, values) -> None:
        compat.scatter_rows_(self.values, paddle.arange(block.first, block.end), values)

    def get(self, block: RowBlock):
        return _piece(self.values, block.first, block.end)


class _OneBlock:
    """The value itself, where one block is all."""

    def put(self, block: RowBlock, values) -> None:
        self.values = values

    def get(self, block: RowBlock):
        return self.values


def length(value):
    """n of ``value`` [n, ...] as a [1] int64 value, or as a number where it is known while building."""
    return value.shape[0] if value.shape[0] > 0 else paddle.cast(paddle.shape(value)[:1], "int64")


def _zeros(shape: list, dtype: str):
    """Zeros whose sizes are numbers or [1] int64 values."""
    return paddle.zeros([size if isinstance(size, int) else paddle.reshape(size, []) for size in shape], dtype)


def _piece(value, first, end):
    """value[first:end] of [n, ...]; [1] int64 values."""
    return paddle.slice(value, [0], [first], [end])
