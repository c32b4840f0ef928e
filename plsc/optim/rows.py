"""How the class centres of a shard are held and moved: all of them, the sampled ones, or by a user's optimizer.

The three have one interface: ``fetch`` gives rows of the step to the classifier, ``tensors`` names what a checkpoint
keeps. What moves them is appended by a ``mover``, in the classifier's own loop over blocks of rows; by ``update``, in a
loop after it, where all gradients must be known before the first row moves; or with a user's optimizer by
``update_by``. Values are static; a class is one contiguous row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import paddle

from plsc import compat
from plsc.errors import ConfigError
from plsc.optim.loss_scaling import standing_still, zero_where
from plsc.optim.parameters import weight_decay_of
from plsc.optim.row_momentum import RowState, StaleRows, columns_of, write_rows
from plsc.row_ops import scale_rows
from plsc.row_storage import FLOAT32, RowTable


@dataclass(frozen=True)
class Momentum:
    """The built-in optimizer of a step: ``learning_rate`` [1] float32 value; ``found`` [1] bool or None: where True,
    nothing moves."""

    learning_rate: Any
    momentum: float
    weight_decay: float
    found: Any = None

    @property
    def rate(self):
        """The learning rate, 0 in a step that is skipped."""
        if self.found is None:
            return self.learning_rate
        return paddle.where(self.found, paddle.zeros_like(self.learning_rate), self.learning_rate)


@dataclass(frozen=True)
class RowsSpec:
    """``prefix`` of the variables' names, ``shape`` [L, row size], ``initializer``; ``param_attr`` of the user;
    ``storage``: see plsc.row_storage."""

    prefix: str
    shape: list[int]
    initializer: Any
    param_attr: Any = None
    distributed: bool = True
    storage: str = FLOAT32


class _Rows:
    """What the three share: the weight."""

    def __init__(self, spec: RowsSpec):
        given = spec.param_attr
        attr = paddle.ParamAttr(
            name=spec.prefix + ".w",
            initializer=spec.initializer,
            learning_rate=getattr(given, "learning_rate", 1.0),  # a user's optimizer reads these off the parameter
            regularizer=getattr(given, "regularizer", None),
        )
        self.weight = paddle.static.create_parameter(spec.shape, spec.storage, attr=attr)
        self.weight.is_distributed = spec.distributed
        self.table = RowTable.of(self.weight, spec.storage, "weight")
        self.spec = spec
        self.feeds: dict[str, Any] = {}
        self.touched = None
        self._made: dict[tuple, Any] = {}

    def fetch(self, block):
        """The values [R, row size] of the rows of a plsc.classifiers.RowBlock; to be read, not to be changed."""
        return self._once(block, "weight", lambda: self.table.read(block.index))

    def _once(self, block, name: str, make: Callable):
        """What ``make`` makes; asked for again for the same block, the same value."""
        if (block, name) not in self._made:
            self._made[block, name] = make()
        return self._made[block, name]

    def _create_velocity(self) -> RowTable:
        value = compat.create_state(self.spec.prefix + ".velocity", self.spec.shape, self.spec.storage)
        return RowTable.of(value, self.spec.storage, "velocity")

    @property
    def rate_factor(self) -> float:
        """What the user's ParamAttr multiplies the learning rate with."""
        return float(getattr(self.spec.param_attr, "learning_rate", 1.0))

    def weight_decay(self, usual: float) -> float:
        """The weight decay, with what the user's ParamAttr asks for."""
        return weight_decay_of(self.spec.param_attr, usual, "set_distfc_attr")

    def _moved(self, rows, velocity, gradient, momentum: Momentum) -> tuple:
        """One step of the optimizer on up-to-date rows [R, row size], in place: (weight, velocity)."""
        decay = self.weight_decay(momentum.weight_decay)
        if momentum.found is not None:
            gradient = standing_still(gradient, rows, velocity, momentum.found, momentum.momentum, decay)
        return compat.momentum_(rows, gradient, velocity, self._rate(momentum), momentum.momentum, decay)

    def _rate(self, momentum: Momentum):
        return momentum.rate if self.rate_factor == 1.0 else momentum.rate * self.rate_factor


class DenseRows(_Rows):
    """Every row takes part in every step."""

    def __init__(self, spec: RowsSpec):
        super().__init__(spec)
        self.velocity = self._create_velocity()

    @property
    def tensors(self) -> dict[str, str]:
        return {"weight": self.weight.name, "velocity": self.velocity.value.name}

    def mover(self, momentum: Momentum) -> Callable:
        """``move(block, gradient)``, which appends one step of the optimizer for a block of a loop; ``gradient``:
        plsc.classifiers.RowGradient."""
        rate, decay = -self._rate(momentum), self.weight_decay(momentum.weight_decay)

        def move(block, gradient) -> None:
            rows, velocity = self.fetch(block), self.velocity.read(block.index) * momentum.momentum
            along = 0.0 if gradient.along is None else gradient.along
            of_rows = paddle.full_like(gradient.weights[:, :1], decay) - along
            velocity = gradient.added_to(velocity + scale_rows(rows, of_rows, by_channel=True))
            self._write(block.index, rows + paddle.scale(velocity, scale=rate), velocity)

        return move

    def update(self, gradients, momentum: Momentum) -> None:
        """Append one step of the optimizer; ``gradients``: plsc.classifiers.RowGradients."""

        def body(block):
            rows, velocity = self.fetch(block), self.velocity.read(block.index)
            rows, velocity = self._moved(rows, velocity, gradients.of(block, rows), momentum)
            if block.index is not None or self.table.rounds:  # else these are the variables themselves, and have moved
                self._write(block.index, rows, velocity)
            return []

        gradients.blocks.each(body)

    def _write(self, index, rows, velocity) -> None:
        self.table.write(index, rows)
        self.velocity.write(index, velocity)


