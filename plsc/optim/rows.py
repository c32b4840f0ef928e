"""How the class centres of a shard are held and moved: all of them, the sampled ones, or by a user's optimizer.

The three have one interface: ``bring_up`` and ``fetch`` give rows of the step to the classifier, ``update`` appends
what moves them by their gradients, block by block (``update_by`` with a user's optimizer), ``tensors`` names what a
checkpoint keeps. Values are static; a class is one contiguous row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import paddle

from plsc import compat
from plsc.errors import ConfigError
from plsc.optim.loss_scaling import standing_still, zero_where
from plsc.optim.parameters import weight_decay_of
from plsc.optim.row_momentum import RowState, rows_up_to_date, write_rows
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
        self._rows = None

    def bring_up(self, block):
        """The values [R, row size] of the rows of a plsc.classifiers.RowBlock, asked for the first time in a step."""
        return self.fetch(block)

    def fetch(self, block):
        """The same again."""
        if block.first is not None:  # gathered anew: to keep them would be a second weight
            return self.table.read(block.index)
        if self._rows is None:
            self._rows = self.table.read(block.index)
        return self._rows

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

    def _move(self, rows, velocity, gradient, momentum: Momentum) -> tuple:
        """One step of the optimizer on up-to-date rows [R, row size], in place: (weight, velocity)."""
        factor, decay = self.rate_factor, self.weight_decay(momentum.weight_decay)
        if momentum.found is not None:
            gradient = standing_still(gradient, rows, velocity, momentum.found, momentum.momentum, decay)
        rate = momentum.rate if factor == 1.0 else momentum.rate * factor
        return compat.momentum_(rows, gradient, velocity, rate, momentum.momentum, decay)


class DenseRows(_Rows):
    """Every row takes part in every step."""

    def __init__(self, spec: RowsSpec):
        super().__init__(spec)
        self.velocity = self._create_velocity()

    @property
    def tensors(self) -> dict[str, str]:
        return {"weight": self.weight.name, "velocity": self.velocity.value.name}

    def update(self, gradients, momentum: Momentum) -> None:
        """Append one step of the optimizer; ``gradients``: plsc.classifiers.RowGradients."""

        def body(block):
            rows, index = self.fetch(block), block.index
            velocity = self.velocity.read(index)
            rows, velocity = self._move(rows, velocity, gradients.of(block, rows), momentum)
            if index is not None or self.table.rounds:  # else these are the variables themselves, and have moved
                self.table.write(index, rows)
                self.velocity.write(index, velocity)
            return []

        gradients.blocks.each(body)


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
        self._velocity = None

    @property
    def tensors(self) -> dict[str, str]:
        return {"weight": self.weight.name, "velocity": self.state.velocity.value.name}

    def bring_up(self, block):
        rows, velocity = self._up_to_date(block)
        if block.first is None:
            self._rows, self._velocity = rows, velocity
        elif not self.table.rounds:
            # the other loops gather what is written here; it is true for the end of this step already
            write_rows(self.state, block.index, rows, velocity, self.feeds["window_step"] + 1)
        return rows

    def fetch(self, block):
        # a table that rounds is written once in a step, at its end: what is brought up is brought up each time anew
        return self._both(block)[0] if self.table.rounds else super().fetch(block)

    def update(self, gradients, momentum: Momentum) -> None:
        """Append one step of the optimizer; ``gradients``: plsc.classifiers.RowGradients."""
        state = self.state

        def body(block):
            rows, velocity = self._both(block)
            rows, velocity = self._move(rows, velocity, gradients.of(block, rows), momentum)
            if block.first is None or self.table.rounds:
                write_rows(state, block.index, rows, velocity, self.feeds["window_step"] + 1)
            else:
                state.weight.write(block.index, rows)
                state.velocity.write(block.index, velocity)
            return []

        gradients.blocks.each(body)

    def _both(self, block) -> tuple:
        """(weight, velocity) of rows that were brought up."""
        if block.first is None:
            return self._rows, self._velocity
        if self.table.rounds:
            return self._up_to_date(block)
        return self.fetch(block), self.state.velocity.read(block.index)

    def _up_to_date(self, block) -> tuple:
        return rows_up_to_date(self.state, block.index, self.feeds["row_table"], in_loop=block.first is not None)


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
