"""The section `mixed_precision`."""

from __future__ import annotations

import dataclasses

from plsc.config.option import option


@dataclasses.dataclass(frozen=True)
class MixedPrecision:
    """Half precision where it is safe; for GPUs, with `device: cpu` for checking (docs/gpu.md)."""

    enabled: bool = option(False, "Train in mixed precision.", setter="set_mixed_precision", attributes=("use_fp16",))
    dtype: str = option(
        "float16",
        "The type of half precision. bfloat16 has the range of float32, so it needs no loss scale and skips no steps, "
        "but 8 bits of precision where float16 has 11; the product of features and class weights stays in "
        "float32. bfloat16 needs a GPU of compute capability 8.0 or later; on CPUs, float16 needs Paddle 3.",
        choices=("float16", "bfloat16"), setter="set_mixed_precision",
    )  # fmt: skip
    level: str = option(
        "O1",
        "O1 runs convolutions, matrix products and PReLU in half precision, and what follows in the type of its "
        "inputs. O2 also runs normalization of layers, softmax and sums with a parameter in half; each parameter "
        "is cast once a step, and gradients in whole buckets. Weights are float32 with both.",
        choices=("O1", "O2"), setter="set_mixed_precision",
    )  # fmt: skip
    init_loss_scaling: float = option(
        32768.0,
        "The initial loss scale, for float16. The default 2^15 is a power of two, so scaling does not round, and large "
        "enough that gradients of a batch mean do not underflow in half precision; a scale that is too large is halved "
        "within a few steps. PLSC 0.x started with 1, which needs 2000 steps to double once.",
        within="(0, 1e30]", setter="set_mixed_precision",
    )  # fmt: skip
    incr_every_n_steps: int = option(
        2000, "The loss scale grows after this many finite steps in a row.", unit="steps", within="[1, 2147483647]",
        setter="set_mixed_precision",
    )  # fmt: skip
    decr_every_n_nan_or_inf: int = option(
        2, "The loss scale shrinks after this many steps that were not finite.", unit="steps", within="[1, 2147483647]",
        setter="set_mixed_precision",
    )  # fmt: skip
    incr_ratio: float = option(2.0, "The growth factor.", within="(1, 1e30]", setter="set_mixed_precision")
    decr_ratio: float = option(0.5, "The factor by which it shrinks.", within="(0, 1)", setter="set_mixed_precision")
    use_dynamic_loss_scaling: bool = option(
        True, "Adjust the loss scale dynamically; otherwise it is constant.", setter="set_mixed_precision"
    )
    custom_white_list: list[str] = option(
        [], "Operators to run in half precision in addition to Paddle's list.", setter="set_mixed_precision"
    )
    custom_black_list: list[str] = option(
        [], "Operators to keep in full precision in addition to Paddle's list.", setter="set_mixed_precision"
    )

    @property
    def scales_loss(self) -> bool:
        """True where gradients are float16, whose range is small."""
        return self.enabled and self.dtype == "float16"
