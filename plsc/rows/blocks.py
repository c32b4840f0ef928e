"""The rows of a step, processed block by block and piece by piece.

A block has one array of cosines for the softmax. Its rows are read, multiplied and updated one piece at a time; a piece
fits the processor's cache. A small sample is one block of a few pieces, unrolled in the program: values computed from a
piece are still available when it is processed again. Larger samples are blocks of one piece each in a loop (a ``while``
operation), so that the size of the program does not grow with the number of rows.

On GPUs the blocks are few and large, and unrolled in the program: a loop would wait for the GPU in each iteration.
Nothing of a block but what is put into a buffer stays in memory until the block is processed again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import paddle

from plsc.backend import ops

# 4 MB of rows of 512 numbers: small enough for the processor's cache
BLOCK_ROWS = 2048
# a sample of up to 8 times as many rows is one block of such pieces, without a loop; it holds up to 33 MB of rows
FEW_BLOCKS = 8
# on GPUs, blocks unrolled in the program: each adds some 150 operations, and Paddle 2.6's executor needs 90 bytes of
# the host for each pair of operations
GPU_BLOCKS = 8
SMALL_BLOCK = 2**22  # logits on GPUs that are not worth a second block: 17 MB
MAX_ELEMENTS = 2**31 - 1  # of an array: kernels for GPUs count in 32 bits


def gpu_block_rows(num_rows: int, features: int) -> int:
    """The rows R of a block on GPUs, for ``num_rows`` rows of the step and ``features`` G of the head: [R, G] is an
    eighth of all logits, or all of them where they are few, and less than that where it would be too large to count."""
    rows = max(-(-num_rows // GPU_BLOCKS), SMALL_BLOCK // features)
    return max(1, min(rows, MAX_ELEMENTS // features))


@dataclass(frozen=True, eq=False)
class RowPiece:
    """Rows ``first`` .. ``end`` - 1 of the rows of a step (see RowBlock), piece ``number`` of its ``block``."""

    block: RowBlock
    number: int
    first: Any
    end: Any

    def select(self, values: list):
        """The element of RowBlock.split that belongs to this piece."""
        return values[self.number]

    def positions(self, position):
        """(``position`` [G] relative to this piece, 0 where it is outside; [G] bool: whether it is inside)."""
        return _local_positions(self, position)


class RowBlock:
    """Rows ``first`` .. ``end`` - 1 of the rows of a step. These are numbers, or in a loop [1] int64 values; both are
    None where the block holds all rows.

    ``index`` [R] int64: which rows of the shard they are; None: all. ``pieces``: parts of at most ``piece_rows`` rows
    each; None: one part. ``for_cpu``: whether to use those operations that are fast on CPUs; they may round more on a
    GPU, whose matrix products use TF32.
    """

    def __init__(self, first, end, index, piece_rows: int | None = None, for_cpu: bool = True):
        self.first, self.end, self.index, self.for_cpu = first, end, index, for_cpu
        self._sizes = [None] if piece_rows is None else _even_sizes(end - first, piece_rows)
        self.pieces = [RowPiece(self, 0, first, end)]
        if len(self._sizes) > 1:
            ends = list(itertools.accumulate(self._sizes, initial=first))
            bounds = zip(range(len(self._sizes)), ends, ends[1:])
            self.pieces = [RowPiece(self, number, *piece) for number, *piece in bounds]

    def concat(self, values: list):
        """One array [R, ...] from the arrays of the pieces."""
        return values[0] if len(values) == 1 else paddle.concat(values)

    def split(self, values) -> list:
        """``values`` [R, ...] split into the pieces."""
        return [values] if len(self.pieces) == 1 else paddle.split(values, self._sizes)

    def positions(self, position):
        """(``position`` [G] relative to this block, 0 where it is outside; [G] bool: whether it is inside)."""
        return _local_positions(self, position)


class RowBlocks:
    """All rows of a step. ``index`` [S]: which rows of the shard they are; None: all ``count`` rows.

    ``block_rows`` None: one block with one piece. ``on_gpu``: blocks of one piece each, unrolled in the program; one
    block where their number is not known when the program is built, as there are then no more rows than features.
    """

    def __init__(self, index, count: int, block_rows: int | None, on_gpu: bool = False):
        self.index = index
        self.block_rows = block_rows
        self._on_gpu = on_gpu
        total = count if index is None else length(index)
        self._only = None  # the block, where there is one only
        self._bounds: list[tuple[int, int]] | None = None  # of unrolled blocks
        known = isinstance(total, int)
        if block_rows is None or (on_gpu and not known):
            self._only = RowBlock(None, None, index, for_cpu=False)
        elif on_gpu:
            ends = list(itertools.accumulate(_even_sizes(total, block_rows), initial=0))
            self._bounds = list(zip(ends, ends[1:]))
        elif index is not None and known and total <= FEW_BLOCKS * block_rows:
            self._only = RowBlock(0, total, index, block_rows)
        else:  # a loop
            self._total = paddle.full([1], total, "int64") if known else total
            self._start = paddle.zeros([1], "int64")

    @property
    def only_piece(self) -> RowPiece:
        """All rows, where there is one block with one piece."""
        (piece,) = self._only.pieces
        return piece

    def piece_at(self, position) -> RowPiece:
        """The rows at ``position`` [G] int64 of the rows of the step; duplicates are allowed, -1 means any row."""
        position = paddle.clip(position, min=0)
        index = position if self.index is None else paddle.gather(self.index, position)
        (piece,) = RowBlock(0, None, index, for_cpu=not self._on_gpu).pieces
        return piece

    @property
    def is_single(self) -> bool:
        """True where all rows are one block: its values of one ``for_each`` are still available in the next one."""
        return self._only is not None

    def for_each(self, body: Callable, carried: Sequence = ()) -> list:
        """Append ``carried = body(block, *carried)`` for each block. Returns the last ``carried``.

        In-place changes by a body are visible in later calls over the same blocks. Where ``is_single`` is False, each
        call makes new blocks: what a body caches for its block is not kept for the next call.
        """
        if self.is_single:
            return list(body(self._only, *carried))
        if self._bounds is not None:
            for first, end in self._bounds:
                carried = body(RowBlock(first, end, self._rows(first, end), for_cpu=False), *carried)
            return list(carried)

        def loop_body(first, *carried):
            end = paddle.minimum(first + self.block_rows, self._total)
            return [end, *body(RowBlock(first, end, self._rows(first, end)), *carried)]

        last, *carried = ops.while_loop(lambda first, *_: first < self._total, loop_body, [self._start, *carried])
        self._start = last - self._total  # 0, but computed from the loop's end: the next loop starts after this one
        return carried

    def _rows(self, first, end):
        """Which rows of the shard are in this block."""
        if self.index is None:
            return paddle.arange(first, end, dtype="int64")
        return _slice(self.index, first, end)

    def for_each_piece(self, body: Callable, carried: Sequence = ()) -> list:
        """``for_each`` with ``carried = body(piece, *carried)`` for each piece of a block."""

        def all_pieces(block, *carried):
            for piece in block.pieces:
                carried = body(piece, *carried)
            return carried

        return self.for_each(all_pieces, carried)

    def buffer(self, width):
        """Storage for one value [width] of each row; in a loop of float32."""
        return _ValueStore() if self.is_single or self._bounds else _ArrayStore(self._total, width)


def _local_positions(rows: RowBlock | RowPiece, position):
    """See ``positions`` of both."""
    if rows.first is None:
        inside, local = position >= 0, position
    else:
        inside, local = paddle.logical_and(position >= rows.first, position < rows.end), position - rows.first
    return paddle.where(inside, local, paddle.zeros_like(local)), inside


def _even_sizes(total: int, largest: int) -> list[int]:
    """The fewest sizes of up to ``largest`` that sum to ``total``; they differ by 1 at most."""
    number = -(-total // largest)
    return [total * (piece + 1) // number - total * piece // number for piece in range(number)]


class _ArrayStore:
    """An array [S, width] that is written in place. ``rows``: a block or a piece."""

    def __init__(self, total, width):
        self.values = _zeros([total, width], "float32")

    def put(self, rows: RowBlock | RowPiece, values) -> None:
        ops.scatter_rows_(self.values, paddle.arange(rows.first, rows.end), values)

    def get(self, rows: RowBlock | RowPiece):
        return _slice(self.values, rows.first, rows.end)


class _ValueStore:
    """The values of the program themselves, by the rows of a block or piece."""

    def __init__(self):
        self._values: dict[tuple, Any] = {}

    def put(self, rows: RowBlock | RowPiece, values) -> None:
        self._values[rows.first, rows.end] = values

    def get(self, rows: RowBlock | RowPiece):
        return self._values[rows.first, rows.end]


def length(value):
    """n of ``value`` [n, ...]: a number if it is known at build time, else a [1] int64 value."""
    return value.shape[0] if value.shape[0] > 0 else paddle.cast(paddle.shape(value)[:1], "int64")


def _zeros(shape: list, dtype: str):
    """Zeros whose sizes are numbers or [1] int64 values."""
    return paddle.zeros([size if isinstance(size, int) else paddle.reshape(size, []) for size in shape], dtype)


def _slice(value, first, end):
    """value[first:end] of [n, ...]; numbers or [1] int64 values."""
    return paddle.slice(value, [0], [first], [end])
