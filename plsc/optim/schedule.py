"""The learning rate of every step, and the one place where durations are turned into steps. Numbers only."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

from plsc.config import Config
from plsc.errors import ConfigError


def epochs_to_steps(epochs: float, num_images: int, global_batch: int, done: int = 0) -> int:
    """The number of steps after which `epochs` epochs are done: ceil(epochs * num_images / global_batch), exactly.

    `done`: samples used before the first of these steps. Epochs follow one another without padding, so the step that
    finishes an epoch may begin the next one.
    """
    # A float counts as the decimal number that the user wrote: 0.1 is one tenth, so that 0.1 epochs of 1000 steps are
    # 100 steps and not 101.
    return math.ceil((Fraction(str(epochs)) * num_images - done) / global_batch)


def run_length(config: Config, global_batch: int, num_images: int) -> int:
    """The number of steps of the run: train_steps, or train_epochs in steps."""
    if config.train_epochs is None:
        return config.train_steps
    return epochs_to_steps(config.train_epochs, num_images, global_batch)


@dataclasses.dataclass(frozen=True)
class LearningRateSchedule:
    """The learning rate as a function of the step.

    base_lr: the rate after the warm-up, already scaled. kind: "piecewise", "polynomial" or "cosine". total_steps: the
    length of the run, warm-up included. warmup_steps: from 0 to base_lr in a straight line. boundaries (piecewise):
    steps counted from the start of the run, increasing, not inside the warm-up; from each on, the rate is multiplied
    by decay_factor once more. power: polynomial only. end_lr (not piecewise): what step total_steps would use.
    Raises ConfigError where boundaries lie inside the warm-up or end_lr is above base_lr.
    """

    base_lr: float
    kind: str
    total_steps: int
    warmup_steps: int
    boundaries: tuple[int, ...]
    decay_factor: float
    power: float
    end_lr: float

    def __post_init__(self) -> None:
        if self.kind == "piecewise" and self.boundaries and self.boundaries[0] < self.warmup_steps:
            raise ConfigError(
                f"lr_schedule.boundaries: the first is step {self.boundaries[0]}, inside the warm-up of "
                f"{self.warmup_steps} steps; make the warm-up shorter or begin later"
            )
        if self.kind != "piecewise" and self.end_lr > self.base_lr:
            raise ConfigError(
                f"lr_schedule.end_lr={self.end_lr}: is above the scaled learning rate {self.base_lr:g}; "
                "make it at most that"
            )

    def without_effect(self) -> list[str]:
        """A line for what this run is too short for; to be logged at the start."""
        lines = []
        if self.warmup_steps >= self.total_steps > 0:
            lines.append(f"the warm-up of {self.warmup_steps} steps does not end in the {self.total_steps} of this run")
        late = [boundary for boundary in self.boundaries if boundary >= self.total_steps]
        if self.kind == "piecewise" and late:
            lines.append(f"lr_schedule.boundaries: {late} lie beyond the {self.total_steps} steps of this run")
        return lines

    def lr(self, step: int) -> float:
        """The rate that step `step` (0, 1, ...) uses. Step 0 of a warm-up uses 0, as in PLSC 2.2."""
        if step < self.warmup_steps:
            return self.base_lr * step / self.warmup_steps
        if self.kind == "piecewise":
            return self.base_lr * self.decay_factor ** sum(step >= boundary for boundary in self.boundaries)
        if step >= self.total_steps:
            return self.end_lr
        done = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)  # 0 .. 1 after the warm-up
        if self.kind == "polynomial":
            return self.end_lr + (self.base_lr - self.end_lr) * (1.0 - done) ** self.power
        return self.end_lr + (self.base_lr - self.end_lr) * 0.5 * (1.0 + math.cos(math.pi * done))


def schedule_from_config(config: Config, global_batch: int, num_images: int, total_steps: int) -> LearningRateSchedule:
    """The schedule of a run with `global_batch` images a step over all ranks and `num_images` images an epoch.

    The rate is lr * global_batch / lr_reference_batch (512 by default as in PLSC 2.2; PLSC 0.x used 1024).
    """
    plan = config.lr_schedule
    if plan.warmup_epochs is not None:
        warmup_steps = epochs_to_steps(plan.warmup_epochs, num_images, global_batch)
    else:
        warmup_steps = plan.warmup_steps or 0
    boundaries = tuple(plan.boundaries)
    if plan.unit == "epoch":
        boundaries = tuple(epochs_to_steps(epoch, num_images, global_batch) for epoch in boundaries)
    return LearningRateSchedule(
        base_lr=config.lr * global_batch / config.lr_reference_batch,
        kind=plan.kind,
        total_steps=total_steps,
        warmup_steps=warmup_steps,
        boundaries=boundaries,
        decay_factor=plan.decay_factor,
        power=plan.power,
        end_lr=plan.end_lr,
    )
