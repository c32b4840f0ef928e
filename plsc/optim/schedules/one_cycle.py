"""One cycle: a rise to the full rate, and a fall to the final one."""

from __future__ import annotations

import math

from plsc.errors import ConfigError
from plsc.optim.schedules import register_schedule

SHAPES = ("cosine", "linear")


@register_schedule("one_cycle", source="Smith & Topin, arXiv:1708.07120, section 3")
def one_cycle(
    step: int,
    base_lr: float,
    warmup_steps: int,
    total_steps: int,
    end_lr: float,
    rise: float = 0.3,
    start_factor: float = 0.04,
    shape: str = "cosine",
) -> float:
    """From start_factor * base_lr up to base_lr in the fraction ``rise`` of the run, then down to end_lr.

    ``shape``: of both parts, half a cosine or a straight line. base_lr is the rate of step rise * total_steps - 1 and
    end_lr that of the last step, as with PyTorch's OneCycleLR. The momentum stays as it is. The rise takes the place of
    a warm-up: with one, ConfigError is raised.
    """
    _check(warmup_steps, rise, start_factor, shape)
    peak, last = rise * total_steps - 1.0, total_steps - 1.0
    if step <= peak:
        return _between(start_factor * base_lr, base_lr, step / peak if peak > 0 else 1.0, shape)
    # a run too short to rise begins with the full rate
    begin = max(peak, 0.0)
    return _between(base_lr, end_lr, min(1.0, (step - begin) / (last - begin)) if last > begin else 1.0, shape)


def _between(start: float, end: float, share: float, shape: str) -> float:
    """From ``start`` (share 0) to ``end`` (share 1)."""
    if shape == "linear":
        return start + (end - start) * share
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * share))


def _check(warmup_steps: int, rise: float, start_factor: float, shape: str) -> None:
    if warmup_steps:
        raise ConfigError(
            f"lr_schedule.kind='one_cycle': rises by itself and has no warm-up, here {warmup_steps} steps; remove "
            "lr_schedule.warmup_steps and warmup_epochs, and set lr_schedule.options.rise"
        )
    if not 0 < rise < 1:
        raise ConfigError(f"lr_schedule.options: rise={rise}: must be a number in (0, 1), the fraction of the run")
    if not 0 <= start_factor <= 1:
        raise ConfigError(f"lr_schedule.options: start_factor={start_factor}: must be a number in [0, 1]")
    if shape not in SHAPES:
        raise ConfigError(f"lr_schedule.options: shape={shape!r}: must be one of {', '.join(SHAPES)}")
