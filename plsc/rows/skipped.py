"""Steps that are skipped because a gradient is inf or NaN, with a user's optimizer."""

from __future__ import annotations

import paddle


def zero_if_skipped(found_inf, gradient):
    """A gradient for a user's optimizer: zeros in a skipped step (``found_inf`` [1] bool; None: never).

    The weights stay finite. They still change by its momentum and weight decay, as with Paddle's own loss scaling.
    """
    if found_inf is None:
        return gradient
    condition = paddle.reshape(found_inf, [1] * len(gradient.shape))
    return paddle.where(
        paddle.logical_and(condition, paddle.ones_like(gradient, "bool")), paddle.zeros_like(gradient), gradient
    )
