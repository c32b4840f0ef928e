"""Pending rows: class rows with deferred updates, stored as they are, with the data to bring them up to date.

A run that samples classes updates the other rows lazily (plsc.rows.shard_rows). Bringing them up to date for a save
would round, and so change the rest of the run; so a checkpoint stores, with the rows, the step of the window at which
each was last up to date (``TOUCHED``, in the shards), and the numbers that lead from each step of the window to now
(``WINDOW``, with the replicated tensors). The optimizer defines how they are applied (RowOptimizer.missed): momentum
has a matrix per step; for another optimizer the manifest records which one it is. Readers get rows that are up to date,
unless they ask for stored ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from plsc.checkpoint.tensor_file import TensorFile
from plsc.checkpoint.tensors import TensorSpec
from plsc.errors import CheckpointError, ConfigError
from plsc.registry import OPTIMIZERS
from plsc.rows.history import MissedStepsOnHost
from plsc.rows.optimizer import RowOptimizer, build_optimizer

TOUCHED = "touched"  # I64 [num_classes]
WINDOW = "classifier.row_window"  # F64 [steps + 1, numbers]; of momentum each (ww, wv, vw, vv)
MOMENTUM = "momentum"  # for which a manifest records only the steps
MOVING = ("weight", "velocity")  # the tensors of momentum


def touched_spec(rows: int) -> TensorSpec:
    return TensorSpec(TOUCHED, "I64", (rows,))


def window_spec(row_history: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(WINDOW, "F64", (row_history["steps"] + 1, row_history.get("numbers", 4)))


def pending_tensors(row_history: Mapping[str, Any]) -> tuple[str, ...]:
    """Their names; the weight first."""
    return tuple(row_history.get("tensors", MOVING))


def describe_optimizer(optimizer: RowOptimizer, weight_decay: float) -> dict[str, Any]:
    """The fields of a manifest's `row_history` that describe the optimizer of pending rows."""
    if optimizer.name == MOMENTUM:
        return {}
    return {
        "optimizer": optimizer.name,
        "arguments": dict(optimizer.arguments),
        "weight_decay": weight_decay,
        "numbers": len(optimizer.nothing_missed()),
        "tensors": ["weight", *(slot.name for slot in optimizer.slots)],
    }


class PendingRows:
    """``window`` [steps + 1, K] float64 of one checkpoint. Raises CheckpointError where it is not finite."""

    def __init__(self, path: str, window: np.ndarray, row_history: Mapping[str, Any]):
        if not np.isfinite(window).all():
            raise CheckpointError(f"{path}: {WINDOW} holds numbers that are not finite: damaged")
        self.window = window
        self.tensors = pending_tensors(row_history)
        self._history = row_history

    def check_steps(self, file: TensorFile, touched: np.ndarray) -> np.ndarray:
        """``touched`` [n] int64 as read from ``file``. Raises CheckpointError for a step outside the window."""
        if len(touched) and not 0 <= touched.min() <= touched.max() < len(self.window):
            raise CheckpointError(f"{file.path}: {TOUCHED} names steps outside of the window: damaged")
        return touched

    def up_to_date(self, file: TensorFile, name: str, row: int, stored: np.ndarray) -> np.ndarray:
        """The rows ``stored`` [n, E] of the tensor ``name``, which begin at ``row`` of ``file``, as they are now.

        Raises CheckpointError where the optimizer for which they wait is not known here."""

        def same_rows(other: str) -> np.ndarray:
            return stored if other == name else next(file.rows(other, row, row + len(stored), len(stored)))[1]

        if not len(stored):
            return stored
        since = self.check_steps(file, same_rows(TOUCHED))
        if "optimizer" in self._history:
            return self._by_its_optimizer(file, since, [same_rows(other) for other in self.tensors], name)
        place = 2 * MOVING.index(name)
        factors = self.window[since, place : place + 2]
        weight, velocity = (same_rows(other) for other in MOVING)
        return (factors[:, :1] * weight + factors[:, 1:] * velocity).astype(stored.dtype)

    def _by_its_optimizer(self, file: TensorFile, since: np.ndarray, values: list, name: str) -> np.ndarray:
        optimizer = self._optimizer(file.path)
        missed = MissedStepsOnHost(self.window, since, self._history["weight_decay"])
        weight, *slots = (value.astype(np.float64) for value in values)
        weight, slots = optimizer.bring_up_to_date(weight, tuple(slots), missed)  # type: ignore[arg-type]
        return [weight, *slots][self.tensors.index(name)].astype(np.float32)

    def _optimizer(self, path: str) -> RowOptimizer:
        name = self._history["optimizer"]
        if name not in OPTIMIZERS:
            raise CheckpointError(
                f"{path}: its rows are pending for the optimizer {name!r:.80}, which is not registered; name its "
                "module in `plugins`, or take the checkpoint of the last step of a run, whose rows are up to date"
            )
        try:
            optimizer = build_optimizer(name, self._history["arguments"])
        except ConfigError as error:
            raise CheckpointError(
                f"{path}: its rows are pending for an optimizer that cannot be created: {error}"
            ) from None
        now, before = describe_optimizer(optimizer, self._history["weight_decay"]), dict(self._history)
        reader = optimizer.of_window(before["numbers"]) if now["tensors"] == before["tensors"] else None
        if reader is None:
            raise CheckpointError(
                f"{path}: the optimizer {name!r} kept {before['tensors']} and {before['numbers']} numbers a step, and "
                f"keeps {now['tensors']} and {now['numbers']} now; read it with the code that wrote it"
            )
        return reader
