"""The steps of a run: their number, positions in the data, learning rates and epochs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from plsc.config import Config
from plsc.data import GlobalBatchSampler, SampleOrder
from plsc.data.sampler import SHUFFLED
from plsc.optim.schedule import LearningRateSchedule, epochs_to_steps, run_length, schedule_from_config
from plsc.parallel.environment import Environment


@dataclass(frozen=True)
class Progress:
    """The position of a run: optimizer steps done, samples of the training stream used."""

    step: int = 0
    samples: int = 0


@dataclass(frozen=True)
class TrainingSteps:
    """Steps [first.step, last) of this run, of ``global_batch`` samples each, ``num_images`` an epoch.

    num_images: of the data, or SampleOrder.epoch_length.

    The run may have begun with another global batch: steps and samples are both counted on, so that no sample of an
    epoch is skipped or used twice.
    """

    first: Progress
    last: int
    num_images: int
    global_batch: int
    schedule: LearningRateSchedule

    @classmethod
    def of(cls, config: Config, world_size: int, num_images: int, first: Progress) -> TrainingSteps:
        """The steps of a run that continues from ``first``. Raises ConfigError for an invalid schedule."""
        global_batch = config.step_batch_size * world_size
        # steps that were not made because earlier ones had a larger global batch; below 0 for a smaller one
        ahead = Fraction(first.samples, global_batch) - first.step
        last = run_length(config, global_batch, num_images)
        if config.train_epochs is not None:
            last = first.step + max(0, epochs_to_steps(config.train_epochs, num_images, global_batch, first.samples))
        schedule = schedule_from_config(config, global_batch, num_images, last)
        return cls(first, last, num_images, global_batch, _shifted(schedule, config, int(ahead)))

    def samples(self, step: int) -> int:
        """Samples of the stream used when ``step`` steps are done."""
        return self.first.samples + (step - self.first.step) * self.global_batch

    def epoch(self, step: int) -> int:
        """The epoch in which step ``step`` begins."""
        return self.samples(step) // self.num_images

    def ends_epoch(self, step: int) -> bool:
        """True if an epoch is complete after ``step`` steps and was not one step before."""
        return self.epoch(step) > self.epoch(step - 1)

    def sampler(
        self, batch_size: int, env: Environment, seed: int, order: SampleOrder = SHUFFLED
    ) -> GlobalBatchSampler:
        """The samples in this order. Its steps are those of ``data_steps``."""
        order = replace(order, skip=self.first.samples % self.global_batch)
        return GlobalBatchSampler(self.num_images, batch_size, env.rank, env.world_size, seed, order)

    def data_steps(self) -> tuple[int, int]:
        """[first, last) of the run as the sampler counts: in global batches of now."""
        begin = self.first.samples // self.global_batch
        return begin, begin + max(0, self.last - self.first.step)


def _shifted(schedule: LearningRateSchedule, config: Config, ahead: int) -> LearningRateSchedule:
    """The schedule with everything given in epochs shifted to the steps at which those epochs end in this run, and the
    whole run of epochs too: the fraction of it that is done is that of its samples."""
    if ahead == 0:
        return schedule
    warmup, boundaries = schedule.warmup_steps, schedule.boundaries
    moved = max(-warmup, min(ahead, 0))  # a warm-up in steps stays: how many samples it had is not known
    if config.lr_schedule.warmup_epochs is not None:
        warmup, moved = warmup - ahead, ahead
    if config.lr_schedule.unit == "epoch":
        boundaries = tuple(max(boundary - ahead, warmup) for boundary in boundaries)
    if config.train_epochs is not None:
        return replace(schedule, warmup_steps=warmup, boundaries=boundaries, ahead=ahead, warmup_ahead=moved)
    return replace(schedule, warmup_steps=max(0, warmup), boundaries=tuple(max(0, one) for one in boundaries))
