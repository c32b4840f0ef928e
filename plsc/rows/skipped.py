"""Steps that are skipped because a gradient is inf or NaN."""

from __future__ import annotations

from typing import Any

import paddle


def zero_if_skipped(found_inf, gradient):
    """A gradient for a user's optimizer: zeros in a skipped step (``found_inf`` [1] bool; None: never).

    The weights stay finite. They still change by its momentum and weight decay, as with Paddle's own loss scaling.
    """
    if found_inf is None:
        return gradient
    return paddle.where(_like(found_inf, gradient), paddle.zeros_like(gradient), gradient)


IF_SKIPPED = ".if_skipped"  # of the name of an input


def fed(name: str, shape: list[int], dtype: str, skipped_before) -> tuple[dict[str, Any], Any]:
    """({name: input}, value) of what depends on whether the step before was skipped.

    That is not known yet where a step is fed before the results of the one before were read. So there are two inputs,
    and the program takes the one that holds, by ``skipped_before`` [1] bool. None: no step is skipped.
    """
    value = paddle.static.data(name, shape, dtype)
    if skipped_before is None:
        return {name: value}, value
    other = paddle.static.data(name + IF_SKIPPED, shape, dtype)
    chosen = paddle.where(_like(skipped_before, value), other, value)
    return {name: value, name + IF_SKIPPED: other}, chosen


def _like(condition, value):
    """``condition`` [1] bool for each element of ``value``."""
    condition = paddle.reshape(condition, [1] * len(value.shape))
    return paddle.logical_and(condition, paddle.ones_like(value, "bool"))
