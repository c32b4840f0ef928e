"""Rows of class centres, or of optimizer states, stored in float32 or 16 bits and computed with in float32.

On CPUs, Paddle has hardly any kernels for 16-bit types except for lookup, cast and assignment.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import paddle

from plsc.backend import ops, static
from plsc.rows.operations import gather_rows
from plsc.rows.optimizer import LARGEST_FLOAT16

FLOAT32, FLOAT16 = "float32", "float16"


@dataclass(frozen=True)
class RowTable:
    """Rows in a variable ``value`` of type ``storage``, multiplied by ``factor``, a power of two.

    Row i is row ``offset`` + ``stride`` * i of the variable, so that several tables can share one. ``cut_count`` [1, 1]
    int64 or None: counts the numbers that were clipped when written, in this program.
    """

    value: Any
    storage: str = FLOAT32
    factor: float = 1.0
    offset: int = 0
    stride: int = 1
    cut_count: Any = None

    @property
    def width(self) -> int:
        """The numbers of a row."""
        return self.value.shape[1]

    @property
    def dtype(self) -> str:
        """The type of the rows that are read and written."""
        return FLOAT32

    @property
    def is_half(self) -> bool:
        """True where writing rounds to 16 bits."""
        return self.storage != FLOAT32

    @property
    def number_bytes(self) -> int:
        """The size of a number in bytes."""
        return 2 if self.is_half else 4

    def in_current_program(self) -> RowTable:
        """The same table, for the program that is being built."""
        value = static.create_state(self.value.name, list(self.value.shape), self.storage)
        return replace(self, value=value, cut_count=None)

    def read(self, index):
        """A copy of the rows ``index`` [R] int64, float32 [R, E], or as channels for plsc.rows.operations.as_channels.
        None: all rows; the variable itself if it is float32."""
        found = self.value if index is None else gather_rows(self.value, self.positions(index))
        if not self.is_half:
            return found
        found = paddle.cast(found, FLOAT32)
        return found if self.factor == 1.0 else found * (1.0 / self.factor)

    def write(self, index, rows) -> None:
        """Store float32 ``rows`` [R, E], rounded to the nearest; numbers too large for float16 are clipped."""
        if index is None and self.stride == 1 and not self.is_half:
            paddle.assign(rows, output=self.value)
            return
        if index is None:
            index = paddle.arange(self.value.shape[0] // self.stride, dtype="int64")
        self.write_at(self.positions(index), rows)

    def write_at(self, positions, rows) -> None:
        """``write`` for known ``positions`` in the variable."""
        if not self.is_half:
            ops.scatter_rows_(self.value, positions, rows)
            return
        rows = rows if self.factor == 1.0 else rows * self.factor
        if self.storage == FLOAT16:
            clipped = paddle.clip(rows, -LARGEST_FLOAT16, LARGEST_FLOAT16)
            if self.cut_count is not None:
                count = paddle.sum(paddle.cast(paddle.not_equal(clipped, rows), "float32"))
                ops.add_rows_(
                    self.cut_count, paddle.zeros([1], "int64"), paddle.reshape(paddle.cast(count, "int64"), [1, 1])
                )
            rows = clipped
        ops.put_half_rows_(self.value, positions, ops.round_to(rows, self.storage))

    def positions(self, index):
        """The positions of the rows ``index`` in the variable."""
        return index if self.stride == 1 else paddle.scale(index, float(self.stride), float(self.offset))


@dataclass(frozen=True)
class ClassTable:
    """Classes in a variable ``value`` int32, read and written like a RowTable; it may have more rows than the shard."""

    value: Any
    dtype: str = "int32"

    @property
    def width(self) -> int:
        """The numbers of a row."""
        return self.value.shape[1]

    def in_current_program(self) -> ClassTable:
        """The same table, for the program that is being built."""
        return ClassTable(static.create_state(self.value.name, list(self.value.shape), self.dtype))

    def read(self, index):
        """A copy of the rows ``index`` [R] int64, [R, width]."""
        return paddle.gather(self.value, index)

    def write(self, index, rows) -> None:
        """Store ``rows`` [R, width] int32; where ``index`` names a row more than once, they must not differ."""
        ops.scatter_rows_(self.value, index, rows)
