"""Initial class centres that depend on the class, not on the number of ranks.

The classes are split into blocks of BLOCK_CLASSES, each with a generator seeded by (seed, block number). A rank
draws the blocks that overlap its range and keeps its own rows. It never holds more than its shard and one block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import paddle

from plsc.backend import ops, static
from plsc.classifiers.sampling import mix, stream_key
from plsc.errors import ConfigError
from plsc.rows.storage import RowTable

BLOCK_CLASSES = 16384


@dataclass(frozen=True)
class Distribution:
    """``kind`` "normal" (low: mean, high: standard deviation), "uniform" (bounds) or "constant" (low)."""

    kind: str
    low: float
    high: float = 0.0


class ShardInitializer(paddle.nn.initializer.Initializer):
    """Fills a shard with the rows first .. first + L of a random matrix [all classes, E].

    ``bias``, if given, is the value of an additional last column. ``storage`` is the type of the shard (see
    plsc.rows.storage); the numbers are drawn in float32. Row i of the shard is row ``stride`` * i of the variable; all
    other rows of the variable are 0.
    """

    def __init__(
        self,
        first: int,
        seed: int,
        distribution: Distribution,
        bias: float | None = None,
        storage: str = "float32",
        stride: int = 1,
    ):
        super().__init__()
        self.first, self.seed, self.distribution, self.bias = first, seed, distribution, bias
        self.storage, self.stride = storage, stride

    def forward(self, var, block=None):
        rows, width = var.shape
        if static.is_pir():
            value = paddle.full([rows, width], 0.0, dtype=self.storage)
            self._fill(value, rows, width)
            return value
        attrs = {"shape": [rows, width], "dtype": var.dtype, "value": 0.0}
        block.append_op(type="fill_constant", outputs={"Out": var}, attrs=attrs)
        with paddle.static.program_guard(block.program):
            self._fill(var, rows, width)
        return var

    def _fill(self, value, rows: int, width: int) -> None:
        table, end = RowTable(value, self.storage, stride=self.stride), self.first + rows // self.stride
        for number in range(self.first // BLOCK_CLASSES, (end - 1) // BLOCK_CLASSES + 1):
            start = number * BLOCK_CLASSES
            low, high = max(start, self.first), min(start + BLOCK_CLASSES, end)
            drawn = self._draw(width, number)[low - start : high - start]
            table.write(paddle.arange(low - self.first, high - self.first, dtype="int64"), drawn)

    def _draw(self, width: int, number: int):
        seed = 1 + int(mix(stream_key(self.seed, number))) % (2**31 - 2)  # 0 would mean Paddle's own generator
        chosen, shape = self.distribution, [BLOCK_CLASSES, width - (self.bias is not None)]
        if chosen.kind == "normal":
            drawn = ops.gaussian(shape, chosen.low, chosen.high, seed)
        elif chosen.kind == "uniform":
            drawn = paddle.uniform(shape, "float32", chosen.low, chosen.high, seed)
        else:
            drawn = paddle.full(shape, chosen.low, "float32")
        if self.bias is None:
            return drawn
        return paddle.concat([drawn, paddle.full([BLOCK_CLASSES, 1], self.bias, "float32")], axis=1)


def default_distribution(num_classes: int, embedding_size: int) -> Distribution:
    """N(0, sqrt(2 / (embedding_size + num_classes))) as in PLSC 0.x; num_classes: of all ranks."""
    return Distribution("normal", 0.0, math.sqrt(2.0 / (embedding_size + num_classes)))


def distribution_of(param_attr, default: Distribution) -> Distribution:
    """The distribution of a user's ParamAttr. Raises ConfigError for one that a shard cannot draw by itself."""
    given = getattr(param_attr, "initializer", None)
    if given is None:
        return default
    kinds = paddle.nn.initializer
    if isinstance(given, kinds.Constant):
        return Distribution("constant", float(given._value))
    if isinstance(given, kinds.Normal):
        return Distribution("normal", float(given._mean), float(given._std_dev))
    if isinstance(given, kinds.Uniform):
        return Distribution("uniform", float(given._low), float(given._high))
    raise ConfigError(
        f"set_distfc_attr: initializer {type(given).__name__} needs the whole weight on each rank; "
        "allowed: Constant, Normal, Uniform"
    )


def bias_value(bias_attr) -> float:
    """The initial value of all biases by a user's ParamAttr, 0 by default. Raises ConfigError for a random one."""
    given = distribution_of(bias_attr, Distribution("constant", 0.0))
    if given.kind != "constant":
        raise ConfigError("set_distfc_attr: the initializer of bias_attr must be Constant")
    return given.low
