"""The part of the schema that is about the optimizer of backbone and class centres."""

from __future__ import annotations

import dataclasses

from plsc.config.option import option
from plsc.registry import OPTIMIZERS


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """What moves the weights of backbone and classes."""

    name: str = option(
        "momentum", "The optimizer (`plsc list optimizers`), or one of your own, from a module in `plugins`. It works "
        "on samples of the classes at the sample's cost; one of Paddle's, as an object, by Entry.set_optimizer, does "
        "not.", registry=OPTIMIZERS,
    )  # fmt: skip
    options: dict = option(
        {}, "Options that the optimizer has beyond `momentum` and `weight_decay`: parameters of its constructor."
    )
