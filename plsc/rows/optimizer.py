"""What an optimizer is: what it keeps of each weight, one step, and how a row that steps left alone catches up.

One class describes an optimizer for the class centres and for the backbone. Its formulas use ``+ - * /`` and functions
that Paddle and NumPy have under one name (``step.xp``: sqrt, exp, abs, sign, maximum, ...): they run on the device, on
values of the program, and on the host, on arrays. How to write one: docs/add_an_optimizer.md. Imports without Paddle.
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
RULE = ("nothing_missed", "missed", "bring_up_to_date")  # for rows that wait
RESERVED = {"weight", "touched", "w"}  # names of other arrays of a shard


@dataclass(frozen=True)
class Slot:
    """An array that an optimizer keeps beside a weight, of the weight's shape.

    ``name``: in the program and in checkpoints. ``initial``: every number of it at the start. A slot is float32, or
    with ``follows_storage`` what ``classifier.storage`` says; in float16 its numbers are kept times
    ``float16_factor``, a power of two, and those that are too large are cut off and counted as the result ``cut_count``
    of a step.
    """

    name: str
    initial: float = 0.0
    follows_storage: bool = False
    float16_factor: float = 1.0
    cut_count: str = ""

    @property
    def float16_limit(self) -> float:
        """The largest number that it holds in float16."""
        return LARGEST_FLOAT16 / self.float16_factor


@dataclass(frozen=True)
class Step:
    """What one step is given: in a program values [1] float32, on the host numbers.

    ``weight_decay``: a number, of this weight. ``numbers``: what RowOptimizer.numbers gave for this step. ``xp``: the
    module paddle or numpy.
    """

    learning_rate: Any
    weight_decay: float
    numbers: tuple = ()
    xp: Any = np


class MissedSteps(Protocol):
    """What R rows have missed, which wait since different steps: in a program or on the host."""

    xp: Any
    weight_decay: float

    def factors(self) -> list:
        """The numbers [R, 1] that RowOptimizer.missed has made for the step since which each row waits."""

    def replay(self, optimizer: RowOptimizer, weight, slots: tuple) -> tuple:
        """(weight, slots) after the missed steps, one after the other, with gradient 0."""


class RowOptimizer(abc.ABC):
    """Base class. Its constructor takes the keys of ``optimizer.options``, and ``momentum``, if it has a parameter of
    that name, from the setting ``momentum``.

    ``slots``: what is kept beside each weight. ``name``, ``arguments``: what it was built from.
    """

    slots: ClassVar[tuple[Slot, ...]] = ()
    name: str = ""
    arguments: Mapping[str, Any] = {}

    @abc.abstractmethod
    def step(self, weight, slots: tuple, gradient, step: Step) -> tuple:
        """(weight, slots) after one step, from those before it; all of one shape, and not changed in place.

        The formula of each number may use other numbers of its row (of a parameter of the backbone: of all of it).
        """

    def numbers(self, count: int) -> Sequence[float]:
        """What step number ``count``, from 1, needs besides rate and decay, such as a bias correction; made on the
        host. Steps that mixed precision skips are not counted. Always as many."""
        return ()

    # --- rows that steps leave alone: by default these are made up for one by one ---

    def nothing_missed(self) -> Sequence[float]:
        """The K numbers of a row that is up to date, see ``missed``."""
        return np.zeros(2 + len(self.numbers(1)))  # whether the step was made, its rate, its numbers

    def missed(self, table: np.ndarray, step: Step) -> np.ndarray:
        """``table`` [n, K] float64 after one more step without a gradient: row k holds what a row needs that waits
        since step k. The last row was ``nothing_missed`` before."""
        table = table.copy()
        table[-1] = (1.0, step.learning_rate, *step.numbers)
        return table

    def bring_up_to_date(self, weight, slots: tuple, missed: MissedSteps) -> tuple:
        """(weight, slots) as all the missed steps would have left them, from those before them."""
        return missed.replay(self, weight, slots)

    # --- for speed: what an optimizer may do in another way, with the same result ---

    def update_(self, weight, slots: tuple, gradient, step: Step, found_inf=None) -> None:
        """Append one step to the program being built that changes the variables ``weight`` and ``slots`` in place.
        ``found_inf`` [1] bool or None: where True, nothing changes."""
        import paddle

        for target, value in zip((weight, *slots), self.step_unless(found_inf, weight, slots, gradient, step)):
            paddle.assign(value, output=target)

    def step_unless(self, found_inf, weight, slots: tuple, gradient, step: Step) -> list:
        """[weight, *slots] after one step, or where ``found_inf`` [1] bool (None: never) as they are."""
        from plsc.rows.skipped import keep_if_skipped

        new_weight, new_slots = self.step(weight, slots, gradient, step)
        return [keep_if_skipped(found_inf, old, new) for old, new in zip((weight, *slots), (new_weight, *new_slots))]

    pairs_rows: ClassVar[bool] = False  # its sampled rows may lie as plsc.rows.row_kernels needs them

    def rows_class(self, sampled: bool) -> Callable | None:
        """The subclass of plsc.rows.shard_rows.DenseRows or SampledRows that works on rows for this optimizer; None for
        these two themselves."""
        return None


@dataclass(frozen=True)
class Update:
    """One step of an optimizer in the program being built, for the backbone and for the rows.

    ``learning_rate`` [1] float32; ``weight_decay``: the setting; ``numbers`` [1] each; ``found_inf`` [1] bool or None:
    where True, nothing moves.
    """

    optimizer: RowOptimizer
    learning_rate: Any
    weight_decay: float
    numbers: tuple = ()
    found_inf: Any = None

    @property
    def rate(self):
        """The learning rate, 0 in a step that is skipped."""
        import paddle

        if self.found_inf is None:
            return self.learning_rate
        return paddle.where(self.found_inf, paddle.zeros_like(self.learning_rate), self.learning_rate)


def register_optimizer(name: str, *, source: str = "") -> Callable:
    """Decorator: a RowOptimizer becomes ``optimizer.name: name``. ``source``: the paper it is from.

    Raises ConfigError for a name that is taken, another class, or a constructor that cannot be called by names.
    """
    add = OPTIMIZERS.register(name, source=source)

    def checked(value: Any) -> Any:
        what = f"optimizer {name!r}"
        if not (isinstance(value, type) and issubclass(value, RowOptimizer)):
            raise ConfigError(f"{what}: {value!r:.80} is not a class made from plsc.rows.RowOptimizer; derive it")
        missing = ", ".join(sorted(value.__abstractmethods__))
        if missing:
            raise ConfigError(f"{what}: {value.__qualname__} lacks {missing}")
        _check_slots(what, value.slots)
        _check_rule(what, value)
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
            f"{what}: slots may not be called {', '.join(taken)}; each needs a name of its own, a plain word, and none "
            f"of {', '.join(sorted(RESERVED))}"
        )


def _check_rule(what: str, value: type[RowOptimizer]) -> None:
    """Of the rule for rows that wait all is written, or nothing: half of one would not fit the other half."""
    own = [name for name in RULE if getattr(value, name) is not getattr(RowOptimizer, name)]
    if own and len(own) < len(RULE):
        raise ConfigError(f"{what}: has {', '.join(own)}; write all of {', '.join(RULE)}, or none of them")


def build_optimizer(name: str, arguments: Mapping[str, Any]) -> RowOptimizer:
    """The optimizer registered as ``name``. Raises ConfigError, on one line, for what its constructor refuses."""
    optimizer_class = OPTIMIZERS.find(name)
    try:
        optimizer = optimizer_class(**arguments)
    except (TypeError, ValueError) as error:
        given = ", ".join(f"{key}={value!r:.40}" for key, value in arguments.items())
        raise ConfigError(f"optimizer {name!r} with {given}: {' '.join(str(error).split())}") from None
    optimizer.name, optimizer.arguments = name, dict(arguments)
    return optimizer
