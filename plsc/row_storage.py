"""Rows of class centres, or of their momentum, kept in 16 bits in memory and worked on in float32.

float32 goes through unchanged. Half types have kernels on CPUs for little more than to be looked up, cast and put.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import paddle

from plsc import compat
from plsc.row_ops import gather_rows

FLOAT32, FLOAT16 = "float32", "float16"
LARGEST_FLOAT16 = 65504.0
# The gradient of a class that is not in the batch is about 1e-7, where float16 has steps of 6e-8, and a large one is
# about 10: times 1024 both are in the range in which float16 has 11 bits.
VELOCITY_FACTOR = 1024.0


@dataclass(frozen=True)
class RowTable:
    """``value`` [L, E], a variable of type ``storage`` that holds rows times ``factor``, a power of two."""

    value: Any
    storage: str = FLOAT32
    factor: float = 1.0

    @classmethod
    def of(cls, value, storage: str, tensor: str) -> RowTable:
        """The table of what a checkpoint calls ``tensor``: weight, velocity."""
        scaled = storage == FLOAT16 and tensor == "velocity"
        return cls(value, storage, VELOCITY_FACTOR if scaled else 1.0)

    @property
    def rounds(self) -> bool:
        """True where what is written is not what will be read."""
        return self.storage != FLOAT32

    def read(self, index):
        """The rows ``index`` [R] int64, float32 [R, E], a copy; or as plsc.row_ops.as_channels has them. None: all, and
        the variable itself if it is float32."""
        found = self.value if index is None else gather_rows(self.value, index)
        if not self.rounds:
            return found
        found = paddle.cast(found, FLOAT32)
        return found if self.factor == 1.0 else found * (1.0 / self.factor)

    def write(self, index, rows) -> None:
        """Store float32 ``rows`` [R, E], each number rounded to the nearest; float16 holds no more than its largest."""
        if index is None:
            index = paddle.arange(self.value.shape[0], dtype="int64")
        if not self.rounds:
            compat.scatter_rows_(self.value, index, rows)
            return
        rows = rows if self.factor == 1.0 else rows * self.factor
        if self.storage == FLOAT16:
            rows = paddle.clip(rows, -LARGEST_FLOAT16, LARGEST_FLOAT16)
        compat.put_half_rows_(self.value, index, compat.round_to(rows, self.storage))
