"""The rows that take part in a step, worked on block by block.

A block of some thousand rows stays in the processor's cache while it is worked on, and only one block's intermediate
values exist at a time. A few blocks of a sample are written one after the other into the program: what was read or made
of a block is still there when it comes again. Otherwise they are a loop, an operation of the program (``while``), whose
size does not grow with the rows; it reads its rows anew each time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import paddle

from plsc import compat

# 4 MB of rows of 512 numbers: what the body of a loop reads and writes of them stays in the processor's cache
BLOCK_ROWS = 2048
# Not looped over; each has twice the rows, since what counts here is the number of operations. Up to 100 MB are kept.
FEW_BLOCKS = 4


@dataclass(frozen=True, eq=False)
class RowBlock:
    """Rows ``first`` .. ``end`` - 1 of those that take part: numbers, in a loop [1] int64 values, both None where the
    block is all of them.

    ``index`` [R] int64 says which rows of the shard they are, None: all.
    """

    first: Any
    end: Any
    index: Any

    @property
    def is_part(self) -> bool:
        """True where rows are worked on in blocks, and so on a CPU."""
        return self.first is not None

    def positions(self, position):
        """(``position`` [G] counted in this block, 0 where it is not in it; [G] bool: it is)."""
        if self.is_part:
            inside, local = paddle.logical_and(position >= self.first, position < self.end), position - self.first
        else:
            inside, local = position >= 0, position
        return paddle.where(inside, local, paddle.zeros_like(local)), inside


class RowBlocks:
    """``index`` [S] of all rows that take part (None: every row of the shard, ``count`` of them).

    ``block_rows`` None: one block of all, as GPUs work on them.
    """

    def __init__(self, index, count: int, block_rows: int | None):
        self.index = index
        self.block_rows = block_rows
        self.in_one = block_rows is None
        self.whole = RowBlock(None, None, index)  # the one block, if it is one
        total = count if index is None else length(index)
        if self.in_one:
            self._blocks = [self.whole]
        elif index is not None and isinstance(total, int) and total <= 2 * FEW_BLOCKS * block_rows:
            self._blocks = _few(index, total, 2 * block_rows)
        else:
            self._blocks = []  # a loop
            self._total = paddle.full([1], total, "int64") if isinstance(total, int) else total
            self._start = paddle.zeros([1], "int64")

    def each(self, body: Callable, carried: Sequence = ()) -> list:
        """Append ``carried = body(block, *carried)`` for each block. Returns what is carried last.

        What a body changes in place is seen by the bodies that come later over the same blocks.
        """
        if not self._blocks:
            return self._loop(body, carried)
        for block in self._blocks:
            carried = body(block, *carried)
        return list(carried)

    def _loop(self, body: Callable, carried: Sequence) -> list:
        def turn(first, *carried):
            end = paddle.minimum(first + self.block_rows, self._total)
            index = paddle.arange(first, end) if self.index is None else _piece(self.index, first, end)
            return [end, *body(RowBlock(first, end, index), *carried)]

        last, *carried = compat.while_loop(lambda first, *_: first < self._total, turn, [self._start, *carried])
        self._start = last - self._total  # 0, and known only when this loop has ended: the next one waits for it
        return carried

    def store(self, width):
        """Room for one value [width] of each row, float32."""
        return _Kept() if self._blocks else _Buffer(self._total, width)


def _few(index, total: int, most: int) -> list[RowBlock]:
    """Blocks of about the same size, at most ``most`` rows."""
    number = -(-total // most)
    bounds = [total * block // number for block in range(number + 1)]
    return [RowBlock(first, end, index[first:end]) for first, end in zip(bounds, bounds[1:])]


class _Buffer:
    """[S, width] in memory, written in place."""

    def __init__(self, total, width):
        self.values = _zeros([total, width], "float32")

    def put(self, block: RowBlock, values) -> None:
        compat.scatter_rows_(self.values, paddle.arange(block.first, block.end), values)

    def get(self, block: RowBlock):
        return _piece(self.values, block.first, block.end)


class _Kept:
    """The values themselves."""

    def __init__(self):
        self._values: dict[RowBlock, Any] = {}

    def put(self, block: RowBlock, values) -> None:
        self._values[block] = values

    def get(self, block: RowBlock):
        return self._values[block]


def length(value):
    """n of ``value`` [n, ...] as a [1] int64 value, or as a number where it is known while building."""
    return value.shape[0] if value.shape[0] > 0 else paddle.cast(paddle.shape(value)[:1], "int64")


def _zeros(shape: list, dtype: str):
    """Zeros whose sizes are numbers or [1] int64 values."""
    return paddle.zeros([size if isinstance(size, int) else paddle.reshape(size, []) for size in shape], dtype)


def _piece(value, first, end):
    """value[first:end] of [n, ...]; [1] int64 values."""
    return paddle.slice(value, [0], [first], [end])
