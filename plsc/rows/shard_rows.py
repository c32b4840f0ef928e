"""The class centres of a shard and their update: all rows in every step, or a sample of them.

Both cases have one interface. ``fetch`` returns rows of the step to the classifier; ``tables`` are saved in
checkpoints. The update is appended by ``mover``, inside the classifier's loop over blocks of rows, or by ``update``, in
a loop after it, where all gradients must be known before the first row changes. Values are static; a class is one
contiguous row. The classes here work with any optimizer, by its formulas; an optimizer may define faster ones
(RowOptimizer.rows_class).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import paddle

from plsc.backend import static
from plsc.rows.blocks import RowBlock, RowPiece
from plsc.rows.gradients import RowGradients
from plsc.rows.operations import scale_rows, squared_length
from plsc.rows.optimizer import RowOptimizer, Slot, Step, Update
from plsc.rows.param_attr import weight_decay_of
from plsc.rows.skipped import fed
from plsc.rows.state import MissedStepsInProgram, RowState, make_writer
from plsc.rows.storage import FLOAT16, FLOAT32, RowTable


class RowValues(Protocol):
    """The interface of rows that a classifier uses."""

    def fetch(self, piece: RowPiece):
        """The values [R, row size]; valid until the rows are updated."""

    def squares(self, piece: RowPiece):
        """The squared lengths [R, 1] of the rows that ``fetch`` returns."""


@dataclass(frozen=True)
class RowsSpec:
    """``prefix``: of the variables' names. ``shape``: [L, row size]. ``param_attr``: the user's. ``weight_decay``: the
    setting. ``lr_factor``: of the learning rate, times that of ``param_attr``. ``storage``: see plsc.rows.storage.
    ``stride``: above 1 the rows of so many arrays, the weight and all states, are side by side in one variable, and are
    processed by plsc.rows.row_kernels. ``skipped_before``: see plsc.rows.skipped.fed."""

    prefix: str
    shape: list[int]
    initializer: Any
    param_attr: Any = None
    distributed: bool = True
    weight_decay: float = 0.0
    lr_factor: float = 1.0
    storage: str = FLOAT32
    stride: int = 1
    skipped_before: Any = None

    @property
    def compiled(self) -> bool:
        """True where sampled rows are processed by plsc.rows.row_kernels."""
        return self.stride > 1


class ShardRows:
    """The weight, and the base class of all kinds of rows.

    ``table`` holds the rows of the weight; ``tables`` all arrays with one row per class, by their names in a
    checkpoint. ``counts``: {result of a step: its RowTable.cut_count}. ``touched``: the name of the variable of
    plsc.rows.state.RowState, or None where every row is updated in every step.
    """

    def __init__(self, spec: RowsSpec):
        self.spec = spec
        attr = paddle.ParamAttr(
            name=spec.prefix + ".w",
            initializer=spec.initializer,
            learning_rate=self.lr_factor,  # read by a user's optimizer
            regularizer=getattr(spec.param_attr, "regularizer", None),
        )
        shape = [spec.stride * spec.shape[0], spec.shape[1]]
        self.weight = paddle.static.create_parameter(shape, spec.storage, attr=attr)
        self.weight.is_distributed = spec.distributed
        self.table = RowTable(self.weight, spec.storage, stride=spec.stride)
        self.feeds: dict[str, Any] = {}
        self.counts: dict[str, Any] = {}
        self.touched: str | None = None
        self._cache: dict[tuple, Any] = {}

    @property
    def tables(self) -> dict[str, RowTable]:
        """All arrays with one row per class; the weight first."""
        return {"weight": self.table}

    def fetch(self, piece: RowPiece):
        """See RowValues."""
        return self._cached(piece, "weight", lambda: self.table.read(self._index(piece)))

    def squares(self, piece: RowPiece):
        """See RowValues."""
        return squared_length(self.fetch(piece), piece.block.for_cpu)

    def _index(self, piece: RowPiece):
        block = piece.block
        if block.index is None:
            return None
        return piece.select(self._cached(block, "index", lambda: block.split(block.index)))

    def _cached(self, rows: RowPiece | RowBlock, name: str, make: Callable):
        """The result of ``make()``, cached for this block or piece."""
        if (rows, name) not in self._cache:
            self._cache[rows, name] = make()
        return self._cache[rows, name]

    @property
    def tensors(self) -> dict[str, str]:
        """The names of the variables that hold ``tables``."""
        return {name: table.value.name for name, table in self.tables.items()}

    @property
    def variables(self) -> set[str]:
        """The names of all variables of the shard."""
        others = [self.touched, *(count.name for count in self.counts.values())]
        return {*self.tensors.values(), *(name for name in others if name is not None)}

    @property
    def num_bytes(self) -> int:
        """The size of all variables of the shard."""
        per_class = sum(table.number_bytes * self.spec.shape[1] for table in self.tables.values())
        return self.spec.shape[0] * (per_class + (0 if self.touched is None else 8))

    @property
    def lr_factor(self) -> float:
        """The factor of the learning rate: that of the user's ParamAttr, times the setting."""
        return float(getattr(self.spec.param_attr, "learning_rate", 1.0)) * self.spec.lr_factor

    @property
    def weight_decay(self) -> float:
        """The weight decay: the user's ParamAttr takes precedence over the setting."""
        return weight_decay_of(self.spec.param_attr, self.spec.weight_decay, "set_distfc_attr")


