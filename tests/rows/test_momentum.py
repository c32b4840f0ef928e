"""Lazily decayed rows against the dense optimizer, over hundreds of steps with warm-up and decay."""

from __future__ import annotations

import numpy as np
import pytest

from plsc.rows import history as row_history
from plsc.rows.history import RowHistory
from plsc.rows.optimizers.momentum import Momentum
from tests.reference.margin_softmax import momentum_step

ROWS, SIZE = 40, 3


def rate(step):
    return 0.8 * min(1.0, step / 40) * (0.1 if step > 200 else 1.0)


@pytest.mark.parametrize("momentum, decay", [(0.9, 5e-4), (0.9, 0.1), (0.0, 1e-2), (0.99, 0.0)])
def test_rows_left_alone_end_as_dense_momentum_leaves_them(momentum, decay):
    rng = np.random.default_rng(1)
    weight, velocity = rng.standard_normal((ROWS, SIZE)), rng.standard_normal((ROWS, SIZE))
    dense = weight.copy(), velocity.copy()
    lazy = [weight.copy(), velocity.copy(), np.zeros(ROWS, int)]
    history = RowHistory(Momentum(momentum), decay)

    def up_to_date(index):
        factor = history.table().astype(np.float64)[lazy[2][index]][:, :, None]
        w, v = lazy[0][index], lazy[1][index]
        return factor[:, 0] * w + factor[:, 1] * v, factor[:, 2] * w + factor[:, 3] * v

    for step in range(400):
        index = rng.choice(ROWS - 5, 4, replace=False)  # the last five rows are never touched
        gradient = np.zeros((ROWS, SIZE))
        gradient[index] = rng.standard_normal((4, SIZE))
        dense = momentum_step(*dense, gradient, rate(step), momentum, decay)
        new = momentum_step(*up_to_date(index), gradient[index], rate(step), momentum, decay)
        lazy[0][index], lazy[1][index], lazy[2][index] = *new, history.steps + 1
        history.advance(rate(step))
    everything = up_to_date(np.arange(ROWS))
    for got, expected in zip(everything, dense):
        # the table is float32: 6e-8 of each factor, some dozens of catch-ups per row
        np.testing.assert_allclose(got, expected, rtol=0, atol=5e-6 * np.abs(expected).max())


def test_a_skipped_step_leaves_every_row(monkeypatch):
    history = RowHistory(Momentum(0.9), 0.1)
    history.advance(0.5)
    before = history.table()[0].copy()
    history.advance(0.5, skipped=True)
    np.testing.assert_array_equal(history.table()[0], before)
    np.testing.assert_array_equal(history.table()[1], [1, 0, 0, 1])
    assert history.steps == 2


def test_the_window_ends_and_restarts(monkeypatch):
    monkeypatch.setattr(row_history, "WINDOW_STEPS", 3)
    history = RowHistory(Momentum(0.9), 0.1)
    for _ in range(3):
        assert not history.full
        history.advance(0.1)
    assert history.full
    history.restart()
    assert history.steps == 0 and not history.full
    np.testing.assert_array_equal(history.table()[0], [1, 0, 0, 1])
