"""The end of the training program: all that changes a weight, in one branch that a skipped step does not take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import paddle

from plsc.backend import ops, static
from plsc.checkpoint import average_name
from plsc.classifiers import StepOutput
from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.program.gradients import Gradients
from plsc.engine.program.optimizers import Updates
from plsc.engine.program.variables import Role, Variable, variables
from plsc.optim.average import append_averages, create_averages
from plsc.optim.parameters import create_slots, update_parameters
from plsc.rows.shard_rows import ShardRows
from plsc.rows.skipped import zero_if_skipped


@dataclass(frozen=True)
class Changed:
    """``variables``: the states that the update needs, the same on every rank. ``averages``: see
    TrainProgram.averages."""

    variables: list[Variable]
    averages: dict[str, str]


@dataclass(frozen=True)
class StepEnd:
    """What the update needs besides the gradients. ``moving``: {name: variable of the backbone that is not frozen};
    ``updates``: None with a user's optimizer; ``step`` [1] int64."""

    config: Config
    user_objects: UserObjects
    moving: dict[str, Any]
    rows: ShardRows
    updates: Updates | None
    step: Any


def append_update(gradients: Gradients, output: StepOutput, end: StepEnd) -> Changed:
    """Append the update of backbone, rows, averages and the states of the loss.

    The running statistics change in a skipped step as well, and so do weights by a user's optimizer, which cannot be
    built in a branch: its gradients are then 0.
    """
    for target, mean in zip(gradients.statistics, gradients.mean_statistics):
        if target is not mean:
            paddle.assign(mean, output=target)
    found, updates, ema = gradients.found, end.updates, end.config.ema
    made, slots = [], []
    if updates is None:
        made = _update_by_user(gradients, end)
    else:
        slots = create_slots(gradients.parameters, updates.backbone.optimizer)
        names = [slot.name for each in slots for slot in each] + ([] if updates.count is None else [updates.count.name])
        made = variables(Role.OPTIMIZER, names)
    averaged = _averaged(end.moving) if ema.decay is not None else []
    names = [average_name(name) for name in averaged]
    weights = [end.moving[name] for name in averaged]
    averages = create_averages(names, weights)

    def move() -> None:
        if updates is not None:
            if gradients.rows is not None:
                end.rows.update(gradients.rows, updates.rows)
            update_parameters(gradients.parameters, slots, gradients.replicated.apart(), updates.backbone)
            updates.count_step()
        if averages:
            append_averages(averages, weights, end.step, ema.decay, ema.warmup)
        for state, value in output.states:
            paddle.assign(value, output=state)
        for table, index, rows in output.writes:
            table.write(index, rows)

    ops.append_unless(found, move)
    of_loss = variables(Role.LOSS, [state.name for state, _ in output.states])
    return Changed([*made, *of_loss, *variables(Role.AVERAGE, names)], dict(zip(averaged, names)))


def _update_by_user(gradients: Gradients, end: StepEnd) -> list[Variable]:
    optimizer, main = end.user_objects.optimizer, paddle.static.default_main_program()
    before = set(static.persistables(main))
    replicated = gradients.replicated.map(lambda value: zero_if_skipped(gradients.found, value)).apart()
    ops.apply_gradients(optimizer, list(zip(gradients.parameters, replicated)))
    created = [name for name in static.persistables(main) if name not in before]
    of_rows = end.rows.update_by(optimizer, gradients.rows, gradients.found)
    return variables(Role.OPTIMIZER, created) + [
        Variable(name, Role.OPTIMIZER if stored is None else Role.CLASSES, stored or name)
        for name, stored in of_rows.items()
    ]


def _averaged(moving: dict[str, Any]) -> list[str]:
    """The names of the weights and statistics of the backbone."""
    return [name for name, value in moving.items() if static.is_trainable(value) or static.is_statistic(value)]
