"""How the class centres of a shard are held and moved: all of them, the sampled ones, or by a user's optimizer.

The three have one interface: ``fetch`` gives rows of the step to the classifier, ``tables`` are what a checkpoint
keeps. What moves them is appended by a ``mover``, in the classifier's own loop over blocks of rows; by ``update``, in a
loop after it, where all gradients must be known before the first row moves; or with a user's optimizer by
``update_by``. Values are static; a class is one contiguous row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import paddle

from plsc.backend import ops, static
from plsc.errors import ConfigError
from plsc.rows.momentum import RowState, StaleRows, touch, writer
from plsc.rows.operations import scale_rows, squared_length
from plsc.rows.param_attr import weight_decay_of
from plsc.rows.skipped import standing_still, zero_where
from plsc.rows.storage import FLOAT16, FLOAT32, RowTable


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
    ``storage``: see plsc.rows.storage; ``paired``: sampled rows lie as plsc.rows.row_kernels needs them."""

    prefix: str
    shape: list[int]
    initializer: Any
    param_attr: Any = None
    distributed: bool = True
    storage: str = FLOAT32
    paired: bool = False


class _Rows:
    """What the three share: the weight.

    ``table`` holds the rows of the weight, ``tables`` them and all else that a checkpoint keeps of each row, by its
    name there. ``counts``: see RowTable.cut, by the name of the result of a step. ``touched`` names the variable of
    plsc.rows.momentum.RowState, None where no row is left alone.
    """

    def __init__(self, spec: RowsSpec):
        given = spec.param_attr
        attr = paddle.ParamAttr(
            name=spec.prefix + ".w",
            initializer=spec.initializer,
            learning_rate=getattr(given, "learning_rate", 1.0),  # a user's optimizer reads these off the parameter
            regularizer=getattr(given, "regularizer", None),
        )
        stride = 2 if spec.paired else 1
        shape = [stride * spec.shape[0], spec.shape[1]]
        self.weight = paddle.static.create_parameter(shape, spec.storage, attr=attr)
        self.weight.is_distributed = spec.distributed
        self.table = RowTable.of(self.weight, spec.storage, "weight", stride=stride)
        self.spec = spec
        self.feeds: dict[str, Any] = {}
        self.counts: dict[str, Any] = {}
        self.touched = None
        self._made: dict[tuple, Any] = {}

    def fetch(self, piece):
        """The values [R, row size] of the rows of a plsc.classifiers.RowPiece, to be read only until they move."""
        return self._once(piece, "weight", lambda: self.table.read(self._index(piece)))

    def squares(self, piece):
        """The squared lengths [R, 1] of the rows of ``fetch``."""
        return squared_length(self.fetch(piece))

    def _index(self, piece):
        block = piece.block
        return None if block.index is None else piece.of(self._once(block, "index", lambda: block.cut(block.index)))

    def _once(self, rows, name: str, make: Callable):
        """What ``make`` makes; asked for again for the same block or piece, the same value."""
        if (rows, name) not in self._made:
            self._made[rows, name] = make()
        return self._made[rows, name]

    def _create_velocity(self) -> RowTable:
        value = static.create_state(self.spec.prefix + ".velocity", self.spec.shape, self.spec.storage)
        table = RowTable.of(value, self.spec.storage, "velocity")
        if self.spec.storage != FLOAT16:
            return table
        self.counts["momentum_cut"] = static.create_state(self.spec.prefix + ".momentum_cut", [1, 1], "int64")
        return replace(table, cut=self.counts["momentum_cut"])

    @property
    def tensors(self) -> dict[str, str]:
        """The names of the variables that ``tables`` lie in."""
        return {name: table.value.name for name, table in self.tables.items()}

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
        return ops.momentum_(rows, gradient, velocity, self._rate(momentum), momentum.momentum, decay)

    def _rate(self, momentum: Momentum):
        return momentum.rate if self.rate_factor == 1.0 else momentum.rate * self.rate_factor


class DenseRows(_Rows):
    """Every row takes part in every step."""

    def __init__(self, spec: RowsSpec):
        super().__init__(spec)
        self.velocity = self._create_velocity()

    @property
    def tables(self) -> dict[str, RowTable]:
        return {"weight": self.table, "velocity": self.velocity}

    def mover(self, momentum: Momentum) -> Callable:
        """``move`` of plsc.classifiers' PlainHead, which appends one step of the optimizer."""
        rate, decay = self._rate(momentum), self.weight_decay(momentum.weight_decay)

        def move(block, along) -> Callable:
            along = None if along is None else block.cut(along)

            def move_piece(piece, product) -> None:
                index, rows = self._index(piece), self.fetch(piece)
                velocity = self.velocity.read(index) * momentum.momentum
                of_rows = paddle.full_like(product.weights[:, :1], decay)
                of_rows = of_rows if along is None else of_rows - piece.of(along)
                velocity = product.added_to(velocity + scale_rows(rows, of_rows, by_channel=True))
                self._write(index, ops.descend_(rows, velocity, rate), velocity)

            return move_piece

        return move

    def update(self, gradients, momentum: Momentum) -> None:
        """Append one step of the optimizer; ``gradients``: plsc.rows.gradients.RowGradients."""

        def body(piece):
            index, rows = self._index(piece), self.fetch(piece)
            velocity = self.velocity.read(index)
            rows, velocity = self._moved(rows, velocity, gradients.of(piece, rows), momentum)
            if index is not None or self.table.rounds:  # else these are the variables themselves, and have moved
                self._write(index, rows, velocity)
            return []

        gradients.blocks.each_piece(body)

    def _write(self, index, rows, velocity) -> None:
        self.table.write(index, rows)
        self.velocity.write(index, velocity)