class OptimizedRows(ShardRows):
    """Rows updated by a RowOptimizer: the base class of DenseRows and SampledRows."""

    def __init__(self, spec: RowsSpec, optimizer: RowOptimizer):
        super().__init__(spec)
        self.optimizer = optimizer
        self.slots: dict[str, RowTable] = {}

    @property
    def tables(self) -> dict[str, RowTable]:
        """See ShardRows."""
        return {"weight": self.table, **self.slots}

    def mover(self, update: Update) -> Callable:
        """``move(block, along)`` for plsc.classifiers.plain_head.PlainHead, which appends one step of the optimizer."""

        def move(block: RowBlock, along) -> Callable:
            along = None if along is None else block.split(along)

            def move_piece(piece: RowPiece, product) -> None:
                weight = self.fetch(piece)
                gradient = product.compute()
                if along is not None:
                    gradient = gradient - scale_rows(weight, piece.select(along), by_channel=block.for_cpu)
                self._move(piece, gradient, update)

            return move_piece

        return move

    def update(self, gradients: RowGradients, update: Update) -> None:
        """Append one step of the optimizer."""

        def body(piece: RowPiece) -> list:
            self._move(piece, gradients.compute(piece, self.fetch(piece)), update)
            return []

        gradients.blocks.for_each_piece(body)

    def _move(self, piece: RowPiece, gradient, update: Update) -> None:
        weight, slots = self._values(piece)
        weight, slots = self.optimizer.step(weight, slots, gradient, self.make_step(update))
        self._write(piece, weight, *slots)

    def _values(self, piece: RowPiece) -> tuple:
        """(weight, slots) of up-to-date rows."""
        raise NotImplementedError

    def _write(self, piece: RowPiece, weight, *slots) -> None:
        raise NotImplementedError

    def make_step(self, update: Update) -> Step:
        """The Step of the optimizer for these rows."""
        return Step(self._learning_rate(update), self.weight_decay, update.numbers, paddle)

    def _learning_rate(self, update: Update):
        return update.learning_rate if self.lr_factor == 1.0 else update.learning_rate * self.lr_factor

    def _create_slot(self, slot: Slot) -> RowTable:
        storage = self.spec.storage if slot.follows_storage else FLOAT32
        factor = slot.float16_factor if storage == FLOAT16 else 1.0
        name = f"{self.spec.prefix}.{slot.name}"
        value = static.create_state(name, self.spec.shape, storage, slot.initial * factor)
        table = RowTable(value, storage, factor)
        if storage != FLOAT16 or not slot.cut_count:
            return table
        self.counts[slot.cut_count] = static.create_state(f"{self.spec.prefix}.{slot.cut_count}", [1, 1], "int64")
        return replace(table, cut_count=self.counts[slot.cut_count])


