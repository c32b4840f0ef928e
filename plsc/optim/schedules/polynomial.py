"""Polynomial decay."""

from __future__ import annotations

from plsc.optim.schedules import progress, register_schedule


@register_schedule("polynomial")
def polynomial(
    step: int, base_lr: float, warmup_steps: int, total_steps: int, power: float, end_lr: float
) -> float:
    """From base_lr to end_lr by a power of the remaining fraction of the run."""
    return end_lr + (base_lr - end_lr) * (1.0 - progress(step, warmup_steps, total_steps)) ** power
