"""How the class centres of a shard are held and moved: all of them, the sampled ones, or by a user's optimizer.

The three have one interface: ``fetch(index)`` gives the rows of the step to the classifier, ``update`` appends what
moves them (``update_by`` with a user's optimizer), ``tensors`` names what a checkpoint keeps. Values are static; a
class is one contiguous row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import paddle

from plsc import compat
from plsc.errors import ConfigError
from plsc.optim.loss_scaling import standing_still
from plsc.optim.parameters import weight_decay_of
from plsc.optim.row_momentum import RowState, momentum_rows, rows_up_to_date, write_rows


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
    """``prefix`` of the variables' names, ``shape`` [L, row size], ``initializer``; ``param_attr`` of the user."""

    prefix: str
    shape: list[int]
    initializer: Any
    param_attr: Any = None
    distributed: bool = True


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
        self.weight = paddle.static.create_parameter(spec.shape, "float32", attr=attr)
        self.weight.is_distributed = spec.distributed
        self.spec = spec
        self.feeds: dict[str, Any] = {}
        self.touched = None

    @property
    def rate_factor(self) -> float:
        """What the user's ParamAttr multiplies the learning rate with."""
        return float(getattr(self.spec.param_attr, "learning_rate", 1.0))

    def weight_decay(self, usual: float) -> float:
        """The weight decay, with what the user's ParamAttr asks for."""
        return weight_decay_of(self.spec.param_attr, usual, "set_distfc_attr")

    def _options(self, momentum: Momentum) -> tuple[Any, float]:
        factor = self.rate_factor
        rate = momentum.rate if factor == 1.0 else momentum.rate * factor
        return rate, self.weight_decay(momentum.weight_decay)


class DenseRows(_Rows):
    """Every row takes part in every step: momentum in one pass over the shard."""

    def __init__(self, spec: RowsSpec):
        super().__init__(spec)
        self.velocity = compat.create_state(spec.prefix + ".velocity", spec.shape, "float32")

    @property
    def tensors(self) -> dict[str, str]:
        return {"weight": self.weight.name, "velocity": self.velocity.name}

    def fetch(self, index):
        return self.weight

    def update(self, index, rows, gradient, momentum: Momentum) -> None:
        rate, decay = self._options(momentum)
        if momentum.found is not None:
            gradient = standing_still(gradient, self.weight, self.velocity, momentum.found, momentum.momentum, decay)
        compat.momentum_(self.weight, gradient, self.velocity, rate, momentum.momentum, decay)


class SampledRows(_Rows):
    """Only sampled rows are read and written; the others are brought up to date when they are next touched."""

    def __init__(self, spec: RowsSpec):
        super().__init__(spec)
        velocity = compat.create_state(spec.prefix + ".velocity", spec.shape, "float32")
        touched = compat.create_state(spec.prefix + ".touched", [spec.shape[0], 1], "int64")
        self.state = RowState(self.weight, velocity, touched)
        self.touched = touched.name
        self.feeds = {
            "row_table": paddle.static.data("row_table", [-1, 4], "float32"),
            "window_step": paddle.static.data("window_step", [1], "int64"),
        }

    @property
    def tensors(self) -> dict[str, str]:
        return {"weight": self.weight.name, "velocity": self.state.velocity.name}

    def fetch(self, index):
        rows, self._velocity = rows_up_to_date(self.state, index, self.feeds["row_table"])
        return rows

    def update(self, index, rows, gradient, momentum: Momentum) -> None:
        rate, decay = self._options(momentum)
        if momentum.found is not None:
            gradient = standing_still(gradient, rows, self._velocity, momentum.found, momentum.momentum, decay)
        rows, velocity = momentum_rows(rows, self._velocity, gradient, rate, momentum.momentum, decay)
        write_rows(self.state, index, rows, velocity, self.feeds["window_step"] + 1)


class ForeignRows(_Rows):
    """A user's optimizer moves the rows. It gets a dense gradient of the shard, which it expects."""

    def __init__(self, spec: RowsSpec):
        super().__init__(spec)
        self._accumulators: dict[str, str] = {}

    @property
    def tensors(self) -> dict[str, str]:
        return {"weight": self.weight.name, **self._accumulators}

    def fetch(self, index):
        return self.weight if index is None else paddle.gather(self.weight, index)

    def update_by(self, optimizer, index, gradient) -> list[str]:
        """Returns the names of the optimizer's states that are not per class; those that are join ``tensors``."""
        program = paddle.static.default_main_program()
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


def check_optimizer(optimizer) -> None:
    """Raise ConfigError for what a user's optimizer cannot do in a run."""
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
