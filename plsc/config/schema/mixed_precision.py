"""The section `mixed_precision`."""

from __future__ import annotations

import dataclasses

from plsc.config.option import option


@dataclasses.dataclass(frozen=True)
class MixedPrecision:
    """Half precision where it is safe; needs a GPU."""

    enabled: bool = option(False, "Train in mixed precision.", setter="set_mixed_precision", attributes=("use_fp16",))
    init_loss_scaling: float = option(
        32768.0,
        "The first factor on the loss. The default 2^15 is a power of two, so that scaling rounds nothing, and large "
        "enough for gradients of a mean over a batch not to vanish in half precision; one that is too large is halved "
        "within a few steps. PLSC 0.x began with 1, which takes 2000 steps to double once.",
        within="(0, 1e30]", setter="set_mixed_precision",
    )  # fmt: skip
    incr_every_n_steps: int = option(
        2000, "The factor grows after this many finite steps in a row.", unit="steps", within="[1, 2147483647]",
        setter="set_mixed_precision",
    )  # fmt: skip
    decr_every_n_nan_or_inf: int = option(
        2, "The factor shrinks after this many steps that were not finite.", unit="steps", within="[1, 2147483647]",
        setter="set_mixed_precision",
    )  # fmt: skip
    incr_ratio: float = option(2.0, "By how much it grows.", within="(1, 1e30]", setter="set_mixed_precision")
    decr_ratio: float = option(0.5, "By how much it shrinks.", within="(0, 1)", setter="set_mixed_precision")
    use_dynamic_loss_scaling: bool = option(
        True, "Let the factor grow and shrink; otherwise it stays.", setter="set_mixed_precision"
    )
    custom_white_list: list[str] = option(
        [], "Ops to run in half precision besides Paddle's list.", setter="set_mixed_precision"
    )
    custom_black_list: list[str] = option(
        [], "Ops to keep in full precision besides Paddle's list.", setter="set_mixed_precision"
    )
