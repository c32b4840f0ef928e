"""The settings of a user's ParamAttr for the built-in optimizer."""

from __future__ import annotations

import paddle

from plsc.errors import ConfigError


def weight_decay_of(attr, default: float, what: str) -> float:
    """The coefficient of the L2Decay of a ParamAttr or parameter; ``default`` if it has no regularizer.

    Raises ConfigError for another regularizer.
    """
    regularizer = getattr(attr, "regularizer", None)
    if regularizer is None:
        return default
    if not isinstance(regularizer, paddle.regularizer.L2Decay):
        raise ConfigError(
            f"{what}: regularizer {type(regularizer).__name__} is not supported by the built-in optimizer; "
            "allowed: paddle.regularizer.L2Decay, or an optimizer of your own by set_optimizer"
        )
    return float(regularizer._coeff)
