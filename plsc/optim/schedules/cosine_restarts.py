"""Half a cosine, several times: warm restarts."""

from __future__ import annotations

import math
from fractions import Fraction

from plsc.errors import ConfigError
from plsc.optim.schedules import register_schedule


@register_schedule("cosine_restarts", source="SGDR, arXiv:1608.03983, equation 5")
def cosine_restarts(
    step: int, base_lr: float, warmup_steps: int, total_steps: int, end_lr: float, cycles: int, growth: float = 1.0
) -> float:
    """``cycles`` times from base_lr to end_lr along half a cosine, in the steps after the warm-up.

    ``growth``: each cycle is so many times as long as the one before (T_mult of the paper; any number above 0). A cycle
    begins, with base_lr, in the first step at or after the end of the one before.
    """
    if cycles < 1:
        raise ConfigError(f"lr_schedule.options: cycles={cycles}: must be at least 1")
    if not 0 < growth < math.inf:
        raise ConfigError(f"lr_schedule.options: growth={growth}: must be a number above 0")
    done = _completed_share(step, warmup_steps, total_steps, cycles, growth)
    return end_lr + (base_lr - end_lr) * 0.5 * (1.0 + math.cos(math.pi * done))


def _completed_share(step: int, warmup_steps: int, total_steps: int, cycles: int, growth: float) -> float:
    """The completed fraction of the cycle of a step; 1 from step ``total_steps`` on.

    Exact until the last division: a restart is never a step early or late because 0.1 + 0.2 is not 0.3.
    """
    if step >= total_steps:
        return 1.0
    ratio = Fraction(str(growth))
    lengths = [ratio**number for number in range(cycles)]
    first = Fraction(total_steps - warmup_steps) / sum(lengths)  # steps of the first cycle
    left = Fraction(step - warmup_steps)
    for length in lengths:
        if left < first * length:
            return float(left / (first * length))
        left -= first * length
    return 1.0
