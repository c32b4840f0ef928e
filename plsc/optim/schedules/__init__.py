"""Learning-rate schedules, one file each: pure functions of the step, known by the setting `lr_schedule.kind`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from plsc.registry import SCHEDULES
from plsc.signatures import require_signature

__all__ = ["progress", "register_schedule"]


def register_schedule(name: str, *, source: str = "") -> Callable:
    """Decorator: registers ``function(step, ...) -> learning rate`` as ``name``. ``source``: the paper.

    It is called for the steps after the warm-up. Parameters called base_lr, total_steps, warmup_steps, boundaries
    (steps), decay_factor, power and end_lr get the values of the run; all others are its options, set by
    ``lr_schedule.options``. Raises ConfigError for a name that is taken, and for another signature.
    """
    add = SCHEDULES.register(name, source=source)

    def checked(value: Any) -> Any:
        require_signature(f"schedule {name!r}", value, ("step",))
        return add(value)

    return checked


def progress(step: int, warmup_steps: int, total_steps: int) -> float:
    """The completed fraction of the steps after the warm-up: from 0 to 1, and 1 from step ``total_steps`` on."""
    return 1.0 if step >= total_steps else (step - warmup_steps) / (total_steps - warmup_steps)
