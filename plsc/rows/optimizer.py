"""RowOptimizer, the base class of optimizers: its state per weight, one step, and how a row makes up missed steps.

One class describes an optimizer for the class centres and for the backbone. Its formulas use ``+ - * /`` and functions
that have the same name in Paddle and NumPy (``step.xp``: sqrt, exp, abs, sign, maximum, ...). They run on the device,
on values of the program, and on the host, on arrays. How to write one: docs/add_an_optimizer.md. Imports without
Paddle.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from plsc.errors import ConfigError
from plsc.registry import OPTIMIZERS
from plsc.signatures import require_signature

LARGEST_FLOAT16 = 65504.0
CATCH_UP_METHODS = ("nothing_missed", "missed", "bring_up_to_date")  # for rows with missed steps
RESERVED = {"weight", "touched", "w"}  # names of other arrays of a shard


@dataclass(frozen=True)
class Slot:
    """A state of an optimizer for each weight, an array of the weight's shape.

    ``name``: in the program and in checkpoints. ``initial``: its initial value. A slot is float32, or with
    ``follows_storage`` of the type ``classifier.storage``. In float16 its numbers are stored times ``float16_factor``,
    a power of two; numbers that are too large are clipped and counted in the result ``cut_count`` of a step.
    """

    name: str
    initial: float = 0.0
    follows_storage: bool = False
    float16_factor: float = 1.0
    cut_count: str = ""

    @property
    def float16_limit(self) -> float:
        """The largest number that it can hold in float16."""
        return LARGEST_FLOAT16 / self.float16_factor


@dataclass(frozen=True)
class Step:
    """The arguments of one step: values [1] float32 in a program, numbers on the host.

    ``weight_decay``: a number, for this weight. ``numbers``: the result of RowOptimizer.numbers for this step. ``xp``:
    the module paddle or numpy.
    """

    learning_rate: Any
    weight_decay: float
    numbers: tuple = ()
    xp: Any = np


class MissedSteps(Protocol):
    """The steps that R rows have missed, each since a different step: in a program or on the host."""

    xp: Any
    weight_decay: float

    def factors(self) -> list:
        """The numbers [R, 1] of RowOptimizer.missed for the step at which each row was last up to date."""

    def replay(self, optimizer: RowOptimizer, weight, slots: tuple) -> tuple:
        """(weight, slots) after the missed steps, one after the other, with gradient 0."""


class RowOptimizer(abc.ABC):
    """Base class of optimizers. The constructor takes the keys of ``optimizer.options``; a parameter ``momentum`` gets
    the setting ``momentum``.

    ``slots``: its states for each weight. ``name``, ``arguments``: the name and arguments it was built from.
    """

    slots: ClassVar[tuple[Slot, ...]] = ()
    name: str = ""
    arguments: Mapping[str, Any] = {}

    @abc.abstractmethod
    def step(self, weight, slots: tuple, gradient, step: Step) -> tuple:
        """(weight, slots) after one step, computed from those before it. All have one shape (for the backbone: those of
        ``slots_of``); do not change them in place.

        The formula of a number may use other numbers of its row (for the backbone: of the whole parameter).
        """

    def numbers(self, count: int) -> Sequence[float]:
        """Further numbers for step ``count`` (from 1), such as a bias correction, computed on the host.

        Steps skipped by mixed precision are not counted. The number of results must not depend on ``count``.
        """
        return ()

    def slots_of(self, shape: Sequence[int]) -> tuple[tuple[Slot, list[int]], ...]:
        """The slots of a parameter of the backbone of this ``shape``, some of ``slots``, each with its own shape.

        An optimizer with other shapes than that of the weight needs ``for_rows = False``.
        """
        return tuple((slot, list(shape)) for slot in self.slots)

    # --- rows with missed steps: by default the steps are replayed one by one ---

    def nothing_missed(self) -> Sequence[float]:
        """The K numbers of a row that is up to date, see ``missed``."""
        return np.zeros(2 + len(self.numbers(1)))  # whether the step was applied, its learning rate, its numbers

    def missed(self, table: np.ndarray, step: Step) -> np.ndarray:
        """``table`` [n, K] float64 after one more step without a gradient. Entry k holds the numbers for a row that was
        last up to date at step k; the last entry was ``nothing_missed`` before."""
        table = table.copy()
        table[-1] = (1.0, step.learning_rate, *step.numbers)
        return table

    def bring_up_to_date(self, weight, slots: tuple, missed: MissedSteps) -> tuple:
        """(weight, slots) after all missed steps, computed from those before them."""
        return missed.replay(self, weight, slots)

    def of_window(self, numbers: int) -> RowOptimizer | None:
        """The optimizer that brings rows up to date by a window of ``numbers`` a step, as a checkpoint of another
        version may have it; None where that cannot be done."""
        return self if numbers == len(self.nothing_missed()) else None

    @property
    def repeats_missed_steps(self) -> bool:
        """True where rows make up missed steps one by one, at a cost that grows with their number."""
        return type(self).bring_up_to_date is RowOptimizer.bring_up_to_date

    # --- optional, for speed: the same results in another way ---

    def update_(self, weight, slots: tuple, gradient, step: Step) -> None:
        """Append one step to the program being built; it changes the variables ``weight`` and ``slots`` in place."""
        import paddle

        new_weight, new_slots = self.step(weight, slots, gradient, step)
        for target, value in zip((weight, *slots), (new_weight, *new_slots)):
            paddle.assign(value, output=target)

    for_rows: ClassVar[bool] = True  # False: a formula of the whole parameter, for the backbone only
    has_kernels: bool = False  # True: ``rows_class`` can process sampled rows by plsc.rows.row_kernels

    def rows_class(self, sampled: bool) -> Callable | None:
        """The subclass of plsc.rows.shard_rows.DenseRows or SampledRows for this optimizer; None for these two classes
        themselves."""
        return None


@dataclass(frozen=True)
class Update:
    """One step of an optimizer in the program being built, for the backbone and for the rows.

    ``learning_rate`` [1] float32; ``weight_decay``: the setting; ``numbers`` [1] each. ``decay_vectors``: parameters of
    one dimension decay as well.
    """

    optimizer: RowOptimizer
    learning_rate: Any
    weight_decay: float
    numbers: tuple = ()
    decay_vectors: bool = True


def register_optimizer(name: str, *, source: str = "") -> Callable:
    """Decorator: registers a subclass of RowOptimizer as ``optimizer.name: name``. ``source``: the paper.

    Raises ConfigError for a name that is taken, another class, or a constructor that cannot be called by names.
    """
    add = OPTIMIZERS.register(name, source=source)

    def checked(value: Any) -> Any:
        what = f"optimizer {name!r}"
        if not (isinstance(value, type) and issubclass(value, RowOptimizer)):
            raise ConfigError(f"{what}: {value!r:.80} must be a subclass of plsc.rows.RowOptimizer")
        missing = ", ".join(sorted(value.__abstractmethods__))
        if missing:
            raise ConfigError(f"{what}: {value.__qualname__} lacks {missing}")
        _check_slots(what, value.slots)
        _check_catch_up(what, value)
        if value.for_rows and value.slots_of is not RowOptimizer.slots_of:
            raise ConfigError(f"{what}: has slots_of, for states of other shapes; set for_rows = False")
        require_signature(what, value)
        return add(value)

    return checked


def _check_slots(what: str, slots: Any) -> None:
    if not (isinstance(slots, tuple) and all(isinstance(slot, Slot) for slot in slots)):
        raise ConfigError(f"{what}: slots={slots!r:.80} must be a tuple of plsc.rows.Slot")
    names = [slot.name for slot in slots]
    taken = sorted({name for name in names if names.count(name) > 1 or name in RESERVED or not name.isidentifier()})
    if taken:
        raise ConfigError(
            f"{what}: slots may not be called {', '.join(taken)}; each needs a different name, which is an identifier "
            f"and none of {', '.join(sorted(RESERVED))}"
        )


def _check_catch_up(what: str, value: type[RowOptimizer]) -> None:
    """Either all or none of CATCH_UP_METHODS must be overridden: they belong together."""
    own = [name for name in CATCH_UP_METHODS if getattr(value, name) is not getattr(RowOptimizer, name)]
    if own and len(own) < len(CATCH_UP_METHODS):
        raise ConfigError(
            f"{what}: has {', '.join(own)}; implement all of {', '.join(CATCH_UP_METHODS)}, or none of them"
        )


def build_optimizer(name: str, arguments: Mapping[str, Any]) -> RowOptimizer:
    """The optimizer registered as ``name``. Raises ConfigError, one line, where its constructor raises."""
    optimizer_class = OPTIMIZERS.find(name)
    try:
        optimizer = optimizer_class(**arguments)
    except (TypeError, ValueError) as error:
        given = ", ".join(f"{key}={value!r:.40}" for key, value in arguments.items())
        raise ConfigError(f"optimizer {name!r} with {given}: {' '.join(str(error).split())}") from None
    optimizer.name, optimizer.arguments = name, dict(arguments)
    return optimizer
