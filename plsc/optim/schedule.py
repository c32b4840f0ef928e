"""The learning rate of every step, and the conversion of epochs to steps. Plain numbers, no tensors."""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from plsc.config import OPTIONS, Config
from plsc.config.extensions import SCHEDULE
from plsc.errors import ConfigError, PlscError, reason_of
from plsc.registry import SCHEDULES
from plsc.signatures import select_arguments


def epochs_to_steps(epochs: float, num_images: int, global_batch: int, done: int = 0) -> int:
    """The number of steps in `epochs` epochs: ceil(epochs * num_images / global_batch), exactly.

    `done`: samples used before the first of these steps. Epochs follow one another without padding, so the step that
    finishes an epoch may start the next one.
    """
    # A float counts as the decimal number that the user wrote: 0.1 is one tenth, so 0.1 epochs of 1000 steps are 100
    # steps and not 101.
    return math.ceil((Fraction(str(epochs)) * num_images - done) / global_batch)


def run_length(config: Config, global_batch: int, num_images: int) -> int:
    """The number of steps of the run: train_steps, or train_epochs in steps."""
    if config.train_epochs is None:
        return config.train_steps
    return epochs_to_steps(config.train_epochs, num_images, global_batch)


@dataclasses.dataclass(frozen=True)
class LearningRateSchedule:
    """The learning rate as a function of the step.

    base_lr: the learning rate after the warm-up, already scaled. kind: a registered schedule. total_steps: the length
    of the run, warm-up included. warmup_steps: linear from 0 to base_lr. boundaries: steps counted from the start of
    the run, increasing, not inside the warm-up. decay_factor, power, end_lr (the learning rate of step total_steps):
    for the schedules that take them. options: those of this schedule. ahead, warmup_ahead: what the function that
    computes the schedule gets in addition to each step, and to that of the end of the warm-up, so that a run of epochs
    that began with another global batch has done that fraction of it which its samples are. Raises ConfigError where a
    boundary lies inside the warm-up, end_lr is above base_lr, or the schedule fails.
    """

    base_lr: float
    kind: str
    total_steps: int
    warmup_steps: int
    boundaries: tuple[int, ...]
    decay_factor: float
    power: float
    end_lr: float
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    ahead: int = 0
    warmup_ahead: int = 0

    def __post_init__(self) -> None:
        if "boundaries" in self._arguments and self.boundaries and self.boundaries[0] < self.warmup_steps:
            raise ConfigError(
                f"lr_schedule.boundaries: the first is step {self.boundaries[0]}, inside the warm-up of "
                f"{self.warmup_steps} steps; make the warm-up shorter or the boundary later"
            )
        if "end_lr" in self._arguments and self.end_lr > self.base_lr:
            raise ConfigError(
                f"lr_schedule.end_lr={self.end_lr}: is above the scaled learning rate {self.base_lr:g}; "
                "make it at most that"
            )
        for step in (0, self.total_steps // 2, self.total_steps - 1):
            self.lr(max(step, self.warmup_steps))  # raises before the first step what would fail later

    def without_effect(self) -> list[str]:
        """A line for each setting that has no effect because the run is too short, to be logged at the start."""
        lines = []
        if self.warmup_steps >= self.total_steps > 0:
            lines.append(f"the warm-up of {self.warmup_steps} steps is longer than the run of {self.total_steps} steps")
        late = [boundary for boundary in self.boundaries if boundary >= self.total_steps]
        default = self.boundaries == tuple(OPTIONS["lr_schedule.boundaries"].default)
        if "boundaries" in self._arguments and late and not default:
            lines.append(f"lr_schedule.boundaries: {late} lie beyond the {self.total_steps} steps of this run")
        return lines

    def lr(self, step: int) -> float:
        """The learning rate of step `step` (0, 1, ...). Step 0 of a warm-up has 0, as in PLSC 2.2."""
        if step < self.warmup_steps:
            return self.base_lr * step / self.warmup_steps
        try:
            value = self._function(max(0, step + self.ahead), **self._arguments)
        except PlscError:
            raise
        except Exception as error:
            raise ConfigError(f"lr_schedule.kind={self.kind!r}: step {step}: raised {reason_of(error)}") from error
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= value < math.inf:
            raise ConfigError(
                f"lr_schedule.kind={self.kind!r}: returned {value!r:.80} at step {step}; a learning rate must be a "
                "number of at least 0"
            )
        return float(value)

    @functools.cached_property
    def _function(self) -> Callable[..., float]:
        return SCHEDULES.find(self.kind)

    @functools.cached_property
    def _arguments(self) -> dict[str, Any]:
        """The keyword arguments of the schedule."""
        run = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in ("kind", "options", "ahead", "warmup_ahead"):
            del run[name]
        run["total_steps"] = max(0, self.total_steps + self.ahead)
        run["warmup_steps"] = self.warmup_steps + self.warmup_ahead
        run["boundaries"] = tuple(max(0, one + self.ahead) for one in self.boundaries)
        return {**select_arguments(self._function, run, 1), **self.options}


def schedule_from_config(config: Config, global_batch: int, num_images: int, total_steps: int) -> LearningRateSchedule:
    """The schedule of a run with `global_batch` images per step over all ranks and `num_images` images per epoch.

    The learning rate is lr * global_batch / lr_reference_batch (512 by default as in PLSC 2.2; PLSC 0.x used 1024).
    """
    settings = config.lr_schedule
    SCHEDULE.check(config.settings)
    if settings.warmup_epochs is not None:
        warmup_steps = epochs_to_steps(settings.warmup_epochs, num_images, global_batch)
    else:
        warmup_steps = settings.warmup_steps or 0
    boundaries = tuple(settings.boundaries)
    if settings.unit == "epoch":
        boundaries = tuple(epochs_to_steps(epoch, num_images, global_batch) for epoch in boundaries)
    return LearningRateSchedule(
        base_lr=config.lr * global_batch / config.lr_reference_batch,
        kind=settings.kind,
        total_steps=total_steps,
        warmup_steps=warmup_steps,
        boundaries=boundaries,
        decay_factor=settings.decay_factor,
        power=settings.power,
        end_lr=settings.end_lr,
        options=settings.options,
    )
