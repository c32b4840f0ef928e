"""Rows of class centres, or of what an optimizer keeps of them, in 16 bits in memory and worked on in float32.

float32 goes through unchanged. Half types have kernels on CPUs for little more than to be looked up, cast and put.
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
    """Rows in a variable ``value`` of type ``storage``, each times ``factor``, a power of two.

    Row i is row ``offset`` + ``stride`` * i of the variable: several tables may lie in one, side by side.
    ``cut_count`` [1, 1] int64, if there is one, counts the numbers that were too large to be written, in this program.
    """

    value: Any
    storage: str = FLOAT32
    factor: float = 1.0
    offset: int = 0
    stride: int = 1
    cut_count: Any = None

    @property
    def is_half(self) -> bool:
        """True where what is written is not what will be read."""
        return self.storage != FLOAT32

    @property
    def number_bytes(self) -> int:
        """The size of a number."""
        return 2 if self.is_half else 4

    def in_current_program(self) -> RowTable:
        """The same table, for the program that is being built."""
        value = static.create_state(self.value.name, list(self.value.shape), self.storage)
        return replace(self, value=value, cut_count=None)

    def read(self, index):
        """The rows ``index`` [R] int64, float32 [R, E], a copy; or as plsc.rows.operations.as_channels has them. None:
        all, and the variable itself if it is float32."""
        found = self.value if index is None else gather_rows(self.value, self.places(index))
        if not self.is_half:
            return found
        found = paddle.cast(found, FLOAT32)
        return found if self.factor == 1.0 else found * (1.0 / self.factor)

    def write(self, index, rows) -> None:
        """Store float32 ``rows`` [R, E], each number rounded to the nearest; float16 holds no more than its largest."""
        if index is None and self.stride == 1 and not self.is_half:
            paddle.assign(rows, output=self.value)
            return
        if index is None:
            index = paddle.arange(self.value.shape[0] // self.stride, dtype="int64")
        self.put(self.places(index), rows)

    def put(self, places, rows) -> None:
        """``write`` where the ``places`` of the rows are known."""
        if not self.is_half:
            ops.scatter_rows_(self.value, places, rows)
            return
        rows = rows if self.factor == 1.0 else rows * self.factor
        if self.storage == FLOAT16:
            held = paddle.clip(rows, -LARGEST_FLOAT16, LARGEST_FLOAT16)
            if self.cut_count is not None:
                beyond = paddle.sum(paddle.cast(paddle.not_equal(held, rows), "float32"))
                ops.add_rows_(
                    self.cut_count, paddle.zeros([1], "int64"), paddle.reshape(paddle.cast(beyond, "int64"), [1, 1])
                )
            rows = held
        ops.put_half_rows_(self.value, places, ops.round_to(rows, self.storage))

    def places(self, index):
        """Where the rows ``index`` are in the variable."""
        return index if self.stride == 1 else paddle.scale(index, float(self.stride), float(self.offset))
