"""The gradient of the slopes of PReLU in half precision, summed in float32.

Paddle's kernel returns it in the type of the image. A slope's gradient is a sum over all images and places of its
channel, 10^6 and more; times the loss scale it exceeds the largest float16, 65504, and bfloat16 rounds it to 8 bits. So
the sum is computed again where Paddle computes it,

    d loss / d slope = sum of min(x, 0) * dout,

with the products in half precision, which rounds each by 2^-11 (2^-8) of itself, and the sum in float32. A product that
overflows makes the sum inf, and with it a step that is skipped. The gradient of x is that of Paddle's kernel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import paddle

from plsc.backend import static

HALF = ("float16", "bfloat16")


@dataclass(frozen=True)
class SlopeGradient:
    """A gradient operation of PReLU: its number in the program, ``x`` and ``dout`` [B, ...] of one type, and the axis
    of the channels where each has a slope of its own (None: all share one)."""

    index: int
    x: Any
    dout: Any
    axis: int | None

    def total(self, shape: list[int]):
        """Append the gradient [``shape``] float32."""
        product = paddle.minimum(self.x, paddle.zeros([1], self.x.dtype)) * self.dout
        axes = [axis for axis in range(len(self.x.shape)) if axis != self.axis]
        return paddle.reshape(paddle.sum(product, axis=axes, dtype="float32"), shape)


def sum_in_float32(parameters: list, gradients: list) -> list:
    """``gradients`` of ``parameters``, those of slopes whose images are in half precision replaced.

    The operations are inserted behind those of Paddle's gradients, so that no image is kept any longer.
    """
    find = _find_pir() if static.is_pir() else _find_legacy()
    found = [[] if value is None or not _is_slope(parameter) else find(value)
             for parameter, value in zip(parameters, gradients)]  # fmt: skip
    each = [(one, number) for number, ones in enumerate(found) for one in ones]
    totals: dict[int, list] = {}
    for one, number in sorted(each, key=lambda pair: -pair[0].index):  # from the end, so that numbers stay valid
        with static.insert_after(one.index):
            totals.setdefault(number, []).append(one.total(list(parameters[number].shape)))
    whole = {number: ones[0] if len(ones) == 1 else paddle.add_n(ones) for number, ones in totals.items()}
    return [whole.get(number, value) for number, value in enumerate(gradients)]


def _is_slope(parameter) -> bool:
    """PReLU with one slope for each number of an image keeps Paddle's gradient: it sums over the batch only."""
    return math.prod(parameter.shape) == max(parameter.shape)


def _axis(mode: str, layout: str, rank: int) -> int | None:
    return None if mode == "all" else 1 if layout == "NCHW" else rank - 1


def _find_pir():
    """A function of a gradient: the operations that it is the sum of, [] where these are not all of PReLU in half."""
    numbers = {op.id(): number for number, op in enumerate(paddle.static.default_main_program().global_block().ops)}

    def find(value) -> list[SlopeGradient]:
        op = value.get_defining_op()
        if op is None:
            return []
        if op.name() in ("pd_op.cast", "pd_op.add_n", "builtin.combine"):
            return _all_or_none([find(source) for source in op.operands_source()])
        if op.name() != "pd_op.prelu_grad" or not value.is_same(op.results()[1]):
            return []
        x, _, dout = op.operands_source()
        attrs = op.attrs()
        axis = _axis(attrs["mode"], attrs["data_format"], len(x.shape))
        return _in_half(SlopeGradient(numbers[op.id()], x, dout, axis))

    return find


def _find_legacy():
    block = paddle.static.default_main_program().global_block()
    writers = {name: number for number, op in enumerate(block.ops) for name in op.output_arg_names}

    def by_name(name: str) -> list[SlopeGradient]:
        number = writers.get(name)
        if number is None:
            return []
        op = block.ops[number]
        if op.type in ("cast", "sum"):
            return _all_or_none([by_name(source) for source in op.input("X")])
        if op.type != "prelu_grad" or name not in op.output("Alpha@GRAD"):
            return []
        x, dout = (block.var(op.input(slot)[0]) for slot in ("X", "Out@GRAD"))
        return _in_half(SlopeGradient(number, x, dout, _axis(op.attr("mode"), op.attr("data_format"), len(x.shape))))

    return lambda value: by_name(value.name)


def _in_half(one: SlopeGradient) -> list[SlopeGradient]:
    return [one] if str(one.x.dtype).lower().rsplit(".", 1)[-1] in HALF else []


def _all_or_none(parts: list[list]) -> list:
    return [one for part in parts for one in part] if all(parts) else []