class DenseRows(OptimizedRows):
    """Every row takes part in every step."""

    def __init__(self, spec: RowsSpec, optimizer: RowOptimizer):
        super().__init__(spec, optimizer)
        self.slots = {slot.name: self._create_slot(slot) for slot in optimizer.slots}

    def _values(self, piece: RowPiece) -> tuple:
        index = self._index(piece)
        return self.fetch(piece), tuple(table.read(index) for table in self.slots.values())

    def _write(self, piece: RowPiece, weight, *slots) -> None:
        index = self._index(piece)
        for table, rows in zip(self.tables.values(), (weight, *slots)):
            table.write(index, rows)


class SampledRows(OptimizedRows):
    """Only sampled rows are read and written; other rows are brought up to date when they are next sampled."""

    def __init__(self, spec: RowsSpec, optimizer: RowOptimizer):
        super().__init__(spec, optimizer)
        touched = static.create_state(spec.prefix + ".touched", [spec.shape[0], 1], "int64")
        self.state = self._create_state(touched)
        self.slots = {slot.name: table for slot, table in zip(optimizer.slots, self.state.tables[1:])}
        self.touched = touched.name
        self.feeds, self.window = self._create_feeds(spec.skipped_before)
        self._step_after = self.window["window_step"] + 1

    def _create_state(self, touched) -> RowState:
        if self.spec.compiled:
            return RowState.side_by_side(self.weight, touched, self.spec.stride)
        return RowState((self.table, *map(self._create_slot, self.optimizer.slots)), touched)

    def _create_feeds(self, skipped_before=None) -> tuple[dict[str, Any], dict[str, Any]]:
        """(the inputs, what they are used as): the missed steps of rows (RowHistory.table), and the number of the
        current step in the window."""
        width = len(self.optimizer.nothing_missed())
        feeds, table = fed("row_table", [-1, width], "float32", skipped_before)
        step = paddle.static.data("window_step", [1], "int64")
        return {**feeds, "window_step": step}, {"row_table": table, "window_step": step}

    def fetch(self, piece: RowPiece):
        """See RowValues."""
        return self._values(piece)[0]

    def append_bring_up_to_date(self) -> None:
        """Append, to another program, operations that bring the rows ``index`` up to date for a new window."""
        index, (_, window) = paddle.static.data("index", [-1], "int64"), self._create_feeds()
        state, block = self.state.in_current_program(), RowBlock(None, None, index)
        (piece,) = block.pieces
        values = self._up_to_date(state, piece, window)
        make_writer(state, block, paddle.zeros_like(window["window_step"]))(piece, *values)

    def _values(self, piece: RowPiece) -> tuple:
        found = self._cached(piece, "values", lambda: self._up_to_date(self.state, piece, self.window))
        return found[0], tuple(found[1:])

    def _up_to_date(self, state: RowState, piece: RowPiece, window: dict) -> list:
        """[weight, *slots] of the rows after all steps so far."""
        index = self._index(piece)
        since = paddle.reshape(paddle.gather(state.touched, index), [-1])
        weight, *slots = (table.read(index) for table in state.tables)
        missed = MissedStepsInProgram(window["row_table"], since, window["window_step"], self.weight_decay)
        weight, slots = self.optimizer.bring_up_to_date(weight, tuple(slots), missed)
        return [weight, *slots]

    def _write(self, piece: RowPiece, weight, *slots) -> None:
        self._writer(piece.block)(piece, weight, *slots)

    def _writer(self, block: RowBlock) -> Callable:
        """Rows are written once per step, at its end, and are then up to date for the next step."""
        return self._cached(block, "writer", lambda: make_writer(self.state, block, self._step_after))
