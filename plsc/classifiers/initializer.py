"""Initial class centres that depend on the class, not on the number of ranks.

The classes are cut into blocks of BLOCK_CLASSES, each with a generator seeded by (seed, block number). A rank
draws the blocks that overlap its range and keeps its own rows: no more than its shard and one block is ever held.
"""

from __future__ import annotations

import math

import paddle
from paddle.tensor.random import gaussian

from plsc import compat
from plsc.classifiers.sampling import mix, stream_key
from plsc.errors import ConfigError

BLOCK_CLASSES = 16384


class ShardInitializer(paddle.nn.initializer.Initializer):
    """Fills a shard [L, E] with the rows first .. first + L of a random matrix of all classes.

    ``kind`` "normal": ``low``, ``high`` are mean and standard deviation; "uniform": the bounds.
    """

    def __init__(self, first: int, seed: int, kind: str, low: float, high: float):
        super().__init__()
        self.first, self.seed, self.kind, self.low, self.high = first, seed, kind, low, high

    def forward(self, var, block=None):
        rows, width = var.shape
        value = var
        if compat.is_pir():
            value = paddle.full([rows, width], 0.0, dtype="float32")
        else:
            attrs = {"shape": [rows, width], "dtype": var.dtype, "value": 0.0}
            block.append_op(type="fill_constant", outputs={"Out": var}, attrs=attrs)
            with paddle.static.program_guard(block.program):
                self._fill(value, rows, width)
            return value
        self._fill(value, rows, width)
        return value

    def _fill(self, value, rows: int, width: int) -> None:
        end = self.first + rows
        for number in range(self.first // BLOCK_CLASSES, (end - 1) // BLOCK_CLASSES + 1):
            start = number * BLOCK_CLASSES
            low, high = max(start, self.first), min(start + BLOCK_CLASSES, end)
            drawn = self._draw(width, number)[low - start : high - start]
            compat.scatter_rows_(value, paddle.arange(low - self.first, high - self.first, dtype="int64"), drawn)

    def _draw(self, width: int, number: int):
        seed = 1 + int(mix(stream_key(self.seed, number))) % (2**31 - 2)  # 0 would mean Paddle's own generator
        shape = [BLOCK_CLASSES, width]
        if self.kind == "normal":
            return gaussian(shape, self.low, self.high, seed, "float32")
        return paddle.uniform(shape, "float32", self.low, self.high, seed)


def default_initializer(first: int, num_classes: int, embedding_size: int, seed: int) -> ShardInitializer:
    """N(0, sqrt(2 / (embedding_size + num_classes))), PLSC 0.x's, with the number of all classes."""
    return ShardInitializer(first, seed, "normal", 0.0, math.sqrt(2.0 / (embedding_size + num_classes)))


def from_param_attr(attr, first: int, num_classes: int, embedding_size: int, seed: int):
    """The initializer that a user's ParamAttr asks for. Raises ConfigError where a shard cannot honour it."""
    given = getattr(attr, "initializer", None)
    if given is None:
        return default_initializer(first, num_classes, embedding_size, seed)
    if isinstance(given, paddle.nn.initializer.Constant):
        return given
    if isinstance(given, paddle.nn.initializer.Normal):
        return ShardInitializer(first, seed, "normal", float(given._mean), float(given._std_dev))
    if isinstance(given, paddle.nn.initializer.Uniform):
        return ShardInitializer(first, seed, "uniform", float(given._low), float(given._high))
    raise ConfigError(
        f"set_distfc_attr: initializer {type(given).__name__} needs the whole weight on each rank; "
        "allowed: Constant, Normal, Uniform"
    )
