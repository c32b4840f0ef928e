"""The exponential moving average of the backbone's weights (EMA; Polyak & Juditsky 1992, with a forgetting factor).

For a weight w after step t (from 1) and its average e, which begins at the initial weight:

    d := min(decay, (1 + t) / (10 + t))        with the warm-up of the decay, else decay
    e := d * e + (1 - d) * w
"""

from __future__ import annotations

import paddle

from plsc.backend import ops, static


def append_averages(values: dict, step, decay: float, warmup: bool, found=None) -> None:
    """Append the average of each of ``values`` {name of the average: float32 value}, after the value's update.

    ``step`` [1] int64: the number of this step, from 1. ``found`` [1] bool or None: if True, no average changes.
    Averages are states that begin at 0 and have to be set to their weights.
    """
    rate = paddle.full([1], 1.0 - decay, "float32")  # 1 - d, without the rounding of 1 - (1 + t) / (10 + t)
    if warmup:
        rate = paddle.maximum(rate, 9.0 / (10.0 + paddle.cast(step, "float32")))
    if found is not None:
        rate = paddle.where(found, paddle.zeros_like(rate), rate)
    for name, value in values.items():
        average = static.create_state(name, list(value.shape), "float32")
        ops.descend_(average, average - value, rate)
