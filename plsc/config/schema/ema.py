"""The section `ema`."""

from __future__ import annotations

import dataclasses

from plsc.config.option import option


@dataclasses.dataclass(frozen=True)
class Ema:
    """The exponential moving average (EMA) of the backbone's weights."""

    decay: float | None = option(
        None, "Average the weights and batch statistics of the backbone: average = decay * average + (1 - decay) * "
        "weight after each step. null does not.", within="(0, 1)",
    )  # fmt: skip
    warmup: bool = option(
        True, "In step t the decay is at most (1 + t) / (10 + t), so that the average forgets the initial weights."
    )
    weights: str = option(
        "auto", "Which weights of a checkpoint are verified, exported, used for features and by `init_from`: auto the "
        "averages where there are any, ema the averages, last those of the last step.",
        choices=("auto", "ema", "last"),
    )  # fmt: skip
