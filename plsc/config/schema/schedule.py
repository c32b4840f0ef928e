"""The section `lr_schedule`."""

from __future__ import annotations

import dataclasses

from plsc.config.option import option
from plsc.registry import SCHEDULES


@dataclasses.dataclass(frozen=True)
class LrSchedule:
    """How the learning rate changes over the run."""

    kind: str = option(
        "piecewise",
        "The learning rate after the warm-up (`plsc list schedules`): in steps at `boundaries`, polynomial, half a "
        "cosine, once or with restarts, one cycle, or your own function from a module in `plugins`.",
        registry=SCHEDULES,
    )
    unit: str = option("step", "The unit of `boundaries`.", choices=("step", "epoch"))
    boundaries: list[int] = option(
        [100000, 140000, 160000],
        "Piecewise: at each of these points, counted from the start of the run, the learning rate is multiplied by "
        "`decay_factor` once more. set_step_boundaries also sets `unit` to step.",
        unit="`unit`", within="[1, 1e12]", increasing=True,
        setter="set_step_boundaries", attributes=("lr_steps",),
    )  # fmt: skip
    decay_factor: float = option(
        0.1, "Piecewise: the factor at each boundary.", within="(0, 1]",
        setter="set_lr_decay_factor", attributes=("lr_decay_factor",),
    )  # fmt: skip
    power: float = option(1.0, "Polynomial: the power; 1 is a straight line.", within="(0, 1000]")
    end_lr: float = option(
        0.0,
        "All but piecewise: the learning rate at the end of the run; not scaled by the batch.",
        within="[0, 1e30]",
    )
    options: dict = option({}, "Further options of the schedule: parameters of its function.")
    warmup_epochs: float | None = option(
        None, "The learning rate rises linearly from 0 to its full value over this time. Clears `warmup_steps`.",
        unit="epochs", within="[0, 1e6]", setter="set_warmup_epochs", attributes=("warmup_epochs",),
    )  # fmt: skip
    warmup_steps: int | None = option(
        None, "The same in steps. Clears `warmup_epochs`. Without either there is no warm-up.",
        unit="steps", within="[0, 1e12]",
    )  # fmt: skip
