"""Tensors on disk: name, type and shape; and sources of the tensors of a class shard."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from plsc.errors import CheckpointError

# The type names of the safetensors format. bfloat16 has no NumPy type: Paddle returns it as uint16.
_DTYPES = {
    "BOOL": "?", "U8": "<u1", "I8": "<i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4",
    "U64": "<u8", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip
_CODES = {np.dtype(text): code for code, text in _DTYPES.items()}


@dataclass(frozen=True)
class TensorSpec:
    """A tensor without its values. `dtype` is a safetensors type name such as "F32"."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, name: str, array: np.ndarray) -> TensorSpec:
        """The spec of an array. Raises CheckpointError for a type that cannot be stored."""
        code = _CODES.get(array.dtype.newbyteorder("<"))
        if code is None:
            raise CheckpointError(f"tensor {name}: type {array.dtype} cannot be stored; allowed: {', '.join(_DTYPES)}")
        return cls(name, code, tuple(array.shape))

    @classmethod
    def from_json(cls, data: Any) -> TensorSpec:
        """From {"name", "dtype", "shape"}. Raises ValueError for anything else."""
        if not isinstance(data, dict) or set(data) != {"name", "dtype", "shape"}:
            raise ValueError(f"a tensor is {{name, dtype, shape}}, got {data!r:.80}")
        name, dtype, shape = data["name"], data["dtype"], data["shape"]
        if not isinstance(name, str) or not 0 < len(name) <= 500 or not name.isprintable() or name == "__metadata__":
            raise ValueError(f"{name!r:.80} is not a tensor name")
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            raise ValueError(f"tensor {name}: unknown type {dtype!r:.80}")
        good = isinstance(shape, list) and len(shape) <= 16 and all(type(size) is int and size >= 0 for size in shape)
        if not good or math.prod(max(size, 1) for size in shape) > 2**50:
            raise ValueError(f"tensor {name}: {shape!r:.80} is not a shape")
        return cls(name, dtype, tuple(shape))

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}

    @property
    def numpy_dtype(self) -> np.dtype:
        return np.dtype(_DTYPES[self.dtype])

    @property
    def row_bytes(self) -> int:
        """Bytes of one index of the first dimension."""
        return self.numpy_dtype.itemsize * math.prod(self.shape[1:])

    @property
    def num_bytes(self) -> int:
        return self.numpy_dtype.itemsize * math.prod(self.shape)

    def with_rows(self, rows: int) -> TensorSpec:
        """The same tensor with another first dimension."""
        return TensorSpec(self.name, self.dtype, (rows, *self.shape[1:]))


class ShardSource(Protocol):
    """The tensors of one class shard, yielded in blocks of rows so that memory stays at one block."""

    def tensors(self) -> list[TensorSpec]:
        """Specs with this shard's shapes: [num_local, embedding_size] or [num_local]."""

    def blocks(self) -> Iterator[tuple[str, int, np.ndarray]]:
        """(tensor name, first row, rows): tensors in the order of `tensors()`, rows upwards from 0, no gap."""


class ArrayShard:
    """A ShardSource over arrays in memory, which must not change during the save."""

    def __init__(self, arrays: Mapping[str, np.ndarray], block_rows: int = 65536):
        self._arrays = arrays
        self._block_rows = block_rows

    def tensors(self) -> list[TensorSpec]:
        return [TensorSpec.of(name, array) for name, array in self._arrays.items()]

    def blocks(self) -> Iterator[tuple[str, int, np.ndarray]]:
        for name, array in self._arrays.items():
            for first in range(0, len(array), self._block_rows):
                yield name, first, array[first : first + self._block_rows]
