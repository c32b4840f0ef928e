"""Half a cosine."""

from __future__ import annotations

import math

from plsc.optim.schedules import progress, register_schedule


@register_schedule("cosine", source="SGDR, arXiv:1608.03983, section 3, without restarts")
def cosine(step: int, base_lr: float, warmup_steps: int, total_steps: int, end_lr: float) -> float:
    """From base_lr to end_lr along half a cosine."""
    return end_lr + (base_lr - end_lr) * 0.5 * (1.0 + math.cos(math.pi * progress(step, warmup_steps, total_steps)))
