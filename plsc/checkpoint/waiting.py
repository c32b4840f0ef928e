"""Rows that wait: those that no step has touched for a while are stored as they are, with what brings them up to date.

A run that samples classes leaves the other rows alone (plsc.rows.momentum). To bring them up to date for a save
would round, and so change what comes after; so a checkpoint holds, beside the rows, the step of the window at which
each was last up to date (``TOUCHED``, in the shards) and for each step of the window the matrix that leads from there
to now (``WINDOW``, with what is replicated). Readers get rows that are up to date unless they ask for stored ones.
"""

from __future__ import annotations

import numpy as np

from plsc.checkpoint.tensor_file import TensorFile
from plsc.checkpoint.tensors import TensorSpec
from plsc.errors import CheckpointError

TOUCHED = "touched"  # I64 [num_classes]
WINDOW = "classifier.row_window"  # F64 [steps + 1, 4], each (ww, wv, vw, vv)
MOVING = ("weight", "velocity")  # the tensors that it is about


def touched_spec(rows: int) -> TensorSpec:
    return TensorSpec(TOUCHED, "I64", (rows,))


def window_spec(steps: int) -> TensorSpec:
    return TensorSpec(WINDOW, "F64", (steps + 1, 4))


class Waiting:
    """``window`` [steps + 1, 4] float64 of one checkpoint. Raises CheckpointError where it is not finite."""

    def __init__(self, path: str, window: np.ndarray):
        if not np.isfinite(window).all():
            raise CheckpointError(f"{path}: {WINDOW} holds numbers that are not finite: damaged")
        self.window = window

    def checked(self, file: TensorFile, touched: np.ndarray) -> np.ndarray:
        """``touched`` [n] int64 as read from ``file``. Raises CheckpointError for a step outside the window."""
        if len(touched) and not 0 <= touched.min() <= touched.max() < len(self.window):
            raise CheckpointError(f"{file.path}: {TOUCHED} names steps outside of the window: damaged")
        return touched

    def up_to_date(self, file: TensorFile, name: str, row: int, stored: np.ndarray) -> np.ndarray:
        """The rows ``stored`` [n, E] of the tensor ``name``, which begin at ``row`` of ``file``, as they are now."""

        def same_rows(other: str) -> np.ndarray:
            return stored if other == name else next(file.rows(other, row, row + len(stored), len(stored)))[1]

        if not len(stored):
            return stored
        place = 2 * MOVING.index(name)
        factors = self.window[self.checked(file, same_rows(TOUCHED)), place : place + 2]
        weight, velocity = (same_rows(other) for other in MOVING)
        return (factors[:, :1] * weight + factors[:, 1:] * velocity).astype(stored.dtype)
