"""Learning-rate schedules, one file each: pure functions of the step, known by the setting `lr_schedule.kind`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from plsc.registry import SCHEDULES
from plsc.signatures import require_signature

__all__ = ["progress", "register_schedule"]


def register_schedule(name: str, *, source: str = "") -> Callable:
    """Decorator: ``function(step, ...) -> rate`` becomes known as ``name``. ``source``: the paper it is from.

    It is asked for the steps after the warm-up. Its other parameters get, by their names, what the run is like:
    base_lr, total_steps, warmup_steps, boundaries (steps), decay_factor, power, end_lr; all others are its options, set
    by ``lr_schedule.options``. Raises ConfigError for a name that is taken, and for another signature.
    """
    add = SCHEDULES.register(name, source=source)

    def checked(value: Any) -> Any:
        require_signature(f"schedule {name!r}", value, ("step",))
        return add(value)

    return checked


def progress(step: int, warmup_steps: int, total_steps: int) -> float:
    """How much of the time after the warm-up is over: from 0 to 1, and 1 from step ``total_steps`` on."""
    return 1.0 if step >= total_steps else (step - warmup_steps) / (total_steps - warmup_steps)
