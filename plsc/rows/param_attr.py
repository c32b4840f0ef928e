"""What a user's ParamAttr asks of the built-in optimizer."""

from __future__ import annotations

import paddle

from plsc.errors import ConfigError


def weight_decay_of(attr, usual: float, what: str) -> float:
    """The coefficient of the L2Decay of a ParamAttr or parameter, else ``usual``. Raises ConfigError for another."""
    regularizer = getattr(attr, "regularizer", None)
    if regularizer is None:
        return usual
    if not isinstance(regularizer, paddle.regularizer.L2Decay):
        raise ConfigError(
            f"{what}: regularizer {type(regularizer).__name__} is not supported by the built-in optimizer; "
            "allowed: paddle.regularizer.L2Decay, or give an optimizer by set_optimizer"
        )
    return float(regularizer._coeff)
