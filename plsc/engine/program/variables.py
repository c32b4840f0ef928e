"""The roles of the persistent variables of a training program, set where they are created."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Role(Enum):
    """The role of a variable that is equal on every rank."""

    BACKBONE = "a weight or a statistic of the backbone"
    AVERAGE = "the average of a weight or a statistic of the backbone"
    STEP = "the number of steps"
    LOSS_SCALING = "the loss's factor in mixed precision, and what moves it"
    LOSS = "a state of the loss"
    OPTIMIZER = "a state of the optimizer, of a weight of the backbone or of none"
    CLASSES = "a state of the optimizer that belongs to the class weights as a whole"


@dataclass(frozen=True)
class Variable:
    """A variable that is the same on every rank. ``name``: in the program; ``stored``: in a checkpoint."""

    name: str
    role: Role
    stored: str


def variables(role: Role, names: Iterable[str]) -> list[Variable]:
    """Variables that a checkpoint keeps under the names that they have in the program."""
    return [Variable(name, role, name) for name in names]
