"""A step function."""

from __future__ import annotations

from plsc.optim.schedules import register_schedule


@register_schedule("piecewise")
def piecewise(step: int, base_lr: float, boundaries: tuple[int, ...], decay_factor: float) -> float:
    """base_lr, multiplied by decay_factor at each boundary."""
    return base_lr * decay_factor ** sum(step >= boundary for boundary in boundaries)
