"""The section `optimizer`."""

from __future__ import annotations

import dataclasses

from plsc.config.option import option
from plsc.registry import OPTIMIZERS


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """The optimizer of backbone and class centres."""

    name: str = option(
        "momentum", "The optimizer (`plsc list optimizers`), or your own from a module in `plugins`. With sampled "
        "classes its cost follows the sample; that of a Paddle optimizer, set by Entry.set_optimizer, does not.",
        registry=OPTIMIZERS,
    )  # fmt: skip
    options: dict = option({}, "Further options of the optimizer: parameters of its constructor.")