class SampledRows(_Rows):
    """Only sampled rows are read and written; the others are brought up to date when they are next touched."""

    def __init__(self, spec: RowsSpec):
        super().__init__(spec)
        touched = static.create_state(spec.prefix + ".touched", [spec.shape[0], 1], "int64")
        if spec.paired:
            self.state = RowState.paired(self.weight, touched)
        else:
            self.state = RowState(self.table, self._create_velocity(), touched)
        self.touched = touched.name
        self.feeds = {
            "row_table": paddle.static.data("row_table", [-1, 4], "float32"),
            "window_step": paddle.static.data("window_step", [1], "int64"),
        }
        self._step_after = self.feeds["window_step"] + 1

    @property
    def tables(self) -> dict[str, RowTable]:
        return {"weight": self.state.weight, "velocity": self.state.velocity}

    def fetch(self, piece):
        if not piece.block.is_part:  # of all rows the stored ones are not to be kept until the update
            self._velocity_of(piece)
        return self._now(piece)[0]

    def squares(self, piece):
        rows, squares = self._now(piece)
        return squared_length(rows) if squares is None else squares

    def _now(self, piece) -> tuple:
        return self._once(piece, "weight", lambda: self._stale(piece.block).weight_now(piece))

    def _velocity_of(self, piece):
        now = self._once(piece.block, "velocity", lambda: self._stale(piece.block).velocity_now())
        return self._once(piece, "velocity", lambda: now(piece))

    def mover(self, momentum: Momentum) -> Callable:
        """See DenseRows.mover."""
        rate, decay = self._rate(momentum), self.weight_decay(momentum.weight_decay)

        def move(block, along) -> Callable:
            # Bringing a row up to date and moving it are one linear map of what is stored, which is gone through once
            stale = self._stale(block)
            of_weight = decay if along is None else decay - along
            combined = stale.factors[:, 2:] * momentum.momentum + stale.factors[:, :2] * of_weight
            if self.state.is_paired:
                touch(self.state, block, self._step_after)
                descend = stale.descent(combined, rate)
                return lambda piece, product: descend(piece, product.whole())
            combine, write = stale.combine(combined), self._writer(block)

            def move_piece(piece, product) -> None:
                velocity = product.added_to(combine(piece)[0])
                write(piece, ops.descend_(self.fetch(piece), velocity, rate), velocity)

            return move_piece

        return move

    def update(self, gradients, momentum: Momentum) -> None:
        """Append one step of the optimizer; ``gradients``: plsc.rows.gradients.RowGradients."""

        def body(block):
            for piece in block.pieces:
                rows, velocity = self.fetch(piece), self._velocity_of(piece)
                rows, velocity = self._moved(rows, velocity, gradients.of(piece, rows), momentum)
                self._writer(block)(piece, rows, velocity)
            return []

        gradients.blocks.each(body)

    def _stale(self, block) -> StaleRows:
        return self._once(block, "stale", lambda: StaleRows(self.state, block, self.feeds["row_table"]))

    def _writer(self, block) -> Callable:
        """Rows are written once in a step, at its end, where every row is true for the step after."""
        return self._once(block, "writer", lambda: writer(self.state, block, self._step_after))


class ForeignRows(_Rows):
    """A user's optimizer moves the rows. It gets a dense gradient of the shard, which it expects."""

    def __init__(self, spec: RowsSpec):
        super().__init__(spec)
        self._accumulators: dict[str, RowTable] = {}

    @property
    def tables(self) -> dict[str, RowTable]:
        return {"weight": self.table, **self._accumulators}

    def update_by(self, optimizer, gradients, found) -> list[str]:
        """Returns the names of the optimizer's states that are not per class; those that are join ``tables``."""
        program = paddle.static.default_main_program()
        index = gradients.blocks.index
        piece = gradients.blocks.whole
        (gradient,) = zero_where(found, [gradients.of(piece, self.fetch(piece))])
        if index is not None:
            gradient = paddle.scatter(paddle.zeros(self.spec.shape, "float32"), index, gradient)
        before = set(static.persistables(program))
        ops.apply_gradients(optimizer, [(self.weight, gradient)])
        others = []
        for name, value in static.persistables(program).items():
            if name in before:
                continue
            if list(value.shape) == list(self.spec.shape):
                self._accumulators[f"optimizer_state_{len(self._accumulators)}"] = RowTable(value)
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
