"""The exponential moving average of the backbone's weights (EMA; Polyak & Juditsky 1992, with a forgetting factor).

For a weight w after step t (from 1) and its average e, which begins at the initial weight:

    d := min(decay, (1 + t) / (10 + t))        with the warm-up of the decay, else decay
    e := d * e + (1 - d) * w
"""

from __future__ import annotations

import paddle

from plsc.backend import ops, static


def create_averages(names: list[str], values: list) -> list:
    """The averages of ``values``: states that begin at 0 and have to be set to their weights."""
    return [static.create_state(name, list(value.shape), "float32") for name, value in zip(names, values)]


def append_averages(averages: list, values: list, step, decay: float, warmup: bool) -> None:
    """Append the next value of each of ``averages``, after the update of its float32 value.

    ``step`` [1] int64: the number of this step, from 1.
    """
    rate = paddle.full([1], 1.0 - decay, "float32")  # 1 - d, without the rounding of 1 - (1 + t) / (10 + t)
    if warmup:
        rate = paddle.maximum(rate, 9.0 / (10.0 + paddle.cast(step, "float32")))
    for average, value in zip(averages, values):
        ops.descend_(average, average - value, rate)