class SampledRows(_Rows):
    """Only sampled rows are read and written; the others are brought up to date when they are next touched."""

    def __init__(self, spec: RowsSpec):
        super().__init__(spec)
        touched = compat.create_state(spec.prefix + ".touched", [spec.shape[0], 1], "int64")
        self.state = RowState(self.table, self._create_velocity(), touched)
        self.touched = touched.name
        self.feeds = {
            "row_table": paddle.static.data("row_table", [-1, 4], "float32"),
            "window_step": paddle.static.data("window_step", [1], "int64"),
        }
        self._columns = columns_of(self.feeds["row_table"])
        self._step_after = self.feeds["window_step"] + 1

    @property
    def tensors(self) -> dict[str, str]:
        return {"weight": self.weight.name, "velocity": self.state.velocity.value.name}

    def fetch(self, block):
        if not block.is_part:  # of all rows the stored ones are not to be kept until the update
            self._velocity_of(block)
        return self._once(block, "weight", lambda: self._stale(block).weight_now())

    def _velocity_of(self, block):
        return self._once(block, "velocity", lambda: self._stale(block).velocity_now())

    def mover(self, momentum: Momentum) -> Callable:
        """See DenseRows.mover."""
        rate, decay = -self._rate(momentum), self.weight_decay(momentum.weight_decay)
        # Bringing a row up to date and moving it are one linear map of what is stored, which is gone through once
        ww, wv, vw, vv = self._columns
        without_gradient = [vw * momentum.momentum + ww * decay, vv * momentum.momentum + wv * decay]

        def move(block, gradient) -> None:
            stale = self._stale(block)
            of_weight, of_velocity = stale.factors(without_gradient)
            if gradient.along is not None:
                now = stale.factors(self._columns[:2])
                of_weight, of_velocity = of_weight - gradient.along * now[0], of_velocity - gradient.along * now[1]
            velocity = gradient.added_to(stale.combine(of_weight, of_velocity))
            self._write(block, self.fetch(block) + paddle.scale(velocity, scale=rate), velocity)

        return move

    def update(self, gradients, momentum: Momentum) -> None:
        """Append one step of the optimizer; ``gradients``: plsc.classifiers.RowGradients."""

        def body(block):
            rows, velocity = self.fetch(block), self._velocity_of(block)
            self._write(block, *self._moved(rows, velocity, gradients.of(block, rows), momentum))
            return []

        gradients.blocks.each(body)

    def _stale(self, block) -> StaleRows:
        read = StaleRows.read
        return self._once(block, "stale", lambda: read(self.state, block.index, self._columns, block.is_part))

    def _write(self, block, rows, velocity) -> None:
        """Written once in a step, at its end, where every row is true for the step after."""
        write_rows(self.state, block.index, rows, velocity, self._step_after)


class ForeignRows(_Rows):
    """A user's optimizer moves the rows. It gets a dense gradient of the shard, which it expects."""

    def __init__(self, spec: RowsSpec):
        super().__init__(spec)
        self._accumulators: dict[str, str] = {}

    @property
    def tensors(self) -> dict[str, str]:
        return {"weight": self.weight.name, **self._accumulators}

    def update_by(self, optimizer, gradients, found) -> list[str]:
        """Returns the names of the optimizer's states that are not per class; those that are join ``tensors``."""
        program = paddle.static.default_main_program()
        index = gradients.blocks.index
        (gradient,) = gradients.blocks.each(lambda block: zero_where(found, [gradients.of(block, self.fetch(block))]))
        if index is not None:
            gradient = paddle.scatter(paddle.zeros(self.spec.shape, "float32"), index, gradient)
        before = set(compat.persistables(program))
        compat.apply_gradients(optimizer, [(self.weight, gradient)])
        others = []
        for name, value in compat.persistables(program).items():
            if name in before:
                continue
            if list(value.shape) == list(self.spec.shape):
                self._accumulators[f"optimizer_state_{len(self._accumulators)}"] = name
            else:
                others.append(name)
        return others


def check_optimizer(optimizer, storage: str) -> None:
    """Raise ConfigError for what a user's optimizer cannot do in a run."""
    if storage != FLOAT32:
        raise ConfigError(
            f"classifier.storage={storage!r}: a user's optimizer (set_optimizer) works on float32; set "
            "classifier.storage: float32, or leave the optimizer out for the built-in momentum"
        )
    if getattr(optimizer, "_grad_clip", None) is not None:
        raise ConfigError(
            "set_optimizer: its grad_clip would see a part of the classes only; leave it out and set grad_clip_norm, "
            "which clips by the norm over all ranks"
        )
    if isinstance(getattr(optimizer, "_learning_rate", None), paddle.optimizer.lr.ReduceOnPlateau):
        raise ConfigError(
            "set_optimizer: ReduceOnPlateau waits for a metric, which a step does not have; take a scheduler that "
            "counts steps"
        )
