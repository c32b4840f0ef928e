"""The rows that take part in a step, worked on block by block and piece by piece.

A block has one array of cosines, for the softmax; of the rows themselves one piece after the other is read, multiplied
and moved, as many as stay in the processor's cache meanwhile. A sample that is not large is one block of a few pieces,
written one after the other into the program: what was made of a piece is still there when it comes again. Otherwise
blocks of one piece are a loop, an operation of the program (``while``), whose size does not grow with the rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import paddle

from plsc.backend import ops

# 4 MB of rows of 512 numbers: what is read and written of them at a time stays in the processor's cache
BLOCK_ROWS = 2048
# a sample of up to 8 times as many is one block of pieces of that size, without a loop: up to 33 MB of rows are kept
FEW_BLOCKS = 8


@dataclass(frozen=True, eq=False)
class RowPiece:
    """Rows ``first`` .. ``end`` - 1 of those that take part (see RowBlock), piece ``number`` of its ``block``."""

    block: RowBlock
    number: int
    first: Any
    end: Any

    def select(self, values: list):
        """Of RowBlock.split this piece's."""
        return values[self.number]

    def positions(self, position):
        """(``position`` [G] counted in this piece, 0 where it is not in it; [G] bool: it is)."""
        return _local_positions(self, position)


class RowBlock:
    """Rows ``first`` .. ``end`` - 1 of those that take part: numbers, in a loop [1] int64 values, both None where the
    block is all of them.

    ``index`` [R] int64 says which rows of the shard they are, None: all. ``pieces`` is what they are worked on by, at
    most ``piece_rows`` at a time; None: all at once.
    """

    def __init__(self, first, end, index, piece_rows: int | None = None):
        self.first, self.end, self.index = first, end, index
        self._sizes = [None] if piece_rows is None else _even_sizes(end - first, piece_rows)
        self.pieces = [RowPiece(self, 0, first, end)]
        if len(self._sizes) > 1:
            ends = list(itertools.accumulate(self._sizes, initial=first))
            bounds = zip(range(len(self._sizes)), ends, ends[1:])
            self.pieces = [RowPiece(self, number, *piece) for number, *piece in bounds]

    @property
    def in_blocks(self) -> bool:
        """True where rows are worked on in blocks, and so on a CPU."""
        return self.first is not None

    def concat(self, values: list):
        """One array [R, ...] of those of the pieces."""
        return values[0] if len(values) == 1 else paddle.concat(values)

    def split(self, values) -> list:
        """Of ``values`` [R, ...] those of each piece."""
        return [values] if len(self.pieces) == 1 else paddle.split(values, self._sizes)

    def positions(self, position):
        """(``position`` [G] counted in this block, 0 where it is not in it; [G] bool: it is)."""
        return _local_positions(self, position)


class RowBlocks:
    """``index`` [S] of all rows that take part (None: every row of the shard, ``count`` of them).

    ``block_rows`` None: one block of all, in one piece, as GPUs work on them.
    """

    def __init__(self, index, count: int, block_rows: int | None):
        self.index = index
        self.block_rows = block_rows
        total = count if index is None else length(index)
        self._only = None  # the one block, if it is one
        if block_rows is None:
            self._only = RowBlock(None, None, index)
        elif index is not None and isinstance(total, int) and total <= FEW_BLOCKS * block_rows:
            self._only = RowBlock(0, total, index, block_rows)
        else:  # a loop
            self._total = paddle.full([1], total, "int64") if isinstance(total, int) else total
            self._start = paddle.zeros([1], "int64")

    @property
    def only_piece(self) -> RowPiece:
        """All rows, where they are one block of one piece."""
        (piece,) = self._only.pieces
        return piece

    def piece_at(self, position) -> RowPiece:
        """The rows at ``position`` [G] int64 of those that take part, some of them several times; -1 stands for any."""
        place = paddle.clip(position, min=0)
        (piece,) = RowBlock(0, None, place if self.index is None else paddle.gather(self.index, place)).pieces
        return piece

    @property
    def is_single(self) -> bool:
        """True where there is no loop: what a body made is still there when the next one goes over the same blocks."""
        return self._only is not None

    def for_each(self, body: Callable, carried: Sequence = ()) -> list:
        """Append ``carried = body(block, *carried)`` for each block. Returns what is carried last.

        What a body changes in place is seen by the bodies that come later over the same blocks.
        """
        if self.is_single:
            return list(body(self._only, *carried))

        def turn(first, *carried):
            end = paddle.minimum(first + self.block_rows, self._total)
            index = paddle.arange(first, end) if self.index is None else _slice(self.index, first, end)
            return [end, *body(RowBlock(first, end, index), *carried)]

        last, *carried = ops.while_loop(lambda first, *_: first < self._total, turn, [self._start, *carried])
        self._start = last - self._total  # 0, and known only when this loop has ended: the next one waits for it
        return carried

    def for_each_piece(self, body: Callable, carried: Sequence = ()) -> list:
        """``for_each`` with ``carried = body(piece, *carried)`` for each piece of a block."""

        def all_pieces(block, *carried):
            for piece in block.pieces:
                carried = body(piece, *carried)
            return carried

        return self.for_each(all_pieces, carried)

    def buffer(self, width):
        """Room for one value [width] of each row, float32."""
        return _ValueStore() if self.is_single else _ArrayStore(self._total, width)


def _local_positions(rows: RowBlock | RowPiece, position):
    """See ``positions`` of both."""
    if rows.first is None:
        inside, local = position >= 0, position
    else:
        inside, local = paddle.logical_and(position >= rows.first, position < rows.end), position - rows.first
    return paddle.where(inside, local, paddle.zeros_like(local)), inside


def _even_sizes(total: int, most: int) -> list[int]:
    """Sizes that differ by 1 at most, as few as there can be of up to ``most``."""
    number = -(-total // most)
    return [total * (piece + 1) // number - total * piece // number for piece in range(number)]


class _ArrayStore:
    """[S, width] in memory, written in place. ``rows``: a block or a piece."""

    def __init__(self, total, width):
        self.values = _zeros([total, width], "float32")

    def put(self, rows: RowBlock | RowPiece, values) -> None:
        ops.scatter_rows_(self.values, paddle.arange(rows.first, rows.end), values)

    def get(self, rows: RowBlock | RowPiece):
        return _slice(self.values, rows.first, rows.end)


class _ValueStore:
    """The values themselves."""

    def __init__(self):
        self._values: dict[RowBlock | RowPiece, Any] = {}

    def put(self, rows: RowBlock | RowPiece, values) -> None:
        self._values[rows] = values

    def get(self, rows: RowBlock | RowPiece):
        return self._values[rows]


def length(value):
    """n of ``value`` [n, ...] as a [1] int64 value, or as a number where it is known while building."""
    return value.shape[0] if value.shape[0] > 0 else paddle.cast(paddle.shape(value)[:1], "int64")


def _zeros(shape: list, dtype: str):
    """Zeros whose sizes are numbers or [1] int64 values."""
    return paddle.zeros([size if isinstance(size, int) else paddle.reshape(size, []) for size in shape], dtype)


def _slice(value, first, end):
    """value[first:end] of [n, ...]; [1] int64 values."""
    return paddle.slice(value, [0], [first], [end])
