"""The programs of one rank, with what the code around them needs to know of their variables."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from plsc.classifiers import ClassifierSpec, Shard
from plsc.classifiers.hard_negatives import NEAREST, HardNegatives
from plsc.engine.program.optimizers import Optimizers
from plsc.engine.program.variables import Role, Variable
from plsc.rows.shard_rows import ShardRows
from plsc.rows.storage import ClassTable, RowTable


@dataclass(frozen=True)
class TrainProgram:
    """One rank's training program, and its variables and results for the loop.

    ``feeds`` maps input names to data values. ``result_names``: the numbers of a step: loss, stop, acc1, acc5, skipped,
    momentum_cut (plsc.engine.program.results). ``variables`` are the persistable ones that are equal on every rank,
    with their roles; those of this rank's classes are in ``rows``. ``parameters`` are the backbone's trainable ones,
    ``frozen`` the names of all its variables that ``model.freeze`` keeps as they are. ``optimizers``: None with a
    user's optimizer; ``optimizer_count`` names the variable that counts their steps, where one wants to know their
    number (RowOptimizer.numbers). ``averages``: {variable of the backbone: that of its average}, see
    plsc.optim.average. ``hard``: where a part of the sample is hard negatives. ``pixels``: images are fed as uint8, and
    the program normalizes them.
    """

    main: Any
    startup: Any
    feeds: dict[str, Any]
    result_names: tuple[str, ...]
    variables: list[Variable]
    spec: ClassifierSpec
    shard: Shard
    rows: ShardRows
    parameters: list[Any]
    optimizers: Optimizers | None
    optimizer_count: str | None
    frozen: frozenset[str] = frozenset()
    averages: dict[str, str] = field(default_factory=dict)
    hard: HardNegatives | None = None
    pixels: bool = False

    @property
    def tables(self) -> dict[str, RowTable | ClassTable]:
        """All arrays with one row per class of the shard, by their names in a checkpoint; the weight first."""
        return {**self.rows.tables, **({} if self.hard is None else {NEAREST: self.hard.table})}

    @property
    def replicated(self) -> list[str]:
        """The names of ``variables``."""
        return [variable.name for variable in self.variables]

    def names(self, role: Role) -> list[str]:
        """The names of the ``variables`` with this role."""
        return [variable.name for variable in self.variables if variable.role is role]

    @property
    def backbone(self) -> list[str]:
        """The names of all variables of the backbone."""
        return self.names(Role.BACKBONE)


@dataclass(frozen=True)
class EvalProgram:
    """Images [B, C, H, W] of each rank -> ``feature`` [B * world_size, E] of all ranks, on every rank."""

    main: Any
    startup: Any
    feeds: dict[str, Any]
    feature: Any
    own_feature: Any
